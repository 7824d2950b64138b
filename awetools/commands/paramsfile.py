"""What `awe-params` writes: settings files and saved sets, and what it then says of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import AweError, NoStore, UsageError, nearest, worst
from . import options
from .messages import Messenger
from .types import values_in_stores

if TYPE_CHECKING:
    from ..core.kind import Kind
    from ..core.paramrows import View
    from ..core.paramsets import Assignment
    from ..core.settingsfile import Changed
    from ..core.workspace import Workspace

# How many names are listed where one is not known.
SHOWN_NAMES = 12


def write(
    messenger: Messenger,
    workspace: Workspace,
    wanted: Sequence[Assignment],
    scope: Mapping[str, str],
    given: Mapping[str, Any],
) -> int:
    """Write assignments into the settings file that the options name, for the frames of a scope."""
    from ..core.settingsfile import Change, change_settings

    warn_if_unknown(messenger, scope)
    path = _place(workspace, given)
    # Tables nest in this order, whatever the order of the options.
    nesting = [name for name in ("camera", "detector", "filter") if name in scope]
    inside = tuple(part for name in nesting for part in (name, scope[name]))
    changes = [Change((*inside, *one.table), one.name, one.value) for one in wanted]
    made = change_settings(path, changes, given["dry_run"])
    for one in made:
        messenger.note(f"{path}: {_said(one, given['dry_run'])}")
        if given["as_json"]:
            options.print_line(json.dumps({"path": str(path), **_as_json(one)}, default=str))
    if not given["as_json"]:
        options.print_line(str(path))
    if not given["dry_run"]:
        _warn_if_outweighed(messenger, workspace.start, path, wanted, scope)
    return 0


def wanted_of(words: Sequence[str], unset: Sequence[str], kinds: Sequence[Kind]) -> list[Assignment]:
    """What --set and --unset say; kinds: those named before, one at most."""
    from ..core.kinds import KINDS
    from ..core.paramsets import parse_assignment

    if len(kinds) > 1:
        raise UsageError("--set and --unset take one KIND, or names with their kind such as bias.clip_sigma")
    kind = kinds[0] if kinds else None
    wanted = [parse_assignment(text, KINDS, kind) for text in words]
    wanted += [parse_assignment(text, KINDS, kind, "--unset") for text in unset]
    names = [".".join((*one.table, one.name)) for one in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is set or unset twice")
    return wanted


def wanted_of_set(workspace: Workspace, name: str, kinds: Sequence[Kind]) -> list[Assignment]:
    """What a saved set says of some kinds, or of all if none is named."""
    from ..core.kinds import KINDS
    from ..core.paramsets import Assignment, load_set

    values = load_set(workspace, name, KINDS)
    wanted = [
        Assignment(kind, (kind.name,), one, value)
        for kind in kinds or KINDS
        for one, value in values.get(kind.name, {}).items()
    ]
    if not wanted:
        about = f" of {', '.join(kind.name for kind in kinds)}" if kinds else ""
        raise UsageError(f"--apply {name}: the set says nothing{about}", hint=f"awe-params --show {name}")
    return wanted


def warn_if_unknown(messenger: Messenger, scope: Mapping[str, str]) -> None:
    """Say so if no frame of the stores is of this filter or detector: the name may be misspelled."""
    for name in ("filter", "detector"):
        known = values_in_stores(name) if name in scope else []
        if known and scope[name] not in known:
            there = ", ".join([*known[:SHOWN_NAMES], *(["..."] if len(known) > SHOWN_NAMES else [])])
            near = nearest(scope[name], known)
            messenger.warning(f"no frame in the store has {name} {scope[name]!r}{near}; there are: {there}")


def _as_json(one: Changed) -> dict[str, Any]:
    change = one.change
    return {"table": change.header, "name": change.name, "before": one.before, "value": change.value}


def _said(one: Changed, dry_run: bool) -> str:
    from ..core.settingsfile import toml_value

    name, new = f"{one.change.header} {one.change.name}", one.change.value
    was = "" if one.before is None else f" (was {toml_value(one.before)})"
    if new is None:
        return f"{name} {'would be ' if dry_run else ''}taken out{was}"
    if not one.is_new:
        return f"{name} = {toml_value(new)} already"
    return f"{name} {'would be' if dry_run else '='} {toml_value(new)}{was}"


def _place(workspace: Workspace, given: Mapping[str, Any]) -> Path:
    """The settings file that is to be written."""
    from ..core.settings import FILE_NAME, home_directory, project_file

    if given["file"]:
        return Path(given["file"])
    if given["home"]:
        return home_directory() / FILE_NAME
    if given["project"]:
        return project_file(workspace.start) or workspace.start / FILE_NAME
    if not workspace.stores:
        raise NoStore(
            "there is no store here whose settings could be written, and AWE_PATH names none",
            hint="--home, --project or --file FILE; or awe-init",
        )
    return workspace.stores[0].awe / FILE_NAME


def _warn_if_outweighed(
    messenger: Messenger, start: Path, path: Path, wanted: Sequence[Assignment], scope: Mapping[str, str]
) -> None:
    """Say where the new settings do not count, because something stronger says otherwise."""
    from ..core.kinds import KINDS
    from ..core.paramrows import View, rows_of
    from ..core.settings import check_in_force
    from ..core.workspace import here

    try:
        workspace = here(start)
        if not any(_is_of(one.origin, path) for one in workspace.settings):
            if path.exists():
                messenger.note(f"{path}: is not among the settings files that are read from here")
            return
        check_in_force(workspace.settings, workspace.cameras, KINDS)
        for one in wanted:
            rows = {row.name: row for row in rows_of(one.kind, View(workspace, scope))}
            row = rows.get(".".join((*one.table[1:], one.name)))
            if row is not None and one.value is not None and not _is_of(row.origin, path):
                messenger.warning(f"{row.kind}.{row.name} is still {row.text}: {row.origin} outweighs {path}")
    except AweError as error:
        messenger.warning(f"{error.slug}: {error.message}")


def _is_of(origin: str, path: Path) -> bool:
    """Whether an origin is a file, or a scope in it."""
    name = origin.partition(" [")[0]
    return os.path.exists(name) and os.path.exists(path) and os.path.samefile(name, path)


# Saved sets


def save(
    messenger: Messenger,
    workspace: Workspace,
    view: View,
    kinds: Sequence[Kind],
    given: Mapping[str, Any],
) -> int:
    """Save what is set for a view as a set of the first store."""
    from ..core.paramrows import values_of
    from ..core.paramsets import save_set

    if not workspace.stores:
        raise NoStore("there is no store here to save a set in, and AWE_PATH names none", hint="awe-init")
    name, about = given["save"], view.label or "all frames alike"
    values = values_of(view, kinds, set_only=not given["resolved"])
    if not values:
        of = ", ".join(kind.name for kind in kinds)
        raise UsageError(
            f"--save {name}: no settings file or variable says anything of {of} for {about}",
            hint="--resolved saves what nobody set too; --camera, --filter, --detector say for which frames",
        )
    what = "all values" if given["resolved"] else "what is set"
    path = save_set(
        workspace.stores[0], name, values, f"{what} for {about}", given["force"], given["dry_run"]
    )
    count = sum(len(table) for table in values.values())
    would = "would be saved" if given["dry_run"] else "saved"
    messenger.note(f"{path}: {count} {'value' if count == 1 else 'values'} of {', '.join(values)} {would}")
    options.print_line(json.dumps({"path": str(path), "values": values}) if given["as_json"] else str(path))
    return 0


def list_sets(messenger: Messenger, workspace: Workspace, as_json: bool) -> int:
    """Print every saved set; one that cannot be read is named and stops no other."""
    from ..core.kinds import KINDS
    from ..core.paramsets import read_set, saved_sets
    from .tables import print_table

    if not workspace.stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    codes, lines = [], []
    for name, path in saved_sets(workspace).items():
        try:
            values = read_set(path, KINDS)
        except AweError as error:
            messenger.error(error)
            codes.append(error.exit_code)
            continue
        count = sum(len(table) for table in values.values())
        lines.append([name, str(count), ",".join(values), str(path)])
        if as_json:
            options.print_line(json.dumps({"set": name, "path": str(path), "values": values}))
    if lines and not as_json:
        print_table(("set", "parameters", "kinds", "path"), lines)
    if not lines and not codes:
        messenger.note("no set is saved here; awe-params --save NAME saves one")
    return worst(codes)


def drop_set(messenger: Messenger, workspace: Workspace, name: str, given: Mapping[str, Any]) -> int:
    """Remove a saved set."""
    from ..core.paramsets import remove_set, set_path

    path = set_path(workspace, name)
    if not given["dry_run"]:
        remove_set(path)
    messenger.note(f"{path}: {'would be removed' if given['dry_run'] else 'removed'}")
    options.print_line(json.dumps({"path": str(path)}) if given["as_json"] else str(path))
    return 0
