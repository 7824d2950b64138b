"""Whether products and raw frames are what their records say, and what crashes left behind.

A look at the directories gives the work; each piece of it gives findings. Nothing is changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .errors import AweError, NoRecord, NoSuchExtension
from .files import Stamp, parse_address, stamp_of
from .indexing.generations import index_leftovers
from .indexing.index import absolute, open_index
from .indexing.indexrows import read_raw
from .indexing.indexsync import differences
from .leftovers import (
    catalogue_leftovers,
    is_dead,
    is_finishable,
    is_folder_leftover,
    is_leftover_name,
    leftover_text,
    small_leftovers,
)
from .parallel import run_forked
from .products import file_sha256, says_it_is_product, staged
from .record import Record, read_record, recipe_key, sidecar
from .sharing.handover import waiting
from .store import (
    AWE,
    PRODUCT_ENDINGS,
    SIDECAR_ENDINGS,
    Store,
    is_locked,
    raw_record_files,
    store_of,
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
    "flags-changed": (0, "the limits now in force give a product other flags"),
}

# Kept records are not sidecars, and what a disk check recovered is root's.
PASSED_OVER = (AWE, ".awe-records", "lost+found")
# A program that replaces a product is between its two renames for a moment.
SETTLE_S = 0.2
LOOKS = 25


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
    """What there is to verify: `stores` with their indexes, the rest one by one.

    others: files without a record. nested: stores of their own, which are left
    out. closed: directories that cannot be read.
    """

    products: tuple[Path, ...] = ()
    raws: tuple[tuple[Store, Path], ...] = ()
    others: tuple[Path, ...] = ()
    leftovers: tuple[Path, ...] = ()
    stores: tuple[Store, ...] = ()
    nested: tuple[Path, ...] = ()
    closed: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.products) + len(self.raws) + len(self.others)


# What there is to do


def look(names: Sequence[Path], stores: Sequence[Store]) -> Work:
    """What these files and directories hold; a store's own directory stands for the store with its raw frames."""
    found = [_look_into(name) if name.is_dir() else _look_at(name, stores) for name in names]

    def joined(field: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(one for work in found for one in getattr(work, field)))

    return Work(*(joined(field.name) for field in fields(Work)))


def _look_at(name: Path, stores: Sequence[Store]) -> Work:
    path = parse_address(str(name)).path
    if path.name.lower().endswith(SIDECAR_ENDINGS):
        path = path.with_name(path.name.removesuffix(".json"))
    around = _entries(path.parent) or []
    leftovers = tuple(
        path.parent / one.name
        for one in around
        if one.name.startswith(f".{path.name}.")
        and (is_leftover_name(one.name) or is_folder_leftover(path.parent / one.name))
    )
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
    paths = (Path(path) for path, _ in raw_record_files(store))
    raws = tuple((store, path) for path in paths if _concerns(path, below, store))
    if below != store.root:
        return replace(work, raws=raws)
    leftovers = (
        *work.leftovers,
        *waiting(store),
        *small_leftovers(store.awe),
        *catalogue_leftovers(store.refcats_path),
        *index_leftovers(store),
    )
    return replace(work, raws=raws, leftovers=leftovers, stores=(store,))


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
    found: dict[str, list[Path]] = {field.name: [] for field in fields(Work)}
    waiting = [directory]
    while waiting:
        here = waiting.pop()
        entries = _entries(here)
        if entries is None:
            found["closed"].append(here)
            continue
        names = {one.name for one in entries}
        if AWE in names and here != directory:
            found["nested"].append(here)
            continue
        folders = [one.name for one in entries if one.is_dir(follow_symlinks=False)]
        for name in sorted(names.difference(folders)):
            sort = _sort(name, names)
            if sort:
                found[sort].append(here / (name.removesuffix(".json") if sort == "products" else name))
        unfinished = [name for name in folders if is_folder_leftover(here / name)]
        found["leftovers"] += [here / name for name in unfinished]
        waiting += [here / name for name in reversed(folders) if name not in (*PASSED_OVER, *unfinished)]
    found["others"] = [path for path in found["others"] if says_it_is_product(path)]
    return Work(**{name: tuple(paths) for name, paths in found.items()})  # type: ignore[arg-type]


