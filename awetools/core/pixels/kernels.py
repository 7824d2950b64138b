"""Which C kernels this installation has; each has a numpy twin that gives the same bits."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

# `numpy` here makes every kernel's twin do the work.
SWITCH = "AWETOOLS_KERNELS"

_missing: set[str] = set()


def kernel(name: str) -> ModuleType | None:
    """The compiled module `_NAME` of this folder; None where it was not built, or AWETOOLS_KERNELS=numpy."""
    if os.environ.get(SWITCH) == "numpy":
        return None
    try:
        return importlib.import_module(f"{__package__}._{name}")
    except ImportError:
        _missing.add(name)
        return None


def missing() -> list[str]:
    """The kernels that were asked for and are not there, so that a program can say that it runs slower."""
    return sorted(_missing)
