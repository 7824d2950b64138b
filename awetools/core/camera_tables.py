"""Camera tables: what a table may say, compiled where it is used, and where tables are found."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .camera_imports import ImportRule, compile_import
from .camera_layout import AMPLIFIER_KEYS, TRIM_KEYS, WCS_KEYS, Layout, compile_layout, named
from .camera_rules import (
    DateRule,
    Rule,
    check_keys,
    compile_condition,
    compile_dates,
    compile_rules,
    template_parts,
)
from .errors import BadSettings, UnknownName, nearest
from .expressions.expression import Node
from .meta import FRAME_TYPES, OVERSCAN_MODES

BUILT_IN = Path(__file__).parent / "cameras"
# The [[import]] rules of the table `generic`, which serve frames of every camera.
PIPELINES = BUILT_IN / "imports" / "pipelines.toml"

KEYS = (
    "name",
    "title",
    "extends",
    "priority",
    "recognise",
    "lenient",
    "let",
    "fields",
    "site",
    "pointing",
    "time",
    "detectors",
    "type",
    "layout",
    "amplifier",
    "trim",
    "wcs",
    "check",
    "import",
    "settings",
)
# Lists of a table that extends another one come before those of the other.
_LISTS = ("type", "layout", "check", "import")
# What a table says of products; raw frames that are registered mean the same without it.
_NOT_OF_RAW_FRAMES = ("settings", "import")
_SUBKEYS = {
    "site": ("longitude_deg", "latitude_deg"),
    "pointing": ("equinox",),
    "time": ("end",),
    "detectors": ("skip", "group", "name"),
    "amplifier": AMPLIFIER_KEYS,
    "trim": TRIM_KEYS,
    "wcs": WCS_KEYS,
}
# Fields that a table's [fields] gives; the others follow from other parts of it.
RULE_FIELDS = (
    "instrument",
    "exposure",
    "object",
    "filter",
    "exptime_s",
    "airmass",
    "ra_deg",
    "dec_deg",
    "pixel_scale_arcsec",
    "binning",
    "readout",
    "gain_setting",
    "window",
    "temperature_c",
    "temperature_set_c",
)
_FIELD_KEYS = (*RULE_FIELDS, "obs_start", "overscan_mode")
_FORMS = {"ra_deg": "ra", "dec_deg": "degrees"}

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


def safe_name(text: str) -> str:
    """A text as a part of a file name: letters, digits, '.', '_', '+' and '-'."""
    return re.sub("-{2,}", "-", _UNSAFE.sub("-", text.strip())).strip("-.")[:60]


@dataclass(frozen=True)
class TypeRule:
    """A frame type, the condition under which a frame is of it, and why the rule exists."""

    frame_type: str
    when: Node
    text: str
    because: str


@dataclass(frozen=True)
class Check:
    """A contradiction that a table looks for, and the template of its message."""

    when: Node
    problem: tuple[str | Node, ...]
    text: str


class Camera:
    """One camera table, compiled where it is used. Raises BadSettings where the table makes no sense."""

    def __init__(self, raw: Mapping[str, Any], source: str) -> None:
        self.raw = raw
        self.source = source
        check_keys(raw, KEYS, source)
        self.name = str(raw["name"])
        self.title = str(raw.get("title", ""))
        self.priority = raw.get("priority", 50)
        if isinstance(self.priority, bool) or not isinstance(self.priority, int | float):
            raise BadSettings(f"{source}: priority must be a number, not {self.priority!r}")
        if "recognise" not in raw:
            raise BadSettings(f"{source}: a camera table needs recognise = '...'")
        self.lenient = bool(raw.get("lenient", False))

    def __repr__(self) -> str:
        return f"Camera({self.name!r}, {self.source!r})"

    def table(self, key: str) -> Mapping[str, Any]:
        """A table of the TOML; empty if it is not there."""
        raw = self.raw.get(key, {})
        if not isinstance(raw, dict):
            raise BadSettings(f"{self.source}: [{key}] must be a table, not {raw!r}")
        check_keys(raw, _SUBKEYS.get(key, tuple(raw)), f"{self.source}: [{key}]")
        return raw

    def items(self, key: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The tables of a TOML list [[key]], each with its place."""
        raw = self.raw.get(key, [])
        if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
            raise BadSettings(f"{self.source}: {key} must be a list of tables, written [[{key}]]")
        return [(f"{self.source}: [[{key}]] {place + 1}", item) for place, item in enumerate(raw)]

    def _rules(self, key: str, name: str, form: str = "") -> tuple[Rule, ...]:
        return compile_rules(self.table(key).get(name, []), f"{self.source}: [{key}] {name}", form)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the table sets for kinds and limits."""
        return self.table("settings")

    @cached_property
    def recognise(self) -> Node:
        """The condition under which a file is this camera's."""
        return compile_condition(self.raw["recognise"], f"{self.source}: recognise")

    @cached_property
    def let(self) -> dict[str, tuple[Rule, ...]]:
        """The table's own values, which its other rules ask for as let.NAME."""
        return {name: self._rules("let", name) for name in self.table("let")}

    @cached_property
    def fields(self) -> dict[str, tuple[Rule, ...]]:
        """The rules of the plain meta fields."""
        raw = self.table("fields")
        check_keys(raw, _FIELD_KEYS, f"{self.source}: [fields]")
        return {
            name: self._rules("fields", name, _FORMS.get(name, "")) for name in RULE_FIELDS if name in raw
        }

    @cached_property
    def obs_start(self) -> tuple[DateRule, ...]:
        """The rules of the exposure's start."""
        return compile_dates(self.table("fields").get("obs_start", []), f"{self.source}: [fields] obs_start")

    @cached_property
    def obs_end(self) -> tuple[DateRule, ...]:
        """The rules of the exposure's end, which is only compared with start and exposure time."""
        return compile_dates(self.table("time").get("end", []), f"{self.source}: [time] end")

    @cached_property
    def longitude(self) -> tuple[Rule, ...]:
        """The rules of the site's longitude, east positive."""
        return self._rules("site", "longitude_deg", "degrees")

    @cached_property
    def latitude(self) -> tuple[Rule, ...]:
        """The rules of the site's latitude, north positive."""
        return self._rules("site", "latitude_deg", "degrees")

    @cached_property
    def equinox(self) -> tuple[Rule, ...]:
        """The rules of the equinox of the pointing."""
        return self._rules("pointing", "equinox")

    @cached_property
    def types(self) -> tuple[TypeRule, ...]:
        """The rules of the frame type, in order."""
        return tuple(_type_rule(item, where) for where, item in self.items("type"))

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts of amplifiers, in order."""
        return tuple(compile_layout(item, where) for where, item in self.items("layout"))

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """What the table checks."""
        return tuple(_check(item, where) for where, item in self.items("check"))

    @cached_property
    def imports(self) -> tuple[ImportRule, ...]:
        """How frames that were reduced elsewhere are read, in order."""
        return tuple(compile_import(item, where) for where, item in self.items("import"))

    @cached_property
    def trim(self) -> dict[str, Node]:
        """What is cut off the edges of the assembled detector."""
        return {
            edge: compile_condition(str(size), f"{self.source}: [trim] {edge}")
            for edge, size in self.table("trim").items()
        }

    @cached_property
    def detector_group(self) -> tuple[Rule, ...]:
        """The rules of what HDUs of one detector have in common."""
        return self._rules("detectors", "group")

    @cached_property
    def detector_name(self) -> tuple[Rule, ...]:
        """The rules of a detector's name."""
        return self._rules("detectors", "name")

    @cached_property
    def skip(self) -> Node | None:
        """Which image extensions are no detector's pixels."""
        raw = self.table("detectors").get("skip")
        return None if raw is None else compile_condition(raw, f"{self.source}: [detectors] skip")

    @cached_property
    def wcs_frame(self) -> str:
        """'raw' if the header's WCS is that of the raw image, 'assembled' if of the trimmed detector."""
        frame = self.table("wcs").get("frame", "raw")
        if frame not in ("raw", "assembled"):
            raise BadSettings(f"{self.source}: [wcs] frame: {frame!r} is none of 'raw' 'assembled'")
        return str(frame)

    @cached_property
    def overscan_mode(self) -> tuple[Rule, ...]:
        """The rules of how overscan is subtracted."""
        return self._rules("fields", "overscan_mode")

    def amplifier_rules(self, name: str, letter: str) -> tuple[Rule, ...]:
        """The rules of an amplifier's value, compiled for the letter of its cards."""
        if (name, letter) not in self._amplifier_rules:
            raw = named(self.table("amplifier").get(name, []), letter)
            self._amplifier_rules[name, letter] = compile_rules(raw, f"{self.source}: [amplifier] {name}")
        return self._amplifier_rules[name, letter]

    @cached_property
    def _amplifier_rules(self) -> dict[tuple[str, str], tuple[Rule, ...]]:
        return {}

    def check(self) -> None:
        """Compile everything; raises BadSettings, naming file and key, where that fails."""
        for name in ("recognise", "let", "fields", "obs_start", "obs_end", "longitude", "latitude"):
            getattr(self, name)
        for name in ("equinox", "types", "layouts", "checks", "imports", "trim", "skip", "wcs_frame"):
            getattr(self, name)
        for name in ("detector_group", "detector_name"):
            getattr(self, name)
        for name in AMPLIFIER_KEYS:
            self.amplifier_rules(name, "A")
        for rule in self.overscan_mode:
            if rule.constant is not None and rule.constant not in OVERSCAN_MODES:
                raise BadSettings(
                    f"{self.source}: [fields] overscan_mode: {rule.constant!r} is none of {OVERSCAN_MODES}"
                )
        self.table("settings")


