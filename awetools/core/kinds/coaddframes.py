"""The frames of a coadd before they are stacked: their coordinates, scales and sky, and what is refused of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader, Mixture, NoMatch
from .coaddgridded import are_gridded, as_they_are

if TYPE_CHECKING:
    from ..coadd.coadd import Matching
    from ..coadd.inputs import CoaddFrame
    from ..frame import FrameRows, Table
    from .coadd import CoaddParams

IDENTITY = ("instrument", "detector", "exposure")
MATCHING: Mapping[str, Matching] = {"match": "constant", "match-plane": "plane"}


def frames_of(
    reduced: Sequence[FrameRows],
    astrom: Sequence[Table],
    zeropoint: Sequence[Table],
    illumination: Sequence[Table],
    params: CoaddParams,
) -> list[CoaddFrame]:
    """The frames with their places and scales; those whose coordinates cannot be used are unfit.

    Raises NoMatch (no solution, some zero points, some of them relative), Mixture (one frame twice), BadHeader
    (none has coordinates that can be used).
    """
    from ..coadd.inputs import CoaddFrame
    from .coaddscale import edges_of, scale_error, start_mag
    from .coaddsystem import RESOLVED, usable_system
    from .illumination import correction_of

    gridded = are_gridded(reduced)
    if not gridded:
        _refuse_twins([_name(one.meta) for one in reduced])
    # What goes without solutions is where its headers say; frames of other pipelines may know their zero points.
    solved = astrom or reduced
    cards = {_name(one.meta): one.meta.get("wcs") for one in solved}
    known = zero_points(reduced, zeropoint, params)
    zeros = {name: mag for name, (mag, _) in known.items()}
    absolute, matched = is_absolute(known), params.flux_scale == "match"
    solved_zeros = {_name(one.meta): one for one in zeropoint}
    start = start_mag(known) if matched else None
    _refuse_some([_name(one.meta) for one in reduced], cards, {} if matched or gridded else zeros)
    frames = []
    for one in reduced:
        name = _name(one.meta)
        wcs, unfit = usable_system(cards[name] or {}, one.shape)
        frame = CoaddFrame(
            name,
            one.shape,
            wcs,
            one.read,
            scale=_scale(one, start if zeros[name] is None else zeros[name], absolute),
            scale_error=scale_error(zeros[name], solved_zeros.get(name)) if matched else None,
            unit=one.unit,
            zeropoint_mag=zeros.get(name),
            camera=_camera(one.meta, zeros.get(name)),
            unfit=unfit,
            remedy=RESOLVED if unfit else "",
            illumination=correction_of(illumination, one.meta),
            edges_px=(0, 0, 0, 0) if gridded else edges_of(params.edges_px),
        )
        frames.append(frame)
    if all(one.unfit for one in frames):
        raise BadHeader(f"{frames[0].name}: {frames[0].unfit}", hint=RESOLVED)
    return as_they_are(frames, reduced, params) if gridded else frames


def _name(meta: Mapping[str, Any]) -> str:
    return " ".join(str(meta.get(name)) for name in IDENTITY)


def _camera(meta: Mapping[str, Any], zeropoint_mag: float | None) -> str:
    """Whose zero points tell of clouds: those of one instrument, but for what is a flux at 30 mag already."""
    from ..coadd.inputs import ZERO_POINT_MAG

    return "" if zeropoint_mag == ZERO_POINT_MAG else str(meta.get("instrument"))


def _refuse_twins(names: Sequence[str]) -> None:
    """Raise Mixture where frames have one name, so that nothing tells which solution is whose."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise Mixture(
            f"{count} frames have the same instrument, detector and exposure: {name}",
            hint="give each once, as awe-query --newest does; imported stamps: awe-import --set exposure=NAME, "
            "another for each",
        )


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
            hint="awe-zeropoint or awe-gphot (where they are flagged, awe-judge good), or of imported frames "
            "awe-import --zero-point MAG; --flux-scale match takes theirs from the overlaps; --no-zeropoint all as "
            "they are",
        )


def zero_points(
    reduced: Sequence[FrameRows], zeropoint: Sequence[Table], params: CoaddParams
) -> dict[str, tuple[float | None, str | None]]:
    """The zero point and its band of each frame, by name."""
    from .coaddscale import comparable
    from .zeropoint import zero_point_of

    solved = {_name(one.meta): one for one in zeropoint}
    known = {_name(one.meta): zero_point_of(solved.get(_name(one.meta)), one.meta) for one in reduced}
    return comparable(known) if params.flux_scale == "match" else known


def is_absolute(known: Mapping[str, tuple[float | None, str | None]]) -> bool:
    """Whether zero points are magnitudes; raises NoMatch where only some are."""
    zeros = {name: band for name, (mag, band) in known.items() if mag is not None}
    relative = [name for name, band in zeros.items() if not band]
    if relative and len(relative) < len(zeros):
        raise NoMatch(
            f"{len(relative)} of {len(zeros)} zero points are relative, as that of {relative[0]}",
            hint="awe-gphot with all of them; --flux-scale match takes theirs from the overlaps; "
            "--no-zeropoint takes all as they are",
        )
    return bool(zeros) and not relative


def _scale(one: FrameRows, zeropoint_mag: float | None, absolute: bool) -> float:
    """What makes ADU/s of a frame those of zero point 30 mag; of 0 mag where zero points are relative."""
    from ..coadd.inputs import ZERO_POINT_MAG, flux_scale
    from .zeropoint import exptime_of

    exptime_s = 1.0 if one.unit.endswith("/s") else exptime_of(one.meta)
    if zeropoint_mag is None:
        return 1 / exptime_s
    return flux_scale(zeropoint_mag + (0.0 if absolute else ZERO_POINT_MAG), exptime_s)


def less_sky(frame: CoaddFrame, background: str, sky_mesh: int) -> CoaddFrame:
    """The frame with its sky; unfit where that cannot be measured."""
    from dataclasses import replace

    import numpy as np

    from ..coadd.inputs import mesh_sky
    from ..errors import BadPixels

    if background == "leave" or frame.unfit:
        return frame
    try:
        sky = mesh_sky(frame, sky_mesh)
    except BadPixels as error:
        why = f"its sky cannot be measured: {error.message}"
        return replace(frame, unfit=why, remedy="--background leave")
    return replace(frame, sky=float(np.median(sky.coarse)) if background in MATCHING else sky)
