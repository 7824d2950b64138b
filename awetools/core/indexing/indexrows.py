"""Records to rows: what the index holds of each record, and where the records of a store lie."""

from __future__ import annotations

import hashlib
import json
import marshal
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import NoRecord
from ..meta import FIELDS, VARYING
from ..record import Record, canonical, check_raw_record, cure_of, from_bytes, read_record_once, sidecar
from ..store import AWE, RECORDS, Store, raw_record_files, sidecars
from .kept import was_at

SQL_TYPES = {"text": "TEXT", "real": "REAL", "integer": "INTEGER"}
META_COLUMNS = {field.name: SQL_TYPES[field.type] for field in FIELDS if field.type in SQL_TYPES}
# With this begin the paths of the records that are kept.
KEPT = os.path.join(AWE, RECORDS, "")
# What products have of their own.
OF_ITSELF = ("wcs", "gridded")
# How frames were taken: the same text for hundreds of them, so it stands once in the index.
SETUP_FIELDS = tuple(field.name for field in FIELDS if field.name not in (*VARYING, *OF_ITSELF))
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
    # Of the meta, what neither the set-up nor the columns hold.
    "rest": "TEXT",
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
# Of a product of which only a kept record is left: where it was, and what the planner reads of it.
KEPT_COLUMNS = {name: COLUMNS[name] for name in (*SURVEYED, "instrument", "detector", "night")}
SETUP_COLUMNS = {"number": "INTEGER PRIMARY KEY", "meta": "TEXT"}
# An input stands once, whatever the number of products that have it.
INPUT_COLUMNS = {"number": "INTEGER PRIMARY KEY", "recipe_key": "TEXT", "content": "TEXT"}
# A child is the number of an object.
LINK_COLUMNS = {"child": "INTEGER", "role": "TEXT", "input": "INTEGER"}
_SETUP = frozenset(SETUP_FIELDS)
# The texts of set-ups come by the thousand, and few differ.
SETUPS_KEPT = 256
_setup_texts: dict[bytes, str] = {}
_OTHERS = tuple(field.name for field in FIELDS if field.name not in _SETUP)
_short_json = json.JSONEncoder(separators=(",", ":")).encode
_FIT = frozenset((str, float, type(None)))
_FROM_SQL = {"text": str, "real": float}
_VARYING = {field.name: _FROM_SQL[field.type] for field in FIELDS if field.name in VARYING}

Row = dict[str, Any]


def record_files(store: Store) -> Iterator[tuple[str, int]]:
    """Every record of a store, as its path in the index and its time in ns; raw records first.

    Costs a stat a record: nothing is read.
    """
    root = f"{store.root}{os.sep}" if str(store.root) != os.sep else os.sep
    for path, mtime_ns in chain(raw_record_files(store), sidecars(store)):
        yield path.removeprefix(root), mtime_ns


def rows_of(store: Store, record_path: str, mtime_ns: int) -> list[tuple[Row, list[Row]]]:
    """The rows of the record at a path in the index; raises NoRecord if it cannot be used.

    mtime_ns: the record's time before it was read, so that one that is replaced
    meanwhile is known to be newer.
    """
    path = absolute(store, record_path)
    with _malformed(path):
        if record_path.startswith(f"{AWE}{os.sep}"):
            found = raw_rows(store, read_raw(Path(path)), Path(path))
        else:
            found = [_product_row(record_path.removesuffix(".json"), read_record_once(path))]
    for row, links in found:
        row["record_mtime_ns"] = mtime_ns
        for one in (row, *links):
            _refuse_unfit(path, one)
    return found


def kept_row(store: Store, name: str) -> Row:
    """The row of a record among those that a store keeps, by its file's name; raises NoRecord."""
    path = store.records_path / name
    with _malformed(path):
        record = read_record_once(str(path))
        row, _ = _product_row(relative(store, was_at(record, path)), record)
    row["record_path"] = f"{KEPT}{name}"
    _refuse_unfit(path, row)
    return row


@contextmanager
def _malformed(path: str | Path) -> Iterator[None]:
    """Raise NoRecord for what a record must have and has not."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NoRecord(f"{path}: malformed: {type(error).__name__} {error}", hint="awe-verify") from None


def _refuse_unfit(path: str | Path, row: Row) -> None:
    """Raise NoRecord for a value that no column can hold."""
    if _FIT.issuperset(map(type, row.values())):
        return
    for name, value in row.items():
        if type(value) not in _FIT and not _fits_a_column(value):
            raise NoRecord(f"{path}: malformed: {name} is {value!r:.80}", hint="awe-verify")


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
        raise NoRecord(f"{path}: {problems[0]}", hint=cure_of(problems[0], hint))
    return dict(record)


def all_rows(store: Store) -> Iterator[tuple[Row, list[Row]]]:
    """The rows of every record of a store, read from the files; what cannot be read is left to awe-verify."""
    for record_path, mtime_ns in record_files(store):
        with suppress(NoRecord):
            yield from rows_of(store, record_path, mtime_ns)


def product_row(store: Store, product: Path, record: Record) -> tuple[Row, list[Row]]:
    """The row of a product and its links (role, recipe key and content of each input), from its record."""
    row, links = _product_row(relative(store, product), record)
    return {**row, "record_mtime_ns": _mtime_ns(sidecar(product))}, links


def _product_row(address: str, record: Record) -> tuple[Row, list[Row]]:
    """The row of a product without the time of its record."""
    meta, about, validity = record["meta"], record["product"], record["validity"] or {}
    row = _meta_row(meta) | {
        "address": address,
        "record_path": f"{address}.json",
        "record_mtime_ns": None,
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
        "measures": _short_json(record["quality"]["measures"]),
    }
    links = [
        {"role": one["role"], "recipe_key": one.get("recipe_key"), "content": one["content"]}
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
    rest = {name: meta[name] for name in meta.keys() - _SETUP if not _as_in_a_column(name, meta[name])}
    row["rest"] = canonical(rest) if rest else None
    row["setup"] = setup_text(meta)
    return row


def setup_text(meta: Mapping[str, Any]) -> str:
    """The canonical JSON of a frame's set-up."""
    values = [meta.get(name) for name in SETUP_FIELDS]
    try:
        known = marshal.dumps(values, 2)
    except ValueError:
        known = b""
    text = _setup_texts.get(known)
    if text is None:
        text = canonical(dict(zip(SETUP_FIELDS, values, strict=True)))
        if known and len(_setup_texts) < SETUPS_KEPT:
            _setup_texts[known] = text
    return text


def _as_in_a_column(name: str, value: object) -> bool:
    """Whether a value comes back from its column as what it is, to the bit; none comes back as none."""
    if value is None or name not in _VARYING:
        return value is None
    if isinstance(value, str):
        return _VARYING[name] is str and value.isascii()
    # SQLite has no negative zero.
    return type(value) is _VARYING[name] and str(value) != "-0.0"


def meta_text(row: Mapping[str, Any], setup: str) -> str:
    """The meta of an object as JSON, put together again; a field that its record has not is null."""
    meta: dict[str, Any] = {name: row.get(name) for name in _OTHERS}
    if row["rest"] is not None:
        meta |= json.loads(row["rest"])
    return f"{setup[:-1]},{json.dumps(meta)[1:]}" if setup != "{}" else json.dumps(meta)


@lru_cache(maxsize=SETUPS_KEPT)
def setup_number(text: str) -> int:
    """The number under which the index holds a set-up, from the set-up alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
