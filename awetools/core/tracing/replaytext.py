"""A replay as text: a script for any POSIX shell, or a Makefile for GNU make."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence

from ..engines.export import LONGEST_LINE
from ..errors import BadValue
from .replay import Product, RawFile, Replay

SCRIPT_MARK, MAKE_MARK = "# Script by awe-lineage", "# Makefile by awe-lineage"
CHUNK = LONGEST_LINE // 8
EXPECTED, REGISTERED, NAMES = ".awe/expected", ".awe/registered", ".awe/names"
# Whether the raw frames hold the pixels that were used: each hash expected is among those registered.
SAME_FRAMES = (
    """awk 'NR == FNR { there[$1]; next } !($1 in there) { print "no such pixels any more: " $0 | "cat >&2"; """
    f"""bad = 8 }} END {{ exit bad }}' {REGISTERED} {EXPECTED}"""
)


def to_script(replay: Replay) -> str:
    """A replay as a shell script that works in an empty directory, its own store."""
    lines = [
        "#!/bin/sh",
        f"{SCRIPT_MARK} --script, awetools {_version()}: makes again, from raw frames alone,",
        *_about(replay),
        "# Run it in an empty directory, or name one: sh SCRIPT DIRECTORY. It prints the paths of the products,",
        "# and its exit code is 3 if the pixels of any product are not those that it had before.",
        *_SCRIPT_HEAD.splitlines(),
        "",
        *_prepare(replay, _sh),
    ]
    for one in replay.products:
        lines += ["", *_make(one, _sh), f"same {one.file} {one.record['product']['content']}"]
    targets = " ".join(f'"$(pwd)/{one.file}"' for one in replay.targets)
    return "\n".join([*lines, "", f"printf '%s\\n' {targets}", 'exit "$code"', ""])


_SCRIPT_HEAD = r"""
set -eu
CDPATH=
directory=${1:-.}
mkdir -p -- "$directory"
cd -- "$directory"
if test -e .awe; then
    echo "$0: $(pwd): is a store already; an empty directory is needed" >&2
    exit 2
fi

# No settings of whoever runs this take part: no variables, and no files of home or of a project above.
for name in $(env | sed -n 's/^\(AWE_[A-Za-z0-9_]*\)=.*/\1/p'); do
    unset "$name"
done
XDG_CONFIG_HOME=$(pwd)/.awe/home
export XDG_CONFIG_HOME
code=0

# same FILE CONTENT: whether a product has the pixels that it had.
same() {
    grep -q "\"content\": \"$2\"" "$1.json" && return
    echo "$0: $1: its pixels are not those that it had" >&2
    code=3
}
"""


def to_makefile(replay: Replay) -> str:
    """A replay as a Makefile for GNU make, which may run it with -j, in an empty directory.

    Raises BadValue for names that hold a newline.
    """
    lines = [
        f"{MAKE_MARK} --makefile, awetools {_version()}: makes again, from raw frames alone,",
        *_about(replay),
        "# Run it in an empty directory: make -f MAKEFILE. It fails if the pixels of any product are not those",
        "# that it had before.",
        *_MAKE_HEAD.splitlines(),
        f".PHONY: all\nall: {' '.join(one.file for one in replay.products)}",
    ]
    for one in replay.products:
        lines.append(f"\t@$(call same,{one.file},{one.record['product']['content']})")
    lines += [f"\t@printf '%s\\n' \"$(CURDIR)/{one.file}\"" for one in replay.targets]
    lines += ["", ".awe/ready:", "\t@test ! -e .awe || { echo '.awe: is there already' >&2; exit 2; }"]
    lines += [f"\t@{line}" for line in _prepare(replay, _in_make) if line and not line.startswith("#")]
    lines.append("\t@touch $@")
    for one in replay.products:
        lines += ["", f"{one.file}: {' '.join(one.needs)} | .awe/ready".replace(":  |", ": |")]
        lines += [f"\t@{line}" for line in _make(one, _in_make) if not line.startswith("#")]
    return "\n".join([*lines, ""])


_MAKE_HEAD = r"""
SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:

# No settings of whoever runs this take part: no variables, and no files of home or of a project above.
$(foreach name,$(filter AWE_%,$(.VARIABLES)),$(eval unexport $(name)))
export XDG_CONFIG_HOME := $(CURDIR)/.awe/home

# same FILE,CONTENT: whether a product has the pixels that it had.
same = grep -q '"content": "$(2)"' $(1).json || { echo '$(1): its pixels are not those that it had' >&2; exit 3; }
"""


def _version() -> str:
    from ... import __version__

    return __version__


def _about(replay: Replay) -> Iterator[str]:
    for one in replay.targets:
        software = one.record["software"]
        packages = ", ".join(f"{name} {software[name]}" for name in sorted(software))
        yield _comment(f"{one.file}, recipe key {one.node.id}, made with {packages}")
    yield from (_comment(note) for note in replay.notes)


