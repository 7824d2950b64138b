"""`awe-illumination`: the kind `illumination` as a program."""

from __future__ import annotations

from ..core.kinds.illumination import ILLUMINATION
from .maker import maker
from .runner import launch

command = maker(ILLUMINATION)


def main() -> None:
    """Run the program."""
    launch(command)
