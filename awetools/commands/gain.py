"""`awe-gain`: the kind `gain` as a program."""

from __future__ import annotations

from ..core.kinds.gain import GAIN
from .maker import maker
from .runner import launch

command = maker(GAIN)


def main() -> None:
    """Run the program."""
    launch(command)
