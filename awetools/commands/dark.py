"""`awe-dark`: the kind `dark` as a program."""

from __future__ import annotations

from ..core.kinds.dark import DARK
from .maker import maker
from .runner import launch

command = maker(DARK)


def main() -> None:
    """Run the program."""
    launch(command)
