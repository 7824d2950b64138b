"""What several declarations share; light, so that `--help` answers at once.

The files of this folder import numpy, the pixel functions and `common` inside
their recipes, never at the top: a program that prints its help, completes a word
or answers a query must not pay for them.
"""

from __future__ import annotations

from typing import Any

from ..kind import MetaByRole
from ..meta import OVERSCAN_MODES
from ..params import param


def overscan_mode_param() -> Any:
    """The parameter that every kind made of raw frames has."""
    return param(
        "auto",
        "How the overscan is subtracted; auto: as the camera table says, none where there is no overscan.",
        choices=("auto", *OVERSCAN_MODES),
    )


def refcat_param() -> Any:
    """The parameter of every kind that takes a reference catalogue."""
    return param(
        "auto",
        "Name of the reference catalogue, or its directory; auto: the one with stars in the field; none: without.",
    )


def bias_is_in_the_dark(inputs: MetaByRole) -> str:
    """Why a kind that takes a dark needs no bias besides, if so (`Need.unless`)."""
    if not inputs.get("dark", {}).get("holds_bias"):
        return ""
    return "the dark was made without one, and holds it"
