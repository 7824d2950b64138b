"""Reference catalogues on disk: stars in FITS tables by HEALPix pixel, and the cones that are read out of them.

A catalogue is a directory: `catalogue.json` (what is in it, from what it was made, its
hashes) and shards. A shard holds the stars of a run of neighbouring pixels, sorted by
their finest pixel, in the table STARS; its table INDEX says at which row each pixel of
a coarser order begins. So a cone reads the rows of its pixels and no others.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Integrity, NoSuchFile, Truncated, UnknownName, Unreadable, nearest
from .healpix import cone_ranges, joined
from .sphere import at_epoch, separation_arcsec

Array = npt.NDArray[Any]
Stars = dict[str, Array]

HEADER = "catalogue.json"
VERSION = 1
# The order of the pixels that shards are runs of: 3.4 arcmin.
SHARD_ORDER = 10
# Rows that are read along with those around them, rather than skipped.
GAP_ROWS = 256
# Shards whose hash is remembered while a program runs.
HASHES_KEPT = 4096
MAS_PER_DEG = 3.6e6
# Proper motions and epochs beyond these are taken as wrong where a cone is made wider for them.
FASTEST_MAS_YR = 11_000.0

# Every catalogue has these, and for each of its bands mag_BAND and mag_error_BAND; not-a-number is "not known".
COLUMNS = {
    "ra_deg": "f8",
    "dec_deg": "f8",
    "ra_error_mas": "f4",
    "dec_error_mas": "f4",
    "epoch_yr": "f8",
    "pm_ra_mas_yr": "f4",
    "pm_dec_mas_yr": "f4",
    "pm_ra_error_mas_yr": "f4",
    "pm_dec_error_mas_yr": "f4",
    "parallax_mas": "f4",
    "parallax_error_mas": "f4",
    "flags": "i2",
}
# What the bits of the column `flags` say.
MERGED, CLOSE, SUSPECT = 1, 2, 4
FLAGS = {
    MERGED: "listed more than once; the one of smaller errors was kept",
    CLOSE: "another star, of another magnitude, is listed at this position",
    SUSPECT: "flagged by the catalogue itself",
}


def columns_for(bands: Sequence[str]) -> dict[str, str]:
    """The columns of a catalogue with these bands and their numpy types, in their order on disk."""
    magnitudes = {f"{kind}_{band}": "f4" for band in bands for kind in ("mag", "mag_error")}
    return {**COLUMNS, **magnitudes}


def unit_of(column: str) -> str:
    """The unit of a column, as FITS writes it; "" where it has none."""
    if column.startswith("mag_"):
        return "mag"
    endings = {"_mas_yr": "mas/yr", "_mas": "mas", "_deg": "deg", "_yr": "yr"}
    return next((unit for ending, unit in endings.items() if column.endswith(ending)), "")


@dataclass(frozen=True)
class Shard:
    """One file: its pixels of SHARD_ORDER (first, one past the last) and where its tables lie in it.

    order: that of the pixels in INDEX, which has `cells` of them. stars_at, index_at: the
    byte at which the rows of the tables begin; bytes: of the whole file.
    """

    file: str
    first: int
    end: int
    rows: int
    order: int
    cells: int
    stars_at: int
    index_at: int
    bytes: int
    content: str
    file_sha256: str


@dataclass(frozen=True)
class Catalogue:
    """An open catalogue: its columns (name: numpy type), bands, hash of all content, shards, header as read.

    checked: a shard is compared with its hash before it is read.
    """

    path: Path
    name: str
    rows: int
    content: str
    columns: Mapping[str, str]
    bands: tuple[str, ...]
    shards: tuple[Shard, ...]
    header: Mapping[str, Any]
    checked: bool = False

    @cached_property
    def _edges(self) -> npt.NDArray[np.int64]:
        return np.array([shard.first for shard in self.shards], np.int64)

    @cached_property
    def _stored(self) -> np.dtype[Any]:
        return np.dtype([(name, f">{kind}") for name, kind in self.columns.items()])

    def cone(
        self,
        ra_deg: float,
        dec_deg: float,
        radius_deg: float,
        *,
        epoch_yr: float | None = None,
        faintest: Mapping[str, float] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Stars:
        """The stars within a radius, as arrays by column name, in the catalogue's order.

        epoch_yr: positions, and what is within, are those of this epoch, with errors that grow
        by those of the motions (see `moved`). faintest: only stars at least as bright, by band.
        columns: which ones, all if None. Raises BadValue, UnknownName, Integrity, Unreadable.
        """
        pieces = list(
            self.pieces(ra_deg, dec_deg, radius_deg, epoch_yr=epoch_yr, faintest=faintest, columns=columns)
        )
        if not pieces:
            return {name: np.empty(0, self.columns[name]) for name in self._chosen(columns)}
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def pieces(
        self,
        ra_deg: float,
        dec_deg: float,
        radius_deg: float,
        *,
        epoch_yr: float | None = None,
        faintest: Mapping[str, float] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[Stars]:
        """The stars of `cone`, a shard at a time: memory stays that of one shard, however wide the cone."""
        wanted = self._chosen(columns)
        limits = {self._magnitude(band): limit for band, limit in (faintest or {}).items()}
        margin = 0.0 if epoch_yr is None else self._widest_move_deg(epoch_yr)
        order = max((shard.order for shard in self.shards), default=SHARD_ORDER)
        order = max(order, SHARD_ORDER)
        firsts, ends = cone_ranges(order, ra_deg, dec_deg, min(180.0, radius_deg + margin))
        for shard in self._touched(order, firsts, ends):
            rows = self._rows(shard, order, firsts, ends)
            stars = _within(rows, ra_deg, dec_deg, radius_deg, margin, epoch_yr, limits)
            if len(stars["ra_deg"]):
                yield {name: stars[name] for name in wanted}

    def _chosen(self, columns: Sequence[str] | None) -> list[str]:
        for name in columns or ():
            if name not in self.columns:
                raise UnknownName(
                    f"{self.path}: no column {name!r}{nearest(name, list(self.columns))}",
                    hint=f"awe-refcat show {self.name}",
                )
        return list(self.columns if columns is None else columns)

    def _magnitude(self, band: str) -> str:
        if band not in self.bands:
            known = ", ".join(self.bands) or "none"
            raise UnknownName(
                f"{self.path}: no band {band!r}; it has {known}", hint=f"awe-refcat show {self.name}"
            )
        return f"mag_{band}"

    def _widest_move_deg(self, epoch_yr: float) -> float:
        """How far a star of the catalogue may be from its place at this epoch."""
        if not math.isfinite(epoch_yr):
            raise BadValue(f"{epoch_yr} is no epoch")
        first, last = self.header["epochs_yr"] or (epoch_yr, epoch_yr)
        years = max(abs(epoch_yr - first), abs(epoch_yr - last))
        fastest = min(float(self.header["fastest_mas_yr"]), FASTEST_MAS_YR)
        return 1.01 * fastest * years / MAS_PER_DEG

    def _touched(
        self, order: int, firsts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
    ) -> Iterator[Shard]:
        """The shards that hold any of these pixels."""
        if not self.shards:
            return
        shift = 2 * (order - SHARD_ORDER)
        begin = np.maximum(np.searchsorted(self._edges, firsts >> shift, side="right") - 1, 0)
        end = np.searchsorted(self._edges, (ends - 1) >> shift, side="right")
        numbers = np.zeros(len(self.shards) + 1, np.int64)
        np.add.at(numbers, begin, 1)
        np.add.at(numbers, end, -1)
        for place in np.flatnonzero(np.cumsum(numbers[:-1]) > 0):
            yield self.shards[place]

    def _rows(
        self, shard: Shard, order: int, firsts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
    ) -> Array:
        """The rows of a shard whose pixels are among these ranges, with some around them, as stored."""
        shift = 2 * (order - shard.order)
        with _Opened(self.path / shard.file, shard.bytes) as file:
            if self.checked:
                file.check(shard.file_sha256)
            index = np.frombuffer(file.read(shard.index_at, 16 * shard.cells), ">i8").reshape(-1, 2)
            pixels, begins = index[:, 0].astype(np.int64), np.append(index[:, 1], shard.rows).astype(np.int64)
            if np.any(np.diff(pixels) <= 0) or np.any(np.diff(begins) < 0) or begins[0] < 0:
                raise file.edited("its index contradicts itself")
            a = begins[np.searchsorted(pixels, firsts >> shift)]
            b = begins[np.searchsorted(pixels, ((ends - 1) >> shift) + 1)]
            # Neighbouring ranges may lie in one pixel of a coarser index.
            a = np.maximum(a, np.concatenate([[0], np.maximum.accumulate(b)[:-1]]))
            some = b > a
            row = self._stored.itemsize
            parts = zip(*joined(a[some], (b - a)[some], GAP_ROWS), strict=True) if some.any() else ()
            read = [file.read(shard.stars_at + int(x) * row, int(y - x) * row) for x, y in parts]
        return np.frombuffer(b"".join(read), self._stored)


class _Opened:
    """A shard's file, read at places; its size is compared with what the header says."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        hint = f"ls -l {shlex.quote(str(path))}"
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unreadable(f"{path}: a shard of the catalogue: {error.strerror}", hint=hint) from error
        self.stat = os.fstat(self._file)
        if self.stat.st_size != size:
            os.close(self._file)
            raise Integrity(
                f"{path}: has {self.stat.st_size} bytes, but {HEADER} says {size}: edited since", hint=hint
            )

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def edited(self, how: str) -> Integrity:
        """The error that says that the file is not as it was written."""
        return Integrity(
            f"{self.path}: {how}: edited since", hint="awe-refcat verify; import the catalogue again"
        )

    def check(self, sha256: str) -> None:
        """Raise Integrity unless the file has this hash; a file that stays as it is is read once."""
        if _hash(self.path, self.stat.st_mtime_ns, self.stat.st_ino, self.size) != sha256:
            raise self.edited(f"its hash is not that of {HEADER}")

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file from a place on. Raises Unreadable, Truncated, Integrity."""
        if start < 0 or length < 0 or start + length > self.size:
            raise self.edited(f"{length} bytes at byte {start} are not in it")
        try:
            read = os.pread(self._file, length, start)
            while len(read) < length and (
                more := os.pread(self._file, length - len(read), start + len(read))
            ):
                read += more
        except OSError as error:
            raise Unreadable(f"{self.path}: reading at byte {start}: {error.strerror}") from error
        if len(read) < length:
            raise Truncated(f"{self.path}: ends at byte {start + len(read)}, {length - len(read)} too early")
        return read


@lru_cache(maxsize=HASHES_KEPT)
def _hash(path: Path, _mtime_ns: int, _inode: int, _size: int) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error


def _within(
    rows: Array,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    margin_deg: float,
    epoch_yr: float | None,
    limits: Mapping[str, float],
) -> Stars:
    """The stars among rows as stored that are within the cone and bright enough, in native numbers."""
    ra, dec = rows["ra_deg"].astype(np.float64), rows["dec_deg"].astype(np.float64)
    keep = _near(ra, dec, ra_deg, dec_deg, radius_deg + margin_deg)
    for name, limit in limits.items():
        keep &= rows[name].astype(np.float64) <= limit
    chosen = rows[keep]
    stars = {
        name: chosen[name].astype(chosen[name].dtype.newbyteorder("=")) for name in rows.dtype.names or ()
    }
    if epoch_yr is None:
        return stars
    stars = moved(stars, epoch_yr)
    still = _near(stars["ra_deg"], stars["dec_deg"], ra_deg, dec_deg, radius_deg)
    return {name: values[still] for name, values in stars.items()}


def _near(
    ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64], ra0: float, dec0: float, radius_deg: float
) -> npt.NDArray[np.bool_]:
    """Whether positions lie within a radius; the strip of declination first, which is quicker told."""
    near = np.abs(dec - dec0) <= radius_deg + 1e-9
    near[near] = separation_arcsec(ra[near], dec[near], ra0, dec0) <= radius_deg * 3600
    return near


def moved(stars: Mapping[str, Array], epoch_yr: float) -> Stars:
    """The stars at an epoch: moved by their proper motions, errors of position grown by those of the motions.

    stars: columns as of `Catalogue.cone`. What has no known motion or no known epoch stays,
    and keeps its own epoch; a motion without an error adds none. Raises BadValue.
    """
    if not math.isfinite(epoch_yr):
        raise BadValue(f"{epoch_yr} is no epoch")
    years = epoch_yr - np.asarray(stars["epoch_yr"], np.float64)
    pm_ra, pm_dec = (np.asarray(stars[f"pm_{axis}_mas_yr"], np.float64) for axis in ("ra", "dec"))
    known = np.isfinite(years) & np.isfinite(pm_ra) & np.isfinite(pm_dec)
    ra, dec = (np.array(stars[name], np.float64) for name in ("ra_deg", "dec_deg"))
    ra[known], dec[known] = at_epoch(ra[known], dec[known], pm_ra[known], pm_dec[known], years[known])
    result = {**stars, "ra_deg": ra, "dec_deg": dec}
    result["epoch_yr"] = np.where(known, epoch_yr, stars["epoch_yr"])
    for axis in ("ra", "dec"):
        grown = np.where(known, np.nan_to_num(stars[f"pm_{axis}_error_mas_yr"]) * years, 0.0)
        error = np.asarray(stars[f"{axis}_error_mas"], np.float64)
        result[f"{axis}_error_mas"] = np.hypot(error, grown).astype(np.float32)
    return result


def is_catalogue(path: str | Path) -> bool:
    """Whether a directory is a reference catalogue."""
    return (Path(path) / HEADER).is_file()


def open_catalogue(path: str | Path) -> Catalogue:
    """The catalogue of a directory; reads its header alone. Raises NoSuchFile, Unreadable, Integrity."""
    path = Path(path)
    place = path / HEADER
    try:
        text = place.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = f"awe-refcat import NAME {path}, then --refcat NAME" if path.is_file() else ""
        raise NoSuchFile(f"{path}: not a reference catalogue: no {HEADER} in it", hint=hint) from error
    except OSError as error:
        raise Unreadable(f"{place}: {error.strerror}") from error
    try:
        header = json.loads(text)
        version = header["catalogue"]
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable(f"{place}: not the header of a reference catalogue: {error}") from error
    if version != VERSION:
        raise Unreadable(f"{place}: version {version} of the header; this awetools reads {VERSION}")
    try:
        shards = tuple(Shard(**one) for one in header["shards"])
        columns = {str(one["name"]): str(one["type"]) for one in header["columns"]}
        names = tuple(header["bands"]), str(header["name"]), int(header["rows"]), str(header["content"])
        complete = {"epochs_yr", "fastest_mas_yr"} <= set(header)
    except (TypeError, KeyError, ValueError) as error:
        raise Unreadable(f"{place}: not the header of a reference catalogue: {error!r}") from error
    bands, name, rows, content = names
    if not complete or columns != columns_for(bands) or sum(shard.rows for shard in shards) != rows:
        raise Integrity(f"{place}: contradicts itself: edited since", hint="import the catalogue again")
    return Catalogue(path, name, rows, content, columns, bands, shards, header)
