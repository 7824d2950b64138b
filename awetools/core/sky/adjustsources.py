"""Which sources of a table a global solution rests on."""

from __future__ import annotations

import numpy as np

from .local import OFF, Columns, chosen_sources
from .match import Places
from .solve import Sources

# With fewer good ones, all that have a centre to rely on.
LEAST_GOOD = 12


def rests_on(columns: Columns, signal_to_noise: float) -> tuple[Places, Sources]:
    """Rows of a source table (kind `sources`), and these sources: the good stars of `chosen_sources`.

    Where next to none is (a trailed frame has no stars by their shape, a galaxy hides them), all that
    are neither saturated nor cut off nor without a centre, above the same ratio.
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
    return rows, Sources(x[rows], y[rows], flux[rows], error[rows])
