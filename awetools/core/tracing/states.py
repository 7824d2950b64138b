"""Whether what a lineage names is still as it was: present, changed or deleted, by records, sizes and pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AweError, NoRecord, Unreadable
from ..files import Address, Stamp, parse_address, stamp_of
from ..products import state_of
from ..record import Record, read_record, sidecar
from ..store import raw_record_at
from .lineage import Node, Reference, State

if TYPE_CHECKING:
    from ..fits import FitsFile, Hdu

STATES: Mapping[str, State] = {
    "whole": "present",
    "replaced": "present",
    "edited": "changed",
    "missing": "deleted",
}


def readable(path: Path) -> Record | None:
    """A record, or None if there is none that can be read."""
    try:
        return read_record(path)
    except NoRecord:
        return None


def state_by_size(path: str, size: int) -> State:
    """The state of a product by a look at its size alone."""
    try:
        return "present" if os.stat(path).st_size == size else "changed"
    except OSError:
        return "deleted"


def is_whole(path: Path, record: Record, content: str) -> bool:
    """Whether a product is that content, and as it was made."""
    return bool(record["product"]["content"] == content) and state_beside(path, record) == "present"


def state_without_record(path: Path, content: str, beside: Record | None) -> State:
    """The state of a product whose record is not beside it; where none is that can be read, its pixels tell."""
    if not os.path.lexists(path):
        return "deleted"
    if beside is None:
        from ..fits import open_fits

        with suppress(AweError), open_fits(path, spool=True) as fits:
            if fits.content() == content:
                return "present"
    return "changed"


def unreadable_record(node: Node) -> NoRecord | None:
    """Why the record beside a product cannot be read; None where there is none, or it can be."""
    path = sidecar(Path(node.path))
    if os.path.lexists(path):
        try:
            read_record(path)
        except NoRecord as error:
            return error
    return None


def state_beside(path: Path, record: Record) -> State:
    """The state of a product that lies beside its record."""
    try:
        return STATES[state_of(path, record)]
    except (KeyError, TypeError, Unreadable):
        return "changed"


def overrides_of(raw: Node) -> Mapping[str, str]:
    """What was set by hand of a raw frame, as its record says now. Raises NoRecord if it cannot be read."""
    record = raw_record_at(raw.record_path) if raw.record_path is not None else None
    return record["overrides"] if record is not None else {}


def raw_node(
    wanted: Reference,
    path: str,
    state: State,
    record_path: Path | None,
    meta: Mapping[str, Any],
) -> Node:
    """What has no inputs: known by its content alone."""
    return Node(wanted.content, wanted.content, wanted.kind, path, state, record_path, meta)


def resolve_foreign(wanted: Reference) -> Node:
    """A file of another pipeline, which no store knows: it is read to tell whether it is still the same."""
    from ..fits import open_fits

    state: State = "changed"
    address = parse_address(wanted.path)
    if not os.path.exists(address.path):
        state = "deleted"
    else:
        with suppress(AweError), open_fits(address.path, spool=True) as fits:
            if any(fits.content([hdu.index]) == wanted.content for hdu in _foreign_units(fits, address)):
                state = "present"
    return raw_node(wanted, wanted.path, state, None, wanted.meta)


def _foreign_units(fits: FitsFile, address: Address) -> list[Hdu]:
    """The images and tables that an address may mean."""
    named = [one for one in fits.hdus if address.detector in (one.name, str(one.index))]
    return named or [one for one in fits.hdus if one.is_image or one.is_table]


def detector_in(record: Mapping[str, Any], content: str) -> Mapping[str, Any] | None:
    """What a raw record says of the detector of that content."""
    return next((one for one in record["detectors"] if one["content"] == content), None)


def holds(record: Mapping[str, Any], address: Address, content: str) -> bool:
    """Whether the file of a raw record holds that content now; it is read only if its stamp changed."""
    one = detector_in(record, content)
    if one is None or address.detector not in (None, str(one["detector"]), str(one["hdus"][0])):
        return False
    stamp = Stamp(*(record["file"][name] for name in ("bytes", "mtime_ns", "inode")))
    with suppress(OSError):
        if stamp_of(address.path.stat()) == stamp:
            return True
    from ..fits import open_fits

    try:
        with open_fits(address.path, spool=True) as fits:
            return fits.content(one["hdus"]) == content
    except AweError:
        return False
