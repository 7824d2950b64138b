"""Reduced frame: a science exposure free of the detector's signature, with weight and mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadHeader, BadPixels
from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, raw, valid_at
from ..params import param
from .declare import bias_is_in_the_dark, overscan_mode_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, RawFrame, Table
    from ..pixels.mask import Bit
    from .common import Trimmed

# Rows of a frame that stay in the processor's cache.
BLOCK_ROWS = 64
# What is brighter than the sky by less than this may be a broad fringe, and is no object.
FLATNESS = 0.05
# Every so many rows and columns give the mean response to 1e-5, every so many rows the noise to 1e-3.
SAMPLE_STEP = 8


@dataclass(frozen=True)
class ReducedParams:
    """Parameters of `make_reduced`."""

    overscan_mode: str = overscan_mode_param()
    saturation_grow: int = param(
        1,
        "Pixels masked at both ends of a saturated run, and how far nearly saturated neighbours are.",
        unit="px",
        low=0,
        high=10,
    )
    bleed_direction: str = param(
        "columns", "Along what the charge of saturated pixels bleeds.", choices=("columns", "rows")
    )
    sky_mesh: int = param(64, "Size of the cells in which the smooth sky is measured.", unit="px", low=8)
    cosmic_rays: bool = param(True, "Find and mask cosmic rays.")
    cosmic_sigma: float = param(
        4.5, "A cosmic ray is this much sharper than its surroundings.", unit="sigma", low=1
    )
    cosmic_contrast: float = param(
        2.0,
        "Least contrast of a cosmic ray with the structure around it; raised where stars are sharper than 2 px.",
        low=0.1,
    )
    trails: bool = param(True, "Find and mask the trails of satellites and aeroplanes.")
    trail_sigma: float = param(
        8.0, "Significance, over the scatter of all lines, of a trail.", unit="sigma", low=4
    )


def make_reduced(
    raw: RawFrame,
    *,
    bias: Frame | None = None,
    dark: Frame | None = None,
    flat: Frame | None = None,
    hotpix: Frame | None = None,
    coldpix: Frame | None = None,
    fringe: Frame | None = None,
    gain: Table | None = None,
    readnoise: Table | None = None,
    params: ReducedParams,
) -> Result:
    """Take the detector's signature out of one science exposure.

    raw: the exposure, ADU. bias: SCI (ADU). dark: SCI (ADU/s; or ADU with the bias in
    it, if its meta says `holds_bias`). flat: SCI of mean 1. hotpix: MASK. coldpix: MASK.
    fringe: SCI, the pattern relative to the sky (pixels.fringe). gain: a row an amplifier,
    else the camera table. readnoise: a row an amplifier, else the bias's meta or the
    camera table. Overscan, trimming, bias, dark, flat and fringes in this order; then
    saturated pixels with their bleeding (pixels.saturate), cosmic rays (pixels.cosmic)
    and trails (pixels.trails). Returns SCI (ADU, the sky is left in), WEIGHT (ADU^-2,
    the inverse variance of the background, pixels.weight) and MASK (pixels.mask). SCI
    keeps its value under the mask; where it is not finite it is 0. Raises BadHeader (no
    exposure time, gain or read noise), BadPixels (nothing left).
    """
    import numpy as np

    from ..pixels.mask import Bit, bad, good, mark
    from ..pixels.saturate import saturated
    from ..pixels.smooth import background
    from ..pixels.stats import clipped
    from ..pixels.weight import background_weight
    from .common import amplifier_map, gain_of, holds_bias, saturation_of, trim
    from .exposures import amplifier_pixels, constant_amplifiers

    exptime_s = _exptime_s(raw)
    gain_e_adu = amplifier_map(raw.amplifiers, gain_of(gain, raw.meta, raw.amplifiers), raw.shape)
    noises = _read_noises(raw, bias, readnoise)
    raw = raw.in_memory()
    trimmed = trim(raw, params.overscan_mode)
    defects = [None if one is None else one.data for one in (hotpix, coldpix)]
    data, mask, any_saturated = _calibrated(trimmed, exptime_s, bias, dark, flat, defects, gain)
    dead = constant_amplifiers(raw)
    if dead:
        mask[amplifier_pixels(raw.amplifiers, dead, raw.shape)] |= Bit.OUTSIDE
    use = good(mask)
    if not use.any():
        raise BadPixels(f"{_name(raw)}: no good pixel: all saturated, masked or not finite")
    effective_gain = _effective_gain(raw, gain_e_adu, flat, use)
    sky = background(data, use, params.sky_mesh)
    fringe_adu = None
    if fringe is not None:
        fringe_adu = _less_fringes(raw, data, fringe, use)
        sky = background(data, use, params.sky_mesh)
    weight = background_weight(
        sky,
        gain_e_adu=gain_e_adu,
        read_noise_adu=amplifier_map(raw.amplifiers, noises, raw.shape),
        flat=flat.data if flat else None,
        dark_adu_s=dark.data if dark and not holds_bias(dark) else None,
        exptime_s=1.0 if holds_bias(dark) else exptime_s,
        bias_weight=bias.weight if bias else None,
        dark_weight=dark.weight if dark else None,
        flat_weight=flat.weight if flat else None,
        bad=~use,
    )
    if any_saturated:
        limits = amplifier_map(raw.amplifiers, saturation_of(raw.meta, raw.amplifiers), raw.shape)
        counts = raw.rows(0, raw.shape[0])

        def in_sigma(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return _in_sigma(*(plane[rows, columns] for plane in (data, sky, weight)))

        spoiled = saturated(counts, limits, in_sigma, params.saturation_grow, params.bleed_direction)
        mark(mask, spoiled, Bit.SATURATED)
    contrast = params.cosmic_contrast
    if params.cosmic_rays:
        contrast = _mask_cosmic_rays(data, sky, effective_gain, float(np.mean(noises)), mask, params)
    trails = _mask_trails(data, sky, weight, mask, params) if params.trails else None
    masked = bad(mask)
    np.copyto(weight, 0, where=masked)
    some = slice(None, None, SAMPLE_STEP)
    return Result(
        planes={"SCI": data, "WEIGHT": weight, "MASK": mask},
        measures={
            "sky_adu": float(np.median(sky[::16, ::16])),
            "sky_rms_adu": clipped((data[some] - sky[some])[~masked[some]]).stdev,
            "fringe_adu": fringe_adu,
            **_pixel_counts(mask, params),
            "trails": trails,
            "overscan_level_adu": trimmed.level_adu,
            "overscan_slope_adu": trimmed.slope_adu,
            "overscan_noise_adu": trimmed.noise_adu,
        },
        meta={
            "gain_e_adu": [round(effective_gain, 6)],
            "read_noise_adu": [round(float(np.mean(noises)), 5)],
            "saturation_adu": [_lowest_saturation(raw, bias, dark, trimmed.level_adu)],
            "nonlinear_adu": None,
        },
        used=_used(raw, bias, gain, readnoise) | _without(dead) | _raised(contrast, params),
    )


def _pixel_counts(mask: np.ndarray, params: ReducedParams) -> dict[str, int | None]:
    """How many pixels each cause has masked; None for what was not looked for."""
    import numpy as np

    from ..pixels.mask import Bit

    marked = mask[mask != 0]

    def count(bits: int) -> int:
        return int(np.count_nonzero(marked & bits))

    return {
        "saturated_pixels": count(Bit.SATURATED),
        "nonlinear_pixels": count(Bit.NONLINEAR),
        "hot_pixels": count(Bit.HOT),
        "cold_pixels": count(Bit.COLD),
        "cosmic_pixels": count(Bit.COSMIC) if params.cosmic_rays else None,
        "trail_pixels": count(Bit.TRAIL) if params.trails else None,
        "uncalibrated_pixels": count(Bit.UNCALIBRATED | Bit.OUTSIDE),
    }


def _name(raw: RawFrame) -> str:
    return str(raw.meta.get("exposure"))


def _exptime_s(raw: RawFrame) -> float:
    seconds = raw.meta.get("exptime_s")
    if not seconds or seconds <= 0:
        raise BadHeader(
            f"{_name(raw)}: the exposure time is {seconds!r}", hint="awe-ingest --set exptime_s=SECONDS FILE"
        )
    return float(seconds)


def _read_noises(raw: RawFrame, bias: Frame | None, readnoise: Table | None) -> list[float]:
    from .common import READ_NOISE_HINT, read_noise_of

    values = read_noise_of(readnoise, [bias.meta if bias else {}, raw.meta], raw.amplifiers)
    if values is None:
        raise BadHeader(f"{_name(raw)}: the read noise is not known", hint=READ_NOISE_HINT)
    return values


def _calibrated(
    trimmed: Trimmed,
    exptime_s: float,
    bias: Frame | None,
    dark: Frame | None,
    flat: Frame | None,
    defects: Sequence[np.ndarray | None],
    gain: Table | None,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The exposure less bias and dark, divided by the flat, ADU; the mask of what that cannot mend; saturation."""
    import numpy as np

    from ..pixels.calibrate import calibrate
    from ..pixels.mask import Bit
    from .common import amplifier_map, holds_bias, nonlinear_of, raw_levels_of

    raw, shape = trimmed.frame, trimmed.frame.shape
    data, mask = np.empty(shape, np.float32), np.zeros(shape, np.int16)
    saturation, nonlinear = (
        raw_levels_of(raw.meta, name, raw.amplifiers) for name in ("saturation_adu", "nonlinear_adu")
    )
    above_zero = nonlinear_of(gain, raw.amplifiers)
    limit = amplifier_map(raw.amplifiers, above_zero, shape) if np.isfinite(above_zero).any() else None
    subtracted = None if bias is None or holds_bias(dark) else bias.data
    masks = [None if flat is None else flat.mask, *defects]
    any_saturated = False
    for y0 in range(0, shape[0], BLOCK_ROWS):
        rows = slice(y0, min(shape[0], y0 + BLOCK_ROWS))
        part, bits = trimmed.rows(rows.start, rows.stop, data[rows]), mask[rows]
        any_saturated |= _mark_reaching(trimmed, part, bits, rows, saturation, Bit.SATURATED)
        _mark_reaching(trimmed, part, bits, rows, nonlinear, Bit.NONLINEAR)
        calibrate(
            part,
            bits,
            bias=_rows(subtracted, rows),
            dark=_rows(dark.data if dark else None, rows),
            dark_factor=1.0 if holds_bias(dark) else exptime_s,
            nonlinear_adu=limit if limit is None or len(limit) == 1 else limit[rows],
            flat=_rows(flat.data if flat else None, rows),
            weights=[_rows(frame.weight, rows) for frame in (bias, dark) if frame is not None],
            masks=[_rows(one, rows) for one in masks],
        )
    return data, mask, any_saturated


