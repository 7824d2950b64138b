"""The manual page of a program as a plain value: made of its click command, its Kind and the errors.

`manpage` writes it as roff, the documentation as reStructuredText; nothing is
said in two places. Text may hold `literal` parts in backticks.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from ..core.errors import AweError, all_errors
from ..core.kind import REFCAT, Kind, Limit, Need, holding, named, of_frame
from ..core.kinds import KINDS
from ..core.params import Param, params_of
from ..core.quality import COMMON_MEASURES, IMSTAT
from ..core.settings import FILE_NAME
from .contract import CONTRACT
from .tools import GROUPS, TOOLS, Tool, command_of

# Options that every program has; they end the list of every page.
COMMON = ("version", "log_json", "verbose", "quiet", "help")


@dataclass(frozen=True)
class Items:
    """Terms, each with what it means."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Verbatim:
    """Lines that stand as they are."""

    lines: tuple[str, ...]


Block = str | Items | Verbatim


@dataclass(frozen=True)
class Section:
    """A part of a page: a title, and paragraphs, lists of terms and examples."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """The manual page of one program."""

    program: str
    summary: str
    sections: tuple[Section, ...]


def page_of(tool: Tool) -> Page:
    """The page of a tool."""
    command = command_of(tool)
    kind = kind_of(tool)
    about, examples = _help_and_examples(command)
    sections = [
        Section("Synopsis", (Verbatim((f"{tool.program} {_synopsis(command)}",)),)),
        Section("Description", tuple(about)),
        *([Section("Inputs", tuple(inputs_of(kind)))] if kind else []),
        *_option_sections(command, kind),
        *([Section("Measures and limits", tuple(measures_of(kind)))] if kind else []),
        Section("Exit status", (exit_items(), "See `Many at once` in awe(1) for runs of many inputs.")),
        Section("Environment", (Items(tuple(environment_of(kind))),)),
        Section("Files", (Items(tuple(FILES)),)),
        *([Section("Examples", (Verbatim(tuple(examples)),))] if examples else []),
        Section("See also", (", ".join(f"{name}(1)" for name in _see_also(tool, kind)),)),
    ]
    return Page(tool.program, _summary(command), tuple(sections))


def overview() -> Page:
    """The page of `awe`: how to call the programs, and what all of them promise."""
    from .awe import SHELLS
    from .awe import command as awe

    about, _ = _help_and_examples(awe)
    own = [(f"awe {name}", one.get_short_help_str(200)) for name, one in awe.commands.items()]
    lists = [Section(title, (Items(tuple(_tool_items(tools))),)) for title, tools in GROUPS]
    sections = [
        Section(
            "Synopsis", (Verbatim(("awe NAME [ARGUMENT]...", f"awe completion {{{'|'.join(SHELLS)}}}")),)
        ),
        Section("Description", (*about, Items(tuple(own)))),
        *lists,
        *_option_sections(awe, None),
        *(Section(title, texts) for title, texts in CONTRACT),
        Section("Exit status", (exit_items(),)),
        Section("Environment", (Items(tuple(environment_of(None))),)),
        Section("Files", (Items(tuple(FILES)),)),
        Section("See also", (", ".join(f"{tool.program}(1)" for tool in TOOLS),)),
    ]
    return Page("awe", "small programs that reduce wide-field astronomical images", tuple(sections))


def kind_of(tool: Tool) -> Kind | None:
    """The kind that a tool makes; None if it is no maker."""
    return next((kind for kind in KINDS if kind.command == tool.program), None)


# What people give: arguments, inputs, options


def _synopsis(command: click.Command) -> str:
    words = ["[OPTION]..."]
    for argument in command.params:
        if isinstance(argument, click.Argument):
            name = argument.metavar or str(argument.name).upper()
            optional = not argument.required and not name.startswith("[")
            name = f"[{name}]" if optional else name
            words.append(name + ("..." if argument.nargs == -1 and "..." not in name else ""))
    return " ".join(words)


def inputs_of(kind: Kind) -> Iterator[Block]:
    """What a kind is made of: roles, kinds, and how each is chosen."""
    yield Items(
        tuple((f"{need.role} ({' or '.join(need.takes)})", _need_text(kind, need)) for need in kind.needs)
    )
    if kind.primary.many and not (kind.match or kind.group):
        yield "All inputs together make one product."
    elif kind.primary.many:
        yield f"Inputs that agree in {_names((*kind.match, *kind.group))} make one product."
    yield from _match_text(kind)
    yield f"Besides the pixels, these fields of the inputs decide the product: {_names((*kind.match, *kind.reads))}."
    yield f"{validity_text(kind)} Revision of the recipe: {kind.revision}."


# How what is not named is found, where it is not chosen by its interval.
HOW = {
    holding(): "the newest that was made with the input",
    of_frame(): "that of the same exposure and detector, from the stores",
}


def _need_text(kind: Kind, need: Need) -> str:
    parts = [need.help]
    if need in kind.leads:
        parts.append("Given as arguments or on standard input; " + _how_many(need))
        if len(kind.leads) == 1:
            return " ".join(parts)
        parts.append("Else:")
    option = need.role.replace("_", "-")
    if need.kind == REFCAT:
        return " ".join([*parts, _catalogue_text(need, option)])
    if need.select == named():
        return " ".join([*parts, f"Used where it is named by `--{option}`, and only there."])
    how = HOW.get(need.select, "chosen from the stores")
    missing = (
        "without one the product is made all the same"
        if need.optional
        else "that there is none is an error (5)"
    )
    parts.append(f"Named by `--{option}`, else {how}; {missing}. `--no-{option}` goes without.")
    return " ".join(parts)


def _catalogue_text(need: Need, option: str) -> str:
    missing = "an error (5)" if not need.optional else "no error"
    if need.optional_with:
        missing += f", but not where there is a {need.optional_with}"
    return (
        f"`--{option}` says which: a name (awe-refcat list), a directory with a / in it, `auto` for the only one "
        f"or the only one with stars in the field, `none` to go without; that there is none is {missing}."
    )


def _match_text(kind: Kind) -> Iterator[str]:
    """In what calibrations agree with the frame: what is common to all, then what is a kind's own."""
    needs = [need for need in kind.ranked if need.select != of_frame()]
    sources = [one for one in KINDS if one.name in {name for need in needs for name in need.kinds}]
    if not sources:
        return
    common = [name for name in sources[0].match if all(name in one.match for one in sources)]
    more = [(one.name, [name for name in one.match if name not in common]) for one in sources]
    own = "".join(f", a {name} also in {_names(names)}" for name, names in more if names)
    yield f"A calibration agrees with the frame in {_names(common)}{own}, and is valid at the frame's start."


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))


