"""What a user installs: the wheel holds the data, and works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from harness import tools

ROOT = Path(__file__).resolve().parents[2]
DATA = ("bugs", "guest-programs", "kernels")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, ROOT, cwd=folder)
    (file,) = folder.glob("cowpen-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment's bin/ with the wheel in it.

    The dependencies come from this test's own environment, by a path file: what an editable install of cowpen
    left there is itself a path file, and those are not read from there.
    """
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    site = next(folder.glob("lib/python3*/site-packages"))
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(here)) + "\n")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=folder)
    return folder / "bin"


@pytest.mark.slow
def test_the_wheel_holds_every_data_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        f"harness/data/{path.relative_to(ROOT)}"
        for name in DATA
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(tracked) > 10
    assert tracked <= held
    assert "harness/debian-packages.txt" in held
    assert not [name for name in held if name.startswith(("tests/", "bench/", "docs/"))]


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    python = installed / "python"
    assert str(installed.parent) in run(python, "-c", "import harness; print(harness.__file__)", cwd=tmp_path)
    assert "Commands:" in run(installed / "cowpen", "--help", cwd=tmp_path)
    assert "rhbz-471613" in run(installed / "cowpen", "bugs", cwd=tmp_path)
    programs = "from harness.program.program import list_programs; print(list_programs())"
    assert "forkscrew" in run(python, "-c", programs, cwd=tmp_path)


@pytest.mark.slow
def test_the_wheel_gives_pytest_the_plugin(installed: Path, tmp_path: Path) -> None:
    pytest_ = (installed / "python", "-m", "pytest")
    assert "@pytest.mark.bug(id, " in run(*pytest_, "--markers", cwd=tmp_path)
    collected = run(*pytest_, "--bug", "rhbz-471613", "--collect-only", "-q", cwd=tmp_path)
    assert "cowpen::rhbz-471613[forkscrew-debian:6.12-" in collected


# --- .ci/packages.sh: what `make setup` does before anything else is there -----------------------------------


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The bin/ of a host that has nothing but what packages.sh itself is made of, and a log of installations."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sed", "grep", "tr", "dirname", "cat", "env", "rm", "tee", "chmod"):
        (folder / name).symlink_to(tools.find(name))
    fake(folder, "uname", "echo x86_64")
    fake(folder, "id", "echo 0")
    fake(folder, "dpkg-query", f"cat {tmp_path}/installed")
    fake(folder, "apt-get", f'echo "$@" >> {tmp_path}/apt.log')
    fake(folder, "systemctl", "exit 0")
    (tmp_path / "installed").write_text("")
    return tmp_path


def packages_sh(host: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / ".ci" / "packages.sh")],
        env={"PATH": str(host / "bin")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def dpkg_says(host: Path, *packages: str) -> None:
    (host / "installed").write_text("".join(f"installed {package}, \n" for package in packages))


# openssh-server is installed by no test here: on a host with systemd that writes below /usr/sbin.
ALL = [package.name for package in tools.packages()]


def installs(host: Path) -> list[str]:
    log = host / "apt.log"
    return log.read_text().splitlines() if log.exists() else []


def test_nothing_missing_needs_no_apt_and_no_root(host: Path) -> None:
    dpkg_says(host, *ALL)
    (host / "bin" / "apt-get").unlink()
    fake(host / "bin", "id", "echo 1000")
    done = packages_sh(host)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_what_is_missing_is_installed(host: Path) -> None:
    dpkg_says(host, *(name for name in ALL if name not in ("nbdkit", "gcc")))
    assert packages_sh(host).returncode == 0
    update, install = installs(host)
    assert "update" in update.split()
    assert install.split()[-2:] == ["nbdkit", "gcc"]


def test_a_package_that_stands_in_counts(host: Path) -> None:
    dpkg_says(host, *(name for name in ALL if name != "libarchive13"))
    with (host / "installed").open("a") as file:
        file.write("installed libarchive13t64, libarchive13 (= 3.7.4-4)\n")
    assert packages_sh(host).returncode == 0
    assert installs(host) == []


def test_a_command_from_elsewhere_counts(host: Path) -> None:
    dpkg_says(host, *(name for name in ALL if name != "nbdkit"))
    fake(host / "bin", "nbdkit", "exit 0")
    assert packages_sh(host).returncode == 0
    assert installs(host) == []


def test_a_removed_package_does_not_count(host: Path) -> None:
    dpkg_says(host, *(name for name in ALL if name != "nbdkit"))
    with (host / "installed").open("a") as file:
        file.write("config-files nbdkit, \n")
    assert packages_sh(host).returncode == 0
    assert installs(host)[-1].endswith("nbdkit")


def test_neither_root_nor_sudo_says_what_to_type(host: Path) -> None:
    dpkg_says(host, *(name for name in ALL if name != "nbdkit"))
    fake(host / "bin", "id", "echo 1000")
    done = packages_sh(host)
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends nbdkit" in done.stderr
    assert installs(host) == []


def test_sudo_only_when_not_root(host: Path) -> None:
    dpkg_says(host, *(name for name in ALL if name != "nbdkit"))
    fake(host / "bin", "sudo", f'echo sudo >> {host}/apt.log; exec "$@"')
    assert packages_sh(host).returncode == 0
    assert "sudo" not in installs(host)
    fake(host / "bin", "id", "echo 1000")
    assert packages_sh(host).returncode == 0
    assert installs(host).count("sudo") == 2


def test_on_arm64_the_foreign_compiler_is_the_other_one(host: Path) -> None:
    swap = {
        "gcc-aarch64-linux-gnu": "gcc-x86-64-linux-gnu",
        "libc6-dev-arm64-cross": "libc6-dev-amd64-cross",
        "binutils-aarch64-linux-gnu": "binutils-x86-64-linux-gnu",
    }
    dpkg_says(host, *(name for name in ALL if name not in swap))
    fake(host / "bin", "uname", "echo aarch64")
    assert packages_sh(host).returncode == 0
    assert installs(host)[-1].split()[-len(swap) :] == list(swap.values())


def test_apt_trouble_is_trouble(host: Path) -> None:
    dpkg_says(host, *(name for name in ALL if name != "nbdkit"))
    fake(host / "bin", "apt-get", "exit 100")
    assert packages_sh(host).returncode == 100


def test_another_distribution_is_told_what_is_missing(host: Path) -> None:
    (host / "bin" / "dpkg-query").unlink()
    done = packages_sh(host)
    assert done.returncode == 1
    assert "qemu-system-x86_64" in done.stderr
    assert "not a Debian system" in done.stderr
    for package in tools.packages():
        for command in package.commands:
            if not command.startswith("/") and not (host / "bin" / command).exists():
                fake(host / "bin", command, "exit 0")
    done = packages_sh(host)
    missing = [name for name in done.stderr.split() if name.startswith("/")]
    # /usr/sbin/sshd cannot be faked here: it is on this host or not.
    assert done.returncode == (1 if missing else 0)
