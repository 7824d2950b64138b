"""The difference of two images of the same pixels: what moved, what changed, what one of them has too much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader, Mixture, NoMatch
from ..kind import DETECTOR_MATCH, Kind, Measure, Need, Result, named, of_frame
from ..params import param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame

# What coadds are called in the name of a difference; they have no exposure.
DEEP = "coadd"
# Magnitudes and seconds that are the same.
SAME = 1e-6
# What two images must agree in, or the reference be scaled on purpose.
ALIKE = ("filter", "zeropoint_mag", "zeropoint_band", "exptime_s")


@dataclass(frozen=True)
class DifferenceParams:
    """Parameters of `make_difference`."""

    scale: float = param(
        1.0,
        "What the reference is multiplied by; with 1 both must be of one filter, exposure time and zero point.",
        low=1e-9,
        high=1e9,
    )


def make_difference(image: Frame, reference: Frame | None, *, params: DifferenceParams) -> Result:
    """Subtract one image from another, pixel by pixel.

    image: SCI, weight and mask, of a sky grid (ADU/s) or a detector (ADU). reference: the same of what is
    subtracted: on a sky grid it has pixels at the same places, to 0.001 px, and may cover another part of it;
    of a detector it has the same pixels. Returns SCI (the unit of both), WEIGHT (the inverse of the sum of the
    variances) and MASK (of both) over the pixels of the image; those without reference are 0, with weight 0 and
    bit 32. Nothing is interpolated, and no seeing is matched. Raises Mixture (other pixels, units, filters or zero
    points), NoMatch (no reference), BadHeader (no coordinates).
    """
    import numpy as np

    from ..pixels.mask import Bit, bad

    if reference is None:
        raise NoMatch("there is no reference to be subtracted", hint="--reference FILE")
    top, left = _place(image, reference)
    if params.scale == 1:
        _refuse_unlike(image, reference)
    here, there = _common(image.data.shape, reference.data.shape, top, left)
    ours, theirs = _planes(image, here), _planes(reference, there)
    data = np.zeros(image.data.shape, np.float32)
    weight = np.zeros(image.data.shape, np.float32)
    mask = np.full(image.data.shape, int(Bit.OUTSIDE), np.int16)
    if image.mask is not None:
        mask |= image.mask
    factor = np.float32(params.scale)
    np.subtract(ours.data, factor * theirs.data, out=data[here])
    mask[here] = ours.mask | theirs.mask
    usable = (ours.weight > 0) & (theirs.weight > 0) & ~bad(mask[here])
    np.divide(
        ours.weight * theirs.weight,
        theirs.weight + factor**2 * ours.weight,
        out=weight[here],
        where=usable,
    )
    name = "-".join(str(one.meta.get("exposure") or DEEP) for one in (image, reference))
    return Result(
        planes={"SCI": data, "WEIGHT": weight, "MASK": mask},
        measures={
            "overlap_fraction": ours.data.size / image.data.size,
            "noise_ratio": _noise_ratio(data, weight),
            "shift_x_px": left,
            "shift_y_px": top,
        },
        meta={"exposure": name, "read_noise_adu": None},
        unit=image.unit,
    )


# Which pixels belong together


def _place(image: Frame, reference: Frame) -> tuple[int, int]:
    """Row and column of the image (0-based) at which the first pixel of the reference is. Mixture, BadHeader."""
    if image.unit != reference.unit:
        raise Mixture(
            f"the image is in {image.unit}, the reference in {reference.unit}",
            hint="awe-regrid puts both on one grid and zero point",
        )
    return _on_the_sky(image, reference) if image.unit.endswith("/s") else _on_the_detector(image, reference)


def _on_the_sky(image: Frame, reference: Frame) -> tuple[int, int]:
    from ..sky.grid import Grid, whole_pixels
    from ..sky.readwcs import read_wcs

    cards = [one.meta.get("wcs") for one in (image, reference)]
    if not all(cards):
        raise BadHeader("an image on a grid of the sky has no WCS in its header")
    (ny, nx), (rows, columns) = image.data.shape, reference.data.shape
    wcs, other = (read_wcs(dict(one)) for one in cards if one)
    try:
        return whole_pixels(Grid(wcs, (ny, nx)), other, (rows, columns))
    except Mixture as error:
        raise Mixture(
            f"the reference does not have the pixels of the image: {error.message}",
            hint="awe-regrid both with the same --grid",
        ) from None


def _on_the_detector(image: Frame, reference: Frame) -> tuple[int, int]:
    for name in DETECTOR_MATCH:
        one, other = (frame.meta.get(name) for frame in (image, reference))
        if one != other and name not in ("overscan_mode", "temperature_set_c"):
            raise Mixture(
                f"the reference does not have the pixels of the image: {name} is {other!r}, not {one!r}",
                hint="awe-regrid puts both on one grid",
            )
    return 0, 0


def _refuse_unlike(image: Frame, reference: Frame) -> None:
    """Raise Mixture where a light of the same brightness is not the same number in both."""
    for name in ALIKE:
        one, other = (frame.meta.get(name) for frame in (image, reference))
        if not _same(one, other):
            raise Mixture(
                f"{name} of the image is {one!r}, that of the reference {other!r}",
                hint="--scale NUMBER says what the reference is to be multiplied by",
            )


def _same(one: object, other: object) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=SAME, abs_tol=SAME)
    return one == other


# Pixels


@dataclass(frozen=True)
class _Planes:
    data: np.ndarray
    weight: np.ndarray
    mask: np.ndarray


def _planes(frame: Frame, part: tuple[slice, slice]) -> _Planes:
    """A part of the planes of a frame; what has no weight or mask counts as it is."""
    import numpy as np

    data = np.asarray(frame.data[part], np.float32)
    mask = np.zeros(data.shape, np.int16) if frame.mask is None else frame.mask[part]
    weight = np.ones(data.shape, np.float32) if frame.weight is None else frame.weight[part]
    return _Planes(data, weight, mask)


def _common(
    shape: tuple[int, ...], other: tuple[int, ...], top: int, left: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """What two images have in common, in the pixels of the one and of the other. Raises Mixture for nothing."""
    here, there = [], []
    for length, size, first in zip(shape, other, (top, left), strict=True):
        begin, end = max(first, 0), min(first + size, length)
        if begin >= end:
            raise Mixture("the image and the reference have no pixel in common")
        here.append(slice(begin, end))
        there.append(slice(begin - first, end - first))
    return (here[0], here[1]), (there[0], there[1])


def _noise_ratio(data: np.ndarray, weight: np.ndarray) -> float | None:
    """The scatter of the pixels over what their weight says."""
    import numpy as np

    from ..pixels.stats import clipped

    good = weight > 0
    if not good.any():
        return None
    return float(clipped(data[good] * np.sqrt(weight[good])).stdev)


def shift_of(measures: Mapping[str, Any]) -> tuple[int, int]:
    """Columns and rows of the image less those of the reference at the same place."""
    return int(measures.get("shift_x_px") or 0), int(measures.get("shift_y_px") or 0)


DIFFERENCE = Kind(
    name="difference",
    command="awe-diff",
    class_name="Difference",
    summary="Subtract an image from others of the same pixels.",
    description="""Each image that is given makes one difference, image less reference: regridded frames and coadds
