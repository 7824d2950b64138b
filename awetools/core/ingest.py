"""Register raw frames: check the file, translate its headers, hash its pixels, write its record.

Frames are never copied, moved or changed, and nothing is written beside them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import AweError, BadChecksum, BeingWritten, NoRecord, NoSuchFile
from .files import Stamp, stamp_of
from .indexing.index import open_index, put_records, raw_rows, relative
from .meta import FIELDS
from .parallel import run_forked
from .raws import (
    RawInput,
    drop_if_gone,
    forget_raw,
    known_by_content,
    read_raw,
    register,
    stat_of,
    translated_again,
)
from .store import Store, read_raw_record
from .workspace import Workspace

# A file that changed so short a while ago may still be growing.
SETTLED_AFTER_S = 2.0
BATCH = 50
FITS_ENDINGS = (".fits", ".fit", ".fts", ".fits.fz", ".fits.gz", ".fit.gz", ".fts.gz", ".fit.fz")


@dataclass(frozen=True)
class Ingested:
    """What became of one raw file."""

    path: Path
    action: Literal["registered", "unchanged", "forgotten", "failed"]
    detectors: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    error: Exception | None = None


def find_frames(names: Sequence[str]) -> Iterator[Path]:
    """The files that are named; of a directory, every FITS file below it, in the order of their names."""
    for name in names:
        path = Path(name)
        if not path.is_dir():
            yield path
            continue
        found = 0
        for directory, folders, files in os.walk(path):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            for one in sorted(files):
                if one.lower().endswith(FITS_ENDINGS) and not one.startswith("."):
                    found += 1
                    yield Path(directory, one)
        if not found:
            raise NoSuchFile(f"{path}: no FITS files below this directory")


def ingest(
    paths: Sequence[Path],
    store: Store,
    workspace: Workspace,
    overrides: Mapping[str, str | None],
    processes: int = 1,
    wait_s: float = 0.0,
    again: bool = False,
) -> Iterator[Ingested]:
    """Register raw files in a store, in the order given; what is registered and unchanged costs a stat.

    overrides: meta fields to set by hand, on record; they are added to those of
    an earlier registration, and None takes one of those back. A frame that was translated with other camera tables
    is read again. wait_s: how long to wait for a file that is still
    being written. again: read every file again.
    """
    check_overrides(overrides)
    known = _known(store)
    stamps = {} if again or overrides else known
    batches = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]

    def work(number: int) -> list[Ingested]:
        done, rows = [], []
        for path in batches[number]:
            outcome, record = _one(path, store, workspace, overrides, stamps, wait_s, bool(known))
            done.append(outcome)
            if record is not None:
                rows += raw_rows(store, record, store.raw_record_path(record["file"]["path"]))
        if rows:
            put_records(store, rows)
        return done

    for number, result in enumerate(run_forked(work, len(batches), processes)):
        if isinstance(result, Exception):
            yield from (Ingested(path, "failed", error=result) for path in batches[number])
        else:
            yield from result


def check_overrides(overrides: Mapping[str, str | None]) -> None:
    """Raise UnknownName for a field that does not exist, with the nearest one."""
    from .errors import UnknownName, nearest

    names = [field.name for field in FIELDS]
    for name in overrides:
        if name not in names:
            raise UnknownName(
                f"--set {name}: no such field{nearest(name, names)}; there are: {', '.join(names)}"
            )


def repeated(store: Store, paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Of registered files, those whose content another registered file has too, with that file's address."""
    index = open_index(store)
    try:
        sql = (
            "SELECT address, content FROM objects WHERE kind LIKE 'raw%' AND content IN "
            "(SELECT content FROM objects WHERE kind LIKE 'raw%' GROUP BY content HAVING count(*) > 1) "
            "ORDER BY content, address"
        )
        twins: dict[str, list[str]] = {}
        for address, content in index.select(sql):
            twins.setdefault(content, []).append(address)
    finally:
        index.close()
    ours = {os.path.realpath(path): path for path in paths}
    found = []
    for addresses in twins.values():
        first = next((address for address in addresses if address not in ours), addresses[0])
        found += [(ours[address], first) for address in addresses if address in ours and address != first]
    return found


def _known(store: Store) -> dict[str, Stamp]:
    """The stamps of all registered files, by the path of their record."""
    index = open_index(store)
    try:
        return {path: Stamp(size, mtime_ns, inode) for size, mtime_ns, inode, path in index.stamps().values()}
    finally:
        index.close()


