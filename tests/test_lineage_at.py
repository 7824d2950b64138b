"""awe-lineage --at: what entered a pixel, to the raw pixel and the last bit, with real and simulated frames."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import UsageError
from awetools.core.fits import open_fits
from awetools.core.pixels.stack import clipped_mean
from awetools.core.pixelstory.arithmetic import Exposure, Part, clip_words, reduced_check
from awetools.core.pixelstory.places import SOURCES, Entered, entered, raw_place
from awetools.core.pixelstory.sky import sky_of
from awetools.core.sections import Amplifier, Section
from awetools.core.store import Store, init_store
from awetools.core.tracing.lineage import Reference
from tests.foreign_frames import SHAPE, write_foreign
from tests.support import InProcess, awe_here, bias_frames, data_path, write_raw

SINISTRO = "single-frames/lco-sinistro-raw-mef-20211007.fits.gz"


def told(run: InProcess, *arguments: object) -> list[dict[str, Any]]:
    """The objects of --json; the first is the pixel that was asked for."""
    ran = run("lineage", "--json", *arguments)
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.lines]


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind and line["x"] is not None]


def plane_of(path: str | Path, name: str) -> np.ndarray:
    with open_fits(Path(path)) as fits:
        return fits.image(name)


def first(store: Store, pattern: str) -> Path:
    return sorted(store.root.glob(pattern))[0].relative_to(store.root)


# Geometry: where a pixel of the assembled detector lies in the raw file


@st.composite
def amplifiers(draw: st.DrawFn) -> list[Amplifier]:
    """Two by two amplifiers of any size, mirrored anyhow, each somewhere in its own HDU."""
    widths = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    heights = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    found = []
    for number in range(4):
        column, row = number % 2, number // 2
        x0, y0 = column * widths[0], row * heights[0]
        flips = draw(st.tuples(st.booleans(), st.booleans()))
        dx, dy = draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
        width, height = widths[column], heights[row]
        target = Section(x0, x0 + width, y0, y0 + height, *flips)
        data = Section(dx, dx + width, dy, dy + height)
        found.append(Amplifier("ABCD"[number], number + 1, data, None, target))
    return found


@given(amplifiers(), st.data())
def test_the_raw_place_is_where_the_frame_takes_the_pixel_from(
    found: list[Amplifier], data: st.DataObject
) -> None:
    from awetools.core.frame import raw_frame

    rng = np.random.default_rng(1)
    images = {one.hdu: rng.permutation(400).reshape(20, 20) + 1000 * one.hdu for one in found}
    frame = raw_frame({}, tuple(found), lambda hdu, y0, y1: images[hdu][y0:y1])
    ny, nx = frame.shape
    x, y = data.draw(st.integers(1, nx)), data.draw(st.integers(1, ny))
    place = raw_place(found, x, y)
    assert place is not None and place.hdu is not None
    assert images[place.hdu][place.y - 1, place.x - 1] == frame.rows(0, ny)[y - 1, x - 1]
    assert raw_place(found, nx + 1, y) is None and raw_place(found, x, 0) is None


@pytest.fixture(scope="module")
def sinistro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame of four mirrored amplifiers reduced with a bias and a flat, under the real headers.

    Every raw pixel has a bias of its own, so that any other pixel would give another value.
    """
    real = data_path(SINISTRO)
    root = tmp_path_factory.mktemp("sinistro")
    rng = np.random.default_rng(11)
    pattern = [rng.integers(0, 200, (522, 544)) for _ in range(4)]
    counts = {"BIAS": 0, "LAMPFLAT": 20000, "EXPOSE": 3000}
    with astropy_fits.open(real) as file:
        for number, kind in enumerate(["BIAS"] * 3 + ["LAMPFLAT"] * 2 + ["EXPOSE"]):
            units = [file[0].copy()]
            units[0].header["OBSTYPE"] = kind
            units[0].header["DATE-OBS"] = f"2021-10-08T01:{number + 10}:00.000"
            for amp in range(4):
                noise = rng.normal(0, 5, (522, 544))
                image = 1000 + 50 * amp + noise
                image[:512, :512] += counts[kind] * (1 + 0.05 * amp) + pattern[amp][:512, :512]
                units.append(
                    astropy_fits.ImageHDU(np.round(image).astype(np.uint16), file[amp + 1].header.copy())
                )
            astropy_fits.HDUList(units).writeto(
                root / f"raw{number}.fits", output_verify="silentfix+ignore", checksum=True
            )
    init_store(root)
    awe_here("ingest", "-q", *sorted(root.glob("raw*.fits")), cwd=root)
    for kind, source in (("bias", "raw_bias"), ("domeflat", "raw_domeflat"), ("flat", "domeflat")):
        awe_here(kind, "-q", *awe_here("query", source, cwd=root), cwd=root)
    awe_here("reduce", "-q", "-o", "red.fits", "raw5.fits", cwd=root)
    return root


