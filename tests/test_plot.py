"""`awe-plot`: the numbers behind each plot, the pictures that are drawn of them, and what it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from awetools.commands.plot import WHATS
from awetools.core.changes import change_of
from awetools.core.errors import (
    BadPixels,
    BadValue,
    EmptyInput,
    NoImage,
    NoSolution,
    TooFew,
    UnknownName,
    UsageError,
    WrongKind,
)
from awetools.core.frame import Frame, RawFrame, Table
from awetools.core.pixels.mask import Bit
from awetools.core.plots.amplifiers import Measured, by_amplifier, linearity, photon_transfer
from awetools.core.plots.columns import columns_plot, rows_from_text
from awetools.core.plots.detector import (
    Shown,
    from_smooth,
    histogram,
    mask_overlay,
    overscan,
    profile,
    residual,
)
from awetools.core.plots.figure import Curve, Panel, Plot, label_of, logged, numbers_of
from awetools.core.png import SIGNATURE
from awetools.core.store import Store
from tests.support import ROOT, InProcess, Ran, awe, bias_frames, program


def shown(data: np.ndarray, unit: str = "adu", weight: np.ndarray | None = None, label: str = "") -> Shown:
    return Shown("x.fits", label, Frame(data.astype(np.float32), weight), unit)


def drawn(plot: Plot, form: str = "svg") -> bytes:
    pytest.importorskip("matplotlib")
    from awetools.core.plots.draw import draw

    return draw(plot, form, 60)


# Labels


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("level_adu", "level (ADU)"),
        ("read_noise_adu", "read noise (ADU)"),
        ("gain_e_adu", "gain (e\N{SUPERSCRIPT MINUS}/ADU)"),
        ("exptime_s", "exptime (s)"),
        ("temperature_c", "temperature (\N{DEGREE SIGN}C)"),
        ("hot_pixels", "hot pixels"),
        ("imstat.median", "median"),
    ],
)
def test_labels_say_the_unit(name: str, label: str) -> None:
    assert label_of(name) == label


# Overscan


def overscan_frame(drift: np.ndarray) -> RawFrame:
    rng = np.random.default_rng(2)
    raw = rng.normal(0, 3, (len(drift), 80)) + 1000 + drift[:, None]
    sections = [
        {"amp": "A", "data": "[1:48,1:200]", "overscan": "[49:80,1:200]", "target": "[1:48,1:200]", "hdu": 0}
    ]
    return RawFrame.of_array(
        raw.round().astype(np.uint16), {"sections": sections, "overscan_mode": "rows-smooth"}
    )


def test_overscan_has_the_rows_and_what_is_subtracted() -> None:
    drift = 5 * np.linspace(-1, 1, 200)
    (panel,) = overscan([("", overscan_frame(drift))]).panels
    rows, model = panel.curves
    assert panel.title == "amplifier A" and model.label == "subtracted (rows-smooth)"
    assert rows.x[0] == 1 and len(rows.y) == 200
    assert np.abs(model.y - 1000 - drift).max() < 1.0 < np.abs(rows.y - 1000 - drift).max()


def test_a_frame_without_overscan() -> None:
    with pytest.raises(NoImage, match="no overscan"):
        overscan([("d1", RawFrame.of_array(np.ones((8, 8))))])


# Profiles


def test_profile_is_the_mean_of_the_good_pixels() -> None:
    data = np.add.outer(np.zeros(40), np.arange(60.0)) + np.random.default_rng(0).normal(0, 0.1, (40, 60))
    weight = np.ones((40, 60), np.float32)
    data[3, 5], data[4, 7] = 1e5, np.nan
    weight[6, 9] = 0
    across, along = profile([shown(data, weight=weight)]).panels
    assert across.curves[0].y == pytest.approx(np.arange(60.0), abs=0.1)
    assert along.curves[0].y == pytest.approx(np.full(40, 29.5), abs=0.5)
    assert across.x_label == "column (px)" and across.y_label == "mean of the column (ADU)"


def test_a_bad_column_does_not_flatten_the_profile() -> None:
    data = np.random.default_rng(0).normal(100, 1, (50, 400))
    data[:, 70] = 6e4
    across = profile([shown(data)]).panels[0]
    assert across.y_limits is not None and across.y_limits[1] < 110
    assert across.note.startswith("1 column beyond the frame") and across.note.endswith("to 60000)")


def test_profiles_of_two_units_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="no unit"):
        profile([shown(np.ones((8, 8))), shown(np.ones((8, 8)), "")])


def test_masks_have_no_profile_and_empty_images_none() -> None:
    mask = np.zeros((8, 8), np.int16)
    with pytest.raises(WrongKind, match="no profile"):
        profile([Shown("m.fits", "", Frame(mask, mask=mask), "")])
    with pytest.raises(BadPixels, match="no good pixel"):
        profile([shown(np.full((8, 8), np.nan))])


# Histograms


def test_histogram_counts_every_pixel_and_has_its_gaussian() -> None:
    data = np.random.default_rng(5).normal(50, 3, (300, 300))
    (panel,) = histogram([shown(data)]).panels
    counts, model = panel.curves
    assert np.nansum(counts.y) == pytest.approx(1, abs=1e-3)
    assert len(counts.x) == len(counts.y) + 1
    middle = 0.5 * (counts.x[1:] + counts.x[:-1])
    assert np.interp(50, model.x, model.y) == pytest.approx(np.interp(50, middle, counts.y), rel=0.05)
    assert "median 50" in counts.label and "scatter 3" in counts.label


def test_whole_numbers_get_bins_of_whole_numbers() -> None:
    data = np.random.default_rng(5).normal(1000, 60, (200, 200)).round()
    counts = histogram([shown(data)]).panels[0].curves[0]
    steps = np.diff(counts.x)
    assert (steps == np.rint(steps)).all() and counts.x[0] % 1 == 0.5


def test_pulls_of_right_weights_follow_the_unit_gaussian() -> None:
    rng = np.random.default_rng(6)
    sigma = np.where(np.arange(256) < 128, 2.0, 5.0) * np.ones((256, 1))
    sky = 100 + 0.05 * np.arange(256)[:, None]
    one = shown(sky + sigma * rng.normal(size=(256, 256)), weight=(1 / sigma**2).astype(np.float32))
    counts, unit = histogram([one], pulls=True).panels[0].curves
    middle = 0.5 * (counts.x[1:] + counts.x[:-1])
    inside = np.abs(middle) < 2
    assert counts.y[inside] == pytest.approx(np.interp(middle, unit.x, unit.y)[inside], rel=0.12)
    with pytest.raises(NoImage, match="no weights"):
        histogram([shown(np.ones((8, 8)))], pulls=True)


# Residuals


def test_residual_shows_the_block_that_changed() -> None:
    before = np.random.default_rng(1).normal(10, 0.5, (1024, 1024)).astype(np.float32)
    now = before + 2
    now[128:192, 256:320] += 1
    (panel,) = residual([("", change_of(Frame(now), Frame(before), "adu"))]).panels
    assert panel.map is not None and panel.map.values.shape == (16, 16)
    assert panel.map.values[2, 4] == pytest.approx(1, abs=0.01)
    assert np.abs(np.delete(panel.map.values.ravel(), 2 * 16 + 4)).max() < 1e-3
    assert panel.title.startswith("level +2 ADU") and panel.map.label == "difference of 64 px blocks (ADU)"


def test_residual_against_the_smooth_version_is_relative_for_flats() -> None:
    y, x = np.mgrid[:512, :512]
    flat = 1 + 0.1 * (x - 256) / 256 + np.where((x - 200) ** 2 + (y - 300) ** 2 < 30**2, -0.05, 0.0)
    (panel,) = residual([("", from_smooth(shown(flat, ""), 32))], 32).panels
    assert panel.map is not None
    row, column = np.unravel_index(np.argmin(panel.map.values), panel.map.values.shape)
    assert (row, column) in ((9, 5), (9, 6)) and panel.map.label.endswith("(%)")
    assert panel.map.values.min() < -2 and panel.map.values.max() < 1


# Masks


def test_mask_overlay_counts_bits_and_keeps_single_pixels() -> None:
    mask = np.zeros((900, 900), np.int16)
    mask[450, 100] = Bit.COSMIC
    mask[:, 5] = Bit.HOT | Bit.SATURATED
    one = Shown("x.fits", "d1", Frame(np.ones((900, 900), np.float32), mask=mask), "adu")
    (panel,) = mask_overlay([one]).panels
    assert panel.map is not None
    found = {name: where for name, where, _ in panel.map.overlays}
    assert set(found) == {"cosmic", "hot", "saturated"} and found["cosmic"].sum() == 1
    assert panel.title.splitlines()[1] == "hot 900, saturated 900, cosmic 1 px"
    with pytest.raises(NoImage, match="no mask"):
        mask_overlay([shown(np.ones((8, 8)))])


# Gain


def gain_table(measured: bool = True) -> Table:
    level = np.array([[30000.0, 10000, 20000, 25000], [28000, 9000, 18000, 24000]])
    gain = np.array([2.0, 1.6])
    fit = level / gain[:, None] * (1 - 1e-6 * level)
    return Table(
        {
            "AMP": np.array(["A", "B"]),
            "GAIN_E_ADU": gain,
            "GAIN_ERROR_E_ADU": np.array([0.01, 0.02]),
            "PAIR_LEVEL_ADU": level,
            "PAIR_VARIANCE_ADU2": fit * 1.001,
            "PAIR_ERROR_ADU2": fit * 0.002,
            "PAIR_FIT_ADU2": fit,
            "PAIR_USED": np.array([[1, 1, 1, 0], [1, 1, 1, 1]]),
            "LINEARITY_EXPOSURES": np.array([4, 4]) * measured,
            "FLAT_LEVEL_ADU": level,
            "FLAT_DEVIATION_FRACTION": -1e-6 * level,
        }
    )


def test_photon_transfer_shows_pairs_fit_and_what_was_left_out() -> None:
    above, below = photon_transfer([Measured("gain.fits", "", gain_table())]).panels
    points, fit, left_out, *_ = above.curves
    assert points.label == "amplifier A: 2 e\N{SUPERSCRIPT MINUS}/ADU" and len(points.y) == 3
    assert list(fit.x) == [10000, 20000, 25000, 30000]
    assert left_out.style == "left-out" and list(left_out.x) == [25000]
    assert below.curves[1].y == pytest.approx([-1, -2, -2.5, -3])
    assert below.levels == (0.0,)


def test_linearity_in_per_cent_and_where_it_was_not_measured() -> None:
    (panel,) = linearity([Measured("gain.fits", "", gain_table())]).panels
    assert panel.curves[0].y == pytest.approx([-3, -1, -2, -2.5])
    with pytest.raises(NoSolution, match="not measured"):
        linearity([Measured("gain.fits", "", gain_table(measured=False))])
    with pytest.raises(WrongKind, match="no photon transfer"):
        photon_transfer([Measured("x.fits", "", Table({"AMP": np.array(["A"])}))])


def test_by_amplifier_has_error_bars_from_the_column_of_errors() -> None:
    panels = by_amplifier([Measured("gain.fits", "", gain_table())]).panels
    (gain,) = [panel for panel in panels if panel.y_label.startswith("gain")]
    assert list(gain.curves[0].x) == ["A", "B"]
    assert gain.curves[0].error is not None and list(gain.curves[0].error) == [0.01, 0.02]
    assert len(panels) == 2, "neither the errors nor the vectors have a panel of their own"


# Columns of numbers


TSV = "night\tdetector\tlevel_adu\n2024-03-03\tccd1\t7\n2024-03-02\tccd1\t5\n2024-03-02\tccd2\t\n2024-03-03\tccd2\t6\n"


def test_columns_against_dates_by_detector() -> None:
    (panel,) = columns_plot(rows_from_text(TSV)).panels
    assert [curve.label for curve in panel.curves] == ["ccd1", "ccd2"]
    first, second = panel.curves
    assert first.x.dtype.kind == "M" and list(first.y) == [5, 7]
    assert list(second.y) == [6], "a row without a value is left out"
    assert (panel.x_label, panel.y_label) == ("night", "level (ADU)")


def test_json_lines_are_the_same_columns() -> None:
    rows = rows_from_text(TSV)
    text = "\n".join(json.dumps(row) for row in rows)
    assert rows_from_text(text) == rows


def test_csv_is_the_same_columns_and_what_is_left_out_is_told(
    run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_from_text(TSV)
    assert rows_from_text(TSV.replace("\t", ",").replace("\n", "\r\n")) == rows
    assert rows_from_text('a,b\n"x,\u2028",2\n') == [{"a": "x,\u2028", "b": 2.0}]
    assert rows_from_text('{"a": ' + "9" * 400 + "}") == [{"a": float("inf")}]
    text = io.TextIOWrapper(io.BytesIO(b"a\tb\ninf\t2\n1\t\n5\t6\n"))
    monkeypatch.setattr("sys.stdin", text)
    ran = run("plot", "--scatter", "--numbers")
    assert ran.code == 0 and "b: 2 of 3 rows have no number to plot" in ran.err and len(ran.lines) == 2


def test_columns_that_are_chosen() -> None:
    rows = rows_from_text("a\tb\tc\n1\t2\t3\n2\t4\t9\n")
    plot = columns_plot(rows, "c", ["a", "b"], log="x")
    assert [panel.y_label for panel in plot.panels] == ["a", "b"]
    assert list(plot.panels[1].curves[0].x) == [3, 9] and plot.panels[1].log_x
    assert [panel.y_label for panel in columns_plot(rows).panels] == ["b", "c"]
    assert list(columns_plot(rows_from_text("a\n3\n4\n")).panels[0].curves[0].x) == [1, 2]


@pytest.mark.parametrize(
    ("text", "given", "error"),
    [
        ("", {}, EmptyInput),
        ("a\tb\n1\n", {}, UsageError),
        ("a\tb\n", {}, TooFew),
        ("a\ta\n1\t2\n", {}, UsageError),
        ("a\tb\nx\ty\n", {}, TooFew),
        ("a\tb\n1\t2\n", {"y": ["bb"]}, UnknownName),
        ("{not json}\n", {}, UsageError),
        ("a\tb\n1\t\n", {"y": ["b"]}, TooFew),
    ],
)
def test_columns_that_cannot_be_plotted(text: str, given: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        columns_plot(rows_from_text(text), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\ninf\t1e308\n-1e308\t-1e308\n1\t2\n", 1),
        ("a\tb\n1e400\t1\nnan\t2\n3\tinf\n1\t2\n", 1),
        ("night\tv\n2024-03-02\t1\n9999-12-31\t2\n0001-01-01\t3\n", 3),
        ("night\tv\n-271821-04-20T00:00\t1\n300000-01-01T00:00\t3\n", 2),
    ],
)
def test_values_beyond_all_bounds_do_not_stop_the_others(text: str, shown: int) -> None:
    plot = columns_plot(rows_from_text(text))
    assert drawn(plot, "png") and drawn(plot)
    assert sum(curve.y.size for panel in plot.panels for curve in panel.curves) == shown


def test_logarithms_of_what_has_none_are_told() -> None:
    rows = [{"night": "2024-03-02", "a": -1.0, "b": 5.0}, {"night": "2024-03-03", "a": 0.0, "b": -2.0}]
    plot = columns_plot(rows, log="y")
    assert [panel.log_y for panel in plot.panels] == [False, True]
    assert plot.panels[1].note == "1 points not above 0"
    assert drawn(plot, "png") and drawn(plot)
    with pytest.raises(BadValue, match="--log x"):
        columns_plot(rows, log="xy")


@pytest.mark.parametrize("limits", [(-3.0, 4.0), (0.0, 4.0), (-4.0, -3.0)])
def test_limits_below_0_of_a_logarithmic_axis_draw_without_a_word(limits: tuple[float, float]) -> None:
    curve = Curve("a", np.array([1.0, 2.0, 3.0]), np.array([0.0, -1.0, 2.0]))
    panel = Panel("x", "y", curves=[curve], x_limits=limits, y_limits=limits, levels=(0.0,), marks=(0.0,))
    assert drawn(logged(Plot([panel]), "xy"), "png")


def test_numbers_of_a_plot_are_all_there() -> None:
    plot = columns_plot(rows_from_text(TSV))
    assert [(curve, y) for _, curve, _, y, _ in numbers_of(plot)] == [("ccd1", 5), ("ccd1", 7), ("ccd2", 6)]


# Drawing


def test_svg_contains_the_labels_and_is_the_same_again() -> None:
    plot = photon_transfer([Measured("gain.fits", "", gain_table())])
    text = drawn(plot).decode()
    for label in ("level (ADU)", "Photon transfer", "left out"):
        assert f">{label}<" in text, label
    assert "amplifier A: 2" in text
    assert drawn(plot).decode() == text
    assert "dc:date" not in text and "Matplotlib v" not in text


def test_png_is_the_same_again_and_holds_no_text() -> None:
    plot = histogram([shown(np.random.default_rng(0).normal(0, 1, (64, 64)))])
    data = drawn(plot, "png")
    assert data.startswith(SIGNATURE) and drawn(plot, "png") == data
    assert b"tEXt" not in data and b"iTXt" not in data


def test_texts_dates_many_points_and_constants_are_drawn() -> None:
    x = np.arange(500)
    curves = [Curve("cloud", x, np.sin(x)), Curve("line", x, np.cos(x), "line", 8)]
    texts = Curve("", np.array(["B", "R"], object), np.array([4.0, 4.0]), error=np.array([0.1, 0.2]))
    dates = Curve("", np.array(["2024-03-02", "2024-03-09"], "datetime64[ms]"), np.array([1.5, 2.5]))
    panels = [
        Panel("x", "y", "", curves),
        Panel("filter", "frames", "", [texts]),
        Panel("t", "y", "", [dates]),
    ]
    text = drawn(Plot(panels, "Title", 3)).decode()
    assert all(f">{word}<" in text for word in ("B", "R", "frames", "cloud", "Title"))


def test_names_are_drawn_as_they_stand() -> None:
    name = "a $1$ & <b> \x07 \udcff \N{CJK UNIFIED IDEOGRAPH-661F}"
    curves = [Curve(name, np.arange(3.0), np.arange(3.0)), Curve("", np.arange(3.0), np.arange(3.0))]
    texts = Curve("", np.array([name], object), np.array([1.0]))
    text = drawn(Plot([Panel("x", "y", name, curves), Panel("z", "y", "", [texts])], name)).decode()
    assert "a $1$ &amp; &lt;b&gt; \ufffd \ufffd" in text
    assert all(one.isprintable() or one in "\n\t" for one in text)


def test_nothing_imports_matplotlib_before_it_draws() -> None:
    script = (
        "import sys\nimport awetools.core.plots.inputs, awetools.core.plots.draw, awetools.commands.plot\n"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


# The command


def pictures(store: Store) -> dict[str, list[str]]:
    (raw,) = awe("query", "raw_science", "detector=sim1", "--limit", 1).splitlines()
    biases, reduced = awe("query", "bias").splitlines(), awe("query", "reduced", "--limit", 2).splitlines()
    return {
        "amplifiers": awe("query", "readnoise").splitlines(),
        "overscan": [raw],
        "profile": biases,
        "histogram": [raw],
        "pulls": reduced,
        "mask": reduced,
        "residual": biases[:1],
        "measures": biases,
    }


def test_every_plot_of_files_is_drawn_by_the_command(reduced_store: Store, run: InProcess) -> None:
    pytest.importorskip("matplotlib")
    for what, names in pictures(reduced_store).items():
        path = Path(f"plots/{what}.{'svg' if what in ('amplifiers', 'overscan') else 'png'}")
        ran = run("plot", "-o", path, "--what", what, "--dpi", 40, *names)
        assert ran.code == 0, ran.err
        assert ran.lines == [str(path)] and path.stat().st_size > 2000
    assert b"amplifier" in Path("plots/amplifiers.svg").read_bytes()
    assert b"overscan (ADU)" in Path("plots/overscan.svg").read_bytes()


def test_what_is_plotted_by_default(reduced_store: Store, run: InProcess) -> None:
    fits = {"amplifiers": "amplifier", "overscan": "row", "profile": "column", "pulls": "SCI"}
    for what, names in pictures(reduced_store).items():
        if what in fits:
            assert (
                run("plot", "--numbers", *names).out == run("plot", "--numbers", "--what", what, *names).out
            )
    mask = awe("query", "hotpix", "--limit", 1).strip()
    assert run("plot", "--numbers", mask).lines[0] == "panel\tcurve\tx\ty\terror"
    bias = awe("query", "bias", "--limit", 1).strip()
    ran = run("plot", "--numbers", mask, bias)
    assert ran.code == 2 and "--what" in ran.err


def test_residual_against_the_named_product(reduced_store: Store, run: InProcess) -> None:
    one, other = awe("query", "bias").splitlines()
    ran = run("plot", "--numbers", "--what", "residual", "--with", other, one)
    assert ran.code == 0 and f"against {other}" in ran.err
    ran = run("plot", "--numbers", "--what", "residual", one)
    assert "smooth version" in ran.err


def test_a_query_is_plotted_from_standard_input(
    reduced_store: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def piped(text: str, *arguments: object) -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return run("plot", *arguments)

    for form in ((), ("--json",)):
        text = awe("query", "bias", "--get", "detector,level_adu,read_noise_adu", *form)
        ran = piped(text, "-o", "trend.svg")
        assert (ran.code, ran.out) == (0, "trend.svg\n"), ran.err
        svg = Path("trend.svg").read_text()
        assert ">level (ADU)<" in svg and ">read noise (ADU)<" in svg and ">sim1<" in svg
    paths = awe("query", "bias")
    ran = piped(paths, "--numbers", "--what", "measures", "--y", "level_adu")
    assert ran.code == 0 and len(ran.lines) == 3
    jsons = awe("query", "bias", "--json", "--get", "path,level_adu")
    assert piped(jsons, "--numbers").lines[1].startswith("mean of the column"), "a path: files"
    ran = piped(jsons, "--numbers", "--x", "level_adu", "--y", "level_adu")
    assert len(ran.lines) == 3


def test_what_is_refused(reduced_store: Store, run: InProcess) -> None:
    (bias, *_) = awe("query", "bias").splitlines()
    (readnoise, *_) = awe("query", "readnoise").splitlines()
    (hotpix, *_) = awe("query", "hotpix").splitlines()
    (flat, *_) = awe("query", "flat").splitlines()
    Path("notes.png").write_text("mine")
    for arguments, code, said in (
        ((bias,), 2, "-o FILE.png"),
        (("-o", "x.jpg", bias), 2, "must end in .png or .svg"),
        (("-o", "notes.png", bias), 2, "would-overwrite"),
        (("--numbers", "--what", "overscan", bias), 4, "wrong-kind"),
        (("--numbers", "--what", "profile", readnoise), 4, "wrong-kind"),
        (("--numbers", "--what", "amplifiers", bias), 4, "wrong-kind"),
        (("--numbers", "--what", "photon-transfer", readnoise), 4, "wrong-kind"),
        (("--numbers", "--what", "measures", "--y", "levle_adu", bias), 2, "nearest: level_adu"),
        (("--numbers", "--x", "night", bias), 2, "standard input"),
        (("--numbers", "missing.fits"), 4, "no-such-file"),
        (("--numbers", "--what", "residual", bias, "--with", "missing.fits"), 4, "no-such-file"),
        (("--numbers", "--what", "residual", bias, "--with", hotpix), 4, "a mask has no residual"),
        (("--numbers", "--what", "residual", bias, "--with", flat), 2, "no unit"),
        (("--numbers", "--what", "residual", "--log", "y", bias), 2, "--log y"),
    ):
        ran = run("plot", *arguments)
        assert ran.code == code and said in ran.err, (arguments, ran.err)
        assert ran.out == ""
    assert Path("notes.png").read_text() == "mine"


def test_raw_frames_need_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess) -> None:
    monkeypatch.chdir(tmp_path)
    paths = bias_frames(tmp_path / "raw", 2)
    ran = run("plot", "--numbers", *paths)
    assert ran.code == 0 and "median 1000" in ran.out


def test_without_matplotlib_the_numbers_are_there_and_the_hint(tmp_path: Path) -> None:
    fake = tmp_path / "fake" / "matplotlib"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise ImportError('no')\n")
    env = {"PYTHONPATH": f"{fake.parent}:{ROOT}"}
    ran = program("plot", "-o", tmp_path / "x.png", stdin=TSV, env=env)
    assert ran.code == 7 and "unavailable" in ran.err and "pip install 'awetools[plot]'" in ran.err
    assert not (tmp_path / "x.png").exists()
    assert program("plot", "--numbers", stdin=TSV, env=env).code == 0


def test_settings_of_the_person_take_no_part(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    home = tmp_path / "home"
    home.mkdir()
    (home / "matplotlibrc").write_text("axes.facecolor: red\nsvg.fonttype: path\n")
    plain = program("plot", "-q", "-o", tmp_path / "a.svg", stdin=TSV)
    for directory in (str(home), "/dev/null/nowhere"):
        env = {"MPLCONFIGDIR": directory, "MPLBACKEND": "agg", "DISPLAY": ""}
        ran = program("plot", "-q", "-o", tmp_path / "b.svg", stdin=TSV, env=env)
        assert (ran.code, ran.err, plain.err) == (0, "", "")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_command_offers_every_plot() -> None:
    from awetools.core.plots.inputs import IMAGES, TABLES

    assert set(WHATS) == {*TABLES, *IMAGES, "overscan", "residual", "measures", "columns"}


def test_every_plot_is_named_in_the_help(run: InProcess) -> None:
    text = run("plot", "--help").out
    assert all(f" {what} " in text for what in WHATS)
