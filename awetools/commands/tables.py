"""Rows for people and programs: an aligned table on a terminal, TAB-separated with a header line into a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import options
from .messages import CONTROLS

# A value must not break its line, or steer the terminal.
ONE_LINE = CONTROLS | {ord(char): " " for char in "\t\r\n"}


@options.to_output()
def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], aligned: bool | None = None) -> None:
    """Print rows of texts under the names of their columns; aligned: whatever standard output is."""
    lines = [[text.translate(ONE_LINE) for text in row] for row in (columns, *rows)]
    if not (sys.stdout.isatty() if aligned is None else aligned):
        sys.stdout.writelines("\t".join(line) + "\n" for line in lines)
        return
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        shown = "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        sys.stdout.write(shown.rstrip() + "\n")
