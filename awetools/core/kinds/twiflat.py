"""Twilight flat: how the detector and the optics answer to the light of the sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Result, nights
from ..params import param
from .flatfield import (
    FLATFIELD_MEASURES,
    FLATFIELD_READS,
    Calibrations,
    FlatfieldParams,
    flatfield_needs,
    make_flatfield,
)

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, FrameSet, Table
    from ..pixels.objects import Cells
    from .exposures import Exposures, Light

# From so many exposures on a star stands out from the median of all.
ENOUGH_FRAMES = 3
# Blocks of cells through which the surface runs that a single exposure is compared with.
SURFACE_CELLS = 16
# How far the light of one exposure may depart from the others' in shape.
FLATNESS = 0.01


@dataclass(frozen=True)
class TwiflatParams(FlatfieldParams):
    """Parameters of `make_twiflat`."""

    star_sigma: float = param(
        3.0, "Light that stands out from the other exposures by this much is a star.", unit="sigma", low=1
    )


def make_twiflat(
    raw: FrameSet,
    *,
    bias: Frame | None = None,
    dark: Frame | None = None,
    hotpix: Frame | None = None,
    readnoise: Table | None = None,
    gain: Table | None = None,
    params: TwiflatParams,
) -> Result:
    """Stack normalised exposures of the twilight sky into one flat, stars and trails left out.

    raw: exposures of one filter and detector, between which the telescope moved. bias:
    SCI (ADU). dark: SCI (ADU/s). hotpix: MASK, left out of the levels. readnoise: a row an
    amplifier, else the bias or the camera table gives it. gain: a row an amplifier, else
    the camera table gives it. Each exposure is compared, in cells of 4 pixels, with the
    median of all (of two: with the other; a single one: with its own smooth surface); what
    is brighter, at any scale, is masked with its surroundings. Levels and gradients
    are fitted to the rest: what the gradient of one exposure has more than that of the others
    is divided out, the mean gradient stays. Then pixels off the median by the noise model are
    rejected and the rest averaged, weighted by inverse variance.
    Returns SCI (median about 1), WEIGHT (inverse variance) and MASK (1 and 2 from hotpix,
    512 no value). Raises TooFew if no exposure is within levels.
    """
    import numpy as np

    def lights_of(exposures: Exposures, numbers: Sequence[int], levels: Sequence[float]) -> list[Light]:
        return _without_stars(exposures, numbers, levels, params.star_sigma)

    calibrations = Calibrations(bias, dark, hotpix, readnoise, gain)
    result, lights = make_flatfield(raw, calibrations, params, lights_of)
    masked = float(np.mean([np.mean(light.objects) for light in lights if light.objects is not None]))
    used = dict(result.used)
    if len(lights) < ENOUGH_FRAMES:
        used["raw"] = (
            f"{len(lights)} exposure{'s' if len(lights) > 1 else ''}: stars could not be told "
            f"by the median, as they are from {ENOUGH_FRAMES} on; what was detected is masked"
        )
    return replace(result, measures={**result.measures, "masked_fraction": masked}, used=used)


def _without_stars(
    exposures: Exposures, numbers: Sequence[int], levels: Sequence[float], star_sigma: float
) -> list[Light]:
    """How each exposure enters the stack: its light relative to the others', and its stars."""
    from ..pixels.objects import find_objects
    from .exposures import Light
    from .nightsky import plane_of, read_cells, relative_planes

    cells = read_cells(exposures, numbers, [levels[number] for number in numbers])
    references = _references(cells)
    objects, planes = [], []
    for number, one, reference in zip(numbers, cells, references, strict=True):
        ratio = one.over(reference)
        objects.append(find_objects(ratio, star_sigma, FLATNESS))
        plane = plane_of(ratio, objects[-1], tilted=len(cells) > 2)
        planes.append(
            replace(plane, level=plane.level * levels[number] if len(cells) > 2 else levels[number])
        )
    return [
        Light(number, plane, marked, one.size)
        for number, plane, marked, one in zip(numbers, relative_planes(planes), objects, cells, strict=True)
    ]


def _references(cells: Sequence[Cells]) -> list[np.ndarray]:
    """What each exposure is compared with, one value a cell; nan where that is not known."""
    import numpy as np

    from ..pixels.smooth import background
    from ..pixels.stack import median

    if len(cells) == 1:
        return [background(cells[0].mean, cells[0].known, SURFACE_CELLS)]
    stack = [np.where(one.known, one.mean, np.float32(np.nan)) for one in cells]
    # A star of the other exposure of two is too little light, which is not sought.
    return stack[::-1] if len(stack) == 2 else [median(stack)] * len(stack)


TWIFLAT = Kind(
    name="twiflat",
    command="awe-twiflat",
    class_name="TwiFlat",
    summary="Make a twilight flat from raw exposures of the twilight sky, stars rejected.",
    description="""Each exposure has its overscan, the bias and, where there is one, the dark current
subtracted. Stars and trails are found where an exposure is brighter than the median of all, and masked with
their surroundings; level and gradient are fitted to the rest, and what the gradients differ by is divided
out. Pixels off the median by the noise model are rejected; the rest are averaged, weighted by their inverse
variance. Exposures outside the level bounds are named and left out. Three exposures or more, with the
telescope moved between them, leave no star; with fewer, stars are masked where they are detected.""",
    needs=flatfield_needs("raw_twiflat", "Raw twilight flats of one filter."),
    match=(*DETECTOR_MATCH, "filter"),
    group=["night"],
    reads=FLATFIELD_READS,
    validity=nights(before=0, after=0),
    params=TwiflatParams,
    measures=[
        *FLATFIELD_MEASURES,
        Measure("masked_fraction", "Fraction of an exposure that stars and trails cover, mean."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_twiflat,
    revision=1,
    unit="",
    example="awe-query raw_twiflat night=2024-03-02 filter=R | awe-twiflat -o twiflat_R.fits",
)
