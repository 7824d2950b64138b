"""A Kind as a click command: arguments, options, and what is said while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, UsageError, worst
from ..core.kind import Kind, Need
from ..core.params import Param, Scalar, convert, params_of
from . import options
from .messages import Messenger
from .warm import checked_workspace, loader

OUT_DIR_HELP = (
    "Write each product here: named as its raw frame, else "
    "KIND_NIGHT_DETECTOR[_FILTER][_EXPOSURE][_TEMPERATURE].fits."
)

# How many products of a run came to what.
WORDS = {"made": "{} made", "up-to-date": "{} up to date", "would-make": "would make {}"}

if TYPE_CHECKING:
    ScalarType = click.ParamType[Scalar]
else:
    # Generic in newer versions of click only.
    ScalarType = click.ParamType


class ValueType(ScalarType):
    """The value of a parameter: converted and refused as it is in settings files and the environment."""

    def __init__(self, one: Param) -> None:
        self.one = one
        self.name = {float: "float", int: "integer", str: "text"}[one.type]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Scalar:
        """The value in the parameter's type; raises BadValue."""
        return convert(self.one, value, "command line")


def maker(kind: Kind) -> click.Command:
    """The command of a kind."""

    @click.pass_obj
    def run(messenger: Messenger, /, **given: Any) -> int:
        return make(kind, messenger, given)

    function = options.common(run)
    for option in reversed(_options(kind)):
        function = option(function)
    given = "|".join(name.upper() for need in kind.leads for name in need.takes)
    function = options.inputs(f"{given}...")(function)
    name = kind.command.removeprefix("awe-")
    command = click.command(
        name,
        short_help=kind.summary,
        help=_help(kind),
        epilog=f"Example: {kind.example}",
        context_settings=options.SETTINGS,
    )
    return command(function)


def _help(kind: Kind) -> str:
    return f"{kind.summary}\n\n{kind.description}"


def _options(kind: Kind) -> list[Any]:
    found = [
        options.path_option("-o", "--output", help="Write the one product here."),
        options.path_option(
            "--out-dir",
            help=OUT_DIR_HELP,
            metavar="DIR",
        ),
    ]
    for need in kind.calibrations:
        found += _need_options(need)
    found += [_param_option(one) for one in params_of(kind.params)]
    flag = click.option
    if kind.shared_by:
        found.append(flag("--alone", is_flag=True, help=f"Make no {kind.shared_by} of each frame out of it."))
    return [
        *found,
        flag(
            "-u",
            "--update",
            is_flag=True,
            help="Do nothing where the product is up to date with its own inputs (by content).",
        ),
        flag("-n", "--dry-run", is_flag=True, help="Say what would be made, and make nothing."),
        flag("--why", is_flag=True, help="Say what would be made and why, and make nothing."),
        flag(
            "--check",
            is_flag=True,
            help="Exit 3 if a product is missing or out of date with its own inputs; make nothing.",
        ),
        flag(
            "--params",
            "show_params",
            is_flag=True,
            help="Print each parameter with value, unit and origin, as for the first input, and stop.",
        ),
        flag("--force", is_flag=True, help="Replace a file that awetools did not write, or that was edited."),
        flag("--strict", is_flag=True, help="Write nothing if a measure is outside its limits (exit 3)."),
        flag(
            "--accept-flags",
            is_flag=True,
            help="Use a named calibration although it is flagged; goes on record.",
        ),
        flag(
            "--chosen",
            is_flag=True,
            help="The calibrations named are those that the rule chose; the question goes on record (awe-make).",
        ),
        flag(
            "--allow-nearest",
            type=click.IntRange(0),
            default=0,
            metavar="NIGHTS",
            help="Where no calibration is valid, use the nearest within so many nights; goes on record.",
        ),
        *([_left_out_option()] if kind.primary.many and not kind.primary.kind.startswith("raw_") else []),
        options.path_option("--depfile", help="Write the Make rule of the product here."),
        flag(
            "--memory",
            default="1G",
            show_default=True,
            metavar="BYTES",
            help="Cap on the memory for input frames held at a time, for example 800M; the product comes on top.",
        ),
        options.processes,
        options.json_output,
    ]


def _left_out_option() -> Any:
    return click.option(
        "--left-out",
        multiple=True,
        metavar="FILE: REASON",
        help="A frame that could not be had, and why; may be repeated; goes on record (awe-make).",
    )


def _need_options(need: Need) -> list[Any]:
    role = need.role.replace("_", "-")
    needed = "optional; chosen from the store" if need.optional else "chosen from the store"
    kinds = " or ".join(need.kinds)
    article = "an" if kinds[0] in "aeiou" else "a"
    which = f"{article} {kinds} file; may be repeated, the one that matches is used"
    text = f"{need.help.rstrip('.')}: {which}. [default: {needed}]"
    return [
        click.option(
            f"--{role}",
            f"need_{need.role}",
            multiple=True,
            type=click.Path(readable=False),
            metavar="FILE",
            help=text,
        ),
        click.option(
            f"--no-{role}",
            f"no_{need.role}",
            is_flag=True,
            help=f"Make it without {need.role}; this goes on record.",
        ),
    ]


