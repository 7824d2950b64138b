"""`awe-gastrom`: the kind `gastrom` as a program."""

from __future__ import annotations

from ..core.kinds.gastrom import GASTROM
from .maker import maker
from .runner import launch

command = maker(GASTROM)


def main() -> None:
    """Run the program."""
    launch(command)
