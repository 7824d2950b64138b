"""The numbers of the plots of tables with a row an amplifier: photon transfer, linearity, any column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import NoSolution, WrongKind
from ..frame import Table
from .figure import Curve, Panel, Plot, label_of, unit_label

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

PER_CENT = 100.0
# Columns of a gain product; those of pairs and of flats hold a number for each of them in a row.
GAIN, EXCESS = "GAIN_E_ADU", "EXCESS_ADU2"
PAIR_LEVEL, PAIR_VARIANCE, PAIR_ERROR = "PAIR_LEVEL_ADU", "PAIR_VARIANCE_ADU2", "PAIR_ERROR_ADU2"
PAIR_FIT, PAIR_USED = "PAIR_FIT_ADU2", "PAIR_USED"
FLAT_LEVEL, FLAT_DEVIATION = "FLAT_LEVEL_ADU", "FLAT_DEVIATION_FRACTION"
FLATS = "LINEARITY_EXPOSURES"
# A column that is the error of another one has this in its name besides.
ERROR_MARK = "_ERROR"


@dataclass(frozen=True)
class Measured:
    """A table of numbers to be plotted: the name of its file, and its label in a legend with others."""

    name: str
    label: str
    table: Table


def photon_transfer(tables: Sequence[Measured]) -> Plot:
    """Variance of flats by their photons against their level (ADU^2, ADU), and the fitted curve.

    Below the same, less what the curve has at level 0, as the deviation of variance /
    level from 1 / gain, per cent: a falling curve is the brighter-fatter effect, or
    nonlinearity. A curve an amplifier of every table; one without light has none.
    Raises WrongKind for a table without, NoSolution where no amplifier has light.
    """
    above: list[Curve] = []
    below: list[Curve] = []
    for number, (label, table, row) in enumerate(_rows(tables, PAIR_LEVEL, "photon transfer curve")):
        level, variance, error, fit, used = (
            vector(table, name, row) for name in (PAIR_LEVEL, PAIR_VARIANCE, PAIR_ERROR, PAIR_FIT, PAIR_USED)
        )
        gain = float(table.columns[GAIN][row])
        lit = level > 0
        if not lit.any():
            continue
        excess = float(table.columns[EXCESS][row]) if EXCESS in table.columns else 0.0
        per_cent = PER_CENT * gain / np.where(lit, level, 1)
        said = f"{label}: {gain:.4g} {unit_label('e/adu')}"
        above += _fitted(said, number, level, variance, error, fit, lit, used > 0)
        below += _fitted(
            "",
            number,
            level,
            (variance - excess) * per_cent - PER_CENT,
            error * per_cent,
            (fit - excess) * per_cent - PER_CENT,
            lit,
            used > 0,
        )
    if not above:
        raise NoSolution(f"{tables[0].name}: no amplifier has light, so there is no photon transfer curve")
    x, limits = label_of("level_adu"), (0.0, _top(above))
    return Plot(
        [
            Panel(x, label_of("variance_adu2"), "", above, x_limits=limits),
            Panel(
                x,
                "variance \N{MULTIPLICATION SIGN} gain / level \N{MINUS SIGN} 1 (%)",
                "",
                below,
                levels=(0.0,),
                x_limits=limits,
            ),
        ],
        "Photon transfer",
        heights=(1.25, 0.95),
    )


def linearity(tables: Sequence[Measured]) -> Plot:
    """Deviation from a linear response against the level, per cent and ADU; a curve an amplifier of every table.

    Raises WrongKind for a table without the curve, NoSolution where it was not measured.
    """
    curves = []
    for number, (label, table, row) in enumerate(_rows(tables, FLAT_LEVEL, "linearity curve")):
        level, deviation = vector(table, FLAT_LEVEL, row), vector(table, FLAT_DEVIATION, row)
        if table.columns[FLATS][row]:
            curves.append(Curve(label, level, deviation * PER_CENT, "points", number))
    if not curves:
        raise NoSolution(
            f"{tables[0].name}: its linearity was not measured: that takes several exposure times of a "
            "stable lamp",
            hint="awe-plot --what photon-transfer",
        )
    panel = Panel(
        label_of("level_adu"),
        "deviation from linear (%)",
        "",
        curves,
        levels=(0.0,),
        x_limits=(0.0, _top(curves)),
    )
    return Plot([panel], "Linearity", heights=(1.25,))


def _top(curves: Sequence[Curve]) -> float:
    return 1.04 * max(float(curve.x.max()) for curve in curves if curve.x.size)


def _fitted(
    label: str,
    number: int,
    level: Doubles,
    value: Doubles,
    error: Doubles,
    fit: Doubles,
    lit: Bools,
    used: Bools,
) -> list[Curve]:
    """The points that were used, those that were not, and the curve through all levels."""
    order = np.argsort(level, kind="stable")
    order = order[lit[order]]
    good, bad = lit & used, lit & ~used
    curves = [
        Curve(label, level[good], value[good], "points", number, error[good]),
        Curve("", level[order], fit[order], "model", number),
    ]
    return [*curves, Curve("left out", level[bad], value[bad], "left-out", number)] if bad.any() else curves


def by_amplifier(tables: Sequence[Measured]) -> Plot:
    """Every column of numbers against the amplifier: a panel a column, a curve a table.

    A column `ERROR_X` or `X_ERROR_...` is not a panel but the error bars of column X.
    """
    columns: dict[str, list[Curve]] = {}
    for number, one in enumerate(tables):
        names = amplifiers(one.table)
        for column, values in one.table.columns.items():
            if np.ndim(values) != 1 or values.dtype.kind not in "iuf":
                continue
            error = _error_of(one.table, column)
            curve = Curve(one.label, names, values.astype(float), "points", number, error)
            columns.setdefault(column, []).append(curve)
    if not columns:
        raise WrongKind(f"{tables[0].name}: the table has no column of numbers")
    errors = {_error_name(one.table, column) for one in tables for column in one.table.columns}
    panels = [
        Panel("amplifier", label_of(name.lower()), "", curves)
        for name, curves in columns.items()
        if name not in errors
    ]
    return Plot(panels, "By amplifier", 1 if len(panels) <= 3 else 3)


def amplifiers(table: Table) -> npt.NDArray[Any]:
    """The names of a table's rows."""
    columns = table.columns
    if "AMP" in columns:
        return np.array([str(one).strip() for one in columns["AMP"]], object)
    return np.array([str(row + 1) for row in range(len(next(iter(columns.values()))))], object)


def has_column(table: Table, name: str) -> bool:
    """Whether a table has a column."""
    return name in table.columns


def vector(table: Table, name: str, row: int) -> Doubles:
    """The numbers that a column holds in a row."""
    return np.atleast_1d(np.asarray(table.columns[name][row], np.float64))


def _rows(tables: Sequence[Measured], column: str, what: str) -> list[tuple[str, Table, int]]:
    found = []
    for one in tables:
        if not has_column(one.table, column):
            raise WrongKind(f"{one.name}: the table has no {what}", hint="awe-gain makes one")
        for row, name in enumerate(amplifiers(one.table)):
            label = f"{one.label} {name}" if len(tables) > 1 else f"amplifier {name}"
            found.append((label, one.table, row))
    return found


def _error_name(table: Table, column: str) -> str | None:
    """The column that holds the errors of a column, by its name."""
    marked = [name for name in table.columns if ERROR_MARK in name]
    return next((name for name in marked if name.replace(ERROR_MARK, "") == column), None)


def _error_of(table: Table, column: str) -> Doubles | None:
    name = _error_name(table, column)
    return None if name is None else np.asarray(table.columns[name], np.float64)
