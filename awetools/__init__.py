"""awetools: small programs that reduce wide-field astronomical images, with every bit traceable.

    from awetools import *
    q = (Reduced.chip == 'ccd53') & (Reduced.filter == '841')
    x = [k.imstat.stdev for k in q]
    y = [k.flat.imstat.stdev for k in q]
    pylab.scatter(x, y)

The classes are the declared kinds; every recipe is also a function of arrays:
`awetools.make_bias(FrameSet.of_arrays([...]), params=BiasParams())`. Names are loaded
when they are first used.
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
    "AweError": "core.errors",
    "pylab": "face.pylab",
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
# What `import *` gives besides the classes: nothing that loads numpy.
_LIGHT = ("AweError", "pylab")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__all__":
        return _all()
    if name in _WHERE:
        return getattr(import_module(f"awetools.{_WHERE[name]}"), name)
    if not name[:1].isupper():
        raise AttributeError(f"module 'awetools' has no attribute {name!r}")
    from .face.classes import class_named

    return class_named(name)


def _all() -> list[str]:
    from .face.classes import class_names

    return [*class_names(), *_LIGHT]


def __dir__() -> list[str]:
    return sorted({"__version__", *_WHERE, *_all()})