def _one(
    path: Path,
    store: Store,
    workspace: Workspace,
    overrides: Mapping[str, str | None],
    stamps: Mapping[str, Stamp],
    wait_s: float,
    may_be_moved: bool,
) -> tuple[Ingested, dict[str, Any] | None]:
    try:
        stat = stat_of(path)
        real_path = os.path.realpath(path)
        record_path = relative(store, store.raw_record_path(real_path))
        earlier, lost = _earlier(store, real_path)
        if stamps.get(record_path) == stamp_of(stat) and _same_tables(earlier, workspace):
            return Ingested(path, "unchanged"), None
        stat = _settled(path, stat, wait_s)
        merged = _merged(earlier, overrides)
        found = read_raw(path, workspace, merged)
        try:
            _check(path, found)
            _unchanged_meanwhile(path, stat)
            moved = known_by_content(store, found[0].content) if may_be_moved and earlier is None else None
            if moved is not None:
                merged = _merged(moved, overrides)
                found = translated_again(found, workspace, merged)
            record = register(store, path, found, stamp_of(stat), merged, workspace.cameras.digest)
            if moved is not None and drop_if_gone(store, moved):
                lost = (*lost, f"moved from {moved['file']['path']}")
        finally:
            if found and found[0].fits is not None:
                found[0].fits.close()
    except AweError as error:
        return Ingested(path, "failed", error=error), None
    kinds = tuple((str(one.meta["detector"]), one.kind) for one in found)
    return Ingested(path, "registered", kinds, (*lost, *record["problems"])), record


def _merged(before: Mapping[str, Any] | None, overrides: Mapping[str, str | None]) -> dict[str, str]:
    """What was set by hand before and is now; what is set to None is the header's again."""
    merged = {**(before["overrides"] if before else {}), **overrides}
    return {name: value for name, value in merged.items() if value is not None}


def forget_frames(store: Store, paths: Sequence[Path]) -> Iterator[Ingested]:
    """Take the registration of files back; the files, which may be gone already, are not touched."""
    for path in paths:
        record = read_raw_record([store], os.path.realpath(path))
        if record is None:
            yield Ingested(path, "failed", error=NoRecord(f"{path}: is not registered", hint="awe-query raw"))
            continue
        forget_raw(store, record)
        yield Ingested(path, "forgotten")


def _earlier(store: Store, real_path: str) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """The record of an earlier registration; one that cannot be read is said to be replaced."""
    try:
        return read_raw_record([store], real_path), ()
    except NoRecord as error:
        return None, (f"registered anew, without what was set by hand: {error.message}",)


def _same_tables(record: Mapping[str, Any] | None, workspace: Workspace) -> bool:
    """Whether a frame was translated with the camera tables of now."""
    return record is not None and record.get("tables") == workspace.cameras.digest


def _check(path: Path, found: Sequence[RawInput]) -> None:
    fits = found[0].fits
    assert fits is not None
    problems = fits.verify_checksums()
    if problems:
        raise BadChecksum(f"{path}: {problems[0]}", hint="copy the frame again from where it came")


def _settled(path: Path, stat: os.stat_result, wait_s: float) -> os.stat_result:
    """Wait until a file that changed a moment ago stands still; raises BeingWritten if it does not in time."""
    deadline = time.monotonic() + wait_s
    while time.time() - stat.st_mtime < SETTLED_AFTER_S:
        if not _is_short(path):
            return stat
        if time.monotonic() >= deadline:
            raise BeingWritten(
                f"{path}: {stat.st_size} bytes, incomplete, changed {time.time() - stat.st_mtime:.1f} s ago: "
                "still being written?",
                hint="--wait SECONDS",
            )
        time.sleep(0.1)
        stat = stat_of(path)
    return stat


def _is_short(path: Path) -> bool:
    """Whether a file ends before its headers say it should."""
    from .errors import NotFits, Truncated
    from .fits import open_fits

    try:
        with open_fits(path):
            return False
    except (Truncated, NotFits):
        return True
    except AweError:
        return False


def _unchanged_meanwhile(path: Path, stat: os.stat_result) -> None:
    if stamp_of(stat_of(path)) != stamp_of(stat):
        raise BeingWritten(f"{path}: changed while it was read", hint="--wait SECONDS")
