"""Shell completion of every program, on click's machinery.

A shell asks by running the program with `_AWE_BIAS_COMPLETE=bash_complete` in its
environment; `awe completion bash` prints what the shell needs for that.
"""

from __future__ import annotations

import sys

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from .messages import Messenger
from .runner import completion_variable
from .tools import TOOLS


class Bash(BashComplete):
    """click's, but a word with `=` is one word, as it was typed: bash takes it apart."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)", "COMPREPLY+=($value); [[ $value == *= ]] && compopt -o nospace"
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        """The complete words and the incomplete one."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in [*args, incomplete]:
            if words and (word.startswith("=") or words[-1].endswith("=")):
                words[-1] += word
            else:
                words.append(word)
        return words[:-1], words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """What fits; of `filter=R` only what stands after the `=`, which is what bash replaces."""
        name, equals, _ = incomplete.partition("=")
        found = super().get_completions(args, incomplete)
        if not equals:
            return found
        return [CompletionItem(one.value.removeprefix(name + "="), one.type, one.help) for one in found]


class Fish(FishComplete):
    """click's, but a help text keeps what stands after its first comma."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": ZshComplete, "fish": Fish}


def complete(command: click.Command, program: str, instruction: str) -> int:
    """Answer a shell's question, such as `bash_complete`; returns the exit code.

    Whatever goes wrong, nothing is said: a message would land in the middle of a
    command line.
    """
    shell, _, what = instruction.partition("_")
    if shell not in SHELLS or what != "complete":
        return 2
    answer = SHELLS[shell](command, {"obj": Messenger(program)}, program, completion_variable(program))
    try:
        text = answer.complete()
    except Exception:
        return 1
    sys.stdout.write(text + "\n")
    return 0


def script(shell: str) -> str:
    """What a shell has to read to complete `awe` and every `awe-*` program."""
    parts = []
    for program in ("awe", *(tool.program for tool in TOOLS)):
        one = SHELLS[shell](click.Command(program), {}, program, completion_variable(program))
        parts.append(one.source_template % one.source_vars())
    return "".join(parts)
