"""Many files and events put into a store as one, whatever happens: staged, committed by one rename, carried out.

All that goes into a store is first copied below `.awe/publish/NAME.part`, with a
manifest that says where each file belongs. The rename of that directory to
`.awe/publish/NAME` is the commit. What is not committed is thrown away by the next
who comes; what is, is carried out by whoever comes next: every step can be done
again. What others are made of goes first, so that a product is seen only when all
of its lineage is there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import AweError, Integrity, NoRecord, Unavailable, WouldOverwrite
from ..files import make_directory, open_shared, sync_directory
from ..indexing.index import Index, in_current, product_row, put_records, raw_rows
from ..indexing.indexrows import read_raw
from ..journal import Event, append_after
from ..planning.plan import refuse_foreign
from ..products import file_sha256, staged, state_of
from ..publish import INDEX_VARIABLE, WITHOUT_INDEX, keep_record, read_record_or_none
from ..record import read_record, sidecar
from ..store import AWE, Store, target_lock
from .handoverstage import RESERVE, Handover, clean_command, is_damaged, read_manifest, stage

FOLDER, UNFINISHED, DAMAGED = "publish", ".part", ".damaged"


@dataclass
class Done:
    """What was carried out: the products and frames put in place, and what could not be done.

    untold: journals of other stores that could not be written. damaged: handovers that
    could not be read, and were set aside.
    """

    files: list[Path] = field(default_factory=list)
    untold: list[Path] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)


@contextmanager
def receiving(store: Store, set_aside: bool = False) -> Iterator[Done]:
    """Hold the right to put things into a store; what was committed before is carried out first.

    Gives what was done of that. set_aside: what cannot be read does not stay in the way.
    Raises Unavailable, NoRecord, WouldOverwrite.
    """
    # Whoever may write the store may finish what another left.
    lock = store.awe / f"{FOLDER}.lock"
    try:
        make_directory(store.awe / FOLDER)
        descriptor = open_shared(lock, os.O_RDWR)
    except (OSError, Unavailable) as error:
        why = error.message if isinstance(error, Unavailable) else f"{lock}: {error.strerror}"
        raise Unavailable(f"{store.root}: this user cannot write it: {why}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield _finish(store, set_aside)
    finally:
        os.close(descriptor)


def waiting(store: Store) -> list[Path]:
    """What handovers left in a store: those that were committed, and those that were not."""
    try:
        found = sorted((store.awe / FOLDER).iterdir())
        return [one for one in found if one.is_dir() and not one.name.endswith(DAMAGED)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Unavailable(f"{error.filename}: {error.strerror}") from None


def is_handover(path: Path) -> bool:
    """Whether a path is the directory of a handover."""
    return path.parent.name == FOLDER and path.parent.parent.name == AWE


def is_waiting(path: Path) -> bool:
    """Whether a handover was left, and nobody is at work on it."""
    try:
        descriptor = os.open(path.parent.with_name(f"{FOLDER}.lock"), os.O_RDONLY)
    except OSError:
        return path.is_dir()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return path.is_dir()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def is_committed(path: Path) -> bool:
    """Whether what a handover left is to be carried out, and not thrown away."""
    return not path.name.endswith(UNFINISHED)


def hand_over(store: Store, what: Handover, step_done: Callable[[], None], check: Callable[[], None]) -> Done:
    """Put all of it into a store, or nothing. Within `receiving`.

    check: called when all is copied, right before the commit; what it raises leaves the
    store as it was. Raises Unavailable, Integrity, BeingWritten.
    """
    part = store.awe / FOLDER / f"{os.urandom(8).hex()}{UNFINISHED}"
    done = part.with_name(part.name.removesuffix(UNFINISHED))
    try:
        stage(store, part, what, step_done)
        check()
        part.rename(done)
    except OSError as error:
        _throw_away(part)
        raise Unavailable(f"{store.root}: {error.strerror}; nothing was published") from None
    except BaseException:
        _throw_away(part)
        raise
    return _carry_out(store, done)


def _throw_away(part: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)


# Carrying out


def _finish(store: Store, set_aside: bool) -> Done:
    """Carry out what was committed and throw away what was not."""
    found = Done()
    for path in waiting(store):
        if not is_committed(path):
            _throw_away(path)
        elif set_aside and is_damaged(path):
            aside = path.with_name(f"{path.name}{DAMAGED}")
            path.rename(aside)
            found.damaged.append(aside)
        else:
            done = _carry_out(store, path)
            found.files += done.files
            found.untold += done.untold
    return found


def _carry_out(store: Store, folder: Path) -> Done:
    """Do what a committed handover says, or what is left of it, and forget it."""
    manifest = read_manifest(folder)
    try:
        (folder / RESERVE).unlink(missing_ok=True)
        _append_once(store, manifest["events"])
        steps = sorted(enumerate(manifest["steps"]), key=lambda one: int(one[1]["stage"]))
        for _, group in groupby(steps, key=lambda one: int(one[1]["stage"])):
            together = list(group)
            for number, step in together:
                _put_in_place(store, folder, number, step, manifest.get("force", False))
            _index(store, [step for _, step in together])
    except (OSError, Unavailable) as error:
        text = error.message if isinstance(error, Unavailable) else f"{error.filename}: {error.strerror}"
        raise Unavailable(
            f"{text}: a publication to {store.root} was begun, and is not finished", hint=clean_command(store)
        ) from None
    untold = [path for root, events in manifest["others"].items() if (path := _tell(Path(root), events))]
    # What is half removed must not be taken for a handover to be carried out.
    done = folder.with_name(f"{folder.name}{UNFINISHED}")
    folder.rename(done)
    _throw_away(done)
    return Done([store.root / step["target"] for _, step in steps if step["copied"]], untold)


def _tell(root: Path, events: Sequence[Event]) -> Path | None:
    """Append events to the journal of another store; gives it where that cannot be done."""
    journal = Store(root).journal_path
    try:
        if not os.path.isdir(root / AWE):
            return journal
        _append_once(Store(root), events)
    except AweError:
        return journal
    return None


def _append_once(store: Store, events: Sequence[Event]) -> None:
    """Append the events that a journal does not have yet."""

    def missing(known: Sequence[Event]) -> list[Event]:
        texts = {json.dumps(one, sort_keys=True) for one in known}
        return [one for one in events if json.dumps(one, sort_keys=True) not in texts]

    if events:
        append_after(store, missing)


def _put_in_place(store: Store, folder: Path, number: int, step: Mapping[str, Any], force: bool) -> None:
    target, record_target = store.root / step["target"], store.root / step["record_target"]
    file, record = folder / f"{number}.file", folder / f"{number}.json"
    for path in (target, record_target):
        make_directory(path.parent)
    if step["what"] == "product":
        _put_product(store, target, file, record, force)
        return
    if step["copied"] and file.exists():
        if os.path.lexists(target) and not _is_copy(target, file):
            raise _in_the_way(store, target)
        _move(file, target)
    if record.exists():
        _move(record, record_target)


def _in_the_way(store: Store, target: Path) -> WouldOverwrite:
    """What came to a name after the commit is others', and is not replaced."""
    return WouldOverwrite(
        f"{target}: is in the way of a publication that was begun, and is not finished",
        hint=f"mv {shlex.quote(str(target))} ELSEWHERE; {clean_command(store)}",
    )


