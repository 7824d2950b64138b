"""`awe-params`: parameters and limits of kinds: looked at, compared, set in settings files, saved by name."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..core.errors import AweError, NoStore, UnknownName, UsageError, nearest, worst
from . import options
from .messages import Messenger
from .paramsfile import drop_set, list_sets, save, wanted_of, wanted_of_set, warn_if_unknown, write
from .runner import launch
from .types import CameraType, FilterType, KindType, TextType, values_in_stores

if TYPE_CHECKING:
    from ..core.kind import Kind
    from ..core.paramrows import Row, View
    from ..core.workspace import Workspace

COLUMNS = ("parameter", "value", "unit", "origin", "range")
PLACES = ("store", "home", "project", "file")
SIDES = ("camera", "filter", "detector", "store", "set")


class _Word(KindType):
    """A kind, or a file."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The kinds that begin so, and files."""
        return [*super().shell_complete(ctx, param, incomplete), CompletionItem(incomplete, type="file")]


class _DetectorType(TextType):
    """A detector; any text is taken, and those of the frames in the stores here are offered."""

    name = "detector"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The detectors that begin so."""
        return [CompletionItem(one) for one in values_in_stores("detector") if one.startswith(incomplete)]


class _SetType(TextType):
    """The name of a saved set."""

    name = "set"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The sets that begin so."""
        from ..core.paramsets import saved_sets
        from ..core.workspace import here

        try:
            return [CompletionItem(one) for one in saved_sets(here()) if one.startswith(incomplete)]
        except (AweError, OSError):
            return []


