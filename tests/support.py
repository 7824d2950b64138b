"""What several tests need: the real data's place, and small FITS files made by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AWETOOLS_TEST_DATA", ROOT.parent / "shared" / "data"))


def data_path(name: str) -> Path:
    """A file or folder of the real test data; skips the test, naming it, where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"real test data absent: {name} (looked in {DATA}; set AWETOOLS_TEST_DATA)")
    return path
