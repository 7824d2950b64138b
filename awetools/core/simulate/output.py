"""Files of a simulated night: each written whole, with the same bytes for the same content."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Unavailable, WouldOverwrite
from ..files import write_whole
from .camera import Card

FOLDERS = ("raw", "truth/science", "truth/mask", "truth/wcs")
KEPT_MAPS = 4


def make_folders(directory: Path) -> None:
    """The folders of a night. Raises WouldOverwrite unless the directory is absent or empty, Unavailable."""
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise WouldOverwrite(
                f"{directory}: exists and is not an empty directory",
                hint=f"name a new directory, or rm -r {directory}",
            )
        for folder in FOLDERS:
            (directory / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{directory}: {error.strerror}") from None


def remove_unfinished(directory: Path) -> None:
    """Delete what an interrupted write left behind."""
    for path in directory.rglob(".*.new"):
        path.unlink(missing_ok=True)


def write_image(path: Path, data: np.ndarray, cards: Sequence[Card] = ()) -> int:
    """Write an image as a primary HDU; the bytes written."""
    from astropy.io import fits

    return _write_hdus(path, [fits.PrimaryHDU(data, fits.Header(cards))])


def write_table(path: Path, name: str, rows: np.ndarray, units: Mapping[str, str]) -> int:
    """Write a structured array as a binary table behind an empty primary HDU; the bytes written."""
    from astropy.io import fits

    table = fits.BinTableHDU(rows, name=name)
    for column, unit in units.items():
        table.columns[column].unit = unit
    return _write_hdus(path, [fits.PrimaryHDU(), table])


def write_head(path: Path, cards: Sequence[Card]) -> int:
    """Write header cards as text, a line each, as SCAMP does; the bytes written."""
    from astropy.io import fits

    lines = [str(fits.Card(*card)).rstrip() for card in cards] + ["END", ""]
    return _write(path, "\n".join(lines).encode("ascii"))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write rows of equal keys with a header line; the bytes written."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return _write(path, text.getvalue().encode("utf-8"))


def write_json(path: Path, value: object) -> int:
    """Write a JSON document; the bytes written."""
    return _write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


@lru_cache(maxsize=KEPT_MAPS)
def read_map(path: Path) -> np.ndarray:
    """A truth map that was written before, in the machine's byte order; some are kept for the next frame."""
    from astropy.io import fits

    data = fits.getdata(path, memmap=False)
    return np.asarray(data, dtype=data.dtype.newbyteorder("="))


def read_card(path: Path, key: str) -> float:
    """A number from the header of a truth map."""
    from astropy.io import fits

    return float(fits.getval(path, key))


def _write_hdus(path: Path, hdus: list[Any]) -> int:
    from astropy.io import fits

    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> int:
    write_whole(path, data, durable=False)
    return len(data)
