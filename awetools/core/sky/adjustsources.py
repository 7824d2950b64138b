"""Which sources of a table a global solution rests on."""

from __future__ import annotations

import numpy as np

from .local import OFF, Columns, chosen_sources
from .match import Places
from .solve import Sources

# With fewer good ones, the compact: no wider than so many times what a fifth are narrower than.
LEAST_GOOD = 6
NARROW, COMPACT = 0.2, 1.4


def rests_on(columns: Columns, signal_to_noise: float) -> tuple[Places, Sources]:
    """Rows of a source table (kind `sources`), and these sources: the good stars of `chosen_sources`.

    Where next to none is (a galaxy fills the frame, and its knots are taken for what stars look like),
    the most compact that are neither saturated nor cut off nor without a centre, above the same ratio.
    """
    chosen = chosen_sources(columns, signal_to_noise)
    x, y, flux, error = (
        np.asarray(column, np.float64) for column in (chosen.x, chosen.y, chosen.flux, chosen.error_px)
    )
    usable = np.isfinite(x) & np.isfinite(y)
    rows = np.flatnonzero(usable if chosen.good is None else np.asarray(chosen.good) & usable)
    if len(rows) < LEAST_GOOD:
        off = (np.asarray(columns["FLAGS"], np.int64) & OFF) != 0
        with np.errstate(all="ignore"):
            ratio = np.asarray(columns["FLUX_AUTO_ADU"], np.float64) / columns["FLUX_AUTO_ERROR_ADU"]
        rows = np.flatnonzero(usable & ~off & (ratio >= signal_to_noise))
        width = np.asarray(columns["FWHM_PX"], np.float64)[rows]
        if len(rows):
            rows = rows[width <= COMPACT * np.nanquantile(width, NARROW)]
    return rows, Sources(x[rows], y[rows], flux[rows], error[rows])