def _type_rule(raw: Mapping[str, Any], where: str) -> TypeRule:
    check_keys(raw, ("is", "when", "because"), where)
    kind = raw.get("is")
    if kind not in FRAME_TYPES:
        raise BadSettings(f"{where}: is = {kind!r} is no frame type{nearest(str(kind), list(FRAME_TYPES))}")
    if "when" not in raw:
        raise BadSettings(f"{where}: a type needs when = '...'")
    return TypeRule(
        kind, compile_condition(raw["when"], where), str(raw["when"]), str(raw.get("because", ""))
    )


def _check(raw: Mapping[str, Any], where: str) -> Check:
    check_keys(raw, ("when", "problem"), where)
    if "when" not in raw or "problem" not in raw:
        raise BadSettings(f"{where}: a check needs when and problem")
    return Check(
        compile_condition(raw["when"], where), template_parts(raw["problem"], where), str(raw["problem"])
    )


# Loading


class Cameras:
    """The camera tables in force, by name and in the order in which they are tried."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self._by_name = {camera.name: camera for camera in cameras}
        self.in_order = sorted(self._by_name.values(), key=lambda one: (-one.priority, one.name))

    def __iter__(self) -> Iterator[Camera]:
        return iter(self.in_order)

    def __len__(self) -> int:
        return len(self.in_order)

    def get(self, name: str) -> Camera:
        """The camera of this name; raises UnknownName with the nearest one."""
        if name not in self._by_name:
            known = sorted(self._by_name)
            raise UnknownName(f"no camera {name!r}{nearest(name, known)}", hint=f"known: {' '.join(known)}")
        return self._by_name[name]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the tables say about headers: when it changes, frames may mean something else."""
        said = {
            name: {key: value for key, value in camera.raw.items() if key not in _NOT_OF_RAW_FRAMES}
            for name, camera in self._by_name.items()
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()

    def settings(self, name: str) -> Mapping[str, Any]:
        """What a camera's table sets for kinds; nothing for a camera that is not known here."""
        camera = self._by_name.get(name)
        return camera.settings if camera else {}


class _Table(NamedTuple):
    raw: Mapping[str, Any]
    source: str


def load_cameras(dirs: Sequence[Path] = ()) -> Cameras:
    """The built-in camera tables, with those of directories over them, the last one strongest.

    A table of a directory adds a camera, or replaces the one of its name; with
    `extends = "NAME"` it changes parts of another one (or of the one that it
    replaces). Raises BadSettings, naming file and key.
    """
    layers = [dict(_built_in())]
    layers += [_tables(Path(directory)) for directory in dirs]
    found: dict[str, Camera] = {}
    for depth, layer in enumerate(layers):
        for name, table in layer.items():
            camera = Camera(_extended(table, name, layers, depth, ()), table.source)
            if depth:
                camera.check()
            found[name] = camera
    return Cameras(list(found.values()))


@lru_cache(maxsize=1)
def _built_in() -> dict[str, _Table]:
    found = _tables(BUILT_IN)
    generic = found["generic"]
    found["generic"] = generic._replace(raw={**generic.raw, **_read_toml(PIPELINES)})
    return found


def _tables(directory: Path) -> dict[str, _Table]:
    found: dict[str, _Table] = {}
    for path in sorted(directory.glob("*.toml")):
        raw = _read_toml(path)
        name = raw.setdefault("name", path.stem)
        if not isinstance(name, str) or safe_name(name) != name:
            raise BadSettings(f"{path}: name must be letters, digits, '-', '_' and '.', not {name!r}")
        if name in found:
            raise BadSettings(f"{path}: camera {name!r} is also in {found[name].source}")
        found[name] = _Table(raw, str(path))
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSettings(f"{path}: {error}") from None


def _extended(
    table: _Table, name: str, layers: Sequence[Mapping[str, _Table]], depth: int, trail: tuple[str, ...]
) -> Mapping[str, Any]:
    """A table over the one that it extends: its own name means the table that it replaces."""
    check_keys(table.raw, KEYS, table.source)
    base_name = table.raw.get("extends")
    if base_name is None:
        return table.raw
    if not isinstance(base_name, str):
        raise BadSettings(f"{table.source}: extends must be a camera's name, not {base_name!r}")
    if table.source in trail:
        raise BadSettings(f"{table.source}: extends goes in a circle: {' '.join(trail)}")
    top = depth - 1 if base_name == name else depth
    for level in range(top, -1, -1):
        base = layers[level].get(base_name)
        if base is not None:
            below = _extended(base, base_name, layers, level, (*trail, table.source))
            return _merged(below, table.raw)
    known = sorted({one for layer in layers[: depth + 1] for one in layer})
    raise BadSettings(f"{table.source}: extends: no camera {base_name!r}{nearest(base_name, known)}")


def _merged(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(below)
    for key, value in over.items():
        if key in _LISTS and isinstance(value, list):
            made[key] = value + list(below.get(key, []))
        elif key == "settings":
            made[key] = _deep(below.get(key, {}), value)
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            made[key] = {**below[key], **value}
        else:
            made[key] = value
    return made


def _deep(below: Any, over: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(over, dict)):
        return over
    return {**below, **{key: _deep(below.get(key), value) for key, value in over.items()}}
