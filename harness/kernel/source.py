"""The source of a kernel: whatever it comes from, a tree in a git repository.

A Debian package, a tarball and a folder are put into a repository of cowpen's own; of a user's repository only objects
are read: what is not committed there, and every patched tree, goes into objects of our own beside it. So a source is
known by the identity of its tree, and a build tree can be turned from one into another by changing the files that
differ, and no others (`harness.kernel.buildtree`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from harness import tools
from harness.arch import host_arch
from harness.cache import MORE_ROOM, Cache, digest
from harness.deadline import Deadline
from harness.errors import BuildError, CowpenError, HostError, Tell, UserError
from harness.kernel.debian import download_package
from harness.process import Process

_FETCH_SECONDS = 1500.0
_UNPACK_SECONDS = 900.0
_GIT_SECONDS = 600.0
_FORMAT = "repository-1"  # another one when sources are kept differently
_LARGEST = 64 << 20  # bytes of one file that is to be kept; the largest of Linux 6.12 has 21 MB
_ROOM = 1 << 30  # for a kernel's source in a repository of ours; Linux 6.12 takes 0.4 GB
# Nothing of the user's own git configuration, and no lock or refreshed index left in a user's repository.
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
# It is somebody else's folder, perhaps, and only read. Quick to write: nothing here is worth an fsync or much zlib.
_SETTINGS = (
    "safe.directory=*",
    "core.compression=1",
    "core.fsync=none",
    "core.autocrlf=false",
    "core.fsmonitor=false",
    "core.sparseCheckout=false",
    "gc.auto=0",
)
# Of a git command, a hook or a shell that cowpen runs in.
_NOT_OURS = (
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_WORK_TREE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
_HUNK = re.compile(r"^error: (?:patch failed: (?P<at>\S+:\d+)|(?P<why>.*))$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Source:
    """One state of a kernel's source."""

    name: str
    """For people."""
    lineage: str
    """Sources of one lineage differ little: a build tree serves them all."""
    repository: Path
    """The git directory that holds the tree's objects."""
    tree: str
    """The tree's identity: the same content has the same."""
    objects: Path | None = None
    """Where other objects of it are, those that the repository is not to get."""
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    ours: bool = False
    """Whether cowpen chose it: an option that it does not know is our mistake then, not a foreign tree's nature."""

    def git(self, *words: str | Path, index: Path | None = None, work: Path | None = None) -> str:
        """What git says about this source's repository; objects that are made go beside it.

        ``index`` and ``work`` are git's index and work tree for this command. Raises `HostError`.
        """
        return _git(self.repository, *words, index=index, work=work, objects=self.objects)

    def patched(self, patches: Sequence[Path], cache: Cache) -> Source:
        """This source with patches, in their order; `BuildError` names the patch and the place that does not fit."""
        if not patches:
            return self
        source = dataclasses.replace(self, objects=self.objects or _own_objects(self.lineage, cache))
        with tempfile.TemporaryDirectory(prefix="cowpen-patch-") as temporary:
            index = Path(temporary) / "index"
            source.git("read-tree", source.tree, index=index)
            for patch in patches:
                try:
                    source.git("apply", "--cached", "--whitespace=nowarn", patch.absolute(), index=index)
                except CowpenError as error:
                    raise _does_not_apply(patch, self.name, error) from error
            tree = source.git("write-tree", index=index)
        return dataclasses.replace(source, tree=tree)


