"""Heavy modules that load when they are first used, so that `--help` and queries answer at once.

Recipes and pixel functions import numpy at the top of their files, as anyone
would; a program that only prints its help must not pay for it.
"""

from __future__ import annotations

import importlib.util
import sys


def load_when_used(name: str) -> None:
    """Make later imports of a module cheap: it is executed at the first access to one of its attributes."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
