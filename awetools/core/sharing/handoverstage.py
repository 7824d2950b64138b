"""A handover on disk: its files staged, and the manifest that says where each belongs, written and read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BeingWritten, Integrity, NoRecord, Unavailable, Unreadable
from ..files import make_directory, sync_directory
from ..journal import Event, fault_of
from ..publish import read_record_or_none
from ..record import from_bytes, to_bytes
from ..shape import Each, Written, faults
from ..store import Store

MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 22
# Room that is held until the commit, so that index and journal do not lack it after: for each object, and for all.
RESERVE, RESERVED_BYTES, RESERVED_BYTES_EACH = "reserve", 1 << 19, 1 << 14

_INSIDE = Written(
    lambda text: "" if os.path.isabs(text) or ".." in text.split(os.sep) else os.path.normpath(text),
    "a place within the store",
)
_WHAT = Written(lambda text: text if text in ("raw", "kept", "product") else "", "raw, kept or product")
_STEP = {"what": _WHAT, "target": _INSIDE, "record_target": _INSIDE, "copied": bool, "stage": int}
_SHAPE = {"steps": [_STEP], "events": [dict], "others": Each([dict]), "force?": bool}


@dataclass(frozen=True)
class Step:
    """One object that is put in place.

    what: `raw` (the record of a raw frame), `kept` (the record of a product without its
    file) or `product`. target: where it goes, in the store; of a raw frame that is
    copied, and of a product, that of the file. record: the bytes of the record.
    record_target: where that goes. source: the file that is copied, with the hash that
    it must have. stage: all of a lower stage are in place, and in the index, before it.
    """

    what: str
    target: str
    record: bytes
    record_target: str
    source: Path | None = None
    file_sha256: str = ""
    stage: int = 0


@dataclass(frozen=True)
class Handover:
    """All that is put into a store: the objects, what they are made of first; and what journals are to say.

    events: those of the store itself; others: those of other stores, by their root.
    force: whether what awetools did not write may be replaced.
    """

    steps: Sequence[Step]
    events: Sequence[Event]
    others: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    force: bool = False


def reserved_bytes(steps: int) -> int:
    """The room that a handover of so many steps needs besides its files."""
    return RESERVED_BYTES + steps * RESERVED_BYTES_EACH


# Staging


def stage(store: Store, part: Path, what: Handover, step_done: Callable[[], None]) -> None:
    """Copy all of a handover into a directory, durably, and write its manifest. Raises Integrity, BeingWritten."""
    make_directory(part)
    steps = []
    for number, step in enumerate(what.steps):
        record = step.record
        if step.source is not None:
            copied = part / f"{number}.file"
            _copy(step.source, copied, step.file_sha256, store)
            record = _settled(record, step, copied, store)
        _write(part / f"{number}.json", record)
        about = {"what": step.what, "target": step.target, "record_target": step.record_target}
        steps.append({**about, "copied": step.source is not None, "stage": step.stage})
        step_done()
    manifest = {
        "steps": steps,
        "events": list(what.events),
        "others": dict(what.others),
        "force": what.force,
    }
    _write(part / MANIFEST, json.dumps(manifest).encode())
    _reserve(part / RESERVE, reserved_bytes(len(steps)))
    sync_directory(part)


def _reserve(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # Not every file system can hold room.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(descriptor)


def _settled(record: bytes, step: Step, copied: Path, store: Store) -> bytes:
    """A record as it is in its new store: with the time of the file there, and the store's own count."""
    stat, known = copied.stat(), dict(from_bytes(record))
    if step.what == "raw":
        file = {
            "path": str(store.root / step.target),
            "bytes": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "inode": stat.st_ino,
        }
        known["file"] = {**known["file"], **file}
        return (json.dumps(known, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n").encode()
    name = os.path.basename(step.target)
    known["product"] = {**known["product"], "file": name, "mtime_ns": stat.st_mtime_ns}
    known["run"] = {**known["run"], "sequence": store.next_sequence()}
    return to_bytes(known)


def _copy(source: Path, target: Path, wanted: str, store: Store) -> None:
    """Copy a file with its time, durably; raises Integrity where it has not the hash that it must have."""
    digest = hashlib.sha256()
    try:
        stream = source.open("rb")
    except OSError as error:
        raise Unreadable(f"{source}: {error.strerror}") from None
    with stream, target.open("xb") as copy:
        while chunk := _read(stream, source):
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        stat = os.fstat(stream.fileno())
        os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.fsync(copy.fileno())
    if digest.hexdigest() == wanted:
        return
    record = read_record_or_none(source)
    if record is not None and record["product"]["file_sha256"] != wanted:
        raise BeingWritten(f"{source}: was replaced while it was copied")
    raise Integrity(
        f"{source}: sha256 {digest.hexdigest()[:8]}, not {wanted[:8]} as it must be; nothing was published",
        hint=f"awe-verify {shlex.quote(str(source))}",
    )


def _read(stream: Any, source: Path) -> bytes:
    try:
        return bytes(stream.read(CHUNK_BYTES))
    except OSError as error:
        raise Unreadable(f"{source}: {error.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


# Reading


def clean_command(store: Store) -> str:
    """The command that carries out what was begun in a store, or sets it aside."""
    return f"awe-verify --clean {shlex.quote(str(store.root))}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a handover; raises NoRecord for one that was damaged, or that lacks what it is to bring."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        problem = next(faults(manifest, _SHAPE, "the manifest"), "") or _lacking(folder, manifest)
    except (FileNotFoundError, ValueError, RecursionError) as error:
        problem = str(error)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    if problem:
        store = Store(folder.parents[2])
        raise NoRecord(
            f"{path}: {problem}: nothing can be published to {store.root} before it is set aside",
            hint=clean_command(store),
        )
    return dict(manifest)


def _lacking(folder: Path, manifest: Mapping[str, Any]) -> str:
    said = [*manifest["events"], *(event for events in manifest["others"].values() for event in events)]
    for number, step in enumerate(manifest["steps"]):
        file, record = folder / f"{number}.file", folder / f"{number}.json"
        if step["what"] == "product" and record.exists() and not file.exists():
            return f"{file.name} is missing"
    return next(filter(None, map(fault_of, said)), "")


def is_damaged(folder: Path) -> bool:
    """Whether a handover cannot be carried out, because its manifest or a file was lost."""
    try:
        read_manifest(folder)
    except NoRecord:
        return True
    return False