def _rows(plane: np.ndarray | None, rows: slice) -> np.ndarray | None:
    return None if plane is None else plane[rows]


def _mark_reaching(
    trimmed: Trimmed, part: np.ndarray, bits: np.ndarray, rows: slice, limits_adu: list[float], bit: Bit
) -> bool:
    """Mark where the raw counts of these trimmed rows are at or above the limit of their amplifier; if any are."""
    import numpy as np

    from ..pixels.calibrate import mark_reaching

    found = False
    for amp, levels, limit in zip(trimmed.frame.amplifiers, trimmed.levels, limits_adu, strict=True):
        low, high = max(rows.start, amp.target.y0), min(rows.stop, amp.target.y1)
        if low >= high or not np.isfinite(limit):
            continue
        # The same subtraction as that of the counts, so that counts of just the limit are found.
        above = np.float32(limit) - levels[low - amp.target.y0 : high - amp.target.y0]
        found |= mark_reaching(part, bits, above, low - rows.start, (amp.target.x0, amp.target.x1), bit)
    return found


def _effective_gain(raw: RawFrame, gain_e_adu: np.ndarray, flat: Frame | None, use: np.ndarray) -> float:
    """Mean of gain x response over the good pixels, e/ADU of the flat-fielded frame."""
    import numpy as np

    step = slice(None, None, SAMPLE_STEP if use[::SAMPLE_STEP, ::SAMPLE_STEP].any() else None)
    values = np.broadcast_to(gain_e_adu, use.shape)[step, step]
    with np.errstate(over="ignore", invalid="ignore"):
        if flat is not None:
            values = values * flat.data[step, step]
        found = float(np.mean(values[use[step, step]], dtype=np.float64))
    if not np.isfinite(found):
        raise BadPixels(
            f"{_name(raw)}: the flat has responses that are no numbers where it is not masked",
            hint="awe-imstat shows the flat's pixels",
        )
    return found


