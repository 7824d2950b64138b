"""Removing products: their bytes are freed and their records kept, so that lineage stays whole.

First the record is written among those that are kept, with where the product was and
who removed it; then the file goes, then its sidecar, then its row of the index. Killed
at any moment, the record is whole in at least one place, and removing again goes on.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BeingWritten, NoRecord, NoSuchFile, Protected, Unavailable, WouldOverwrite
from .files import make_directory, sync_directory, write_whole
from .indexing.index import Index, absolute, forget
from .indexing.indexrows import relative
from .indexing.inforce import indexes_in_force
from .indexing.kept import KEPT_BESIDE, removed_from
from .indexing.reach import ancestors_of
from .journal import events_on, now, stores_heard, words
from .kind import SAME_PRODUCT
from .products import says_it_is_product, state_of
from .publish import INDEX_VARIABLE, WITHOUT_INDEX, finish_rename, kept_name
from .quality import unfit_for_use
from .record import Record, read_record, sidecar, to_bytes
from .store import Store, is_locked, read_raw_record, store_of, target_lock


@dataclass(frozen=True)
class Removed:
    """A product that was removed, or would be: what is freed, and where its record is kept.

    before: it was removed earlier already.
    """

    path: Path
    kind: str
    key: str
    bytes: int
    record_path: Path
    before: bool = False


def remove(path: Path, stores: Sequence[Store], reason: str, who: str, dry_run: bool = False) -> Removed:
    """Remove a product, unless it is protected, and keep its record.

    stores: the search path, whose words on it count. Raises Protected for what is
    published, judged ready, or a raw frame; WouldOverwrite for what awetools did not
    write, or what was edited since; BeingWritten, NoSuchFile, NoRecord, Unavailable.
    """
    path = Path(os.path.abspath(path))
    if not os.path.lexists(path) and not os.path.lexists(sidecar(path)):
        return _removed_before(path)
    _refuse_what_is_not_ours(path, stores)
    if dry_run:
        if is_locked(path):
            raise BeingWritten(f"{path}: is being written by another program")
        return _removal(path, stores, reason, who)[0]
    with target_lock(path, wait=False):
        finish_rename(path)
        removed, kept = _removal(path, stores, reason, who)
        try:
            _keep(removed.record_path, kept)
            path.unlink(missing_ok=True)
            sidecar(path).unlink(missing_ok=True)
            sync_directory(path.parent)
        except OSError as error:
            raise Unavailable(f"{path}: cannot be removed: {error.strerror}") from None
        # Under the lock, so that the row of one that is made again meanwhile is put after.
        _forget(path)
    return removed


def _keep(record_path: Path, record: bytes) -> None:
    make_directory(record_path.parent)
    write_whole(record_path, record)
    sync_directory(record_path.parent)


def _refuse_what_is_not_ours(path: Path, stores: Sequence[Store]) -> None:
    look = f"ls -ld {shlex.quote(str(path))}"
    if path.is_symlink():
        raise WouldOverwrite(
            f"{path}: is a link to {os.path.realpath(path)}, not a product itself", hint=look
        )
    if path.is_dir():
        raise WouldOverwrite(f"{path}: is a directory; products are removed by name", hint="awe-query KIND")
    if os.path.lexists(sidecar(path)):
        return
    if _is_raw(path, stores):
        raise Protected(
            f"{path}: is a raw frame; raw frames are never removed", hint=f"awe-lineage {_quoted(path)}"
        )
    if says_it_is_product(path):
        text = f"{path}: a product whose record {sidecar(path).name} is missing; it is left as it is"
        raise NoRecord(text, hint=f"awe-lineage {_quoted(path)} finds a copy of the record")
    text = f"{path}: has no record beside it, so awetools did not write it; it is left as it is"
    raise WouldOverwrite(text, hint=look)


def _is_raw(path: Path, stores: Sequence[Store]) -> bool:
    try:
        return read_raw_record(stores_heard(path, stores), os.path.realpath(path)) is not None
    except NoRecord:
        return True


def _removal(path: Path, stores: Sequence[Store], reason: str, who: str) -> tuple[Removed, bytes]:
    """What removing a product would free, and the record that is to be kept."""
    record = read_record(sidecar(path))
    state = state_of(path, record)
    if state == "edited":
        text = f"{path}: was edited since awetools wrote it, so it cannot be made again; it is left as it is"
        raise WouldOverwrite(text, hint=f"awe-verify {_quoted(path)}")
    _refuse_protected(path, record, stores)
    store = store_of(path)
    about = {
        "path": relative(store, path) if store else path.name,
        "when": now(),
        "who": who,
        "reason": reason,
    }
    kept = to_bytes({**record, "removed": about})
    folder = store.records_path if store else path.parent / KEPT_BESIDE
    removed = Removed(
        path,
        str(record["recipe"]["kind"]),
        str(record["recipe_key"]),
        _freed(path),
        folder / kept_name(path.name, kept),
    )
    return removed, kept


def _refuse_protected(path: Path, record: Record, stores: Sequence[Store]) -> None:
    key = str(record["recipe_key"])
    heard = stores_heard(path, stores)
    for store in heard:
        for event in events_on(store, key):
            if event.get("event") == "publish":
                to = f" in {event['to']}" if event.get("to") else ""
                text = f"{path}: was published{to} on {event.get('when')} by {event.get('who') or '?'}; it is kept"
                raise Protected(text, hint=f"awe-lineage {_quoted(path)}")
    judged = [(one, verdict) for one in heard if (verdict := words(one).verdicts.get(key))]
    # The nearest store's word counts.
    if judged and judged[0][1] == "ready":
        text = f"{path}: is judged ready, in {judged[0][0].journal_path}; it is kept"
        raise Protected(text, hint=f"awe-judge --undo {_quoted(path)}")


def _freed(path: Path) -> int:
    """The bytes that go with a file; none where another name holds them."""
    try:
        stat = path.stat()
    except OSError:
        return 0
    return stat.st_size if stat.st_nlink == 1 else 0


def _forget(path: Path) -> None:
    store = store_of(path)
    if store is not None and os.environ.get(INDEX_VARIABLE) != WITHOUT_INDEX:
        forget(store, [relative(store, path)])


def _removed_before(path: Path) -> Removed:
    """A product that was removed earlier; raises NoSuchFile if no such record is kept."""
    import glob

    store = store_of(path)
    folder = store.records_path if store else path.parent / KEPT_BESIDE
    for one in sorted(folder.glob(f"{glob.escape(path.name)}.*.json")):
        try:
            record = read_record(one)
        except NoRecord:
            continue
        if removed_from(record, one) == path:
            return Removed(
                path, str(record["recipe"]["kind"]), str(record["recipe_key"]), 0, one, before=True
            )
    raise NoSuchFile(f"{path}: no such file, and no record of one is kept")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


# Versions that another one eclipses


def superseded(kind: str, stores: Sequence[Store]) -> list[Path]:
    """The versions of a kind that a later one of the same store eclipses, and that no newest product needs.

    A later version eclipses if its file is there, and it is neither judged bad nor
    flagged. Kept are versions whose interval was set by hand, those that nobody made
    again, and all that any of these was made from, to any depth.
    """
    with indexes_in_force(stores) as indexes:
        eclipsed: dict[tuple[int, str], str] = {}
        newest: dict[str, None] = {}
        for rank, index in enumerate(indexes):
            for versions in _versions(index):
                latest = next((one for one in reversed(versions) if _eclipses(one, stores[rank])), None)
                for one in versions:
                    if latest is None or one["sequence"] >= latest["sequence"] or one["valid_by"] == "hand":
                        newest[one["recipe_key"]] = None
                    elif one["kind"] == kind:
                        eclipsed[rank, one["path"]] = one["recipe_key"]
        needed = {one.identity for one in ancestors_of(indexes, newest)} | set(newest)
    return [
        Path(absolute(stores[rank], address))
        for (rank, address), key in sorted(eclipsed.items())
        if key not in needed
    ]


def _versions(index: Index) -> Iterator[list[dict[str, Any]]]:
    """The products of an index, those that are versions of each other together, in the order of making."""
    names = (
        "path",
        "kind",
        "recipe_key",
        "sequence",
        "flags",
        "verdict",
        "valid_by",
        "object",
        *SAME_PRODUCT,
    )
    columns = ", ".join(["objects.address", *(index.column(name, [])[0] for name in names[1:])])
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in index.select(f"SELECT {columns} FROM objects WHERE recipe_key IS NOT NULL"):
        one = dict(zip(names, row, strict=True))
        one["sequence"] = one["sequence"] or 0
        # Where no exposure tells it, images of two objects are no versions of each other.
        of = one["object"] if one["exposure"] is None else None
        groups.setdefault((one["kind"], of, *(one[name] for name in SAME_PRODUCT)), []).append(one)
    for versions in groups.values():
        yield sorted(versions, key=lambda one: one["sequence"])


def _eclipses(one: dict[str, Any], store: Store) -> bool:
    usable = not unfit_for_use(one["flags"], one["verdict"])
    return usable and os.path.exists(absolute(store, one["path"]))
