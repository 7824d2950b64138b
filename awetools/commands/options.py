"""Every option and argument that several commands share, each written once."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ..core.errors import EmptyInput, Unavailable, UsageError
from .messages import Messenger

F = TypeVar("F", bound=Callable[..., Any])

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def common(function: F) -> F:
    """-q, -v, --log-json, --version: every command has them; they configure the Messenger."""
    for option in (
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_set_quiet,
            help="Only warnings and errors.",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_set_verbose,
            help="More; -vv with tracebacks.",
        ),
        click.option(
            "--log-json",
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Each line of standard error is a JSON object.",
        ),
        click.option(
            "--version",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=print_version,
            help="Print the version and stop.",
        ),
    ):
        function = option(function)
    return function


def inputs(metavar: str = "FILE...") -> Callable[[F], F]:
    """File names as arguments, or one a line from standard input; -0 for NUL-separated names."""

    def decorate(function: F) -> F:
        function = click.argument("names", nargs=-1, type=click.Path(readable=False), metavar=f"[{metavar}]")(
            function
        )
        return click.option(
            "-0", "--null", "null", is_flag=True, help="Names on standard input and output end in NUL."
        )(function)

    return decorate


def json_output(function: F) -> F:
    """--json: one JSON object a line instead of paths or text."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")(function)


def processes(function: F) -> F:
    """-j N."""
    return click.option(
        "-j",
        "--jobs",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Number of processes.",
    )(function)


def read_names(names: Sequence[str], null: bool) -> list[str]:
    """The input names: the arguments, or standard input if there are none or one is `-`.

    A line that begins with `{` is JSON with a `path`. Raises EmptyInput if
    standard input was read and held nothing, UsageError on a terminal.
    """
    if "" in names:
        raise UsageError("an input has an empty name: is a variable of the shell empty?")
    if names and "-" not in names:
        return list(names)
    piped = names_in(read_input(terminal=bool(names)), null)
    listed: list[str] = []
    for name in names or ("-",):
        listed += piped if name == "-" else [name]
    return listed


def read_input(terminal: bool = False) -> bytes:
    """All of standard input; raises EmptyInput if it holds nothing, UsageError on a terminal unless allowed."""
    if sys.stdin is None or (sys.stdin.isatty() and not terminal):
        raise UsageError("no input: give file names, or pipe them in", hint="awe-query lists files that fit")
    text = sys.stdin.buffer.read()
    if not text.replace(b"\0", b"").strip():
        raise EmptyInput("standard input was empty: the command before this one failed or found nothing")
    return text


def names_in(text: bytes, null: bool) -> list[str]:
    """The names that a text lists, one a line or NUL-separated; a line of JSON gives its path."""
    parts = [os.fsdecode(part) for part in text.split(b"\0" if null else b"\n")]
    return [_name(part) for part in parts if part.strip()]


def _name(line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        path = json.loads(line)["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        path = None
    if not isinstance(path, str):
        raise UsageError(f"standard input: not a JSON object with a path: {line[:80]}")
    return path


def print_line(text: str, null: bool = False) -> None:
    """One line of data on standard output, at once, so that the next program can begin."""
    with to_output():
        sys.stdout.write(text + ("\0" if null else "\n"))
        sys.stdout.flush()


def flush_output() -> None:
    """Send on what was printed; raises as `to_output` does."""
    with to_output():
        sys.stdout.flush()


@contextmanager
def to_output() -> Iterator[None]:
    """Around printing: raises Unavailable where standard output does not take it, or BrokenPipeError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unavailable(f"standard output: {error.strerror}") from None


def parse_bytes(text: str) -> int:
    """A number of bytes such as 800M or 2G; raises UsageError."""
    units = {"k": 10, "m": 20, "g": 30, "t": 40}
    body = text.strip().lower().removesuffix("b").removesuffix("i")
    shift = units.get(body[-1:], 0)
    try:
        number = float(body[:-1] if shift else body)
    except ValueError:
        number = -1.0
    if not 0 < number < 1 << 40:
        raise UsageError(f"--memory {text}: not a number of bytes such as 800M or 2G")
    return max(1 << 24, int(number * (1 << shift)))


class Finite(click.FloatRange):
    """A number in a range; nan and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; fails for nan and infinity."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number", param, ctx)
        return number

    def _describe_range(self) -> str:
        """What the help says of the range: nothing where there is none."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class _Path(click.Path):
    """A path that is not empty: an empty text would stand for the directory here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; fails for an empty text."""
        if value == "":
            self.fail("the name is empty: is a variable of the shell empty?", param, ctx)
        return super().convert(value, param, ctx)


def path_option(*names: str, help: str, **more: Any) -> Callable[[F], F]:
    """An option that is a path; its text is kept as typed."""
    return click.option(
        *names,
        type=_Path(path_type=Path, readable=False),
        metavar=more.pop("metavar", "FILE"),
        help=help,
        **more,
    )


def _messenger(context: click.Context) -> Messenger:
    found = context.find_object(Messenger)
    assert found is not None
    return found


def _set_quiet(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    _messenger(context).quiet = value


def _set_verbose(context: click.Context, _parameter: click.Parameter, value: int) -> None:
    _messenger(context).verbose = value


def _set_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    _messenger(context).log_json = value


def print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Print the version and stop."""
    if value and not context.resilient_parsing:
        from .. import __version__

        print_line(f"awetools {__version__}")
        context.exit()