def _less_fringes(raw: RawFrame, data: np.ndarray, fringe: Frame, use: np.ndarray) -> float:
    """Subtract the fringe pattern, scaled to the frame's own sky, and return its rms, ADU."""
    import numpy as np

    from ..pixels.fringe import fit_fringe
    from ..pixels.objects import object_mask

    fit = fit_fringe(data, fringe.data, use & ~object_mask(data, use, flatness=FLATNESS))
    data -= np.float32(fit.scale) * fringe.data
    return abs(fit.scale) * float(np.std(fringe.data, dtype=np.float64))


def _mask_cosmic_rays(
    data: np.ndarray,
    sky: np.ndarray,
    gain_e_adu: float,
    read_noise_adu: float,
    mask: np.ndarray,
    params: ReducedParams,
) -> float:
    """Mark the cosmic rays in the mask; the least contrast that was asked of them."""
    from ..pixels.cosmic import find_cosmic_rays
    from ..pixels.mask import Bit, bad, mark

    found = find_cosmic_rays(
        data,
        background_adu=sky,
        gain_e_adu=gain_e_adu,
        read_noise_adu=read_noise_adu,
        bad=bad(mask),
        sigclip=params.cosmic_sigma,
        objlim=params.cosmic_contrast,
    )
    mark(mask, found.mask, Bit.COSMIC)
    return found.contrast