def _sort(name: str, names: set[str]) -> str:
    """Which field of Work a file name belongs to; empty if to none."""
    if is_leftover_name(name):
        return "leftovers"
    if name.startswith("."):
        return ""
    if name.lower().endswith(SIDECAR_ENDINGS):
        return "products"
    return "others" if name.lower().endswith(PRODUCT_ENDINGS) and f"{name}.json" not in names else ""


def _entries(directory: Path) -> list[os.DirEntry[str]] | None:
    """What is in a directory, by name; None if it cannot be read."""
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda one: one.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None


# Verifying


def verify(work: Work, quick: bool = False, processes: int = 1) -> Iterator[list[Finding]]:
    """The findings of each piece of work, then those of leftovers and of each index.

    quick: trust size and time where they are those of the record; else every
    file is read, hashed and compared.
    """
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
    yield [
        Finding(str(path), "leftover", leftover_text(path), True) for path in work.leftovers if is_dead(path)
    ]
    yield [Finding(str(path), "unavailable", "this directory cannot be read") for path in work.closed]
    for store in work.stores:
        yield _verify_index(store, quick)


def verify_product(path: Path, quick: bool = False) -> list[Finding]:
    """What is wrong with a product and its record; looked at again while another program replaces it."""
    findings: list[Finding] = []
    for _ in range(LOOKS):
        before = _stamp(sidecar(path))
        findings = _product_findings(path, quick)
        if not findings or (not is_locked(path) and _stamp(sidecar(path)) == before):
            break
        time.sleep(SETTLE_S)
    return findings


def _stamp(path: Path) -> object:
    try:
        return stamp_of(path.stat())
    except OSError:
        return None


def _product_findings(path: Path, quick: bool) -> list[Finding]:
    if not os.path.lexists(sidecar(path)):
        # Removed since the directory was listed; a file without its record is another thing.
        return _verify_other(path) if os.path.lexists(path) else []
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
    size = path.stat().st_size
    if size != about.get("bytes"):
        return [Finding(str(path), "bad-record", f"it says {about.get('bytes')} bytes, the file has {size}")]
    return _fits_findings(path, record)


def _half_replaced(path: Path, record: Record) -> Finding:
    new = staged(path, record["product"]["file_sha256"])
    if is_finishable(path, record["product"]["file_sha256"]):
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
    if not says_it_is_product(path):
        return [Finding(str(path), "no-record", "not a product, and not a registered raw frame: awe-ingest")]
    text = f"made by awetools, but its record {path.name}.json is gone: awe-lineage finds a copy by its key"
    return [Finding(str(path), "no-record", text)]


# Raw frames


def verify_raw(store: Store, record_path: Path, quick: bool = False) -> list[Finding]:
    """What is wrong with a registered raw frame; an edit names the products that were made from what it was."""
    try:
        record = read_raw(record_path)
        path = Path(record["file"]["path"])
        contents = [
            (str(one["detector"]), tuple(one["hdus"]), str(one["content"])) for one in record["detectors"]
        ]
        stamp = Stamp(*(int(record["file"][name]) for name in ("bytes", "mtime_ns", "inode")))
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
        touched.update(one["address"] for one in index.users_of(contents))
    if not touched:
        return ""
    names = sorted(touched)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"; touches {', '.join(names[:3])}{more}"


# Index


def _verify_index(store: Store, quick: bool) -> list[Finding]:
    try:
        found = differences(store, quick)
    except AweError as error:
        return [Finding(str(store.index_path), "index-differs", _less(error.message, store.index_path))]
    return [
        Finding(absolute(store, address), "index-differs", f"{text}: awe-index --update")
        for address, text in found
    ]
