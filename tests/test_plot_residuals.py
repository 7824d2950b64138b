"""The five panels of an astrometric solution: what is wrong with it is in their numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from awetools.core.errors import TooFew, WrongKind
from awetools.core.frame import Table
from awetools.core.plots.amplifiers import Measured
from awetools.core.plots.draw import draw
from awetools.core.plots.figure import Curve, Panel
from awetools.core.plots.residuals import astrometry
from awetools.core.plots.solutions import frames, odd_ones

NX, NY = 2048, 4096
WCS = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 30.0,
    "CRPIX1": 1024.0,
    "CRPIX2": 2048.0,
    "CD1_1": 0.0,
    "CD1_2": 5e-5,
    "CD2_1": 5e-5,
    "CD2_2": 0.0,
}


def solution(
    n: int = 100, cubic: float = 0.0, clipped: int = 5, wcs: dict[str, object] | None = None
) -> Table:
    """Matched stars of a solution with errors of 0.02 to 0.1 arcsec, and a distortion that it left."""
    rng = np.random.default_rng(3)
    x, y, mag = rng.uniform(1, NX, n), rng.uniform(1, NY, n), rng.uniform(14, 21, n)
    sigma = 0.02 + 0.08 * 10 ** (0.4 * (mag - 21))
    residual = rng.normal(0, 1, (2, n)) * sigma
    residual[0] += cubic * ((x - NX / 2) / (NX / 2)) ** 3
    used = np.ones(n, np.int16)
    used[:clipped] = 0
    residual[:, :clipped] += 2.0
    columns = {
        "NUMBER": np.arange(1, n + 1),
        "X_PX": x,
        "Y_PX": y,
        "DRA_ARCSEC": residual[0],
        "DDEC_ARCSEC": residual[1],
        "SIGMA_ARCSEC": sigma,
        "MAG_REF": mag,
        "FLUX_AUTO_ADU": 10 ** (-0.4 * (mag - 30)),
        "USED": used,
    }
    return Table(columns, {"nx": NX, "ny": NY, "wcs": wcs})


def panels_of(table: Table) -> list[Panel]:
    found = astrometry([Measured("a.fits", "", table)]).panels
    assert len(found) == 5
    return list(found)


def curves(panel: Panel, style: str) -> list[Curve]:
    return [curve for curve in panel.curves if curve.style == style]


def test_stars_clipped_and_rms_are_told() -> None:
    arrows, scatter, *_ = panels_of(solution())
    assert arrows.title == "95 stars, 5 clipped" and scatter.title.endswith(", 5 beyond the frame")
    assert len(curves(arrows, "left-out")[0].x) == 5
    used = solution().columns["DRA_ARCSEC"][5:]
    assert float(scatter.title.split()[1].strip(",")) == pytest.approx(np.sqrt(np.mean(used**2)), rel=0.02)


def test_a_distortion_leaps_out_of_the_means_and_stays_out_of_the_other_axis() -> None:
    _, _, against_x, against_y, _ = panels_of(solution(900, cubic=0.1))
    ra, dec = curves(against_x, "points")
    assert ra.error is not None and ra.y[0] < -4 * ra.error[0] and ra.y[-1] > 4 * ra.error[-1]
    assert dec.error is not None and (np.abs(dec.y) < 4 * dec.error).all()
    # The axis is so near that the means are seen.
    assert against_x.y_limits is not None and np.abs(ra.y).max() > against_x.y_limits[1] / 8
    assert (np.abs(curves(against_y, "points")[1].y) < 0.02).all()


def test_arrows_of_many_stars_are_means_of_cells_and_show_the_same() -> None:
    arrows, *_ = panels_of(solution(900, cubic=0.3, wcs=None))
    stars, key = curves(arrows, "arrows")
    assert len(stars.x) < 250 and "means of cells" in arrows.title
    assert stars.heads is not None and key.heads is not None and key.label.startswith("arrow of ")
    # Without a solution RA grows to the left: the last columns miss to the left, the first ones to the right.
    shift = stars.heads[:, 0] - stars.x
    assert shift[stars.x > 1800].mean() < 0 < shift[stars.x < 250].mean()


def test_arrows_point_along_pixels_where_the_solution_is_known() -> None:
    table = solution(60, clipped=0, wcs=dict(WCS))
    table.columns["DRA_ARCSEC"][:] = 0.5
    table.columns["DDEC_ARCSEC"][:] = 0.0
    arrows, *_ = panels_of(table)
    stars, key = curves(arrows, "arrows")
    assert stars.heads is not None and key.heads is not None
    # RA grows along y in this system, 0.18 arcsec a pixel.
    across, up = stars.heads[:, 0] - stars.x, stars.heads[:, 1] - stars.y
    assert (up > 0).all() and (np.abs(across) < 0.01 * up).all()
    length = float(key.label.split()[2])
    assert (key.heads[0, 0] - key.x[0]) / length == pytest.approx(up.mean() / 0.5, rel=1e-3)


def test_against_magnitude_stand_the_errors_that_were_expected() -> None:
    *_, panel = panels_of(solution(900))
    assert panel.wide and panel.x_label == "magnitude of the catalogue"
    above, below = curves(panel, "model")
    assert np.allclose(above.y, -below.y) and above.y[0] == pytest.approx(0.02, rel=0.05)
    assert above.y[-1] == pytest.approx(0.09, rel=0.2)
    table = solution(50)
    table.columns["MAG_REF"][:] = np.nan
    *_, panel = panels_of(table)
    assert panel.x_label == "instrumental magnitude" and len(curves(panel, "cloud")[0].x) == 45


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_few_stars_are_drawn_too(n: int) -> None:
    pytest.importorskip("matplotlib")
    for clipped in (0, n - 1):
        plot = astrometry([Measured("a.fits", "", solution(n, clipped=clipped))])
        assert draw(plot, "png", 40).startswith(b"\x89PNG")


def test_residuals_that_are_all_0_and_unknown_errors() -> None:
    pytest.importorskip("matplotlib")
    table = solution(40, clipped=0)
    for name in ("DRA_ARCSEC", "DDEC_ARCSEC"):
        table.columns[name][:] = 0
    for name in ("SIGMA_ARCSEC", "MAG_REF", "FLUX_AUTO_ADU"):
        table.columns[name][:] = np.nan
    plot = astrometry([Measured("a.fits", "", table)])
    assert plot.panels[-1].note == "no magnitudes" and draw(plot, "svg").startswith(b"<?xml")


def test_several_solutions_are_one_plot_and_what_is_none_is_refused() -> None:
    both = astrometry([Measured("a.fits", "a", solution(30)), Measured("b.fits", "b", solution(20))])
    assert both.panels[0].title == "40 stars, 10 clipped"
    with pytest.raises(TooFew, match="no star was used"):
        panels_of(solution(5, clipped=5))
    with pytest.raises(WrongKind, match="no X_PX, Y_PX"):
        panels_of(Table({"DRA_ARCSEC": np.zeros(2), "DDEC_ARCSEC": np.zeros(2)}))


def test_the_picture_is_the_same_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = astrometry([Measured("a.fits", "", solution(300, wcs=dict(WCS)))])
    text = draw(plot, "svg").decode()
    assert draw(plot, "svg").decode() == text and ">clipped<" in text and ">expected error<" in text


# Global solutions


def global_solution(n: int = 12, bad: int | None = None, ra0: float = 0.01) -> Table:
    """Frames of two detectors side by side, about RA 0, with one rms that stands out."""
    exposures = np.repeat([f"e{number:02d}" for number in range(n // 2)], 2)
    detectors = np.tile(["a", "b"], n // 2)
    rms = np.random.default_rng(1).normal(0.05, 0.003, n)
    if bad is not None:
        rms[bad] = 0.4
    ra = (ra0 + np.tile([0.05, -0.05], n // 2)) % 360
    cards = [
        {**WCS, "CRVAL1": float(one), "CRVAL2": 0.0, "CRPIX1": (NX + 1) / 2, "CRPIX2": (NY + 1) / 2}
        for one in ra
    ]
    columns = {
        "DETECTOR": detectors,
        "EXPOSURE": exposures,
        "RA_DEG": ra,
        "DEC_DEG": np.zeros(n),
        "WCS": np.array([json.dumps(one) for one in cards]),
        "RMS_ARCSEC": rms,
        "N_STARS": np.full(n, 100),
    }
    return Table(columns, {})


def test_frames_lie_side_by_side_across_ra_0() -> None:
    sky, rms, stars = frames([Measured("g.fits", "", global_solution())]).panels
    (outlines,) = sky.curves
    # A degree is 20000 pixels; x of the detector is north here, y is east.
    assert np.nanmax(outlines.x) == pytest.approx(0.05 + NY / 2 * 5e-5, abs=1e-4)
    assert np.nanmin(outlines.x) == pytest.approx(-0.05 - NY / 2 * 5e-5, abs=1e-4)
    assert np.nanmax(outlines.y) == pytest.approx(NX / 2 * 5e-5, abs=1e-4)
    assert sky.x_limits is not None and sky.x_limits[0] > sky.x_limits[1], "east is left"
    assert [curve.label for curve in rms.curves] == ["detector a", "detector b"]
    assert stars.y_label == "stars" and list(rms.curves[0].x) == [1, 2, 3, 4, 5, 6]


def test_the_frame_that_fits_badly_is_named() -> None:
    pytest.importorskip("matplotlib")
    plot = frames([Measured("g.fits", "", global_solution(bad=5))])
    sky = plot.panels[0]
    assert "large rms: e02 b" in sky.title and [curve.label for curve in sky.curves] == [
        "frames",
        "large rms",
    ]
    assert draw(plot, "png", 40).startswith(b"\x89PNG")
    with pytest.raises(WrongKind, match="one global solution"):
        frames([Measured("g.fits", "", global_solution())] * 2)
    with pytest.raises(WrongKind, match="no DETECTOR"):
        frames([Measured("g.fits", "", solution())])


def test_frames_that_are_alike_are_not_odd() -> None:
    assert not odd_ones(np.full(8, 0.05)).any()
    assert odd_ones(np.array([0.05] * 8 + [0.06, np.nan])).tolist() == [False] * 8 + [True, True]
    assert odd_ones(np.array([np.nan])).all()
