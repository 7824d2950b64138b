"""What goes into a global solution and what comes out: frames with their sources, coordinate systems, measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, EmptyInput, Mixture
from .solve import Sources
from .wcs import Wcs


@dataclass(frozen=True, eq=False)
class Frame:
    """A detector's image in an exposure: its sources and its local solution.

    detector and exposure: names, of which the frame is the only one of both, and which no other
    instrument has; shape (ny, nx); epoch_yr: for proper motions (None or nan: unknown);
    zenith_deg: RA and Dec of the zenith, for differential refraction of refraction_arcsec
    times the tangent of the zenith distance; signal_to_noise (n,) of the sources tells the
    bright ones for the measures.
    """

    name: str
    detector: str
    exposure: str
    sources: Sources
    wcs: Wcs
    shape: tuple[int, int]
    epoch_yr: float | None = None
    zenith_deg: tuple[float, float] | None = None
    refraction_arcsec: float = 58.2
    signal_to_noise: npt.ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class Adjusted:
    """The coordinate system of a frame, which is written as TPV or SIP, and its measures by name."""

    name: str
    wcs: Wcs
    measures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Adjustment:
    """What a global solution gives: the frames in their order, those left out with the reason, measures of all."""

    frames: tuple[Adjusted, ...]
    left_out: Mapping[str, str]
    measures: Mapping[str, float]


def check_frames(frames: Sequence[Frame], degree: int, hold_out: int) -> None:
    """Raise EmptyInput, BadValue or Mixture for what can be no global solution."""
    if not frames:
        raise EmptyInput("a global solution of no frames")
    if not 1 <= degree <= 7:
        raise BadValue(f"a polynomial of degree {degree}: from 1 to 7 is possible")
    if hold_out < 2:
        raise BadValue(f"one in {hold_out} stars held out: at least 2")
    names: set[str] = set()
    places: dict[tuple[str, str], str] = {}
    shapes: dict[str, Frame] = {}
    for one in frames:
        if one.name in names:
            raise Mixture(f"two frames have the name {one.name}")
        names.add(one.name)
        other = places.setdefault((one.detector, one.exposure), one.name)
        if other != one.name:
            raise Mixture(f"{other} and {one.name} are both detector {one.detector} of {one.exposure}")
        first = shapes.setdefault(one.detector, one)
        if first.shape != one.shape:
            raise Mixture(
                f"{first.name} and {one.name} of detector {one.detector} have shapes"
                f" {first.shape} and {one.shape}"
            )


def repeated(frames: Sequence[Frame], least: int) -> dict[str, str]:
    """Frames that are others once more, with the reason: the same detector, and the same sources, at least so many."""
    seen: dict[tuple[str, bytes], str] = {}
    found = {}
    for one in frames:
        x = np.asarray(one.sources.x, np.float64)
        if x.size < least:
            continue
        first = seen.setdefault((one.detector, x.tobytes()), one.name)
        if first != one.name:
            found[one.name] = f"its sources are those of {first}, to the last bit"
    return found