def _is_copy(one: Path, other: Path) -> bool:
    return one.is_file() and file_sha256(one) == file_sha256(other)


def _put_product(store: Store, target: Path, file: Path, record: Path, force: bool) -> None:
    """The sidecar, then the file, as whoever writes a product does it; again from wherever it was left.

    The record goes away when it is in place, the file stays until all is done: so
    that nobody who clears up beside the target can take away what is still needed.
    """
    with target_lock(target):
        if record.exists():
            if not force:
                _refuse_others(store, target, file)
            _link(file, staged(target, read_record(record)["product"]["file_sha256"]))
            keep_record(target, store)
            _move(record, sidecar(target))
        known = read_record_or_none(target)
        if known is not None and state_of(target, known) == "replaced":
            staged(target, known["product"]["file_sha256"]).replace(target)
            sync_directory(target.parent)


def _refuse_others(store: Store, target: Path, file: Path) -> None:
    try:
        refuse_foreign(target)
    except WouldOverwrite:
        if not _is_copy(target, file):
            raise _in_the_way(store, target) from None


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or where that cannot be a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        _copied(source, target)


def _move(source: Path, target: Path) -> None:
    """Rename a file, or copy it where its place is on another disk; durably."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copied(source, target)
        source.unlink()
    sync_directory(target.parent)


def _copied(source: Path, target: Path) -> None:
    copy = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copy2(source, copy)
        if file_sha256(copy) != file_sha256(source):
            raise Integrity(f"{target}: the copy differs from what was to be published")
        copy.replace(target)
    finally:
        copy.unlink(missing_ok=True)


def _index(store: Store, steps: Sequence[Mapping[str, Any]]) -> None:
    if os.environ.get(INDEX_VARIABLE) == WITHOUT_INDEX:
        return
    rows = []
    for step in steps:
        record_path = store.root / step["record_target"]
        # What somebody removed since the commit is not there.
        with suppress(NoRecord):
            if step["what"] == "raw":
                rows += raw_rows(store, read_raw(record_path), record_path)
            elif step["what"] == "product":
                rows.append(product_row(store, store.root / step["target"], read_record(record_path)))
    if rows:
        put_records(store, rows)
    if any(step["what"] == "kept" for step in steps):
        in_current(store, Index.refresh_kept)
