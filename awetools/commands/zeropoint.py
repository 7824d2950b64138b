"""`awe-zeropoint`: the kind `zeropoint` as a program."""

from __future__ import annotations

from ..core.kinds.zeropoint import ZEROPOINT
from .maker import maker
from .runner import launch

command = maker(ZEROPOINT)


def main() -> None:
    """Run the program."""
    launch(command)
