"""Coadd: many reduced frames on one grid of the sky, one deep image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import NoMatch
from ..kind import Kind, LeftOut, Limit, Measure, Need, Result, group, of_frame
from ..params import param
from .declare import grid_param, kernel_param, sky_mesh_param

if TYPE_CHECKING:
    import numpy as np

    from ..coadd.coadd import Coadded, How
    from ..coadd.inputs import CoaddFrame
    from ..frame import FrameRows, ImageSet, Table
    from ..sky.grid import Grid

IDENTITY = ("instrument", "detector", "exposure")
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
        "Background of a frame: smooth and subtracted; one constant, matched where frames overlap; or left.",
        choices=("subtract", "match", "leave"),
    )
    sky_mesh: int = sky_mesh_param()
    interpolate: bool = param(True, "Fill defects of up to two pixels from their neighbours before.")
    most_extinction_mag: float = param(
        1.0, "A frame so much less transparent than the others is left out.", unit="mag", low=0.01, high=100
    )
    most_disagreeing: float = param(
        0.02,
        "A frame of which more of the pixels contradict the others is left out; 0: none.",
        low=0,
        high=0.9,
    )


def make_coadd(
    reduced: ImageSet,
    astrom: Sequence[Table],
    zeropoint: Sequence[Table] = (),
    *,
    params: CoaddParams,
) -> Result:
    """Stack reduced frames on a grid of the sky.

    reduced: frames with weight and mask, read in strips. astrom: the solution of each, whose meta has the WCS.
    zeropoint: that of each, whose meta has the magnitude of 1 ADU/s; of all frames or of none. Returns SCI
    (ADU/s, of zero point 30 mag where there are zero points), WEIGHT (its inverse variance, for sums over many
    pixels), COUNT (how many frames entered) and MASK; the table FRAMES (a row a frame that was given: what it
    was multiplied by, what was subtracted, how many of its values entered and were clipped, why it was left
    out) and the table CLIPPED (pixel, from 1, and row of FRAMES, from 0). meta.wcs is that of the grid. Method:
    coadd.coadd. Raises NoMatch (no solution, some zero points), EmptyInput (no frame can be used), Unavailable
    (memory, scratch disk).
    """
    from ..coadd.coadd import coadd

    how = _how(reduced, params)
    frames = _frames(reduced.frames, astrom, zeropoint, params)
    made = coadd(frames, _grid(params.grid, frames), how)
    return Result(
        planes=dict(made.planes),
        tables={"FRAMES": _table(made, frames, reduced.frames), "CLIPPED": dict(made.clipped)},
        measures=_measures(made, reduced.frames),
        left_out=[LeftOut(number, one.reason) for number, one in enumerate(made.frames) if one.reason],
        meta=_meta(made, frames, reduced.frames, zeropoint),
        used=_used(zeropoint),
        cards=[("KERNEL", how.regridding.kernel_name, "how pixels were interpolated")],
    )


def _used(zeropoint: Sequence[Table]) -> dict[str, str]:
    if not zeropoint:
        return {"zeropoint": "there is none: frames count as they are, in ADU/s"}
    return {} if _is_absolute(zeropoint) else {"zeropoint": "relative: frames are scaled to their mean"}


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
        matching="constant" if params.background == "match" else "none",
        most_extinction_mag=params.most_extinction_mag,
        most_disagreeing=params.most_disagreeing,
        memory_bytes=reduced.memory_bytes,
        threads=reduced.threads,
        folder=reduced.scratch,
    )


def _kernel(frames: Sequence[FrameRows], name: str) -> str:
    """The kernel that is asked for; by default that for the sharpest of the first frames."""
    import math

    from ..frame import Frame
    from ..pixels.resample import kernel_for
    from .regrid import seeing_px_of

    if name != "auto":
        return name
    found = []
    for one in frames[:3]:
        first = max(0, (one.shape[0] - SEEING_ROWS) // 2)
        data, weight, mask = one.read(first, min(one.shape[0], first + SEEING_ROWS))
        found.append(seeing_px_of(Frame(data, weight, mask)) or math.nan)
    return kernel_for(min((one for one in found if one == one), default=math.nan))


def _frames(
    reduced: Sequence[FrameRows], astrom: Sequence[Table], zeropoint: Sequence[Table], params: CoaddParams
) -> list[CoaddFrame]:
    from ..coadd.inputs import CoaddFrame
    from ..sky.readwcs import read_wcs

    cards = {_name(one.meta): one.meta.get("wcs") for one in astrom}
    zeros = {_name(one.meta): one.meta.get("zeropoint_mag") for one in zeropoint}
    absolute = _is_absolute(zeropoint)
    _refuse_some([_name(one.meta) for one in reduced], cards, zeros)
    frames = []
    for one in reduced:
        name = _name(one.meta)
        frame = CoaddFrame(
            name,
            one.shape,
            read_wcs(dict(cards[name] or {})),
            one.read,
            scale=_scale(one, zeros.get(name), absolute),
            unit=one.unit,
            zeropoint_mag=zeros.get(name),
        )
        frames.append(_less_sky(frame, params))
    return frames


def _name(meta: Mapping[str, Any]) -> str:
    return " ".join(str(meta.get(name)) for name in IDENTITY)


def _refuse_some(names: Sequence[str], cards: Mapping[str, Any], zeros: Mapping[str, Any]) -> None:
    """Raise NoMatch where frames have no solution, or some of them no zero point."""
    lost = [name for name in names if not cards.get(name)]
    if lost:
        raise NoMatch(
            f"{len(lost)} of {len(names)} frames have no astrometric solution: {'; '.join(lost[:3])}",
            hint="awe-astrom or awe-gastrom, then again; or leave them out",
        )
    without = [name for name in names if zeros.get(name) is None]
    if without and len(without) < len(names):
        raise NoMatch(
            f"{len(without)} of {len(names)} frames have no zero point: {'; '.join(without[:3])}",
            hint="awe-zeropoint or awe-gphot, then again; --no-zeropoint takes all as they are",
        )


def _is_absolute(zeropoint: Sequence[Table]) -> bool:
    """Whether zero points are magnitudes; raises NoMatch where only some are."""
    relative = [one for one in zeropoint if not one.meta.get("zeropoint_band")]
    if relative and len(relative) < len(zeropoint):
        raise NoMatch(
            f"{len(relative)} of {len(zeropoint)} zero points are relative, as that of {_name(relative[0].meta)}",
            hint="awe-gphot with all of them, or --no-zeropoint",
        )
    return bool(zeropoint) and not relative


def _scale(one: FrameRows, zeropoint_mag: float | None, absolute: bool) -> float:
    """What makes ADU/s of a frame those of zero point 30 mag; of 0 mag where zero points are relative."""
    from ..coadd.inputs import ZERO_POINT_MAG, flux_scale
    from .zeropoint import exptime_of

    exptime_s = 1.0 if one.unit.endswith("/s") else exptime_of(one.meta)
    if zeropoint_mag is None:
        return 1 / exptime_s
    return flux_scale(zeropoint_mag + (0.0 if absolute else ZERO_POINT_MAG), exptime_s)


def _less_sky(frame: CoaddFrame, params: CoaddParams) -> CoaddFrame:
    from dataclasses import replace

    import numpy as np

    from ..coadd.inputs import mesh_sky

    if params.background == "leave":
        return frame
    sky = mesh_sky(frame, params.sky_mesh)
    return replace(frame, sky=sky if params.background == "subtract" else float(np.median(sky.coarse)))


def _grid(text: str, frames: Sequence[CoaddFrame]) -> Grid:
    from ..sky.gridtext import fitted, parse_grid

    found = fitted([(one.wcs, one.shape) for one in frames]) if text == "auto" else parse_grid(text)
    return found.grid()


def _table(
    made: Coadded, frames: Sequence[CoaddFrame], reduced: Sequence[FrameRows]
) -> dict[str, np.ndarray]:
    import numpy as np

    reports = made.frames
    table = {name.upper(): np.array([str(one.meta.get(name)) for one in reduced]) for name in IDENTITY}
    return {
        **table,
        "SCALE": np.array([one.scale for one in frames]),
        "SKY_ADU": np.array([_typical(one.sky) for one in frames]),
        "LEVEL": np.array([one.level.constant for one in reports]),
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
            float(one.meta.get("exptime_s") or 0)
            for one, report in zip(reduced, made.frames, strict=True)
            if not report.reason
        ),
        "exposures_mean": entered / covered if covered else None,
        "covered_fraction": covered / (made.grid.shape[0] * made.grid.shape[1]),
        "clipped_fraction": clipped / max(1, entered + clipped),
    }


def _covered(made: Coadded) -> int:
    import numpy as np

    count, rows = made.planes["COUNT"], made.grid.shape[0]
    return sum(int(np.count_nonzero(count[at : at + 512])) for at in range(0, rows, 512))


def _meta(
    made: Coadded, frames: Sequence[CoaddFrame], reduced: Sequence[FrameRows], zeropoint: Sequence[Table]
) -> dict[str, Any]:
    """What is not that of the frames any more: coordinates, unit, gain."""
    from ..coadd.inputs import ZERO_POINT_MAG
    from ..sky.writewcs import wcs_as_cards

    ny, nx = made.grid.shape
    ra_deg, dec_deg = made.grid.centre_deg
    bands = {one.meta.get("zeropoint_band") for one in zeropoint}
    return {
        "wcs": wcs_as_cards(made.grid.wcs, shape=made.grid.shape),
        "nx": nx,
        "ny": ny,
        "ra_deg": ra_deg,
        "dec_deg": dec_deg,
        "pixel_scale_arcsec": round(made.grid.wcs.pixel_scale_arcsec, 9),
        "exptime_s": 1.0,
        "gain_e_adu": _gain(made, frames, reduced),
        "read_noise_adu": None,
        "saturation_adu": None,
        "nonlinear_adu": None,
        "sections": None,
        "zeropoint_mag": ZERO_POINT_MAG if _is_absolute(zeropoint) else None,
        "zeropoint_band": bands.pop() if len(bands) == 1 else None,
    }


def _gain(made: Coadded, frames: Sequence[CoaddFrame], reduced: Sequence[FrameRows]) -> list[float] | None:
    """Electrons to a unit of the mean of as many frames as there are on a pixel, where all gains are known."""
    import numpy as np

    gains = [(one.meta.get("gain_e_adu") or [None])[0] for one in reduced]
    if not all(gains):
        return None
    covered = _covered(made)
    number = sum(one.entered for one in made.frames) / covered if covered else 1.0
    each = float(np.median([float(gain) / one.scale for gain, one in zip(gains, frames, strict=True)]))
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
overlaps. Frames that are not on the grid, behind clouds, or contradict the others are left out, and named.""",
    needs=[
        Need("reduced", "reduced", group(), many=True, help="Reduced frames."),
        Need("astrom", "astrom", of_frame(), many=True, help="Astrometric solution of each frame."),
        Need(
            "zeropoint",
            "zeropoint",
            of_frame(),
            many=True,
            optional=True,
            help="Zero point of each frame.",
        ),
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
    ],
    limits=[Limit("frames", low=1)],
    recipe=make_coadd,
    revision=1,
    unit="adu/s",
    example="awe-query reduced object=M51 filter=R | awe-coadd --background match -j2",
)
