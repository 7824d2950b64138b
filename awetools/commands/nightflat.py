"""`awe-nightflat`: the kind `nightflat` as a program."""

from __future__ import annotations

from ..core.kinds.nightflat import NIGHTFLAT
from .maker import maker
from .runner import launch

command = maker(NIGHTFLAT)


def main() -> None:
    """Run the program."""
    launch(command)
