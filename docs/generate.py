"""Writes docs/reference from the declarations: tools, kinds, errors and meta fields are said nowhere twice."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from awetools.commands.page import (
    AFTER_ERRORS,
    BEFORE_ERRORS,
    Block,
    Items,
    Page,
    Verbatim,
    first_line,
    inputs_of,
    limit_text,
    measures_of,
    overview,
    page_of,
)
from awetools.commands.tools import GROUPS, TOOLS
from awetools.core.errors import SEVERITY, all_errors
from awetools.core.kind import Kind
from awetools.core.kinds import KINDS
from awetools.core.meta import ALIASES, FIELDS
from awetools.core.params import params_of

PROGRAMS = {"awe", *(tool.program for tool in TOOLS)}
REFERENCE = re.compile(r"\b(awe[a-z-]*)\(1\)")


def reference() -> dict[str, str]:
    """File name to text of every page of the reference."""
    pages = {"index.rst": _index(), "errors.rst": _errors(), "meta.rst": _meta()}
    for page in (overview(), *(page_of(tool) for tool in TOOLS)):
        pages[f"{page.program}.rst"] = _tool(page)
    for kind in KINDS:
        pages[f"kind-{kind.name}.rst"] = _kind(kind)
    return pages


def write(directory: Path) -> None:
    """Write the pages that changed, and remove those of what is gone."""
    directory.mkdir(parents=True, exist_ok=True)
    pages = reference()
    for path in directory.glob("*.rst"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# Pages


def _index() -> str:
    lines = [*_title("Reference"), *_toctree("Conventions", ["awe", "errors", "meta"])]
    for title, tools in GROUPS:
        lines += _toctree(title, [tool.program for tool in tools])
    lines += _toctree("Kinds of product", [f"kind-{kind.name}" for kind in KINDS])
    return _joined(lines)


def _tool(page: Page) -> str:
    lines = [*_title(page.program), _text(page.summary[:1].upper() + page.summary[1:] + "."), ""]
    for section in page.sections:
        lines += _title(section.title, "-")
        for block in section.blocks:
            lines += _block(block)
    return _joined(lines)


def _kind(kind: Kind) -> str:
    lines = [
        *_title(f"Kind {kind.name}"),
        _text(kind.summary),
        "",
        _text(" ".join(kind.description.split())),
        "",
    ]
    lines += [_text(f"Made by {kind.command}(1)."), ""]
    lines += _title("Needs", "-")
    lines += _table(
        ("role", "kind", "how many", "may be absent", ""),
        [
            (
                f"``{need.role}``",
                " or ".join(f"``{name}``" for name in need.kinds),
                _how_many(need.many, need.at_least),
                _yes(need.optional),
                _text(need.help),
            )
            for need in kind.needs
        ],
    )
    for block in list(inputs_of(kind))[1:]:
        lines += _block(block)
    lines += _title("Parameters", "-")
    lines += _table(
        ("parameter", "default", "unit", "range", ""),
        [
            (
                f"``{one.name}``",
                f"``{one.default_text}``",
                _text(one.unit),
                _text(one.range_text),
                _text(one.help),
            )
            for one in params_of(kind.params)
        ],
    )
    lines += _title("Measures", "-")
    for block in list(measures_of(kind))[:1]:
        lines += _block(block)
    lines += _title("Limits", "-")
    lines += [*(f"* {_text(limit_text(limit))}" for limit in kind.limits), ""]
    lines += _title("Recipe", "-")
    lines += [f"``{kind.recipe.__module__}.{kind.recipe.__name__}``, revision {kind.revision}.", ""]
    for paragraph in (inspect.getdoc(kind.recipe) or "").split("\n\n"):
        lines += [_text(" ".join(paragraph.split())), ""]
    return _joined(lines)


def _errors() -> str:
    lines = _title("Errors and exit codes")
    lines += [
        "Every deliberate failure is one class, one exit code, one slug and one line of this table. A program",
        "prints it as ``awe-bias: SLUG: MESSAGE`` on standard error, and below it ``try: COMMAND`` where a",
        f"command helps. A run of many inputs ends with the first of {', '.join(map(str, SEVERITY))} that occurred.",
        "",
    ]
    rows = [("0", "", _text(BEFORE_ERRORS[0][1])), ("1", "``bug``", _text(BEFORE_ERRORS[1][1]))]
    errors = sorted(all_errors(), key=lambda one: one.exit_code)
    rows += [(str(one.exit_code), f"``{one.slug}``", _text(first_line(one))) for one in errors]
    rows += [(code, "", _text(text)) for code, text in AFTER_ERRORS]
    return _joined([*lines, *_table(("code", "slug", "meaning"), rows)])


def _meta() -> str:
    lines = _title("Meta fields")
    lines += [
        "What the header of a frame is translated into, in these names and units, whatever the camera. They are",
        "in every record, and awe-query takes them in conditions.",
        "",
    ]
    rows = [(f"``{one.name}``", one.type, _text(one.unit), _text(one.help)) for one in FIELDS]
    lines += _table(("field", "type", "unit", "meaning"), rows)
    names = ", ".join(f"``{other}`` is ``{name}``" for other, name in ALIASES.items())
    return _joined([*lines, f"Second names: {names}.", ""])


def _how_many(many: bool, at_least: int) -> str:
    return f"{at_least} or more" if many else "1"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


# reStructuredText


def _title(text: str, line: str = "=") -> list[str]:
    return [_text(text), line * len(_text(text)), ""]


def _toctree(caption: str, names: Iterable[str]) -> list[str]:
    return [
        ".. toctree::",
        "   :maxdepth: 1",
        f"   :caption: {caption}",
        "",
        *(f"   {name}" for name in names),
        "",
    ]


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Items):
        for term, text in block.items:
            yield from (f"``{term}``", f"   {_text(text) or '-'}", "")
    elif isinstance(block, Verbatim):
        yield from ("::", "", *(f"   {line}" for line in block.lines), "")
    else:
        yield from (_text(block), "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    given = list(rows)
    if not given:
        return ["None.", ""]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *given):
        for number, cell in enumerate(row):
            lines.append(f"   {'*' if number == 0 else ' '} - {cell}".rstrip())
    return [*lines, ""]


def _text(text: str) -> str:
    """Running text: parts in backticks are literal, names of pages are links, the rest stands for itself."""
    parts = text.split("`")
    done = ""
    for number, part in enumerate(parts):
        if number % 2 == 0:
            done += _linked(part)
        else:
            after = parts[number + 1][:1] if number + 1 < len(parts) else ""
            done += f"``{part}``" + ("\\ " if after.isalnum() else "")
    return done


def _linked(text: str) -> str:
    pieces = REFERENCE.split(text)
    done = _escaped(pieces[0])
    for program, after in zip(pieces[1::2], pieces[2::2], strict=True):
        known = program in PROGRAMS
        done += (f":doc:`{program}(1) <{program}>`" if known else f"{program}(1)") + _escaped(after)
    return done


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|_])", r"\\\1", text)


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/generate.py DIR")
    write(Path(sys.argv[1]))