def _in_sigma(data: np.ndarray, sky: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The frame less its sky, in units of the noise of the sky; 0 where it has no weight."""
    import numpy as np

    sigmas: np.ndarray = np.sqrt(weight)
    sigmas *= data - sky
    return sigmas


def _mask_trails(
    data: np.ndarray, sky: np.ndarray, weight: np.ndarray, mask: np.ndarray, params: ReducedParams
) -> int:
    """Mark the trails in the mask; how many there are."""
    import numpy as np

    from ..pixels.mask import Bit, good, mark
    from ..pixels.trails import find_trails

    residual_sigma = np.empty_like(data)
    for y0 in range(0, len(data), BLOCK_ROWS):
        rows = slice(y0, y0 + BLOCK_ROWS)
        residual_sigma[rows] = _in_sigma(data[rows], sky[rows], weight[rows])
    found = find_trails(residual_sigma, good(mask), threshold_sigma=params.trail_sigma)
    mark(mask, found.mask, Bit.TRAIL)
    return len(found.lines)


def _used(raw: RawFrame, bias: Frame | None, gain: Table | None, readnoise: Table | None) -> dict[str, str]:
    """Where the noise model comes from, where no product was given."""
    registered = f"from the header, by the camera table {raw.meta.get('camera')}, or set by hand"
    used = {}
    if gain is None:
        used["gain"] = registered
    if readnoise is None:
        from_bias = bias is not None and bias.meta.get("read_noise_adu")
        used["readnoise"] = "taken from the bias" if from_bias else registered
    return used


def _raised(contrast: float, params: ReducedParams) -> dict[str, str]:
    """What is to be said where stars are too sharp for the contrast that was given."""
    given = params.cosmic_contrast
    if contrast <= given:
        return {}
    return {"cosmic_contrast": f"raised from {given:g} to {contrast:.3g}: stars are sharper than 2 px"}


def _without(dead: Sequence[str]) -> dict[str, str]:
    if not dead:
        return {}
    return {"raw": f"amplifier {', '.join(dead)} is constant: it was not read out, and is masked"}


def _lowest_saturation(
    raw: RawFrame, bias: Frame | None, dark: Frame | None, overscan_adu: float
) -> float | None:
    """The level above zero at which the first amplifier saturates, ADU of the reduced frame."""
    import numpy as np

    from .common import holds_bias, saturation_of

    lowest = min(saturation_of(raw.meta, raw.amplifiers))
    if not np.isfinite(lowest):
        return None
    pedestal_frame = dark if holds_bias(dark) else bias
    pedestal = overscan_adu + (float(np.median(pedestal_frame.data[::16, ::16])) if pedestal_frame else 0.0)
    return round(lowest - pedestal, 1)


REDUCED = Kind(
    name="reduced",
    command="awe-reduce",
    class_name="Reduced",
    summary="Reduce raw science exposures: take the detector out, mask and weigh the pixels.",
    description="""One exposure makes one reduced frame: overscan, bias and dark current subtracted, divided
by the flat, with a mask of hot, cold, saturated (and bleeding), nonlinear and uncalibrated pixels, cosmic
rays and the trails of satellites, and a weight that is the inverse variance of the background: read noise,
smooth sky, dark current, and the noise of the calibrations. The sky is left in. Any number of exposures can be given;
each becomes one product. awe-mask(1) says which bits a pixel has, and why.""",
    needs=[
        Need("raw", "raw_science", raw(), help="Raw science exposures."),
        Need("bias", "bias", valid_at(), help="Master bias.", unless=bias_is_in_the_dark),
        Need("dark", "dark", valid_at(), optional=True, help="Dark current."),
        Need("flat", "flat", valid_at(), help="Master flat."),
        Need("hotpix", "hotpix", valid_at(), optional=True, help="Hot pixels."),
        Need("coldpix", "coldpix", valid_at(), optional=True, help="Cold pixels."),
        Need(
            "fringe",
            "fringe",
            valid_at(),
            optional=True,
            on_request=True,
            help="Fringes of the night sky.",
        ),
        Need("gain", "gain", valid_at(), optional=True, help="Gain of the amplifiers."),
        Need("readnoise", "readnoise", valid_at(), optional=True, help="Read noise of the amplifiers."),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=["sections", "gain_e_adu", "read_noise_adu", "saturation_adu", "nonlinear_adu", "exptime_s"],
    validity=None,
    params=ReducedParams,
    measures=[
        Measure("sky_adu", "Median of the smooth sky."),
        Measure("sky_rms_adu", "Clipped standard deviation about the smooth sky."),
        Measure("fringe_adu", "Amplitude (rms) of the fringes that were subtracted."),
        Measure("saturated_pixels", "Number of saturated pixels, with their bleeding and neighbours."),
        Measure("nonlinear_pixels", "Number of pixels whose counts are beyond the linear range."),
        Measure("hot_pixels", "Number of hot pixels."),
        Measure("cold_pixels", "Number of cold pixels."),
        Measure("cosmic_pixels", "Number of pixels hit by cosmic rays."),
        Measure("trail_pixels", "Number of pixels under trails."),
        Measure("trails", "Number of trails of satellites and aeroplanes."),
        Measure("uncalibrated_pixels", "Number of pixels without data or calibration."),
        Measure("overscan_level_adu", "Mean level of the overscan."),
        Measure("overscan_slope_adu", "Mean change of the overscan from the first row to the last."),
        Measure("overscan_noise_adu", "Mean noise of an overscan pixel."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_reduced,
    revision=3,
    example="ls raw/*.fits | awe-reduce --bias bias.fits --flat flat_R.fits --out-dir reduced",
)
