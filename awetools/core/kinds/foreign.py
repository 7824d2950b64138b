"""Products of other pipelines: reduced frames, coadds and source lists that become products with a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader, BadPixels, Mixture
from ..foreignnames import COADD_ZERO_POINT_MAG, UNITS, UNKNOWN, WEIGHT_TYPES
from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, raw
from ..masknames import MASK_NAMES
from ..params import param
from .foreignlist import SOURCES

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame

# Weights whose pulls scatter by more than this, either way, are no inverse variances; nor are those
# beyond the closer bound, if the plane fits the noise when it is read in another way.
PULL_TOLERANCE, PULL_DOUBT, PULL_FIT = 4.0, 2.0, 1.25
NANOMAGGY_ZERO_POINT_MAG = 22.5
FLUXES = ("nmgy", "flux")


@dataclass(frozen=True)
class ImportParams:
    """How the planes of a foreign image are read; what is `auto` or `unknown` is resolved from the camera table."""

    unit: str = param("adu", "Unit of the foreign pixels.", choices=UNITS)
    zero_point_mag: str = param(
        UNKNOWN, "Magnitude of one foreign unit, or of one a second where pixels are counts; or unknown."
    )
    weight_type: str = param("none", "What the foreign weight plane is.", choices=WEIGHT_TYPES)
    mask_bits: str = param("", "What the bits of the foreign mask mean, as 1:hot,2:saturated.")
    mask_codes: str = param("", "What the codes of the foreign mask mean, as 1:hot,3:saturated.")
    sky_mesh: int = param(64, "Size of the cells in which the smooth sky is measured.", unit="px", low=8)


@dataclass(frozen=True)
class Scale:
    """From foreign pixels to ours: the factor, our zero point, and the gain in our unit."""

    factor: float
    zero_point_mag: float | None
    gain_e_adu: float | None


def import_reduced(foreign: Frame, weight: Frame | None, mask: Frame | None, params: ImportParams) -> Result:
    """A reduced frame of another pipeline in ADU, with inverse variance and our mask bits.

    foreign: the image. weight, mask: its planes. Counts/s become counts of the whole
    exposure; electrons are kept as they are, at a gain of 1 e/ADU. Returns SCI, WEIGHT
    and MASK as `make_reduced` does. Raises Mixture (shapes), BadHeader (no exposure time
    for a rate), BadPixels (weights that cannot be, nothing left).
    """
    return _import_image(foreign, weight, mask, params, _scale_of_exposure(foreign.meta, params))


def import_coadd(foreign: Frame, weight: Frame | None, mask: Frame | None, params: ImportParams) -> Result:
    """A coadd of another pipeline in ADU/s, scaled to a zero point of 30 mag where its own is known.

    foreign: the image. weight, mask: its planes. Returns SCI, WEIGHT and MASK; raises
    as `import_reduced`.
    """
    return _import_image(foreign, weight, mask, params, _scale_of_rate(foreign.meta, params), coadd=True)


def _scale_of_exposure(meta: Mapping[str, Any], params: ImportParams) -> Scale:
    """To the counts of the whole exposure; magnitude = zero point - 2.5 log10(ADU/s)."""
    gain = _gain(meta)
    zero_point = _zero_point(params)
    if params.unit in FLUXES:
        # Stacks have no exposure time of their own: what they are is counts of one second.
        seconds = float(meta.get("exptime_s") or 0) or 1.0
        bright = 10 ** (0.4 * (COADD_ZERO_POINT_MAG - _of_flux(params)))
        return Scale(bright * seconds, COADD_ZERO_POINT_MAG, None)
    seconds = _exptime_s(meta, params.unit) if params.unit in ("adu/s", "e/s") else 1.0
    return Scale(seconds, zero_point, 1.0 if params.unit in ("e", "e/s") else gain)


def _scale_of_rate(meta: Mapping[str, Any], params: ImportParams) -> Scale:
    """To ADU/s at a zero point of 30 mag, where the foreign one is known."""
    gain, zero_point = _gain(meta), _zero_point(params)
    seconds = _exptime_s(meta, params.unit) if params.unit in ("adu", "e") else 1.0
    if params.unit in FLUXES:
        zero_point, gain = _of_flux(params), None
    if params.unit in ("e", "e/s"):
        gain = 1.0
    if params.unit in ("adu/s", "e/s"):
        # One a second is as many as there were seconds.
        gain = None if gain is None else gain * float(meta.get("exptime_s") or 0) or None
    factor = 1 / seconds
    if zero_point is None:
        return Scale(factor, None, None if gain is None else gain / factor)
    factor *= 10 ** (0.4 * (COADD_ZERO_POINT_MAG - zero_point))
    return Scale(factor, COADD_ZERO_POINT_MAG, None if gain is None else gain / factor)


def _of_flux(params: ImportParams) -> float:
    return NANOMAGGY_ZERO_POINT_MAG if params.unit == "nmgy" else float(params.zero_point_mag)


def _gain(meta: Mapping[str, Any]) -> float | None:
    values = meta.get("gain_e_adu")
    return float(values[0]) if values and len(values) == 1 and values[0] else None


def _zero_point(params: ImportParams) -> float | None:
    return None if params.zero_point_mag == UNKNOWN else float(params.zero_point_mag)


def _exptime_s(meta: Mapping[str, Any], unit: str) -> float:
    seconds = meta.get("exptime_s")
    if not seconds or seconds <= 0:
        raise BadHeader(
            f"{meta.get('exposure')}: pixels in {unit} need an exposure time, and it is {seconds!r}",
            hint="--set exptime_s=SECONDS",
        )
    return float(seconds)


def _import_image(
    foreign: Frame,
    weight: Frame | None,
    mask: Frame | None,
    params: ImportParams,
    scale: Scale,
    coadd: bool = False,
) -> Result:
    import numpy as np

    from ..pixels.foreign import background_weight, blank_edges, good_pixels, pull_sigma, smooth_sky
    from ..pixels.mask import Bit
    from ..pixels.stats import clipped

    _check_shapes(foreign, weight, mask)
    with np.errstate(over="ignore", invalid="ignore"):
        data = (foreign.data.astype(np.float64) * scale.factor).astype(np.float32)
    bits = _mask(mask, data.shape, params)
    bits[~np.isfinite(data)] |= Bit.OUTSIDE
    edges = blank_edges(foreign.data) if weight is None else np.zeros(data.shape, dtype=np.bool_)
    bits[edges] |= Bit.OUTSIDE
    np.nan_to_num(data, copy=False, nan=0, posinf=0, neginf=0)
    flux = params.unit in FLUXES
    saturation = _saturation(foreign.meta, scale.factor if coadd or flux else 1.0)
    if mask is None and saturation is not None:
        bits[data >= saturation] |= Bit.SATURATED
    inverse, dropped = _inverse(weight, bits, params, scale.factor, Bit.OUTSIDE if coadd else Bit.USER)
    use = good_pixels(bits)
    if not use.any():
        raise BadPixels(
            f"{foreign.meta.get('exposure')}: no good pixel: {_counted(bits)}",
            hint="--mask-bits, or --mask none" if mask is not None else "awe-imstat shows its pixels",
        )
    sky = smooth_sky(data, use, params.sky_mesh)
    residual = clipped((data - sky)[use])
    inverse, said = _true_weight(_Background(data, sky, use, scale.factor), inverse, params, weight)
    inverse, slope = background_weight(data, sky, inverse, params.sky_mesh)
    if slope is not None:
        told = f"the noise of the sources taken out of it ({1 / slope:.3g} e/ADU)"
        said = f"{said}; {told}" if said else told
    used = {"weight": said} if said else {}
    if notes := _notes_on_mask(mask, params, dropped, int(np.count_nonzero(edges))):
        used["mask"] = "; ".join(notes)
    return Result(
        planes={"SCI": data, "WEIGHT": inverse, "MASK": bits},
        measures={
            "sky_adu": float(np.median(sky[use])),
            "sky_rms_adu": residual.stdev,
            "saturated_pixels": int(np.count_nonzero(bits & Bit.SATURATED)),
            "masked_pixels": int(np.count_nonzero(~use)),
            "weight_pull_sigma": pull_sigma(data, sky, inverse),
            **({"exposure_s": foreign.meta.get("exptime_s")} if coadd else {}),
        },
        meta={
            "gain_e_adu": _listed(scale.gain_e_adu),
            "saturation_adu": _listed(saturation),
            "overscan_mode": "none",
            **_zero_point_fields(scale.zero_point_mag, foreign.meta),
            # Pixels of a coadd are rates.
            **({"exptime_s": 1.0} if coadd or (flux and not foreign.meta.get("exptime_s")) else {}),
        },
        used=used,
    )


def _zero_point_fields(zeropoint_mag: float | None, meta: Mapping[str, Any]) -> dict[str, object]:
    if zeropoint_mag is None:
        return {}
    # A magnitude without a band is one all the same: no band at all would say that it is relative.
    return {"zeropoint_mag": zeropoint_mag, "zeropoint_band": meta.get("filter") or "unknown"}


def _counted(bits: np.ndarray) -> str:
    """How many pixels have which bit, in words."""
    import numpy as np

    counts = {name: int(np.count_nonzero(bits & np.int16(bit))) for name, bit in MASK_NAMES.items()}
    return ", ".join(f"{count} of {bits.size} are {name}" for name, count in counts.items() if count)


def _notes_on_mask(mask: Frame | None, params: ImportParams, dropped: int, blank: int) -> list[str]:
    notes = []
    if mask is not None and not (params.mask_bits or params.mask_codes):
        notes.append("nothing says what its numbers mean (--mask-bits, --mask-codes): all are taken as user")
    if blank:
        notes.append(f"{blank} pixels at the edges have one value and are taken as outside")
    if dropped:
        notes.append(f"{dropped} pixels without weight that no mask names")
    return notes


def _listed(value: float | None) -> list[float] | None:
    """A value of the one amplifier that an assembled frame has, at the digits that mean something."""
    return None if value is None else [float(f"{value:.9g}")]


def _check_shapes(foreign: Frame, weight: Frame | None, mask: Frame | None) -> None:
    ny, nx = foreign.data.shape
    for role, plane in (("weight", weight), ("mask", mask)):
        if plane is not None and plane.data.shape != (ny, nx):
            rows, columns = plane.data.shape
            raise Mixture(f"the {role} is {columns} x {rows} pixels, but the image is {nx} x {ny}")


def _mask(mask: Frame | None, shape: tuple[int, ...], params: ImportParams) -> np.ndarray:
    import numpy as np

    from ..camera_imports import mapping_of
    from ..pixels.foreign import mapped_mask

    if mask is None:
        return np.zeros(shape, dtype=np.int16)
    codes = bool(params.mask_codes)
    meanings = mapping_of(params.mask_codes or params.mask_bits, "mask", bits=not codes)
    return mapped_mask(mask.data, meanings, bits=not codes)


def _saturation(meta: Mapping[str, Any], factor: float) -> float | None:
    values = [float(value) for value in meta.get("saturation_adu") or [] if value]
    return min(values) * factor if values else None


def _inverse(
    weight: Frame | None, bits: np.ndarray, params: ImportParams, factor: float, unnamed: int
) -> tuple[np.ndarray, int]:
    """The weight in our unit, 0 where masked; pixels without weight get the bit `unnamed` where they have none."""
    import numpy as np

    from ..pixels.foreign import good_pixels, inverse_variance

    if weight is None or params.weight_type == "none":
        return good_pixels(bits).astype(np.float32), 0
    inverse = inverse_variance(weight.data, params.weight_type, factor)
    without = (inverse <= 0) & good_pixels(bits)
    bits[without] |= np.int16(unnamed)
    inverse[~good_pixels(bits)] = 0
    return inverse, int(np.count_nonzero(without))


@dataclass(frozen=True)
class _Background:
    """What weights are compared with: the image in our unit, its sky, which pixels count, the factor to our unit."""

    data: np.ndarray
    sky: np.ndarray
    use: np.ndarray
    factor: float


def _true_weight(
    image: _Background, inverse: np.ndarray, params: ImportParams, weight: Frame | None
) -> tuple[np.ndarray, str]:
    """Weights at the scale of the background's own noise, and what was done; raises BadPixels if they cannot be."""
    import numpy as np

    from ..pixels.foreign import pull_sigma

    measured = pull_sigma(image.data, image.sky, inverse)
    if weight is None or params.weight_type in ("none", "relative"):
        if not np.isfinite(measured) or measured <= 0:
            raise BadPixels("the background is constant, so its noise cannot stand in for a weight")
        what = "relative weights" if weight is not None and params.weight_type == "relative" else "no weights"
        text = f"{what}: scaled by {1 / measured**2:.6g} to the noise of the background"
        return _scaled(inverse, measured), text
    if not np.isfinite(measured) or _misfit(measured) <= PULL_DOUBT:
        return inverse, ""
    convention, pulls = _fitting(image, weight)
    fits = _misfit(pulls) <= PULL_FIT and convention != params.weight_type
    if fits or _misfit(measured) > PULL_TOLERANCE:
        raise BadPixels(
            f"read as {params.weight_type}, the weight plane makes the background scatter by {measured:.3g} "
            f"sigma instead of 1{f'; as {convention} by {pulls:.3g}' if fits else ''}",
            hint=f"--weight-type {convention if fits else 'relative'}",
        )
    return inverse, ""


