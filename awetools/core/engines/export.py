"""A plan as text that others run: JSON lines, a Makefile for GNU make, a shell script.

Neither make nor the shell needs `awe-node` or the plan's directory: what hangs
on a node gets the path that the node printed. Time limits, retries, CPUs and
memory are the engines' own and are left out; `--json` is dropped.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import SEVERITY, BadValue
from .planfile import REFERENCE, Conditional, Node, RunPlan, conditional, in_order, lines_of

# A name with one of these cannot stand in a rule, however it is quoted; a backslash only alone.
_NOT_IN_RULES = re.compile(r"[;|=\\\r\v\f]|\)$")
# Of a line that make gives to a shell; Linux takes 128 KiB.
LONGEST_LINE = 64_000
LONGEST_RECIPE = 120_000
_QUOTED_IN_RULES = re.compile(r"[ \t#:*?\[]")


def to_json_lines(plan: RunPlan) -> str:
    """The nodes of a plan, one a line, as in its plan.jsonl."""
    return lines_of(plan.nodes)


# For the shell


def to_script(plan: RunPlan) -> str:
    """A plan as a script for any POSIX shell, that runs its nodes one after the other.

    A node that fails does not stop the script: what needs it is left out, what wants it
    goes on without, and the script's exit code is the worst. Raises BadValue
    for arguments that hold a newline.
    """
    _refuse_newlines(plan)
    names = _variables(plan.nodes)
    useful = {name for node in plan.nodes for name in node.before}
    lines = [
        "#!/bin/sh",
        f"# Made by awetools of the plan {plan.directory}, {len(plan.nodes)} nodes.",
        "# What a node prints, the path of its product, is kept in a variable for those that hang on it.",
        "",
        "set -u",
        f"cd {shlex.quote(str(plan.root))} || exit 7",
        *(f"export {name}={shlex.quote(value)}" for name, value in plan.environment.items()),
        *_SCRIPT_HEAD.splitlines(),
    ]
    for node in in_order(plan.nodes):
        lines += ["", *_step(node, names, node.id in useful)]
    return "\n".join([*lines, "", 'exit "$worst"', ""])


_SCRIPT_HEAD = f"""
trap 'exit 130' INT
trap 'exit 143' TERM
worst=0
lost=' '
newline='
'

# failed ID CODE: what needs the node is not run.
failed() {{
    echo "$0: $1: failed ($2)" >&2
    case $2 in [1-8]) code=$2 ;; 12[6-9] | 1[3-9]? | 2??) code=7 ;; *) code=6 ;; esac
    note "$1" "$code"
}}

# blocked ID: it was not run, because of one that failed.
blocked() {{
    echo "$0: $1: blocked" >&2
    note "$1" 5
}}

note() {{
    lost="$lost$1 "
    for code in {" ".join(str(code) for code in reversed(SEVERITY))}; do
        case " $worst $2 " in *" $code "*) worse=$code ;; esac
    done
    worst=$worse
}}

# made ID...: whether all of them were made.
made() {{
    for one in "$@"; do
        case $lost in *" $one "*) return 1 ;; esac
    done
}}

