"""The inputs that a record names, as references, and where their relative paths lead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..files import parse_address
from ..record import Record
from .lineage import Reference


def references(record: Record, *directories: Path) -> tuple[Reference, ...]:
    """The inputs of a product, in the order of their roles and then of their paths.

    directories: where the product was made and where it is; the first from which
    an input's relative path leads to a file counts.
    """
    bases = [os.path.realpath(one) for one in directories]
    found = [
        Reference(
            role=str(one.get("role")),
            kind=str(one.get("kind") or ("raw_other" if one.get("recipe_key") is None else "?")),
            path=_place(str(one.get("path") or "?"), bases),
            content=one["content"],
            key=one.get("recipe_key"),
            meta=one["meta"] if isinstance(one.get("meta"), dict) else {},
        )
        for one in listed(record)
    ]
    roles = list(dict.fromkeys(one.role for one in found))
    return tuple(sorted(found, key=lambda one: (roles.index(one.role), one.path)))


def listed(record: Record) -> list[dict[str, Any]]:
    """The inputs as the record has them."""
    inputs = record["recipe"].get("inputs")
    return inputs if isinstance(inputs, list) else []


def _place(hint: str, bases: Sequence[str]) -> str:
    places = [_joined(base, hint) for base in dict.fromkeys(bases)]
    there = (one for one in places[1:] if not _is_there(places[0]) and _is_there(one))
    return next(there, places[0])


# The same calibrations are inputs of thousands.
@lru_cache(maxsize=1 << 14)
def _joined(base: str, hint: str) -> str:
    return os.path.normpath(os.path.join(base, hint))


def _is_there(address: str) -> bool:
    return os.path.lexists(parse_address(address).path)