@click.command(
    "params",
    short_help="Show, compare and set parameters and limits; save sets of them by name.",
    context_settings=options.SETTINGS,
)
@click.argument("words", nargs=-1, type=_Word(), metavar="[KIND...] [FILE...]")
@click.option("--camera", type=CameraType(), metavar="NAME", help="For frames of this camera.")
@click.option("--filter", type=FilterType(), metavar="NAME", help="For frames in this filter.")
@click.option("--detector", type=_DetectorType(), metavar="NAME", help="For frames of this detector.")
@click.option(
    "--set", "sets_values", multiple=True, metavar="[KIND.]NAME=VALUE", help="Set it in a settings file."
)
@click.option(
    "--unset", "unsets", multiple=True, metavar="[KIND.]NAME", help="Take it out of a settings file."
)
@click.option("--all", "show_all", is_flag=True, help="All that any table, file or variable says.")
@click.option(
    "--compare", nargs=2, metavar="A B", help="The parameters that differ between A and B, side by side."
)
@click.option("--sets", "list_sets", is_flag=True, help="List the saved sets.")
@click.option("--save", metavar="NAME", help="Save what is set for KIND... (or every kind) as a set.")
@click.option("--show", type=_SetType(), metavar="NAME", help="Show a saved set.")
@click.option("--apply", type=_SetType(), metavar="NAME", help="Set all of a saved set in a settings file.")
@click.option("--remove", type=_SetType(), metavar="NAME", help="Remove a saved set.")
@click.option(
    "--store", is_flag=True, help="Write the settings of the first store (.awe/awe.toml); the default."
)
@click.option("--home", is_flag=True, help="Write your own settings.")
@click.option(
    "--project", is_flag=True, help="Write the nearest awe.toml upward, else one in this directory."
)
@options.path_option("--file", help="Write this settings file.")
@click.option("--resolved", is_flag=True, help="With --save: every value, those that nobody set too.")
@click.option("--force", is_flag=True, help="With --save: replace a set of this name.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, words: tuple[str, ...], **given: Any) -> int:
    """Show every parameter, limit and default validity of each KIND: value, unit, origin and range.

    The values are those of FILE, a raw frame or product, or of frames of the
    --camera, --filter and --detector, or in general; without KIND, of every kind.
    A camera that is not named is that of the store's frames, if they are of one.

    --set and --unset change a settings file: that of the first store, or as
    --store, --home, --project and --file say; --camera, --filter and --detector
    say for which frames. Comments and order stay. Nothing is written if a name or
    value is wrong. A limit is limits.MEASURE=LOW..HIGH; the nights before and after
    its own that a calibration serves are validity_nights=BEFORE..AFTER, or forever.

    --compare takes on each side camera=, filter=, detector=, store=DIR or set=NAME
    (several with commas between), a frame, or a store's directory.

    A saved set keeps values by name, in .awe/sets of the first store: those that
    settings files and environment say of each KIND, with --resolved all. --apply
    sets them in a settings file.

    \b
    Examples:
      awe-params bias raw/d1030.fits
      awe-params domeflat --set min_level_adu=1000 --filter B
      awe-params --compare detector=ccd50 detector=ccd51
    """
    from ..core.kinds import KINDS
    from ..core.workspace import here

    _one_action(given)
    workspace = here()
    kinds, files = _kinds_and_files(words, KINDS)
    if given["sets_values"] or given["unsets"] or given["apply"] is not None:
        return _write(messenger, workspace, kinds, files, given)
    if given["list_sets"]:
        return list_sets(messenger, workspace, given["as_json"])
    if given["show"] is not None:
        return _show_set(workspace, kinds, given)
    if given["remove"] is not None:
        return drop_set(messenger, workspace, given["remove"], given)
    _check(messenger, workspace)
    if given["show_all"]:
        return _show_all(messenger, workspace, kinds, given["as_json"])
    if given["compare"]:
        return _compare(messenger, workspace, kinds, given)
    if given["save"] is not None:
        return _save(messenger, workspace, kinds, files, given)
    return _show(messenger, workspace, kinds, files, given)


def _one_action(given: Mapping[str, Any]) -> None:
    asked = {
        "--set/--unset": given["sets_values"] or given["unsets"],
        "--all": given["show_all"],
        "--compare": given["compare"],
        "--sets": given["list_sets"],
        **{f"--{name}": given[name] is not None for name in ("save", "show", "apply", "remove")},
    }
    found = [name for name, value in asked.items() if value]
    if len(found) > 1:
        raise UsageError(f"{' and '.join(found)} exclude each other")
    places = [f"--{name}" for name in PLACES if given[name]]
    if len(places) > 1:
        raise UsageError(f"{' and '.join(places)} exclude each other")
    action = found[0] if found else ""
    if places and action not in ("--set/--unset", "--apply"):
        raise UsageError(f"{places[0]} says where --set, --unset and --apply write; none of them is given")
    for name in ("resolved", "force"):
        if given[name] and action != "--save":
            raise UsageError(f"--{name} goes with --save")
    if given["dry_run"] and action not in ("--set/--unset", "--apply", "--save", "--remove"):
        raise UsageError("-n goes with --set, --unset, --apply, --save and --remove")
    for name in ("camera", "filter", "detector"):
        if given[name] == "":
            raise UsageError(f"--{name}: the name is empty: is a variable of the shell empty?")


def _kinds_and_files(words: Sequence[str], all_kinds: Sequence[Kind]) -> tuple[list[Kind], list[str]]:
    """The kinds that are named, and the files; a word alone that is neither is a misspelled kind."""
    named = {kind.name: kind for kind in all_kinds}
    kinds = [named[word] for word in dict.fromkeys(words) if word in named]
    files = [word for word in words if word not in named]
    # A name that could be a kind's is taken for one, others are files.
    if files and not kinds and re.fullmatch(r"\w+", files[0]) and not os.path.lexists(files[0]):
        names = list(named)
        raise UnknownName(
            f"no kind {files[0]!r}{nearest(files[0], names)}, nor a file; there are: {', '.join(names)}"
        )
    return kinds, options.read_names(files, null=False) if files else []


def _check(messenger: Messenger, workspace: Workspace) -> None:
    """Raise where the settings in force make no sense; warn of variables that look like parameters and are none."""
    import difflib

    from ..core.kinds import KINDS
    from ..core.params import params_of
    from ..core.settings import check_in_force

    check_in_force(workspace.settings, workspace.cameras, KINDS)
    known = [f"AWE_{kind.name}_{one.name}".upper() for kind in KINDS for one in params_of(kind.params)]
    prefixes = tuple(f"AWE_{kind.name.upper()}_" for kind in KINDS)
    for name in sorted(os.environ):
        if name.startswith("AWE_") and not name.startswith(prefixes):
            for close in difflib.get_close_matches(name, known, n=1, cutoff=0.8):
                messenger.warning(f"environment {name}: is no parameter, and not used (nearest: {close})")


# Showing


def _show(
    messenger: Messenger, workspace: Workspace, kinds: list[Kind], files: list[str], given: Mapping[str, Any]
) -> int:
    from ..core.kinds import KINDS
    from ..core.paramrows import rows_of

    codes: list[int] = []
    views = list(_views(messenger, workspace, files, given, codes))
    shown: dict[str, tuple[View, list[Row]]] = {}
    for view in views:
        rows = [row for kind in kinds or KINDS for row in rows_of(kind, view)]
        # Many frames of one set-up are one answer.
        shown.setdefault(f"{view.label} {rows!r}", (view, rows))
    _print(list(shown.values()), len(kinds) != 1, given["as_json"])
    return worst(codes)


def _views(
    messenger: Messenger,
    workspace: Workspace,
    files: Sequence[str],
    given: Mapping[str, Any],
    codes: list[int],
) -> Iterator[View]:
    """What is to be looked at: each detector of each file, or the set-up that options name."""
    from ..core.paramrows import View

    scope = _scope(given)
    if files and scope:
        raise UsageError(
            "FILE has its own camera, filter and detector: leave out --camera, --filter, --detector"
        )
    if not files:
        yield View(workspace, _with_camera(messenger, workspace, scope))
        return
    from ..core.batch import open_sources
    from ..core.files import parse_address

    for name in files:
        try:
            sources = open_sources(parse_address(name), workspace)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
            continue
        for source in sources:
            yield View(workspace, source.meta)


def _scope(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: given[name] for name in ("camera", "filter", "detector") if given[name] is not None}


def _with_camera(messenger: Messenger, workspace: Workspace, scope: dict[str, str]) -> dict[str, str]:
    """A set-up with the camera of the store's frames that are of it, if that is one and none is named."""
    from ..core.paramrows import camera_of

    if not scope or "camera" in scope or not workspace.stores:
        return scope
    warn_if_unknown(messenger, scope)
    found = camera_of(workspace.stores, scope)
    if len(found) > 1:
        about = " ".join(f"{name}={value}" for name, value in scope.items())
        messenger.note(f"{about}: frames of {', '.join(found)} are of it; --camera says which table counts")
    return {"camera": found[0], **scope} if len(found) == 1 else scope


def _print(shown: Sequence[tuple[View, list[Row]]], with_kind: bool, as_json: bool) -> None:
    from .tables import print_table

    if as_json:
        for view, rows in shown:
            for row in rows:
                options.print_line(json.dumps({**_setup(view), **_as_json(row)}))
        return
    several = len(shown) > 1
    lines = [
        [*([view.label] if several else []), *_cells(row, with_kind)] for view, rows in shown for row in rows
    ]
    if shown:
        print_table((*(("for",) if several else ()), *COLUMNS), lines)


def _setup(view: View) -> dict[str, str]:
    return {name: str(view.meta[name]) for name in SIDES[:3] if view.meta.get(name) is not None}


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "parameter": row.name,
        "value": row.value,
        "unit": row.unit,
        "origin": row.origin,
        "range": row.range_text,
    }


