"""`awe-readnoise`: the kind `readnoise` as a program."""

from __future__ import annotations

from ..core.kinds.readnoise import READNOISE
from .maker import maker
from .runner import launch

command = maker(READNOISE)


def main() -> None:
    """Run the program."""
    launch(command)
