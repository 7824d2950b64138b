"""`awe-diff`: the kind `difference` as a program."""

from __future__ import annotations

from ..core.kinds.difference import DIFFERENCE
from .maker import maker
from .runner import launch

command = maker(DIFFERENCE)


def main() -> None:
    """Run the program."""
    launch(command)