def _cells(row: Row, with_kind: bool) -> list[str]:
    name = f"{row.kind}.{row.name}" if with_kind else row.name
    return [name, row.text, row.unit or "-", row.origin, row.range_text or "-"]


def _show_all(messenger: Messenger, workspace: Workspace, kinds: Sequence[Kind], as_json: bool) -> int:
    from ..core.kinds import KINDS
    from ..core.paramrows import View, said

    names = [kind.name for kind in kinds or KINDS]
    rows = [row for row in said(workspace, KINDS) if row.kind in names]
    _print([(View(workspace, {}), rows)] if rows else [], True, as_json)
    if not rows:
        messenger.note("no table, settings file or variable says anything: all is built-in")
    return 0


# Comparing


def _compare(
    messenger: Messenger, workspace: Workspace, kinds: Sequence[Kind], given: Mapping[str, Any]
) -> int:
    from ..core.kinds import KINDS
    from ..core.paramrows import differences, rows_of
    from .tables import print_table

    wanted = kinds or KINDS
    one, other = given["compare"]
    left, right = (_side(messenger, text, workspace, _scope(given)) for text in (one, other))
    found = list(differences(left, right, wanted))
    if not found:
        count = sum(len(rows_of(kind, left)) for kind in wanted)
        messenger.note(f"{one} and {other}: nothing differs in {count} parameters and limits")
        return 0
    if given["as_json"]:
        for here, there in found:
            row = here or there
            assert row is not None
            about = {"kind": row.kind, "parameter": row.name, "unit": row.unit}
            sides = [
                None if side is None else {"value": side.value, "origin": side.origin}
                for side in (here, there)
            ]
            options.print_line(json.dumps({**about, "a": sides[0], "b": sides[1]}))
        return 0
    lines = [_compared(here, there, len(kinds) != 1) for here, there in found]
    print_table(("parameter", one, other, "unit", f"origin of {one}", f"origin of {other}"), lines)
    return 0