def _how_many(need: Need) -> str:
    if not need.many:
        return "each makes one product."
    return f"at least {need.at_least} for one product."


def validity_text(kind: Kind) -> str:
    """How long a product serves by default, in words."""
    if kind.validity is None:
        return "A product has no validity: it is not chosen for others."
    before, after = kind.validity.nights_before, kind.validity.nights_after
    more = [f"{count} {word}" for count, word in ((before, "before"), (after, "after")) if count]
    nights = f" and the nights around it ({', '.join(more)})" if more else ""
    return f"A product is valid for its own night{nights} by default, from noon to noon."


def _option_sections(command: click.Command, kind: Kind | None) -> Iterator[Section]:
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    titles = ("Options", "Calibrations", "Parameters", "Common options")
    groups: dict[str, list[tuple[str, str]]] = {title: [] for title in titles}
    for option in options:
        groups[_group_of(option, kind)].append((option_names(option), option_text(option)))
    groups["Common options"].append(("-h, --help", "Show a short help and stop."))
    for title, items in groups.items():
        if items and title == "Parameters" and kind:
            about = f"Each can also be set in `{FILE_NAME}` under `[{kind.name}]`, or in the environment; see awe(1)."
            yield Section(title, (about, Items(tuple(items))))
        elif items:
            yield Section(title, (Items(tuple(items)),))


def _group_of(option: click.Option, kind: Kind | None) -> str:
    name = str(option.name)
    if name in COMMON:
        return "Common options"
    if kind and name.startswith("param_"):
        return "Parameters"
    return "Calibrations" if kind and name.startswith(("need_", "no_")) else "Options"


def option_names(option: click.Option) -> str:
    """The names of an option with what it takes, such as `-o, --output FILE`."""
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        return names
    if option.metavar:
        return f"{names} {option.metavar}"
    if isinstance(option.type, click.Choice):
        return f"{names} {{{'|'.join(map(str, option.type.choices))}}}"
    words = {click.INT.name: "N", click.FLOAT.name: "X", "integer range": "N", "float range": "X"}
    return f"{names} {words.get(option.type.name, option.type.name.upper())}"


def option_text(option: click.Option) -> str:
    """What an option does, with its default where the help does not say it."""
    text = option.help or ""
    shown = option.show_default and isinstance(option.default, str | int | float)
    return f"{text} [default: {option.default}]" if shown else text


# What a kind measures


def measures_of(kind: Kind) -> Iterator[Block]:
    """What a kind measures, and the limits that its declaration sets."""
    imstat = ", ".join(name.replace("_", " ") for name in IMSTAT)
    common = [(name, f"Of an image: {text}") for name, text in COMMON_MEASURES.items() if "." not in name]
    items = [(one.name, one.help) for one in kind.measures]
    yield Items((*items, *common, ("imstat.NAME", f"Of an image: statistics of the good pixels, {imstat}.")))
    limits = "; ".join(limit_text(limit) for limit in kind.limits)
    yield f"Limits of the declaration: {limits}." if limits else "The declaration sets no limit."