# clean PATH: whether a product has no flags.
clean() {{
    if grep -qs '"flags": [1-9]' "$1.json"; then
        echo "$0: $1: is flagged, so nothing can hang on it" >&2
        return 5
    fi
}}"""


def _step(node: Node, names: Mapping[str, str], is_used: bool) -> list[str]:
    """The lines of the script that run a node."""
    name = names[node.id]
    command = _command(node, lambda one: f'"${names[one]}"', lambda role, one: _role(role, names[one]))
    first = [f"set -- {command}", "some="] if _conditions(node) else []
    for ids, (words, others, is_name) in _conditions(node, lambda one: f'"${names[one]}"').items():
        some = "; some=1" if is_name else ""
        first.append(
            f'if made {" ".join(ids)}; then set -- "$@" {words}{some}; else set -- "$@" {others}; fi'
        )
    if first:
        command = '"$@"'
    run = f"{name}=$({command})"
    last = []
    if not _is_ours(node):
        last = [f'{name}=${{{name}##*"$newline"}}']
    elif is_used:
        run += f' && clean "${name}"'
    lines = [f"{run} || {{ failed {node.id} $?; {name}=; }}", *last]
    if first and not _has_a_name(node):
        body = [f"    {line}" for line in lines]
        lines = ['if test -n "$some"; then', *body, "else", f"    blocked {node.id}; {name}=", "fi"]
    lines = [*first, *lines]
    if node.needs:
        body = [f"    {line}" for line in lines]
        lines = [
            f"if made {' '.join(node.needs)}; then",
            *body,
            "else",
            f"    blocked {node.id}; {name}=",
            "fi",
        ]
    return [f"# {node.id}", *lines]


def _role(role: str, name: str) -> str:
    """`--role=PATH` of a node that may have failed, else `--no-role`."""
    return f'"--${{{name}:+{role}=}}${{{name}:-no-{role}}}"'


def _variables(nodes: Sequence[Node]) -> dict[str, str]:
    """A variable's name for each node, none of which means something to a shell or program."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for node in nodes:
        plain = re.sub(r"\W", "_", node.id, flags=re.ASCII)
        name = plain if re.match(r"[a-z]\w*\d", plain) else f"node_{plain}"
        while name in taken:
            name += "_"
        taken.add(name)
        found[node.id] = name
    return found


# For make


def to_makefile(plan: RunPlan, directory: Path | None = None) -> str:
    """A plan as a Makefile for GNU make, which may run it with -j and -k.

    directory: where each node leaves a file ID.path, which holds the path that the
    node printed; by default `make` in the plan's directory. A node also runs again
    when one of its inputs is newer than that file. Raises BadValue for
    arguments that hold a newline, and for a directory that no rule can name.
    """
    _refuse_newlines(plan)
    directory = (directory or plan.directory / "make").absolute()
    place = _in_rule(str(directory))
    if place is None:
        raise BadValue(f"{directory}: make cannot name a directory with such characters")
    wanted = {name for node in plan.nodes for name in node.wants}
    useful = wanted | {name for node in plan.nodes for name in node.needs}
    made = {output for node in plan.nodes for output in node.outputs}
    lines = [
        f"# Made by awetools of the plan {plan.directory}, {len(plan.nodes)} nodes, for GNU make.",
        "# Each node leaves a file ID.path below P, which holds the path that the node printed.",
        "",
        f"P := {place}",
        *(f"export {name} := {_value(value)}" for name, value in plan.environment.items()),
        f"export AWE_PLAN_PATHS := {_value(str(directory))}",
        f"export AWE_PLAN_ROOT := {_value(str(plan.root))}",
        *_MAKE_HEAD.splitlines(),
        "all:" + "".join(f" $(P)/{node.id}.path" for node in plan.nodes),
        *(f"\t@$(call made,{node.id})" for node in plan.nodes if node.id in wanted),
        "",
        "$(P):",
        '\t@mkdir -p "$$AWE_PLAN_PATHS"',
    ]
    for node in in_order(plan.nodes):
        lines += ["", *_rule(node, plan, wanted, node.id in useful, made)]
    return "\n".join([*lines, ""])


