"""What a coadd's frames are scaled by, zero points or starts for what overlaps tell; and their edges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BadValue
from ..params import param

if TYPE_CHECKING:
    from ..coadd.coadd import Coadded
    from ..coadd.inputs import CoaddFrame
    from ..frame import Table

# Magnitude and band (None: relative) of each frame's zero point, by name.
ZeroPoints = Mapping[str, tuple[float | None, str | None]]

# No zero point is better than that: flat fields, apertures.
LEAST_ERROR_MAG = 0.01
LN_OF_MAG = 0.4 * math.log(10)


def flux_scale_param() -> Any:
    """The parameter that says it."""
    return param(
        "zeropoint",
        "What frames are scaled by: their zero points, of all or of none; or what makes them equal where they "
        "overlap, to which zero points are added as far as there are some.",
        choices=("zeropoint", "match"),
    )


def edges_of(text: str) -> tuple[int, int, int, int]:
    """Pixels at the left, right, bottom and top, from one number or four; BadValue."""
    try:
        left, right, bottom, top = (
            int(one) for one in (text if "," in text else ",".join([text] * 4)).split(",")
        )
    except ValueError:
        left = right = bottom = top = -1
    if min(left, right, bottom, top) < 0:
        raise BadValue(f"edges_px '{text}': it must be one number of pixels, or left,right,bottom,top")
    return left, right, bottom, top


def comparable(known: ZeroPoints) -> dict[str, tuple[float | None, str | None]]:
    """Zero points without the relative ones, where there are others."""
    if not any(mag is not None and band for mag, band in known.values()):
        return dict(known)
    return {name: (mag, band) if band else (None, None) for name, (mag, band) in known.items()}


def start_mag(known: ZeroPoints) -> float | None:
    """The zero point that a frame without one begins with: the median of those that are known."""
    found = sorted(mag for mag, _ in known.values() if mag is not None)
    return None if not found else (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2


def scale_error(mag: float | None, zeropoint: Table | None) -> float | None:
    """The relative error of a scale, None where there is no zero point: by its stars, LEAST_ERROR_MAG at least."""
    if mag is None:
        return None
    error_mag = 0.0 if zeropoint is None else _star_error_mag(zeropoint)
    return LN_OF_MAG * max(error_mag, LEAST_ERROR_MAG)


def _star_error_mag(zeropoint: Table) -> float:
    import numpy as np

    columns = zeropoint.columns
    if not {"USED", "MAG_ERROR", "RESIDUAL_MAG"} <= set(columns):
        return 0.0
    used = np.asarray(columns["USED"]).astype(bool)
    error, residual = (np.asarray(columns[name], np.float64)[used] for name in ("MAG_ERROR", "RESIDUAL_MAG"))
    away = np.where(np.isfinite(residual), np.abs(residual), 0.0)
    each = np.maximum(error, away)
    each = each[np.isfinite(each) & (each > 0)]
    return float(np.sqrt(np.mean(each**2) / len(each))) if len(each) else 0.0


def said(made: Coadded, frames: Sequence[CoaddFrame]) -> str:
    """What was done to the scales."""
    pairs = [
        (report.scale / frame.scale - 1, frame.scale_error is not None, report.name)
        for report, frame in zip(made.frames, frames, strict=True)
        if not report.reason
    ]
    changed = [change for change, known, _ in pairs if known]
    without = [name for _, known, name in pairs if not known]
    texts = []
    if changed:
        texts.append(
            f"zero points were changed by {min(changed):+.2%} to {max(changed):+.2%} for {len(changed)} frames"
        )
    if without and changed:
        texts.append(f"found for {len(without)} without one: {', '.join(without[:3])}")
    elif without:
        factors = [change for change, known, _ in pairs if not known]
        texts.append(f"relative, {min(factors):+.2%} to {max(factors):+.2%}, as there is no zero point")
    return "from the overlaps: " + "; ".join(texts)
