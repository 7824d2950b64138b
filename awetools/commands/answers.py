"""Rows of an answer, printed or written: paths, table, TSV, CSV, JSON lines, VOTable, FITS."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..core.errors import UsageError
from . import options
from .tables import ONE_LINE

if TYPE_CHECKING:
    from ..core.questions.querytables import Column

FORMATS = ("paths", "table", "tsv", "csv", "json", "votable", "fits")


@dataclass(frozen=True)
class Output:
    """How an answer is given, and in which file (None: standard output)."""

    form: str
    path: Path | None = None
    null: bool = False

    @staticmethod
    def of(form: str | None, path: Path | None, columns: bool, null: bool = False) -> Output:
        """From what the command line says; the end of a file's name, or whether there are columns, says the rest."""
        from ..core.questions.querytables import BINARY, format_of

        if form is None and path is not None:
            form = format_of(path)
        if form is None:
            form = ("table" if sys.stdout.isatty() else "tsv") if columns and not null else "paths"
        if null and form != "paths":
            raise UsageError(f"-0 is for names of files, not for --format {form}", hint="--format paths")
        if form in BINARY and path is None and sys.stdout.isatty():
            raise UsageError(f"--format {form} is not for a terminal", hint="-o FILE, or a pipe")
        return Output(form, path, null)


def print_answer(rows: Iterable[dict[str, Any]], columns: Sequence[Column], output: Output) -> int:
    """Print rows, or write them to a file, whose name is then printed; returns how many there were.

    Without any, nothing is printed or written.
    """
    if output.path is None:
        with options.to_output():
            return _write(rows, columns, output, _standard_output())
    return _to_file(rows, columns, output, output.path)


def refuse_same_names(names: Sequence[str], output: Output, hint: str = "") -> None:
    """Raise UsageError where two columns have one name, or one has none; FITS and VOTable do not mind the case."""
    from ..core.questions.querytables import BINARY

    seen: set[str] = set()
    for name in names:
        known = name.lower() if output.form in BINARY else name
        if not known or known in seen:
            raise UsageError(
                f"two columns are called {name!r}" if known else "a column has no name", hint=hint
            )
        seen.add(known)


def _standard_output() -> Callable[[bool], IO[Any]]:
    return lambda binary: sys.stdout.buffer if binary else sys.stdout


def _to_file(rows: Iterable[dict[str, Any]], columns: Sequence[Column], output: Output, path: Path) -> int:
    import io

    from ..core.errors import Unavailable
    from ..core.files import write_whole

    _refuse_other_things(path)
    text, data = io.StringIO(newline=""), io.BytesIO()
    count = _write(rows, columns, output, lambda binary: data if binary else text)
    if count:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{path.parent}: {error.strerror}") from None
        write_whole(path, data.getvalue() or text.getvalue().encode(errors="surrogateescape"))
        options.print_line(str(path))
    return count


def _refuse_other_things(path: Path) -> None:
    """Raise WouldOverwrite if a product, or what is no file, is at a path."""
    import os

    from ..core.errors import WouldOverwrite
    from ..core.record import sidecar

    if os.path.lexists(path) and (not path.is_file() or sidecar(path).exists()):
        what = "a product" if path.is_file() else "no file"
        raise WouldOverwrite(
            f"{path}: exists, and is {what}; it is left as it is", hint="another name for -o"
        )


def _write(
    rows: Iterable[dict[str, Any]],
    columns: Sequence[Column],
    output: Output,
    stream_of: Callable[[bool], IO[Any]],
) -> int:
    from ..core.questions.querytables import BINARY, table_bytes

    names = [column.name for column in columns]
    if output.form in BINARY:
        listed = list(rows)
        if listed:
            stream_of(True).write(table_bytes(columns, listed, output.form))
        return len(listed)
    stream = stream_of(False)
    if output.form == "table":
        return _write_table(list(rows), names, stream)
    line, header = _lines(output, names)
    count = 0
    for row in rows:
        if not count:
            stream.write(header)
        count += 1
        stream.write(line(row))
    return count


def _lines(output: Output, names: list[str]) -> tuple[Callable[[dict[str, Any]], str], str]:
    """What makes a line of a row, and the line before all."""
    from ..core.questions.querytables import csv_line, json_line, text_of

    if output.form == "json":
        return lambda row: json_line(row) + "\n", ""
    if output.form == "csv":
        return lambda row: csv_line(row[name] for name in names), csv_line(names)
    if output.form == "paths":
        end = "\0" if output.null else "\n"
        return lambda row: "\t".join(text_of(row[name]) for name in names) + end, ""
    return lambda row: "\t".join(_one_line(text_of(row[name])) for name in names) + "\n", "\t".join(
        names
    ) + "\n"


def _write_table(rows: list[dict[str, Any]], names: list[str], stream: IO[str]) -> int:
    texts = [[_one_line(_for_people(row[name])) for name in names] for row in rows]
    widths = [max(len(one[n]) for one in [names, *texts]) for n in range(len(names))]
    for line in [names, *texts] if texts else []:
        stream.write(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n"
        )
    return len(rows)


def _for_people(value: object) -> str:
    from ..core.questions.querytables import text_of

    if isinstance(value, float):
        return f"{value:.9g}"
    return ",".join(map(_for_people, value)) if isinstance(value, list) else text_of(value)


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.translate(ONE_LINE)
