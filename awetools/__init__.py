"""awetools: small programs that reduce wide-field astronomical images, with every bit traceable.

From Python, every recipe is a function of arrays: `awetools.make_bias(FrameSet.of_arrays([...]), None,
BiasParams())`. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Frame": "core.frame",
    "FrameSet": "core.frame",
    "RawFrame": "core.frame",
    "Table": "core.frame",
    "Result": "core.kind",
    "KINDS": "core.kinds",
    "Store": "core.store",
    "BiasParams": "core.kinds.bias",
    "make_bias": "core.kinds.bias",
    "ReadnoiseParams": "core.kinds.readnoise",
    "make_readnoise": "core.kinds.readnoise",
    "GainParams": "core.kinds.gain",
    "make_gain": "core.kinds.gain",
    "HotpixParams": "core.kinds.hotpix",
    "make_hotpix": "core.kinds.hotpix",
    "DomeflatParams": "core.kinds.domeflat",
    "make_domeflat": "core.kinds.domeflat",
    "FlatParams": "core.kinds.flat",
    "make_flat": "core.kinds.flat",
    "ReducedParams": "core.kinds.reduced",
    "make_reduced": "core.kinds.reduced",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'awetools' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"awetools.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
