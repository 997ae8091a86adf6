"""Programs: loading, parameters, templates, compilation."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arch import AARCH64, ARCHES, X86_64, host_arch
from harness.cache import Cache
from harness.errors import BuildError, UserError
from harness.folders import data_folder
from harness.program import parameters as par
from harness.program.compile import Compiled, compile_program, compile_source, prepare
from harness.program.parameters import resolve
from harness.program.program import list_programs, load_program, user_program
from harness.program.record import corruption_title, parse_records
from harness.program.template import c_literal, c_string, render

NATIVE = host_arch()


def need(command: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def smoke(cache: Cache, **given: par.Value) -> Compiled:
    need(NATIVE.compiler())
    program = load_program("smoke")
    return compile_source(program, resolve(program.parameters, given, program="smoke"), NATIVE, cache)


# Loading


def test_the_programs_are_listed_and_folders_without_program_toml_are_not() -> None:
    names = list_programs()
    assert {"dma_thread", "forkscrew", "smoke"} <= set(names)
    assert "common" not in names


@pytest.mark.parametrize("name", list_programs())
def test_every_program_is_described_and_its_defaults_render(name: str) -> None:
    program = load_program(name)
    assert program.about.endswith(".")
    source = render(program, resolve(program.parameters, {}, program=name))
    for marks in ("/*%", "%*/", "/*{", "}*/"):
        assert marks not in source
    assert source.count("int main(") == 1


@pytest.mark.parametrize("name", ["forkscru", "../smoke", "common", "", "smoke/"])
def test_an_unknown_program_is_a_user_mistake(name: str) -> None:
    with pytest.raises(UserError, match="unknown program"):
        load_program(name)


def test_the_nearest_program_is_named() -> None:
    with pytest.raises(UserError, match="did you mean forkscrew"):
        load_program("forkscru")


# Parameters


def test_defaults_and_given_values_keep_the_order_of_the_declaration() -> None:
    declared = load_program("forkscrew").parameters
    values = resolve(declared, {"rounds": "0x10"}, program="forkscrew")
    assert list(values) == list(declared)
    assert values == {
        **{"device": "/dev/vda", "alignment": 512, "rounds": 16},
        **{"memory": "anonymous", "load": 0},
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "alignment",
            "700",
            "forkscrew: alignment must be a whole number 0…65536, a multiple of 512, not '700'",
        ),
        ("alignment", "-512", "must be a whole number 0…65536"),
        ("alignment", "many", "not 'many'"),
        ("alignment", "", "must be a whole number"),
        ("device", "a\0b", "without NUL"),
        ("device", "x" * 5000, "at most 4095 bytes"),
        ("aligment", "512", "forkscrew has no parameter 'aligment': did you mean alignment"),
    ],
)
def test_a_wrong_value_names_program_parameter_range_and_value(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(load_program("forkscrew").parameters, {name: text}, program="forkscrew")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("given_value", "value"), [("yes", True), ("OFF", False), (True, True), ("0", False), ("1", True)]
)
def test_booleans_come_as_words_or_from_toml(given_value: par.Value, value: bool) -> None:
    assert (
        resolve(load_program("smoke").parameters, {"record": given_value}, program="smoke")["record"] is value
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("crash", "sigsegv"), ("sleep_seconds", "nan"), ("sleep_seconds", "inf"), ("spin", "2")],
)
def test_values_outside_of_their_type_are_refused(name: str, text: str) -> None:
    with pytest.raises(UserError, match=f"smoke: {name} must be"):
        resolve(load_program("smoke").parameters, {name: text}, program="smoke")


@pytest.mark.parametrize(
    ("toml", "place"),
    [
        (
            'type = "int"\ndefault = 5\nmin = 10\nhelp = "h"',
            "default must be a whole number, at least 10, not 5",
        ),
        ('type = "integer"\ndefault = 5\nhelp = "h"', "parameters.n"),
        ('type = "int"\ndefault = "x"\nhelp = "h"', "parameters.n.int.default"),
        ('type = "choice"\ndefault = "c"\nchoices = ["a"]\nhelp = "h"', "default must be one of a"),
        ('type = "int"\ndefault = 5', "parameters.n.int.help"),
        ('type = "int"\ndefault = 5\nhelp = "h"\nmaximum = 3', "parameters.n.int.maximum"),
    ],
)
def test_a_wrong_declaration_names_file_and_key(tmp_path: Path, toml: str, place: str) -> None:
    (tmp_path / "x.c.j2").write_text("")
    (tmp_path / "x.toml").write_text(f"[parameters.n]\n{toml}\n")
    with pytest.raises(UserError) as caught:
        user_program(tmp_path / "x.c.j2")
    assert str(tmp_path / "x.toml") in str(caught.value)
    assert place in str(caught.value)


# Templates


@given(st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=60))
def test_string_literals_are_plain_ascii_and_end_where_they_should(text: str) -> None:
    literal = c_string(text)
    assert literal.isascii() and literal.isprintable()
    body = literal[1:-1]
    # What a C compiler makes of it; latin-1 as the escapes are bytes. Python has the same escapes.
    assert body.encode().decode("unicode_escape").encode("latin-1") == text.encode()
    assert '"' not in body.replace("\\\\", "").replace('\\"', "")
    assert "??" not in body


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(blacklist_characters="\0\r", codec="utf-8"), max_size=40))
def test_a_string_parameter_reaches_the_program_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    need(NATIVE.compiler())
    folder = tmp_path_factory.mktemp("echo")
    (folder / "echo.toml").write_text('[parameters.word]\ntype = "string"\ndefault = ""\nhelp = "a */ b"\n')
    (folder / "echo.c.j2").write_text(
        "#include <stdio.h>\nint main(void) { fputs(PARAM_WORD, stdout); return 0; }\n"
    )
    made = prepare(folder / "echo.c.j2", NATIVE, Cache(folder / "cache"), {"word": text})
    assert made.warnings == ""
    assert subprocess.run([made.binary], capture_output=True, timeout=20, check=True).stdout == text.encode()


def test_literals() -> None:
    assert [c_literal(v) for v in (True, False, 7, -7, 0.5, -1e300)] == [
        "1",
        "0",
        "7",
        "(-7)",
        "0.5",
        "(-1e+300)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int x;\n/*% if %*/", ":2: "),
        ("/*{ missing }*/", "'missing' is undefined"),
        ('/*% include "common/nothing.h" %*/', "common/nothing.h"),
        ('/*% include "../../etc/passwd" %*/', "../../etc/passwd"),
        ("/*{ 1 // 0 }*/", "zero"),
    ],
)
def test_a_wrong_template_is_a_user_mistake_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.c.j2").write_text(text)
    with pytest.raises(UserError) as caught:
        render(user_program(tmp_path / "x.c.j2"), {})
    assert "x.c.j2" in str(caught.value) and message in str(caught.value)


def test_the_generated_file_stands_alone(tmp_path: Path) -> None:
    need(NATIVE.compiler())
    program = load_program("forkscrew")
    (tmp_path / "forkscrew.c").write_text(
        render(program, resolve(program.parameters, {}, program="forkscrew"))
    )
    text = (tmp_path / "forkscrew.c").read_text()
    assert '#include "' not in text
    # As its own header comment says, in a folder with nothing else.
    command = next(line for line in text.splitlines() if line.startswith(" *     gcc")).removeprefix(
        " *     gcc"
    )
    subprocess.run([NATIVE.compiler(), *command.split(), "-Werror"], cwd=tmp_path, timeout=60, check=True)


# Compilation

CORNERS: dict[str, list[dict[str, par.Value]]] = {
    "forkscrew": [
        {},
        {"alignment": 0},
        {"alignment": 65536, "rounds": 100000},
        {"memory": "hugetlb", "load": 64},
    ],
    "dma_thread": [
        {},
        {"alignment": 0, "workers": 256, "files": 100, "file_mib": 1024},
        {"memory": "hugetlb", "load": 64},
    ],
    "direct_write_fork": [
        {},
        {"writer": "child", "way": "unmap", "memory": "hugetlb"},
        {"writes": 128, "rounds": 100000},
    ],
    "async_fork_stress": [{}],
    "cow_writers": [{}, {"threads": 256, "blocks": 4096, "rounds": 100000}],
    "dirty_cow": [
        {},
        {"shmem": True, "prove": True},
        {"lost": 1000000, "rounds": 1000000000, "seed": 2**32 - 1},
    ],
    "direct_pin_fork": [{}, {"device": "/mnt/file", "rounds": 1000000, "seed": 2**32 - 1}],
    "everyday": [{}],
    "exec_migrate": [{}, {"rounds": 1000000, "source": "compaction"}],
    "fork_batch": [{}, {"kib": 64}, {"kib": 1048576}],
    "fork_lost_write": [{}, {"rounds": 1000000, "mib": 65536, "seed": 2**32 - 1}],
    "fork_mthp": [{}, {"kib": 64, "seed": 2**32 - 1}, {"kib": 1048576, "milliseconds": 86400000}],
    "fork_stale_pte": [{}, {"pages": 65536, "rounds": 1000000, "seed": 2**32 - 1}],
    "fork_tear": [{}, {"where": "hugetlb", "pinned": False, "pages": 4096, "rounds": 1000000}],
    "fork_tlb": [{}, {"rounds": 100000}],
    "fork_time": [{}],
    "gup_fast_fork": [{}, {"rounds": 1000000}],
    "ksm_fork": [{}, {"kinds": "direct", "prove": True}, {"turns": 1000}],
    "mprotect_migrate": [{}, {"rounds": 1000000}],
    "pin_async_fork": [{}],
    "pinned_fork": [{}, {"kinds": "hugetlb"}],
    "readonly_pinned_fork": [{}, {"kinds": "base+thp"}],
    "vmsplice_leak": [{}, {"kinds": "base+thp"}],
    "pthread_read_and_fork": [{}, {"threads": 2048, "rounds": 100000}, {"memory": "hugetlb", "load": 64}],
    "threads_fork": [{}, {"rounds": 100000, "mib": 65536}],
    "uffd_fork": [{}, {"kinds": "anonymous"}],
    "vma_migrate": [{}, {"source": "mbind", "rounds": 1000000, "milliseconds": 86400000, "seed": 2**32 - 1}],
    "smoke": [
        {},
        {"lines": 0, "exit": 4},
        {"spin": True, "record": True, "crash": "segv", "sleep_seconds": 0.5},
    ],
}


def test_every_program_has_its_corners() -> None:
    assert CORNERS.keys() == set(list_programs())


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHES.values(), ids=lambda arch: arch.name)
@pytest.mark.parametrize(("name", "values"), [(name, v) for name, sets in CORNERS.items() for v in sets])
def test_programs_compile_without_warnings(
    name: str, values: dict[str, par.Value], arch: object, user_cache: Cache
) -> None:
    """With warnings they do not compile, and only what compiled is in the user's cache: so once is enough."""
    assert isinstance(arch, type(X86_64))
    need(arch.compiler())
    program = load_program(name)
    made = compile_source(program, resolve(program.parameters, values, program=name), arch, user_cache)
    assert made.warnings == ""
    assert made.command[0] == arch.compiler()
    # Judged by the same check as a user's binary: the right machine, and nothing else needed.
    assert prepare(made.binary, arch, user_cache, {}).binary == made.binary.resolve()