_MAKE_HEAD = """
SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.PHONY: all

# The path that a node printed, as an argument; as the option of what wants it, which is --no-ROLE if it was not made.
printed = $$(sed -n '/[^ ]/h;$${g;p;}' "$$AWE_PLAN_PATHS/$(1).path" 2>/dev/null)
path = "$(printed)"
role = "$$(one=$(call printed,$(2)); printf '%s\\n' "--$${one:+$(1)=}$${one:-no-$(1)}")"

# Of what stands on a condition: whether all of some nodes were made, and the path of one.
functions = has() { for one; do test -e "$$AWE_PLAN_PATHS/$$one.path" || return 1; done; }; \
    at() { sed -n '/[^ ]/h;$${g;p;}' "$$AWE_PLAN_PATHS/$$1.path"; };

# Whether a node was made; whether its product has no flags, so that others can hang on it; its path kept.
made = test -e "$$AWE_PLAN_PATHS/$(1).path" || { echo '$(1) was not made' >&2; exit 5; }
clean = ! grep -qs '"flags": [1-9]' "$$(sed -n '$$p' "$$AWE_PLAN_PATHS/$(1).new").json"
keep = mv "$$AWE_PLAN_PATHS/$(1).new" "$$AWE_PLAN_PATHS/$(1).path"
"""


def _rule(node: Node, plan: RunPlan, wanted: set[str], is_used: bool, made: set[str]) -> list[str]:
    """The lines of the Makefile that make a node."""
    watched = [_in_rule(str(plan.root / one)) for one in node.inputs if one not in made]
    before = [f"$(P)/{one}.path" for one in node.before]
    lines = [f"# {node.id}"]
    if None in watched:
        lines.append("# Not watched for changes: inputs whose names no rule can hold.")
    lines.append(" ".join([f"$(P)/{node.id}.path:", *before, *(one for one in watched if one), "| $(P)"]))
    may_lack = [one for one in node.needs if one in wanted]
    if node.id in wanted:
        lines.append(f'\t@rm -f "$$AWE_PLAN_PATHS/{node.id}.path"')
    names = _long_tail(node)
    if names:
        lines += _names_file(node, names)
        node = replace(node, argv=(*node.argv[: -len(names)], "-"))
    command = _command(
        node,
        lambda one: f"\0(call path,{one})",
        lambda role, one: f"\0(call role,{role},{one})",
    )
    parts = [*(f"$(call made,{one})" for one in may_lack), 'cd "$$AWE_PLAN_ROOT"']
    text = command.replace("$", "$$").replace("\0", "$")
    if found := _conditions(node, lambda one: f'"$(at {one})"'):
        parts.append(_put_behind(node, text, found))
        text = '"$$@"'
    if names:
        text += f' < "$$AWE_PLAN_PATHS/{node.id}.names"'
    parts.append(f'{text} > "$$AWE_PLAN_PATHS/{node.id}.new"')
    if is_used and _is_ours(node):
        parts.append(f"$(call clean,{node.id})")
    parts.append(f"$(call keep,{node.id})")
    # What others only want may fail: make goes on.
    recipe = f"\t{'-' if node.id in wanted else ''}@{' && '.join(parts)}"
    if _conditions(node) and len(recipe) > LONGEST_RECIPE:
        raise BadValue(
            f"the plan: node {node.id}: {len(node.wants)} nodes that may fail are more than a rule of make can name",
            hint="awe-make --export sh, or --plan DIR, which awe-node runs",
        )
    return [*lines, recipe]


def _put_behind(node: Node, command: str, found: _Found) -> str:
    """The part of a recipe that puts the words of a command, and those whose condition holds, into the shell's own."""
    steps = [f"{{ $(functions) set -- {command}; some="]
    for ids, (words, others, is_name) in found.items():
        some = "; some=1" if is_name else ""
        step = f'if has {" ".join(ids)}; then set -- "$@" {words}{some}; else set -- "$@" {others}; fi'
        steps.append(step.replace("$", "$$"))
    if not _has_a_name(node):
        why = f"{node.id}: nothing that it is made of was made"
        steps.append(f'test -n "$$some" || {{ echo {shlex.quote(why)} >&2; exit 5; }}')
    return "; ".join([*steps, "}"])


