"""`awe NAME ...`: every program under one name; `awe bias ...` is `awe-bias ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from ..core.errors import UsageError, nearest
from . import options
from .runner import launch
from .tools import GROUPS, TOOLS, Tool, command_of, tool_named

SHELLS = ("bash", "zsh", "fish")


class Tools(click.Group):
    """The tools as commands of one group; the module of a tool is imported only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all tools, and of what `awe` does itself."""
        return [*(tool.name for tool in TOOLS), *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name."""
        tool = tool_named(cmd_name)
        return command_of(tool) if tool else self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; raises UsageError with the nearest name."""
        if not ctx.resilient_parsing and args[0] not in self.list_commands(ctx):
            raise _unknown(args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The tools by what they are for, one line each."""
        width = max(len(name) for name in self.list_commands(ctx))
        for title, tools in GROUPS:
            with formatter.section(title):
                rows = [(tool.name.ljust(width), command_of(tool).get_short_help_str(80)) for tool in tools]
                formatter.write_dl(rows)
        with formatter.section("About"):
            own = [(name.ljust(width), one.get_short_help_str(80)) for name, one in self.commands.items()]
            formatter.write_dl(own)


@click.group(
    "awe",
    cls=Tools,
    short_help="Run an awetools program by its name.",
    context_settings=options.SETTINGS,
    invoke_without_command=True,
    no_args_is_help=False,
    subcommand_metavar="NAME [ARGUMENT]...",
    options_metavar="[--help | --version]",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=options.print_version,
    help="Print the version and stop.",
)
@click.pass_context
def command(context: click.Context) -> None:
    """Run the program awe-NAME with its arguments: `awe bias ...` is `awe-bias ...`.

    `awe NAME --help` says what a program does.
    """
    if context.invoked_subcommand is None:
        raise UsageError("name a program", hint="awe --help lists them")


def _tool_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [tool.name for tool in TOOLS if tool.name.startswith(incomplete)]


@command.command("help", short_help="Say what a program does: the same as NAME --help.")
@click.argument("name", required=False, shell_complete=_tool_names)
@click.pass_context
def help_command(context: click.Context, name: str | None) -> None:
    """Print the help of the program NAME, or of awe."""
    # With the name of a tool this is `awe NAME --help`, which main() has seen to.
    if name:
        raise _unknown(name)
    assert context.parent is not None
    options.print_line(context.parent.get_help())


@command.command("completion", short_help="Print what a shell needs to complete the programs.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print the completion script of a SHELL, for awe and every awe-* program.

    \b
    Examples:
      source <(awe completion bash)            in ~/.bashrc
      source <(awe completion zsh)             in ~/.zshrc, after compinit
      awe completion fish | source             in ~/.config/fish/config.fish
    """
    from .completion import script

    options.print_line(script(shell).rstrip("\n"))


def _unknown(name: str) -> UsageError:
    near = nearest(name.removeprefix("awe-"), [tool.name for tool in TOOLS])
    return UsageError(f"no program {name!r}{near}", hint="awe --help lists them")


def chosen(arguments: Sequence[str]) -> tuple[Tool, list[str]] | None:
    """The tool that the arguments of `awe` name, and the arguments that are its own; None if none."""
    if len(arguments) == 2 and arguments[0] == "help":
        arguments = [arguments[1], "--help"]
    tool = tool_named(arguments[0]) if arguments else None
    return (tool, list(arguments[1:])) if tool else None


def main() -> None:
    """Run the program: a tool as if it had been called by its own name, else `awe` itself."""
    found = chosen(sys.argv[1:])
    if found is None:
        launch(command, "awe")
        return
    tool, arguments = found
    sys.argv = [tool.program, *arguments]
    importlib.import_module(tool.module).main()