def test_a_second_compilation_comes_from_the_cache(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    first = smoke(cache, lines=3)
    before = first.binary.stat().st_mtime_ns
    monkeypatch.setattr("harness.program.compile._run", lambda *_: pytest.fail("compiled again"))
    assert smoke(cache, lines=3) == first
    assert first.binary.stat().st_mtime_ns == before


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = smoke(Cache(tmp_path / "a")), smoke(Cache(tmp_path / "b"))
    assert one.binary != other.binary
    assert one.binary.read_bytes() == other.binary.read_bytes()


def test_an_error_is_told_by_the_compilers_first_error_line(cache: Cache) -> None:
    need(NATIVE.compiler())
    source = "#warning hello\nint main(void) { return nothing; }\nint other = nowhere;\n"
    with pytest.raises(BuildError) as caught:
        compile_program(source, "bad", NATIVE, cache, flags=())
    assert "bad.c:2:" in caught.value.message
    assert "nothing" in caught.value.message and "nowhere" not in caught.value.message
    assert "hello" in caught.value.detail and "nowhere" in caught.value.detail


def test_a_linker_error_is_told_too(cache: Cache) -> None:
    need(NATIVE.compiler())
    with pytest.raises(BuildError, match="bad does not compile: undefined reference to"):
        compile_program("int f(void); int main(void) { return f(); }", "bad", NATIVE, cache)


# A user's own


def test_a_users_file_is_compiled_without_werror_and_its_warnings_kept(tmp_path: Path, cache: Cache) -> None:
    need(NATIVE.compiler())
    (tmp_path / "mine.c").write_text("int main(int c, char **v) { int unused; return 7; }\n")
    made = prepare(tmp_path / "mine.c", NATIVE, cache, {})
    assert "mine.c:1" in made.warnings
    assert made == prepare(tmp_path / "mine.c", NATIVE, cache, {})  # warnings survive in the cache
    assert subprocess.run([made.binary], timeout=20, check=False).returncode == 7


def test_a_changed_header_beside_a_users_file_is_noticed(tmp_path: Path, cache: Cache) -> None:
    need(NATIVE.compiler())
    (tmp_path / "mine.c").write_text('#include "status.h"\nint main(void) { return STATUS; }\n')
    for status in (3, 5):
        (tmp_path / "status.h").write_text(f"#define STATUS {status}\n")
        made = prepare(tmp_path / "mine.c", NATIVE, cache, {})
        assert subprocess.run([made.binary], timeout=20, check=False).returncode == status


def test_a_users_template_has_its_parameters(tmp_path: Path, cache: Cache) -> None:
    need(NATIVE.compiler())
    (tmp_path / "mine.toml").write_text(
        'seconds = 3\n[parameters.n]\ntype = "int"\ndefault = 1\nhelp = "h"\n'
    )
    (tmp_path / "mine.c.j2").write_text(
        '/*% include "common/status.h" %*/\nint main(void) { return /*{ n }*/; }\n'
    )
    made = prepare(tmp_path / "mine.c.j2", NATIVE, cache, {"n": "9"})
    assert subprocess.run([made.binary], timeout=20, check=False).returncode == 9
    assert user_program(tmp_path / "mine.c.j2").seconds == 3


def test_parameters_for_a_plain_file_are_refused(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "mine.c").write_text("int main(void) { return 0; }\n")
    with pytest.raises(UserError, match="mine has no parameter 'n'"):
        prepare(tmp_path / "mine.c", NATIVE, cache, {"n": "9"})


def test_a_missing_file_is_a_user_mistake(tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(UserError, match="no such file"):
        prepare(tmp_path / "mine.c", NATIVE, cache, {})


def test_a_static_pie_is_a_program(tmp_path: Path, cache: Cache) -> None:
    need(NATIVE.compiler())
    (tmp_path / "x.c").write_text("int main(void) { return 0; }\n")
    subprocess.run([NATIVE.compiler(), "-static-pie", "-o", "x", "x.c"], cwd=tmp_path, timeout=60, check=True)
    assert prepare(tmp_path / "x", NATIVE, cache, {}) == Compiled(
        binary=tmp_path / "x", source=None, command=[]
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"\x7fELF", b"\x7fELF\x02\x01\x01" + b"\xff" * 100])
def test_what_is_no_binary_is_refused(tmp_path: Path, cache: Cache, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError):
        prepare(tmp_path / "x", X86_64, cache, {})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_binary_never_surprises(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(Path("/proc/self/exe").read_bytes()[:4096])
    for _ in range(8):
        whole[data.draw(st.integers(16, 600))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x"
    path.write_bytes(whole)
    with pytest.raises(UserError):
        prepare(path, NATIVE, Cache(path.parent), {})


def test_another_architectures_binary_is_named(tmp_path: Path, cache: Cache) -> None:
    foreign = AARCH64 if NATIVE is X86_64 else X86_64
    made = smoke(cache)
    with pytest.raises(UserError, match=f"built for {NATIVE.name}, not for {foreign.name}"):
        prepare(made.binary, foreign, cache, {})


@pytest.mark.parametrize(
    ("flags", "message"),
    [([], "link it with -static"), (["-c"], "object file"), (["-shared", "-fPIC", "-nostdlib"], "library")],
)
def test_a_binary_that_cannot_run_alone_is_refused(
    tmp_path: Path, cache: Cache, flags: list[str], message: str
) -> None:
    need(NATIVE.compiler())
    (tmp_path / "x.c").write_text("int main(void) { return 0; }\n")
    subprocess.run([NATIVE.compiler(), *flags, "-o", "x", "x.c"], cwd=tmp_path, timeout=60, check=True)
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / "x", NATIVE, cache, {})


# The programs themselves, on the host


def test_smoke_does_as_it_is_told(cache: Cache) -> None:
    done = subprocess.run(
        [smoke(cache, exit=4, lines=2).binary], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 4
    assert done.stdout == "smoke line 1\nsmoke line 2\n"
    assert done.stderr.splitlines()[-1].startswith("unsupported: ")
    assert (
        subprocess.run(
            [smoke(cache, crash="segv").binary], capture_output=True, timeout=20, check=False
        ).returncode
        == -11
    )
    assert (
        subprocess.run(
            [smoke(cache, crash="abort").binary], capture_output=True, timeout=20, check=False
        ).returncode
        == -6
    )


def test_smokes_record_comes_through_a_pipe(cache: Cache) -> None:
    binary = smoke(cache, record=True, exit=1).binary
    reader, writer = os.pipe()
    try:
        environment = {"COWPEN_RECORD_FD": str(writer)}
        done = subprocess.run([binary], pass_fds=[writer], env=environment, timeout=20, check=False)
    finally:
        os.close(writer)
        data = os.read(reader, 65536)
        os.close(reader)
    assert done.returncode == 1
    (record,) = records = parse_records(data)
    assert records.garbage == 0
    page = os.sysconf("SC_PAGESIZE")
    assert (record.program, record.length, record.page_size) == ("smoke", 512, page)
    assert record.offset == record.offset_in_page == record.address % page == page - 512
    assert record.expected == bytes(16) and record.found == b"\x2a" * 16
    assert corruption_title(record, "smoke buffer") == "data corruption: stale bytes in smoke buffer (smoke)"


@pytest.mark.parametrize("variable", [None, "", "x", "77", "-1"])
def test_without_a_usable_descriptor_the_program_runs_all_the_same(
    cache: Cache, variable: str | None
) -> None:
    environment = {} if variable is None else {"COWPEN_RECORD_FD": variable}
    done = subprocess.run(
        [smoke(cache, record=True).binary],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0
    assert ("record lost" in done.stderr) == bool(variable)


def run_on(disk: Path, cache: Cache, name: str, **given: par.Value) -> subprocess.CompletedProcess[str]:
    need(NATIVE.compiler())
    program = load_program(name)
    values = resolve(program.parameters, {"device": str(disk), **given}, program=name)
    binary = compile_source(program, values, NATIVE, cache).binary
    return subprocess.run([binary], capture_output=True, text=True, timeout=120, check=False)


SEVENS, POISON = b"\7" * 65536, b"\x2a" * 65536


@pytest.mark.parametrize(
    ("name", "content", "given", "reason"),
    [
        ("forkscrew", bytes(65536), {"alignment": 65536}, "more than the page size"),
        ("forkscrew", POISON, {}, "0x2a"),
        ("forkscrew", bytes(512), {}, "too few"),
        ("forkscrew", bytes(131072), {"load": 1}, "too few"),
        ("dma_thread", b"", {"alignment": 65536}, "more than the page size"),
        ("dma_thread", b"", {}, "too few"),
        ("pthread_read_and_fork", SEVENS, {}, "nothing but the byte 7 in its sector 0"),
        ("pthread_read_and_fork", bytes(512), {}, "too few"),
        ("direct_write_fork", bytes(512), {}, "too few"),
    ],
)
def test_what_cannot_show_the_bug_is_unsupported(
    tmp_path: Path, cache: Cache, name: str, content: bytes, given: dict[str, par.Value], reason: str
) -> None:
    (tmp_path / "disk").write_bytes(content)
    done = run_on(tmp_path / "disk", cache, name, **given)
    assert done.returncode == 4, done
    last = done.stderr.splitlines()[-1]
    assert last.startswith("unsupported: ")
    # A file system without O_DIRECT is found out first.
    assert reason in last or "O_DIRECT" in last or os.sysconf("SC_PAGESIZE") == 65536
    assert (tmp_path / "disk").read_bytes() == content, "what is there is left as it is"


DIRECT_IO = ["forkscrew", "dma_thread", "pthread_read_and_fork", "direct_write_fork"]


@pytest.mark.parametrize("name", DIRECT_IO)
def test_a_file_that_cannot_be_made_is_unsupported(tmp_path: Path, cache: Cache, name: str) -> None:
    done = run_on(tmp_path / "folder" / "disk", cache, name)
    assert done.returncode == 4, done
    assert "disk: No such file" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs to be sure of")
@pytest.mark.parametrize("name", DIRECT_IO)
def test_no_file_in_memory_takes_the_place_of_a_disk(cache: Cache, name: str) -> None:
    disk = Path(f"/dev/shm/cowpen-{os.getpid()}")
    done = run_on(disk, cache, name)
    assert done.returncode == 4, done
    assert (
        done.stderr.splitlines()[-1] == f"unsupported: no device {disk}, and a file there would be in memory"
    )
    assert not disk.exists()


def test_dma_thread_without_shared_pages_is_clean_on_any_kernel(tmp_path: Path, cache: Cache) -> None:
    disk = tmp_path / "disk"
    done = run_on(disk, cache, "dma_thread", alignment=0, files=2, file_mib=1, rounds=2, workers=4)
    if "no O_DIRECT" in done.stderr:
        pytest.skip("no O_DIRECT on the temporary folder")
    assert done.returncode == 0, done
    assert done.stdout.startswith("clean: 4 MiB read by 4 workers beside ")
    assert disk.read_bytes() == b"\1" * 2**20 + b"\2" * 2**20


CHILD_THAT_HANGS = """\
/*% include "common/status.h" %*/
/*% include "common/child.h" %*/
int main(void)
{
	pid_t child = cowpen_fork();

	if (!child)
		for (;;)
			pause();
	printf("%d\\n", child);
	fflush(stdout);
	cowpen_reap(child);
	return COWPEN_CLEAN;
}
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_program_whose_child_hangs_hangs_itself(tmp_path: Path, cache: Cache, stopped: bool) -> None:
    """So that its deadline finds both, with the child as it was (rhbz-471613, comment 16)."""
    need(NATIVE.compiler())
    (tmp_path / "hangs.c.j2").write_text(CHILD_THAT_HANGS)
    binary = prepare(tmp_path / "hangs.c.j2", NATIVE, cache, {}).binary
    with subprocess.Popen([binary], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            if stopped:
                os.kill(child, signal.SIGSTOP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


CHECK = """\
/*% include "common/status.h" %*/
/*% include "common/record.h" %*/
/*% include "common/memory.h" %*/
/*% include "common/check.h" %*/
int main(void)
{
	unsigned char found[4096], expected[4096];
	struct cowpen_range range = { .worker = 5, .iteration = 6, .found = found, .expected = expected,
		.length = sizeof(found), .poison = 0xfa, .other_first = 1, .other_last = 4 };
	size_t first;

	memset(expected, 3, sizeof(expected));
	memset(found, 3, sizeof(found));
	if (cowpen_check(&range, &first) || first != sizeof(found))
		return 10;
	found[0] = 0xfa;			/* stale, at the very start */
	memset(found + 100, 0, 50);		/* zeros */
	memset(found + 200, 4, 20);		/* another file's */
	memset(found + 300, 9, 5);		/* nobody's */
	found[400] = 0; found[401] = 0xfa;	/* a mixture */
	memset(found + 4000, 0xfa, 96);		/* stale, to the very end */
	if (!cowpen_check(&range, &first) || first != 0)
		return 11;
	for (int i = 0; i < 40; i += 2)
		found[600 + i] = 1;
	cowpen_check(&range, &first);		/* more runs than are recorded */
	return 0;
}
"""


def test_every_run_of_wrong_bytes_is_recorded_with_its_origin(tmp_path: Path, cache: Cache) -> None:
    need(NATIVE.compiler())
    (tmp_path / "check.c.j2").write_text(CHECK)
    made = prepare(tmp_path / "check.c.j2", NATIVE, cache, {})
    assert made.warnings == ""
    with (tmp_path / "records").open("wb") as file:
        environment = {"COWPEN_RECORD_FD": str(file.fileno())}
        done = subprocess.run(
            [made.binary], pass_fds=[file.fileno()], env=environment, timeout=20, check=False
        )
    assert done.returncode == 0
    records = parse_records((tmp_path / "records").read_bytes())
    assert [(r.offset, r.length, r.guess) for r in records[:6]] == [
        (0, 1, "stale bytes"),
        (100, 50, "zeros"),
        (200, 20, "another page's bytes"),
        (300, 5, "wrong bytes"),
        (400, 2, "wrong bytes"),
        (4000, 96, "stale bytes"),
    ]
    assert (records[4].found, records[4].expected) == (b"\x00\xfa", b"\3\3")
    assert {(r.program, r.worker, r.iteration) for r in records} == {("check", 5, 6)}
    assert len(records) == 6 + 8


def test_the_header_is_found_where_the_programs_are() -> None:
    assert (data_folder("guest-programs") / "common" / "record.h").is_file()
