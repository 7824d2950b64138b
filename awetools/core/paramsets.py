"""Parameters of several kinds given at once: `kind.parameter=value` words, and saved sets by name.

A set is a settings file without scopes, `.awe/sets/NAME.toml` of a store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .errors import (
    BadSettings,
    BadValue,
    NoStore,
    Unavailable,
    UnknownName,
    UsageError,
    WouldOverwrite,
    nearest,
)
from .files import write_whole
from .kind import Kind, kind_named
from .params import Scalar, check_name, convert, params_of
from .settings import (
    BESIDES,
    FOREVER,
    LIMITS,
    VALIDITY,
    check_settings,
    limit_of,
    read_settings,
    validity_from,
)
from .settingsfile import toml_value
from .store import Store, target_lock
from .workspace import Workspace

# Kind to parameter to value.
Values = Mapping[str, Mapping[str, Scalar]]

_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,63}")


@dataclass(frozen=True)
class Assignment:
    """A word such as `bias.clip_sigma=4`, `bias.limits.level_adu=900..` or `bias.validity_nights=0..30`, checked.

    table: where a settings file has it.
    value: None for a word without one, which takes the name out.
    """

    kind: Kind
    table: tuple[str, ...]
    name: str
    value: object | None


def parse_sets(texts: Sequence[str], kinds: Sequence[Kind]) -> dict[str, dict[str, Scalar]]:
    """Kind to parameter to value, of words `kind.parameter=value`; of two about one parameter the later one counts.

    Raises UsageError for a word of another form, UnknownName for a kind or parameter
    that does not exist, with the nearest one, and BadValue.
    """
    found: dict[str, dict[str, Scalar]] = {}
    for text in texts:
        one = parse_assignment(text, kinds)
        if one.name == VALIDITY or LIMITS in one.table:
            raise UsageError(
                f"--set {text}: limits and validity are no parameters; they are set in settings files",
                hint=f"awe-params --set {text}",
            )
        assert isinstance(one.value, Scalar)
        found.setdefault(one.kind.name, {})[one.name] = one.value
    return found


def parse_assignment(
    text: str, kinds: Sequence[Kind], kind: Kind | None = None, option: str = "--set"
) -> Assignment:
    """What a word sets, or (with the option --unset) takes out. kind: of which a name without a kind is."""
    where = f"{option} {text}"
    removes = option == "--unset"
    left, equals, raw = text.partition("=")
    example = "bias.clip_sigma" if removes else "bias.clip_sigma=4"
    if removes and equals:
        raise UsageError(f"{where}: takes a name alone", hint=f"{option} {left.strip()}")
    if not removes and not equals:
        raise UsageError(f"{where}: not KIND.PARAMETER=VALUE", hint=f"{option} {example}")
    parts = [part.strip() for part in left.split(".")]
    first_is_kind = any(one.name == parts[0] for one in kinds)
    if len(parts) > 1 and (first_is_kind or kind is None or parts[0] not in BESIDES):
        kind, parts = _kind_in(kinds, parts[0], where), parts[1:]
    if kind is None:
        having = _kinds_having(parts[0], kinds)
        raise UsageError(
            f"{where}: of which kind?{_kinds_with(parts[0], having)}",
            hint=f"{option} {having[0]}.{text.strip()}" if having else f"{option} {example}",
        )
    if parts[0] == LIMITS and len(parts) == 2:
        value = None if removes else _bounds(kind, parts[1], raw.strip(), where)
        return Assignment(kind, (kind.name, LIMITS), parts[1], value)
    if len(parts) > 1:
        raise UsageError(f"{where}: not KIND.PARAMETER=VALUE", hint=f"{option} {example}")
    if removes:
        return Assignment(kind, (kind.name,), parts[0], None)
    if parts[0] == VALIDITY:
        return Assignment(kind, (kind.name,), VALIDITY, _nights(kind, raw.strip(), where))
    one = check_name(parts[0], params_of(kind.params), where)
    return Assignment(kind, (kind.name,), one.name, convert(one, raw.strip(), where))


def _kind_in(kinds: Sequence[Kind], name: str, where: str) -> Kind:
    try:
        return kind_named(kinds, name)
    except UnknownName as error:
        raise UnknownName(f"{where}: {error.message}") from None


def _kinds_having(name: str, kinds: Sequence[Kind]) -> list[str]:
    return [kind.name for kind in kinds if any(one.name == name for one in params_of(kind.params))]


def _kinds_with(name: str, having: Sequence[str]) -> str:
    return f" {', '.join(having)} {'has' if len(having) == 1 else 'have'} {name}" if having else ""


def _bounds(kind: Kind, measure: str, text: str, where: str) -> list[float | str]:
    """`low..high`, either of them empty for an open side."""
    sides = _two(text)
    if len(sides) != 2:
        raise BadValue(f"{where}: a limit is LOW..HIGH, either of them empty for an open side")
    bounds = [_bound(one, where) for one in sides]
    limit_of(kind, measure, bounds, where)
    return bounds


def _nights(kind: Kind, text: str, where: str) -> list[int | str] | str:
    """`before..after`, each a number of nights or `forever`, or `forever` alone for both."""
    sides = _two(text)
    if text != FOREVER and not (
        len(sides) == 2 and all(one == FOREVER or (one.isascii() and one.isdigit()) for one in sides)
    ):
        raise BadValue(f"{where}: a validity is BEFORE..AFTER in nights, or {FOREVER} for a side or both")
    nights = [one if one == FOREVER else int(one) for one in sides]
    validity_from(kind, nights if len(nights) == 2 else FOREVER, where)
    return nights if len(nights) == 2 else FOREVER


def _two(text: str) -> list[str]:
    """The sides of `1..2`, or of a list of two as TOML has it."""
    return [one.strip().strip("\"'") for one in text.strip("[]").replace(",", "..").split("..")]


def _bound(text: str, where: str) -> float | str:
    try:
        number = float(text) if text else ""
    except ValueError:
        raise BadValue(f"{where}: {text!r} is not a number") from None
    return int(number) if isinstance(number, float) and number.is_integer() else number


# Saved sets


def saved_sets(workspace: Workspace) -> dict[str, Path]:
    """Every saved set of the stores here, by name, with its file; of two of one name the one that counts."""
    found: dict[str, Path] = {}
    for store in reversed(workspace.stores):
        found.update(
            {path.stem: path for path in sorted(_folder(store).glob("*.toml")) if _is_name(path.stem)}
        )
    return dict(sorted(found.items()))


def load_set(workspace: Workspace, name: str, kinds: Sequence[Kind]) -> dict[str, dict[str, Scalar]]:
    """The values of a saved set: kind to parameter to value, converted and checked.

    Raises UnknownName, with the nearest one, where no store here has it, and what
    check_settings raises for a file that makes no sense.
    """
    return read_set(set_path(workspace, name), kinds)


def set_path(workspace: Workspace, name: str) -> Path:
    """The file of a saved set; raises UnknownName with the nearest one, NoStore where no store is."""
    if not workspace.stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    known = saved_sets(workspace)
    if name not in known:
        there = f"; there are: {', '.join(known)}" if known else "; none is saved here"
        raise UnknownName(
            f"no set of parameters {name!r}{nearest(name, list(known))}{there}", hint="awe-params --sets"
        )
    return known[name]


def read_set(path: Path, kinds: Sequence[Kind]) -> dict[str, dict[str, Scalar]]:
    """The values of the file of a set."""
    settings = read_settings(path)
    if settings is None:
        raise BadSettings(f"{path}: was removed meanwhile", hint="awe-params --sets")
    names = [kind.name for kind in kinds]
    for name, table in settings.tree.items():
        beside = [one for one in BESIDES if isinstance(table, dict) and one in table]
        if name not in names or beside:
            what = f"[{name}.{beside[0]}]" if beside else f"[{name}]"
            raise BadSettings(
                f"{path}: {what}: a set of parameters has tables of kinds only, with parameters only"
                f"{'' if beside else nearest(name, names)}"
            )
    check_settings(settings, kinds)
    return {
        name: {
            one.name: convert(one, table[one.name], str(path))
            for one in params_of(kind_named(kinds, name).params)
            if one.name in table
        }
        for name, table in settings.tree.items()
    }


def save_set(
    store: Store, name: str, values: Values, about: str, force: bool = False, dry_run: bool = False
) -> Path:
    """Write a set; returns its file. Raises BadValue for a bad name, WouldOverwrite for one that is there."""
    if not _is_name(name):
        raise BadValue(
            f"--save {name!r}: the name of a set is up to 64 letters, digits, '-', '_', '+' and '.'",
            hint="awe-params --save deep-R",
        )
    path = _folder(store) / f"{name}.toml"
    if dry_run:
        _refuse_existing(path, force)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{path.parent}: cannot be made: {error.strerror}") from None
    with target_lock(path):
        _refuse_existing(path, force)
        write_whole(path, _text(values, about).encode())
    return path


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise WouldOverwrite(
            f"{path}: there is a set of this name", hint=f"awe-params --show {path.stem}; --force replaces it"
        )


def remove_set(path: Path) -> None:
    """Remove the file of a set."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(f"{path}: cannot be removed: {error.strerror}") from None


def _text(values: Values, about: str) -> str:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [f"# Saved by awe-params {when}: {_one_line(about)}"]
    for kind, table in values.items():
        lines += ["", f"[{kind}]", *(f"{name} = {toml_value(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _folder(store: Store) -> Path:
    return store.awe / "sets"


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name))
