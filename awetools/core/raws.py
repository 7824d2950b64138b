"""Raw frames: translated, hashed and registered, but never changed, moved or renamed.

A registered frame has a record in the store, found from its real path alone. Its
content hash is trusted while size, time and inode are those of the registration.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .camera import HduInfo, Translation, detectors, recognise, translate
from .errors import AweError, NoRecord, NoSuchExtension, NoSuchFile, Unreadable, WrongKind
from .files import Address, Stamp, stamp_of
from .record import check_raw_record, from_bytes, sidecar
from .store import Store, read_raw_record, write_raw_record

if TYPE_CHECKING:
    from .fits import FitsFile
    from .frame import RawFrame
    from .workspace import Workspace

RAW_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RawInput:
    """One detector of a raw frame: where it is, what it means, what it holds.

    `fits` is the open file where it had to be opened to learn this; the pixels
    are then read through it, so that each input is opened once.
    """

    address: Address
    meta: Mapping[str, Any]
    content: str
    hdus: tuple[int, ...]
    fits: FitsFile | None = None
    problems: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """raw_bias, raw_science, ..."""
        return str(self.meta["frame_type"])

    @property
    def key(self) -> None:
        """Raw frames have no recipe key."""
        return

    def open(self, spool: bool = False) -> FitsFile:
        """The open file; the caller closes it. spool: unpack a packed file to disk, not into memory."""
        # Detectors of one file share it until the first of them is done with it.
        if self.fits is not None and not self.fits.closed:
            return self.fits
        from .fits import open_fits

        return open_fits(self.address.path, spool)


def raw_frame_of(raw: RawInput, fits: FitsFile) -> RawFrame:
    """The frame that recipes read, over an open file."""
    from .frame import raw_frame
    from .sections import amplifiers_from_meta

    return raw_frame(raw.meta, amplifiers_from_meta(raw.meta["sections"]), fits.rows)


def stat_of(path: Path) -> os.stat_result:
    """The stat of an input file; raises NoSuchFile, Unreadable."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchFile(f"{path}: no such file") from None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise Unreadable(f"{path}: {error}") from None
    if not os.path.isfile(path):
        raise NoSuchFile(f"{path}: not a file", hint=f"ls {shlex.quote(str(path))}")
    return stat


def open_raw(address: Address, workspace: Workspace, spool: bool = False) -> list[RawInput]:
    """The raw detectors at an address, from the record if the file is unchanged, else from the file."""
    stat = stat_of(address.path)
    real_path = os.path.realpath(address.path)
    record = read_raw_record(workspace.stores, real_path)
    if record is not None and _stamp(record) == stamp_of(stat):
        problems = tuple(record["problems"])
        if record.get("tables") != workspace.cameras.digest:
            problems = (
                "the camera tables changed since it was registered: awe-ingest reads it again",
                *problems,
            )
        found = [_from_record(address.path, one, problems) for one in record["detectors"]]
        return _addressed(found, address)
    overrides = dict(record["overrides"]) if record else {}
    found = read_raw(address.path, workspace, overrides, spool)
    if record is None:
        found = _registered_elsewhere(found, workspace)
    return _addressed(found, address)


def read_raw(
    path: Path, workspace: Workspace, overrides: Mapping[str, str], spool: bool = False
) -> list[RawInput]:
    """Open, translate and hash a raw file; the file stays open in what is returned."""
    from .fits import open_fits

    fits = open_fits(path, spool)
    try:
        translations = translate_fits(fits, workspace, overrides)
        many = len(translations) > 1
        return [
            RawInput(
                address=Address(path, str(one.meta["detector"]) if many else None),
                meta=one.meta,
                content=fits.content(hdus),
                hdus=hdus,
                fits=fits,
                problems=(*fits.problems, *one.problems),
            )
            for hdus, one in translations
        ]
    except BaseException:
        fits.close()
        raise


def translate_fits(
    fits: FitsFile, workspace: Workspace, overrides: Mapping[str, str]
) -> list[tuple[tuple[int, ...], Translation]]:
    """What each detector of an open file means, with the HDUs it consists of."""
    if "AWEKIND" in fits.hdus[0].header:
        made = f"{fits.path}: a {fits.hdus[0].header['AWEKIND']} made by awetools"
        if os.path.lexists(sidecar(Path(fits.path))):
            raise WrongKind(f"{made}, no raw frame", hint=f"awe-lineage {shlex.quote(str(fits.path))}")
        raise NoRecord(
            f"{made} whose record {fits.path}.json is missing",
            hint="awe-lineage finds a copy of the record by its key; or make the product again",
        )
    hdus = [
        HduInfo(hdu.index, hdu.name, hdu.header, hdu.shape if hdu.is_image else None) for hdu in fits.hdus
    ]
    camera = recognise(workspace.cameras, hdus, str(fits.path), overrides.get("camera"))
    return [
        (address.hdus, translate(camera, hdus, address, overrides, str(fits.path)))
        for address in detectors(camera, hdus, str(fits.path))
    ]