def _comment(text: str) -> str:
    """A text as a comment: on one line, whatever a record says."""
    return f"# {' '.join(text.split())}"


# Words of a command


Quote = Callable[[str], str]


def _sh(text: str) -> str:
    return shlex.quote(text)


def _in_make(text: str) -> str:
    if "\n" in text:
        raise BadValue(f"{text!r} holds a newline, which a Makefile cannot", hint="--script")
    return shlex.quote(text).replace("$", "$$")


def _prepare(replay: Replay, quote: Quote) -> Iterator[str]:
    """The lines that make the store, register the raw frames, and check that they are what they were."""
    yield ": > awe.toml"
    yield "awe-init -q . > /dev/null"
    yield "mkdir -p .awe/home"
    for name, text in replay.tables.items():
        yield f"mkdir -p {os.path.dirname(name)}"
        yield from _written(text.splitlines(), quote(name), quote)
    if replay.raws:
        yield from _register(replay, quote)


def _register(replay: Replay, quote: Quote) -> Iterator[str]:
    yield "# The raw frames, with what was set of them by hand."
    for settings, raws in _alike(replay.raws):
        words = ["awe-ingest", "-q", *(word for pair in settings for word in ("--set", "=".join(pair)))]
        for paths in _chunks([one.path for one in raws], quote):
            yield _command([*words, *paths], quote)
    yield "# Are they what they were?"
    expected = [f"{content} {' '.join(one.path.split())}" for one in replay.raws for content in one.contents]
    yield from _written(expected, EXPECTED, quote)
    yield f"awe-query raw --get content > {REGISTERED}"
    yield SAME_FRAMES if quote is _sh else SAME_FRAMES.replace("$", "$$")


def _alike(raws: Sequence[RawFile]) -> list[tuple[tuple[tuple[str, str], ...], list[RawFile]]]:
    """The raw frames of which the same is set, together."""
    groups: dict[tuple[tuple[str, str], ...], list[RawFile]] = {}
    for one in raws:
        groups.setdefault(one.settings, []).append(one)
    return list(groups.items())


def _make(one: Product, quote: Quote) -> Iterator[str]:
    """The lines that make a product and say when it serves."""
    yield f"# {one.node.kind} {one.node.id[:8]}"
    if one.is_imported:
        yield f"mkdir -p {os.path.dirname(one.file)}"
        for ending in ("", ".json"):
            yield _command(
                ["cp", "-p", "--", os.path.abspath(one.node.path) + ending, one.file + ending], quote
            )
    else:
        yield from _maker(one.argv, quote)
    if one.interval is not None:
        ends = f"{one.interval.start or ''}..{one.interval.end or ''}"
        sides = ["--forever"] if ends == ".." else ["--set", ends]
        reason = " ".join(one.interval.reason.split()) or "as it was"
        yield _command(["awe-validity", "-q", *sides, "--reason", reason, one.file], quote)


def _maker(argv: Sequence[str], quote: Quote) -> Iterator[str]:
    """A maker's command; names that are too many for a line of make go through a file."""
    names = [one for one in argv if os.path.isabs(one)]
    if _length(argv, quote) <= LONGEST_LINE or any("\n" in one for one in names):
        yield _command(argv, quote)
        return
    file = f"{NAMES}-{argv[3].replace('/', '-')}"
    yield from _written(names, file, quote)
    yield _command([one for one in argv if not os.path.isabs(one)], quote, f"- < {file} > /dev/null")


def _command(words: Sequence[str], quote: Quote, end: str = "> /dev/null") -> str:
    """A command, its names on lines of their own."""
    lines = [""]
    for word in words:
        if os.path.isabs(word) or len(lines[-1]) + len(word) > 90:
            lines.append("")
        lines[-1] += f" {quote(word)}" if lines[-1] else quote(word)
    return " \\\n    ".join([*lines, end])


def _written(texts: Sequence[str], file: str, quote: Quote) -> Iterator[str]:
    """The lines that write texts into a file, a line each, some at a time."""
    yield f": > {file}"
    for chunk in _chunks(texts, quote):
        yield " \\\n    ".join(["printf '%s\\n'", *map(quote, chunk), f">> {file}"])


def _chunks(texts: Sequence[str], quote: Quote) -> Iterator[list[str]]:
    chunk: list[str] = []
    for text in texts:
        if chunk and _length([*chunk, text], quote) > CHUNK:
            yield chunk
            chunk = []
        chunk.append(text)
    if chunk:
        yield chunk


def _length(words: Sequence[str], quote: Quote) -> int:
    return sum(len(quote(one).encode(errors="surrogateescape")) + 1 for one in words)
