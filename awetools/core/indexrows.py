"""Records to rows: what the index holds of each record, and where the records of a store lie."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import NoRecord
from .meta import FIELDS, VARYING
from .record import Record, canonical, check_raw_record, from_bytes, read_record, sidecar
from .store import Store, raw_record_files, sidecars

SQL_TYPES = {"text": "TEXT", "real": "REAL", "integer": "INTEGER"}
META_COLUMNS = {field.name: SQL_TYPES[field.type] for field in FIELDS if field.type in SQL_TYPES}
# How frames were taken: the same text for hundreds of them, so it stands once in the index.
SETUP_FIELDS = tuple(field.name for field in FIELDS if field.name not in (*VARYING, "wcs"))
COLUMNS = {
    "address": "TEXT",
    "record_path": "TEXT",
    "record_mtime_ns": "INTEGER",
    "kind": "TEXT",
    "sequence": "INTEGER",
    "made": "TEXT",
    "content": "TEXT",
    "recipe_key": "TEXT",
    "bytes": "INTEGER",
    "mtime_ns": "INTEGER",
    "inode": "INTEGER",
    "valid_from": "TEXT",
    "valid_to": "TEXT",
    "valid_by": "TEXT",
    "flags": "INTEGER",
    **META_COLUMNS,
    "setup": "INTEGER",
    "meta": "TEXT",
    "measures": "TEXT",
}
# What the planner reads of every object; an index holds it all, so that the rows themselves are not read.
SURVEYED = (
    "address",
    "kind",
    "content",
    "recipe_key",
    "bytes",
    "mtime_ns",
    "inode",
    "record_path",
    "record_mtime_ns",
    "sequence",
    "made",
    "valid_from",
    "valid_to",
    "valid_by",
    "flags",
    "setup",
    *VARYING,
)
SETUP_COLUMNS = {"number": "INTEGER PRIMARY KEY", "meta": "TEXT"}
LINK_COLUMNS = {
    "child": "TEXT",
    "role": "TEXT",
    "address": "TEXT",
    "content": "TEXT",
    "recipe_key": "TEXT",
}

Row = dict[str, Any]


def record_files(store: Store) -> Iterator[tuple[str, int]]:
    """Every record of a store, as its path in the index and its time in ns; raw records first.

    Costs a stat a record: nothing is read.
    """
    for path, mtime_ns in raw_record_files(store):
        yield relative(store, path), mtime_ns
    for path, mtime_ns in sidecars(store):
        yield relative(store, path), mtime_ns


def rows_of(store: Store, record_path: str, mtime_ns: int) -> list[tuple[Row, list[Row]]]:
    """The rows of the record at a path in the index; raises NoRecord if it cannot be used.

    mtime_ns: the record's time before it was read, so that one that is replaced
    meanwhile is known to be newer.
    """
    path = store.root / record_path
    try:
        if path.is_relative_to(store.awe):
            found = raw_rows(store, read_raw(path), path)
        else:
            found = [product_row(store, path.with_name(path.name.removesuffix(".json")), read_record(path))]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NoRecord(f"{path}: malformed: {type(error).__name__} {error}", hint="awe-verify") from None
    for row, links in found:
        row["record_mtime_ns"] = mtime_ns
        for name, value in (pair for one in (row, *links) for pair in one.items()):
            if not _fits_a_column(value):
                raise NoRecord(f"{path}: malformed: {name} is {value!r:.80}", hint="awe-verify")
    return found


def _fits_a_column(value: object) -> bool:
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return value is None or isinstance(value, str | float)


def read_raw(path: Path) -> dict[str, Any]:
    """A raw record, from its file; raises NoRecord."""
    hint = "awe-ingest registers the frame again"
    try:
        record = from_bytes(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise NoRecord(f"{path}: {error}", hint=hint) from None
    problems = check_raw_record(record)
    if problems:
        raise NoRecord(f"{path}: {problems[0]}", hint=hint)
    return dict(record)


def all_rows(store: Store) -> Iterator[tuple[Row, list[Row]]]:
    """The rows of every record of a store, read from the files; what cannot be read is left to awe-verify."""
    for record_path, mtime_ns in record_files(store):
        with suppress(NoRecord):
            yield from rows_of(store, record_path, mtime_ns)


def product_row(store: Store, product: Path, record: Record) -> tuple[Row, list[Row]]:
    """The row of a product and its links, from its record."""
    address = relative(store, product)
    meta, about, validity = record["meta"], record["product"], record["validity"] or {}
    row = _meta_row(meta) | {
        "address": address,
        "record_path": f"{address}.json",
        "record_mtime_ns": _mtime_ns(sidecar(product)),
        "kind": record["recipe"]["kind"],
        "sequence": record["run"].get("sequence"),
        "made": record["run"].get("end"),
        "content": about["content"],
        "recipe_key": record["recipe_key"],
        "bytes": about["bytes"],
        "mtime_ns": about.get("mtime_ns"),
        "inode": None,
        "valid_from": validity.get("start"),
        "valid_to": validity.get("end"),
        "valid_by": validity.get("by"),
        "flags": record["quality"]["flags"],
        "measures": json.dumps(record["quality"]["measures"]),
    }
    links = [
        {
            "child": address,
            "role": one["role"],
            "address": one.get("path"),
            "content": one["content"],
            "recipe_key": one.get("recipe_key"),
        }
        for one in record["recipe"]["inputs"]
    ]
    return row, links


def raw_rows(store: Store, raw: Mapping[str, Any], path: Path) -> list[tuple[Row, list[Row]]]:
    """The rows of a raw record, one a detector."""
    found: list[tuple[Row, list[Row]]] = []
    many = len(raw["detectors"]) > 1
    for one in raw["detectors"]:
        file, meta = raw["file"], one["meta"]
        row = _meta_row(meta) | {
            "address": f"{file['path']}[{one['detector']}]" if many else file["path"],
            "record_path": relative(store, path),
            "record_mtime_ns": _mtime_ns(path),
            "kind": meta["frame_type"],
            "sequence": None,
            "made": raw["registered"],
            "content": one["content"],
            "recipe_key": None,
            "bytes": file["bytes"],
            "mtime_ns": file["mtime_ns"],
            "inode": file["inode"],
            "valid_from": None,
            "valid_to": None,
            "valid_by": None,
            "flags": 0,
            "measures": "{}",
        }
        found.append((row, []))
    return found


def relative(store: Store, path: Path) -> str:
    """A path as the index holds it: relative to the store where it lies in it, whatever links lead there."""
    full = os.path.abspath(path)
    root = f"{store.root}{os.sep}" if str(store.root) != os.sep else os.sep
    if not full.startswith(root):
        folder, name = os.path.split(full)
        real = os.path.join(os.path.realpath(folder), name)
        full = real if real.startswith(root) else full
    return full.removeprefix(root)


def absolute(store: Store, address: str) -> str:
    """The address of an index row as a path that programs can open."""
    return os.path.join(store.root, address)


def _meta_row(meta: Mapping[str, Any]) -> Row:
    row: Row = {name: meta.get(name) for name in META_COLUMNS}
    row["meta"] = json.dumps(meta, sort_keys=True)
    row["setup"] = canonical({name: meta.get(name) for name in SETUP_FIELDS})
    return row


def setup_number(text: str) -> int:
    """The number under which the index holds a set-up, from the set-up alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
