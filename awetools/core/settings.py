"""Settings files, and the one order in which they give a parameter its value.

built-in < camera < home < store < project file < environment < command line;
within each file, what is said for a filter beats what is said in general, and
what is said for a detector beats both.
"""

from __future__ import annotations

import os
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BadSettings, UnknownName, nearest
from .kind import Kind, Limit
from .params import Layer, Resolved, check_name, params_of, resolve

FILE_NAME = "awe.toml"
SCOPES = ("camera", "filter", "detector")


@dataclass(frozen=True)
class Settings:
    """One settings file: where it is and what it says."""

    origin: str
    tree: Mapping[str, Any]


def home_directory() -> Path:
    """The user's own settings and camera tables."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "awetools"


def read_settings(path: Path) -> Settings | None:
    """Read a settings file; None if there is none. Raises BadSettings, naming the line."""
    if os.path.lexists(path) and not path.is_file():
        raise BadSettings(
            f"{path}: not a file, but settings are read from it", hint=f"ls -ld {shlex.quote(str(path))}"
        )
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from None
    return Settings(str(path), tree)


def project_file(start: Path) -> Path | None:
    """The nearest awe.toml from a directory upward."""
    for directory in (start, *start.parents):
        if os.path.lexists(directory / FILE_NAME):
            return directory / FILE_NAME
    return None


def gather(store_roots: Sequence[Path], start: Path) -> list[Settings]:
    """The settings files in force, weakest first: home, the stores (the first of them last), the project."""
    paths = [home_directory() / FILE_NAME]
    paths += [root / ".awe" / FILE_NAME for root in reversed(store_roots)]
    project = project_file(start)
    if project:
        paths.append(project)
    found = [read_settings(path) for path in paths]
    return [one for one in found if one is not None]


def check_settings(settings: Settings, kinds: Sequence[Kind], cameras: Sequence[str] | None = None) -> None:
    """Raise UnknownName where a settings file names a kind or parameter that does not exist, or a camera.

    cameras: the names of all; None leaves them unchecked.
    """
    named = settings.tree.get("camera", {})
    if cameras is not None and isinstance(named, dict):
        for name in set(named) - set(cameras):
            there = ", ".join(cameras)
            raise UnknownName(
                f"{settings.origin}: no camera {name!r}{nearest(name, list(cameras))}; there are: {there}"
            )
    _check_tree(settings.origin, settings.tree, {kind.name: kind for kind in kinds}, SCOPES)


def _check_tree(
    origin: str, tree: Mapping[str, Any], kinds: Mapping[str, Kind], scopes: Sequence[str]
) -> None:
    for name, value in tree.items():
        if not isinstance(value, dict):
            raise BadSettings(f"{origin}: {name} = {value!r} stands outside a table such as [bias]")
        if name in scopes:
            for scope, inner in value.items():
                if not isinstance(inner, dict):
                    raise BadSettings(
                        f"{origin}: [{name}] {scope} = {inner!r} is not a table such as [{name}.{scope}.bias]"
                    )
                _check_tree(origin, inner, kinds, [one for one in scopes if one != name])
        elif name in kinds:
            params = params_of(kinds[name].params)
            for key in value:
                if key != "limits":
                    check_name(key, params, f"{origin}: [{name}]")
            _limits_of(kinds[name], value, origin)
        else:
            known = [*kinds, *scopes]
            raise UnknownName(f"{origin}: no kind {name!r}{nearest(name, known)}")


def scoped(
    settings: Settings, kind: str, meta: Mapping[str, Any], with_camera: bool = True
) -> list[tuple[str, Mapping[str, Any]]]:
    """What a settings file says of a kind for a frame, general first, with the origin of each part."""
    tree = settings.tree
    parts = [(settings.origin, tree)]
    camera = str(meta.get("camera"))
    if with_camera and camera in tree.get("camera", {}):
        parts.append((f"{settings.origin} [camera.{camera}]", tree["camera"][camera]))
    found: list[tuple[str, Mapping[str, Any]]] = []
    for origin, part in parts:
        found.append((origin, part.get(kind, {})))
        for scope in ("filter", "detector"):
            value = str(meta.get(scope))
            inner = part.get(scope, {}).get(value, {})
            found.append((f"{origin} [{scope}.{value}]", inner.get(kind, {})))
    return [(origin, values) for origin, values in found if values]


def resolve_params(
    kind: Kind,
    meta: Mapping[str, Any],
    camera_settings: Mapping[str, Any],
    settings: Sequence[Settings],
    command_line: Mapping[str, object],
) -> Resolved:
    """The parameters of a kind for a frame, from every layer in order."""
    layers = [
        Layer(origin, {name: value for name, value in values.items() if name != "limits"})
        for one in _all(meta, camera_settings, settings)
        for origin, values in scoped(one, kind.name, meta)
    ]
    layers.append(Layer("environment", _environment(kind)))
    layers.append(Layer("command line", command_line))
    return resolve(kind.params, layers)


def resolve_limits(
    kind: Kind, meta: Mapping[str, Any], camera_settings: Mapping[str, Any], settings: Sequence[Settings]
) -> list[Limit]:
    """The limits in force: the declaration's, with those of camera, home, store and project over them."""
    limits = {limit.measure: limit for limit in kind.limits}
    for one in _all(meta, camera_settings, settings):
        for origin, values in scoped(one, kind.name, meta):
            limits.update({limit.measure: limit for limit in _limits_of(kind, values, origin)})
    return list(limits.values())


def _limits_of(kind: Kind, values: Mapping[str, Any], origin: str) -> list[Limit]:
    limits = values.get("limits", {})
    if not isinstance(limits, dict):
        raise BadSettings(
            f"{origin}: limits of {kind.name} must be a table of MEASURE = [low, high], not {limits!r}"
        )
    return [_limit(kind, measure, bounds, origin) for measure, bounds in limits.items()]


def _all(
    meta: Mapping[str, Any], camera_settings: Mapping[str, Any], settings: Sequence[Settings]
) -> list[Settings]:
    return [Settings(f"camera {meta.get('camera')}", camera_settings), *settings]


def _limit(kind: Kind, measure: str, bounds: object, origin: str) -> Limit:
    from .quality import measure_names

    names = measure_names(kind)
    if measure not in names:
        raise UnknownName(f"{origin}: {kind.name} has no measure {measure!r}{nearest(measure, names)}")
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(_is_bound(one) for one in bounds):
        raise BadSettings(
            f'{origin}: limits of {kind.name}.{measure} must be [low, high], numbers or "", not {bounds!r}'
        )
    low, high = (None if bound == "" else float(bound) for bound in bounds)
    if low is not None and high is not None and low > high:
        raise BadSettings(f"{origin}: limits of {kind.name}.{measure}: {low:g} is above {high:g}")
    return Limit(measure, low, high)


def _is_bound(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value == ""
    return abs(value) <= sys.float_info.max


def _environment(kind: Kind) -> dict[str, str]:
    prefix = f"AWE_{kind.name.upper()}_"
    found = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix).lower(): value for name, value in found.items()}
