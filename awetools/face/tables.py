"""Answers as tables: to look at in a terminal or notebook, and for astropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astropy.table import Table

Rows = Sequence[dict[str, Any]]


def text_table(columns: Sequence[str], rows: Rows, count: str) -> str:
    """Columns of text under their names, and how many there are."""
    shown = [_begin(columns), *([_text(row[name]) for name in _begin(columns)] for row in rows)]
    widths = [max(len(line[n]) for line in shown) for n in range(len(shown[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in shown]
    return "\n".join([*(line.rstrip() for line in lines if rows), f"<{count}>"])


def html_table(columns: Sequence[str], rows: Rows, count: str) -> str:
    """The same for a notebook."""
    from html import escape

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"

    lines = [cells("th", columns), *(cells("td", [_text(row[name]) for name in columns]) for row in rows)]
    return f"<table>{''.join(lines)}</table><p>{escape(count)}</p>"


def _begin(columns: Sequence[str]) -> list[str]:
    """The path comes last, as it is long."""
    return [*(name for name in columns if name != "path"), *(name for name in columns if name == "path")]


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split("\n"))


def table_of(kind: str, rows: Rows, columns: Sequence[str]) -> Table:
    """Rows as a table of astropy: with units, and with what has no value masked."""
    from astropy.table import Column, MaskedColumn, Table

    units = _units(kind)
    made = []
    for name in columns:
        values = [_plain(row[name]) for row in rows]
        if None not in values:
            made.append(Column(values, name, unit=units.get(name)))
            continue
        fill = next((type(one)() for one in values if one is not None), 0.0)
        known = [fill if one is None else one for one in values]
        made.append(MaskedColumn(known, name, mask=[one is None for one in values], unit=units.get(name)))
    return Table(made)


def _plain(value: Any) -> Any:
    return ", ".join(str(one) for one in value) if isinstance(value, list | dict) else value


def _units(kind: str) -> dict[str, str]:
    """The units of fields that astropy knows."""
    from ..core.meta import FIELDS

    known = {"s": "s", "deg": "deg", "arcsec": "arcsec", "px": "pix", "C": "deg_C", "ADU": "adu"}
    return {field.name: known[field.unit] for field in FIELDS if field.unit in known}