@pytest.fixture
def in_sinistro(sinistro: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(sinistro)
    yield sinistro


@pytest.mark.parametrize("at", [(1, 1), (512, 512), (513, 512), (700, 40), (100, 900), (1024, 1024)])
def test_four_mirrored_amplifiers_give_the_value_in_the_file(
    run: InProcess, in_sinistro: Path, at: tuple[int, int]
) -> None:
    lines = told(run, "--at", f"{at[0]},{at[1]}", "red.fits")
    check = lines[0]["check"]
    assert check["agrees"] and check["value"] == check["in_file"]
    assert check["in_file"] == plane_of("red.fits", "SCI")[at[1] - 1, at[0] - 1]
    raws = [line for line in lines if line["raw"]]
    assert Counter(line["kind"] for line in raws) == {"raw_bias": 3, "raw_domeflat": 2, "raw_science": 1}
    amplifiers_seen = {(line["raw"]["amplifier"], line["raw"]["hdu"]) for line in raws}
    assert len(amplifiers_seen) == 1
    for line in raws:
        with astropy_fits.open(line["path"].partition("[")[0]) as file:
            image = file[line["raw"]["hdu"]].data
        assert line["value"] == image[line["raw"]["y"] - 1, line["raw"]["x"] - 1]
        # The level of the overscan is that of the amplifier, whose columns are beside its own data.
        assert line["overscan_adu"] == pytest.approx(np.mean(image[:512, 519:540]), abs=1)
        assert line["net_adu"] == pytest.approx(line["value"] - line["overscan_adu"], abs=1e-3)


def test_each_quadrant_is_read_by_an_amplifier_of_its_own(run: InProcess, in_sinistro: Path) -> None:
    quadrants = [(5, 5), (1000, 5), (5, 1000), (1000, 1000)]
    seen = [told(run, "--at", f"{x},{y}", "red.fits")[1]["raw"] for x, y in quadrants]
    assert sorted(one["hdu"] for one in seen) == [1, 2, 3, 4]


# Nickel: real frames, bit for bit


@pytest.fixture(scope="module")
def nickel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One frame of M51 reduced with what it needs, from real exposures."""
    night = data_path("nickel-20170302")
    root = tmp_path_factory.mktemp("nickel")
    init_store(root)
    biases, flats = (
        sorted((night / "bias").glob("d*"))[:5],
        [next(night.rglob(f"d101{n}.fits*")) for n in "012"],
    )
    awe_here("ingest", "-q", *biases, *flats, next(night.rglob("d1120.fits*")), cwd=root)
    for kind, source in (
        ("bias", "raw_bias"),
        ("hotpix", "bias"),
        ("domeflat", "raw_domeflat"),
        ("flat", "domeflat"),
        ("reduce", "raw_science"),
    ):
        awe_here(kind, "-q", *awe_here("query", source, cwd=root), cwd=root)
    return root


def test_a_real_hot_pixel_is_named_with_what_made_it_so(
    run: InProcess, nickel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(nickel)
    product, hotpix, bias = (next(nickel.glob(f"{kind}/*/*.fits")) for kind in ("reduced", "hotpix", "bias"))
    master = plane_of(bias, "SCI")
    hot = np.argwhere(
        (plane_of(hotpix, "MASK") == 1) & (master == np.max(master[plane_of(hotpix, "MASK") == 1]))
    )
    y, x = (int(one) + 1 for one in hot[0])
    lines = told(run, "--at", f"{x},{y}", product)
    reason = next(one for one in lines[0]["masked"] if one["name"] == "hot")
    assert Path(reason["path"]) == hotpix and reason["kind"] == "hotpix"
    assert reason["value"] == master[y - 1, x - 1] and reason["sigma"] > 5
    assert lines[0]["check"]["value"] == lines[0]["check"]["in_file"] == lines[0]["value"]
    text = run("lineage", "--at", f"{x},{y}", product).out
    assert f"MASK: hot (from hotpix {hotpix.name}: bias pixel value {reason['value']:.6g} ADU, " in text


def test_real_pixels_come_out_to_the_last_bit(
    run: InProcess, nickel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(nickel)
    product = next(nickel.glob("reduced/*/*.fits"))
    rng = np.random.default_rng(5)
    places = [f"{x},{y}" for x, y in rng.integers(1, 1025, (4, 2))]
    lines = told(run, *(part for place in places for part in ("--at", place)), product)
    reduced = of_kind(lines, "reduced")
    assert len(reduced) == 4 and all(line["check"]["value"] == line["value"] for line in reduced)
    for line in of_kind(lines, "bias"):
        assert line["check"]["agrees"] and line["check"]["value"] == line["value"]
    for line in of_kind(lines, "domeflat"):
        assert line["check"]["value"] == pytest.approx(line["value"], rel=2e-3)


# Stacks: what was kept and rejected


def test_the_exposure_that_was_struck_is_the_one_rejected(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = bias_frames(tmp_path, count=5)
    with astropy_fits.open(frames[3], mode="update") as file:
        file[0].data[20, 30] += 400
    assert run("bias", "-q", "-o", "bias.fits", *frames).code == 0
    lines = told(run, "--at", "31,21", "bias.fits")
    said = {one["id"]: one["entered"] for one in lines[0]["parents"]}
    struck = next(line["id"] for line in lines if line["path"].endswith(frames[3].name))
    assert said[struck] == "rejected" and Counter(said.values()) == {"kept": 4, "rejected": 1}
    assert lines[0]["check"]["value"] == lines[0]["check"]["in_file"]
    assert "rejected" in run("lineage", "--at", "31,21", "bias.fits").out


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=9),
    st.floats(0.5, 20, width=32),
    st.floats(1, 5, width=32),
)
def test_the_words_count_as_the_clip_does(values: list[float], noise: float, clip: float) -> None:
    words, mean = clip_words([Exposure(value) for value in values], noise, None, clip, scaled=False)
    stack = np.array(values, np.float32)[:, None, None]
    found = clipped_mean(stack, np.array([[noise]], np.float32), clip)
    assert mean == found.mean[0, 0]
    if "near the limit" not in words:
        kept = words.count("kept")
        assert kept == found.count[0, 0] and (kept or set(words) == {"all disagree"})


def test_saturated_exposures_do_not_enter() -> None:
    words, mean = clip_words([Exposure(1.0), Exposure(9e4, usable=False)], 1.0, 1.0, 4.0, scaled=True)
    assert words == ["kept", "saturated"] and mean == 1.0
    assert clip_words([Exposure(9e4, usable=False)], 1.0, 1.0, 4.0, scaled=True) == (["saturated"], None)


def test_what_is_not_finite_is_0_in_a_reduced_frame() -> None:
    check = reduced_check(1000.0, 900.0, Part("bias", 1.0), None, 1.0, Part("flat", 0.0), 0.0)
    assert check.value == 0.0 and check.agrees
    assert reduced_check(1000.0, 900.0, None, None, 1.0, Part("flat", 0.5), 201.0).agrees is False


# All kinds of a simulated night: dark, twilight, fringes


@pytest.mark.parametrize(
    "kind", ["reduced", "bias", "dark", "domeflat", "twiflat", "flat", "hotpix", "coldpix"]
)
def test_every_kind_is_followed_down_to_its_raw_frames(
    run: InProcess, shared_store: Store, kind: str
) -> None:
    product = first(shared_store, f"{kind}/*/*.fits")
    lines = told(run, "--at", "61,52", product)
    assert lines[0]["kind"] == kind and not lines[0]["notes"]
    raws = [line for line in lines if line["raw"]]
    assert raws and all(line["value"] is not None and line["overscan_adu"] is not None for line in raws)
    checks = [line["check"] for line in lines if line["check"] and line["check"]["value"] is not None]
    assert kind in ("flat", "hotpix", "coldpix") or checks
    assert all(one["agrees"] for one in checks)


def test_amplifier_rows_and_whole_amplifiers(run: InProcess, shared_store: Store) -> None:
    product = first(shared_store, "reduced/*/*.fits")
    for x in (10, 150):
        lines = told(run, "--at", f"{x},52", product)
        amplifier = next(line["raw"]["amplifier"] for line in lines if line["raw"])
        assert amplifier == {10: "A", 150: "B"}[x]
        gain = next(line for line in lines if line["kind"] == "gain")
        assert gain["row"]["AMP"] == amplifier and gain["row"]["GAIN_E_ADU"] > 0 and gain["value"] is None
        # What went into the gain were whole exposures, not this pixel.
        assert {one["x"] for one in gain["parents"]} == {None}


def test_fringes_leave_open_what_is_not_on_record(run: InProcess, reduced_store: Store) -> None:
    raw = run("query", "raw_science", "filter=R").lines[0]
    fringe = next(one for one in sorted(reduced_store.root.glob("fringe/*/*_R-*.fits")) if "sim1" in one.name)
    assert run("reduce", "-q", "--fringe", fringe, "--accept-flags", "-o", "less.fits", raw).code == 0
    check = told(run, "--at", "61,52", "less.fits")[0]["check"]
    assert check["value"] is None and check["agrees"] is None and "scale of the fringes" in check["problem"]
    assert "[fringe]" in run("lineage", "--at", "61,52", "less.fits").out


def test_night_flats_say_that_the_objects_are_not_on_record(run: InProcess, shared_store: Store) -> None:
    lines = told(run, "--at", "61,52", first(shared_store, "nightflat/*/*.fits"))
    said = [one for one in lines[0]["parents"] if one["role"] == "raw"]
    assert said and {one["entered"] for one in said} == {"not known"}
    assert all("not on record" in one["by"] for one in said)


def _check_that_what_is_below_the_limit_says_so(run: InProcess, product: Path) -> None:
    places = np.argwhere(plane_of(product, "MASK") & 8)[:60] + 1
    lines = told(run, *(part for y, x in places for part in ("--at", f"{x},{y}")), product)
    found = [one for line in lines for one in line.get("masked", ()) if one["name"] == "cosmic"]
    below = [one for one in found if one["sigma"] is not None and one["sigma"] < 4.5]
    assert below and all("less is asked" in one["detail"] or "how sharp" in one["detail"] for one in below)
    assert not any("less is asked" in one["detail"] for one in found if one not in below)


@pytest.mark.parametrize(("bit", "name"), [(1, "hot"), (2, "cold"), (8, "cosmic"), (512, "uncalibrated")])
def test_each_bit_is_followed_to_its_source(run: InProcess, shared_store: Store, bit: int, name: str) -> None:
    sources = {"hot": "hotpix", "cold": "coldpix", "cosmic": "reduced", "uncalibrated": "flat"}
    for product in sorted(shared_store.root.glob("reduced/*/*.fits")):
        found = np.argwhere(plane_of(product, "MASK") & bit)
        if len(found):
            break
    y, x = (int(one) + 1 for one in found[len(found) // 2])
    told_first = told(run, "--at", f"{x},{y}", product)[0]
    reasons = [one for one in told_first["masked"] if one["name"] == name]
    assert name in told_first["mask"] and [one["kind"] for one in reasons] == [sources[name]]
    assert reasons[0]["detail"] and reasons[0]["bit"] == bit
    if name == "cosmic":
        _check_that_what_is_below_the_limit_says_so(run, product)
    for via in reasons[0]["via"]:
        assert plane_of(via, "MASK")[y - 1, x - 1] & bit


def test_a_saturated_pixel_names_its_counts_and_the_limit(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(3).normal(1000, 5, (96, 96))
    data[40, 50] = 60000
    cards = {"IMAGETYP": "object", "EXPTIME": 10.0, "FILTER": "R", "SATURATE": 50000.0, "RDNOISE": 5.0}
    raw = write_raw(tmp_path / "raw.fits", data.astype(np.uint16), cards)
    assert run("reduce", "-q", "--no-bias", "--no-flat", "-o", "red.fits", raw).code == 0
    reason = told(run, "--at", "51,41", "red.fits")[0]["masked"][0]
    assert reason["name"] == "saturated" and reason["value"] == 60000
    assert "raw value 60000 ADU, at or above the limit of 50000 ADU" in reason["detail"]
    beside = told(run, "--at", "51,42", "red.fits")[0]["masked"][0]
    assert "below the limit of 50000 ADU: beside" in beside["detail"]


# What is gone


def test_files_that_are_gone_are_named_and_followed(run: InProcess, reduced_store: Store) -> None:
    product = first(reduced_store, "reduced/*/*.fits")
    before = told(run, "--at", "61,52", product)
    bias, flat = (
        next(Path(line["path"]) for line in before if line["kind"] == kind) for kind in ("bias", "domeflat")
    )
    bias.unlink()
    flat.unlink()
    lines = told(run, "--at", "61,52", product)
    assert [line["id"] for line in lines] == [line["id"] for line in before]
    for line, now in zip(before, lines, strict=True):
        if Path(line["path"]) in (bias, flat):
            assert now["state"] == "deleted" and now["value"] is None and "gone" in now["notes"][0]
        else:
            assert (now["value"], now["raw"]) == (line["value"], line["raw"])
    assert lines[0]["check"]["agrees"] is None and bias.name in lines[0]["check"]["problem"]
    # The bias itself comes out again from its raw frames.
    known = next(line for line in before if line["kind"] == "bias")["check"]["value"]
    assert next(line for line in lines if line["kind"] == "bias")["check"]["value"] == known
    assert "deleted" in run("lineage", "--at", "61,52", product).out


def test_a_product_that_is_gone_itself_still_has_its_story(run: InProcess, reduced_store: Store) -> None:
    product = first(reduced_store, "reduced/*/*.fits")
    value = told(run, "--at", "61,52", product)[0]["check"]["in_file"]
    product.unlink()
    lines = told(run, "--at", "61,52", product)
    assert lines[0]["state"] == "deleted" and lines[0]["value"] is None
    assert lines[0]["check"]["value"] == value and lines[0]["check"]["in_file"] is None
    assert run("lineage", "--at", "6100,52", product).code == 2


def test_raw_frames_that_are_gone_keep_their_place(run: InProcess, in_sinistro: Path, tmp_path: Path) -> None:
    before = told(run, "--at", "700,40", "red.fits")
    away = {path: tmp_path / path.name for path in in_sinistro.glob("raw*.fits")}
    for path, other in away.items():
        path.rename(other)
    try:
        lines = told(run, "--at", "700,40", "red.fits")
    finally:
        for path, other in away.items():
            other.rename(path)
    raws = [line for line in lines if line["kind"].startswith("raw") and line["x"] is not None]
    assert len(raws) == 6 and {line["state"] for line in raws} == {"deleted"}
    assert all(line["value"] is None and "gone" in line["notes"][0] for line in raws)
    assert [line["raw"] for line in raws] == [line["raw"] for line in before if line["raw"]]


def test_an_edited_product_is_refused(run: InProcess, reduced_store: Store) -> None:
    product = first(reduced_store, "reduced/*/*.fits")
    with product.open("r+b") as stream:
        stream.seek(-4000, 2)
        stream.write(b"x" * 100)
    ran = run("lineage", "--at", "61,52", product)
    assert ran.code == 8 and "integrity" in ran.err and not ran.out


def test_an_edited_ancestor_is_not_believed(run: InProcess, reduced_store: Store) -> None:
    product = first(reduced_store, "reduced/*/*.fits")
    flat = next(Path(line["path"]) for line in told(run, "--at", "61,52", product) if line["kind"] == "flat")
    with flat.open("r+b") as stream:
        stream.seek(-4000, 2)
        stream.write(b"x" * 100)
    lines = told(run, "--at", "61,52", product)
    found = next(line for line in lines if line["kind"] == "flat")
    assert found["state"] == "changed" and found["value"] is None
    assert lines[0]["check"]["value"] is None


# Reading


def test_each_file_is_opened_once_and_read_in_strips(
    run: InProcess, shared_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from awetools.core.fits import FitsFile

    opened: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    start, read = FitsFile.__init__, FitsFile.rows

    def counted(self: FitsFile, path: Path, *more: Any) -> None:
        opened[str(path)] += 1
        start(self, path, *more)

    def noted(self: FitsFile, hdu: int | str, y0: int, y1: int, *more: Any) -> Any:
        if "raw" not in self.path.parts:
            rows[str(self.path)] = max(rows[str(self.path)], y1 - y0)
        return read(self, hdu, y0, y1, *more)

    product = first(shared_store, "reduced/*/*.fits")
    monkeypatch.setattr(FitsFile, "__init__", counted)
    monkeypatch.setattr(FitsFile, "rows", noted)
    lines = told(run, "--at", "61,52", product)
    assert max(opened.values()) == 1 and len(opened) == len({line["path"] for line in lines if line["x"]})
    assert max(rows.values()) == 31


def test_a_kind_that_resamples_says_itself_which_pixels_entered(
    run: InProcess, shared_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(_record: Any, inputs: Any, x: float, y: float) -> Iterator[Entered]:
        return (Entered(one, x + 2.25, y - 1) for one in inputs if one.role == "raw")

    monkeypatch.setattr("awetools.core.pixelstory.places.SOURCES", {**SOURCES, "reduced": moved})
    lines = told(run, "--at", "61,52", first(shared_store, "reduced/*/*.fits"))
    assert len(lines) == 2 and (lines[1]["x"], lines[1]["y"]) == (63.25, 51)
    straight = told(run, "--at", "63,51", lines[1]["path"])[0]
    assert straight["value"] == lines[1]["value"] and straight["raw"] == lines[1]["raw"]


def test_entered_by_default_is_the_same_place() -> None:
    inputs = [
        Reference("raw", "raw_bias", "a.fits", "1", None),
        Reference("bias", "bias", "b.fits", "2", "k"),
    ]
    record: dict[str, Any] = {}
    assert [(one.x, one.y) for one in entered("anything", record, inputs, 3, 4)] == [(3, 4)] * 2
    assert [one.x for one in entered("gain", record, inputs, 3, 4)] == [None, None]
    assert [one.x for one in entered("anything", record, inputs, None, None)] == [None, None]


# The sky


@pytest.mark.parametrize(
    "text", ["", "1", "1,2,3", "x,1", "361,0", "1,91", "1,-91", "nan,1", "25:00:00,0", "12:60:00,0"]
)
def test_what_is_no_place_in_the_sky(text: str) -> None:
    with pytest.raises(UsageError, match="not RA,DEC"):
        sky_of(text)


def test_places_in_the_sky_as_people_write_them() -> None:
    assert sky_of("202.5,-47.25") == (202.5, -47.25)
    assert sky_of("13:30:00,-47:15:00") == pytest.approx((202.5, -47.25))
    assert sky_of("13h30m00s,-47d15m00s") == pytest.approx((202.5, -47.25))


def test_the_sky_leads_to_the_pixel(run: InProcess, shared_store: Store) -> None:
    from astropy.wcs import WCS

    product = first(shared_store, "reduced/*/*.fits")
    cards = json.loads(Path(f"{product}.json").read_text())["meta"]["wcs"]
    ra, dec = (float(one) for one in WCS(astropy_fits.Header(cards)).all_pix2world(61.3, 51.8, 1))
    assert told(run, "--at-sky", f"{ra:.9f},{dec:.9f}", product)[0]["at"] == [61, 52]
    far = run("lineage", "--at-sky", f"{ra:.6f},{dec + 0.9:.6f}", product)
    assert far.code == 2 and f"it has no pixel at {ra:.7g},{dec + 0.9:.7g}: the frame is " in far.err
    assert " arcmin around " in far.err and "cone(" in far.err
    ran = run("lineage", "--at-sky", f"{(ra + 180) % 360:.6f},{-dec:.6f}", product)
    assert ran.code == 2 and "it has no pixel at" in ran.err


def test_no_coordinates_is_said(run: InProcess, shared_store: Store) -> None:
    ran = run("lineage", "--at-sky", "1,1", first(shared_store, "bias/*/*.fits"))
    assert ran.code == 4 and "bad-header" in ran.err and "--at X,Y" in ran.err


# Forms


@pytest.mark.parametrize(
    "arguments",
    [
        ["--at", "0,1"],
        ["--at", "177,1000"],
        ["--at", "1"],
        ["--at", "1,2,3"],
        ["--at", "-1,2"],
        ["--at", "1.5,2"],
        ["--at", "\N{SUPERSCRIPT TWO},1"],
        ["--at", "99999999999999999999,1"],
        ["--at", "1,1", "--box", "2"],
        ["--at", "1,1", "--box", "0"],
        ["--at", "1,1", "--depth", "2"],
        ["--at", "1,1", "--format", "dot"],
        ["--at", "1,1", "--json", "--tree"],
        ["--at", "1,1", "--forward"],
        ["--at", "1,1", "--impact"],
        ["--box", "3"],
        ["--cutouts", "cuts"],
        ["--at-sky", "1"],
    ],
)
def test_senseless_questions_are_usage_errors(
    run: InProcess, shared_store: Store, arguments: list[str]
) -> None:
    ran = run("lineage", *arguments, first(shared_store, "reduced/*/*.fits"))
    assert ran.code == 2 and not ran.out and not Path("cuts").exists()


def test_a_table_has_no_pixels(run: InProcess, shared_store: Store) -> None:
    ran = run("lineage", "--at", "1,1", first(shared_store, "gain/*/*.fits"))
    assert ran.code == 4 and "no-image" in ran.err and "a row an amplifier" in ran.err


def test_one_bad_name_does_not_stop_the_others(run: InProcess, shared_store: Store) -> None:
    product = first(shared_store, "reduced/*/*.fits")
    ran = run("lineage", "--json", "--at", "5,5", "gone.fits", product)
    assert ran.code == 4 and "no-such-file" in ran.err and json.loads(ran.lines[0])["path"] == str(product)


def test_the_table_has_a_line_for_each_way_a_file_entered(run: InProcess, shared_store: Store) -> None:
    ran = run("lineage", "--at", "61,52", "--format", "tsv", first(shared_store, "reduced/*/*.fits"))
    header, *rows = [line.split("\t") for line in ran.lines]
    assert {len(row) for row in rows} == {len(header)}
    named = [dict(zip(header, row, strict=True)) for row in rows]
    bias = [row for row in named if row["kind"] == "bias" and row["x"]]
    assert len(bias) > 1 and len({row["value"] for row in bias}) == 1
    assert all(row["entered"] for row in named if row["kind"] == "raw_bias" and row["value"])


def test_the_box_holds_the_neighbours(run: InProcess, shared_store: Store) -> None:
    product = first(shared_store, "reduced/*/*.fits")
    image = plane_of(product, "SCI")
    box = told(run, "--at", "1,52", "--box", "5", product)[0]["box"]
    assert (box["x"], box["y"]) == (1, 50)
    assert np.array_equal(np.array(box["planes"]["SCI"], np.float32), image[49:54, :3])
    header, *rows = run("lineage", "--at", "61,52", "--box", "3", "--format", "tsv", product).lines
    cells = [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]
    own = [cell for cell in cells if cell["steps"] == "0"]
    assert [(cell["x"], cell["y"]) for cell in own[:4]] == [
        ("60", "51"),
        ("61", "51"),
        ("62", "51"),
        ("60", "52"),
    ]
    assert float(own[4]["value"]) == pytest.approx(image[51, 60])
    text = run("lineage", "--at", "61,52", "--box", "3", product).lines
    at = next(n for n, line in enumerate(text) if line.startswith("reduced") and "columns 60 to 62" in line)
    assert [line.split()[0] for line in text[at + 2 : at + 5]] == ["53", "52", "51"]


def test_what_is_not_a_number_is_null(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(3).normal(1000, 5, (64, 64)).astype(np.float32)
    data[10, 12] = np.nan
    cards = {"IMAGETYP": "object", "EXPTIME": 10.0, "FILTER": "R", "RDNOISE": 5.0}
    raw = write_raw(tmp_path / "raw.fits", data, cards)
    assert run("reduce", "-q", "--no-bias", "--no-flat", "-o", "red.fits", raw).code == 0
    lines = told(run, "--at", "13,11", "red.fits")
    assert lines[0]["mask"] == ["outside"] and lines[0]["value"] == 0 and lines[1]["value"] is None
    assert lines[0]["check"]["agrees"] and "not a number" in lines[0]["masked"][0]["detail"]


# Cut-outs


def test_cutouts_show_the_pixel_in_a_frame(run: InProcess, reduced_store: Store) -> None:
    from matplotlib.image import imread

    product = first(reduced_store, "reduced/*/*.fits")
    ran = run("lineage", "--at", "1,52", "--cutouts", "cuts", "--json", product)
    lines = [json.loads(line) for line in ran.lines]
    pictures = sorted(Path("cuts").iterdir())
    with_pixels = [line for line in lines if line["value"] is not None]
    assert len(pictures) == len(with_pixels) and f"{len(pictures)} cut-outs in cuts" in ran.err
    picture = np.round(imread(pictures[0])[..., :3] * 255).astype(int)
    assert picture.shape == (248, 248, 3)
    red = np.argwhere((picture == (255, 48, 48)).all(axis=2))
    assert red.min(axis=0).tolist() == [118, 118] and red.max(axis=0).tolist() == [129, 129]
    # Left of the first column is nothing.
    assert (picture[:, :100] == (24, 32, 72)).all()


def test_cutouts_are_upright(run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.image import imread

    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(3).normal(1000, 5, (64, 64))
    data[45, 40] = 9000
    cards = {"IMAGETYP": "object", "EXPTIME": 10.0, "FILTER": "R", "RDNOISE": 5.0}
    raw = write_raw(tmp_path / "raw.fits", data.astype(np.uint16), cards)
    assert run("lineage", "--at", "33,33", "--cutouts", ".", raw).code == 0
    picture = imread(next(tmp_path.glob("*.png")))[..., 0]
    # 8 columns to the right, 13 rows up.
    assert picture[(15 - 13) * 8 + 4, (15 + 8) * 8 + 4] == 1.0


def test_cutouts_replace_pictures_and_nothing_else(run: InProcess, reduced_store: Store) -> None:
    product = first(reduced_store, "bias/*/*.fits")
    assert run("lineage", "--at", "9,9", "--cutouts", "cuts", product).code == 0
    assert run("lineage", "--at", "9,9", "--cutouts", "cuts", product).code == 0
    victim = sorted(Path("cuts").iterdir())[0]
    victim.write_text("mine")
    ran = run("lineage", "--at", "9,9", "--cutouts", "cuts", product)
    assert ran.code == 2 and "would-overwrite" in ran.err and victim.read_text() == "mine"
    Path("file").write_text("")
    assert run("lineage", "--at", "9,9", "--cutouts", "file", product).code == 7


# Imports


def test_an_import_shows_the_pixels_of_the_other_pipeline(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quality = np.zeros(SHAPE, np.int16)
    quality[4, 9] = 8
    frame = write_foreign(tmp_path / "frame.fits", planes={"DQ": quality})
    masked = ("--mask", "DQ", "--mask-bits", "8:cosmic")
    assert run("import_", "--as", "reduced", *masked, frame, "-o", "p.fits").code == 0
    lines = told(run, "--at", "10,5", "p.fits")
    held = {line["role"]: line["value"] for line in lines[1:]}
    assert held["foreign"] == pytest.approx(lines[0]["value"]) and held["mask"] == 8
    reason = lines[0]["masked"][0]
    assert (reason["name"], reason["kind"]) == ("cosmic", "reduced")
    assert "from the mask frame.fits" in reason["detail"] and "holds 8 there" in reason["detail"]
