"""What programs that died left behind: to tell it from what a living one needs, and to clear it away."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import BeingWritten, Unavailable
from .files import held, is_held
from .indexing.generations import drop_index_leftover
from .indexing.index import product_row, put_records
from .partial import is_at_work, is_partial, part_done, remove_partial
from .products import file_sha256, staged, state_of
from .publish import finish_rename, read_record_or_none
from .sharing.handover import is_committed, is_handover, is_waiting, receiving
from .store import is_locked, store_of, target_lock

FITS_NAME = r"\.(?P<name>.+\.(?:fits|fit|fts))"
STAGED = re.compile(rf"{FITS_NAME}\.(?P<digest>[0-9a-f]{{8}})\.new\Z", re.IGNORECASE)
PART = re.compile(rf"{FITS_NAME}\.(?P<pid>\d{{1,7}})\.part\Z", re.IGNORECASE)
LOCK = re.compile(rf"{FITS_NAME}\.lock\Z", re.IGNORECASE)
SMALL = re.compile(r"\.(?P<name>.+\.(?:json|toml|d))\.(?P<pid>\d{1,7})\.new\Z")
# A reference catalogue that is being made or removed; a directory.
CATALOGUE = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d{1,7})\.catalogue\Z", re.DOTALL)
# A small file is written in far less, and who writes a large one holds its product's lock.
DEAD_AFTER_S = 60.0


@dataclass(frozen=True)
class Cleaned:
    """What `clean` did to a path."""

    path: Path
    what: Literal["finished", "removed", "set aside, being damaged:", "could not write"]


def is_leftover_name(name: str) -> bool:
    """Whether a file has a name that awetools gives to what it has not finished."""
    return name.startswith(".") and any(form.match(name) for form in (STAGED, PART, LOCK, SMALL))


def is_catalogue_leftover(path: Path) -> bool:
    """Whether a path is a reference catalogue that was not made, or not removed, to the end."""
    return bool(CATALOGUE.match(path.name)) and path.is_dir() and not path.is_symlink()


def is_folder_leftover(path: Path) -> bool:
    """Whether a path is a directory of what was not finished: a reference catalogue, or work on a product."""
    return is_catalogue_leftover(path) or is_partial(path)


def catalogue_leftovers(directory: Path) -> Iterator[Path]:
    """The reference catalogues in a directory that were not finished."""
    try:
        found = sorted(directory.iterdir())
    except OSError:
        return
    yield from filter(is_catalogue_leftover, found)


def small_leftovers(directory: Path) -> Iterator[Path]:
    """The small files below a directory that were not finished."""
    for here, _, names in os.walk(directory):
        yield from (Path(here, name) for name in sorted(names) if SMALL.match(name))


def is_dead(path: Path) -> bool:
    """Whether no living program is at work on a leftover, and no replacement needs it."""
    if is_handover(path):
        return is_waiting(path)
    if is_catalogue_leftover(path):
        pid = int(path.name.rsplit(".", 2)[1])
        return not is_held(path) and (_is_old(path) or not _is_alive(pid))
    if is_partial(path):
        return not is_at_work(path)
    target = _target_of(path)
    if not os.path.lexists(path) or (target is not None and is_locked(target)):
        return False
    return _is_free(path, target)


def leftover_text(path: Path) -> str:
    """What a leftover is."""
    if is_handover(path):
        return "a publication that was interrupted" + (
            "" if is_committed(path) else " before anything was done"
        )
    if LOCK.match(path.name):
        return "a lock that nobody holds"
    if is_partial(path):
        part = f"{100 * part_done(path):.0f}%"
        return (
            f"{part} of a product that was interrupted: its command goes on from there; --clean gives it up"
        )
    return "never finished by a program that died"


def clean(leftovers: Sequence[Path]) -> Iterator[Cleaned]:
    """Finish replacements that were interrupted, and remove what dead programs left; nothing else.

    Raises Unavailable where this user cannot write.
    """
    yield from _clean_handovers([path for path in leftovers if is_handover(path)])
    leftovers = [path for path in leftovers if not is_handover(path)]
    for target in dict.fromkeys(target for path in leftovers if (target := _target_of(path))):
        with suppress(BeingWritten):
            if _finish(target):
                yield Cleaned(target, "finished")
    # Locks first: holding one for another leftover would remove it unsaid.
    for path in sorted(leftovers, key=lambda one: not LOCK.match(one.name)):
        with suppress(BeingWritten):
            if _remove(path):
                yield Cleaned(path, "removed")


def _clean_handovers(leftovers: Sequence[Path]) -> Iterator[Cleaned]:
    """Carry out publications that were committed, and throw away what others left."""
    stores = dict.fromkeys(store for path in leftovers if (store := store_of(path)) is not None)
    for store in stores:
        with receiving(store, set_aside=True) as done:
            yield from (Cleaned(path, "finished") for path in done.files)
            yield from (Cleaned(path, "could not write") for path in done.untold)
            yield from (Cleaned(path, "set aside, being damaged:") for path in done.damaged)
    yield from (Cleaned(path, "removed") for path in leftovers if not is_committed(path))


def is_finishable(target: Path, file_sha256_recorded: str) -> bool:
    """Whether the file that waits to replace a product is whole."""
    try:
        return file_sha256(staged(target, file_sha256_recorded)) == file_sha256_recorded
    except OSError:
        return False


def _finish(target: Path) -> bool:
    if not _is_half_replaced(target):
        return False
    with target_lock(target, wait=False):
        record = read_record_or_none(target)
        if record is None or not is_finishable(target, record["product"]["file_sha256"]):
            return False
        if not finish_rename(target):
            return False
        store = store_of(target)
        if store is not None:
            put_records(store, [product_row(store, target, record)])
        return True


def _is_half_replaced(target: Path) -> bool:
    record = read_record_or_none(target)
    return record is not None and state_of(target, record) == "replaced"


def _remove(path: Path) -> bool:
    if not is_dead(path):
        return False
    if is_catalogue_leftover(path):
        return _remove_tree(path)
    if is_partial(path):
        return _remove_work(path)
    target = _target_of(path)
    if target is None:
        return _unlink(path)
    with target_lock(target, wait=False):
        # Giving back the lock removes it; what else there is may have changed until it was held.
        return LOCK.match(path.name) is not None or (_is_free(path, target) and _unlink(path))


def _unlink(path: Path) -> bool:
    store = store_of(path)
    try:
        if ".sqlite" in path.name and store is not None:
            return drop_index_leftover(store, path)
        path.unlink()
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Unavailable(f"{path}: cannot be removed: {error.strerror}") from None


def _remove_tree(path: Path) -> bool:
    try:
        with held(path):
            shutil.rmtree(path)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Unavailable(f"{path}: cannot be removed: {error.strerror}") from None


def _remove_work(path: Path) -> bool:
    try:
        return remove_partial(path)
    except OSError as error:
        raise Unavailable(f"{path}: cannot be removed: {error.strerror}") from None


def _target_of(path: Path) -> Path | None:
    """The product that a staged, partial or lock file belongs to."""
    for form in (STAGED, PART, LOCK):
        match = form.match(path.name)
        if match:
            return path.with_name(match["name"])
    return None


def _is_free(path: Path, target: Path | None) -> bool:
    """Whether a leftover serves nobody, leaving aside who holds a lock."""
    match = PART.match(path.name) or SMALL.match(path.name)
    if match:
        return _is_old(path) or not _is_alive(int(match["pid"]))
    if target is None or not STAGED.match(path.name):
        return True
    record = read_record_or_none(target)
    if record is None or staged(target, record["product"]["file_sha256"]) != path:
        return True
    return state_of(target, record) == "whole"


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > DEAD_AFTER_S
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # One that has ended stays until its parent asks for it; in a container that may be never.
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in "ZX"
