"""Whether products and raw frames are what their records say, and what crashes left behind.

A look at the directories gives the work; each piece of it gives findings. Nothing
is changed, except by `clean`, which ends what a crash interrupted.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import AweError, BeingWritten, NoRecord, NoSuchExtension, Unavailable
from .files import parse_address, stamp_of
from .index import absolute, index_leftovers, open_index, product_row, put_records
from .indexrows import read_raw
from .indexsync import check
from .parallel import run_forked
from .products import file_sha256, staged, state_of
from .publish import finish_rename, read_record_or_none
from .raws import stamp_in
from .record import Record, read_record, recipe_key, sidecar
from .store import (
    AWE,
    PRODUCT_ENDINGS,
    SIDECAR_ENDINGS,
    Store,
    is_locked,
    raw_record_files,
    store_of,
    target_lock,
)

# Slug to exit code and meaning; those with 0 are worth knowing, but nothing is wrong with the data.
PROBLEMS: Mapping[str, tuple[int, str]] = {
    "edited": (8, "the file is not the one that its record describes"),
    "content-differs": (8, "the pixels are not those that the record describes"),
    "checksum": (8, "a FITS checksum does not match"),
    "key-differs": (8, "the recipe key is not that of the record's own parts, or not the file's"),
    "raw-edited": (8, "the pixels of a raw frame are not those that were registered"),
    "missing": (4, "a record has no file, or a named file does not exist"),
    "no-record": (4, "a product has no record, or a raw frame is not registered"),
    "bad-record": (4, "a record is malformed"),
    "bad-fits": (4, "a file is not good FITS, or cannot be read"),
    "half-replaced": (4, "a replacement was interrupted between its two renames"),
    "raw-missing": (4, "a registered raw frame is gone"),
    "index-differs": (4, "the index is not what the records say, or cannot be read"),
    "unavailable": (7, "something could not be looked at: a worker died, a disk is away"),
    "raw-moved": (0, "a raw frame is gone, but the same pixels are registered elsewhere"),
    "leftover": (0, "a file of a program that died"),
}

FITS_NAME = r"\.(?P<name>.+\.(?:fits|fit|fts))"
STAGED = re.compile(rf"{FITS_NAME}\.(?P<digest>[0-9a-f]{{8}})\.new\Z", re.IGNORECASE)
PART = re.compile(rf"{FITS_NAME}\.(?P<pid>\d{{1,7}})\.part\Z", re.IGNORECASE)
LOCK = re.compile(rf"{FITS_NAME}\.lock\Z", re.IGNORECASE)
SMALL = re.compile(r"\.(?P<name>.+\.(?:json|toml|d))\.(?P<pid>\d{1,7})\.new\Z")
# A small file is written in far less; a large one holds its product's lock.
DEAD_AFTER_S = 60.0
SETTLE_S = 0.2


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be; `clean` ends it if it is fixable."""

    path: str
    problem: str
    detail: str
    fixable: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code that the problem stands for."""
        return PROBLEMS[self.problem][0]


@dataclass(frozen=True)
class Work:
    """What there is to verify: `stores` whole with their indexes, the rest one by one."""

    products: tuple[Path, ...] = ()
    raws: tuple[tuple[Store, Path], ...] = ()
    others: tuple[Path, ...] = ()
    leftovers: tuple[Path, ...] = ()
    stores: tuple[Store, ...] = ()
    nested: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.products) + len(self.raws) + len(self.others)


@dataclass(frozen=True)
class Cleaned:
    """What `clean` did to a path."""

    path: Path
    what: Literal["finished", "removed"]


# What there is to do


def look(names: Sequence[Path], stores: Sequence[Store]) -> Work:
    """What these files and directories hold; a store's own directory stands for the store with its raw frames."""
    found = [_look_at(name, stores) for name in names]

    def joined(field: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(one for work in found for one in getattr(work, field)))

    return Work(*(joined(field) for field in ("products", "raws", "others", "leftovers", "stores", "nested")))


