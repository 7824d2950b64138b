"""`awe-sourcelist`: the kind `sourcelist` as a program."""

from __future__ import annotations

from ..core.kinds.sourcelist import SOURCELIST
from .maker import maker
from .runner import launch

command = maker(SOURCELIST)


def main() -> None:
    """Run the program."""
    launch(command)
