"""Settings files, and the one order in which they give a parameter its value.

built-in < camera < home < store < project file < environment < command line;
within each file, what is said for a detector beats what is said for a filter, that
beats what is said for a camera, and that what is said in general: NESTINGS.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadSettings, UnknownName, nearest
from .kind import Kind, Limit, Validity
from .params import Layer, Resolved, check_name, convert, params_of, resolve

if TYPE_CHECKING:
    from .camera import Cameras

FILE_NAME = "awe.toml"
SCOPES = ("camera", "filter", "detector")
# What a kind's table may hold besides its parameters.
LIMITS = "limits"
VALIDITY = "validity_nights"
BESIDES = (LIMITS, VALIDITY)
FOREVER = "forever"
# About a century; who means more means forever.
MOST_NIGHTS = 36525
_BARE = re.compile(r"[A-Za-z0-9_-]+")
# The scopes in which a file can say something, in the order in which tables nest, weakest first:
# a detector outweighs a filter, and a filter a camera.
NESTINGS: tuple[tuple[str, ...], ...] = (
    (),
    ("camera",),
    ("filter",),
    ("camera", "filter"),
    ("detector",),
    ("camera", "detector"),
    ("detector", "filter"),
    ("camera", "detector", "filter"),
)


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
    except RecursionError:
        raise BadSettings(f"{path}: its lists or tables are nested too deeply") from None
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
    found = [read_settings(path) for path in dict.fromkeys(paths)]
    return [one for one in found if one is not None]


def check_in_force(settings: Sequence[Settings], cameras: Cameras, kinds: Sequence[Kind]) -> None:
    """Raise where what camera tables and settings files say of kinds makes no sense, naming the file."""
    names = [camera.name for camera in cameras]
    for camera in cameras:
        check_settings(Settings(f"{camera.source} [settings]", camera.settings), kinds, names)
    for one in settings:
        check_settings(one, kinds, names)


def check_settings(settings: Settings, kinds: Sequence[Kind], cameras: Sequence[str] | None = None) -> None:
    """Raise where a settings file names a kind, parameter or camera that does not exist, or a bad value.

    cameras: the names of all; None leaves them unchecked. Raises UnknownName, BadValue, BadSettings.
    """
    named = settings.tree.get("camera", {})
    if cameras is not None and isinstance(named, dict):
        for name in set(named) - set(cameras):
            there = ", ".join(cameras)
            raise UnknownName(
                f"{settings.origin}: no camera {name!r}{nearest(name, list(cameras))}; there are: {there}"
            )
    _check_tree(settings.origin, settings.tree, {kind.name: kind for kind in kinds}, ())


def _check_tree(
    origin: str, tree: Mapping[str, Any], kinds: Mapping[str, Kind], path: tuple[tuple[str, str], ...]
) -> None:
    for name, value in tree.items():
        if not isinstance(value, dict):
            raise BadSettings(f"{origin}: {name} = {value!r} stands outside a table such as [bias]")
        if name in SCOPES:
            _check_scope(origin, name, value, kinds, path)
        elif name in kinds:
            _check_kind(kinds[name], value, origin_of(origin, path))
        else:
            known = [*kinds, *SCOPES]
            raise UnknownName(f"{origin}: no kind {name!r}{nearest(name, known)}")


def _check_scope(
    origin: str,
    name: str,
    tables: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    path: tuple[tuple[str, str], ...],
) -> None:
    nesting = (*(scope for scope, _ in path), name)
    if nesting not in NESTINGS:
        inside = header_of(path)
        raise BadSettings(
            f"{origin}: [{name}] stands inside {inside}, where it is not read: "
            "a camera holds detectors and filters, a detector holds filters"
        )
    for value, inner in tables.items():
        if not isinstance(inner, dict):
            raise BadSettings(
                f"{origin}: [{name}] {value} = {inner!r} is not a table such as [{name}.{value}.bias]"
            )
        _check_tree(origin, inner, kinds, (*path, (name, value)))


def _check_kind(kind: Kind, values: Mapping[str, Any], origin: str) -> None:
    params = params_of(kind.params)
    for name, value in values.items():
        if name not in BESIDES:
            where = f"{origin}: [{kind.name}]"
            convert(check_name(name, params, where), value, where)
    _limits_of(kind, values, origin)
    if VALIDITY in values:
        validity_from(kind, values[VALIDITY], origin)


def header_of(path: Sequence[tuple[str, str]], *more: str) -> str:
    """The header of a table as TOML writes it, such as `[filter.R.bias]`."""
    parts = [*(part for pair in path for part in pair), *more]
    return f"[{'.'.join(part if _BARE.fullmatch(part) else quoted(part) for part in parts)}]"


def quoted(text: str) -> str:
    """A text in the quotes of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def origin_of(origin: str, path: Sequence[tuple[str, str]]) -> str:
    """A file, and in it the scope for which something is said."""
    return f"{origin} {header_of(path)}" if path else origin