def _param_option(one: Param) -> Any:
    parts = [f"default: {one.default_text}", one.range_text]
    unit = f" ({one.unit})" if one.unit else ""
    text = f"{one.help.rstrip('.')}{unit}. [{'; '.join(part for part in parts if part)}]"
    if one.type is bool:
        both = f"{one.option}/--no-{one.option.removeprefix('--')}"
        return click.option(both, f"param_{one.name}", default=None, help=text)
    kind: click.ParamType[Any] = click.Choice(one.choices) if one.choices else ValueType(one)
    return click.option(one.option, f"param_{one.name}", type=kind, default=None, help=text)


def make(kind: Kind, messenger: Messenger, given: dict[str, Any]) -> int:
    """Carry out one run of a maker; returns the exit code."""
    if given["output"] and given["out_dir"]:
        raise UsageError("-o and --out-dir exclude each other")
    if given["depfile"] and not given["output"]:
        raise UsageError("--depfile needs -o: a rule has one target")
    workspace = checked_workspace()
    parameters = {
        name[6:]: value for name, value in given.items() if name.startswith("param_") and value is not None
    }
    if given["show_params"]:
        return show_params(kind, given["names"], parameters, given["as_json"])
    names = options.read_names(given["names"], given["null"])
    request = _request(kind, names, parameters, workspace, given)
    code, outcomes = _report(request, messenger, given)
    if not kind.shared_by or given["alone"] or code:
        return code
    if any(one.action == "would-make" for one in outcomes):
        messenger.note(f"and then {kind.shared_by} of each frame")
        return code
    return _report(_of_each(request, [one for one in outcomes if one.record]), messenger, given)[0]


def _of_each(request: Any, made: Sequence[Any]) -> Any:
    """The request that gives each frame its own product out of those that were made of all frames."""
    from dataclasses import replace

    from ..core.kind import kind_named
    from ..core.kinds import KINDS
    from ..core.store import store_of

    kind = request.kind
    each = kind_named(KINDS, kind.shared_by)
    known = {one.name for one in params_of(each.params)}
    left_out = {path for outcome in made for path in _left_out(outcome)}
    used = {path for outcome in made for path in _inputs_of(outcome)}
    beside = None if request.output is None or store_of(request.output) else request.output.parent
    return replace(
        request,
        kind=each,
        addresses=[
            name
            for name in request.addresses
            if (path := os.path.realpath(name)) not in left_out and (path in used or not _is_on_grid(path))
        ],
        output=None,
        out_dir=request.out_dir or beside,
        named={kind.name: [str(outcome.target) for outcome in made]},
        without=frozenset(),
        parameters={name: value for name, value in request.parameters.items() if name in known},
        how=replace(request.how, depfile=None),
    )


def _left_out(outcome: Any) -> Iterator[str]:
    """Where the frames are that a product was made without, wherever it was made."""
    recipe = outcome.record["recipe"]
    contents = {one["content"] for one in recipe["left_out"] if "content" in one}
    for one in recipe["inputs"]:
        if one["content"] in contents:
            yield os.path.realpath(os.path.join(outcome.target.parent, one["path"]))


def _inputs_of(outcome: Any) -> Iterator[str]:
    """Where the products are that one was made of."""
    for one in outcome.record["recipe"]["inputs"]:
        yield os.path.realpath(os.path.join(outcome.target.parent, one["path"]))


def _is_on_grid(path: str) -> bool:
    from pathlib import Path

    from ..core.meta import on_grid
    from ..core.record import read_record, sidecar

    with contextlib.suppress(AweError):
        return on_grid(read_record(sidecar(Path(path)))["meta"])
    return False


def _request(
    kind: Kind, names: Sequence[str], parameters: dict[str, object], workspace: Any, given: dict[str, Any]
) -> Any:
    from ..core.batch import Request
    from ..core.build import How
    from ..core.kinds import KINDS

    how = How(
        memory_bytes=options.parse_bytes(given["memory"]),
        strict=given["strict"],
        force=given["force"],
        depfile=given["depfile"],
        argv=(kind.command, *sys.argv[1:]),
        threads=given["jobs"],
        left_out=tuple(given.get("left_out", ())),
    )
    modes = [
        mode
        for mode, asked in (("check", given["check"]), ("why", given["why"]), ("dry-run", given["dry_run"]))
        if asked
    ]
    return Request(
        kind=kind,
        kinds=KINDS,
        addresses=names,
        workspace=workspace,
        output=given["output"],
        out_dir=given["out_dir"],
        named={
            need.role: given[f"need_{need.role}"] for need in kind.calibrations if given[f"need_{need.role}"]
        },
        without=frozenset(need.role for need in kind.calibrations if given[f"no_{need.role}"]),
        parameters=parameters,
        mode=modes[0] if modes else "make",  # type: ignore[arg-type]
        update=given["update"],
        accept_flags=given["accept_flags"],
        chosen=given["chosen"],
        nearest_nights=given["allow_nearest"],
        how=how,
        processes=given["jobs"],
        loader=loader(),
    )


