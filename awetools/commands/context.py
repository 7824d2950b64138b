"""`awe-context`: the stores that are in force, and named lists of stores to switch between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..core.errors import BadSettings, NoStore, UsageError, worst
from . import options
from .messages import Messenger
from .runner import launch
from .tables import print_table

if TYPE_CHECKING:
    from ..core.sharing.contexts import Standing

ACTIONS = ("show", "use", "list", "define", "forget")
SHELLS = ("sh", "fish", "csh")
COLUMNS = (
    "order",
    "name",
    "root",
    "for",
    "readable_by",
    "writable_by",
    "products",
    "raw_frames",
    "bytes",
    "index",
)


class _Word(click.ParamType[str]):
    """The name of a context, or a directory."""

    name = "word"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The names of contexts and, where they can stand, directories."""
        from ..core.sharing.contexts import contexts

        action, before = ctx.params.get("action"), ctx.params.get("words") or ()
        found = [CompletionItem[str](one) for one in contexts() if one.startswith(incomplete)]
        if action == "define" and before:
            found = []
        if action in ("use", "define"):
            found.append(CompletionItem[str](incomplete, type="dir"))
        return found if action in ("use", "define", "forget") else []


@click.command(
    "context",
    short_help="Show the stores in force; name lists of stores and switch between them.",
    context_settings=options.SETTINGS,
)
@click.argument("action", type=click.Choice(ACTIONS), default="show", metavar="[use|list|define|forget]")
@click.argument("words", nargs=-1, type=_Word(), metavar="[NAME] [DIR]...")
@click.option(
    "--shell",
    type=click.Choice(SHELLS),
    default="sh",
    show_default=True,
    help="With use: whose language the switch is in.",
)
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger, /, action: str, words: tuple[str, ...], shell: str, as_json: bool
) -> int | None:
    """Show the stores in force: those of AWE_PATH, nearest first, else the one found upward.

    All are read, and of what they say of an object the nearest store's word counts.
    The first is written; a product goes from a store to the next by awe-publish.
    Of each store: for what it is, whom the file permissions let read and write it,
    the number of its products and raw frames, the bytes of its products, and its
    index (kept; read only; or made in memory each time, where it is absent and
    this user cannot write it).

    \b
      use NAME|DIR...     print the command of a shell that puts stores in force,
                          for eval: what is in force is AWE_PATH and nothing else
      define NAME DIR...  keep stores under a name, nearest first, in
                          ~/.config/awetools/contexts.toml
      list                list the names and their stores
      forget NAME         forget a name; the stores stay as they are

    \b
    Examples:
      awe-context define survey ~/mydb /survey/project /archive/public
      eval "$(awe-context use survey)"
    """
    if shell != "sh" and action != "use":
        raise UsageError("--shell goes with use")
    return _ACTIONS[action](messenger, words, as_json, shell)


def _show(messenger: Messenger, words: Sequence[str], as_json: bool, _shell: str) -> int:
    from ..core.sharing.contexts import name_in_force, standings
    from ..core.store import search_path
    from ..core.workspace import working_directory

    _none(words, "awe-context")
    stores = search_path(working_directory())
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    found = standings(stores)
    problems = [one.problem for one in found if one.problem is not None]
    context = None
    try:
        context = name_in_force(stores)
    except BadSettings as error:
        # What is in force needs no names.
        problems.append(error)
    rows = []
    for one in found:
        upper = str(stores[one.order].root) if one.order < len(stores) else None
        about = _about(one)
        if as_json:
            more = {"written": one.written, "publishes_to": upper, "context": context}
            options.print_line(json.dumps({**about, **more}))
        rows.append(["" if about[name] is None else str(about[name]) for name in COLUMNS])
    if not as_json:
        print_table(COLUMNS, rows)
    for problem in problems:
        messenger.error(problem)
    if not found[0].may_write:
        messenger.warning(f"{found[0].store.root}: is first, but this user cannot write it")
    if context:
        messenger.note(f"this is the context {context}")
    return worst([problem.exit_code for problem in problems])


def _about(one: Standing) -> Mapping[str, Any]:
    use = "written and read" if one.written else "read"
    return {
        "order": one.order,
        "name": one.store.root.name,
        "root": str(one.store.root),
        "for": use if one.may_write or not one.written else "read (this user cannot write it)",
        "readable_by": one.readers,
        "writable_by": one.writers,
        "products": one.products,
        "raw_frames": one.raw_frames,
        "bytes": one.bytes,
        "index": one.index,
    }


def _use(messenger: Messenger, words: Sequence[str], as_json: bool, shell: str) -> int:
    from ..core.sharing.contexts import path_for, switch

    if not words:
        raise UsageError("use what? a context, or directories of stores", hint="awe-context list")
    value = path_for(words)
    if as_json:
        options.print_line(json.dumps({"AWE_PATH": value, "stores": value.split(":")}))
        return 0
    options.print_line(switch(value, shell))
    messenger.detail('for eval: eval "$(awe-context use ...)"')
    return 0


def _list(messenger: Messenger, words: Sequence[str], as_json: bool, _shell: str) -> int:
    from ..core.sharing.contexts import contexts, contexts_file

    _none(words, "awe-context list")
    found = contexts()
    for name, stores in found.items():
        if as_json:
            options.print_line(json.dumps({"name": name, "stores": stores}))
    if found and not as_json:
        print_table(("name", "stores"), [[name, ":".join(stores)] for name, stores in found.items()])
    if not found:
        messenger.note(f"{contexts_file()}: no context is defined; awe-context define NAME DIR...")
    return 0


def _define(messenger: Messenger, words: Sequence[str], as_json: bool, _shell: str) -> int:
    from ..core.sharing.contexts import contexts_file, define

    if len(words) < 2:
        raise UsageError("define a name and its stores", hint="awe-context define NAME DIR...")
    stores = define(words[0], words[1:])
    if as_json:
        options.print_line(json.dumps({"name": words[0], "stores": stores}))
    messenger.note(f"{contexts_file()}: {words[0]} is {':'.join(stores)}")
    return 0


def _forget(messenger: Messenger, words: Sequence[str], as_json: bool, _shell: str) -> int:
    from ..core.sharing.contexts import contexts_file, forget

    if len(words) != 1:
        raise UsageError("forget one name", hint="awe-context list")
    forget(words[0])
    if as_json:
        options.print_line(json.dumps({"name": words[0], "stores": None}))
    messenger.note(f"{contexts_file()}: {words[0]} is forgotten; its stores are as they were")
    return 0


def _none(words: Sequence[str], program: str) -> None:
    if words:
        raise UsageError(f"{program} takes no {words[0]!r:.60}", hint="awe-context use NAME")


_ACTIONS: Mapping[str, Callable[[Messenger, Sequence[str], bool, str], int]] = {
    "show": _show,
    "use": _use,
    "list": _list,
    "define": _define,
    "forget": _forget,
}


def main() -> None:
    """Run the program."""
    launch(command)