def tables_of(
    settings: Settings, kinds: Sequence[Kind]
) -> Iterator[tuple[Kind, tuple[tuple[str, str], ...], Mapping[str, Any]]]:
    """All that a checked settings file says: the kind, the scopes for which it is said, and the values."""
    of_name = {kind.name: kind for kind in kinds}
    waiting: list[tuple[tuple[tuple[str, str], ...], Mapping[str, Any]]] = [((), settings.tree)]
    while waiting:
        path, tree = waiting.pop(0)
        for name, value in tree.items():
            if name in of_name:
                yield of_name[name], path, value
            else:
                waiting += [((*path, (name, scope)), inner) for scope, inner in value.items()]


def scoped(settings: Settings, kind: str, meta: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """What a settings file says of a kind for a frame, weakest first, with the origin of each part."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for nesting in NESTINGS:
        path = [(scope, str(meta[scope])) for scope in nesting if meta.get(scope) is not None]
        if len(path) < len(nesting):
            continue
        table = settings.tree
        for scope, value in path:
            table = table.get(scope, {}).get(value, {})
        found.append((origin_of(settings.origin, path), table.get(kind, {})))
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
        Layer(origin, {name: value for name, value in values.items() if name not in BESIDES})
        for one in _all(meta, camera_settings, settings)
        for origin, values in scoped(one, kind.name, meta)
    ]
    layers += environment_layers(kind)
    layers.append(Layer("command line", command_line))
    return resolve(kind.params, layers)


def resolve_limits(
    kind: Kind, meta: Mapping[str, Any], camera_settings: Mapping[str, Any], settings: Sequence[Settings]
) -> list[Limit]:
    """The limits in force: the declaration's, with those of camera, home, store and project over them."""
    return [limit for limit, _ in limits_with_origins(kind, meta, camera_settings, settings)]


def limits_with_origins(
    kind: Kind, meta: Mapping[str, Any], camera_settings: Mapping[str, Any], settings: Sequence[Settings]
) -> list[tuple[Limit, str]]:
    """The limits in force, each with where it comes from."""
    limits = {limit.measure: (limit, "built-in") for limit in kind.limits}
    for one in _all(meta, camera_settings, settings):
        for origin, values in scoped(one, kind.name, meta):
            limits.update({limit.measure: (limit, origin) for limit in _limits_of(kind, values, origin)})
    return list(limits.values())


def resolve_validity(
    kind: Kind, meta: Mapping[str, Any], camera_settings: Mapping[str, Any], settings: Sequence[Settings]
) -> tuple[Validity | None, str]:
    """How long a product of the kind serves by default, and where that is said; `default` is the declaration."""
    found = (kind.validity, "default")
    for one in _all(meta, camera_settings, settings):
        for origin, values in scoped(one, kind.name, meta):
            if VALIDITY in values:
                found = (validity_from(kind, values[VALIDITY], origin), origin)
    return found


def validity_from(kind: Kind, value: object, origin: str) -> Validity:
    """The validity that `[before, after]` or `"forever"` says; a side may be "forever" too. Raises BadSettings."""
    if kind.validity is None:
        raise BadSettings(
            f"{origin}: {VALIDITY}: a {kind.name} is not chosen for others, so it has no validity"
        )
    sides = [value, value] if value == FOREVER else value
    if not isinstance(sides, list) or len(sides) != 2 or not all(_is_nights(one) for one in sides):
        raise BadSettings(
            f"{origin}: {VALIDITY} of {kind.name} must be [before, after], "
            f'each a number of nights up to {MOST_NIGHTS} or "{FOREVER}", not {value!r:.80}'
        )
    before, after = (None if one == FOREVER else one for one in sides)
    return Validity(before, after)


def _is_nights(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return value == FOREVER
    return 0 <= value <= MOST_NIGHTS


def _limits_of(kind: Kind, values: Mapping[str, Any], origin: str) -> list[Limit]:
    limits = values.get(LIMITS, {})
    if not isinstance(limits, dict):
        raise BadSettings(
            f"{origin}: limits of {kind.name} must be a table of MEASURE = [low, high], not {limits!r}"
        )
    return [limit_of(kind, measure, bounds, origin) for measure, bounds in limits.items()]


def _all(
    meta: Mapping[str, Any], camera_settings: Mapping[str, Any], settings: Sequence[Settings]
) -> list[Settings]:
    return [Settings(f"camera {meta.get('camera')}", camera_settings), *settings]


def limit_of(kind: Kind, measure: str, bounds: object, origin: str) -> Limit:
    """A limit from `[low, high]`, an empty text leaving a side open. Raises UnknownName, BadSettings."""
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


def environment_layers(kind: Kind) -> list[Layer]:
    """A layer for each environment variable of the kind; an empty one counts as not set, as it does for the shell."""
    prefix = f"AWE_{kind.name.upper()}_"
    return [
        Layer(f"environment {name}", {name.removeprefix(prefix).lower(): value})
        for name, value in sorted(os.environ.items())
        if name.startswith(prefix) and value.strip()
    ]