def register(
    store: Store,
    path: Path,
    found: Sequence[RawInput],
    stamp: Stamp,
    overrides: Mapping[str, str],
    tables: str,
) -> dict[str, Any]:
    """Write the record of a raw file into the store; returns it. tables: the digest of the camera tables."""
    record = {
        "record": {"schema": RAW_SCHEMA_VERSION, "type": "raw"},
        "file": {"path": os.path.realpath(path), **asdict(stamp)},
        "camera": found[0].meta["camera"],
        "tables": tables,
        "overrides": dict(overrides),
        "registered": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "problems": sorted({problem for one in found for problem in one.problems}),
        "detectors": [
            {
                "detector": one.meta["detector"],
                "hdus": list(one.hdus),
                "content": one.content,
                "meta": dict(one.meta),
            }
            for one in found
        ],
    }
    write_raw_record(store, record)
    return record


def _stamp(record: Mapping[str, Any]) -> Stamp:
    file = record["file"]
    return Stamp(file["bytes"], file["mtime_ns"], file["inode"])


def _from_record(path: Path, one: Mapping[str, Any], problems: tuple[str, ...]) -> RawInput:
    address = Address(path, str(one["detector"]))
    return RawInput(address, one["meta"], one["content"], tuple(one["hdus"]), None, problems)


def _addressed(found: list[RawInput], address: Address) -> list[RawInput]:
    if len(found) == 1 and address.detector is None:
        return [_at(found[0], address)]
    if address.detector is None:
        return found
    chosen = [one for one in found if _is_named(one, address.detector)]
    if not chosen:
        for one in found:
            if one.fits:
                one.fits.close()
        there = ", ".join(f"{one.meta['detector']} (HDU {one.hdus[0]})" for one in found)
        raise NoSuchExtension(f"{address.path}: no detector {address.detector!r}; there are: {there}")
    return [_at(one, address) for one in chosen]


def _at(raw: RawInput, address: Address) -> RawInput:
    from dataclasses import replace

    return replace(raw, address=address)


def _is_named(raw: RawInput, name: str) -> bool:
    if str(raw.meta["detector"]) == name:
        return True
    return name.isdecimal() and int(name) in raw.hdus


def _registered_elsewhere(found: list[RawInput], workspace: Workspace) -> list[RawInput]:
    """A frame that was moved or packed keeps its overrides: it is known by content, and registered again."""
    from .indexing.index import put_records, raw_rows

    for store in workspace.stores:
        known = known_by_content(store, found[0].content)
        if known is None:
            continue
        again = translated_again(found, workspace, known["overrides"])
        path = again[0].address.path
        with suppress(AweError):
            stamp = stamp_of(path.stat())
            record = register(store, path, again, stamp, known["overrides"], workspace.cameras.digest)
            put_records(store, raw_rows(store, record, store.raw_record_path(record["file"]["path"])))
            drop_if_gone(store, known)
        return again
    return found


def known_by_content(store: Store, content: str) -> dict[str, Any] | None:
    """The record of a raw frame that holds these pixels, wherever it was; one whose file is gone first."""
    from .indexing.index import open_index

    with open_index(store) as index:
        rows = list(index.rows("content = ? AND kind LIKE 'raw%'", (content,)))
    records = [record for record in (_known_record(store, row["record_path"]) for row in rows) if record]
    return min(records, key=lambda record: os.path.exists(record["file"]["path"]), default=None)


def translated_again(
    found: list[RawInput], workspace: Workspace, overrides: Mapping[str, str]
) -> list[RawInput]:
    """The detectors of an open file, translated with overrides."""
    fits = found[0].fits
    if not overrides or fits is None:
        return found
    return [
        RawInput(one.address, translation.meta, one.content, one.hdus, fits, one.problems)
        for one, (_, translation) in zip(found, translate_fits(fits, workspace, overrides), strict=True)
    ]


def drop_if_gone(store: Store, record: Mapping[str, Any]) -> bool:
    """Forget the registration of a file that is not there any more; whether it was."""
    if os.path.exists(record["file"]["path"]):
        return False
    forget_raw(store, record)
    return True


def forget_raw(store: Store, record: Mapping[str, Any]) -> None:
    """Take the registration of a raw frame back; the frame itself is not touched."""
    from .indexing.index import forget, raw_rows

    record_path = store.raw_record_path(record["file"]["path"])
    rows = raw_rows(store, record, record_path)
    record_path.unlink(missing_ok=True)
    forget(store, [row["address"] for row, _ in rows])


def _known_record(store: Store, record_path: str) -> dict[str, Any] | None:
    try:
        record = from_bytes((store.root / record_path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return None if check_raw_record(record) else dict(record)
