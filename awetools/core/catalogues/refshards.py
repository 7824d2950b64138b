"""Makes a reference catalogue on disk of any number of stars, in constant memory.

Stars come in pieces and are spilled to a scratch file; when all are counted, the shards
are laid out, and each star goes to its shard's place in a second scratch file (a counting
sort). Then each shard is sorted, its doubles are merged, and it is written.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, TooFew, Unavailable, WouldOverwrite
from ..files import held, make_directory, sync_directory, write_whole
from ..fits import Plane, open_fits, write_fits
from ..fitswrite import bytes_of
from ..record import sha256_of
from ..sky.healpix import BASE_PIXELS, FINEST, near_border, pixels_of
from ..sky.refcat import (
    CLOSE,
    FLAGS,
    HEADER,
    MERGED,
    SHARD_ORDER,
    VERSION,
    Catalogue,
    Shard,
    columns_for,
    open_catalogue,
    unit_of,
)

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

# Rows of a shard; most have between 10^4 and 10^5.
SHARD_ROWS = 50_000
# Rows of a pixel of a shard's index.
INDEX_ROWS = 64
# Rows worked on at once on their way to the shards.
PIECE_ROWS = 1 << 17
MOST_DUPLICATE_ARCSEC = 2.0
# Magnitudes that differ by less than this may be of one star, listed twice.
SAME_MAG = 0.1
NAMED = 10
# Where a star has this many others next to it along the line of the search, a tree is quicker.
CROWDED = 32
# Rows of the second table are numbered from this on, those of the third from twice this, ...
TABLE_ROWS = 10**12


@dataclass
class Doubles:
    """What was found of stars listed more than once: counts, and the first few as "RA Dec (rows)"."""

    merged: int = 0
    close: int = 0
    named: list[str] = field(default_factory=list)


def write_catalogue(
    path: str | Path,
    pieces: Iterable[Mapping[str, Array]],
    bands: Sequence[str],
    sources: Sequence[Mapping[str, Any]],
    *,
    name: str = "",
    duplicate_arcsec: float = 0.1,
) -> Catalogue:
    """Write a new catalogue directory whole, and open it.

    pieces: columns as `columns_for(bands)` by name (absent ones are not known), of any
    length each; `row`, the number in its table (see TABLE_ROWS), is named for doubles. sources: what is to
    be said of the tables that the stars come from, JSON values. Two stars within
    duplicate_arcsec whose magnitudes agree to 0.1 mag in all bands they share are one: that
    of smaller errors is kept, and gets the magnitudes that it lacks; others are flagged.
    The bytes are a function of the arguments alone. Raises WouldOverwrite, BadValue,
    TooFew (no star), Unavailable.
    """
    path = Path(path)
    if not 0 <= duplicate_arcsec <= MOST_DUPLICATE_ARCSEC:
        raise BadValue(
            f"doubles are looked for within 0 to {MOST_DUPLICATE_ARCSEC} arcsec, not {duplicate_arcsec}"
        )
    if path.exists() or path.is_symlink():
        raise _exists(path)
    make_directory(path.parent)
    part = unfinished(path)
    try:
        part.mkdir()
        with held(part):
            header = _write(part, pieces, bands, duplicate_arcsec)
            header = {"catalogue": VERSION, "name": name or path.name, "sources": list(sources), **header}
            write_whole(part / HEADER, (json.dumps(header, indent=1, sort_keys=True) + "\n").encode())
            sync_directory(part)
            part.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _exists(path) from None
        hint = f"df -h {shlex.quote(str(path.parent))}"
        raise Unavailable(f"{path}: cannot be written: {error.strerror}", hint=hint) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_catalogue(path)


def unfinished(path: Path) -> Path:
    """The name that a catalogue has while this process makes or removes it."""
    return path.with_name(f".{path.name}.{os.getpid()}.catalogue")


def _exists(path: Path) -> WouldOverwrite:
    return WouldOverwrite(f"{path}: exists already", hint=f"another name, or: rm -r {shlex.quote(str(path))}")


def verify_catalogue(catalogue: Catalogue) -> list[str]:
    """What is wrong with the shards' hashes, all read again; empty if nothing. Raises as `open_fits`."""
    problems = []
    for shard in catalogue.shards:
        with open_fits(catalogue.path / shard.file) as fits:
            if fits.file_sha256() != shard.file_sha256 or fits.content() != shard.content:
                problems.append(f"{fits.path}: its hash is not that of {HEADER}")
    if content_of(catalogue.columns, catalogue.shards) != catalogue.content:
        problems.append(f"{catalogue.path / HEADER}: its hash of all content is not that of its shards")
    return problems