def _compared(here: Row | None, there: Row | None, with_kind: bool) -> list[str]:
    row = here or there
    assert row is not None
    values = ["-" if side is None else side.text for side in (here, there)]
    origins = ["-" if side is None else side.origin for side in (here, there)]
    return [_cells(row, with_kind)[0], *values, row.unit or "-", *origins]


def _side(messenger: Messenger, text: str, workspace: Workspace, scope: dict[str, str]) -> View:
    """One side of a comparison: words with commas between, a frame, or a store's directory."""
    from ..core.files import parse_address
    from ..core.paramrows import View
    from ..core.store import AWE

    if "=" not in text:
        if os.path.isdir(Path(text) / AWE):
            return _side(messenger, f"store={text}", workspace, scope)
        if not os.path.lexists(parse_address(text).path):
            raise UsageError(
                f"--compare {text}: neither a file, nor a store, nor one of {'=, '.join(SIDES)}=",
                hint="awe-params --compare filter=R filter=B",
            )
        from ..core.batch import open_sources

        return View(workspace, open_sources(parse_address(text), workspace)[0].meta)
    pairs = _pairs(text)
    if "store" in pairs:
        workspace = _store_alone(pairs.pop("store"), workspace)
    over: Mapping[str, Mapping[str, object]] = {}
    name = pairs.pop("set", None)
    if name is not None:
        from ..core.kinds import KINDS
        from ..core.paramsets import load_set

        over = load_set(workspace, name, KINDS)
    if "camera" in pairs:
        workspace.cameras.get(pairs["camera"])
    return View(workspace, _with_camera(messenger, workspace, {**scope, **pairs}), over, f"set {name}")


def _pairs(text: str) -> dict[str, str]:
    found = {}
    for part in re.split(f",(?=(?:{'|'.join(SIDES)})=)", text):
        name, _, value = part.partition("=")
        if name not in SIDES or not value:
            known = "" if name in SIDES else nearest(name, list(SIDES))
            raise UsageError(f"--compare {text}: {part!r} is not one of {'=, '.join(SIDES)}={known}")
        found[name] = value
    return found


def _store_alone(directory: str, workspace: Workspace) -> Workspace:
    """The workspace in which a store is the only one."""
    from ..core.store import AWE, Store
    from ..core.workspace import here

    path = Path(os.path.expanduser(directory))
    if not (path / AWE).is_dir():
        raise NoStore(f"{directory}: is not a store", hint=f"awe-init {shlex.quote(directory)}")
    return here(path, [Store(path.resolve())])


# Writing


def _write(
    messenger: Messenger,
    workspace: Workspace,
    kinds: Sequence[Kind],
    files: Sequence[str],
    given: Mapping[str, Any],
) -> int:
    if files:
        raise UsageError(
            f"{files[0]}: settings are not for one frame; --camera, --filter and --detector say for which"
        )
    if given["apply"] is not None:
        wanted = wanted_of_set(workspace, given["apply"], kinds)
    else:
        wanted = wanted_of(given["sets_values"], given["unsets"], kinds)
    return write(messenger, workspace, wanted, _scope(given), given)


def _save(
    messenger: Messenger,
    workspace: Workspace,
    kinds: Sequence[Kind],
    files: Sequence[str],
    given: Mapping[str, Any],
) -> int:
    from ..core.kinds import KINDS

    codes: list[int] = []
    views = list(_views(messenger, workspace, files, given, codes))
    if codes:
        return worst(codes)
    if len(views) > 1:
        raise UsageError(f"--save takes one frame of one detector, not {len(views)}: a set is of one set-up")
    return save(messenger, workspace, views[0], kinds or KINDS, given)


def _show_set(workspace: Workspace, kinds: Sequence[Kind], given: Mapping[str, Any]) -> int:
    from ..core.kinds import KINDS
    from ..core.paramrows import View, said_row
    from ..core.paramsets import read_set, set_path

    path = set_path(workspace, given["show"])
    values = read_set(path, KINDS)
    rows = [
        said_row(kind, name, value, str(path))
        for kind in kinds or KINDS
        for name, value in values.get(kind.name, {}).items()
    ]
    _print([(View(workspace, {}), rows)], True, given["as_json"])
    return 0


def main() -> None:
    """Run the program."""
    launch(command)
