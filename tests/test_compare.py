"""`awe-compare`: which product is the predecessor, what the series says, what changed in pixels, masks and tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from awetools.core.changes import compare_frames
from awetools.core.compare import Bound, Comparison, outside, parse_bound
from awetools.core.errors import BadPixels, Mixture, UnknownName, UsageError
from awetools.core.frame import Frame
from awetools.core.indexing.index import rebuild
from awetools.core.journal import append_verdict
from awetools.core.products import open_product
from awetools.core.quantity import Quantity, running
from awetools.core.store import Store, init_store
from tests.foreign_frames import CARDS, star_field
from tests.support import InProcess, awe, write_raw

NIGHTS = 8
LEVELS_ADU = (3.0, 1.0, 2.0, 5.0, 4.0, 2.5, 3.5, 12.0)


@pytest.fixture(scope="module")
def _nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a bias and a readnoise of each of 8 nights: the last one is 8 ADU higher, with a bright block."""
    root = tmp_path_factory.mktemp("nights") / "store"
    init_store(root)
    rng = np.random.default_rng(3)
    raws = root.parent / "raw"
    raws.mkdir()
    for night, level in enumerate(LEVELS_ADU):
        for number in range(3):
            data = rng.normal(1000 + level, 4, (128, 192))
            if night == NIGHTS - 1:
                data[:64, 64:128] += 3
            card = {"DATE-OBS": f"2024-03-{2 + night:02}T23:1{number}:00.000", "SITELONG": 0.0}
            write_raw(raws / f"b{night}{number}.fits", data.round().astype(np.uint16), card)
    awe("ingest", "-q", raws, cwd=root)
    for maker in ("readnoise", "bias"):
        awe(maker, "-q", stdin=awe("query", "raw_bias", cwd=root), cwd=root)
    return root