def _look_at(name: Path, stores: Sequence[Store]) -> Work:
    if name.is_dir():
        return _look_into(name)
    path = parse_address(str(name)).path
    if path.name.lower().endswith(SIDECAR_ENDINGS):
        path = path.with_name(path.name.removesuffix(".json"))
    around = _entries(path.parent, f".{path.name}.")
    leftovers = tuple(Path(one.path) for one in around if _is_leftover_name(one.name))
    if os.path.lexists(sidecar(path)):
        return Work(products=(path,), leftovers=leftovers)
    own = store_of(path)
    for store in dict.fromkeys([*stores, *([own] if own else [])]):
        record = store.raw_record_path(os.path.realpath(path))
        if record.exists():
            return Work(raws=((store, record),), leftovers=leftovers)
    return Work(others=(path,), leftovers=leftovers)


def _look_into(directory: Path) -> Work:
    work = _walk(directory)
    store = store_of(directory)
    if store is None:
        return work
    below = directory.resolve()
    raws = tuple((store, path) for path, _ in raw_record_files(store) if _concerns(path, below, store))
    if below != store.root:
        return Work(work.products, raws, work.others, work.leftovers, (), work.nested)
    own = tuple(_small_leftovers(store.awe))
    leftovers = (*work.leftovers, *own, *index_leftovers(store))
    return Work(work.products, raws, work.others, leftovers, (store,), work.nested)


def _concerns(record: Path, below: Path, store: Store) -> bool:
    """Whether a raw record is of a frame below a directory; all of them are of the store's own."""
    if below == store.root:
        return True
    try:
        return Path(read_raw(record)["file"]["path"]).is_relative_to(below)
    except (NoRecord, KeyError, TypeError):
        return False


def _walk(directory: Path) -> Work:
    """Products, files that may be products, and leftovers below a directory, less stores of their own."""
    products, others, leftovers, nested = [], [], [], []
    waiting = [directory]
    while waiting:
        here = waiting.pop()
        entries = _entries(here)
        names = {one.name for one in entries}
        if AWE in names and here != directory:
            nested.append(here)
            continue
        for one in entries:
            ending = one.name.lower()
            if one.is_dir(follow_symlinks=False):
                continue
            if _is_leftover_name(one.name):
                leftovers.append(Path(one.path))
            elif one.name.startswith("."):
                continue
            elif ending.endswith(SIDECAR_ENDINGS):
                products.append(here / one.name.removesuffix(".json"))
            elif ending.endswith(PRODUCT_ENDINGS) and f"{one.name}.json" not in names:
                others.append(here / one.name)
        folders = [one for one in entries if one.is_dir(follow_symlinks=False)]
        waiting += [here / one.name for one in reversed(folders) if one.name not in (AWE, ".awe-records")]
    made = [path for path in others if _is_made_by_awetools(path)]
    return Work(tuple(products), (), tuple(made), tuple(leftovers), (), tuple(nested))


def _entries(directory: Path, beginning: str = "") -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return sorted(
                (one for one in found if one.name.startswith(beginning)), key=lambda one: one.name
            )
    except OSError as error:
        raise Unavailable(f"{directory}: {error.strerror}") from None


def _small_leftovers(directory: Path) -> Iterator[Path]:
    for here, _, names in os.walk(directory):
        yield from (Path(here, name) for name in sorted(names) if SMALL.match(name))


def _is_leftover_name(name: str) -> bool:
    return name.startswith(".") and any(form.match(name) for form in (STAGED, PART, LOCK, SMALL))


