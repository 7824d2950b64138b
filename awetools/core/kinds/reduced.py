"""Reduced frame: a science exposure free of the detector's signature, with weight and mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadHeader, BadPixels
from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, raw, valid_at
from ..params import param
from .declare import overscan_mode_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, RawFrame, Table


@dataclass(frozen=True)
class ReducedParams:
    """Parameters of `make_reduced`."""

    overscan_mode: str = overscan_mode_param()
    saturation_grow: int = param(
        1, "Neighbours of a saturated pixel that are masked with it.", unit="px", low=0, high=10
    )
    sky_mesh: int = param(64, "Size of the cells in which the smooth sky is measured.", unit="px", low=8)


def make_reduced(
    raw: RawFrame,
    bias: Frame | None,
    flat: Frame | None,
    hotpix: Frame | None,
    readnoise: Table | None,
    params: ReducedParams,
) -> Result:
    """Take the detector's signature out of one science exposure.

    raw: the exposure, ADU. bias: SCI (ADU). flat: SCI of mean 1. hotpix: MASK.
    readnoise: a row an amplifier. Overscan, trimming, bias and flat in this order.
    Returns SCI (ADU, the sky is left in), WEIGHT (ADU^-2, the inverse variance of
    the background, pixels.weight) and MASK (bits 1 hot, 4 saturated, 32 no data,
    512 not calibrated). SCI keeps its value under the mask; where it is not finite
    it is 0. Raises BadHeader (no exposure time, gain or read
    noise), BadPixels (nothing left).
    """
    import numpy as np

    from ..pixels.mask import Bit, bad
    from ..pixels.smooth import background
    from ..pixels.stats import clipped
    from ..pixels.weight import background_weight
    from .common import READ_NOISE_HINT, amplifier_map, gain_of, read_noise_of, trim

    exptime_s = raw.meta.get("exptime_s")
    if not exptime_s or exptime_s <= 0:
        raise BadHeader(
            f"{raw.meta.get('exposure')}: the exposure time is {exptime_s!r}",
            hint="awe-ingest --set exptime_s=SECONDS FILE",
        )
    amplifiers = raw.amplifiers
    gain = amplifier_map(amplifiers, gain_of(raw.meta, amplifiers), raw.shape)
    values = read_noise_of(readnoise, [bias.meta if bias else {}, raw.meta], amplifiers)
    if values is None:
        raise BadHeader("the read noise is not known", hint=READ_NOISE_HINT)
    read_noise = amplifier_map(amplifiers, values, raw.shape)

    trimmed = trim(raw, params.overscan_mode)
    data = trimmed.image()
    response = np.float32(1) if flat is None else flat.data
    # What is not finite, or leaves the range of the numbers, is masked as no data.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if bias is not None:
            data -= bias.data
        data /= response
    mask = _mask(raw, data, flat, hotpix, params)
    np.nan_to_num(data, copy=False, nan=0, posinf=0, neginf=0)

    use = ~bad(mask)
    if not use.any():
        raise BadPixels(f"{raw.meta.get('exposure')}: no good pixel: all saturated, masked or not finite")
    with np.errstate(over="ignore", invalid="ignore"):
        effective_gain = float(
            np.mean((gain * response)[use] if flat is not None else gain, dtype=np.float64)
        )
    if not np.isfinite(effective_gain):
        raise BadPixels(
            f"{raw.meta.get('exposure')}: the flat has responses that are no numbers where it is not masked",
            hint="awe-imstat shows the flat's pixels",
        )
    sky = background(data, use, params.sky_mesh)
    weight = background_weight(
        sky,
        gain_e_adu=gain,
        read_noise_adu=read_noise,
        flat=flat.data if flat else None,
        bias_weight=bias.weight if bias else None,
        flat_weight=flat.weight if flat else None,
        bad=~use,
    )
    residual = clipped((data - sky)[use])
    return Result(
        planes={"SCI": data, "WEIGHT": weight, "MASK": mask},
        measures={
            "sky_adu": float(np.median(sky[::4, ::4])),
            "sky_rms_adu": residual.stdev,
            "saturated_pixels": int(np.count_nonzero(mask & Bit.SATURATED)),
            "hot_pixels": int(np.count_nonzero(mask & Bit.HOT)),
            "uncalibrated_pixels": int(np.count_nonzero(mask & (Bit.UNCALIBRATED | Bit.OUTSIDE))),
            "overscan_level_adu": trimmed.level_adu,
            "overscan_slope_adu": trimmed.slope_adu,
            "overscan_noise_adu": trimmed.noise_adu,
        },
        meta={
            "gain_e_adu": [round(effective_gain, 6)],
            "read_noise_adu": [round(float(np.mean(values)), 5)],
            "saturation_adu": [_lowest_saturation(raw, bias, trimmed.level_adu)],
        },
        used={}
        if readnoise is not None
        else {"readnoise": "taken from the bias" if bias else "from the camera table"},
    )


def _mask(
    raw: RawFrame, data: np.ndarray, flat: Frame | None, hotpix: Frame | None, params: ReducedParams
) -> np.ndarray:
    import numpy as np

    from ..pixels.mask import Bit
    from ..pixels.saturate import saturated
    from .common import amplifier_map, saturation_of

    mask = np.zeros(raw.shape, dtype=np.int16)
    limit = amplifier_map(raw.amplifiers, saturation_of(raw.meta, raw.amplifiers), raw.shape)
    counts = raw.rows(0, raw.shape[0])
    mask[saturated(counts, limit, params.saturation_grow)] |= Bit.SATURATED
    mask[~np.isfinite(data)] |= Bit.OUTSIDE
    if flat is not None and flat.mask is not None:
        mask |= flat.mask & np.int16(Bit.UNCALIBRATED | Bit.OUTSIDE)
    if hotpix is not None:
        mask |= hotpix.data.astype(np.int16)
    return mask


def _lowest_saturation(raw: RawFrame, bias: Frame | None, overscan_adu: float) -> float | None:
    """The level above zero at which the first amplifier saturates, ADU of the reduced frame."""
    import numpy as np

    from .common import saturation_of

    lowest = min(saturation_of(raw.meta, raw.amplifiers))
    if not np.isfinite(lowest):
        return None
    pedestal = overscan_adu + (float(np.median(bias.data)) if bias else 0.0)
    return round(lowest - pedestal, 1)


REDUCED = Kind(
    name="reduced",
    command="awe-reduce",
    class_name="Reduced",
    summary="Reduce raw science exposures: overscan, trim, bias, flat, masks and weight.",
    description="""One exposure makes one reduced frame: overscan and bias subtracted, divided by the
