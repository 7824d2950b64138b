"""`awe-fringe`: the kind `fringe` as a program."""

from __future__ import annotations

from ..core.kinds.fringe import FRINGE
from .maker import maker
from .runner import launch

command = maker(FRINGE)


def main() -> None:
    """Run the program."""
    launch(command)