that have the same places on the sky in whole pixels (to 0.001 px), whichever part of the grid they cover; or reduced
frames of one detector, pixel by pixel, whatever they point at. Weights are those of the difference of both, masks are
united, and what the reference does not cover has weight 0.

Nothing is interpolated, scaled or matched in silence: filter, exposure time and zero point must be the same unless
--scale says what the reference is to be multiplied by. The seeing is not matched: where it changed, stars
leave rings of no net flux. What moved less than the seeing is a pair of a bright and a dark spot; awe-sources finds
the bright one.""",
    needs=[
        Need(
            "image",
            "regrid",
            of_frame(),
            only_given=("coadd", "reduced"),
            help="Images on a sky grid, or reduced frames.",
        ),
        Need(
            "reference",
            "regrid",
            named(),
            or_kinds=("coadd", "reduced"),
            help="Image of the same pixels that is subtracted.",
        ),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=[name for name in ALIKE if name != "filter"],
    validity=None,
    params=DifferenceParams,
    measures=[
        Measure("overlap_fraction", "Part of the image that the reference covers."),
        Measure("noise_ratio", "Scatter of the pixels over what their weight says; below 1 if correlated."),
        Measure("shift_x_px", "Column of a place in the image less that in the reference."),
        Measure("shift_y_px", "Row of a place in the image less that in the reference."),
    ],
    limits=[],
    recipe=make_difference,
    revision=1,
    unit="adu/s",
    example="awe-query regrid object=Kalliope | awe-diff --reference first.fits",
)
