"""What a coadd is made of: frames whose rows are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture
from ..fits import FitsFile
from ..pixels.illumination import Illumination
from ..pixels.mask import Bit, bad
from ..pixels.smooth import Blocks, block_statistics, fill_gaps, interpolate_blocks, median_filter
from ..sky.wcs import Wcs

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Masks = npt.NDArray[np.int16]
Shape = tuple[int, int]
Planes = tuple[Floats, Floats, Masks | None]
# Of a frame: left, right, bottom, top.
Edges = tuple[int, int, int, int]
ReadRows = Callable[[int, int], Planes]

# The zero point of a coadd: the magnitude of 1 ADU/s.
ZERO_POINT_MAG = 30.0
# Of larger blocks of the sky so many rows count.
SKY_ROWS = 64


@dataclass(frozen=True)
class MeshSky:
    """A smooth sky: values of blocks, interpolated when rows are asked for."""

    coarse: Doubles
    blocks: Blocks
    width: int

    def rows(self, first: int, last: int) -> Floats:
        """The sky in rows first to last, the same bits however many are asked for."""
        here = replace(self.blocks, y=self.blocks.y - first)
        return interpolate_blocks(self.coarse, here, (last - first, self.width))


@dataclass(frozen=True, eq=False)
class CoaddFrame:
    """A reduced frame. ``read``(first, last) gives rows of its pixels, weight and mask (or None for a mask).

    Weights are inverse variances of the background, 0 where a pixel is bad, in the unit of the
    pixels. ``scale``: what values are multiplied by, see :func:`flux_scale`. ``sky``: what is
    subtracted before, in the unit of the pixels. ``scale_error``: the relative error of the scale, None where
    it is not known and only a start for what pixels say (`scaling`). ``unit`` is compared with those of the other
    frames, ``zeropoint_mag`` with those of the same ``camera``. ``gridded``: its pixels are those of a grid
    already, and taken as they are;
    ``noise_ratio`` is then the noise of one of them over what its weight says. ``unfit``: why it is to be left
    out, if that is known, and ``remedy`` what helps. ``illumination``: what is still wrong in its flat.
    ``edges_px``: columns at the left and the right, rows at the bottom and the top that are not used. ``read``
    may be called by several threads at once.
    """

    name: str
    shape: Shape
    wcs: Wcs
    read: ReadRows = field(repr=False)
    scale: float = 1.0
    sky: float | MeshSky = 0.0
    unit: str = "adu"
    zeropoint_mag: float | None = None
    camera: str = ""
    scale_error: float | None = None
    gridded: bool = False
    noise_ratio: float = 1.0
    unfit: str = ""
    remedy: str = ""
    illumination: Illumination | None = None
    edges_px: Edges = (0, 0, 0, 0)

    def rows(self, first: int, last: int) -> Planes:
        """Rows less the sky, corrected; arrays of their own."""
        data, weight, mask = self.read(first, last)
        level = self.sky.rows(first, last) if isinstance(self.sky, MeshSky) else np.float32(self.sky)
        data = np.subtract(data, level, dtype=np.float32)
        if self.illumination is not None:
            weight = self.illumination.correct(data, weight, first)
        if any(self.edges_px):
            weight, mask = self._within(first, weight, mask)
        return data, weight, mask

    def _within(self, first: int, weight: Floats, mask: Masks | None) -> tuple[Floats, Masks]:
        """Weight and mask of rows, without the edges of the frame."""
        left, right, bottom, top = self.edges_px
        rows = np.arange(first, first + len(weight))
        outside = np.ones(weight.shape, bool)
        inside = (rows >= bottom) & (rows < self.shape[0] - top)
        outside[inside, left : max(left, self.shape[1] - right)] = False
        marks = np.zeros(weight.shape, np.int16) if mask is None else mask
        # Whatever else a pixel there is, it is not of the frame: else hot ones would show where no frame is.
        marks = np.where(outside, np.int16(Bit.OUTSIDE), marks).astype(np.int16)
        return np.where(outside, np.float32(0), weight), marks


def frame_of_arrays(
    name: str, wcs: Wcs, data: Floats, weight: Floats | float, mask: Masks | None = None, **more: object
) -> CoaddFrame:
    """A frame in memory; further arguments are those of `CoaddFrame`. Mixture if shapes differ."""
    for plane in (weight, mask):
        if isinstance(plane, np.ndarray) and plane.shape != data.shape:
            raise Mixture(f"{name}: a plane of shape {plane.shape} for an image of {data.shape}")
    width = data.shape[1]

    def read(first: int, last: int) -> Planes:
        rows = slice(first, last)
        own = (
            weight[rows]
            if isinstance(weight, np.ndarray)
            else np.full((last - first, width), weight, np.float32)
        )
        return data[rows], own, None if mask is None else mask[rows]

    return CoaddFrame(name, (data.shape[0], width), wcs, read, **more)  # type: ignore[arg-type]


def frame_of_fits(
    name: str, fits: FitsFile, wcs: Wcs, weight: FitsFile | None = None, **more: object
) -> CoaddFrame:
    """A product as a frame: its first image, its planes WEIGHT and MASK, read row by row.

    ``weight``: another file whose first image is the weight. The files stay open as long as the
    frame is used. Mixture where there is no weight, or shapes differ.
    """
    images = [one for one in fits.hdus if one.is_image]
    named = {one.name: (fits, one) for one in images}
    if weight is not None:
        named["WEIGHT"] = weight, next(one for one in weight.hdus if one.is_image)
    if not images or "WEIGHT" not in named:
        raise Mixture(f"{fits.path}: a coadd needs an image and its WEIGHT")
    first, places = images[0], [named["WEIGHT"], named.get("MASK")]
    for place in places:
        if place is not None and place[1].shape != first.shape:
            raise Mixture(f"{place[1].where}: of shape {place[1].shape}, its image of {first.shape}")

    def read(begin: int, end: int) -> Planes:
        (file, own), marked = named["WEIGHT"], named.get("MASK")
        data = fits.rows(first.index, begin, end).astype(np.float32, copy=False)
        weights = file.rows(own.index, begin, end).astype(np.float32, copy=False)
        mask = (
            None
            if marked is None
            else marked[0].rows(marked[1].index, begin, end).astype(np.int16, copy=False)
        )
        return data, weights, mask

    return CoaddFrame(name, (first.shape[0], first.shape[1]), wcs, read, **more)  # type: ignore[arg-type]


def flux_scale(zeropoint_mag: float, exptime_s: float) -> float:
    """What ADU of an exposure are multiplied by to get ADU/s of zero point 30 mag.

    zeropoint_mag: the magnitude of 1 ADU/s. BadValue for what is not finite or not above 0.
    """
    if not (np.isfinite(zeropoint_mag) and np.isfinite(exptime_s) and exptime_s > 0):
        raise BadValue(
            f"a zero point of {zeropoint_mag} mag and an exposure of {exptime_s} s have no flux scale"
        )
    return float(10 ** (0.4 * (ZERO_POINT_MAG - zeropoint_mag)) / exptime_s)


def mesh_sky(frame: CoaddFrame, size_px: int = 256) -> MeshSky:
    """The smooth sky of a frame (of its pixels as they are read), in blocks of about this size.

    As `smooth.background`, but 64 rows of a block count: at 256 pixels the sky is good to 0.007 of the
    noise of a pixel. The frame is read whole. BadPixels if no block has enough good pixels.
    """
    data, weight, mask = frame.read(0, frame.shape[0])
    use = weight > 0
    if mask is not None:
        use &= ~bad(mask)
    size = max(2, min(size_px, *frame.shape))
    blocks = block_statistics(data, use, size, step=max(1, size // SKY_ROWS))
    return MeshSky(median_filter(fill_gaps(blocks.mode)), blocks, frame.shape[1])
