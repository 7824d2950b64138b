"""A store of before a meta field was added goes on working, and nothing in it becomes out of date."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from awetools.core.indexing.index import open_index
from awetools.core.indexing.indexsync import check
from awetools.core.store import Store, raw_record_files, sidecars
from tests.support import InProcess
from tests.test_schema import PRODUCT, RAW, problems

FIELD = "site_latitude_deg"


def metas(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [one["meta"] for one in record["detectors"]] if "detectors" in record else [record["meta"]]


@pytest.fixture
def old_store(store: Store, run: InProcess) -> Store:
    """A store whose records and index know nothing of the field."""
    assert run("make", "-q", "bias").code == 0
    for paths, schema in ((raw_record_files(store), RAW), (sidecars(store), PRODUCT)):
        for name, _ in list(paths):
            path = Path(name)
            record = json.loads(path.read_bytes())
            assert all(meta.pop(FIELD) == -24.6 for meta in metas(record))
            if "tables" in record:
                record["tables"] = "0" * 64
            path.write_text(json.dumps(record, separators=(",", ":")) + "\n")
            assert problems(schema, record) == []
    connection = sqlite3.connect(os.path.realpath(store.index_path))
    connection.execute(f"ALTER TABLE objects DROP COLUMN {FIELD}")
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    return store


def count(store: Store, condition: str) -> int:
    with open_index(store) as index:
        return len(list(index.rows(f"kind LIKE 'raw%' AND {FIELD} {condition}")))


def nothing_changed(store: Store, run: InProcess) -> bool:
    """Whether the products are up to date, and all is as recorded."""
    outdated, biases, found = (
        run("make", "--outdated", "--check"),
        run("make", "bias", "--check"),
        run("verify"),
    )
    return (outdated.code, biases.code, found.code, found.lines, check(store)) == (0, 0, 0, [], [])


def test_a_store_without_a_new_field_is_read_as_it_is(old_store: Store, run: InProcess) -> None:
    assert nothing_changed(old_store, run)
    assert count(old_store, "IS NULL") == len(list(raw_record_files(old_store)))
    assert run("query", "bias", f"{FIELD} is null").lines == run("query", "bias").lines != []
    assert run("query", "bias", f"{FIELD} is not null").lines == []


def test_frames_registered_again_have_the_new_field_and_outdate_nothing(
    old_store: Store, run: InProcess, night: Path
) -> None:
    frames = sorted((night / "raw").glob("*.fits"))
    for number, again in ((len(frames[::3]), frames[::3]), (len(frames), frames)):
        assert run("ingest", "-q", *again).code == 0
        assert count(old_store, "= -24.6") == number and count(old_store, "IS NULL") == len(frames) - number
        assert nothing_changed(old_store, run)


def test_a_product_has_the_field_if_all_its_frames_have_it(
    old_store: Store, run: InProcess, night: Path
) -> None:
    frames = run("query", "raw_bias", "detector=sim1").lines
    for again, latitude in ((frames[:2], None), (frames, -24.6)):
        assert run("ingest", "-q", *again).code == 0
        assert run("bias", "-q", "-o", "again.fits", *frames).code == 0
        assert json.loads(Path("again.fits.json").read_bytes())["meta"].get(FIELD) == latitude
    assert run("bias", "-u", "-o", "again.fits", *frames).err.count("up to date") == 1
