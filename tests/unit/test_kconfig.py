"""What Kconfig says about an option that was not taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.arch import AARCH64, X86_64
from harness.kernel.kconfig import missing, settings

KCONFIG = """\
mainmenu "Linux"
source "arch/$(SRCARCH)/Kconfig"

menu "Memory"
\tdepends on MMU

config KSM
\tbool "Enable KSM for page merging"
\tdepends on SWAP && \\
\t\t(NUMA || !SMP)
\thelp
\t  config HELP
\t    depends on NOTHING

\t  More of it.

config QUIET
\tbool
\tdefault y if KSM

if DEBUG_KERNEL

config DEBUG_VM
\tbool "Debug VM" if EXPERT

source "mm/Kconfig.debug"

endif # DEBUG_KERNEL

endmenu

choice
\tprompt "Pages"
\tdepends on ARM64

config PAGES_64K
\tbool "64K"
endchoice

config CPUS
\tint "CPUs" if NR > 4
\tdepends on $(cc-option,-mfoo) && WORD = "yes"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {
        "Kconfig": KCONFIG,
        "arch/x86/Kconfig": "config MMU\n\tdef_bool y\n",
        "arch/arm64/Kconfig": 'config CONTPTE\n\tbool "Contiguous"\n',
        "mm/Kconfig.debug": 'config PAGE_OWNER\n\tbool "Owners"\n\tdepends on STACKTRACE_SUPPORT\n',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def why(tree: Path, option: str, **got: str) -> str:
    values = {f"CONFIG_{name}": value for name, value in got.items()}
    (found,) = missing({f"CONFIG_{option}": "y"}, values, tree, X86_64)
    return found.why


def test_which_dependency_is_off(tree: Path) -> None:
    assert why(tree, "KSM", MMU="y", NUMA="y") == "depends on SWAP (Kconfig:7)"
    assert why(tree, "KSM", MMU="y", SWAP="y", SMP="y") == "depends on (NUMA || !SMP) (Kconfig:7)"
    assert why(tree, "KSM") == "depends on MMU && SWAP (Kconfig:7)"


def test_conditions_are_inherited(tree: Path) -> None:
    assert why(tree, "DEBUG_VM", MMU="y") == "depends on DEBUG_KERNEL && EXPERT (Kconfig:23)"
    assert why(tree, "PAGE_OWNER", MMU="y", DEBUG_KERNEL="y") == (
        "depends on STACKTRACE_SUPPORT (mm/Kconfig.debug:1)"
    )
    assert why(tree, "PAGES_64K") == "depends on ARM64 (Kconfig:36)"


def test_comparisons_and_questions_to_the_compiler(tree: Path) -> None:
    assert why(tree, "CPUS", NR="4", WORD='"yes"') == "depends on NR > 4 (Kconfig:40)"
    assert why(tree, "CPUS", NR="8") == 'depends on WORD = "yes" (Kconfig:40)'


def test_options_nobody_can_set_or_has(tree: Path) -> None:
    assert why(tree, "QUIET", MMU="y") == "nobody can set it, only other options do (Kconfig:17)"
    assert (
        why(tree, "KSN")
        == "this source has no such option: did you mean CONFIG_KSM, CONFIG_CPUS, CONFIG_MMU?"
    )
    assert "no such option" in why(tree, "HELP"), "words of a help text are no option"
    assert "no such option" in why(tree, "CONTPTE"), "another architecture's"
    (found,) = missing({"CONFIG_CONTPTE": "y"}, {}, tree, AARCH64)
    assert found.known


def test_an_option_that_another_one_switches_on(tree: Path) -> None:
    (found,) = missing(
        {"CONFIG_KSM": "n"}, settings("CONFIG_KSM=y\nCONFIG_MMU=y\nCONFIG_SWAP=y\n"), tree, X86_64
    )
    assert found.why.startswith("it is y, though all it depends on is there (Kconfig:7)")


def test_what_is_as_it_was_asked_for_needs_no_reason(tree: Path) -> None:
    wanted = settings('CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x=y"\n# CONFIG_GONE is not set\n')
    assert wanted == {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": '"x=y"', "CONFIG_GONE": "n"}
    assert missing(wanted, settings('CONFIG_A=y\nCONFIG_C="x=y"\n'), tree, X86_64) == []


def test_files_that_include_themselves_end(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text('source "Kconfig"\nconfig A\n\tbool "a"\n')
    assert "it is n" in why(tmp_path, "A")


@given(st.text(alphabet="ABy ()!&|=<>\"'$\n\t\\", max_size=80))
def test_no_expression_surprises(text: str) -> None:
    from harness.kernel.kconfig import _conjuncts, _holds

    for part in _conjuncts(text):
        assert _holds(part, {"CONFIG_A": "y"}) in (True, False)
