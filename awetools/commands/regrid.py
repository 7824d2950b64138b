"""`awe-regrid`: the kind `regrid` as a program."""

from __future__ import annotations

from ..core.kinds.regrid import REGRID
from .maker import maker
from .runner import launch

command = maker(REGRID)


def main() -> None:
    """Run the program."""
    launch(command)
