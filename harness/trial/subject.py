"""What a trial runs: a program of a bug report, or a user's own reproducer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from harness.arch import Arch
from harness.bug import ALL_VARIANTS, Bug, BugProgram, load_bug
from harness.cache import Cache
from harness.errors import UserError, nearest
from harness.expectation import Expectation
from harness.guest.disk import FILE_SYSTEMS
from harness.guest.machine import Disk, MachineShape
from harness.kernel.definition import is_sound
from harness.program.compile import Compiled, compile_source, prepare
from harness.program.parameters import resolve
from harness.program.program import Program, load_program, user_program
from harness.trial.facts import KernelFacts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """One program with its settings, and the bug it stands for (None: a user's own reproducer)."""

    program: Program
    settings: Mapping[str, str]
    bug: Bug | None = None
    record: BugProgram | None = None
    """How the bug wants the program run; None with a user's own."""
    variant: str | None = None
    """Which of the record's variants ``record`` is; None: the program as it is."""
    symbols: tuple[str, ...] = ()
    """Kernel functions without which the user wants no attempt."""
    file: Path | None = None
    """The user's own reproducer."""
    disk: Disk = dataclasses.field(default_factory=Disk)
    """The /dev/vda that the user's own reproducer finds."""

    @property
    def name(self) -> str:
        """``rhbz-471613/forkscrew``, ``rhbz-471613/forkscrew:ext4``, or the name of the user's program."""
        name = f"{self.program.name}:{self.variant}" if self.variant else self.program.name
        return f"{self.bug.id}/{name}" if self.bug else name

    def with_seconds(self, seconds: float) -> Subject:
        """The same with another run time allowed, in seconds on a guest of speed 1.0."""
        return dataclasses.replace(self, program=dataclasses.replace(self.program, seconds=seconds))

    def with_symbols(self, symbols: tuple[str, ...]) -> Subject:
        """The same for kernels that have these functions only."""
        return dataclasses.replace(self, symbols=symbols)

    @property
    def wanted_symbols(self) -> tuple[str, ...]:
        """Kernel functions that the record or the user wants to be there."""
        return (*(self.record.symbols if self.record else ()), *self.symbols)

    def compile(self, arch: Arch, cache: Cache) -> Compiled:
        """The static binary for ``arch``; raises what the compiler gives (see `harness.program.compile`)."""
        if self.file is not None:
            return prepare(self.file, arch, cache, self.settings)
        values = resolve(self.program.parameters, self.settings, program=self.program.name)
        return compile_source(self.program, values, arch, cache)

    def shape(self, base: MachineShape) -> MachineShape:
        """The machine the bug asks for, on top of what the user asked for.

        A user's own reproducer gets a disk, as every program of the catalogue does.
        """
        modules = (*base.modules, *self.program.modules)
        if self.record is None:
            return dataclasses.replace(base, disks=(self.disk,), modules=modules)
        disks: tuple[Disk, ...] = ()
        if self.record.disk is not None:
            wanted = self.record.disk
            disks = (
                Disk(
                    size_mib=max(1, wanted.bytes >> 20),
                    read_delay_ms=wanted.read_delay_ms,
                    write_delay_ms=wanted.write_delay_ms,
                    filesystem=None if wanted.content == "zeros" else wanted.content,
                ),
            )
        return dataclasses.replace(
            base,
            cpus=max(base.cpus, self.record.cpus),
            memory_mib=max(base.memory_mib, self.record.memory_mib),
            numa_nodes=max(base.numa_nodes, self.record.numa_nodes),
            hugepages=max(base.hugepages, self.record.hugepages),
            disks=disks,
            modules=(*modules, *self.record.modules),
            kernel_arguments=(*base.kernel_arguments, *self.record.kernel_arguments),
        )

    def lacking(self, kernel: KernelFacts) -> str | None:
        """What the kernel's config lacks for this bug, in words; None if nothing, or if there is no config."""
        if self.record is None or kernel.config is None:
            return None
        lacking = [option for option in self.record.needs if kernel.config_value(option) is None]
        return f"{kernel.release} is built without {', '.join(lacking)}" if lacking else None

    def expectation(self, kernel: KernelFacts) -> Expectation | None:
        """What the catalogue expects of this kernel; nothing if the user changed the program's settings."""
        if self.bug is None or self.record is None or dict(self.settings) != self.record.settings:
            return None
        # What its version says of a kernel is not said of one with patches, a mutant perhaps: only its name counts,
        # unless its definition says that the patches change nothing of this.
        patched = kernel.provenance.get("patches") and not is_sound(kernel.spec)
        version = "" if patched else kernel.version
        return self.bug.expected(version, kernel.spec, kernel.arch.name, self.program.name, self.variant)


def bug_subjects(name: str, settings: Mapping[str, str]) -> list[Subject]:
    """The subjects that ``BUG[/PROGRAM][:VARIANT]`` names; `UserError` for unknown ones and wrong settings.

    Without a variant programs run as they are. ``all`` in its place: besides as each of their variants. Another name
    without a program: all programs that have such a variant.
    """
    whole, colon, variant = name.partition(":")
    bug_id, slash, program_name = whole.partition("/")
    bug = load_bug(bug_id)
    programs = [bug.program(program_name)] if slash else list(bug.programs)
    records = _records(bug, programs, variant if colon else None)
    subjects = []
    for chosen, record in records:
        program = load_program(record.name)
        # A setting must fit some program that is run, and goes to those it fits.
        fitting = {key: value for key, value in settings.items() if key in program.parameters}
        if len(records) == 1:
            fitting = dict(settings)
        merged = record.settings | fitting
        resolve(program.parameters, merged, program=program.name)
        subjects.append(Subject(program=program, settings=merged, bug=bug, record=record, variant=chosen))
    known = {key for subject in subjects for key in subject.program.parameters}
    for key in settings:
        if key not in known:
            raise UserError(
                f"no program of {bug.id} has a parameter {key!r}", mend=f"known: {', '.join(sorted(known))}"
            )
    return subjects


def _records(
    bug: Bug, programs: list[BugProgram], variant: str | None
) -> list[tuple[str | None, BugProgram]]:
    """How to run the programs, each beside the variant's name."""
    as_they_are: list[tuple[str | None, BugProgram]] = [(None, program) for program in programs]
    every = [(one.name, program.variant(one.name)) for program in programs for one in program.variants]
    if variant is None:
        return as_they_are
    if variant == ALL_VARIANTS:
        return [*as_they_are, *every]
    if chosen := [(name, record) for name, record in every if name == variant]:
        return list(chosen)
    if len(programs) == 1:
        programs[0].variant(variant)  # says what it has
    known = sorted({name for name, _ in every})
    raise UserError(
        f"no program of {bug.id} has a variant {variant!r}",
        mend=nearest(variant, known) if known else "none has any",
    )


def own_subject(file: Path, settings: Mapping[str, str], *, filesystem: str | None = None) -> Subject:
    """The subject of ``--program FILE``; ``filesystem`` is what its disk holds, None: zeros."""
    program = user_program(file)
    resolve(program.parameters, settings, program=program.name)
    return Subject(program=program, settings=dict(settings), file=file, disk=_own_disk(filesystem))


def _own_disk(filesystem: str | None) -> Disk:
    """A disk of the usual size, or of the least that its file system takes."""
    usual = Disk(filesystem=filesystem)
    least = FILE_SYSTEMS[filesystem].least_mib if filesystem else 0
    return dataclasses.replace(usual, size_mib=max(usual.size_mib, least))
