"""`awe-sources`: the kind `sources` as a program."""

from __future__ import annotations

from ..core.kinds.sources import SOURCES
from .maker import maker
from .runner import launch

command = maker(SOURCES)


def main() -> None:
    """Run the program."""
    launch(command)
