"""What became of a node: `state/ID.json`, written whole when the node has ended, and never before.

A node that was interrupted leaves no state, so that asking again runs it.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ..errors import SEVERITY, AweError, NoMatch, NoSolution, Unavailable, all_errors
from ..files import write_whole
from ..record import sha256_of
from .planfile import REFERENCE, Conditional, Node, RunPlan, conditional

Status = Literal["done", "failed", "blocked", "timeout", "killed"]
STATUSES = ("done", "failed", "blocked", "timeout", "killed")
ERROR_LINES = 20
# A shell's words for a program that cannot be run, or is not there.
CANNOT_RUN, NOT_FOUND = 126, 127
_SIGNALLED = range(129, 193)
# Settings that make no sense, a file in the way, a file that is not what its record says.
_TO_MEND = (2, 8)
_BLOCKED_BY = re.compile(r"it (?:needs|wants) (?:the product of )?(?P<id>[A-Za-z0-9_.-]+), which ")
_TEXT, _COUNT, _NUMBER = (str,), (int,), (int, float)
_MAYBE_COUNT = (int, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    "id": _TEXT,
    "status": _TEXT,
    "code": _MAYBE_COUNT,
    "signal": _MAYBE_COUNT,
    "product": _TEXT,
    "action": _TEXT,
    "recipe_key": _TEXT,
    "flags": (list,),
    "error": _TEXT,
    "argv_sha256": _TEXT,
    "attempts": _COUNT,
    "start": _TEXT,
    "end": _TEXT,
    "wall_s": _NUMBER,
    "cpu_s": _NUMBER,
    "peak_memory_mb": _NUMBER,
    "host": _TEXT,
    "after": (dict,),
}


@dataclass(frozen=True)
class NodeState:
    """How a node ended, what it printed, and what it took.

    `code` is its exit code (7 of one that is blocked by what a retry may mend),
    `signal` what ended it; `product` the path that it printed last, with action,
    recipe key and flags where it printed JSON; `error` the last lines of its
    messages; `after` when each node that it waited for had ended, which tells
    whether one of them has run again since.
    """

    id: str
    status: Status
    code: int | None = None
    signal: int | None = None
    product: str = ""
    action: str = ""
    recipe_key: str = ""
    flags: tuple[str, ...] = ()
    error: str = ""
    argv_sha256: str = ""
    attempts: int = 0
    start: str = ""
    end: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_mb: float = 0.0
    host: str = ""
    after: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether what hangs on the node can go on: it is done, and its product has no flags."""
        return self.status == "done" and not self.flags


class Blocked(Exception):
    """A node cannot run, because of what another came to; the text says which.

    passing: a retry of that other may mend it.
    """

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


def write_state(plan: RunPlan, state: NodeState) -> None:
    """Write a state, whole or not at all. Raises Unavailable."""
    # Not forced to disk: one that a power cut empties counts as absent, and its node runs again.
    text = json.dumps(vars(state), separators=(",", ":")) + "\n"
    write_whole(_path(plan, state.id), text.encode(), durable=False)


def read_state(plan: RunPlan, node: str) -> NodeState | None:
    """The state of a node; None if it has none, or one that cannot be read. Raises Unavailable."""
    path = _path(plan, node)
    try:
        with open(path, "rb") as stream:
            value = json.loads(stream.read())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    if not _is_state(value) or value["id"] != node:
        return None
    known = {name: value[name] for name in _TYPES}
    return NodeState(**{**known, "flags": tuple(value["flags"])})


def _is_state(value: Any) -> bool:
    # By hand: thousands are read before a run that has little to do.
    return (
        isinstance(value, dict)
        and all(type(value.get(name)) in types for name, types in _TYPES.items())
        and value["status"] in STATUSES
        and all(isinstance(one, str) for one in (*value["flags"], *value["after"].values()))
    )


def _path(plan: RunPlan, node: str) -> str:
    return f"{plan.directory}/state/{node}.json"


def drop_state(plan: RunPlan, node: str) -> None:
    """Take away the state of a node that runs again. Raises Unavailable."""
    try:
        os.unlink(_path(plan, node))
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(f"{plan.state_path(node)}: {error.strerror}") from None


# Before a node runs


