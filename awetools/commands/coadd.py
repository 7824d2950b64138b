"""`awe-coadd`: the kind `coadd` as a program."""

from __future__ import annotations

from ..core.kinds.coadd import COADD
from .maker import maker
from .runner import launch

command = maker(COADD)


def main() -> None:
    """Run the program."""
    launch(command)
