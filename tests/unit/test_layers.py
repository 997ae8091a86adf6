"""The shape of the package: imports run one way, modules stay readable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "harness"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A layer may import from lower layers and from itself. Layers of the same height do not know each other.
# A module directly in harness/ is of the base, but for the catalogue: a bug's signatures speak of findings.
HEIGHT = {
    **{"base": 0, "console": 1, "program": 1, "kernel": 1, "guest": 2, "bug": 2, "trial": 3},
    **{"cli": 4, "pytest_plugin": 4},
}

LONGEST = 600


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def imports(path: Path) -> Iterator[str]:
    """The modules of harness that ``path`` imports anywhere in it, as far as they exist."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from harness import tools` imports the module harness.tools
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            wanted = [name if name in NAMES else node.module for name in wanted]
        else:
            continue
        yield from (name for name in wanted if name in NAMES)


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in HEIGHT else "base"


def wrong_way(importer: str, imported: str) -> bool:
    ours, theirs = layer(importer), layer(imported)
    return ours != theirs and HEIGHT[theirs] >= HEIGHT[ours]


def test_the_rule_can_fail() -> None:
    assert wrong_way("harness.kernel.spec", "harness.guest.guest")
    assert wrong_way("harness.errors", "harness.console.display")
    assert wrong_way("harness.program.compile", "harness.kernel.spec")
    assert not wrong_way("harness.guest.guest", "harness.kernel.kernel")


def test_every_folder_is_a_layer() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(HEIGHT) - {"base", "bug"}
    assert {"harness.bug", "harness.errors"} <= NAMES


def test_imports_run_one_way() -> None:
    pairs = [(name_of(path), imported) for path in MODULES for imported in imports(path)]
    assert len(pairs) > 50, "the imports are not found any more"
    wrong = [
        f"{importer} imports {imported}" for importer, imported in pairs if wrong_way(importer, imported)
    ]
    assert not wrong


def test_no_circle_of_imports() -> None:
    graph = {name_of(path): set(imports(path)) - {name_of(path)} for path in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError and names the circle


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST, "split it after the things it holds"
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "say in a docstring what the module holds"