def _long_tail(node: Node) -> Sequence[str]:
    """The names that a command line ends with, if it is too long for a shell of make; our programs read them."""
    if (
        not _is_ours(node)
        or _conditions(node)
        or sum(len(shlex.quote(one)) + 1 for one in node.argv) < LONGEST_LINE
    ):
        return ()
    first = len(node.argv)
    while (
        first > 1
        and not node.argv[first - 1].startswith("-")
        and not REFERENCE.fullmatch(node.argv[first - 1])
    ):
        first -= 1
    return node.argv[first:]


def _names_file(node: Node, names: Sequence[str]) -> Iterator[str]:
    """The lines of a rule that write names into a file, some at a time."""
    file = f'"$$AWE_PLAN_PATHS/{node.id}.names"'
    yield f"\t@rm -f {file}"
    line = ""
    for name in names:
        line += " " + shlex.quote(name).replace("$", "$$")
        if len(line) > LONGEST_LINE // 8 or name is names[-1]:
            yield f"\t@printf '%s\\n'{line} >> {file}"
            line = ""


def _in_rule(path: str) -> str | None:
    """A file's name as it stands in a rule; None if no quoting can make it stand there."""
    if _NOT_IN_RULES.search(path):
        return None
    return _QUOTED_IN_RULES.sub(lambda match: "\\" + match[0], path).replace("$", "$$")


def _value(text: str) -> str:
    """A text as the value of a variable of make, with its blanks and backslashes at both ends."""
    quoted = text.replace("$", "$$").replace("#", "\\#")
    return f"$(empty){quoted}$(empty)"


# For both


def _command(node: Node, path: Callable[[str], str], role: Callable[[str, str], str]) -> str:
    """The command line of a node for a shell; path and role say how the products of others are named."""
    words = []
    for argument in node.argv:
        match = REFERENCE.fullmatch(argument)
        if (argument == "--json" and _is_ours(node)) or conditional(argument):
            continue
        if match is None:
            words.append(shlex.quote(argument))
        elif match["id"] in node.wants:
            words.append(role(match["option"][2:-1], match["id"]))
        else:
            words.append((match["option"] or "") + path(match["id"]))
    return " ".join(words)


# By what must be made: the words that are there then, and otherwise, and whether a name is among the first.
_Found = Mapping[tuple[str, ...], tuple[str, str, bool]]


def _conditions(node: Node, path: Callable[[str], str] = str) -> _Found:
    """What of a command line stands on a condition, as words for a shell; path says how products are named."""
    found: dict[tuple[str, ...], tuple[list[str], list[str], bool]] = {}
    for one in filter(None, map(conditional, node.argv)):
        words, others, is_name = found.get(one.ids, ([], [], False))
        if one.for_reason:
            others.append(shlex.quote(f"{one.text}it could not be made"))
        else:
            words.append(_word(one, path))
        found[one.ids] = words, others, is_name or (one.is_name and not one.for_reason)
    return {
        ids: (" ".join(words), " ".join(others), is_name) for ids, (words, others, is_name) in found.items()
    }


def _word(one: Conditional, path: Callable[[str], str]) -> str:
    match = REFERENCE.fullmatch(one.text)
    return shlex.quote(one.text) if match is None else (match["option"] or "") + path(match["id"])


def _has_a_name(node: Node) -> bool:
    """Whether a command is given something, whatever becomes of its conditions."""
    return any(not one.startswith("-") and conditional(one) is None for one in node.argv[1:])


def _is_ours(node: Node) -> bool:
    """Whether a node is a program of awetools, which prints one path and leaves a record."""
    return node.argv[0].startswith("awe-")


def _refuse_newlines(plan: RunPlan) -> None:
    texts = [(f"node {node.id}", one) for node in plan.nodes for one in (*node.argv, *node.inputs)]
    texts += [(f"environment: {name}", value) for name, value in plan.environment.items()]
    texts += [("its directory", str(plan.root)), ("its directory", str(plan.directory))]
    for where, text in texts:
        if "\n" in text:
            raise BadValue(
                f"the plan: {where}: {text!r} holds a newline, which neither make nor a script can"
            )
