"""Coadd: many reduced frames on one grid of the sky, one deep image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..kind import Kind, LeftOut, Limit, Measure, Need, Result, group, of_frame
from ..params import param
from .coaddframes import IDENTITY, MATCHING, frames_of, is_absolute, less_sky, zero_points
from .coaddgridded import (
    are_gridded,
    before,
    of_grid,
    of_grid_once,
    shared_grid,
    sky_of,
    treated,
)
from .coaddscale import flux_scale_param
from .declare import edges_param, grid_param, illumination_need, kernel_param, sky_mesh_param
from .regridmatch import serves

if TYPE_CHECKING:
    import numpy as np

    from ..coadd.coadd import Coadded, How
    from ..coadd.inputs import CoaddFrame
    from ..frame import FrameRows, ImageSet, Table
    from ..sky.grid import Grid

# The card KERNEL of what was not interpolated here.
NO_KERNEL = "none"
# Rows in the middle of a frame, on which the seeing is measured.
SEEING_ROWS = 1024


@dataclass(frozen=True)
class CoaddParams:
    """Parameters of `make_coadd`."""

    grid: str = grid_param()
    kernel: str = kernel_param()
    method: str = param(
        "clip",
        "Weighted mean of what is left after clipping, weighted mean of all, or median.",
        choices=("clip", "mean", "median"),
    )
    clip_sigma: float = param(
        3.5, "How far from the median of its pixel a value is clipped.", unit="sigma", low=1, high=100
    )
    clip_fraction: float = param(
        1.0, "Part of the local contrast that is allowed besides: the seeing changes.", low=0, high=10
    )
    background: str = param(
        "subtract",
        "Background of a frame: smooth and subtracted; one constant (or a plane) a frame, matched where frames "
        "overlap; or left.",
        choices=("subtract", "match", "match-plane", "leave"),
    )
    flux_scale: str = flux_scale_param()
    edges_px: str = edges_param()
    sky_mesh: int = sky_mesh_param()
    interpolate: bool = param(True, "Fill defects of up to two pixels from their neighbours before.")
    most_extinction_mag: float = param(
        1.0,
        "A frame so much fainter or brighter than the others, by its zero point or its stars, is left out.",
        unit="mag",
        low=0.01,
        high=100,
    )
    most_disagreeing: float = param(
        0.02,
        "A frame of which more of the pixels contradict the others is left out; 0: none, and stars judge none.",
        low=0,
        high=0.9,
    )
    most_uneven_mag: float = param(
        0.3,
        "A frame whose stars are so much fainter in one half than in the other is left out.",
        unit="mag",
        low=0.01,
        high=100,
    )
    most_shift_fraction: float = param(
        0.15,
        "A frame whose stars are so far from where the others have them, in parts of the seeing, is left out; 0: none.",
        low=0,
        high=10,
    )


def make_coadd(
    reduced: ImageSet,
    astrom: Sequence[Table],
    zeropoint: Sequence[Table] = (),
    illumination: Sequence[Table] = (),
    *,
    params: CoaddParams,
) -> Result:
    """Stack reduced frames on a grid of the sky.

    reduced: frames with weight and mask, read in strips; or regridded ones, which are taken as they are.
    astrom: the solution of each, whose meta has the WCS. zeropoint: that of each, whose meta has the magnitude of
    1 ADU/s; of all frames or of none. illumination: what flats have wrong for stars; frames less their
    background are multiplied by it. Returns SCI
    (ADU/s, of zero point 30 mag where there are zero points), WEIGHT (its inverse variance, for sums over many
    pixels), COUNT (how many frames entered) and MASK; the table FRAMES (a row a frame that was given: what it
    was multiplied by, what was subtracted, how many of its values entered and were clipped, why it was left
    out) and the table CLIPPED (pixel, from 1, and row of FRAMES, from 0). meta.wcs is that of the grid. Method:
    coadd.coadd. Raises NoMatch (no solution, some zero points), EmptyInput (no frame can be used), Unavailable
    (memory, scratch disk).
    """
    from ..coadd.coadd import coadd
    from ..coadd.scratch import check_room

    gridded = are_gridded(reduced.frames)
    how = _how(reduced, params)
    frames = frames_of(reduced.frames, astrom, zeropoint, illumination, params)
    grid, window = _grid(params.grid, frames, reduced.frames)
    if gridded:
        frames = of_grid_once(frames, grid)
    elif params.kernel == "auto":
        how = _coarse(how, grid, frames)
    check_room(grid, how.folder, how.unfinished)
    # What a regridded frame was made of may be less than its own grid.
    frames = [
        less_sky(one, sky_of(row.meta, params.background) if gridded else params.background, params.sky_mesh)
        for one, row in zip(frames, reduced.frames, strict=True)
    ]
    fit = [row for one, row in zip(frames, reduced.frames, strict=True) if not one.unfit]
    made = coadd(frames, grid, how)
    return Result(
        planes=dict(made.planes),
        tables={"FRAMES": _table(made, frames, reduced.frames), "CLIPPED": dict(made.clipped)},
        measures=_measures(made, reduced.frames),
        left_out=[LeftOut(number, one.reason) for number, one in enumerate(made.frames) if one.reason],
        meta=_meta(made, reduced.frames, fit, zeropoint, params) | window,
        used=_used(fit, astrom, zeropoint, params) | _said(made, frames, params),
        cards=[
            ("KERNEL", NO_KERNEL if gridded else how.regridding.kernel_name, "how pixels were interpolated")
        ],
    )


def _said(made: Coadded, frames: Sequence[CoaddFrame], params: CoaddParams) -> dict[str, str]:
    from .coaddscale import said

    return {"flux_scale": said(made, frames)} if params.flux_scale == "match" else {}


def _used(
    reduced: Sequence[FrameRows], astrom: Sequence[Table], zeropoint: Sequence[Table], params: CoaddParams
) -> dict[str, str]:
    on_a_grid = are_gridded(reduced)
    used = {} if astrom or on_a_grid else {"astrom": "there is none: the headers' WCS are taken as they are"}
    known = zero_points(reduced, zeropoint, params)
    if not any(mag is not None for mag, _ in known.values()):
        used["zeropoint"] = "there is none: frames count as they are, in ADU/s"
    elif not is_absolute(known):
        used["zeropoint"] = "relative: frames are scaled to their mean"
    elif not zeropoint and not on_a_grid:
        used["zeropoint"] = "there is none: those of the pipelines that made the frames are taken"
    return used


def _how(reduced: ImageSet, params: CoaddParams) -> How:
    from ..coadd.coadd import How
    from ..coadd.layers import Regridding
    from ..pixels.coadd import Stacking

    return How(
        stacking=Stacking(
            method=params.method,  # type: ignore[arg-type]
            clip_sigma=params.clip_sigma,
            clip_fraction=params.clip_fraction,
        ),
        regridding=Regridding(kernel_name=_kernel(reduced.frames, params.kernel), fill=params.interpolate),
        matching=MATCHING.get(params.background, "none"),
        gauge="sky",
        scaling="match" if params.flux_scale == "match" else "given",
        most_extinction_mag=params.most_extinction_mag,
        most_disagreeing=params.most_disagreeing,
        most_uneven_mag=params.most_uneven_mag,
        most_shift_fraction=params.most_shift_fraction or None,
        memory_bytes=reduced.memory_bytes,
        threads=reduced.threads,
        folder=reduced.scratch,
        unfinished=reduced.unfinished,
    )


def _kernel(frames: Sequence[FrameRows], name: str) -> str:
    """The kernel that is asked for; by default that for the sharpest of the first frames."""
    import math

    from ..frame import Frame
    from ..pixels.resample import kernel_for
    from .regrid import seeing_px_of

    if name != "auto":
        return name
    if are_gridded(frames):
        return "nearest"
    found = []
    for one in frames[:3]:
        first = max(0, (one.shape[0] - SEEING_ROWS) // 2)
        data, weight, mask = one.read(first, min(one.shape[0], first + SEEING_ROWS))
        found.append(seeing_px_of(Frame(data, weight, mask)) or math.nan)
    return kernel_for(min((one for one in found if one == one), default=math.nan))


def _coarse(how: How, grid: Grid, frames: Sequence[CoaddFrame]) -> How:
    """On a grid much coarser than the frames: means over its pixels."""
    from dataclasses import replace
    from statistics import median

    from ..pixels.resample import kernel_for

    ratio = grid.wcs.pixel_scale_arcsec / median(
        one.wcs.pixel_scale_arcsec for one in frames if not one.unfit
    )
    if kernel_for(0.0, ratio) != "area":
        return how
    return replace(how, regridding=replace(how.regridding, kernel_name="area"))


def _grid(
    text: str, frames: Sequence[CoaddFrame], reduced: Sequence[FrameRows]
) -> tuple[Grid, dict[str, str]]:
    """The grid, and what of the meta says it, where the frames do."""
    from ..meta import ON_GRID
    from ..sky.gridtext import fitted, parse_grid

    if text == "auto" and frames[0].gridded:
        grid, said = shared_grid(frames, reduced)
        return grid, {"window": f"{ON_GRID}{said}"} if said else {}
    fit = [(one.wcs, one.shape) for one in frames if not one.unfit]
    found = fitted(fit) if text == "auto" else parse_grid(text)
    return found.grid(), {}


def _table(
    made: Coadded, frames: Sequence[CoaddFrame], reduced: Sequence[FrameRows]
) -> dict[str, np.ndarray]:
    import numpy as np

    reports = made.frames
    table = {name.upper(): np.array([str(one.meta.get(name)) for one in reduced]) for name in IDENTITY}
    return {
        **table,
        "SCALE": np.array([one.scale for one in reports]),
        "SCALE_ERROR": np.array([np.nan if one.scale_error is None else one.scale_error for one in reports]),
        "SKY_ADU": np.array([_typical(one.sky) for one in frames]),
        "LEVEL": np.array([one.level.constant for one in reports]),
        "LEVEL_X": np.array([one.level.along_x for one in reports]),
        "LEVEL_Y": np.array([one.level.along_y for one in reports]),
        "ENTERED": np.array([one.entered for one in reports], np.int64),
        "CLIPPED": np.array([one.clipped for one in reports], np.int64),
        "DISAGREEING": np.array([one.disagreeing for one in reports]),
        "REASON": np.array([one.reason for one in reports]),
    }


def _typical(sky: Any) -> float:
    import numpy as np

    return float(sky) if isinstance(sky, int | float) else float(np.median(sky.coarse))


def _measures(made: Coadded, reduced: Sequence[FrameRows]) -> dict[str, float | int | None]:
    used = [one for one in made.frames if not one.reason]
    entered = sum(one.entered for one in used)
    clipped = sum(one.clipped for one in used)
    covered = _covered(made)
    return {
        "frames": len(used),
        "left_out": len(made.frames) - len(used),
        "groups": len(made.groups),
        "exposure_s": sum(
            float(before(one.meta, "exptime_s") or one.meta.get("exptime_s") or 0)
            for one, report in zip(reduced, made.frames, strict=True)
            if not report.reason
        ),
        "exposures_mean": entered / covered if covered else None,
        "covered_fraction": covered / (made.grid.shape[0] * made.grid.shape[1]),
        "clipped_fraction": clipped / max(1, entered + clipped),
        "noise_ratio": made.noise_ratio,
    }


def _covered(made: Coadded) -> int:
    import numpy as np

    count, rows = made.planes["COUNT"], made.grid.shape[0]
    return sum(int(np.count_nonzero(count[at : at + 512])) for at in range(0, rows, 512))


def _meta(
    made: Coadded,
    reduced: Sequence[FrameRows],
    fit: Sequence[FrameRows],
    zeropoint: Sequence[Table],
    params: CoaddParams,
) -> dict[str, Any]:
    """What is not that of the frames any more: coordinates, unit, gain."""
    from ..coadd.inputs import ZERO_POINT_MAG
    from ..sky.writewcs import wcs_as_cards

    ny, nx = made.grid.shape
    ra_deg, dec_deg = made.grid.centre_deg
    known = zero_points(fit, zeropoint, params)
    background = treated(fit[0].meta, params) if are_gridded(fit) else params.background
    bands = {band for mag, band in known.values() if mag is not None}
    return {
        "wcs": wcs_as_cards(made.grid.wcs, shape=made.grid.shape),
        "nx": nx,
        "ny": ny,
        "ra_deg": ra_deg,
        "dec_deg": dec_deg,
        "pixel_scale_arcsec": round(made.grid.wcs.pixel_scale_arcsec, 9),
        "exptime_s": 1.0,
        "gain_e_adu": _gain(made, reduced),
        "read_noise_adu": None,
        "saturation_adu": None,
        "nonlinear_adu": None,
        "sections": None,
        "zeropoint_mag": ZERO_POINT_MAG if is_absolute(known) else None,
        "zeropoint_band": bands.pop() if len(bands) == 1 else None,
        "gridded": {"background": background},
    }


def _gain(made: Coadded, reduced: Sequence[FrameRows]) -> list[float] | None:
    """Electrons to a unit of the mean of as many frames as there are on a pixel, where all gains are known."""
    import numpy as np

    gains = [(one.meta.get("gain_e_adu") or [None])[0] for one in reduced]
    if not all(gains):
        return None
    covered = _covered(made)
    number = sum(one.entered for one in made.frames) / covered if covered else 1.0
    each = float(np.median([float(gain) / one.scale for gain, one in zip(gains, made.frames, strict=True)]))
    return [float(f"{each * number:.9g}")]


COADD = Kind(
    name="coadd",
    command="awe-coadd",
    class_name="Coadd",
    summary="Stack reduced frames on a grid of the sky into one deep image.",
    description="""All reduced frames of a filter that are given make one image, in one pass, strip by strip: the