flat, with a mask of hot, saturated and uncalibrated pixels, and a weight that is the inverse variance of the
background: read noise, smooth sky, and the noise of bias and flat. The sky is left in. Any number of
exposures can be given; each becomes one product.""",
    needs=[
        Need("raw", "raw_science", raw(), help="Raw science exposures."),
        Need("bias", "bias", valid_at(), help="Master bias."),
        Need("flat", "flat", valid_at(), help="Master flat."),
        Need("hotpix", "hotpix", valid_at(), optional=True, help="Hot pixels."),
        Need("readnoise", "readnoise", valid_at(), optional=True, help="Read noise of the amplifiers."),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=["sections", "gain_e_adu", "read_noise_adu", "saturation_adu", "exptime_s"],
    validity=None,
    params=ReducedParams,
    measures=[
        Measure("sky_adu", "Median of the smooth sky."),
        Measure("sky_rms_adu", "Clipped standard deviation about the smooth sky."),
        Measure("saturated_pixels", "Number of saturated pixels, with their neighbours."),
        Measure("hot_pixels", "Number of hot pixels."),
        Measure("uncalibrated_pixels", "Number of pixels without data or calibration."),
        Measure("overscan_level_adu", "Mean level of the overscan."),
        Measure("overscan_slope_adu", "Mean change of the overscan from the first row to the last."),
        Measure("overscan_noise_adu", "Mean noise of an overscan pixel."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_reduced,
    revision=1,
    example="ls raw/*.fits | awe-reduce --bias bias.fits --flat flat_R.fits --out-dir reduced",
)
