"""Tables as texts that other programs read: CSV, ECSV, VOTable, and DS9 regions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt

from .ellipses import Columns, Ellipses, kron_ellipses, sky_ellipses
from .errors import BadHeader, WrongKind

# Names of number types in VOTable, and in ECSV, by numpy's.
VOTABLE_TYPES = {
    "f4": "float",
    "f8": "double",
    "i2": "short",
    "i4": "int",
    "i8": "long",
    "u1": "unsignedByte",
}
ECSV_TYPES = {
    "f4": "float32",
    "f8": "float64",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "b1": "bool",
}
# The units of our tables as the VO writes them.
UNITS = {"pix2": "pix**2"}
# DS9 regions: colours of sources, and of what is flagged.
GOOD, FLAGGED, CLIPPED = "green", "red", "magenta"
FRAMES = {"ICRS": "icrs", "FK5": "fk5", "FK4": "fk4"}


def csv_lines(columns: Columns) -> Iterator[str]:
    """A header line, then a row a line; a vector has a column an element, and what is not a number is empty."""
    flat = flattened(columns)
    yield ",".join(_csv_cell(name) for name in flat)
    yield from (",".join(row) for row in _rows(flat, "", _csv_cell))


def ecsv_lines(columns: Columns, units: Mapping[str, str], meta: Mapping[str, Any]) -> Iterator[str]:
    """CSV with the types and units of columns, and what the table is of, in a header: Enhanced CSV 1.0."""
    import json

    flat = flattened(columns)
    yield "# %ECSV 1.0"
    yield "# ---"
    yield "# delimiter: ','"
    yield "# datatype:"
    for name, values in flat.items():
        kind = ECSV_TYPES.get(values.dtype.str[1:], "string")
        unit = units.get(_stem(name, columns), "")
        shown = f", unit: {UNITS.get(unit, unit)}" if unit else ""
        yield f"# - {{name: {json.dumps(name)}{shown}, datatype: {kind}}}"
    yield f"# meta: {json.dumps(dict(meta), ensure_ascii=True)}"
    yield "# schema: astropy-2.0"
    yield from csv_lines(columns)


def votable_lines(columns: Columns, units: Mapping[str, str], meta: Mapping[str, Any]) -> Iterator[str]:
    """A VOTable 1.3 of one table, its numbers as text (TABLEDATA). Source: Ochsenbein et al. 2013, REC-VOTable."""
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
    yield "<RESOURCE><TABLE>"
    for key, value in meta.items():
        kind, size = ("double", "") if isinstance(value, float) else ("char", ' arraysize="*"')
        yield f'<PARAM name={quoteattr(key)} datatype="{kind}"{size} value={quoteattr(str(value))}/>'
    for name, values in columns.items():
        yield _field(name, np.asarray(values), units.get(name, ""))
    yield "<DATA><TABLEDATA>"
    # One row of texts after the other: each cell holds all elements of a vector.
    cells = [_cells(np.asarray(values), "NaN", escape) for values in columns.values()]
    for row in zip(*cells, strict=True):
        yield f"<TR><TD>{'</TD><TD>'.join(row)}</TD></TR>"
    yield "</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"


def _field(name: str, values: npt.NDArray[Any], unit: str) -> str:
    kind = VOTABLE_TYPES.get(values.dtype.str[1:], "boolean" if values.dtype.kind == "b" else "char")
    size = "x".join(str(one) for one in reversed(values.shape[1:])) if kind != "char" else "*"
    shape = f' arraysize="{size}"' if size else ""
    shown = f" unit={quoteattr(UNITS.get(unit, unit))}" if unit else ""
    return f"<FIELD name={quoteattr(name)} datatype={quoteattr(kind)}{shape}{shown}/>"


def region_lines(
    columns: Columns, parameters: Mapping[str, Any], cards: Mapping[str, Any] | None, sky: bool, name: str
) -> Iterator[str]:
    """DS9 regions: the Kron ellipse of each source with its number, red where it has flags.

    sky: in coordinates of the sky instead of pixels, by the cards of the WCS. Residuals of
    a solution are circles, magenta where clipped. A list on the sky gives ellipses of 3
    sigma there, or points. Raises WrongKind for a table without places, BadHeader where
    there is no WCS and the sky is asked for.
    """
    in_pixels = "X_PX" in columns and "Y_PX" in columns
    if not in_pixels and not ("RA_DEG" in columns and "DEC_DEG" in columns):
        raise WrongKind(f"{name}: a table without positions cannot be regions")
    yield "# Region file format: DS9 version 4.1"
    yield f"global color={GOOD} width=1"
    texts = _region_texts(columns)
    if "A_ARCSEC" in columns or not in_pixels:
        yield FRAMES.get(str((cards or {}).get("RADESYS")), "icrs")
        yield from _list_regions(columns, texts)
        return
    x, y = (np.asarray(columns[one], np.float64) for one in ("X_PX", "Y_PX"))
    found = kron_ellipses(columns, parameters)
    if not sky:
        yield "image"
        for row in zip(x, y, *found, texts, strict=True):
            yield _image_region(*row)
        return
    if not cards:
        raise BadHeader(
            f"{name}: it has no coordinate system (WCS)", hint="without --sky: pixels of the image"
        )
    yield from _sky_regions(x, y, found, texts, cards)


def _list_regions(columns: Columns, texts: list[str]) -> Iterator[str]:
    """What a list on the sky has: ellipses, or points where it has no shapes."""
    places = (columns["RA_DEG"], columns["DEC_DEG"])
    if "A_ARCSEC" not in columns:
        for ra, dec, text in zip(*places, texts, strict=True):
            yield f"point({ra:.7f},{dec:.7f}) # point=circle{text}"
        return
    found = sky_ellipses(columns)
    for ra, dec, a, b, theta, text in zip(*places, *found, texts, strict=True):
        yield f'ellipse({ra:.7f},{dec:.7f},{a:.3f}",{b:.3f}",{(theta + 90) % 180:.1f}) #{text}'


def _image_region(x: float, y: float, a: float, b: float, theta: float, text: str) -> str:
    return f"ellipse({x:.3f},{y:.3f},{a:.2f},{b:.2f},{theta:.1f}) #{text}"


def _sky_regions(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    found: Ellipses,
    texts: list[str],
    cards: Mapping[str, Any],
) -> Iterator[str]:
    from .sky.readwcs import read_wcs

    wcs = read_wcs(cards)
    yield FRAMES.get(wcs.radesys, "icrs")
    ra, dec = wcs.to_sky(x, y)
    # The ellipse's axes as offsets to the east and north; DS9 counts angles from west, so that north is 90.
    east_north = wcs.jacobian(x, y) * 3600
    angle = np.radians(found.theta_deg)
    along = (east_north @ np.stack([np.cos(angle), np.sin(angle)], axis=-1)[..., None])[..., 0]
    scale = np.hypot(along[:, 0], along[:, 1])
    from_west = 90 + np.degrees(np.arctan2(along[:, 0], along[:, 1]))
    columns = (ra, dec, found.a_px * scale, found.b_px * scale, from_west % 180, texts)
    for r, d, a, b, theta, text in zip(*columns, strict=True):
        yield f'ellipse({r:.7f},{d:.7f},{a:.3f}",{b:.3f}",{theta:.1f}) #{text}'


def _region_texts(columns: Columns) -> list[str]:
    size = len(next(iter(columns.values())))
    flags = np.asarray(columns.get("FLAGS", np.zeros(size)))
    used = np.asarray(columns.get("USED", np.ones(size)))
    number = columns.get("NUMBER", columns.get("SID"))
    texts = []
    for row in range(size):
        colour = CLIPPED if not used[row] else FLAGGED if flags[row] else ""
        shown = f" color={colour}" if colour else ""
        texts.append(shown + ("" if number is None else f" text={{{number[row]}}}"))
    return texts


# Cells


def flattened(columns: Columns) -> dict[str, npt.NDArray[Any]]:
    """Columns of single values: a vector becomes NAME_1, NAME_2 and so on."""
    made: dict[str, npt.NDArray[Any]] = {}
    for name, values in columns.items():
        values = np.asarray(values)
        if values.ndim == 1:
            made[name] = values
            continue
        parts = _as_rows(values)
        made |= {f"{name}_{place}": parts[:, place - 1] for place in range(1, parts.shape[1] + 1)}
    return made


def _as_rows(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """All elements of each cell in a row, also where there is no cell."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _stem(name: str, columns: Columns) -> str:
    return name if name in columns else name.rpartition("_")[0]


def _rows(columns: Columns, missing: str, quote: Any) -> Iterator[tuple[str, ...]]:
    cells = [_cells(np.asarray(values), missing, quote) for values in columns.values()]
    return zip(*cells, strict=True)


def _cells(values: npt.NDArray[Any], missing: str, quote: Any) -> list[str]:
    """Each value as a text that gives the same number again; elements of a vector are apart by blanks."""
    if values.ndim > 1:
        parts = [_cells(one, missing, quote) for one in _as_rows(values).T]
        return [" ".join(row) for row in zip(*parts, strict=True)]
    if values.dtype.kind in "US":
        texts = np.char.decode(values, "ascii", "replace") if values.dtype.kind == "S" else values
        return [quote(str(one).strip()) for one in texts]
    shown: list[str] = values.astype(str).tolist()
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return shown
    return [
        text if known else missing for text, known in zip(shown, np.isfinite(values).tolist(), strict=True)
    ]


def _csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(one in text for one in '",\r\n') else text