def content_of(columns: Mapping[str, str], shards: Iterable[Shard]) -> str:
    """The hash of all content: of the columns and of each shard's content, no names and no times."""
    return sha256_of([list(columns.items()), [[shard.first, shard.end, shard.content] for shard in shards]])


# The way of the stars to their shards


@dataclass
class _Seen:
    """What is told of all stars in the header."""

    without_epoch: int = 0
    without_motion: int = 0
    first_yr: float = np.inf
    last_yr: float = -np.inf
    fastest_mas_yr: float = 0.0

    def look(self, rows: Array) -> None:
        """Take note of these rows."""
        epochs = rows["epoch_yr"][np.isfinite(rows["epoch_yr"])]
        speeds = np.hypot(rows["pm_ra_mas_yr"], rows["pm_dec_mas_yr"])
        self.without_epoch += len(rows) - len(epochs)
        self.without_motion += int(np.isnan(speeds).sum())
        if len(epochs):
            self.first_yr = min(self.first_yr, float(epochs.min()))
            self.last_yr = max(self.last_yr, float(epochs.max()))
        self.fastest_mas_yr = max(self.fastest_mas_yr, float(np.nanmax(np.append(speeds, 0))))


def _write(
    part: Path, pieces: Iterable[Mapping[str, Array]], bands: Sequence[str], duplicate_arcsec: float
) -> dict[str, Any]:
    """Write the shards; returns what the header says of them."""
    columns = columns_for(bands)
    record = np.dtype([("row", "i8"), ("pixel", "i8"), *columns.items()])
    spill, sorted_spill = part / "spill", part / "sorted"
    counts = np.zeros(BASE_PIXELS << (2 * SHARD_ORDER), np.int32)
    seen, written = _Seen(), 0
    with spill.open("wb", buffering=0) as file:
        for rows in _records(pieces, record):
            cells, times = np.unique(rows["pixel"] >> 2 * (FINEST - SHARD_ORDER), return_counts=True)
            counts[cells] += times.astype(np.int32)
            seen.look(rows)
            _write_all(file.fileno(), rows, written)
            written += rows.nbytes
    edges = _edges(counts)
    if not len(edges):
        raise TooFew("there is no star for a catalogue")
    ends = np.append(edges[1:], len(counts))
    lengths = np.add.reduceat(counts, edges, dtype=np.int64)
    del counts
    ghosts = _distribute(spill, sorted_spill, record, edges, lengths, duplicate_arcsec)
    spill.unlink()
    doubles = Doubles()
    shards = []
    begins = np.cumsum(lengths) - lengths
    with sorted_spill.open("rb", buffering=0) as file:
        for number, (first, end) in enumerate(zip(edges, ends, strict=True)):
            rows = np.empty(lengths[number], record)
            _read_all(file.fileno(), rows, int(begins[number]) * record.itemsize)
            near = ghosts[ghosts["shard"] == number]["star"] if len(ghosts) else rows[:0]
            rows = without_doubles(rows, near, duplicate_arcsec, doubles)
            if len(rows):
                shards.append(_write_shard(part, int(first), int(end), rows, columns))
    sorted_spill.unlink()
    return {
        "rows": sum(shard.rows for shard in shards),
        "content": content_of(columns, shards),
        "columns": [{"name": name, "type": kind, "unit": unit_of(name)} for name, kind in columns.items()],
        "bands": list(bands),
        "flags": {str(bit): text for bit, text in FLAGS.items()},
        "epochs_yr": [seen.first_yr, seen.last_yr] if seen.last_yr >= seen.first_yr else None,
        "fastest_mas_yr": seen.fastest_mas_yr,
        "without_epoch": seen.without_epoch,
        "without_motion": seen.without_motion,
        "duplicate_arcsec": duplicate_arcsec,
        "merged": doubles.merged,
        "close": doubles.close,
        "doubles": doubles.named,
        "shard_order": SHARD_ORDER,
        "shards": [asdict(shard) for shard in shards],
    }


