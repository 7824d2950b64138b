"""Resampling: polynomials come back, stars keep flux and place, strips and twins have the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadValue, Mixture
from awetools.core.pixels.fillsmall import FILLED_WEIGHT, fill_small
from awetools.core.pixels.kernels import SWITCH, kernel
from awetools.core.pixels.mask import Bit
from awetools.core.pixels.resample import TAPS, Resampled, input_rows, kernel_for, resample, tables

Array = npt.NDArray[Any]
SHAPE = (60, 70)
INTERPOLATING = [name for name in TAPS if name != "area"]


class Affine:
    """Places x = a i + b j + c: a map that needs no sky."""

    def __init__(
        self, shape: tuple[int, int], matrix: Any = ((1, 0), (0, 1)), offset: Any = (0.0, 0.0)
    ) -> None:
        self.shape, self.matrix, self.offset = shape, np.array(matrix, float), offset
        self.window = (0, shape[0]), (0, shape[1])

    def at(self, rows: tuple[int, int], columns: tuple[int, int], shift: float = 0.0) -> tuple[Array, Array]:
        y, x = np.mgrid[rows[0] : rows[1], columns[0] : columns[1]] + shift
        (a, b), (c, d) = self.matrix
        return a * x + b * y + self.offset[0], c * x + d * y + self.offset[1]

    def corners(self, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[Array, Array]:
        return self.at((rows[0], rows[1] + 1), (columns[0], columns[1] + 1), -0.5)

    def areas(self, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
        area = abs(np.linalg.det(self.matrix))
        return np.full((rows[1] - rows[0], columns[1] - columns[0]), area)


def turned(degrees: float, scale: float = 1.0, shape: tuple[int, int] = SHAPE, flip: bool = False) -> Affine:
    """A turn about the middle of an image of SHAPE."""
    angle = np.radians(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        matrix[:, 0] *= -1
    middle, own = np.array([SHAPE[1] - 1, SHAPE[0] - 1]) / 2, np.array([shape[1] - 1, shape[0] - 1]) / 2
    return Affine(shape, matrix, middle - matrix @ own)


def star(x: Array, y: Array, fwhm: float) -> Array:
    return np.exp(-4 * np.log(2) * (x * x + y * y) / fwhm**2)


def field(fwhm: float = 3.5, shape: tuple[int, int] = SHAPE) -> Array:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (1000 * star(x - shape[1] / 2 + 0.3, y - shape[0] / 2 + 0.1, fwhm)).astype(np.float32)


def both(make: Callable[[], Resampled]) -> tuple[Resampled, Resampled]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SWITCH, raising=False)
        compiled = make()
        patch.setenv(SWITCH, "numpy")
        return compiled, make()


def assert_same(one: Resampled, other: Resampled) -> None:
    for name, a, b in zip(one._fields, one, other, strict=True):
        if a is None or b is None:
            assert a is b
            continue
        known = ~np.isnan(a)
        assert (known == ~np.isnan(b)).all(), name
        assert a[known].tobytes() == b[known].tobytes(), name


@pytest.mark.usefixtures("each_kernel")
class TestValues:
    """What resampling gives; with the kernel and with its twin."""

    @pytest.mark.parametrize("name", TAPS)
    def test_a_constant_comes_back(self, name: str) -> None:
        image = np.full(SHAPE, 123.5, np.float32)
        made = resample(image, turned(10), kernel_name=name)
        inside = made.weight > 0
        assert 0.5 < inside.mean() < 1
        np.testing.assert_allclose(made.data[inside], 123.5, rtol=2e-6)
        assert (made.mask[inside] == 0).all()

    @pytest.mark.parametrize(("name", "degree"), [("lagrange6", 5), ("lagrange8", 7), ("bilinear", 1)])
    def test_polynomials_come_back(self, name: str, degree: int) -> None:
        x, y = np.meshgrid(np.linspace(-1, 1, 70), np.linspace(-1, 1, 60))
        image = (100 * (x**degree - 0.5 * y**degree + x + 1)).astype(np.float32)
        places = turned(20, 0.9)
        made = resample(image, places, kernel_name=name)
        px, py = places.at((0, 60), (0, 70))
        px, py = px / 34.5 - 1, py / 29.5 - 1
        truth = 100 * (px**degree - 0.5 * py**degree + px + 1)
        inner = (np.abs(px) < 0.8) & (np.abs(py) < 0.8)
        # A place is off by 1/8192 pixel at most.
        slope = 100 * (degree + 1) / 29.5
        np.testing.assert_allclose(made.data[inner], truth[inner], atol=slope / 8192 + 2e-3 * degree)

    @pytest.mark.parametrize("name", TAPS)
    @pytest.mark.parametrize("flip", [False, True])
    def test_places_that_are_pixels_give_them(self, name: str, flip: bool) -> None:
        image = np.random.default_rng(1).normal(100, 5, SHAPE).astype(np.float32)
        made = resample(image, turned(0, flip=flip), kernel_name=name)
        assert (made.weight == 1).all()
        np.testing.assert_allclose(made.data, image[:, ::-1] if flip else image, rtol=1e-6)

    @pytest.mark.parametrize(("name", "least_px"), [("lagrange6", 8e-4), ("lagrange8", 4e-4), ("area", 0.01)])
    def test_stars_keep_their_flux_and_place(self, name: str, least_px: float) -> None:
        places = turned(33, 0.95, (80, 90))
        made = resample(field(3.9), places, kernel_name=name, conserve="flux").data.astype(float)
        assert made.sum() == pytest.approx(field(3.9).sum(dtype=float), rel=3e-4)
        y, x = np.mgrid[:80, :90]
        centre = places.matrix @ [(made * x).sum(), (made * y).sum()] / made.sum() + places.offset
        assert np.hypot(*(centre - (34.7, 29.9))) < least_px

    def test_areas_keep_flux_whatever_the_scale(self) -> None:
        image = np.random.default_rng(2).normal(10, 1, SHAPE).astype(np.float32)
        for scale in (0.3, 1.0, 4.7):
            side = int(130 / scale)
            places = turned(25, scale, (side, side))
            made = resample(image, places, kernel_name="area", conserve="flux", min_good=1e-6, area=True)
            # What is on the image alone counts at its edges.
            whole = np.ones_like(image)
            on = resample(np.pad(whole, 40), _moved(places, 40), kernel_name="area", conserve="flux").data
            assert made.area is not None
            assert (made.data * (on / made.area)).sum() == pytest.approx(image.sum(dtype=float), rel=1e-4)

    def test_brightness_or_flux(self) -> None:
        image = np.full(SHAPE, 8, np.float32)
        places = turned(0, 0.5, (110, 130))
        bright = resample(image, places, scale=3)
        flux = resample(image, places, scale=3, conserve="flux", area=True)
        np.testing.assert_allclose(bright.data[5:-5, 5:-5], 24, rtol=1e-6)
        np.testing.assert_allclose(flux.data[5:-5, 5:-5], 6, rtol=1e-6)
        assert flux.area is not None and (flux.area == 0.25).all()

    def test_no_places_is_outside(self) -> None:
        made = resample(field(), Affine((5, 6), offset=(np.nan, 2)), variance=True, area=True)
        assert (made.mask == Bit.OUTSIDE).all()
        assert made.variance is not None
        assert not made.data.any() and not made.weight.any() and not made.variance.any()

    def test_nothing_not_finite_comes_out(self) -> None:
        image = field()
        image[10, 10], image[30, 35], image[40, 40] = np.nan, np.inf, -np.inf
        weight = np.ones(SHAPE, np.float32)
        weight[20, 20], weight[22, 60] = np.nan, np.inf
        for name in TAPS:
            made = resample(image, turned(5), weight=weight, kernel_name=name, variance=True, area=True)
            assert all(np.isfinite(plane).all() for plane in made if plane is not None)


def _moved(places: Affine, by: float) -> Affine:
    return Affine(places.shape, places.matrix, np.asarray(places.offset) + by)


@pytest.mark.usefixtures("each_kernel")
class TestDefects:
    """Weights, masks and what is bad."""

    @pytest.mark.parametrize("name", INTERPOLATING)
    def test_bad_values_do_not_count(self, name: str) -> None:
        image, mask = np.full(SHAPE, 5, np.float32), np.zeros(SHAPE, np.int16)
        mask[20:24, 30:33] = Bit.COSMIC
        image[20:24, 30:33] = 1e6
        made = resample(image, Affine(SHAPE, offset=(0.4, 0.3)), mask=mask, kernel_name=name)
        good = made.weight > 0
        np.testing.assert_allclose(made.data[good], 5, rtol=1e-5)
        assert (made.mask[good] == 0).all()
        lost = ~good & (np.arange(70) < 67) & (np.arange(60) < 57)[:, None]
        assert lost[19:24, 29:33].any()
        assert (made.mask[lost] == Bit.COSMIC).all()

    def test_bits_follow_shares(self) -> None:
        mask = np.zeros(SHAPE, np.int16)
        mask[20, 30] = Bit.INTERPOLATED
        for offset, count in (
            ((0.0, 0.0), 1),
            ((0.5, 0.5), 4),
            ((0.5, 0.0), 2),
            ((0.9, 0.0), 1),
            ((0.45, 0.6), 2),
        ):
            made = resample(field(), Affine(SHAPE, offset=offset), mask=mask)
            assert (made.mask[10:30, 20:40] == Bit.INTERPOLATED).sum() == count, offset
            assert (made.weight[10:30, 20:40] > 0).all()

    def test_a_masked_pixel_keeps_the_value_of_the_nearest(self) -> None:
        image, mask = np.full(SHAPE, 5, np.float32), np.zeros(SHAPE, np.int16)
        image[20:30, 30:40], mask[20:30, 30:40] = 60000, Bit.SATURATED
        made = resample(image, Affine(SHAPE, offset=(0.2, 0.3)), mask=mask)
        assert made.data[24, 34] == 60000 and made.weight[24, 34] == 0
        assert made.mask[24, 34] == Bit.SATURATED

    def test_beyond_the_edge_is_outside(self) -> None:
        made = resample(np.ones(SHAPE, np.float32), Affine((64, 74), offset=(-2.25, -2.25)))
        assert (made.mask[0] == Bit.OUTSIDE).all() and (made.mask[:, :2] == Bit.OUTSIDE).all()
        assert (made.mask[5:60, 5:68] == 0).all()

    @pytest.mark.parametrize("name", ["lagrange6", "area"])
    @pytest.mark.parametrize("scale", [0.5, 1.0])
    @pytest.mark.parametrize("conserve", ["brightness", "flux"])
    def test_weights_say_the_noise_of_sums(self, name: str, scale: float, conserve: Any) -> None:
        sigma, shape = 3.0, (512, 512)
        image = np.random.default_rng(3).normal(0, sigma, shape).astype(np.float32)
        weight = np.full(shape, sigma**-2, np.float32)
        places = Affine((480, 480), np.eye(2) * scale, (10.37, 12.21))
        made = resample(image, places, weight=weight, kernel_name=name, scale=2.0, conserve=conserve)
        sums = made.data.reshape(20, 24, 20, 24).sum(axis=(1, 3))
        told = np.sqrt(24 * 24 / made.weight[100, 100])
        # Flux crosses the edges of the blocks, so that sums scatter a little less than noise would.
        assert sums.std() == pytest.approx(told, rel=0.15)

    def test_variance_is_that_of_a_pixel(self) -> None:
        shape = (300, 300)
        image = np.random.default_rng(4).normal(0, 2, shape).astype(np.float32)
        weight = np.full(shape, 0.25, np.float32)
        for name, scale in (("lagrange6", 1.0), ("bilinear", 1.0), ("area", 2.5)):
            places = Affine((100, 100), np.eye(2) * scale, (20.5, 20.25))
            made = resample(image, places, weight=weight, kernel_name=name, scale=3.0, variance=True)
            assert made.variance is not None
            assert made.data.std() == pytest.approx(np.sqrt(made.variance.mean()), rel=0.05), name

    def test_lost_pixels_cost_weight(self) -> None:
        weight = np.ones(SHAPE, np.float32)
        weight[:, 33] = 0
        made = resample(field(), Affine(SHAPE, offset=(0.1, 0.0)), weight=weight).weight[30]
        assert 0.6 < made[32] < 0.9 and made[33] == 0 and made[34] <= 1
        assert made[38] == pytest.approx(1, abs=1e-6)

    def test_what_makes_no_sense_is_refused(self) -> None:
        image, places = field(), turned(3)
        with pytest.raises(BadValue, match="kernel"):
            resample(image, places, kernel_name="sinc")
        with pytest.raises(BadValue):
            resample(image, places, scale=0)
        with pytest.raises(BadValue):
            resample(image, places, min_good=0)
        with pytest.raises(BadValue):
            resample(image, places, conserve="energy")  # type: ignore[arg-type]
        with pytest.raises(BadValue):
            resample(image, places, rows=(3, 99))
        with pytest.raises(Mixture):
            resample(image, places, weight=np.ones((3, 3), np.float32))
        with pytest.raises(Mixture):
            resample(image[0], places)


# Strips and twins


def scene(seed: int, shape: tuple[int, int] = SHAPE) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 10, shape).astype(np.float32)
    weight = rng.uniform(0.5, 2, shape).astype(np.float32)
    mask = np.where(rng.random(shape) < 0.02, 1 << rng.integers(0, 11, shape), 0).astype(np.int16)
    weight[rng.random(shape) < 0.01] = 0
    image[rng.random(shape) < 0.005] = np.nan
    return image, weight, mask


@pytest.mark.parametrize("name", TAPS)
@pytest.mark.parametrize("degrees", [0.0, 40.0, 170.0])
def test_a_strip_has_the_bits_of_the_whole(name: str, degrees: float) -> None:
    image, weight, mask = scene(5)
    places = turned(degrees, 1.1, (75, 80))
    whole = resample(image, places, weight=weight, mask=mask, kernel_name=name, variance=True, area=True)
    for rows, columns in itertools.product(((0, 75), (13, 14), (20, 51), (70, 75)), ((0, 80), (11, 43))):
        begin, end = input_rows(places, image.shape, name, rows, columns)
        part = slice(begin, end)
        made = resample(
            image[part],
            places,
            weight=weight[part],
            mask=mask[part],
            kernel_name=name,
            rows=rows,
            columns=columns,
            first_row=begin,
            variance=True,
            area=True,
        )
        cut = slice(*rows), slice(*columns)
        assert_same(
            made, Resampled(*(None if one is None else np.ascontiguousarray(one[cut]) for one in whole))
        )


def test_few_rows_are_needed() -> None:
    begin, end = input_rows(turned(0), SHAPE, "lagrange6", (20, 24))
    assert (begin, end) == (17, 27)
    assert input_rows(Affine((9, 9), offset=(500, 0)), SHAPE) == (0, 0)


def test_nothing_of_the_input_gives_nothing() -> None:
    empty = np.zeros((0, 70), np.float32)
    for name in TAPS:
        one, other = both(lambda name=name: resample(empty, turned(3), kernel_name=name, area=True))  # type: ignore[misc]
        assert_same(one, other)
        assert (one.mask == Bit.OUTSIDE).all() and one.area is not None and one.area.all()


needs_kernel = pytest.mark.skipif(kernel("resample") is None, reason="kernel not built")


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(TAPS)),
    st.integers(0, 1 << 30),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.floats(0.2, 4),
    st.floats(0, 360),
    st.booleans(),
    st.sampled_from([1e-3, 0.5, 0.7, 1.0]),
)
def test_twins(
    name: str, seed: int, shape: tuple[int, int], scale: float, degrees: float, planes: bool, min_good: float
) -> None:
    image, weight, mask = scene(seed, shape)
    places = turned(degrees, scale, (18, 21))
    places.offset = np.asarray(places.offset) * [shape[1] / 70, shape[0] / 60]
    places.offset += np.random.default_rng(seed).integers(-2, 3, 2) / 4
    given = {"weight": weight, "mask": mask} if planes else {}

    def make() -> Resampled:
        return resample(
            image,
            places,
            **given,
            kernel_name=name,
            conserve="flux",
            min_good=min_good,
            variance=True,
            area=True,
        )

    assert_same(*both(make))


@needs_kernel
@pytest.mark.parametrize("name", TAPS)
def test_twins_on_a_field(name: str) -> None:
    image, weight, mask = scene(6, (150, 170))
    image += 3e4 * field(2.5, (150, 170))
    places = turned(1.3, 1.01, (160, 150))
    assert_same(
        *both(lambda: resample(image, places, weight=weight, mask=mask, kernel_name=name, variance=True))
    )


def test_the_kernel_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    compiled = kernel("resample")
    if compiled is None:
        pytest.skip("kernel not built")
    image = np.ones((5, 6), np.float32)
    with pytest.raises(ValueError, match="shape"):
        compiled.footprints(
            image, None, None, 1, 6, np.empty((5, 6), "u1"), np.empty(6, "u1"), np.empty((5, 6), "u1")
        )
    with pytest.raises(ValueError, match="nodes"):
        nodes, rows = np.zeros((5, 6)), np.array([3])
        compiled.places(
            nodes, rows, np.zeros((1, 4)), np.array([0, 2]), np.zeros(2), 0, np.zeros(6), np.zeros((1, 2))
        )
    with pytest.raises(IndexError):
        compiled.resample((image,), 6, 0.5, 0.25, 32)


# Kernels


@pytest.mark.parametrize("name", INTERPOLATING)
def test_kernels_add_up_to_one(name: str) -> None:
    table, near = tables(name)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(near.sum(axis=1), 1)
    assert not table[:, TAPS[name] :].any()
    if name != "nearest":
        middle = TAPS[name] // 2
        assert table[0, middle - 1] == pytest.approx(1) and table[-1, middle] == pytest.approx(1)
        np.testing.assert_allclose(
            table[:, : TAPS[name]], table[::-1, TAPS[name] - 1 :: -1][:, : TAPS[name]], atol=1e-7
        )


def test_the_kernel_for_a_sampling() -> None:
    assert [kernel_for(fwhm) for fwhm in (2.0, 2.9, 3.9, np.nan)] == [
        "lanczos4",
        "lagrange8",
        "lagrange6",
        "lanczos4",
    ]
    assert kernel_for(2.0, 1.1) == "lagrange8" and kernel_for(5.0, 3.0) == "area"


# Small defects


def smooth(shape: tuple[int, int] = SHAPE) -> Array:
    y, x = np.mgrid[: shape[0], : shape[1]] / 50
    return (x**3 - 2 * x * y**2 + y**3 + 100).astype(np.float32)


@pytest.mark.parametrize(
    ("where", "filled"),
    [
        (np.s_[20, 30], 1),
        (np.s_[20:22, 30], 2),
        (np.s_[20:22, 30:32], 4),
        (np.s_[:, 30], 60),
        (np.s_[:, 30:32], 120),
        (np.s_[20, :], 70),
        (np.s_[20:23, 30:33], 0),
        (np.s_[:, 30:33], 0),
        (np.s_[0, 0], 0),
        (np.s_[0, 5], 1),
        (np.s_[:, 1], 60),
        (np.s_[:, 0], 0),
    ],
)
def test_small_defects_are_filled(where: Any, filled: int) -> None:
    truth, bad, mask = smooth(), np.zeros(SHAPE, np.bool_), np.zeros(SHAPE, np.int16)
    bad[where], mask[where] = True, Bit.HOT
    image, weight = np.where(bad, np.float32(1e6), truth), np.where(bad, 0, 2).astype(np.float32)
    made = fill_small(image, bad, weight=weight, mask=mask)
    assert made.filled == filled
    marked = made.mask == Bit.INTERPOLATED
    assert marked.sum() == filled and (made.mask[bad & ~marked] == Bit.HOT).all()
    assert made.weight is not None
    np.testing.assert_allclose(made.weight[marked], 2 * FILLED_WEIGHT)
    np.testing.assert_allclose(made.data[marked], truth[marked], atol=0.02)
    assert (made.data[~bad] == truth[~bad]).all() and (image[bad] == 1e6).all()


def test_a_star_is_filled_well() -> None:
    y, x = np.mgrid[:21, :21]
    for fwhm, least in ((3.0, 0.03), (3.9, 0.008)):
        image = star(x - 10.2, y - 9.7, fwhm).astype(np.float32)
        bad = np.zeros(image.shape, np.bool_)
        bad[10, 10] = True
        assert fill_small(image, bad).data[10, 10] == pytest.approx(image[10, 10], abs=least)


def test_saturated_pixels_stay() -> None:
    mask = np.zeros(SHAPE, np.int16)
    mask[20, 30], mask[40, 50] = Bit.SATURATED | Bit.HOT, Bit.COLD | Bit.CLIPPED
    made = fill_small(smooth(), mask != 0, mask=mask)
    assert made.filled == 1 and made.mask is not None
    assert made.mask[20, 30] == mask[20, 30] and made.mask[40, 50] == Bit.INTERPOLATED | Bit.CLIPPED


def test_a_filled_column_costs_little() -> None:
    """Of a bad column that was filled, only the pixels on it have less weight."""
    bad = np.zeros(SHAPE, np.bool_)
    bad[:, 33] = True
    weight, mask = (~bad).astype(np.float32), (bad * Bit.HOT).astype(np.int16)
    made = fill_small(smooth(), bad, weight=weight, mask=mask)
    out = resample(made.data, Affine(SHAPE, offset=(0.25, 0)), weight=made.weight, mask=made.mask)
    assert (out.weight[10:50, 10:60] > 0.2).all()
    assert (out.weight[30, 10:60] < 0.99).sum() == 2
    np.testing.assert_allclose(
        out.data[30, 20:50], resample(smooth(), Affine(SHAPE, offset=(0.25, 0))).data[30, 20:50], atol=1e-3
    )


def test_fill_refuses_other_shapes() -> None:
    with pytest.raises(Mixture):
        fill_small(smooth(), np.zeros((3, 3), np.bool_))
