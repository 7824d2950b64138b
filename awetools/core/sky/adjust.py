"""The global solution: all frames of many exposures at once, tied to each other and to a reference catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import NoSolution
from .adjustbad import Evidence, evidence_of, lonely, misfits, strangers, wrong_one
from .adjustfit import LEAST_COMMON, first_state, fitted, matched, problem_of, refitted
from .adjustframe import Adjusted, Adjustment, Frame, check_frames, repeated
from .adjustsay import counts_of, measures_of, results
from .adjuststart import Start, numbered, started
from .adjusttable import catalogue_of, table_of
from .match import Places
from .solve import Reference

__all__ = ["Adjusted", "Adjustment", "Frame", "adjust"]


def adjust(
    frames: Sequence[Frame],
    reference: Reference | None = None,
    *,
    degree: int = 3,
    match_arcsec: float = 1.5,
    clip_sigma: float = 4.0,
    hold_out: int = 10,
) -> Adjustment:
    """The coordinate systems of all frames by one weighted least-squares fit.

    Each detector has one polynomial of a degree for all exposures, each exposure a pointing
    (two angles, rotation, scale), each star that two exposures or the reference share a
    position. Without a reference the frames are tied to each other; what that leaves open
    (place, rotation, scale and shear of all, and the quadratic terms that a change of scale
    from pointing to pointing makes up for) is the mean of their own coordinate systems, by
    least squares. match_arcsec: within which sources are one star at first: frames whose
    coordinate systems are worse are brought together by `tied` before. One in `hold_out`
    stars takes no part in the fit that the held-out residuals are of; the last fit has all.
    rms are of one axis. Raises EmptyInput without frames, Mixture for two frames of one
    detector and exposure or shapes that differ, BadValue for a degree out of 1 to 7 or a
    stride below 2, NoSolution where no two frames share stars, or none with the reference.
    """
    check_frames(frames, degree, hold_out)
    left_out = repeated(frames, LEAST_COMMON)
    while True:
        left = [one for one in frames if one.name not in left_out]
        if not left:
            raise _nothing(left_out)
        made = _tried(left, reference, degree, match_arcsec, clip_sigma, hold_out)
        if isinstance(made, Adjustment):
            return Adjustment(made.frames, left_out, made.measures)
        left_out |= {left[k].name: why for k, why in made.items()}


def _nothing(left_out: Mapping[str, str]) -> NoSolution:
    name, reason = next(iter(left_out.items()))
    return NoSolution(
        f"no global solution: all {len(left_out)} frames are left out; {name}: {reason}",
        hint="frames that overlap, better coordinate systems to begin with, or a larger match radius",
    )


def _tried(
    frames: Sequence[Frame],
    reference: Reference | None,
    degree: int,
    match_arcsec: float,
    clip_sigma: float,
    hold_out: int,
) -> Adjustment | dict[int, str]:
    """The solution of frames, or those that are bad."""
    nothing = "it has no sources that a fit can rest on"
    empty = {k: nothing for k, one in enumerate(frames) if np.size(one.sources.x) == 0}
    if empty:
        return empty
    start = started(frames, degree)
    if len(start.lost):
        return {int(k): "its coordinate system has no sky over all of the frame" for k in start.lost}
    detectors, exposures = (
        numbered([one.detector for one in frames]),
        numbered([one.exposure for one in frames]),
    )
    table = table_of(frames, degree)
    catalogue = catalogue_of(reference, table.epoch)
    seen = evidence_of(table, catalogue, len(frames), match_arcsec)
    bad = _bad_at_start(frames, seen, start, exposures, match_arcsec)
    if bad:
        return bad
    problem = problem_of(
        frames, table, catalogue, degree, start.apart_arcsec, detectors, exposures, clip_sigma, hold_out
    )
    state = first_state(problem, start.model)
    stars = matched(problem, state.model, match_arcsec)
    alone = lonely(frames, table, stars)
    if alone:
        return alone
    fit = fitted(problem, state, stars, match_arcsec)
    bad = lonely(frames, table, fit.stars) or misfits(frames, table, exposures, fit, seen)
    if bad:
        return bad
    if reference is not None and not (fit.stars.known >= 0).any():
        raise _no_reference(0, len(catalogue.place))
    held = {f"{name}_held": value for name, value in measures_of(problem, fit, fit.stars.held).items()}
    fit = refitted(problem, fit)
    measures = held | measures_of(problem, fit, np.ones_like(fit.stars.held))
    measures |= counts_of(problem, fit, len(frames))
    return Adjustment(results(frames, detectors, exposures, problem, fit), {}, measures)


def _bad_at_start(
    frames: Sequence[Frame], seen: Evidence, start: Start, exposures: Places, most_arcsec: float
) -> dict[int, str]:
    """Frames that belong to no other where they say they are, and one whose coordinate system is off the mosaic."""
    bad = strangers(seen)
    if len(frames) in bad:
        raise _no_reference(int(seen.matched[-1]), int(seen.expected[-1]))
    if bad:
        return bad
    worst = int(np.argmax(start.apart_arcsec))
    if start.apart_arcsec[worst] <= most_arcsec:
        return {}
    worst = wrong_one(worst, start.apart_arcsec, exposures, seen.doubt)
    away = start.apart_arcsec[worst]
    return {worst: f"its own coordinate system is {away:.3g} arcsec off what the others say"}


def _no_reference(common: int, possible: int) -> NoSolution:
    return NoSolution(
        f"the reference catalogue has {common} stars where the frames have theirs, of {possible} that could be",
        hint="a catalogue of this field, proper motions to the epoch, or none: frames are then tied to each other",
    )
