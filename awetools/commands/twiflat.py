"""`awe-twiflat`: the kind `twiflat` as a program."""

from __future__ import annotations

from ..core.kinds.twiflat import TWIFLAT
from .maker import maker
from .runner import launch

command = maker(TWIFLAT)


def main() -> None:
    """Run the program."""
    launch(command)