def _records(pieces: Iterable[Mapping[str, Array]], record: np.dtype[Any]) -> Iterator[Array]:
    """The pieces as rows with their finest pixel, of a length that bounds the memory."""
    row = 0
    for piece in pieces:
        length = len(piece["ra_deg"])
        for start in range(0, length, PIECE_ROWS):
            stop = min(length, start + PIECE_ROWS)
            rows = np.empty(stop - start, record)
            for name in (record.names or ())[2:]:
                unknown = 0 if name == "flags" else np.nan
                rows[name] = piece[name][start:stop] if name in piece else unknown
            rows["row"] = (
                piece["row"][start:stop] if "row" in piece else np.arange(row + 1, row + 1 + len(rows))
            )
            rows["pixel"] = pixels_of(FINEST, rows["ra_deg"], rows["dec_deg"])
            row += len(rows)
            yield rows


def _edges(counts: npt.NDArray[np.int32]) -> Integers:
    """The first pixel of each shard: runs of about equally many stars. Empty where there is no star."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return filled
    sums = np.cumsum(counts[filled], dtype=np.int64)
    number = -(-int(sums[-1]) // SHARD_ROWS)
    goals = np.arange(1, number) * (sums[-1] / number)
    starts = np.unique(np.searchsorted(sums, goals, side="left") + 1)
    return np.concatenate([[0], filled[starts[starts < len(filled)]]])


def _distribute(
    spill: Path, target: Path, record: np.dtype[Any], edges: Integers, lengths: Integers, arcsec: float
) -> Array:
    """Write each star at its shard's place of the target; returns copies of those next to other shards."""
    places = (np.cumsum(lengths) - lengths) * record.itemsize
    ghosts: list[Array] = []
    with spill.open("rb", buffering=0) as source, target.open("wb", buffering=0) as sink:
        for start in range(0, int(lengths.sum()), PIECE_ROWS):
            rows = np.empty(min(PIECE_ROWS, int(lengths.sum()) - start), record)
            _read_all(source.fileno(), rows, start * record.itemsize)
            shard = _shard_of(rows["pixel"], edges)
            order = np.argsort(shard, kind="stable")
            rows, shard = rows[order], shard[order]
            numbers, begins = np.unique(shard, return_index=True)
            for number, some in zip(numbers, np.split(rows, begins[1:]), strict=True):
                _write_all(sink.fileno(), some, int(places[number]))
                places[number] += some.nbytes
            ghosts += _ghosts(rows, shard, edges, arcsec)
    return np.concatenate(ghosts) if ghosts else np.empty(0, _ghost(record))


