"""Measures against limits: what turns a number into a flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .kind import Kind, Limit

if TYPE_CHECKING:
    from .journal import Words

IMSTAT = (
    "mean",
    "median",
    "stdev",
    "min",
    "max",
    "clipped_mean",
    "clipped_median",
    "clipped_stdev",
    "pixels",
)

# Measured for every image product, whatever its kind.
COMMON_MEASURES = {
    "good_fraction": "Fraction of the pixels whose weight is not 0.",
    **{f"imstat.{name}": f"Statistics of the good pixels: {name.replace('_', ' ')}." for name in IMSTAT},
}


def unfit_for_use(flags: int, verdict: str | None) -> str:
    """Why its flags and verdict keep a product from being used, in words; empty if they do not.

    verdict: what a person judged, which overrules the flags.
    """
    if verdict == "bad":
        return "judged bad"
    return "flagged, and nobody judged it good" if flags and verdict not in ("good", "ready") else ""


def quality_in_force(record: Mapping[str, Any], said: Words) -> dict[str, Any]:
    """The quality block of a record, with the flags and limits of what was said since."""
    quality, found = record["quality"], said.quality_of(record["recipe_key"], record["run"].get("end"))
    if found is None:
        return dict(quality)
    names = [str(one["measure"]) for one in found.limits if not one["ok"]]
    return {**quality, "limits": list(found.limits), "flags": found.flags, "flag_names": names}


def measure_names(kind: Kind) -> list[str]:
    """Every measure of a kind; its place in the list is the bit of its flag."""
    return [*(measure.name for measure in kind.measures), *COMMON_MEASURES]


def judge(kind: Kind, measures: Mapping[str, Any], limits: Sequence[Limit]) -> dict[str, Any]:
    """The quality block of a record: measures, limits with value and margin, flags as bits and names.

    margin: how far inside the nearer bound the value is, negative outside, in
    the measure's unit. A measure that was not made is outside its limits.
    """
    names = measure_names(kind)
    judged = [_judge_one(limit, measures.get(limit.measure)) for limit in limits]
    failed = [one["measure"] for one in judged if not one["ok"]]
    return {
        "measures": dict(measures),
        "limits": judged,
        "flags": sum(1 << names.index(name) for name in failed),
        "flag_names": failed,
    }


def share_of_limits(judged: Mapping[str, Any]) -> float | None:
    """The margin of a limit of a record as a share of the distance of its bounds, or of the only bound.

    So that measures of different units compare. None where there is no margin.
    """
    low, high, margin = judged["low"], judged["high"], judged["margin"]
    if margin is None:
        return None
    width = high - low if low is not None and high is not None else abs(high if low is None else low)
    # Of a limit of 0, or of one value alone, only the measure itself can be the measure.
    return float(margin) / (width or abs(judged["value"]) or 1.0)


def _judge_one(limit: Limit, value: float | None) -> dict[str, Any]:
    margins = []
    if value is not None and limit.low is not None:
        margins.append(value - limit.low)
    if value is not None and limit.high is not None:
        margins.append(limit.high - value)
    margin = min(margins, default=None)
    ok = value is not None and (margin is None or margin >= 0)
    return {
        "measure": limit.measure,
        "value": value,
        "low": limit.low,
        "high": limit.high,
        "margin": margin,
        "ok": ok,
    }