def debian_source(series: str, cache: Cache, tell: Tell) -> Source:
    """Debian's linux-source package of a series (``6.1``), the newest when it was first asked for.

    Fetched once, so that what is built from it stays comparable while the archive moves on. Raises `HostError` if the
    archive does not have it.
    """
    package = f"linux-source-{series}"

    def fetch(folder: Path) -> None:
        tell(f"fetching {package}, 140 MB")
        deb, chosen = download_package(package, host_arch(), cache, folder)
        tools.run(["dpkg-deb", "-x", deb, folder / "tree"], seconds=_UNPACK_SECONDS)
        (folder / f"tree/usr/src/{package}.tar.xz").rename(folder / "source.tar.xz")
        shutil.rmtree(folder / "tree")
        deb.unlink()
        provenance = {"package": package, "version": chosen.version, "sha256": chosen.sha256}
        (folder / "provenance.json").write_text(json.dumps(provenance) + "\n", encoding="utf-8")

    fetched = cache.entry(
        "sources", package, fetch, seconds=_FETCH_SECONDS, what=package, tell=tell, keep=True
    )
    provenance = json.loads((fetched / "provenance.json").read_text(encoding="utf-8"))
    repository = _imported(fetched / "source.tar.xz", provenance["sha256"], package, cache, tell)
    return Source(
        name=f"{package} {provenance['version']}",
        lineage=package,
        repository=repository,
        tree=_git(repository, "rev-parse", "source^{tree}"),
        provenance=provenance,
        ours=True,
    )


def user_source(where: Path, revision: str | None, cache: Cache, tell: Tell) -> Source:
    """A user's source: a git repository at ``revision`` or as it is now, another folder, or a tarball.

    Raises `UserError` if it is none of these, has no such revision, or holds no kernel.
    """
    if where.is_file() and revision is None:
        return tarball_source(where, cache, tell)
    if not where.is_dir():
        raise UserError(f"no folder {where}" if not where.exists() else f"{where} has no revisions")
    if revision is None and not _is_repository(where):
        return folder_source(where, cache)
    return git_source(where, revision, cache)


def _is_repository(folder: Path) -> bool:
    """Whether it is a bare repository or the top of one's work tree; a folder inside of another's is its own source."""
    try:
        return _look(folder).top.samefile(folder)
    except HostError:
        return False


class _Checkout(NamedTuple):
    """Where the parts of a user's repository are."""

    objects: Path
    """The git directory with objects and branches, which several work trees may share."""
    own: Path
    """The git directory of this work tree."""
    bare: bool
    top: Path
    """The work tree; of a bare repository the repository itself."""
    prefix: str
    """Of the folder that was asked about, below the top."""


def _look(folder: Path) -> _Checkout:
    """Raises `HostError` if the folder is in no repository."""

    def asked(*words: str) -> list[str]:
        return _git(None, "-C", folder, "rev-parse", "--path-format=absolute", *words).split("\n")

    bare, objects, own = asked("--is-bare-repository", "--git-common-dir", "--git-dir")
    # At the top the prefix is an empty line, and not there.
    top, prefix, *_ = [own, ""] if bare == "true" else [*asked("--show-toplevel", "--show-prefix"), ""]
    return _Checkout(Path(objects), Path(own), bare == "true", Path(top), prefix.rstrip("/"))


def tarball_source(tarball: Path, cache: Cache, tell: Tell) -> Source:
    """A kernel's tarball, packed in whatever way Python's tarfile reads; `UserError` if it holds no kernel."""
    key = digest(tarball)
    repository = _imported(tarball, key, tarball.name, cache, tell)
    source = Source(
        name=tarball.name,
        lineage=f"tarball-{key}",
        repository=repository,
        tree=_git(repository, "rev-parse", "source^{tree}"),
        provenance={"tarball": tarball.name, "sha256": key},
    )
    return _a_kernel(source, tarball)