def _report(request: Any, messenger: Messenger, given: dict[str, Any]) -> tuple[int, list[Any]]:
    from ..core.batch import Failure, run
    from ..core.pixels.kernels import not_built
    from .progress import progress

    codes, actions, said = [], Counter[str](), Counter[str]()
    outcomes: list[Any] = []
    total = len(request.addresses) if not request.kind.primary.many else None
    with progress(total, request.kind.command, messenger) as step:
        for outcome in run(request):
            step()
            if isinstance(outcome, Failure):
                messenger.error(outcome.error, outcome.about)
                _say_notes(outcome.notes, said, messenger)
                codes.append(outcome.error.exit_code if isinstance(outcome.error, AweError) else 1)
                continue
            for text in outcome.warnings:
                messenger.warning(text)
            _say_notes(outcome.notes, said, messenger)
            codes.append(0)
            outcomes.append(outcome)
            actions[outcome.action] += 1
            _print_outcome(outcome, messenger, given)
    for about, count in said.items():
        if count > 1 and not messenger.verbose:
            messenger.note(f"{about}: the same for {count - 1} more (-v names each)")
    if slower := not_built():
        messenger.note(f"runs slower: the C kernels {', '.join(slower)} are not built; numpy does their work")
    failed = sum(1 for code in codes if code)
    if len(codes) > 1 or actions["up-to-date"] or actions["would-make"]:
        counts = [WORDS[action].format(count) for action, count in actions.items()]
        messenger.note(", ".join([*counts, *([f"{failed} of {len(codes)} failed"] if failed else [])]))
    return worst(codes), outcomes


def _say_notes(notes: Sequence[str], said: Counter[str], messenger: Messenger) -> None:
    """Say once what is without an optional input, a role each, and once what is the same text; count the rest."""
    for text in notes:
        about = text.partition(":")[0] if text.startswith("without ") else text
        if said[about]:
            messenger.detail(text)
        else:
            messenger.note(text)
        said[about] += 1


def _print_outcome(outcome: Any, messenger: Messenger, given: dict[str, Any]) -> None:
    reasons = [{"reason": one.name, "detail": one.detail} for one in outcome.reasons]
    if given["as_json"]:
        about = {"path": str(outcome.target), "action": outcome.action, "reasons": reasons}
        if outcome.record:
            about |= {
                "recipe_key": outcome.record["recipe_key"],
                "flags": outcome.record["quality"]["flag_names"],
            }
        options.print_line(json.dumps(about))
        return
    if given["why"]:
        why = "; ".join(f"{one.name}: {one.detail}" for one in outcome.reasons) or "up to date"
        options.print_line(f"{outcome.target}\t{why}")
        return
    if outcome.action != "made":
        messenger.detail(f"{outcome.target}: {outcome.action.replace('-', ' ')}")
    for one in outcome.record["recipe"]["inputs"] if outcome.record else ():
        if not one["kind"].startswith("raw_"):
            messenger.detail(f"{outcome.target}: {one['role']} {one['path']}")
    if not given["check"]:
        options.print_line(str(outcome.target), given["null"])


def _first_names(names: Sequence[str]) -> list[str]:
    """The inputs if there are any; --params can do without."""
    from ..core.errors import EmptyInput

    if not names and sys.stdin.isatty():
        return []
    try:
        return options.read_names(names, null=False)
    except EmptyInput:
        return []


def show_params(kind: Kind, names: Sequence[str], parameters: dict[str, object], as_json: bool) -> int:
    """Print each parameter with value, unit and origin: for the first input (its camera, filter, detector), if any."""
    from ..core.paramrows import View, rows_of
    from ..core.workspace import here

    workspace = here()
    listed = _first_names(names)
    meta: Mapping[str, Any] = {}
    if listed:
        from ..core.batch import open_sources
        from ..core.files import parse_address

        meta = open_sources(parse_address(listed[0]), workspace)[0].meta
    known = [one.name for one in params_of(kind.params)]
    for row in rows_of(kind, View(workspace, meta, {kind.name: parameters})):
        if row.name not in known:
            continue
        if as_json:
            about = {"parameter": row.name, "value": row.value, "unit": row.unit, "origin": row.origin}
            options.print_line(json.dumps(about))
        else:
            options.print_line(f"{row.name}\t{row.text}\t{row.unit or '-'}\t{row.origin}")
    return 0