@pytest.fixture
def nights(_nights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of the eight nights; the working directory."""
    root = tmp_path / "store"
    shutil.copytree(_nights, root, copy_function=shutil.copy2)
    store = Store(root.resolve())
    rebuild(store)
    monkeypatch.chdir(root)
    return store


def product(kind: str, night: int) -> str:
    """The product of a night that was made last, as the index names it."""
    there = (Path.cwd() / kind / f"2024-03-{2 + night:02}").glob("*.fits")
    return str(max(there, key=lambda path: path.stat().st_mtime_ns))


def compared(run: InProcess, *arguments: object) -> dict[str, dict[str, object]]:
    """The JSON lines of awe-compare, by their quantity."""
    ran = run("compare", "--json", *arguments)
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in ran.lines]
    return {str(row["quantity"]): row for row in rows}


# What a product is compared with


def test_the_predecessor_is_of_the_night_before_and_the_series_of_all_before(
    nights: Store, run: InProcess
) -> None:
    last = product("bias", NIGHTS - 1)
    rows = compared(run, last)
    level = rows["level_adu"]
    values = [
        float(line) for line in awe("query", "bias", "--get", "level_adu", "--order", "night").split()[1:]
    ]
    assert level["path"] == last and level["predecessor"] == product("bias", NIGHTS - 2)
    assert level["now"] == pytest.approx(values[-1]) and level["before"] == pytest.approx(values[-2])
    assert level["difference"] == pytest.approx(values[-1] - values[-2])
    assert level["values"] == NIGHTS - 1 and level["median"] == pytest.approx(np.median(values[:-1]))
    assert level["deviation_sigma"] == pytest.approx((values[-1] - level["median"]) / level["scatter"])  # type: ignore[operator]


def test_last_limits_the_series_and_few_values_have_no_scatter(nights: Store, run: InProcess) -> None:
    level = compared(run, "--last", 4, product("bias", NIGHTS - 1))["level_adu"]
    assert (level["values"], level["scatter"], level["deviation_sigma"]) == (4, None, None)
    assert compared(run, "--last", 0, product("bias", NIGHTS - 1))["level_adu"]["median"] is None


def test_later_nights_do_not_count(nights: Store, run: InProcess) -> None:
    rows = compared(run, product("bias", 2))
    assert rows["level_adu"]["values"] == 2
    assert rows["level_adu"]["predecessor"] == product("bias", 1)


def test_a_version_made_again_is_compared_with_the_one_before(nights: Store, run: InProcess) -> None:
    first = product("bias", 6)
    again = awe("bias", "-q", "--clip-sigma", 4, stdin=awe("query", "raw_bias", "night=2024-03-08")).strip()
    rows = compared(run, again)
    assert rows["level_adu"]["predecessor"] == first
    assert rows["level_adu"]["values"] == 6, "its own night is not in the series"
    assert compared(run, first)["level_adu"]["predecessor"] == product("bias", 5)
    assert compared(run, product("bias", 7))["level_adu"]["predecessor"] == again


def test_what_was_judged_bad_or_is_gone_is_passed_over(nights: Store, run: InProcess) -> None:
    bad, gone = product("bias", 6), product("bias", 5)
    append_verdict(nights, open_product(Path(bad)).key, "bad", "a light was on", "somebody")
    Path(gone).unlink()
    ran = run("compare", "-v", product("bias", 7))
    assert f"passed over {bad}: judged bad" in ran.err and f"passed over {gone}: its file is gone" in ran.err
    level = compared(run, product("bias", 7))["level_adu"]
    assert level["predecessor"] == product("bias", 4) and level["values"] == 5


def test_with_names_the_other_one(nights: Store, run: InProcess, tmp_path: Path) -> None:
    other = product("bias", 0)
    for name in (other, f"{other}.json"):
        shutil.copy2(name, tmp_path / ("other.fits" + (".json" if name.endswith("json") else "")))
    rows = compared(run, "--with", tmp_path / "other.fits", product("bias", 1))
    assert rows["level_adu"]["predecessor"] == str(tmp_path / "other.fits")
    assert rows["difference.median_adu"]["difference"] == pytest.approx(-2, abs=0.3)


def test_nothing_is_written(nights: Store, run: InProcess) -> None:
    def state() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in sorted(nights.root.rglob("*"))
            if path.is_file() and "index" not in path.name
        }

    before = state()
    compared(run, product("bias", 7))
    assert state() == before


# What is compared


def test_pixels_show_a_block_that_changed(nights: Store, run: InProcess) -> None:
    rows = {name: row["difference"] for name, row in compared(run, product("bias", 7)).items()}
    assert rows["difference.median_adu"] == pytest.approx(9.0, abs=0.3)
    assert rows["difference.block_max_adu"] == pytest.approx(2.5, abs=0.4)
    assert rows["difference.block_min_adu"] > -0.9
    quiet = {name: row["difference"] for name, row in compared(run, product("bias", 6)).items()}
    assert quiet["difference.block_stdev_adu"] < 0.15
    assert quiet["difference.pull_stdev"] == pytest.approx(1.0, abs=0.05)
    assert "difference.median_adu" not in compared(run, "--no-pixels", product("bias", 6))


def test_tables_are_compared_by_amplifier(nights: Store, run: InProcess) -> None:
    row = compared(run, product("readnoise", 7))["READ_NOISE_ADU[A]"]
    assert row["now"] == pytest.approx(4.0, abs=0.1) and row["values"] == 7
    assert row["scatter"] == pytest.approx(0.02, abs=0.03)


def test_flats_and_masks_of_a_night(reduced_store: Store, run: InProcess) -> None:
    flats = awe("query", "flat", "detector=sim1").splitlines()
    assert len(flats) == 2
    rows = compared(run, "--with", flats[0], flats[1])
    assert "difference.median_fraction" in rows and "difference.median_fraction[B]" in rows
    masks = awe("query", "hotpix").splitlines()
    rows = compared(run, "--with", masks[0], masks[1])
    assert rows["mask.hot_pixels"]["now"] == rows["hot_pixels"]["now"]
    assert rows["mask.hot_pixels.gained"]["difference"] > 0


def test_relative_differences_of_flats_and_their_structure() -> None:
    rng = np.random.default_rng(1)
    flat = rng.normal(1, 0.02, (128, 128)).astype(np.float32)
    weight = np.full_like(flat, 1e6)
    changed = flat * 1.01
    changed[40:42] *= 1.05
    found = {one.name: one for one in compare_frames(Frame(changed, weight), Frame(flat, weight), "")}
    assert found["difference.median_fraction"].difference == pytest.approx(0.01, rel=1e-3)
    assert found["difference.outlier_fraction"].difference == pytest.approx(2 / 128)
    weight[0, 0] = 0
    flat[0, 0] = np.nan
    again = {one.name: one for one in compare_frames(Frame(changed, weight), Frame(flat, weight), "")}
    assert again["difference.median_fraction"].difference == pytest.approx(0.01, rel=1e-3)


masks = arrays(np.int16, (6, 7), elements=st.integers(0, 2047))


@given(masks, masks)
def test_pixels_gained_less_those_lost_are_the_difference(one: np.ndarray, other: np.ndarray) -> None:
    found = {q.name: q for q in compare_frames(Frame(one, mask=one), Frame(other, mask=other), "")}
    for name, quantity in found.items():
        if name.endswith("_pixels"):
            gained, lost = (found[f"{name}.{what}"].difference for what in ("gained", "lost"))
            assert gained is not None and lost is not None
            assert quantity.difference == gained - lost
            assert quantity.now is not None and quantity.before is not None
            assert quantity.now - quantity.before == quantity.difference
    assert bool(found) == bool(one.any() or other.any())


def test_frames_that_cannot_be_compared() -> None:
    small, large = (Frame(np.ones((n, 8), np.float32)) for n in (8, 9))
    with pytest.raises(Mixture, match="8 x 8 and 8 x 9"):
        list(compare_frames(small, large))
    nothing = Frame(np.full((8, 8), np.nan, np.float32))
    with pytest.raises(BadPixels, match="no good pixel"):
        list(compare_frames(small, nothing))


# Series


@pytest.mark.parametrize("count", [5, 8, 10, 30])
def test_the_scatter_of_a_series_is_unbiased(count: int) -> None:
    rng = np.random.default_rng(count)
    found = [running(list(rng.normal(10, 2, count)))[1] for _ in range(4000)]
    assert np.mean([one for one in found if one is not None]) == pytest.approx(2, rel=0.03)


@given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=20), st.floats(-1e3, 1e3), st.floats(0.1, 10))
def test_median_and_scatter_follow_shift_and_scale(values: list[float], shift: float, scale: float) -> None:
    median, scatter = running(values)
    moved = running([scale * one + shift for one in values])
    assert median is not None and scatter is not None
    assert moved[0] == pytest.approx(scale * median + shift, abs=1e-6)
    assert moved[1] == pytest.approx(scale * scatter, abs=1e-6)


def test_short_series() -> None:
    assert running([]) == (None, None)
    assert running([3.0]) == (3.0, None)
    assert running([1.0] * 5) == (1.0, 0.0)


# Limits


def comparison(*quantities: Quantity) -> Comparison:
    return Comparison(Path("p.fits"), None, 0, quantities)


def test_bounds() -> None:
    found = comparison(
        Quantity("level_adu", 1.0, 4.0, 3.0, 1.0, 0.5, 9), Quantity("frames", 5, 5, 0, 5, 0.0, 9)
    )
    assert outside(found, [parse_bound("level_adu=3"), parse_bound("level_adu=6sigma")]) == []
    (said,) = outside(found, [Bound("level_adu", 2.9, False)])
    assert said == "level_adu is 4, differs by 3 (limit 2.9)"
    (said,) = outside(found, [Bound("level_adu", 5, True)])
    assert said == "level_adu is 4, +6 sigma from 1, the median of 9 (limit 5)"
    (said,) = outside(found, [Bound("frames", 5, True)])
    assert "does not scatter" in said
    with pytest.raises(UnknownName, match="nearest: level_adu"):
        outside(found, [Bound("level_adus", 1, False)])


@pytest.mark.parametrize(
    "text", ["level_adu", "level_adu=", "=3", "level_adu=x", "level_adu=-1", "a=nansigma"]
)
def test_a_bound_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_bound(text)


def test_strict_and_limits_are_exit_3(nights: Store, run: InProcess) -> None:
    quiet, loud = product("bias", 6), product("bias", 7)
    assert run("compare", "--strict", quiet).code == 0
    ran = run("compare", "--strict", "--sigma", "4", loud)
    assert ran.code == 3 and "outside-limits" in ran.err and "level_adu" in ran.err
    assert "imstat." not in ran.err
    assert run("compare", "--limit", "difference.block_max_adu=3", loud).code == 0
    ran = run("compare", "--limit", "difference.block_max_adu=2", quiet, loud)
    assert ran.code == 3 and "differs by 2." in ran.err and quiet not in ran.err
    ran = run("compare", "--limit", "difference.block_maxx=2", loud)
    assert ran.code == 2 and "unknown-name" in ran.err


# The command


def test_tsv_has_one_header_and_a_line_a_quantity(nights: Store, run: InProcess) -> None:
    names = [product("bias", 6), product("bias", 7)]
    ran = run("compare", *names)
    header, *lines = [line.split("\t") for line in ran.lines]
    assert header[:4] == ["path", "quantity", "before", "now"]
    assert all(len(line) == len(header) for line in lines)
    assert [line[0] for line in lines if line[1] == "level_adu"] == names


def test_bad_inputs(nights: Store, run: InProcess, tmp_path: Path) -> None:
    ran = run("compare", product("bias", 0))
    assert ran.code == 5 and "no-match" in ran.err and "--with FILE" in ran.err
    raw = awe("query", "raw_bias", "--limit", 1).strip()
    ran = run("compare", raw)
    assert ran.code == 4 and "wrong-kind" in ran.err and "awe-imstat" in ran.err
    ran = run("compare", "--with", product("bias", 1), product("readnoise", 2))
    assert ran.code == 4 and "wrong-kind" in ran.err
    ran = run("compare", "missing.fits", product("bias", 2))
    assert ran.code == 4 and "no-such-file" in ran.err
    assert product("bias", 2) in ran.out, "one bad input does not stop the others"


def test_other_kinds_of_other_numbers_are_refused(reduced_store: Store, run: InProcess) -> None:
    first = {kind: awe("query", kind, "detector=sim1").splitlines()[0] for kind in ("bias", "flat", "gain")}
    first |= {kind: awe("query", kind, "detector=sim1").splitlines()[0] for kind in ("readnoise", "domeflat")}
    for one, other in (("bias", "flat"), ("flat", "bias"), ("gain", "readnoise"), ("readnoise", "bias")):
        ran = run("compare", first[one], "--with", first[other])
        assert ran.code == 4 and "wrong-kind" in ran.err and first[other] in ran.err, (one, other)
    ran = run("compare", first["flat"], "--with", first["domeflat"])
    assert ran.code == 0 and "a flat against a domeflat" in ran.err
    second = awe("query", "bias", "detector=sim2").splitlines()[0]
    assert "its detector is sim1" in run("compare", first["bias"], "--with", second).err


def test_a_predecessor_that_is_gone_is_named_where_there_is_no_other(nights: Store, run: InProcess) -> None:
    gone = Path(product("bias", 0))
    gone.unlink()
    ran = run("compare", product("bias", 1))
    assert ran.code == 5 and f"{gone}: its file is gone" in ran.err


@pytest.mark.parametrize("kind", ["coadd", "sources"])
def test_imported_products_are_compared_and_plotted(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    header = fits.Header({**CARDS, "GAIN": 2.0})
    rng = np.random.default_rng(1)
    for number in (1, 2):
        header["DATE-OBS"] = f"2024-03-0{number}T23:00:00"
        columns = [fits.Column(name, "D", array=rng.random(90)) for name in ("x", "y")]
        units = [fits.PrimaryHDU(star_field(number), header)]
        if kind == "sources":
            units = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, header)]
        fits.HDUList(units).writeto(f"f{number}.fits")
        assert run("import_", "--as", kind, f"f{number}.fits", "-o", f"p{number}.fits").code == 0
    ran = run("compare", "--with", "p1.fits", "p2.fits")
    assert ran.code == 0, ran.err
    assert not any("[1]" in line for line in ran.lines), "a source list has no amplifiers"
    assert run("plot", "--numbers", "p1.fits", "p2.fits").code == 0


def test_an_edited_predecessor_is_an_integrity_error(nights: Store, run: InProcess) -> None:
    before = Path(product("bias", 6))
    data = bytearray(before.read_bytes())
    data[3000] ^= 1
    before.write_bytes(data)
    ran = run("compare", product("bias", 7))
    assert ran.code == 8 and str(before) in ran.err


def test_a_table_for_people(nights: Store, monkeypatch: pytest.MonkeyPatch, run: InProcess) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    ran = run("compare", product("bias", 6), product("bias", 7))
    lines = ran.lines
    assert lines[0].endswith("6 nights before it") and lines[1].split()[:3] == ["quantity", "before", "now"]
    assert lines[1].index("values") + len("values") == lines[2].index(" 6 ") + 2, "numbers stand in columns"
    assert any(line.startswith(product("bias", 7)) for line in lines[lines.index("") :])
