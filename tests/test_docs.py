"""The documentation builds without a warning, and its reference is made of the declarations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from awetools.core.errors import all_errors
from awetools.core.kinds import KINDS
from awetools.core.meta import FIELDS
from awetools.core.params import params_of
from tests.support import ROOT
from tests.test_tools import generate


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            "-b",
            "dummy",
            "-d",
            tmp_path / "trees",
            "docs",
            tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_reference_holds_every_declaration() -> None:
    pages = generate().reference()
    for kind in KINDS:
        page = pages[f"kind-{kind.name}.rst"]
        for name in (
            *(need.role for need in kind.needs),
            *(one.name for one in params_of(kind.params)),
            *(one.name for one in kind.measures),
        ):
            assert f"``{name}``" in page
    assert all(f"``{one.slug}``" in pages["errors.rst"] for one in all_errors())
    assert all(f"``{field.name}``" in pages["meta.rst"] for field in FIELDS)


def test_pages_of_what_is_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "awe-gone.rst").write_text("gone")
    module = generate()
    module.write(tmp_path)
    assert not (tmp_path / "awe-gone.rst").exists()
    before = (tmp_path / "awe.rst").stat().st_mtime_ns
    module.write(tmp_path)
    assert (tmp_path / "awe.rst").stat().st_mtime_ns == before
