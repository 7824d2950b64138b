"""`awe-flat`: the kind `flat` as a program."""

from __future__ import annotations

from ..core.kinds.flat import FLAT
from .maker import maker
from .runner import launch

command = maker(FLAT)


def main() -> None:
    """Run the program."""
    launch(command)
