"""`awe-astrom`: the kind `astrom` as a program."""

from __future__ import annotations

from ..core.kinds.astrom import ASTROM
from .maker import maker
from .runner import launch

command = maker(ASTROM)


def main() -> None:
    """Run the program."""
    launch(command)
