"""What `awe-make` says of a survey and of a run: counts, causes, warnings, and the paths of what was asked for."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..core.engines.local import Finished
from ..core.engines.planfile import RunPlan
from ..core.engines.states import NodeState, error_of, is_passing, reason_of
from ..core.errors import AweError, NoMatch, worst
from ..core.planning.campaign import ELSEWHERE, Campaign, Outcome, Survey, is_off_grid, states_of
from ..core.planning.nodes import SERVING, Node, address_of, label
from ..core.planning.orders import each_with, spared
from ..core.record import read_record, sidecar
from . import options
from .messages import Messenger

STATE_WORDS = {
    "fresh": "up to date",
    "unchecked": "not checked",
    "removed": "removed, record kept",
    "flagged": "flagged",
    "failed": "failed before",
    "blocked": "blocked",
    "elsewhere": ELSEWHERE,
}
# In these states there is a product.
THERE = ("fresh", "unchecked", "flagged")
# So many frames that are left out are named in a line.
MOST_NAMES = 20
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
            first = _first_cause(node)
            causes.setdefault((first.message, first.hint), []).append(node)
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
            codes.append(5)
    return worst(codes)


def _first_cause(node: Node) -> AweError:
    """What keeps the lowest node from being made that a blocked one is made of: it is the same for many."""
    while below := [one for one in node.given if isinstance(one, Node) and one.state == "blocked"]:
        node = below[0]
    assert node.error is not None
    return node.error


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


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


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
    reasons = Counter(
        f"without {role}: {reason}"
        for node in nodes or found.to_make
        if node.supply
        for role, reason in node.supply.without.items()
        if reason
    )
    for text, count in reasons.items():
        messenger.note(f"{text}{f' ({count} products)' if count > 1 else ''}")


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


def say_finished(campaign: Campaign, event: Finished, messenger: Messenger) -> None:
    """Say at once what failed, and what a node warned of."""
    state, name = event.state, label(campaign.nodes[event.node.id])
    if state.status == "done":
        _pass_on(campaign.plan, event.node.id, name, messenger)
    elif state.status == "blocked":
        messenger.detail(f"{name}: blocked: {state.error}")
    elif is_off_grid(campaign.plan, state):
        messenger.note(f"{name}: left out: {error_of(campaign.plan, state).message.partition(': ')[2]}")
    else:
        error = error_of(campaign.plan, state)
        text = f"{name}: {error.message.removeprefix(f'{state.id}: ')}"
        if event.node.id in campaign.asked or is_passing(state):
            messenger.error(type(error)(text, hint=error.hint))
        else:
            messenger.warning(f"{text}; what could use it goes without")


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
    for node in found.targets:
        if not node.is_of_products or node.state not in SERVING:
            continue
        is_missed = any(not one.by_design for one in node.omitted)
        code = NoMatch.exit_code if is_missed else code
        total, path = len(node.given) + len(node.omitted), _path(node, made)
        used, missing = _used(path, node.kind.primary.role, node in made) if path else (len(node.given), {})
        if used == total:
            continue
        missing |= {one.address: one.reason for one in node.omitted} | _lost_now(node, made)
        alike: dict[str, list[str]] = {}
        for address, reason in missing.items():
            alike.setdefault(reason, []).append(os.path.basename(address))
        why = "; ".join(f"{_few(names)}: {_short(reason)}" for reason, names in alike.items())
        text = f"{label(node)}: {used} of {total} frames, {total - used} left out: {why}"
        say = messenger.warning if is_missed else messenger.note
        say(text)
    return code


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


def say_outcome(found: Survey, outcome: Outcome, seconds: float, messenger: Messenger) -> None:
    """How many came to what, what was not made for the failure of others, and where the logs are."""
    fresh = sum(1 for node in found.targets if node.state == "fresh")
    counts = outcome.counts + Counter({"up to date": fresh})
    words = ("made", "up to date", ELSEWHERE, "failed", "blocked")
    parts = [f"{counts[word]} {word}" for word in words if counts[word]]
    messenger.note(f"{', '.join(parts)} in {_duration(seconds)}")
    blocked = [node for node, state in outcome.by_node.items() if state.status == "blocked"]
    if blocked:
        messenger.note(f"not made, as they hang on what failed: {_kinds(blocked)}")
    if outcome.counts["made"] and found.graph.view.sets:
        messenger.note(
            "what was made is now the newest: other programs choose it over what stands in the settings"
        )
    if outcome.directory is not None:
        messenger.note(f"plan, states and logs are in {outcome.directory}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