def _scaled(inverse: np.ndarray, noise: float) -> np.ndarray:
    """Weights divided by the variance of the background; raises BadPixels where no float32 holds them."""
    import numpy as np

    scaled = inverse.astype(np.float64) / noise**2
    if scaled.max() > np.finfo(np.float32).max or scaled.max() < np.finfo(np.float32).tiny:
        raise BadPixels(
            f"the background scatters by {noise:.3g} in the unit of the product, so that weights of about "
            f"{scaled.max():.3g} would be needed: is the unit, or the exposure time, right?",
            hint="--unit, --set exptime_s=SECONDS, --zero-point",
        )
    return scaled.astype(np.float32)


def _misfit(pulls: float) -> float:
    """By which factor pulls scatter too much or too little."""
    return max(pulls, 1 / pulls) if pulls > 0 else float("inf")


def _fitting(image: _Background, weight: Frame) -> tuple[str, float]:
    """The convention under which a weight plane fits the noise best, and its pulls."""
    import numpy as np

    from ..pixels.foreign import inverse_variance, pull_sigma

    found = {}
    for convention in ("weight", "variance", "rms"):
        try:
            inverse = inverse_variance(weight.data, convention, image.factor)
        except BadPixels:
            # Read in this way no number of the plane is a weight.
            continue
        used = np.where(image.use, inverse, 0).astype(np.float32)
        found[convention] = pull_sigma(image.data, image.sky, used)
    best = min(found, key=lambda name: _misfit(found[name]))
    return best, found[best]