def arguments_of(node: Node, states: Mapping[str, NodeState]) -> tuple[str, ...]:
    """The command line of a node, with the products of others in their places.

    states: of the nodes that ended. `--role=@{ID}` becomes `--no-role` where a
    wanted node has no product that can be used, unless a retry may mend that; what
    stands on a condition that does not hold is left out. Raises Blocked.
    """
    for name in node.needs:
        _refuse_unusable(name, states.get(name))
    found: list[str] = []
    lost = ""
    for one in node.argv:
        condition = conditional(one)
        if condition is None:
            found.append(_argument(one, node, states) if "@{" in one else one)
            continue
        missing = _first_missing(condition, states)
        reason = reason_of(missing, states) if missing else ""
        if condition.for_reason == bool(missing):
            found.append(_argument(condition.text, node, states) + reason)
        lost = lost or (reason if condition.is_name else "")
    # Without a name it would read its standard input.
    if lost and all(one.startswith("-") for one in found[1:]):
        raise Blocked(f"none of what it is made of could be made: {lost}")
    return tuple(found)


def _first_missing(condition: Conditional, states: Mapping[str, NodeState]) -> NodeState | None:
    """The first node of a condition without a product that can be used; raises Blocked where that may change."""
    for name in condition.ids:
        state = states.get(name)
        if state is None:
            raise Blocked(f"it wants {name}, which has not run")
        if is_passing(state):
            raise Blocked(f"it wants {name}, which {_words(state)}", passing=True)
        if not (state.usable and state.product):
            return state
    return None


def reason_of(state: NodeState, states: Mapping[str, NodeState]) -> str:
    """Why a node has no product that can be used, in a line: of one that is blocked, why that by which it is."""
    while state.status == "blocked" and (match := _BLOCKED_BY.match(state.error)) and match["id"] in states:
        state = states[match["id"]]
    kind = state.id.rpartition("-")[0]
    if state.status == "done":
        return f"its {kind} is flagged: {', '.join(state.flags)}"
    if state.status == "blocked":
        return " ".join(state.error.split())
    lines = state.error.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        found = _reported(lines[number], lines[number + 1 : number + 2])
        if found is not None and found.exit_code == state.code:
            return f"{kind}: {' '.join(found.message.split())}"
    return f"{kind}: {_words(state)}"


def _refuse_unusable(name: str, state: NodeState | None) -> None:
    if state is None:
        raise Blocked(f"it needs {name}, which has not run")
    if state.status != "done":
        raise Blocked(f"it needs {name}, which {_words(state)}", is_passing(state))
    if state.flags:
        raise Blocked(f"it needs {name}, whose product {state.product} is flagged: {', '.join(state.flags)}")


def _words(state: NodeState) -> str:
    if state.status == "timeout":
        return "has run out of time"
    if state.signal is not None and state.status == "killed":
        return f"has been killed by {signal_name(state.signal)}"
    if state.status == "failed":
        return f"has failed ({state.code})"
    return f"{'is' if state.status == 'blocked' else 'has'} {state.status}"


def _argument(argument: str, node: Node, states: Mapping[str, NodeState]) -> str:
    match = REFERENCE.fullmatch(argument)
    if match is None:
        return argument
    state, option = states.get(match["id"]), match["option"] or ""
    if state is not None and state.usable and state.product:
        return option + state.product
    if match["id"] in node.needs:
        raise Blocked(f"it needs the product of {match['id']}, which printed no path")
    # A lesser product is made for want of a good input, and not for bad luck.
    if state is not None and is_passing(state):
        raise Blocked(f"it wants {match['id']}, which {_words(state)}", passing=True)
    return f"--no-{option[2:-1]}"


def argv_hash(argv: Sequence[str]) -> str:
    """SHA-256 of a command line."""
    return sha256_of(list(argv))


def is_settled(
    plan: RunPlan, node: Node, argv: Sequence[str], state: NodeState | None, after: Mapping[str, str]
) -> bool:
    """Whether a node need not run again: it is done, of the same arguments, and what it made is there.

    after: when each node that it waits for ended.
    """
    if state is None or state.status != "done" or state.argv_sha256 != argv_hash(argv):
        return False
    made = [*node.outputs, *([state.product] if state.product else [])]
    return dict(state.after) == dict(after) and all(os.path.exists(plan.root / one) for one in made)


