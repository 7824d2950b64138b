"""What `list` prints of named things on the search path: a table or JSON lines, and what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import AweError, worst
from . import options
from .messages import Messenger
from .tables import print_table


def print_list(
    messenger: Messenger,
    things: Iterable[Callable[[], Mapping[str, Any]]],
    columns: Sequence[str],
    text: Callable[[object], str],
    as_json: bool,
    nothing: str,
) -> int:
    """Print a line a thing; the exit code is that of the worst which cannot be read.

    things: each says what is known of it, or raises; text: how a value stands in the table;
    nothing: what is noted where there is none.
    """
    rows, codes = [], []
    for known in things:
        try:
            about = known()
        except AweError as error:
            messenger.error(error)
            codes.append(error.exit_code)
            continue
        if as_json:
            options.print_line(json.dumps(about))
        rows.append([text(about[name]) for name in columns])
    if rows and not as_json:
        print_table(columns, rows)
    if not rows and not codes:
        messenger.note(nothing)
    return worst(codes)