IMAGE_NEEDS = (
    Need("foreign", "foreign", raw(), help="Image of another pipeline."),
    Need("weight", "foreign", raw(), optional=True, help="Its weight, variance or rms."),
    Need("mask", "foreign", raw(), optional=True, help="Its quality mask."),
)
IMAGE_MEASURES = (
    Measure("sky_adu", "Median of the smooth sky."),
    Measure("sky_rms_adu", "Clipped standard deviation about the smooth sky."),
    Measure("saturated_pixels", "Number of saturated pixels."),
    Measure("masked_pixels", "Number of pixels that must not be used."),
    Measure(
        "weight_pull_sigma",
        "Clipped rms of the background times the root of the weight; 1 where weights are true.",
    ),
)

REDUCED = Kind(
    name="reduced",
    command="awe-import",
    class_name="ImportedReduced",
    summary="A reduced frame of another pipeline.",
    description="In ADU of the whole exposure, with inverse variance and our mask bits.",
    needs=IMAGE_NEEDS,
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=["gain_e_adu", "saturation_adu", "exptime_s"],
    validity=None,
    params=ImportParams,
    measures=IMAGE_MEASURES,
    limits=[Limit("good_fraction", low=0.5)],
    recipe=import_reduced,
    revision=3,
)

COADD = Kind(
    name="coadd",
    command="awe-import",
    class_name="Coadd",
    summary="A coadd of another pipeline.",
    description="In ADU/s, at a zero point of 30 mag where its own is known.",
    needs=IMAGE_NEEDS,
    match=("instrument", "detector", "nx", "ny", "filter"),
    group=["exposure"],
    reads=["gain_e_adu", "saturation_adu", "exptime_s"],
    validity=None,
    params=ImportParams,
    measures=(*IMAGE_MEASURES, Measure("exposure_s", "Exposure time that the header says.")),
    limits=[],
    recipe=import_coadd,
    revision=3,
    unit="adu/s",
)

# What awe-import makes; its kinds share their names with what awetools makes itself.
IMPORTS: tuple[Kind, ...] = (REDUCED, COADD, SOURCES)
