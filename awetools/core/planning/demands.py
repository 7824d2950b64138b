"""What a person may ask for besides kinds and conditions: roles left empty, a grid, a product for each of a field."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import UnknownName, UsageError, nearest
from ..gridstore import AUTO, PARAMETER, find_grid
from ..kind import REFCAT, Kind, Need, named
from ..meta import ALIASES, FIELDS
from ..params import params_of
from ..store import Store


def does_without(kind: Kind, need: Need) -> bool:
    """Whether the recipe of a kind can be called without a role that is chosen for it."""
    if need is kind.primary or need.kind == REFCAT or need.select == named():
        return False
    found = inspect.signature(kind.recipe).parameters.get(need.role)
    return found is not None and found.default is not inspect.Parameter.empty


def roles_without(kinds: Iterable[Kind]) -> dict[str, list[str]]:
    """The roles that products can be made without, with the kinds that have them."""
    found: dict[str, list[str]] = {}
    for kind in kinds:
        for need in kind.needs:
            if does_without(kind, need):
                found.setdefault(need.role, []).append(kind.name)
    return found


def check_without(texts: Sequence[str], kinds: Sequence[Kind]) -> frozenset[str]:
    """The roles that are to stay empty, as ROLE or KIND.ROLE. Raises UnknownName with the nearest."""
    roles = roles_without(kinds)
    known = [*roles, *(f"{kind}.{role}" for role, names in roles.items() for kind in names)]
    for text in texts:
        if text not in known:
            raise UnknownName(
                f"--without {text}: there is no such role{nearest(text, known)}; there are: {', '.join(roles)}"
            )
    return frozenset(texts)


def check_fields(names: Sequence[str], kind: Kind | None) -> tuple[str, ...]:
    """The fields of each of whose values one product is wanted. Raises UnknownName, UsageError."""
    if names and (kind is None or not kind.primary.many or kind.primary.kind.startswith("raw_")):
        what = kind.name if kind else "a product by its name"
        raise UsageError(f"--each is for what is made of many products, such as coadd, not for {what}")
    known = [field.name for field in FIELDS if field.type != "json"]
    found = [ALIASES.get(name, name) for name in names]
    for name in found:
        if name not in known:
            raise UnknownName(f"--each {name}: there is no such field{nearest(name, known)}")
    return tuple(found)


def tiles_asked(kind: Kind | None, grid: str, stores: Sequence[Store]) -> tuple[str, ...]:
    """Where the grid of a survey is meant, of whose tiles each is to be a product: their names; else none."""
    name = grid.strip()
    if kind is None or not kind.primary.many or "/" in name or len(name.split()) != 1 or name == AUTO:
        return ()
    found = find_grid(name, stores)
    return () if found.tiles is None else tuple(one for one, _ in found.items())


def on_grid_asked(
    sets: Mapping[str, Mapping[str, Any]], kind: Kind | None, grid: str
) -> dict[str, dict[str, Any]]:
    """The parameters with the grid of the kind that is asked for. Raises UsageError."""
    if kind is None or PARAMETER not in (one.name for one in params_of(kind.params)):
        what = kind.name if kind else "a product by its name"
        raise UsageError(f"--grid is for what is made on a sky grid, regrid and coadd, not for {what}")
    found = {name: dict(values) for name, values in sets.items()}
    found.setdefault(kind.name, {})[PARAMETER] = grid
    return found
