"""Parameters and limits as rows for people: for a frame, for a filter, as files say them, or side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .kind import Kind, Limit, Validity
from .params import Param, Scalar, params_of, value_text
from .settings import (
    BESIDES,
    FOREVER,
    LIMITS,
    SCOPES,
    VALIDITY,
    Settings,
    environment_layers,
    limit_of,
    limits_with_origins,
    origin_of,
    resolve_params,
    resolve_validity,
    tables_of,
    validity_from,
)
from .store import Store
from .workspace import Workspace

BUILT_IN = "built-in"
_UNITS = {
    "adu": "ADU",
    "e": "e",
    "s": "s",
    "px": "px",
    "arcsec": "arcsec",
    "mag": "mag",
    "deg": "deg",
    "sigma": "sigma",
    "c": "C",
}


@dataclass(frozen=True)
class Row:
    """A parameter (or `limits.MEASURE`, `validity_nights`) of a kind: what it is worth, where from, its range.

    value: a text, number or truth; of a limit [low, high], None for an open side; of a
    validity [before, after] in nights, or `forever` for a side or both.
    """

    kind: str
    name: str
    value: object
    unit: str
    origin: str
    range_text: str = ""

    @property
    def text(self) -> str:
        """The value in words: 3.0, true, 900..1100."""
        if not isinstance(self.value, list):
            return value_text(self.value)
        return "..".join(
            bound if isinstance(bound, str) else "" if bound is None else f"{bound:.9g}"
            for bound in self.value
        )


@dataclass(frozen=True)
class View:
    """What parameters are looked at for: the settings in force, and a frame's meta or what is known of it.

    over: values by kind that outweigh all others, with their name.
    """

    workspace: Workspace
    meta: Mapping[str, Any]
    over: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    over_origin: str = "command line"

    @property
    def label(self) -> str:
        """The scopes that are known, such as `camera=nickel filter=R`; empty in general."""
        return " ".join(f"{name}={self.meta[name]}" for name in SCOPES if self.meta.get(name) is not None)


def rows_of(kind: Kind, view: View) -> list[Row]:
    """Every parameter, every limit and the default validity of a kind, as a maker would take it."""
    workspace = view.workspace
    camera = workspace.camera_settings(view.meta)
    resolved = resolve_params(kind, view.meta, camera, workspace.settings, {})
    if over := view.over.get(kind.name):
        from dataclasses import replace

        values = replace(resolved.values, **over)
        resolved = replace(
            resolved, values=values, origins={**resolved.origins, **dict.fromkeys(over, view.over_origin)}
        )
    if "sections" in view.meta:
        from .planning.plan import with_overscan_mode

        resolved, _ = with_overscan_mode(resolved, view.meta)
    found = [
        _param_row(kind, one, getattr(resolved.values, one.name), resolved.origins[one.name])
        for one in params_of(kind.params)
    ]
    limits = limits_with_origins(kind, view.meta, camera, workspace.settings)
    found += [_limit_row(kind, limit, origin) for limit, origin in limits]
    validity, origin = resolve_validity(kind, view.meta, camera, workspace.settings)
    if validity is not None:
        found.append(_validity_row(kind, validity, BUILT_IN if origin == "default" else origin))
    return found


def values_of(view: View, kinds: Sequence[Kind], set_only: bool = False) -> dict[str, dict[str, Scalar]]:
    """Kind to parameter to value, as a maker would take them.

    set_only: leave out what is built-in, and what the camera or the frame decides.
    """
    found: dict[str, dict[str, Scalar]] = {}
    for kind in kinds:
        for row in rows_of(kind, view):
            is_set = os.path.isabs(row.origin) or row.origin.startswith("environment ")
            is_param = row.name not in BESIDES and not row.name.startswith(f"{LIMITS}.")
            if is_param and isinstance(row.value, Scalar) and (is_set or not set_only):
                found.setdefault(kind.name, {})[row.name] = row.value
    return found


def said(workspace: Workspace, kinds: Sequence[Kind]) -> Iterator[Row]:
    """All that camera tables, settings files and the environment say, weakest first."""
    tables = [Settings(f"camera {camera.name}", camera.settings) for camera in workspace.cameras]
    for settings in (*tables, *workspace.settings):
        for kind, path, values in tables_of(settings, kinds):
            yield from _said_in(kind, values, origin_of(settings.origin, path))
    for kind in kinds:
        for layer in environment_layers(kind):
            yield from _said_in(kind, layer.values, layer.origin)


def said_row(kind: Kind, name: str, value: object, origin: str) -> Row:
    """A parameter of a kind as some place says it."""
    params = {one.name: one for one in params_of(kind.params)}
    return _param_row(kind, params[name], value, origin)


def differences(one: View, other: View, kinds: Sequence[Kind]) -> Iterator[tuple[Row | None, Row | None]]:
    """The parameters and limits of which two views have different values; None where one side has no such limit."""
    for kind in kinds:
        here = {row.name: row for row in rows_of(kind, one)}
        there = {row.name: row for row in rows_of(kind, other)}
        for name in dict.fromkeys([*here, *there]):
            left, right = here.get(name), there.get(name)
            if left is None or right is None or left.value != right.value:
                yield left, right


def camera_of(stores: Sequence[Store], meta: Mapping[str, Any]) -> list[str]:
    """The cameras of the frames in the stores that have a filter and detector."""
    from .indexing.index import open_index

    wanted = {name: meta[name] for name in ("filter", "detector") if meta.get(name) is not None}
    where = " AND ".join(["camera IS NOT NULL", *(f"{name} = ?" for name in wanted)])
    found: set[str] = set()
    for store in stores:
        with open_index(store) as index:
            rows = index.select(f"SELECT DISTINCT camera FROM objects WHERE {where}", list(wanted.values()))
            found |= {str(row[0]) for row in rows}
    return sorted(found)


def _said_in(kind: Kind, values: Mapping[str, Any], origin: str) -> Iterator[Row]:
    known = {one.name for one in params_of(kind.params)}
    for name, value in values.items():
        if name == LIMITS:
            for measure, bounds in value.items():
                yield _limit_row(kind, limit_of(kind, measure, bounds, origin), origin)
        elif name == VALIDITY:
            yield _validity_row(kind, validity_from(kind, value, origin), origin)
        elif name in known:
            yield said_row(kind, name, value, origin)
        else:
            yield Row(kind.name, name, value, "", origin, "no such parameter")


def _param_row(kind: Kind, one: Param, value: object, origin: str) -> Row:
    return Row(kind.name, one.name, value, one.unit, origin, one.range_text)


def _limit_row(kind: Kind, limit: Limit, origin: str) -> Row:
    unit = _UNITS.get(limit.measure.rpartition("_")[2], "") if "_" in limit.measure else ""
    return Row(kind.name, f"{LIMITS}.{limit.measure}", [limit.low, limit.high], unit, origin)


def _validity_row(kind: Kind, validity: Validity, origin: str) -> Row:
    sides = [FOREVER if one is None else one for one in (validity.nights_before, validity.nights_after)]
    both = sides == [FOREVER, FOREVER]
    return Row(kind.name, VALIDITY, FOREVER if both else sides, "nights", origin)