def _is_made_by_awetools(path: Path) -> bool:
    """Whether the primary header says that the file is a product."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(20 * 2880)
    except OSError:
        return False
    return begin.startswith(b"SIMPLE") and b"AWEKIND =" in begin


# Verifying


def verify(work: Work, quick: bool = False, processes: int = 1) -> Iterator[list[Finding]]:
    """The findings of each piece of work, then those of leftovers and of each index.

    quick: trust size and time where they are those of the record; else every
    file is read, hashed and compared.
    """
    from .fits import open_fits  # imported once, before the processes are forked

    del open_fits
    count = len(work.products)
    names = [*work.products, *(path for _, path in work.raws), *work.others]

    def one(number: int) -> list[Finding]:
        if number < count:
            return verify_product(work.products[number], quick)
        number -= count
        if number < len(work.raws):
            return verify_raw(*work.raws[number], quick)
        return _verify_other(work.others[number - len(work.raws)])

    for name, result in zip(names, run_forked(one, len(names), processes), strict=True):
        if isinstance(result, AweError):
            yield [Finding(str(name), "unavailable", result.message)]
        elif isinstance(result, Exception):
            raise result
        else:
            yield result
    yield [Finding(str(path), "leftover", _leftover_text(path), True) for path in work.leftovers if _is_dead(path)]
    for store in work.stores:
        yield _verify_index(store, quick)


def verify_product(path: Path, quick: bool = False) -> list[Finding]:
    """What is wrong with a product and its record; looked at again while another program replaces it."""
    while True:
        before = _stamp(sidecar(path))
        findings = _product_findings(path, quick)
        if not findings or (not is_locked(path) and _stamp(sidecar(path)) == before):
            return findings
        time.sleep(SETTLE_S)


def _stamp(path: Path) -> object:
    try:
        return stamp_of(path.stat())
    except OSError:
        return None


def _product_findings(path: Path, quick: bool) -> list[Finding]:
    try:
        record = read_record(sidecar(path))
        expected = key_of_parts(record)
        trusted = quick and _has_size_and_time(path, record)
    except NoRecord as error:
        return [Finding(str(path), "bad-record", _less(error.message, sidecar(path)))]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return [Finding(str(path), "bad-record", f"malformed: {type(error).__name__} {error}")]
    found = []
    if expected != record["recipe_key"]:
        text = f"the record's parts have the key {expected[:8]}, it says {record['recipe_key'][:8]}"
        found.append(Finding(str(path), "key-differs", text))
    return found if trusted else [*found, *_file_findings(path, record)]


def key_of_parts(record: Record) -> str:
    """The recipe key computed again from what the record says; raises KeyError, TypeError if it is malformed."""
    recipe = record["recipe"]
    parameters = {name: one["value"] for name, one in recipe["parameters"].items()}
    return recipe_key(recipe["kind"], recipe["revision"], parameters, recipe["inputs"])


def _has_size_and_time(path: Path, record: Record) -> bool:
    about = record["product"]
    with suppress(OSError):
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (about["bytes"], about["mtime_ns"])
    return False


def _file_findings(path: Path, record: Record) -> list[Finding]:
    about = record["product"]
    try:
        digest = file_sha256(path)
    except FileNotFoundError:
        digest = ""
    except OSError as error:
        return [Finding(str(path), "bad-fits", str(error.strerror))]
    if digest != about["file_sha256"] and staged(path, about["file_sha256"]).exists():
        return [_half_replaced(path, record)]
    if not digest:
        return [Finding(str(path), "missing", "its record is there, but the file is not")]
    if digest != about["file_sha256"]:
        return [Finding(str(path), "edited", _edit_text(path, digest, record))]
    return _fits_findings(path, record)


def _half_replaced(path: Path, record: Record) -> Finding:
    new = staged(path, record["product"]["file_sha256"])
    if file_sha256(new) == record["product"]["file_sha256"]:
        return Finding(str(path), "half-replaced", f"the new file waits as {new.name}", True)
    return Finding(str(path), "half-replaced", f"{new.name} should be the new file, but its hash differs")


def _edit_text(path: Path, digest: str, record: Record) -> str:
    from .fits import open_fits

    about = record["product"]
    text = f"{path.stat().st_size} bytes, sha256 {digest[:8]}; the record says {about['bytes']}, "
    text += about["file_sha256"][:8]
    try:
        with open_fits(path) as fits:
            same = fits.content() == about["content"]
    except AweError as error:
        return f"{text}; {_less(error.message, path)}"
    return f"{text}; {'the pixels are the same' if same else 'the pixels differ too'}"


def _fits_findings(path: Path, record: Record) -> list[Finding]:
    from .fits import open_fits

    name, found = str(path), []
    try:
        with open_fits(path) as fits:
            found += [Finding(name, "bad-fits", _less(text, path)) for text in fits.problems]
            found += [Finding(name, "checksum", _less(text, path)) for text in fits.verify_checksums()]
            content, key = fits.content(), fits.hdus[0].header.get("AWEKEY")
    except AweError as error:
        return [Finding(name, "bad-fits", _less(error.message, path))]
    said = record["product"]["content"]
    if content != said:
        found.append(Finding(name, "content-differs", f"content {content[:8]}; the record says {said[:8]}"))
    if key is not None and key != record["recipe_key"]:
        text = f"the file's AWEKEY is {str(key)[:8]}, the record's {record['recipe_key'][:8]}"
        found.append(Finding(name, "key-differs", text))
    return found


def _less(message: str, path: Path) -> str:
    return message.removeprefix(f"{path}: ").removeprefix(str(path))


def _verify_other(path: Path) -> list[Finding]:
    if not os.path.lexists(path):
        return [Finding(str(path), "missing", "no such file")]
    if not _is_made_by_awetools(path):
        return [Finding(str(path), "no-record", "not a product, and not a registered raw frame: awe-ingest")]
    text = f"made by awetools, but its record {path.name}.json is gone: awe-lineage finds a copy by its key"
    return [Finding(str(path), "no-record", text)]


# Raw frames


def verify_raw(store: Store, record_path: Path, quick: bool = False) -> list[Finding]:
    """What is wrong with a registered raw frame; an edit names the products that were made from what it was."""
    try:
        record = read_raw(record_path)
        path = Path(record["file"]["path"])
        contents = [(str(one["detector"]), tuple(one["hdus"]), str(one["content"])) for one in record["detectors"]]
        stamp = stamp_in(record)
    except NoRecord as error:
        return [Finding(str(record_path), "bad-record", _less(error.message, record_path))]
    except (KeyError, TypeError, AttributeError) as error:
        return [Finding(str(record_path), "bad-record", f"malformed: {type(error).__name__} {error}")]
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return [_gone(store, path, [content for _, _, content in contents])]
    except OSError as error:
        return [Finding(str(path), "bad-fits", str(error.strerror))]
    if quick and stamp_of(stat) == stamp:
        return []
    return _raw_findings(store, path, contents)


def _raw_findings(
    store: Store, path: Path, contents: Sequence[tuple[str, tuple[int, ...], str]]
) -> list[Finding]:
    from .fits import open_fits

    try:
        with open_fits(path, spool=True) as fits:
            now = [_content(fits, hdus) for _, hdus, _ in contents]
    except AweError as error:
        touched = _touched_text(store, [content for _, _, content in contents])
        return [Finding(str(path), "bad-fits", f"{_less(error.message, path)}{touched}")]
    found = []
    for (detector, _, content), new in zip(contents, now, strict=True):
        if new != content:
            text = f"{detector}: content {new[:8] or 'gone'}, registered as {content[:8]}"
            found.append(Finding(str(path), "raw-edited", text + _touched_text(store, [content])))
    return found


def _content(fits: Any, hdus: tuple[int, ...]) -> str:
    try:
        return str(fits.content(hdus))
    except NoSuchExtension:
        return ""


def _gone(store: Store, path: Path, contents: Sequence[str]) -> Finding:
    elsewhere = _elsewhere(store, path, contents)
    if elsewhere:
        return Finding(str(path), "raw-moved", f"the same pixels are registered as {elsewhere}")
    return Finding(str(path), "raw-missing", f"registered, but gone{_touched_text(store, contents)}")


def _elsewhere(store: Store, path: Path, contents: Sequence[str]) -> str:
    """An address of a raw frame of the same content whose file exists; empty if there is none."""
    with suppress(AweError), open_index(store) as index:
        for content in contents:
            for row in index.rows("content = ? AND kind LIKE 'raw%'", [content]):
                address = absolute(store, row["address"])
                file = parse_address(address).path
                if file != path and file.exists():
                    return address
    return ""


def _touched_text(store: Store, contents: Sequence[str]) -> str:
    """The products that list any of these contents as input, for a message."""
    touched: set[str] = set()
    with suppress(AweError), open_index(store) as index:
        for content in contents:
            touched.update(one["child"] for one in index.links("content = ?", [content]))
    if not touched:
        return ""
    names = sorted(touched)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"; touches {', '.join(names[:3])}{more}"


# Index


def _verify_index(store: Store, quick: bool) -> list[Finding]:
    try:
        problems = check(store, quick)
    except AweError as error:
        return [Finding(str(store.index_path), "index-differs", _less(error.message, store.index_path))]
    found = []
    for text in problems:
        address, _, detail = text.partition(": ")
        found.append(Finding(absolute(store, address), "index-differs", f"{detail}: awe-index --update"))
    return found


# What programs that died left


def _is_dead(path: Path) -> bool:
    """Whether no living program is at work on a leftover, and it is not what a replacement still needs."""
    if not os.path.lexists(path):
        return False
    target = _target_of(path)
    if target is None:
        return SMALL.match(path.name) is None or _is_old_or_orphaned(path, SMALL)
    if is_locked(target):
        return False
    if PART.match(path.name):
        return _is_old_or_orphaned(path, PART)
    return not _is_needed(path, target)


def _target_of(path: Path) -> Path | None:
    """The product that a staged, partial or lock file belongs to."""
    for form in (STAGED, PART, LOCK):
        match = form.match(path.name)
        if match:
            return path.with_name(match["name"])
    return None


def _is_needed(path: Path, target: Path) -> bool:
    """Whether a staged file is the one that the record of its product describes, and is not in place yet."""
    record = read_record_or_none(target) if STAGED.match(path.name) else None
    if record is None or staged(target, record["product"]["file_sha256"]) != path:
        return False
    return state_of(target, record) != "whole"


def _is_old_or_orphaned(path: Path, form: re.Pattern[str]) -> bool:
    match = form.match(path.name)
    assert match is not None
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError:
        return False
    return age_s > DEAD_AFTER_S or not _is_alive(int(match["pid"]))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _leftover_text(path: Path) -> str:
    if LOCK.match(path.name):
        return "a lock that nobody holds"
    return "written in part" if _target_of(path) or SMALL.match(path.name) else "an index that was not finished"


def clean(work: Work) -> Iterator[Cleaned]:
    """Finish replacements that were interrupted, and remove what dead programs left; nothing else."""
    targets = dict.fromkeys(target for path in work.leftovers if (target := _target_of(path)))
    for target in targets:
        with suppress(BeingWritten):
            if _finish(target):
                yield Cleaned(target, "finished")
    for path in work.leftovers:
        with suppress(BeingWritten):
            if _remove(path):
                yield Cleaned(path, "removed")


def _finish(target: Path) -> bool:
    record = read_record_or_none(target)
    if record is None or state_of(target, record) != "replaced":
        return False
    with target_lock(target, wait=False):
        if not _half_replaced(target, record).fixable or not finish_rename(target):
            return False
        store = store_of(target)
        if store is not None:
            put_records(store, [product_row(store, target, record)])
        return True


def _remove(path: Path) -> bool:
    target = _target_of(path)
    if target is None:
        return _is_dead(path) and _unlink(path)
    if not _is_dead(path):
        return False
    with target_lock(target, wait=False):
        # Giving the lock back removes it.
        return LOCK.match(path.name) is not None or (_is_dead_under_lock(path, target) and _unlink(path))
