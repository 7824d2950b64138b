"""`awe-why`: which calibration serves a frame, and why each other one does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import NoMatch, NoStore, UsageError
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.kind import Kind


@click.command(
    "why",
    short_help="Say which calibration serves a frame, and why not the others.",
    context_settings=options.SETTINGS,
)
@options.inputs("FRAME...")
@click.option(
    "--role", required=True, metavar="ROLE", help="The role of the calibration: bias, flat, hotpix, ..."
)
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, role: str, as_json: bool) -> int:
    """For each FRAME print every candidate for a role, in the order of choice: the first one serves, if any.

    Each line has the frame, the calibration, and `chosen`, `eclipsed` (it would
    serve, but an earlier line wins) or the reason why it does not serve. Exit
    code 5 if no calibration serves a frame. Roles are those of what is made of
    the frame: of a science frame, the reduced one, whose flat is the master flat.

    \b
    Example: awe-why raw/d1030.fits --role bias
    """
    from ..core.batch import open_sources
    from ..core.choose import candidates, question_of
    from ..core.files import parse_address
    from ..core.kind import kind_named
    from ..core.kinds import KINDS
    from ..core.workspace import here

    roles = sorted({need.role for kind in KINDS for need in kind.calibrations})
    if role not in roles:
        raise UsageError(f"--role {role}: there is no such role; there are: {', '.join(roles)}")
    workspace = here()
    if not workspace.stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    unserved, unserved_kind = [], role
    for name in options.read_names(names, null):
        for source in open_sources(parse_address(name), workspace):
            found = []
            wanted = _kinds_of(role, source.kind, KINDS)
            for kind in (kind_named(KINDS, one) for one in wanted):
                found += candidates(kind, question_of(kind, source.meta), workspace.stores, source.meta)
            # The kinds of a role come in their order, but what serves comes before what does not.
            found.sort(key=lambda one: bool(one.reason))
            _print(str(source.address), found, as_json)
            if not found or found[0].reason:
                unserved.append(str(source.address))
                unserved_kind = wanted[0]
    if unserved:
        raise NoMatch(
            f"no {role} serves {', '.join(unserved[:3])}{' ...' if len(unserved) > 3 else ''}",
            hint=f"awe-query {unserved_kind}",
        )
    return 0


def _kinds_of(role: str, frame: str, kinds: Sequence[Kind]) -> tuple[str, ...]:
    """The kinds that fill a role for a frame of a kind.

    Kinds use one role for different products. What is made of the one frame asks first (a reduced
    frame), then what is made of several such frames, then anything.
    """
    asking = [
        (frame not in kind.primary.kinds, kind.primary.many, need.kinds)
        for kind in kinds
        for need in kind.calibrations
        if need.role == role
    ]
    return min(asking, key=lambda one: one[:2])[2]


def _print(frame: str, found: Sequence[Any], as_json: bool) -> None:
    for number, one in enumerate(found):
        verdict = one.reason or ("eclipsed" if number else "chosen")
        if as_json:
            about = {
                "frame": frame,
                "path": str(one.path),
                "verdict": verdict,
                "valid_from": one.valid_from,
                "valid_to": one.valid_to,
                "by_hand": one.by_hand,
                "nights_away": one.nights_away,
            }
            options.print_line(json.dumps(about))
        else:
            options.print_line(f"{frame}\t{one.path}\t{verdict}")


def main() -> None:
    """Run the program."""
    launch(command)
