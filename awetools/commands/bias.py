"""`awe-bias`: the kind `bias` as a program."""

from __future__ import annotations

from ..core.kinds.bias import BIAS
from .maker import maker
from .runner import launch

command = maker(BIAS)


def main() -> None:
    """Run the program."""
    launch(command)
