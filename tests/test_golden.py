"""Golden numbers: what each kind measures on the small night, tied to its revision.

If a change moves a number on purpose, raise the kind's revision and write the
numbers again:  AWETOOLS_WRITE_GOLDEN=1 python -m pytest tests/test_golden.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from awetools.core.kinds import KINDS
from awetools.core.products import open_product
from awetools.core.store import Store
from tests.support import ON_SKY, awe

GOLDEN = Path(__file__).with_name("golden.json")
# Sums over many pixels differ in the last digits between processors.
RELATIVE = 2e-4


def measured(kind: str, store: Store) -> dict[str, dict[str, Any]]:
    """The measures of every product of a kind, by detector, filter and exposure."""
    found = {}
    for line in awe("query", kind, cwd=store.root).splitlines():
        record = open_product(Path(line)).record
        parts = [record["meta"].get(name) for name in ("detector", "filter", "exposure")]
        found[" ".join(str(part) for part in parts if part)] = record["quality"]["measures"]
    return found


def test_every_kind_has_golden_numbers_of_its_revision(reduced_store: Store, sky_store: Store) -> None:
    now = {}
    for kind in KINDS:
        measures = measured(kind.name, sky_store if kind.name in ON_SKY else reduced_store)
        now[kind.name] = {"revision": kind.revision, "measures": measures}
    if os.environ.get("AWETOOLS_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(now)
    for name, was in golden.items():
        assert was["revision"] == now[name]["revision"], f"{name}: write the numbers of the new revision"
        assert set(was["measures"]) == set(now[name]["measures"])
        for product, measures in was["measures"].items():
            found = now[name]["measures"][product]
            not_measured = {key for key, value in measures.items() if value is None}
            assert not_measured == {key for key, value in found.items() if value is None}
            numbers = {key: value for key, value in measures.items() if value is not None}
            assert {key: found[key] for key in numbers} == pytest.approx(numbers, rel=RELATIVE, abs=1e-6), (
                f"{name} {product}: its numbers changed, but its revision did not"
            )
