"""`awe-hotpix`: the kind `hotpix` as a program."""

from __future__ import annotations

from ..core.kinds.hotpix import HOTPIX
from .maker import maker
from .runner import launch

command = maker(HOTPIX)


def main() -> None:
    """Run the program."""
    launch(command)
