"""Where a product was of which only the record is left, among those that are kept."""

from __future__ import annotations

from pathlib import Path

from ..record import Record

# Beside products that lie in no store.
KEPT_BESIDE = ".awe-records"


def was_at(record: Record, record_path: Path) -> Path:
    """Where the product of a kept record was, as far as the record says; else by the names that stores give."""
    return removed_from(record, record_path) or _likely_path(record, record_path)


def removed_from(record: Record, record_path: Path) -> Path | None:
    """Where a product was that awe-rm removed, by the record that it kept; None for any other record."""
    about = record.get("removed")
    path = about.get("path") if isinstance(about, dict) else None
    return _above(record_path) / path if isinstance(path, str) else None


def _above(record_path: Path) -> Path:
    """The root of the store, or the folder of products, that a kept record belongs to."""
    folder = record_path.parent
    return folder.parent if folder.name == KEPT_BESIDE else folder.parent.parent


def _likely_path(record: Record, record_path: Path) -> Path:
    """Where a product was that was replaced, by the names that stores give: its record does not say."""
    name = str(record["product"].get("file") or record_path.name)
    usual = _above(record_path) / str(record["recipe"]["kind"]) / str(record["meta"].get("night"))
    return (usual if usual.is_dir() else _above(record_path)) / name
