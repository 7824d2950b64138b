"""Manual pages as roff: `python -m awetools.commands.manpage DIR` writes those of all programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from .page import Block, Items, Page, Verbatim, overview, page_of
from .tools import TOOLS

# What roff takes for something else, and how it is written to stand for itself.
ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
# Characters of a term that fit on a line.
LONGEST_TERM = 70
REFERENCE = re.compile(r"\b(awe[a-z-]*)\((1)\)")


def pages() -> list[Page]:
    """The pages of all programs."""
    return [overview(), *(page_of(tool) for tool in TOOLS)]


def file_name(page: Page) -> str:
    """The name of a page's file."""
    return f"{page.program}.1"


def roff(page: Page) -> str:
    """A page in the macros of man(7); the same page gives the same text."""
    head = [
        '.\\" Made by python -m awetools.commands.manpage; edit the declarations, not this file.',
        f'.TH {_plain(page.program.upper())} 1 "" "awetools {__version__}" "awetools"',
        # Ragged and unbroken lines: names and options are found by searching.
        ".ad l",
        ".nh",
        ".SH NAME",
        f"{_plain(page.program)} \\- {_text(page.summary)}",
    ]
    lines = list(head)
    for section in page.sections:
        lines.append(f".SH {_plain(section.title.upper())}")
        for number, block in enumerate(section.blocks):
            lines += _block(block, first=number == 0)
    return "\n".join(lines) + "\n"


def _block(block: Block, first: bool) -> Iterator[str]:
    if isinstance(block, Items):
        for term, text in block.items:
            yield from (".TP", f"\\fB{_term(term)}\\fP", _text(text) or "\\&")
        return
    if not first:
        yield ".PP"
    if isinstance(block, Verbatim):
        yield from (".nf", *(_guarded(_plain(line)) for line in block.lines), ".fi")
    else:
        yield _text(block)


def _term(term: str) -> str:
    """What an item is about; choices that do not fit on a line may be broken between two of them."""
    plain = _plain(term)
    return plain.replace("|", r"|\:") if len(term) > LONGEST_TERM else plain


def _text(text: str) -> str:
    """Running text: parts in backticks, and the names of pages, are bold."""
    parts = text.split("`")
    done = [
        f"\\fB{_plain(part)}\\fP" if number % 2 else _references(part) for number, part in enumerate(parts)
    ]
    return _guarded("".join(done))


def _references(text: str) -> str:
    pieces = REFERENCE.split(text)
    found = [_plain(pieces[0])]
    for name, number, after in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        found.append(f"\\fB{_plain(name)}\\fP({number}){_plain(after)}")
    return "".join(found)


def _plain(text: str) -> str:
    escaped = "".join(ESCAPES.get(char, char) for char in text)
    return "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)


def _guarded(line: str) -> str:
    """A line that begins with a dot would be a request."""
    return f"\\&{line}" if line.startswith(".") else line


def write(directory: Path) -> list[Path]:
    """Write every page into a directory; returns the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for page in pages():
        path = directory / file_name(page)
        path.write_text(roff(page), encoding="ascii")
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m awetools.commands.manpage DIR")
    for path in write(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")