def git_source(folder: Path, revision: str | None, cache: Cache) -> Source:
    """A revision of a user's git repository; without one its work tree as it is now, but for what it ignores.

    Of a folder in the repository only what is in that folder. Nothing is written there. Raises `UserError` if there is
    no such repository or revision.
    """
    try:
        repository, own, bare, top, prefix = _look(folder)
    except HostError as error:
        raise UserError(f"{folder} is no git repository", detail=error.detail) from error
    wanted = revision or "HEAD"
    try:
        # HEAD is a work tree's own, and branches are everybody's: so it is asked there.
        commit = _git(None, "-C", folder, "rev-parse", "--verify", "--end-of-options", f"{wanted}^{{commit}}")
    except HostError as error:
        raise UserError(
            f"{folder} has no revision {wanted!r}",
            mend="git log there shows which it has",
            detail=error.detail,
        ) from error
    lineage = f"git-{digest(str(repository), prefix)}" if prefix else f"git-{digest(str(repository))}"
    source = Source(
        name=f"{top.name}@{commit[:12]}",
        lineage=lineage,
        repository=repository,
        tree=_tree(repository, commit, prefix),
        provenance={"folder": str(folder.resolve()), "commit": commit},
    )
    if revision is None and not bare:
        objects = _own_objects(lineage, cache)
        tree = _added(repository, top, objects, known=own / "index", begin=source.tree)
        if tree != source.tree:
            changed = {**source.provenance, "changed": True}
            source = dataclasses.replace(
                source, name=f"{source.name} with changes", tree=tree, objects=objects, provenance=changed
            )
    return _a_kernel(source, folder)


def _tree(repository: Path, commit: str, prefix: str) -> str:
    try:
        return _git(repository, "rev-parse", "--verify", "--end-of-options", f"{commit}:{prefix}")
    except HostError as error:
        raise UserError(f"{commit[:12]} has no folder {prefix}", detail=error.detail) from error


def folder_source(folder: Path, cache: Cache) -> Source:
    """A folder that is no repository, as it is now, but for what the kernel's own .gitignore names."""
    repository = _own_objects(f"folder-{digest(str(folder.resolve()))}", cache).parent
    return _a_kernel(
        Source(
            name=folder.name,
            lineage=repository.name,
            repository=repository,
            tree=_added(repository, folder, None),
            provenance={"folder": str(folder.resolve())},
        ),
        folder,
    )


def _a_kernel(source: Source, where: Path) -> Source:
    names = source.git("ls-tree", "--name-only", source.tree).splitlines()
    if not {"Kbuild", "Kconfig", "Makefile"} <= set(names):
        raise UserError(
            f"{where} holds no kernel source", mend="name the folder with Kbuild, Kconfig and Makefile"
        )
    return source


def _own_objects(lineage: str, cache: Cache) -> Path:
    """The objects of cowpen's own repository for a lineage, which is made if need be."""
    repository = cache.root / "repositories" / lineage
    with cache.lock(f"repository-{lineage}", seconds=_GIT_SECONDS, what=str(repository)):
        if not (repository / "HEAD").exists():
            _git(None, "init", "--quiet", "--bare", repository)
        os.utime(repository)  # used just now, for `Cache.prune`
        cache.keep(repository)
    return repository / "objects"


def _added(
    repository: Path, work: Path, objects: Path | None, *, known: Path | None = None, begin: str | None = None
) -> str:
    """The tree of a work tree's files as they are, its objects in ``objects`` or in the repository itself.

    ``known``: the index of who works there; it tells which files did not change since the tree ``begin`` or later.
    """
    with tempfile.TemporaryDirectory(prefix="cowpen-index-") as temporary:
        index = Path(temporary) / "index"
        if known is not None and known.is_file():
            # A second instead of ten. With its time: git looks twice at files that changed at that time, or later.
            shutil.copy2(known, index)
        elif begin is not None:
            _git(repository, "read-tree", begin, index=index, objects=objects)
        _refuse_large(work, _git(repository, *_NEW_FILES, index=index, work=work, objects=objects))
        # Without a look at the repository's own objects: git would renew the times of those that it would write again.
        _git(repository, "add", "--all", ".", index=index, work=work, objects=objects, alone=True)
        return _git(repository, "write-tree", "--missing-ok", index=index, objects=objects, alone=True)


_NEW_FILES = ("ls-files", "--others", "--exclude-standard", "-z")


def _refuse_large(work: Path, names: str) -> None:
    """`UserError` for a disk image or a core that lies about in a work tree: all that git does not ignore is kept."""
    for name in filter(None, names.split("\0")):
        path = work / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size > _LARGEST:
            raise UserError(
                f"{path} is larger than {_LARGEST >> 20} MB: no kernel's source",
                mend="move it away, or name it in .git/info/exclude or .gitignore",
            )


