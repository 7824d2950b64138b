"""Master flat: what a science frame is divided by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadPixels, UsageError
from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, nights, valid_at
from ..params import param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame

GRADIENT_SCALE_PX = 64
# A pixel whose ratio is this far from the smooth one says nothing of the illumination.
RATIO_CLIP_SIGMA = 5.0


@dataclass(frozen=True)
class FlatParams:
    """Parameters of `make_flat`."""

    min_response: float = param(
        0.1, "Pixels whose response is below this fraction of the mean are not calibrated.", low=0, high=1
    )
    illumination_scale_px: int = param(
        96,
        "What is larger than this comes from the sky (twilight or night), what is smaller from the dome flat.",
        unit="px",
        low=1,
    )


def make_flat(
    *,
    domeflat: Frame | None = None,
    twiflat: Frame | None = None,
    nightflat: Frame | None = None,
    coldpix: Frame | None = None,
    params: FlatParams,
) -> Result:
    """Combine flats into the one that has the pixels of the lamp and the illumination of the sky.

    domeflat: SCI, weight and mask, the single pixels. twiflat: the same; gives the
    illumination, and the single pixels where there is no dome flat. nightflat: the same;
    takes the place of the twilight flat for the illumination where it is given. coldpix:
    MASK, whose bit 2 is passed on. The flat is that of the single pixels times the low-pass of its
    ratio to the one of the illumination, in which the amplifiers' gains cancel, so that their
    borders do not ring; the low-pass mirrors its edges, keeps a plane, and is
    repeated on what it leaves, so that it follows curvature. With one of them alone, that
    one. Returns SCI (mean 1 per detector over the good pixels, so that it holds the ratios of the
    amplifiers' gains), WEIGHT (inverse variance) and MASK; pixels below min_response get
    the value 1, weight 0 and bit 512. Raises BadPixels where nothing is left.
    """
    import numpy as np

    from ..pixels.mask import Bit
    from .common import gradient_of
    from .exposures import smooth_range

    fine, broad, used = _roles(domeflat, twiflat, nightflat)
    mask = np.zeros(fine.data.shape, np.int16) if fine.mask is None else fine.mask.copy()
    if coldpix is not None:
        mask |= coldpix.data.astype(np.int16) & np.int16(Bit.COLD)
    usable = _good(fine, params.min_response)
    data, amplitude = fine.data, None
    if broad is not None:
        illumination = _illumination(fine, broad, usable & (mask & Bit.COLD == 0), params)
        data, amplitude = fine.data * illumination, gradient_of(illumination)
    good = usable & (mask & Bit.COLD == 0)
    if not good.any():
        raise BadPixels("the flats have no good pixel")
    mean = float(np.mean(data[good], dtype=np.float64))
    data = np.where(usable, data / np.float32(mean), np.float32(1)).astype(np.float32)
    mask[~usable] |= Bit.UNCALIBRATED
    weight = _weight(fine, data, good)
    return Result(
        planes={"SCI": data, "WEIGHT": weight, "MASK": mask},
        measures={
            "mean": float(np.mean(data[good], dtype=np.float64)),
            "min_response": float(data[good].min()),
            "max_response": float(data[good].max()),
            "gradient_fraction": smooth_range(data, good, GRADIENT_SCALE_PX),
            "illumination_fraction": amplitude,
            "cold_pixels": int(np.count_nonzero(mask & Bit.COLD)),
            "uncalibrated_fraction": 1 - np.count_nonzero(usable) / data.size,
        },
        used=used | _dead_amplifiers(fine, usable),
    )


def _roles(
    domeflat: Frame | None, twiflat: Frame | None, nightflat: Frame | None
) -> tuple[Frame, Frame | None, dict[str, str]]:
    """The flat of the single pixels, that of the illumination where it is another, and what is to be said."""
    fine = domeflat or twiflat or nightflat
    if fine is None:
        raise UsageError(
            "a master flat needs a dome, twilight or night flat",
            hint="--domeflat FILE, --twiflat FILE or --nightflat FILE",
        )
    broad = nightflat or twiflat
    if broad is fine:
        broad = None
    used = {}
    if broad is nightflat and twiflat is not None and twiflat is not fine:
        used["twiflat"] = "not used: the night flat gives the illumination"
    return fine, broad, used


def _good(flat: Frame, min_response: float) -> np.ndarray:
    """True where a flat has weight and a response above a fraction of its mean."""
    import numpy as np

    good: np.ndarray = flat.data > 0 if flat.weight is None else flat.weight > 0
    if not good.any():
        raise BadPixels("a flat has no good pixel")
    mean = float(np.mean(flat.data[good], dtype=np.float64))
    if not mean > 0:
        raise BadPixels(f"a flat has no signal: its mean is {mean:g}")
    good = good & (flat.data > min_response * mean)
    if not good.any():
        raise BadPixels(f"a flat has no pixel above min_response = {min_response:g} of its mean, {mean:g}")
    return good


def _illumination(fine: Frame, broad: Frame, usable: np.ndarray, params: FlatParams) -> np.ndarray:
    """The smooth ratio of two flats (ny, nx), of mean 1 where both are good; made in cells of 4 pixels."""
    import numpy as np

    from ..pixels.objects import cells_of, over_pixels
    from ..pixels.smooth import lowpass
    from ..pixels.stats import clipped

    use = usable & _good(broad, params.min_response)
    if not use.any():
        raise BadPixels("the flats of the pixels and of the illumination share no good pixel")
    cells = cells_of(np.divide(broad.data, fine.data, out=np.ones_like(fine.data), where=use), use)
    ratio, good = cells.mean, cells.count > 0
    scale = max(1, params.illumination_scale_px // cells.size)
    rest = ratio - lowpass(ratio, good, scale)
    inner = clipped(rest[good])
    if inner.stdev > 0:
        good &= np.abs(rest - np.float32(inner.median)) <= np.float32(RATIO_CLIP_SIGMA * inner.stdev)
    smooth = lowpass(ratio, good, scale)
    # What one pass leaves of a curved surface the second adds.
    smooth += lowpass(ratio - smooth, good, scale)
    return over_pixels(cells, smooth / np.float32(np.mean(smooth[good], dtype=np.float64)))


def _weight(fine: Frame, data: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Inverse variance of the flat: that of the single pixels, scaled as their values were."""
    import numpy as np

    before = np.ones_like(data) if fine.weight is None else fine.weight
    scale = np.divide(fine.data, data, out=np.ones_like(data), where=good)
    weight: np.ndarray = np.where(good, before * np.square(scale), np.float32(0)).astype(np.float32)
    return weight


def _dead_amplifiers(fine: Frame, usable: np.ndarray) -> dict[str, str]:
    """A sentence for each amplifier without a usable pixel."""
    from .common import amplifiers_of

    found = {}
    for amp in amplifiers_of(fine):
        box = usable[amp.target.y0 : amp.target.y1, amp.target.x0 : amp.target.x1]
        if not box.any():
            found[f"amplifier {amp.name}"] = "has no signal and is masked as not calibrated"
    return found


FLAT = Kind(
    name="flat",
    command="awe-flat",
    class_name="Flat",
    summary="Make the master flat that science frames are divided by.",
    description="""A lamp shows the single pixels well but lights the detector unevenly; the sky lights it
as it does the science frames. The flat is the dome flat times the smooth ratio of the twilight flat to it;
a night flat takes the place of the twilight flat where it is given; one of the three alone serves too. It is
normalised to mean 1 over the good pixels of the detector and keeps the ratios of the amplifiers' gains, so
that after the division the whole detector has one effective gain. Pixels with hardly any response are
marked as not calibrated, cold ones as cold.""",
    needs=[
        Need("domeflat", "domeflat", valid_at(), lead=True, optional=True, help="Dome flat."),
        Need("twiflat", "twiflat", valid_at(), lead=True, optional=True, help="Twilight flat."),
        Need(
            "nightflat",
            "nightflat",
            valid_at(),
            lead=True,
            optional=True,
            on_request=True,
            help="Flat of the night sky.",
        ),
        Need("coldpix", "coldpix", valid_at(), optional=True, help="Cold pixels, passed on in the mask."),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["night"],
    reads=[],
    validity=nights(before=0, after=0),
    params=FlatParams,
    measures=[
        Measure("mean", "Mean over the good pixels."),
        Measure("min_response", "Lowest response of a good pixel."),
        Measure("max_response", "Highest response of a good pixel."),
        Measure("gradient_fraction", "Range of the smoothed flat, 1st to 99th percentile."),
        Measure(
            "illumination_fraction",
            "Range of the smooth ratio of sky to lamp, 1st to 99th percentile; null with one flat alone.",
        ),
        Measure("cold_pixels", "Number of cold pixels in the mask."),
        Measure("uncalibrated_fraction", "Fraction of the pixels without a usable response."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_flat,
    revision=2,
    unit="",
    example="awe-flat -o flat_R.fits domeflat_R.fits",
)
