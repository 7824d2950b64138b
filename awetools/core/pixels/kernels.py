"""The C kernels, and which of them this installation has; each has a numpy twin that gives the same bits."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

# One `_NAME.c` each in this folder.
KERNELS = (
    "bytes",
    "calibrate",
    "coadd",
    "cosmic",
    "overscan",
    "resample",
    "sha256",
    "smooth",
    "sources",
    "stack",
    "stats",
    "weight",
)

# `numpy` here makes every kernel's twin do the work.
SWITCH = "AWETOOLS_KERNELS"

_loaded: dict[str, ModuleType | None] = {}


def kernel(name: str) -> ModuleType | None:
    """The compiled module `_NAME` of this folder; None where it was not built, or AWETOOLS_KERNELS=numpy."""
    if os.environ.get(SWITCH) == "numpy":
        return None
    if name not in _loaded:
        try:
            _loaded[name] = importlib.import_module(f"{__package__}._{name}")
        except ImportError:
            _loaded[name] = None
    return _loaded[name]


def not_built() -> list[str]:
    """The kernels that this installation lacks: what they do is done by numpy, and takes longer."""
    return [name for name in KERNELS if importlib.util.find_spec(f"{__package__}._{name}") is None]