def _imported(tarball: Path, key: str, name: str, cache: Cache, tell: Tell) -> Path:
    """The repository that holds what the tarball holds, as the branch ``source``."""

    def make(folder: Path) -> None:
        cache.require(_ROOM, f"unpack {name}")
        tell(f"unpacking {name}")
        _git(None, "init", "--quiet", "--bare", folder)
        argv = [tools.find("git"), *_options(), "fast-import", "--quiet", "--done"]
        env = _environment() | {"GIT_DIR": str(folder)}
        deadline = Deadline(_UNPACK_SECONDS, f"the import of {name}")
        with Process(argv, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                assert process.stdin is not None
                _feed(tarball, process.stdin, deadline)
                _, complaint = process.communicate(deadline.remaining)
            except BrokenPipeError:
                # It has ended, and says why: the disk is full, perhaps.
                _, complaint = process.communicate(deadline.remaining)
            except (tarfile.TarError, EOFError) as error:
                raise UserError(f"{tarball}: not a whole tarball ({error})") from error
            if process.wait(1) != 0:
                said = complaint.decode(errors="replace")
                last = said.strip().splitlines()[-1:]
                raise HostError(
                    f"git fast-import failed for {name}: {''.join(last)}", mend=MORE_ROOM, detail=said
                )

    where = digest(_FORMAT, key)
    return cache.entry("sources", where, make, seconds=_UNPACK_SECONDS, what=name, tell=tell, keep=True)


def _feed(tarball: Path, out: IO[bytes], deadline: Deadline) -> None:
    """Tell git fast-import what the tarball holds, without the folder that all of it is in."""
    out.write(b"commit refs/heads/source\ncommitter cowpen <cowpen> 0 +0000\ndata 0\n")
    with tarfile.open(tarball, "r|*") as archive:
        for member in archive:
            deadline.check()
            name = member.name.removeprefix("./").partition("/")[2].encode()
            file = archive.extractfile(member) if member.isreg() else None
            if not name or not (file or member.issym()):
                continue
            if member.size > _LARGEST:
                raise UserError(
                    f"{tarball}: {member.name} is larger than {_LARGEST >> 20} MB: no kernel's source"
                )
            content = file.read() if file else member.linkname.encode()
            mode = b"120000" if file is None else b"100755" if member.mode & 0o100 else b"100644"
            quoted = b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
            out.write(b"M %s inline %s\ndata %d\n%s\n" % (mode, quoted, len(content), content))
    out.write(b"done\n")
    out.flush()


def _does_not_apply(patch: Path, name: str, error: CowpenError) -> BuildError:
    places = [match["at"] for match in _HUNK.finditer(error.detail) if match["at"]]
    said = [match["why"] for match in _HUNK.finditer(error.detail) if match["why"]]
    where = f"at {', '.join(places)}" if places else "; ".join(said) or "git says nothing"
    return BuildError(
        f"{patch.name} does not apply to {name} ({where})",
        mend="make the patch anew for this source",
        detail=error.detail,
    )


def _options() -> list[str]:
    return [word for setting in _SETTINGS for word in ("-c", setting)]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _NOT_OURS} | _ENVIRONMENT


def _git(
    repository: Path | None,
    *words: str | Path,
    index: Path | None = None,
    work: Path | None = None,
    objects: Path | None = None,
    alone: bool = False,
) -> str:
    """What git prints; objects that it makes go to ``objects``, and unless ``alone`` it finds the repository's too."""
    env = _environment()
    for name, path in (("GIT_DIR", repository), ("GIT_INDEX_FILE", index), ("GIT_WORK_TREE", work)):
        if path is not None:
            env[name] = str(path)
    if objects is not None and repository is not None and objects.parent != repository:
        env["GIT_OBJECT_DIRECTORY"] = str(objects)
        if not alone:
            env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(repository / "objects")
    command = ["git", *_options(), *words]
    return tools.run(command, seconds=_GIT_SECONDS, cwd=work, env=env).stdout.strip()