def limit_text(limit: Limit) -> str:
    """A limit in words, such as `good_fraction` at least 0.5."""
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("at least", limit.low), ("at most", limit.high))
        if bound is not None
    ]
    return f"`{limit.measure}` {' and '.join(bounds)}"


def param_text(param: Param) -> str:
    """A parameter in words: what it does, its unit, default and range."""
    about = [f"default: {param.default_text}", param.range_text]
    unit = f" ({param.unit})" if param.unit else ""
    return f"{param.help.rstrip('.')}{unit}. [{'; '.join(part for part in about if part)}]"


# What is the same for all


BEFORE_ERRORS = (("0", "Done, or already up to date."), ("1 bug", "A bug in awetools; please report it."))
AFTER_ERRORS = (
    ("130", "Interrupted."),
    ("141", "Nobody reads standard output any more."),
    ("143", "Terminated."),
)


def exit_items() -> Items:
    """Every exit code with what it means, from the errors."""
    errors = sorted(all_errors(), key=lambda one: one.exit_code)
    coded = [(f"{one.exit_code} {one.slug}", first_line(one)) for one in errors]
    return Items((*BEFORE_ERRORS, *coded, *AFTER_ERRORS))


def first_line(error: type[AweError]) -> str:
    """The line of the manual that an error class is."""
    return inspect.cleandoc(error.__doc__ or "").splitlines()[0]


def environment_of(kind: Kind | None) -> Iterator[tuple[str, str]]:
    """The environment variables that a program reads."""
    if kind:
        for one in params_of(kind.params):
            yield f"AWE_{kind.name.upper()}_{one.name.upper()}", f"The parameter `{one.name}`."
    else:
        yield "AWE_KIND_PARAMETER", "A parameter of a kind, such as `AWE_BIAS_CLIP_SIGMA`."
    yield "AWE_INDEX", "`no`: write records only; awe-index --update takes them over (for batch systems)."
    yield "AWE_PATH", "Stores to read, separated by colons; the first is written."
    yield "XDG_CONFIG_HOME", "Where the user's `awetools` directory is. [default: `~/.config`]"


FILES = (
    ("FILE.fits.json", "The record of the product `FILE.fits`."),
    (".awe/", "Makes a directory a store: index, journal, records of raw frames, kept records."),
    (f".awe/{FILE_NAME}", "Settings of a store; `.awe/cameras/*.toml` are its camera tables."),
    (".awe/sets/NAME.toml", "A saved set of parameters (awe-params)."),
    (
        ".awe/runs/",
        "Plans, states and logs of runs of awe-make that did not end well; the last ones are kept.",
    ),
    (
        ".awe/failed/",
        "What could not be made, by recipe key, so that it is not tried in vain (awe-make --retry).",
    ),
    (FILE_NAME, "Settings of a project, here or in the nearest directory upward."),
    (f"~/.config/awetools/{FILE_NAME}", "Settings of the user; camera tables are in `cameras/` beside it."),
    (".awe-records/", "Beside products that lie in no store: the records of those that were replaced."),
)


# Pieces


def _summary(command: click.Command) -> str:
    text = (command.short_help or "").rstrip(".")
    return text[:1].lower() + text[1:]


def _help_and_examples(command: click.Command) -> tuple[list[Block], list[str]]:
    """The paragraphs of a command's help, and its examples, which stand in a paragraph of their own."""
    about: list[Block] = []
    examples: list[str] = []
    text = inspect.cleandoc(command.help or "").partition("\f")[0]
    for paragraph in [*text.split("\n\n"), *(command.epilog or "").split("\n\n")]:
        verbatim = paragraph.startswith("\b")
        lines = [line for line in paragraph.removeprefix("\b").splitlines() if line.strip()]
        if not lines:
            continue
        if lines[0].startswith(("Example:", "Examples:")):
            lines[0] = lines[0].partition(":")[2]
            examples += [line.strip() for line in lines if line.strip()]
        elif verbatim:
            about.append(Verbatim(tuple(lines)))
        else:
            about.append(" ".join(line.strip() for line in lines))
    return about, examples


def _tool_items(tools: Sequence[Tool]) -> Iterator[tuple[str, str]]:
    for tool in tools:
        yield f"{tool.program}(1)", command_of(tool).short_help or ""


def _see_also(tool: Tool, kind: Kind | None) -> list[str]:
    """awe, the makers of what a kind needs, and the tools beside it."""
    needed = {name for need in kind.needs for name in need.kinds} if kind else set()
    makers = [one.command for one in KINDS if one.name in needed]
    beside = [] if kind else [one.program for _, tools in GROUPS for one in tools if tool in tools]
    found = dict.fromkeys(["awe", *makers, *beside, *(["awe-query", "awe-why"] if kind else [])])
    return [name for name in found if name != tool.program]
