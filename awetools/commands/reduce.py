"""`awe-reduce`: the kind `reduced` as a program."""

from __future__ import annotations

from ..core.kinds.reduced import REDUCED
from .maker import maker
from .runner import launch

command = maker(REDUCED)


def main() -> None:
    """Run the program."""
    launch(command)
