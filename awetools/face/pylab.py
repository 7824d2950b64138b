"""`pylab`: matplotlib's, loaded when it is first used."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_NAME = "matplotlib.pylab"


class Pylab:
    """Stands for the module matplotlib.pylab; raises ImportError where matplotlib is not installed."""

    def __init__(self) -> None:
        self._at_once = False

    def draws_at_once(self, at_once: bool) -> None:
        """Whether, with a display, figures show as they are drawn: for who sits at a prompt."""
        self._at_once = at_once

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._module(), name)

    def __dir__(self) -> list[str]:
        return dir(self._module())

    def __repr__(self) -> str:
        return f"<{_NAME}, loaded when it is first used>"

    def _module(self) -> ModuleType:
        is_new = _NAME not in sys.modules
        try:
            module = import_module(_NAME)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "matplotlib":
                raise
            raise ImportError(
                "pylab needs matplotlib: pip install 'awetools[plot]'", name="matplotlib"
            ) from None
        if is_new:
            self._begin(module)
        return module

    def _begin(self, module: ModuleType) -> None:
        import logging

        if str(module.get_backend()).lower() == "agg":
            logging.getLogger("awetools").info("no display: pylab.savefig('plot.png') writes what was drawn")
        elif self._at_once:
            module.ion()


pylab = Pylab()
