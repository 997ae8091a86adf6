"""From a program's template and its parameters to one C file that stands alone.

The delimiters make a template valid C to an editor: ``/*% if … %*/``, ``/*{ value }*/``, ``/*# comment #*/``.
A template seldom needs them but to include the common headers: the parameters arrive as macros ``PARAM_NAME``,
and are Jinja variables under their own names as well. ``COWPEN_PROGRAM`` is the program's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness import __version__
from harness.errors import UserError
from harness.folders import data_folder
from harness.program.parameters import Value
from harness.program.program import Program

if TYPE_CHECKING:
    import jinja2

FLAGS = ("-std=gnu11", "-O2", "-g", "-static", "-pthread", "-Wall", "-Wextra")
"""How every program is compiled; cowpen's own with ``-Werror`` besides."""

_BYTES = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\t"): "\\t"}


def c_string(text: str) -> str:
    """``text`` as a C string literal, quotes included; the bytes are UTF-8."""
    parts = []
    for byte in text.encode("utf-8", "surrogateescape"):
        # Octal escapes have at most three digits, so what follows never joins them; "?" would make trigraphs.
        plain = 0x20 <= byte < 0x7F and byte != ord("?")
        parts.append(_BYTES.get(byte) or (chr(byte) if plain else f"\\{byte:03o}"))
    return '"' + "".join(parts) + '"'


def c_literal(value: Value) -> str:
    """A parameter's value as a C expression."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str):
        return c_string(value)
    return f"({value!r})" if value < 0 else repr(value)


def _comment(text: str) -> str:
    """``text`` on one line that cannot end a C comment, nor start one (-Wcomment)."""
    return " ".join(text.split()).replace("*/", "* /").replace("/*", "/ *")


def _preamble(program: Program, values: Mapping[str, Value]) -> str:
    name = program.name
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */" if _is_ours(program) else "",
        "/*",
        f" * {name}: {_comment(program.about)}",
        " *",
        f" * Written by cowpen {__version__} from its template, to be compiled and run by itself:",
        " *",
        f" *     gcc {' '.join(FLAGS)} -o {name} {name}.c",
        f" *     ./{name}; echo $?",
        " *",
        " * Exit status: 0 clean, 1 reproduced, 4 unsupported (see standard error); anything else is trouble.",
        " */",
        "#ifndef _GNU_SOURCE",
        "#define _GNU_SOURCE",
        "#endif",
        f"#define COWPEN_PROGRAM {c_string(name)}",
        "",
    ]
    for key, value in values.items():
        parameter = program.parameters[key]
        lines.append(f"/* {_comment(f'{parameter.help} ({parameter.expected()})')} */")
        lines.append(f"#define PARAM_{key.upper()} {c_literal(value)}")
    return "\n".join(lines).lstrip("\n") + "\n\n"


def _is_ours(program: Program) -> bool:
    return program.folder.parent == data_folder("guest-programs")


def _environment(program: Program) -> jinja2.Environment:
    import jinja2  # noqa: PLC0415  # only needed when something is compiled

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([program.folder, data_folder("guest-programs")]),
        block_start_string="/*%",
        block_end_string="%*/",
        variable_start_string="/*{",
        variable_end_string="}*/",
        comment_start_string="/*#",
        comment_end_string="#*/",
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # this is C, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["c_string"] = c_string
    environment.filters["c_literal"] = c_literal
    return environment


def render(program: Program, values: Mapping[str, Value]) -> str:
    """The program's C source with ``values`` (from `parameters.resolve`) filled in.

    `UserError` names file and line of a template that is wrong.
    """
    import jinja2  # noqa: PLC0415

    template = program.template
    try:
        body = _environment(program).get_template(template.name).render(dict(values))
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{error.filename or template}:{error.lineno}: {error.message}") from error
    except jinja2.TemplateNotFound as error:
        raise UserError(
            f"{template}: nothing to include under the name {error.name!r}",
            mend="common headers are included as common/NAME.h, others relative to the template",
        ) from error
    except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"{template}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{template}: cannot be read ({error})") from error
    return _preamble(program, values) + body
