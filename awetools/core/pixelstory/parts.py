"""What a pixel of a product was made of, worked out again: which exposures of a stack were kept, and the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..pixels.stack import median
from ..tracing.lineage import Reference
from .arithmetic import (
    ROUNDING,
    Check,
    Exposure,
    Part,
    clip_words,
    local_light,
    noise_and_gain,
    of_amplifier,
    reduced_check,
)
from .values import THERE, Made, Pixel, name_of

Words = tuple[tuple[str, str], ...]
RECOMPUTED = "recomputed from the recorded parameters"
LIGHT_ABOUT = "recomputed; the light of each exposure from the pixels around"
# Of the value: how well the light is known from the pixels around.
LIGHT_ROUNDING = 5e-3


def worked_out(made: Made) -> Made:
    """The same with the arithmetic done again, and what became of each raw frame, where the kind allows it."""
    work = WORK.get(made.pixel.node.kind)
    if work is None or made.pixel.x is None:
        return made
    return work(made)


def _reduced(made: Made) -> Made:
    missing = _missing(made, ("raw", "bias", "dark", "flat"))
    raw = made.part("raw")
    if raw is None or missing:
        return replace(made, check=Check("", problem=f"not done again: {missing or 'no raw frame'}"))
    assert raw.value is not None and raw.overscan_adu is not None
    dark = made.part("dark")
    holds = dark is not None and bool(made.used("dark").get("holds_bias"))
    factor = 1.0 if holds else float(made.used("raw").get("exptime_s") or 0.0)
    check = reduced_check(
        raw.value,
        raw.overscan_adu,
        None if holds else _part(made, "bias"),
        _part(made, "dark"),
        factor,
        _part(made, "flat"),
        made.pixel.value,
    )
    if made.part("fringe") is not None:
        check = _less_fringes(made, check)
    return replace(made, check=check)


def _part(made: Made, role: str) -> Part | None:
    found = made.part(role)
    return None if found is None or found.value is None else Part(role, found.value)


def _missing(made: Made, roles: Sequence[str]) -> str:
    """Which of the parts that were used are not known, in words."""
    unknown = [
        part for one, part in made.parts if one.role in roles and (part.value is None or _no_overscan(part))
    ]
    return ", ".join(f"{name_of(one.node)} ({one.node.state})" for one in unknown)


def _no_overscan(part: Pixel) -> bool:
    return part.place is not None and part.overscan_adu is None


def _less_fringes(made: Made, check: Check) -> Check:
    """The check of a frame whose fringes were subtracted: their scale was fitted, and is not on record."""
    fringe = made.part("fringe")
    amplitude = made.record["quality"]["measures"].get("fringe_adu")
    if fringe is None or fringe.value is None or check.value is None or check.in_file is None:
        return replace(check, value=None, problem="the fringes are not known at this pixel")
    taken = check.value - check.in_file
    text = f"{check.text} - {taken:.6g} [{fringe.node.kind}]"
    about = "" if amplitude is None else f"; their rms over the frame is {amplitude:.4g} ADU"
    problem = (
        f"the scale of the fringes is not on record: {taken:.6g} ADU is what is left for them, "
        f"of a pattern of {fringe.value:.6g}{about}"
    )
    return Check(text, None, check.in_file, problem=problem)


# Stacks


def _bias(made: Made) -> Made:
    frames, problem = _frames(made)
    if problem:
        return _not_done(made, problem)
    exposures = [Exposure(_net(one)) for one in frames]
    if made.parameter("combine") == "median":
        stack = np.array([one.net_adu for one in exposures], np.float32)[:, None, None]
        found = float(median(stack)[0, 0])
        return _done(made, frames, ["in the median"] * len(frames), RECOMPUTED, "median", found, ROUNDING)
    noise, _ = _noise(made, [made.record["meta"]])
    if noise is None:
        return _not_done(made, "the read noise that the clip used is not known")
    words, mean = clip_words(exposures, noise, None, float(made.parameter("clip_sigma") or 3.0), scaled=False)
    return _done(made, frames, words, RECOMPUTED, "mean of what was kept", mean, ROUNDING)


def _dark(made: Made) -> Made:
    frames, problem = _frames(made)
    if not problem and made.part("bias") is None:
        problem = "a dark without a bias: what of it is dark current is not on record"
    times = {_seconds(made, one) for one in frames}
    if not problem and len(times) > 1:
        problem = "exposures of different times, about whose weighted median the clip goes"
    missing = _missing(made, ("bias",))
    if problem or missing:
        return _not_done(made, problem or missing)
    seconds = times.pop()
    exposures = [_exposure(made, one, light=seconds) for one in frames]
    return _clipped(made, frames, exposures, RECOMPUTED, "mean of what was kept", ROUNDING)


def _flat_of_light(made: Made) -> Made:
    frames, problem = _frames(made)
    missing = _missing(made, ("bias", "dark"))
    response = made.pixel.window
    if problem or missing or response is None:
        return _not_done(made, problem or missing or "the flat itself cannot be read")
    good = response.planes.get("WEIGHT", np.ones_like(response.planes[response.first])) > 0
    exposures = []
    for one in frames:
        light = local_light(_net_window(made, one), response.planes[response.first], good)
        if light is None:
            return _not_done(made, f"how much light {name_of(one.node)} has here cannot be told")
        exposures.append(_exposure(made, one, light))
    found = _clipped(made, frames, exposures, LIGHT_ABOUT, "weighted mean of what was kept", LIGHT_ROUNDING)
    if found.check is not None and found.check.agrees is False:
        return _not_done(made, "with the light of the pixels around they do not give the value in the file")
    return found


def _of_night_sky(made: Made) -> Made:
    return _not_done(made, "what objects cover in each exposure, and its sky, are not on record")


def _flat(made: Made) -> Made:
    fine = next((part for one, part in made.parts if one.role.endswith("flat")), None)
    if fine is None or not fine.value or made.pixel.value is None or made.pixel.mask:
        return made
    factor = made.pixel.value / fine.value
    text = f"{fine.value:.7g} [{fine.node.kind}] x {factor:.6g}"
    problem = "the factor holds the illumination and the normalisation, which are made of whole frames"
    return replace(made, check=Check(text, None, made.pixel.value, problem=problem))


def _net_window(made: Made, frame: Pixel) -> Any:
    """The counts of an exposure around the pixel less overscan, bias and dark current, ADU; nan where unknown."""
    assert frame.window is not None
    net = frame.window.planes["NET"].copy()
    for role, factor in _subtracted(made, frame):
        part = made.part(role)
        if part is not None and part.window is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                net -= part.window.planes[part.window.first] * np.float32(factor)
    return net


def _subtracted(made: Made, frame: Pixel) -> list[tuple[str, float]]:
    """What is subtracted from an exposure besides the overscan, and how often."""
    if made.part("dark") is None:
        return [("bias", 1.0)]
    if made.used("dark").get("holds_bias"):
        return [("dark", 1.0)]
    return [("bias", 1.0), ("dark", _seconds(made, frame))]


def _seconds(made: Made, frame: Pixel) -> float:
    """The exposure time of a raw frame, as the product used it."""
    used = next((one.meta for one, part in made.parts if part is frame), {})
    return float(used.get("exptime_s") or frame.node.meta.get("exptime_s") or 0.0)


def _exposure(made: Made, frame: Pixel, light: float) -> Exposure:
    """One exposure less bias and dark current, in single precision as recipes have it."""
    net = np.float32(_net(frame))
    for role, factor in _subtracted(made, frame):
        part = made.part(role)
        if part is not None and part.value is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                net -= np.float32(part.value) * np.float32(factor)
    limit = of_amplifier(made.used("raw").get("saturation_adu"), frame.place.number if frame.place else 0)
    assert frame.value is not None
    return Exposure(float(net), usable=limit is None or frame.value < limit, light=light)


def _clipped(
    made: Made, frames: Sequence[Pixel], exposures: Sequence[Exposure], by: str, what: str, rounding: float
) -> Made:
    bias = made.part("bias")
    noise, gain = _noise(made, [bias.node.meta if bias else {}, made.used("raw")])
    if noise is None or gain is None:
        return _not_done(made, "the read noise or the gain that the clip used is not known")
    clip = float(made.parameter("clip_sigma") or 0.0)
    words, mean = clip_words(exposures, noise, gain, clip, scaled=True)
    return _done(made, frames, words, by, what, mean, rounding)


def _noise(made: Made, metas: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    rows = {one.role: part.row for one, part in made.parts if part.row is not None}
    place = next((part.place for _, part in made.parts if part.place is not None), None)
    return noise_and_gain(rows, metas, place.number if place else 0)


def _frames(made: Made) -> tuple[list[Pixel], str]:
    """The raw frames that entered a stack in the order of time, and why they do not all tell."""
    left_out = _left_out(made)
    used = [part for one, part in made.parts if one.role == "raw" and not _why_left_out(one, left_out)]
    unknown = [one for one in used if one.value is None or _no_overscan(one)]
    if made.pixel.value is None and made.pixel.node.state in THERE:
        return used, "its own value is not known"
    if unknown:
        return used, f"{name_of(unknown[0].node)} cannot be read" + (
            f", and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        )
    return sorted(used, key=lambda one: str(one.node.meta.get("obs_start"))), ""


def _left_out(made: Made) -> list[tuple[tuple[str, ...], str]]:
    """Exposures that were left out whole: their paths as they were given, in parts, and why."""
    listed = made.record["recipe"].get("left_out") or ()
    return [(_parts(one["path"]), one["reason"]) for one in listed]


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", ".", ".."))


def _why_left_out(reference: Reference, left_out: Sequence[tuple[tuple[str, ...], str]]) -> str:
    """Why an exposure was left out; empty if it was not. A relative path is the end of the whole one."""
    whole = _parts(reference.path)
    return next((reason for parts, reason in left_out if whole[-len(parts) :] == parts), "")


def _net(frame: Pixel) -> float:
    assert frame.net_adu is not None
    return frame.net_adu


def _not_done(made: Made, why: str) -> Made:
    said = _words(made, {}, f"not recomputed: {why}")
    return replace(made, words=said, check=Check("", problem=f"not done again: {why}"))


def _done(
    made: Made,
    frames: Sequence[Pixel],
    words: Sequence[str],
    by: str,
    what: str,
    value: float | None,
    rounding: float,
) -> Made:
    known = {frame.key: word for frame, word in zip(frames, words, strict=True)}
    kept = sum(word in ("kept", "in the median", "near the limit") for word in words)
    largest = abs(value or 0.0)
    if rounding == ROUNDING:
        largest = max([largest, *(abs(_net(one)) for one in frames)])
    check = Check(f"{what}, {kept} of {len(words)}", value, made.pixel.value, rounding * largest)
    return replace(made, words=_words(made, known, by), check=check)


def _words(made: Made, known: Mapping[tuple[Any, ...], str], by: str) -> Words:
    """What became of each raw frame, in the order of the inputs, and how that is known."""
    left_out = _left_out(made)
    said = []
    for reference, part in made.parts:
        if reference.role != "raw":
            continue
        reason = _why_left_out(reference, left_out)
        said.append(("left out", reason) if reason else (known.get(part.key, "not known"), by))
    return tuple(said)


def _difference(made: Made) -> Made:
    missing = _missing(made, ("image", "reference"))
    image, reference = made.part("image"), made.part("reference")
    if missing or image is None or reference is None:
        return _not_done(made, missing or "there is no reference")
    assert image.value is not None and reference.value is not None
    scale = float(made.parameter("scale") or 1.0)
    value = float(np.float32(image.value) - np.float32(scale) * np.float32(reference.value))
    text = f"{image.value:.6g} - {scale:.6g} x {reference.value:.6g}"
    largest = max(abs(image.value), abs(scale * reference.value))
    return replace(made, check=Check(text, value, made.pixel.value, ROUNDING * largest))


WORK: Mapping[str, Callable[[Made], Made]] = {
    "reduced": _reduced,
    "bias": _bias,
    "dark": _dark,
    "domeflat": _flat_of_light,
    "twiflat": _flat_of_light,
    "nightflat": _of_night_sky,
    "fringe": _of_night_sky,
    "flat": _flat,
    "difference": _difference,
}
