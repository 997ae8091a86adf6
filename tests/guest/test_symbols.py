"""What ``cowpen run`` shows of an attempt that ends in an oops of a real kernel, and lines which ``parse`` finds."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import module
import pytest
from trouble import Ended, cowpen, program

from harness.arch import get_arch
from harness.bug import Bug
from harness.cache import Cache
from harness.cli.progress import Progress
from harness.cli.run import guest_targets, run_trials
from harness.errors import ToolMissingError
from harness.guest.machine import MachineShape
from harness.kernel.build import build
from harness.kernel.definition import Definition
from harness.trial.subject import own_subject
from harness.trial.trial import Options
from tests.console.cases import KERNELS

pytestmark = pytest.mark.guest
SPEC = "debian:6.12"
ARCHES = pytest.mark.parametrize("arch", ["x86_64", "aarch64"])


def run(file: Path, arch: str, folder: Path, *more: str) -> Ended:
    words = ("run", "--program", file, "--arch", arch, "--keep", folder / "keep", *more)
    ended = cowpen(*words, folder=folder, seconds=300)
    assert ended.code == 1, ended.err
    return ended


@ARCHES
def test_run_shows_title_trace_and_log(arch: str, tmp_path: Path) -> None:
    """A panic of a stock kernel, for which there are no lines."""
    ended = run(program("sysrq_crash"), arch, tmp_path, "--attempts", "2", "--kernel", SPEC)
    (told,) = re.findall(
        r"(?m)^attempt 1: reproduced: kernel panic: sysrq triggered crash\n((?:    .*\n)+)", ended.err
    )
    *trace, log = told.splitlines()
    assert trace[0].startswith("    sysrq_handle_crash+0x")
    assert trace[1].startswith("    __handle_sysrq+0x")
    assert len(trace) == 4
    path = Path(log.removeprefix("    log: "))
    assert b"Kernel panic - not syncing: sysrq triggered crash" in path.read_bytes()
    assert "attempt 2:" not in ended.err, "the second has nothing new to say"


@pytest.mark.parametrize(
    ("function", "code", "outcome"),
    [("sysrq_handle_crash", 1, "reproduced"), ("copy_pte_range", 125, "other")],
)
def test_a_signature_tells_a_bug_from_another(
    function: str, code: int, outcome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same panic is this bug or another one: the functions of its trace decide."""
    record = {
        **{"id": "crash", "title": "a crash", "programs": [{"name": "sysrq_crash"}]},
        "signatures": [{"kind": "panic", "frames": [function]}],
    }
    subject = dataclasses.replace(own_subject(program("sysrq_crash"), {}), bug=Bug.model_validate(record))
    targets = guest_targets((SPEC,), ("x86_64",), base=MachineShape(), jobs=1, cold=False)
    options = Options(attempts=1, stop_on_first=False)
    assert run_trials([subject], targets, options, Progress(as_json=False), keep=tmp_path) == code
    title = "kernel panic: sysrq triggered crash"
    said = f"not this bug: {title}" if outcome == "other" else title
    assert f"attempt 1: {outcome}: {said}\n    sysrq_handle_crash+0x" in capsys.readouterr().err


@ARCHES
def test_lines_of_a_module(arch: str, tmp_path: Path, user_cache: Cache) -> None:
    """A module with debug information gives lines although the stock kernel has none; they are the right ones."""
    try:
        with_lines = module.build(get_arch(arch), SPEC, user_cache, debug=True)
    except ToolMissingError as error:
        pytest.skip(str(error))
    file = module.loader(with_lines, tmp_path, "null_deref")
    source = (module.SOURCES / "calamity.c").read_text().splitlines()
    culprit = next(n for n, line in enumerate(source, 1) if "WRITE_ONCE(*(volatile int *)NULL, 1)" in line)
    ended = run(file, arch, tmp_path, "--attempts", "1", "--kernel", SPEC)
    (log,) = re.findall(r"(?m)^    log: (.*)$", ended.err)
    assert re.search(r"(?m)^    null_deref\+0x\w+/0x\w+ \[calamity\]$", ended.err)

    ended = cowpen("parse", log, "--modules", with_lines.parent, "--json", folder=tmp_path, seconds=60)
    (finding, *_) = json.loads(ended.out)["findings"]
    frame = next(frame for frame in finding["frames"] if frame["function"] == "null_deref")
    assert frame["source"].endswith(f"/calamity.c:{culprit}"), finding
    marked = [line for line in finding["disassembly"] if ":*" in line]
    # The instruction that writes 1 to the address 0.
    assert len(marked) == 1
    assert re.search(r"movl \$0x1,0x0|str w\d+, \[x\d+\]", marked[0]), finding["disassembly"]
    text = cowpen("parse", log, "--modules", with_lines.parent, folder=tmp_path, seconds=60).out
    assert re.search(rf"(?m)^      null_deref\+0x\w+/0x\w+ \[calamity\] +\S+/calamity.c:{culprit}$", text)
    assert marked[0] in text


@pytest.mark.long
@ARCHES
def test_lines_of_a_built_kernel(arch: str, tmp_path: Path, user_cache: Cache) -> None:
    """Minutes, unless the cache has the kernel. Its lines are compared with its source."""
    wanted = KERNELS["6.12"]
    assert isinstance(wanted, Definition)
    recipe = wanted.recipe(get_arch(arch), user_cache, print)
    kernel = build(recipe, get_arch(arch), user_cache, print)
    ended = run(program("lkdtm_bug"), arch, tmp_path, "--attempts", "1", "--kernel", kernel.spec, "--json")
    (attempt,) = ended.records("attempt")
    frames = attempt["findings"][attempt["cause"]]["frames"]
    sources = {frame["function"]: frame["source"] for frame in frames}
    said = {
        "lkdtm_BUG": "BUG();",
        "lkdtm_do_action": "crashtype->func();",
        "direct_entry": "lkdtm_do_action(crashtype);",
    }
    # On arm64 lkdtm_BUG() makes no frame of its own, and without one its caller is not in the trace.
    assert said.keys() - sources.keys() <= {"lkdtm_do_action"}
    for function, text in ((name, text) for name, text in said.items() if name in sources):
        file, _, number = sources[function].partition(":")
        lines = recipe.source.git("show", f"{recipe.source.tree}:{file}").splitlines()
        assert text in lines[int(number) - 1], f"{function}: {sources[function]}"
        assert re.search(rf"(?m)^    {function}\+0x\w+/0x\w+ +{sources[function]}$", ended.err)
    assert all(source and not source.startswith("/") for source in sources.values()), sources
