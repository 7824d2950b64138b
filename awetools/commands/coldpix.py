"""`awe-coldpix`: the kind `coldpix` as a program."""

from __future__ import annotations

from ..core.kinds.coldpix import COLDPIX
from .maker import maker
from .runner import launch

command = maker(COLDPIX)


def main() -> None:
    """Run the program."""
    launch(command)