# After a node ran


def product_of(output: bytes) -> dict[str, Any]:
    """What the last line that a program printed says of its product: fields of a NodeState.

    A line of JSON with a path gives path, action, recipe_key and flags; any other line is the path.
    """
    lines = [line for line in output.split(b"\n") if line.strip()]
    if not lines:
        return {}
    text = os.fsdecode(lines[-1])
    try:
        value = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return {"product": text.rstrip("\r")}
    flags = value.get("flags")
    return {
        "product": value["path"],
        "action": str(value.get("action") or ""),
        "recipe_key": str(value.get("recipe_key") or ""),
        "flags": tuple(str(one) for one in flags) if isinstance(flags, list) else (),
    }


def may_retry(state: NodeState) -> bool:
    """Whether a node that failed so may do better the next time: out of time, killed, or code 7."""
    if state.status in ("timeout", "killed"):
        return True
    return state.status == "failed" and (state.code == Unavailable.exit_code or state.code in _SIGNALLED)


def is_passing(state: NodeState) -> bool:
    """Whether what a node failed by, or is blocked by, lies not in its inputs: bad luck, or what a person can mend."""
    if state.status == "failed" and state.code in _TO_MEND:
        return True
    return may_retry(state) or (state.status == "blocked" and state.code == Unavailable.exit_code)


def exit_code_of(state: NodeState) -> int:
    """What the state of a node counts as among exit codes; those of other programs as 6, what a retry may mend as 7."""
    if state.status == "done":
        return 0
    if state.status == "blocked":
        return Unavailable.exit_code if is_passing(state) else NoMatch.exit_code
    if state.code in SEVERITY:
        return state.code or 0
    if may_retry(state) or state.code in (CANNOT_RUN, NOT_FOUND):
        return Unavailable.exit_code
    return NoSolution.exit_code


def error_of(plan: RunPlan, state: NodeState) -> AweError:
    """The failure of a node as an error: the one that it reported itself, if it is one of ours."""
    hint = f"the whole log: {plan.log_path(state.id)}"
    if state.status == "blocked":
        kind = Unavailable if is_passing(state) else NoMatch
        return kind(f"{state.id}: blocked: {state.error}")
    if state.status == "timeout":
        return Unavailable(f"{state.id}: ran out of time after {state.wall_s:.1f} s", hint=hint)
    if state.status == "killed":
        return Unavailable(f"{state.id}: killed by {signal_name(state.signal or 0)}", hint=hint)
    lines = state.error.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        found = _reported(lines[number], lines[number + 1 : number + 2])
        if found is not None and found.exit_code == state.code:
            return type(found)(f"{state.id}: {found.message}", hint=found.hint or hint)
    # What a bug is stands before the words that every bug ends with.
    last = next((line for line in reversed(lines) if ": bug: " in line), lines[-1] if lines else "")
    text = f"{state.id}: ended with {state.code}{': ' if last else ''}{last}"
    retry = exit_code_of(state) == Unavailable.exit_code
    return Unavailable(text, hint=hint) if retry else NoSolution(text, hint=hint)


def _reported(line: str, after: Sequence[str]) -> AweError | None:
    """The error that a program of ours printed on a line, `awe-NAME: SLUG: MESSAGE`."""
    program, _, rest = line.partition(": ")
    slug, _, message = rest.partition(": ")
    found = _slugs().get(slug) if program.startswith("awe") else None
    if found is None or not message:
        return None
    return found(
        message, hint=after[0].removeprefix("try: ") if after and after[0].startswith("try: ") else ""
    )


@lru_cache(maxsize=1)
def _slugs() -> dict[str, type[AweError]]:
    return {one.slug: one for one in all_errors()}


def signal_name(number: int) -> str:
    """The name of a signal: SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_lines(path: Path, start: int, end: int) -> str:
    """The last lines of a part of a log, as text."""
    with path.open("rb") as stream:
        start = max(start, end - (1 << 16))
        stream.seek(start)
        text = stream.read(end - start).decode(errors="backslashreplace")
    return "\n".join(text.splitlines()[-ERROR_LINES:])