def _ghost(record: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype([("shard", "i8"), ("star", record)])


def _shard_of(pixels: Integers, edges: Integers) -> Integers:
    return np.searchsorted(edges, pixels >> 2 * (FINEST - SHARD_ORDER), side="right") - 1


def _ghosts(rows: Array, shard: Integers, edges: Integers, arcsec: float) -> list[Array]:
    """Copies of the stars within an angle of other shards, marked with these."""
    if len(edges) == 1 or not arcsec:
        return []
    near = near_border(SHARD_ORDER, rows["ra_deg"], rows["dec_deg"], arcsec)
    rows, shard = rows[near], shard[near]
    found = []
    ra, dec = rows["ra_deg"], rows["dec_deg"]
    # Around the star a little further out, so that no corner is missed between the directions.
    reach = 1.2 * arcsec / 3600
    for angle in np.arange(8) * (np.pi / 4):
        dec2 = dec + reach * np.sin(angle)
        over = np.abs(dec2) > 90
        across = np.maximum(np.cos(np.radians(dec2)), 1e-9)
        ra2 = np.where(over, ra + 180, ra + reach * np.cos(angle) / across)
        dec2 = np.where(over, np.sign(dec2) * 180 - dec2, dec2)
        other = _shard_of(pixels_of(FINEST, ra2, dec2), edges)
        differs = other != shard
        copies = np.empty(int(differs.sum()), _ghost(rows.dtype))
        copies["shard"], copies["star"] = other[differs], rows[differs]
        found.append(copies)
    # Several directions lead to one shard.
    many = np.concatenate(found)
    _, firsts = np.unique(np.stack([many["shard"], many["star"]["row"]], axis=1), axis=0, return_index=True)
    return [many[firsts]] if len(firsts) else []


# Doubles


def without_doubles(rows: Array, ghosts: Array, arcsec: float, doubles: Doubles) -> Array:
    """The rows without those that are listed again, flagged where one was merged or another is close.

    ghosts: stars of other shards next to these, which decide but are not returned. `doubles`
    counts and names. Whether a row goes depends on its neighbours alone, so two shards agree.
    """
    together = np.concatenate([rows, ghosts])
    if not arcsec or len(together) < 2:
        return rows
    one, two = pairs_within(together["ra_deg"], together["dec_deg"], arcsec)
    if not len(one):
        return rows
    # The better of a pair first: the smaller error, then the earlier row.
    worse = _worse(together[one], together[two])
    one, two = np.where(worse, two, one), np.where(worse, one, two)
    same = _same_star(together[one], together[two])
    together["flags"][np.concatenate([one[~same], two[~same]])] |= CLOSE
    together["flags"][one[same]] |= MERGED
    for name in together.dtype.names or ():
        if name.startswith("mag_") and not name.startswith("mag_error_"):
            _fill(together, one[same], two[same], name, name.replace("mag_", "mag_error_", 1))
    gone = np.zeros(len(together), bool)
    gone[two[same]] = True
    ours = np.arange(len(together)) < len(rows)
    doubles.merged += int((gone & ours).sum())
    doubles.close += int(((together["flags"] & CLOSE != 0) & ours & ~gone).sum())
    for a, b, merge in zip(one, two, same, strict=True):
        if len(doubles.named) >= NAMED:
            break
        if ours[b if merge else a]:
            doubles.named.append(_named(together[a], together[b], bool(merge)))
    return together[ours & ~gone]


def _named(kept: Any, other: Any, merged: bool) -> str:
    word = "merged" if merged else "both kept"
    place = f"{kept['ra_deg']:.6f} {kept['dec_deg']:+.6f}"
    return f"{place} (rows {_row_text(kept['row'])} and {_row_text(other['row'])}: {word})"


def _row_text(row: int) -> str:
    table, number = divmod(int(row), TABLE_ROWS)
    return f"{number} of table {table + 1}" if table else f"{number}"


def _worse(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Whether a is less well known than b, or as well and listed later."""
    error_a, error_b = (
        np.nan_to_num(np.hypot(one["ra_error_mas"], one["dec_error_mas"]), nan=np.inf) for one in (a, b)
    )
    return np.asarray((error_a > error_b) | ((error_a == error_b) & (a["row"] > b["row"])))


def _same_star(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Whether no magnitude that both have differs."""
    same = np.ones(len(a), bool)
    for name in a.dtype.names or ():
        if name.startswith("mag_") and not name.startswith("mag_error_"):
            # Not-a-number is not larger.
            same &= ~(np.abs(a[name] - b[name]) > SAME_MAG)
    return same


def _fill(rows: Array, kept: Integers, gone: Integers, name: str, error: str) -> None:
    """Give stars the magnitudes that they lack of those merged into them."""
    lacks = np.isnan(rows[name][kept]) & ~np.isnan(rows[name][gone])
    rows[error][kept[lacks]] = rows[error][gone[lacks]]
    rows[name][kept[lacks]] = rows[name][gone[lacks]]


def pairs_within(ra_deg: Array, dec_deg: Array, arcsec: float) -> tuple[Integers, Integers]:
    """All pairs of positions within an angle, as two arrays of places; for few pairs among many positions.

    Of positions that are the same to the last bit, each is paired with the first of them
    alone, so that a million equal ones make no 10^12 pairs.
    """
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    _, firsts, group = np.unique(vectors.view("V24").ravel(), return_index=True, return_inverse=True)
    again = np.flatnonzero(firsts[group] != np.arange(len(vectors)))
    one, two = [firsts[group[again]]], [again]
    # Along a direction in which no catalogue is regular, partners are next to each other.
    along = vectors[firsts] @ np.array([0.5257311, 0.3249197, 0.7861514])
    order = firsts[np.argsort(along, kind="stable")]
    along = np.sort(along)
    chord = 2 * np.sin(np.radians(arcsec / 3600) / 2)
    left = np.arange(len(order) - 1)
    step = 1
    while len(left := left[left + step < len(order)]):
        left = left[along[left + step] - along[left] <= chord]
        if step == CROWDED and len(left):
            found = _tree_pairs(vectors[order], chord)
            return np.append(one[0], order[found[:, 0]]), np.append(two[0], order[found[:, 1]])
        a, b = order[left], order[left + step]
        close = np.linalg.norm(vectors[a] - vectors[b], axis=1) <= chord
        one.append(a[close])
        two.append(b[close])
        step += 1
    return np.concatenate(one), np.concatenate(two)


def _tree_pairs(vectors: Array, chord: float) -> Integers:
    """All pairs (n, 2) of points within a distance, where they are crowded."""
    # Late: it takes longer to import than a usual shard to search.
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(vectors).query_pairs(chord, output_type="ndarray"), np.int64)


# Files


def _write_shard(part: Path, first: int, end: int, rows: Array, columns: Mapping[str, str]) -> Shard:
    rows = rows[np.lexsort((rows["row"], rows["pixel"]))]
    order, pixels, begins = _index(rows["pixel"])
    file = f"{SHARD_ORDER}-{first:08d}.fits"
    table = {name: np.ascontiguousarray(rows[name]) for name in columns}
    index = {"pixel": pixels, "first_row": begins}
    planes = [
        Plane("PRIMARY"),
        Plane("STARS", table=table, units={name: unit_of(name) for name in columns}),
        Plane("INDEX", table=index, cards=[("HPXORDER", order, "order of the nested HEALPix pixels")]),
    ]
    cards = [
        ("PIXORDER", SHARD_ORDER, "order of PIXFIRST and PIXEND"),
        ("PIXFIRST", first, "first HEALPix pixel, nested"),
        ("PIXEND", end, "one past the last pixel"),
    ]
    written = write_fits(part / file, planes, cards)
    with open_fits(part / file) as fits:
        stars_at, index_at = (fits.hdu(name).extent.data_start for name in ("STARS", "INDEX"))
    return Shard(
        file, first, end, len(rows), order, len(pixels), stars_at, index_at, written.bytes, written.content,
        written.file_sha256,
    )  # fmt: skip


def _index(pixels: Integers) -> tuple[int, Integers, Integers]:
    """The coarsest order whose pixels hold few of these sorted stars each, these pixels, and their first rows."""
    for order in range(FINEST + 1):
        coarse = pixels >> 2 * (FINEST - order)
        begins = np.flatnonzero(np.append(True, coarse[1:] != coarse[:-1]))
        if len(begins) * INDEX_ROWS >= len(pixels):
            break
    return order, coarse[begins], begins


def _write_all(file: int, rows: Array, start: int) -> None:
    view = bytes_of(rows)
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done:], start + done)


def _read_all(file: int, rows: Array, start: int) -> None:
    view = bytes_of(rows)
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], start + done)
        if not count:
            raise OSError(0, "the scratch file ends too early")
        done += count
