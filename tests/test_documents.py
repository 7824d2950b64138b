"""The commands of the README and of the tutorial, run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import awetools
from awetools.core.store import Store
from tests.support import ROOT, data_path
from tests.test_pipes import shell


def literal_blocks(text: str) -> list[str]:
    """The literal blocks of a reStructuredText page, each without its indentation."""
    blocks = re.findall(r"::\n\n((?:   .*\n|\n)+)", text)
    return ["\n".join(line[3:] for line in block.rstrip().splitlines()) for block in blocks]


def fenced_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a Markdown page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    script = "\n".join(literal_blocks((ROOT / "docs" / "tutorial.rst").read_text()))
    assert script.count("awe-") > 15
    ran = shell(f"set -e -o pipefail\n{script}", tmp_path)
    assert ran.code == 0, ran.err
    assert "bug" not in ran.err
    assert list((tmp_path / "night" / "pictures").glob("*.png"))


def test_the_night_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    data = data_path("nickel-20170302")
    section = (ROOT / "README.md").read_text().partition("## A night")[2].partition("## What every")[0]
    blocks = [block for block in fenced_blocks(section, "sh") if "parallel" not in block]
    script = "\n".join(blocks).replace("/data/nickel-20170302", str(data))
    script = script.replace("/data/refcats", str(data_path("refcats")))
    assert str(data) in script
    ran = shell(f"set -e -o pipefail\n{script}", tmp_path, timeout=300)
    assert ran.code == 0, ran.err
    reduced = list((tmp_path / "night" / "reduced").rglob("*.fits"))
    assert len(reduced) == 28


def test_the_python_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shared_store: Store
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "agg")
    five_lines, recipe = fenced_blocks((ROOT / "README.md").read_text(), "python")
    drawn: dict[str, list[float]] = {}
    there = five_lines.replace('"loral"', repr(awetools.Reduced.limit(1)[0].detector))
    exec(compile(there, "README.md", "exec"), drawn)
    assert len(drawn["x"]) == len(drawn["y"]) > 0
    exec(compile(recipe, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) == pytest.approx(5, rel=0.02)


def test_the_readme_names_every_program() -> None:
    from awetools.commands.tools import TOOLS

    text = (ROOT / "README.md").read_text()
    assert [tool.program for tool in TOOLS if f"`{tool.program}`" not in text] == []