memory stays under --memory, whatever the number of frames and the size of the mosaic. Each frame is put on the
grid by its astrometric solution and scaled to 30 mag per ADU/s by its zero point; values far from the median of
their pixel are left out, by a test that allows for changes of the seeing; the rest is averaged with the inverse
variance of the background as weight. COUNT says how many frames entered each pixel, the table CLIPPED which were
left out where. Where an object fills the field, --background match takes one constant a frame, from the
overlaps; what is left of the sky between objects is then 0.
Frames that are not on the grid, behind clouds, or contradict the others are left out, and named.

Regridded frames (awe-regrid) may be given instead, of one grid, whole pixels of which they have: they are
taken as they are, no pixel is interpolated again, and no solution is needed. With --grid auto the grid is
theirs. Their background is what awe-regrid left of it.""",
    needs=[
        Need(
            "reduced",
            "reduced",
            group(),
            many=True,
            only_given=("regrid",),
            help="Reduced frames; or regridded ones, of one grid.",
        ),
        Need(
            "astrom",
            "astrom",
            of_frame(),
            many=True,
            unless=of_grid,
            help="Astrometric solution of each frame.",
        ),
        Need(
            "zeropoint",
            "zeropoint",
            of_frame(),
            many=True,
            optional=True,
            unless=of_grid,
            some_with=("flux_scale", "match"),
            own="zeropoint_mag",
            help="Zero point of each frame.",
        ),
        illumination_need("reduced", "regrid", many=True),
    ],
    match=("filter",),
    group=[],
    reads=[
        "instrument",
        "detector",
        "exposure",
        "exptime_s",
        "gain_e_adu",
        "zeropoint_mag",
        "zeropoint_band",
        "gridded",
        "window",
    ],
    validity=None,
    params=CoaddParams,
    measures=[
        Measure("frames", "Number of frames in the coadd."),
        Measure("left_out", "Number of frames that were left out."),
        Measure("groups", "Number of groups of frames that overlap."),
        Measure("exposure_s", "Sum of the exposure times."),
        Measure("exposures_mean", "Mean number of frames on a pixel that has any."),
        Measure("covered_fraction", "Part of the grid with a frame on it."),
        Measure("clipped_fraction", "Part of the values that were clipped."),
        Measure(
            "noise_ratio", "Noise of a pixel by itself over what its weight says; below 1 if correlated."
        ),
    ],
    limits=[Limit("frames", low=1)],
    recipe=make_coadd,
    serves=serves,
    revision=3,
    unit="adu/s",
    example="awe-query reduced object=M51 filter=R | awe-coadd --background match -j2",
)
