"""What several declarations share; light, so that `--help` answers at once.

The files of this folder import numpy, the pixel functions and `common` inside
their recipes, never at the top: a program that prints its help, completes a word
or answers a query must not pay for them.
"""

from __future__ import annotations

from typing import Any

from ..kind import MetaByRole, Need, valid_at
from ..meta import OVERSCAN_MODES, on_grid
from ..params import param

# As in pixels.resample, which needs numpy.
KERNELS = ("lagrange6", "lagrange8", "lanczos2", "lanczos3", "lanczos4", "bilinear", "nearest", "area")


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


def grid_param() -> Any:
    """The parameter of every kind whose pixels are those of a sky grid."""
    return param(
        "auto",
        "The sky grid: NAME or NAME/TILE (awe-grid), or the text of one, as 'TAN 202.4696 47.1952 0.25 4096x4096'; "
        "auto: around the frames, north up, at their scale.",
    )


def kernel_param() -> Any:
    """How pixels are interpolated."""
    return param(
        "auto",
        "How pixels are interpolated; auto: what measures best for the seeing and the scale; area: means over the "
        "pixels of the grid.",
        choices=("auto", *KERNELS),
    )


def edges_param() -> Any:
    """What of each frame is not used on a grid of the sky."""
    return param(
        "0",
        "Pixels along the edges of each reduced frame that are not used: one number, or left,right,bottom,top.",
        unit="px",
    )


def sky_mesh_param() -> Any:
    """The cells of a background that is subtracted from images with objects in them."""
    return param(
        256, "Size of the cells in which the background is measured.", unit="px", low=16, high=100_000
    )


def illumination_need(*roles: str, many: bool = False) -> Need:
    """The correction of what flats have wrong for stars, for what fills the roles; none is made for it.

    What is on a sky grid already needs none.
    """

    def gridded(inputs: MetaByRole) -> str:
        if not any(on_grid(inputs.get(role, {})) for role in roles):
            return ""
        return "the pixels are those of a sky grid, and are taken as they are"

    return Need(
        "illumination",
        "illumination",
        valid_at(),
        many=many,
        optional=True,
        on_request=True,
        unless=gridded,
        help="Illumination correction of the instrument and filter.",
    )


def bias_is_in_the_dark(inputs: MetaByRole) -> str:
    """Why a kind that takes a dark needs no bias besides, if so (`Need.unless`)."""
    if not inputs.get("dark", {}).get("holds_bias"):
        return ""
    return "the dark was made without one, and holds it"
