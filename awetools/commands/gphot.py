"""`awe-gphot`: the kind `gphot` as a program."""

from __future__ import annotations

from ..core.kinds.gphot import GPHOT
from .maker import maker
from .runner import launch

command = maker(GPHOT)


def main() -> None:
    """Run the program."""
    launch(command)
