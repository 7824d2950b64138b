"""What `awe-make` says of a survey and of a run: counts, causes, warnings, and the paths of what was asked for."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.engines.local import Finished
from ..core.engines.planfile import RunPlan
from ..core.engines.states import NodeState, error_of, is_passing, reason_of
from ..core.errors import AweError, NoMatch, OffGrid, worst
from ..core.kind import Kind
from ..core.planning.campaign import ELSEWHERE, Campaign, Outcome, Survey, has_nothing, states_of
from ..core.planning.demands import does_without
from ..core.planning.eclipse import eclipsing_kinds
from ..core.planning.failing import is_foreseen, less_any_name, less_own_name
from ..core.planning.nodes import SERVING, TO_MAKE, Node, address_of, label
from ..core.planning.offgrid import HINT, NOT_ON, is_elsewhere
from ..core.planning.orders import each_with, spared
from ..core.record import read_record, sidecar
from . import options
from .hints import hint_for_make
from .messages import Messenger

STATE_WORDS = {
    "fresh": "up to date",
    "unchecked": "not checked",
    "removed": "removed, record kept",
    "flagged": "flagged",
    "failed": "failed before",
    "failing": "cannot be made",
    "blocked": "blocked",
    "elsewhere": ELSEWHERE,
}
# In these states there is a product.
THERE = ("fresh", "unchecked", "flagged")
# So many frames that are left out are named in a line.
MOST_NAMES = 20
# So many of a product without some; all with -v.
FIRST_NAMES = 5
IS_FLAGGED = "is flagged"
# So much of a reason is said in it; the record has all.
LONGEST_REASON = 200


def summary(found: Survey) -> str:
    """How many products are to be made, of which kinds, and in which states the others are."""
    if not found.targets:
        return "nothing is out of date"
    states = states_of(found.targets)
    parts = [f"would make {_counted(found.to_make)}"] if found.to_make else []
    parts += [f"{states[name]} {word}" for name, word in STATE_WORDS.items() if states[name]]
    return ", ".join(parts) or "nothing to make"


def _counted(nodes: Sequence[Node]) -> str:
    return f"{len(nodes)} ({_kinds(nodes)})"


def _kinds(nodes: Iterable[Node]) -> str:
    kinds = Counter(node.kind.name for node in nodes)
    return ", ".join(f"{count} {name}" for name, count in kinds.items())


# Before


def say_blocked(found: Survey, messenger: Messenger) -> int:
    """Say once for each cause what cannot be made, or must not be used; returns the exit code.

    A product that is there and flagged is what was asked for: it is who uses it that fails.
    """
    causes: dict[tuple[str, str], list[Node]] = {}
    for node in found.blocked:
        if node.error is not None:
            first, kind = _first_cause(node)
            causes.setdefault((first.message, hint_for_make(kind, first.hint)), []).append(node)
    codes = []
    for (_, hint), nodes in causes.items():
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        name = label(nodes[0])
        error = nodes[0].error
        # Some causes begin with the name themselves.
        said = error.message.removeprefix(name).lstrip(": ") if error else ""
        state = "" if nodes[0].state == "failed" else f"{nodes[0].state}: "
        text = f"{name}{more}: {state}{said}"
        if nodes[0].state == "flagged":
            messenger.warning(text)
        elif error is not None:
            messenger.error(type(error)(text, hint=hint))
            codes.append(error.exit_code if is_foreseen(nodes[0]) else NoMatch.exit_code)
    return worst(codes)


def _first_cause(node: Node) -> tuple[AweError, Kind]:
    """What keeps the lowest node from being made that a blocked one is made of, and its kind: the same for many."""
    while below := [one for one in node.given if isinstance(one, Node) and one.state == "blocked"]:
        node = below[0]
    assert node.error is not None
    return node.error, node.kind


def say_elsewhere(found: Survey, messenger: Messenger) -> int:
    """Name in a line the frames that are not on the grid that is asked for; the exit code if there are no others."""
    away = found.elsewhere
    if not away:
        return 0
    first = away[0].error
    if len(away) == len(found.targets) and first is not None:
        more = f", nor is any of {len(away) - 1} more" if len(away) > 1 else ""
        messenger.error(type(first)(f"{first.message}{more}", hint=first.hint))
        return first.exit_code
    names = _few([os.path.basename(address_of(one)) for one in away])
    messenger.note(f"{len(away)} of {len(found.targets)} frames are left out, as not on the grid: {names}")
    return 0


def say_one_grid(found: Survey, messenger: Messenger, is_made: bool) -> None:
    """Name once the grids on which several products are together, or that these are to be found yet.

    is_made: what is to be made is made now, and the grids are said when they are known.
    """
    for one in found.grids:
        is_new = any(node.state in TO_MAKE for node in one.nodes)
        (messenger.note if is_new else messenger.detail)(
            f"{_by_match(one.nodes)}: on one grid, around the frames of all: {one.text}"
        )
    if found.unsolved and not is_made:
        several = [node for node in found.targets if node.is_of_products and node.state in TO_MAKE]
        messenger.note(
            f"{_by_match(several)}: on one grid where they overlap, as soon as their frames are solved: "
            f"{len(found.unsolved)} are not",
            "--grid NAME (awe-grid make), or --grid auto for a grid each",
        )


def _by_match(nodes: Sequence[Node]) -> str:
    """Products by what tells them apart: `coadd V, R, I`."""
    values = [" ".join(str(node.get(name)) for name in node.kind.match) for node in nodes]
    return f"{nodes[0].kind.name} {_few(list(dict.fromkeys(values)))}" if nodes else ""


def _few(names: Sequence[str], most: int = MOST_NAMES) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def warn_of_frames(found: Survey, messenger: Messenger) -> None:
    """Name the raw frames that are gone or changed since they were registered, with what they touch."""
    for address, nodes in found.graph.gone.items():
        broken = found.graph.broken.get(address)
        why = broken.message if broken else f"{address}: the file is gone"
        messenger.warning(f"{why}; it went into {_touched(nodes)}")
    for address, nodes in found.graph.changed.items():
        messenger.warning(f"{address}: was changed since it was registered; it goes into {_touched(nodes)}")


def _touched(nodes: Sequence[Node]) -> str:
    names = [label(node) for node in dict.fromkeys(nodes)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def say_unusable(found: Survey, messenger: Messenger, nodes: Sequence[Node] = ()) -> None:
    """Say once of each optional calibration that is there, or could be, why it is not used.

    nodes: for these, rather than for what is to be made.
    """
    said: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for node in nodes or found.to_make:
        for role, reason in node.supply.without.items() if node.supply else ():
            if reason:
                way = node.supply.ways.get(role) if node.supply else None
                hint = hint_for_make(way.kind, way.hint) if way else ""
                said.setdefault((role, less_any_name(way.cause) if way else reason), []).append(
                    (reason, hint)
                )
    for (role, _), alike in said.items():
        reason, hint = alike[0]
        more = f" ({len(alike)} products)" if len(alike) > 1 else ""
        messenger.note(f"without {role}: {_short(reason)}{more}", hint)


def say_overruling(found: Survey, messenger: Messenger) -> None:
    """Name the calibrations that are not what would be made, and are taken as their interval was set by hand."""
    for node in found.graph.overruling():
        if node.item is not None:
            path = node.item.address
            messenger.note(
                f"{path}: is taken as it is, for its interval was set by hand; another would be made now: "
                f"awe-validity --default --reason TEXT {shlex.quote(path)} lets that serve"
            )


# While it runs


def say_start(campaign: Campaign, cpus: int, messenger: Messenger) -> None:
    """How many products are made, and how long that is expected to take."""
    orders = campaign.plan.nodes
    if len(orders) > 1:
        seconds = sum(order.seconds for order in orders) / cpus
        messenger.note(f"making {_counted(campaign.survey.to_make)}, about {_duration(seconds)}")


# A reason is that of another if it is so up to its first number, or has other numbers.
NUMBERS, LEAST_ALIKE = re.compile(r"\d+"), 12


@dataclass
class Causes:
    """Why nodes of a run failed: said at once, and of those for which it is the same in the end how many they are."""

    messenger: Messenger
    more: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    firsts: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def say(self, node: Node, error: AweError, say: Callable[[str], None]) -> None:
        """Say why a node failed, with -v also where another did alike."""
        cause = less_own_name(node, error.message)
        same = less_any_name(cause)
        head = NUMBERS.split(same, 1)[0]
        alike = head if len(head) >= LEAST_ALIKE else NUMBERS.sub("#", same)
        about = node.kind.name, error.slug, alike
        if about in self.firsts:
            self.more[about] += 1
            if not self.messenger.verbose:
                return
        self.firsts.setdefault(about, label(node))
        say(cause)

    def say_rest(self) -> None:
        """Of how many more a cause was the same."""
        for about, count in self.more.items() if not self.messenger.verbose else ():
            first = self.firsts[about]
            self.messenger.failure(f"{about[1]}: {first} and {count} more alike (-v names each)")


def say_finished(campaign: Campaign, event: Finished, causes: Causes) -> None:
    """Say at once what failed, and what a node warned of."""
    messenger = causes.messenger
    node = campaign.nodes[event.node.id]
    state, name = event.state, label(node)
    if state.status == "done":
        _pass_on(campaign.plan, event.node.id, name, messenger)
    elif state.status == "blocked":
        messenger.detail(f"{name}: blocked: {state.error}")
    elif has_nothing(campaign, state):
        text = f"{name}: left out: {error_of(campaign.plan, state).message.partition(': ')[2]}"
        # That no frame touches one of several tiles near by, or with no good pixel, is no news.
        is_tile = node.is_of_products and len(campaign.survey.targets) > 1
        (messenger.detail if is_tile else messenger.note)(text)
    else:
        error = error_of(campaign.plan, state)
        error = type(error)(
            error.message.removeprefix(f"{state.id}: "), hint=hint_for_make(node.kind, error.hint)
        )
        if event.node.id in campaign.asked or is_passing(state):
            causes.say(
                node, error, lambda text: messenger.error(type(error)(f"{name}: {text}", hint=error.hint))
            )
        else:
            causes.say(
                node, error, lambda text: messenger.warning(f"{name}: {text}; what could use it goes without")
            )


def _pass_on(plan: RunPlan, node: str, name: str, messenger: Messenger) -> None:
    """The warnings of a node, and with -v all that it said."""
    try:
        lines = plan.log_path(node).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, is_warning, text = line.partition(": warning: ")
        if is_warning:
            messenger.warning(text)
        elif line.startswith("awe-"):
            messenger.detail(f"{name}: {line.partition(': ')[2]}")


# After


def say_left_out(found: Survey, outcome: Outcome | None, messenger: Messenger) -> int:
    """Say in a line of each product of many which frames it is made without, and why; returns the exit code.

    That a frame was judged bad, is elsewhere, or was left out by the recipe is no failure.
    """
    made = outcome.by_node if outcome else {}
    code = 0
    nodes = [node for node in found.targets if node.is_of_products and node.state in SERVING]
    found_of = {node: _frames_of(node, made) for node in nodes}
    for node, (used, missing) in found_of.items():
        flagged = _flagged_now(node, made)
        is_missed = bool(flagged) or any(not one.by_design for one in node.omitted)
        code = NoMatch.exit_code if is_missed else code
        total = len(node.given) + len(node.omitted)
        if len(nodes) > 1 and (away := [name for name, reason in missing.items() if is_elsewhere(reason)]):
            # That a frame is not on one of several grids is no news.
            messenger.detail(f"{label(node)}: {len(away)} frames are not on it: {_few(_basenames(away))}")
            missing = {name: reason for name, reason in missing.items() if name not in away}
            total -= len(away)
        if used >= total:
            continue
        alike: dict[str, list[str]] = {}
        for address, reason in missing.items():
            alike.setdefault(_short(reason), []).append(os.path.basename(address))
        most = len(missing) if messenger.verbose else FIRST_NAMES
        why = "; ".join(f"{_few(names, most)}: {reason}" for reason, names in alike.items())
        text = f"{label(node)}: {used} of {total} frames, {total - used} left out: {why}"
        say = messenger.warning if is_missed else messenger.note
        say(text, _ways_out(node, flagged))
    if len(nodes) > 1:
        _say_nowhere(found_of, messenger)
    return code


def _flagged_now(node: Node, made: Mapping[Node, NodeState]) -> set[str]:
    """The roles of which frames of a product of many had something made in this run that is flagged."""
    return {
        role
        for _, role, one in each_with(node)
        if (state := made.get(one)) is not None
        and state.status == "done"
        and not state.usable
        and role not in spared(node)
    }


def _ways_out(node: Node, flagged: Iterable[str]) -> str:
    """How a product of many can have frames that it is made without for what they lack; empty if it cannot.

    flagged: roles of which what was made in this run is flagged.
    """
    lacking = [one for one in node.omitted if one.role]
    roles = dict.fromkeys([*(one.role for one in lacking), *sorted(flagged)])
    ways = [
        f"--no-{role.replace('_', '-')} takes all frames without one"
        for role in roles
        if does_without(node.kind, node.kind.need(role))
    ]
    kinds = {node.kind.need(one.role).kind for one in lacking if IS_FLAGGED in one.reason}
    kinds |= {node.kind.need(role).kind for role in flagged}
    ways += [f"awe-query {kind} flags!=0 lists them, awe-judge good lets one serve" for kind in sorted(kinds)]
    return "; ".join(ways)


def _say_nowhere(found: Mapping[Node, tuple[int, Mapping[str, str]]], messenger: Messenger) -> None:
    """Name once the frames that are on none of several grids, or on that of several products."""
    every: dict[str, None] = {}
    somewhere: set[str] = set()
    for node, (_, missing) in found.items():
        names = [*(address_of(one) for one in node.given if isinstance(one, Node)), *missing]
        every |= dict.fromkeys(names)
        somewhere.update(name for name in names if not is_elsewhere(missing.get(name, "")))
    if nowhere := [name for name in every if name not in somewhere]:
        text = f"{len(nowhere)} of {len(every)} frames are not on any of these grids"
        messenger.note(f"{text}: {_few(_basenames(nowhere))}")


def _basenames(names: Iterable[str]) -> list[str]:
    return [os.path.basename(one) for one in names]


def _frames_of(node: Node, made: Mapping[Node, NodeState]) -> tuple[int, dict[str, str]]:
    """How many frames a product of many has, and those that it has not, by raw frame, each with the reason."""
    path = _path(node, made)
    omitted = {one.address: one.reason for one in node.omitted}
    if path:
        used, missing = _used(path, node.kind.primary.role, node in made)
        raws = {_path(one, made): address_of(one) for one in node.given if isinstance(one, Node)}
        missing = {raws.get(name, name): reason for name, reason in missing.items()}
        return used, missing | omitted | _lost_now(node, made)
    if node in made and made[node].status == "failed" and f": {OffGrid.slug}: " in made[node].error:
        away = {address_of(one): NOT_ON for one in node.given if isinstance(one, Node)}
        return 0, away | omitted
    return len(node.given), omitted | _lost_now(node, made)


def _lost_now(node: Node, made: Mapping[Node, NodeState]) -> dict[str, str]:
    """The frames of a product of many for which something failed in this run, and what."""
    states = {state.id: state for state in made.values()}
    found: dict[str, str] = {}
    for frame, role, one in each_with(node):
        state = made.get(one)
        if state is not None and not state.usable and role not in spared(node):
            found.setdefault(address_of(frame), reason_of(state, states))
    return found


def _short(reason: str) -> str:
    """A reason without the paths of products that it is of, which say little, and not too long."""
    reason = re.sub(r"(?<!\S)/\S+: ", "", reason)
    return reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON].rpartition(' ')[0]} ..."


def _used(path: str, role: str, is_new: bool) -> tuple[int, dict[str, str]]:
    """How many frames are in a product, and those that its record names as left out, by path, with the reasons.

    is_new: it was made just now; of one that was there what it was not given may be otherwise now.
    """
    recipe = read_record(sidecar(Path(path)))["recipe"]
    given = {one["content"] for one in recipe["inputs"] if one["role"] == role}
    left_out = recipe.get("left_out", ())
    unused = {one.get("content") for one in left_out} & given
    return len(given) - len(unused), {
        one["path"]: one["reason"] for one in left_out if is_new or one.get("content") in given
    }


def print_targets(found: Survey, outcome: Outcome | None, as_json: bool, null: bool) -> None:
    """The path of each product that was asked for and is there."""
    made = outcome.by_node if outcome else {}
    for node in found.targets:
        path = _path(node, made)
        if as_json:
            about = {"path": path or None, "action": _action(node, made), "label": label(node)}
            options.print_line(json.dumps(about))
        elif path:
            options.print_line(path, null)


def _path(node: Node, made: Mapping[Node, NodeState]) -> str:
    state = made.get(node)
    if state is not None:
        return state.product if state.status == "done" else ""
    if node.path:
        return node.path
    is_there = node.state in THERE and node.item is not None and not node.item.is_removed
    return node.item.address if node.item is not None and is_there else ""


def _action(node: Node, made: Mapping[Node, NodeState]) -> str:
    state = made.get(node)
    if state is not None:
        return state.action if state.status == "done" else state.status
    return "up-to-date" if node.state == "fresh" else node.state


def say_outcome(
    found: Survey, outcome: Outcome, seconds: float, messenger: Messenger, before: Outcome | None = None
) -> None:
    """How many came to what, what was not made for the failure of others, and where the logs are.

    before: what was made in the same run, until something had to be gone without.
    """
    fresh = sum(1 for node in found.targets if node.state == "fresh")
    counts = outcome.counts + Counter({"up to date": fresh})
    runs = [outcome] if before is None else [before, outcome]
    counts |= {word: sum(one.counts[word] for one in runs) for word in ("made", "failed")}
    words = ["made", "up to date", ELSEWHERE, "failed", "blocked"]
    if len(found.targets) > 1 and found.targets[0].is_of_products:
        # That a tile near by is touched by no frame is no news.
        words.remove(ELSEWHERE)
    if found.is_tiled and outcome.counts[ELSEWHERE] == len(found.targets):
        messenger.error(OffGrid(f"no frame has a good pixel on any of {len(found.targets)} tiles", hint=HINT))
    parts = [f"{counts[word]} {word}" for word in words if counts[word]] or ["nothing made"]
    messenger.note(f"{', '.join(parts)} in {_duration(seconds)}")
    blocked = [node for node, state in outcome.by_node.items() if state.status == "blocked"]
    if blocked:
        messenger.note(f"not made, as they hang on what failed: {_kinds(blocked)}")
    made = [node for one in runs for node, state in one.by_node.items() if state.action == "made"]
    if eclipsing := eclipsing_kinds(found.graph, made):
        messenger.note(
            f"the {' and '.join(eclipsing)} made now, as the newest, is what other programs choose"
        )
    if outcome.directory is not None:
        messenger.note(f"plan, states and logs are in {outcome.directory}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
