"""The library under the programs: no click, no printing, no exit."""

from .lazy import load_when_used

load_when_used("numpy")
