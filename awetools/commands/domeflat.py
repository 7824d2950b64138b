"""`awe-domeflat`: the kind `domeflat` as a program."""

from __future__ import annotations

from ..core.kinds.domeflat import DOMEFLAT
from .maker import maker
from .runner import launch

command = maker(DOMEFLAT)


def main() -> None:
    """Run the program."""
    launch(command)
