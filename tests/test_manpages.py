"""The committed manual pages are those that the declarations give, and roff takes them without a word."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from awetools.commands.manpage import file_name, pages, roff, write
from awetools.commands.page import Items, Page, Section, Verbatim, exit_items, kind_of
from awetools.commands.tools import TOOLS, Tool, command_of
from awetools.core.errors import all_errors
from awetools.core.params import params_of
from tests.support import ROOT

PAGES = pages()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.program)
groff = pytest.mark.skipif(shutil.which("groff") is None, reason="no groff on this machine")


def rendered(text: str) -> str:
    """The page as a person reads it, without overstriking and with single blanks."""
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", "-P-c", "-P-b", "-P-u"],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stderr == ""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).split())


@each_page
def test_the_committed_page_is_the_generated_one(page: Page) -> None:
    committed = (ROOT / "man" / file_name(page)).read_text(encoding="ascii")
    assert committed == roff(page), "run `make man`"


@groff
@each_page
def test_roff_takes_the_page_in_silence(page: Page) -> None:
    text = rendered(roff(page))
    assert f"{page.program} - {page.summary}".replace("`", "") in text


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_page_has_every_option_and_parameter(tool: Tool) -> None:
    page = next(page for page in PAGES if page.program == tool.program)
    terms = {
        term
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Items)
        for term, _ in block.items
    }
    names = {name for term in terms for name in re.findall(r"(?<![\w-])--?[\w-]+", term)}
    for option in command_of(tool).params:
        assert {name for name in option.opts if name.startswith("-")} <= names
    kind = kind_of(tool)
    for one in params_of(kind.params) if kind else ():
        assert f"AWE_{kind.name.upper()}_{one.name.upper()}" in terms  # type: ignore[union-attr]


def test_every_error_is_an_exit_status_of_every_page() -> None:
    terms = [term for term, _ in exit_items().items]
    assert [f"{one.exit_code} {one.slug}" in terms for one in all_errors()] == [True] * len(all_errors())
    assert terms == sorted(terms, key=lambda term: int(term.split()[0]))


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in write(tmp_path / "one")}
    assert first == {path.name: path.read_bytes() for path in write(tmp_path / "two")}


@groff
def test_text_that_roff_would_take_for_requests_stands_for_itself() -> None:
    hostile = r".br \fB 'quoted' `lit-eral` -- back\slash ~home ^caret é"
    page = Page(
        "awe-x", "a summary", (Section("Odd", (hostile, Verbatim((".TH x", "'br")), Items(((".a", ".b"),)))),)
    )
    assert r".br \fB 'quoted' lit-eral -- back\slash ~home ^caret é .TH x 'br .a .b" in rendered(roff(page))
