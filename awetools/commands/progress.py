"""A progress bar where a person watches, and nothing where none does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .messages import Messenger


@contextmanager
def progress(total: int | None, what: str, messenger: Messenger) -> Iterator[Callable[[], None]]:
    """A function to call at each step; the bar shows only if standard error is a terminal and -q is not given."""
    watched = sys.stderr.isatty() and not messenger.quiet and not messenger.log_json
    if not watched or (total is not None and total < 2):
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="", dynamic_ncols=True, leave=False) as bar:
        yield lambda: bar.update(1) and None
