"""Settings files written by program: single values set and taken out, all else left as people wrote it."""

from __future__ import annotations

import copy
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadSettings, BadValue, NoMatch
from .files import make_directory, write_whole
from .settings import header_of, quoted, read_settings
from .store import target_lock

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import InlineTable, Table


@dataclass(frozen=True)
class Change:
    """A value of a settings file: its table, its name, and what it becomes; None takes it out."""

    table: tuple[str, ...]
    name: str
    value: object | None

    @property
    def header(self) -> str:
        """The table as TOML names it."""
        return header_of((), *self.table)


@dataclass(frozen=True)
class Changed:
    """A change that was made, and what the value was before; None if there was none."""

    change: Change
    before: object | None

    @property
    def is_new(self) -> bool:
        """Whether the file says something else now."""
        return (type(self.before), self.before) != (type(self.change.value), self.change.value)


def change_settings(path: Path, changes: Sequence[Change], dry_run: bool = False) -> list[Changed]:
    """Make changes in a settings file, all or none, and say what each value was before.

    A file that does not exist is made; one in which nothing changes is not written.
    Comments and the order of lines stay. Others who change the file wait. Raises
    BadSettings where the file cannot be read (it is left as it is), BadValue for what
    TOML cannot hold, NoMatch where a
    value to be taken out is not there, Unavailable where nothing can be written.
    """
    # A link to a file that is kept elsewhere stays a link.
    target = Path(os.path.realpath(path))
    for part in (part for change in changes for part in change.table):
        toml_value(part)
    if dry_run:
        return _changed(target, changes)[1]
    make_directory(target.parent)
    with target_lock(target):
        text, changed = _changed(target, changes)
        if any(one.is_new for one in changed):
            _write(target, text)
    return changed


def _changed(target: Path, changes: Sequence[Change]) -> tuple[str, list[Changed]]:
    """The new text of a file, and the changes with what was there before."""
    settings = read_settings(target)
    if settings is None:
        text, tree = "", {}
    else:
        text, tree = target.read_bytes().decode(), dict(settings.tree)
    made = []
    for change in changes:
        before = _value_in(tree, change)
        if before is None and change.value is None:
            raise NoMatch(
                f"{target}: {change.header} has no {change.name} to take out",
                hint="awe-params --all shows what each file says",
            )
        made.append(Changed(change, before))
        if made[-1].is_new:
            text, tree = _edited(text, tree, change, target)
    return text, made


def _write(target: Path, text: str) -> None:
    mode = target.stat().st_mode & 0o7777 if target.exists() else None
    write_whole(target, text.encode())
    if mode is not None:
        with suppress(OSError):
            target.chmod(mode)


def _value_in(tree: Mapping[str, Any], change: Change) -> object | None:
    table: Any = tree
    for part in change.table:
        table = table.get(part) if isinstance(table, dict) else None
    return table.get(change.name) if isinstance(table, dict) else None


# The text


def toml_value(value: object) -> str:
    """A text, number, truth or list as TOML; raises BadValue for a text that TOML cannot hold."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(one) for one in value)}]"
    if not isinstance(value, str):
        return repr(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadValue(f"{value!r}: not a text in UTF-8, which settings files are in") from None
    return quoted(value)


def _edited(text: str, tree: dict[str, Any], change: Change, path: Path) -> tuple[str, dict[str, Any]]:
    """The text and the tree after one change.

    Several ways are tried, the one that leaves most as it is first; that which says
    exactly what was meant, and nothing else, is taken.
    """
    wanted = _changed_tree(tree, change)
    for new in _ways(text, change):
        with suppress(tomllib.TOMLDecodeError):
            found = tomllib.loads(new)
            if _without_empty(found) == _without_empty(wanted):
                return new, found
    raise BadSettings(
        f"{path}: the table {change.header} is written in a form that no program changes safely",
        hint=f"set {change.name} by hand: ${{EDITOR:-vi}} {shlex.quote(str(path))}",
    )


def _changed_tree(tree: Mapping[str, Any], change: Change) -> dict[str, Any]:
    new = copy.deepcopy(dict(tree))
    table = new
    for part in change.table:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            # Nothing that is written agrees with this, so that no way is taken.
            return {"": None}
    if change.value is None:
        del table[change.name]
    else:
        table[change.name] = list(change.value) if isinstance(change.value, tuple) else change.value
    return new


def _without_empty(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree without the tables that say nothing."""
    kept = {name: _without_empty(one) if isinstance(one, dict) else one for name, one in tree.items()}
    return {name: one for name, one in kept.items() if one != {}}


def _ways(text: str, change: Change) -> Iterator[str]:
    """New texts that may say what is meant."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    for way in (_without_table, _in_place, _line_in_table, _table_at_end, _plainly):
        # tomlkit refuses with errors of its own, and with ValueError, KeyError and AttributeError.
        with suppress(TOMLKitError, LookupError, ValueError, TypeError, AttributeError):
            new = way(tomlkit.parse(text), text, change)
            if new is not None:
                yield new


def _without_table(document: TOMLDocument, text: str, change: Change) -> str | None:
    """The value taken out, and its table too if that has neither a value nor a comment left."""
    from tomlkit.items import Comment, Table

    if change.value is not None or _in_place(document, text, change) is None:
        return None
    table: Any = document
    parents = []
    for part in change.table:
        parents.append((table, part))
        table = table[part]
    for parent, part in reversed(parents):
        table = parent[part]
        body = table.value.body if isinstance(table, Table) else [(part, table)]
        if any(key is not None or isinstance(item, Comment) for key, item in body):
            break
        parent.remove(part)
    return document.as_string()


def _in_place(document: TOMLDocument, _text: str, change: Change) -> str | None:
    """The value replaced where it stands, or its line taken out."""
    for path, table in list(_tables(document)):
        if path != change.table or change.name not in table:
            continue
        if change.value is None:
            table.remove(change.name)
        else:
            table[change.name] = change.value
        return document.as_string()
    return None


def _line_in_table(document: TOMLDocument, text: str, change: Change) -> str | None:
    """A new line behind the last one of its table: ahead of comments, which belong to what follows."""
    from tomlkit.items import Table

    if change.value is None:
        return None
    for path, table in _tables(document):
        if path != change.table or not isinstance(table, Table) or table.is_super_table():
            continue
        own = [item for key, item in table.value.body if key is not None and not isinstance(item, Table)]
        trivia = (own[-1] if own else table).trivia
        trivia.trail = (trivia.trail or _end(text)) + _line(change, text)
        return document.as_string()
    return None


def _table_at_end(_document: TOMLDocument, text: str, change: Change) -> str | None:
    """A new table with the value, behind all that the file says."""
    if change.value is None:
        return None
    end = _end(text)
    before = text if not text or text.endswith("\n") else text + end
    gap = end if before.strip() and not before.endswith(end * 2) else ""
    return f"{before}{gap}{change.header}{end}{_line(change, text)}"


def _plainly(document: TOMLDocument, _text: str, change: Change) -> str | None:
    """As tomlkit does it: for tables within a line, and for dotted names."""
    if change.value is None:
        return None
    table: Any = document
    for part in change.table:
        if part not in table:
            table[part] = {}
        table = table[part]
    table[change.name] = change.value
    return document.as_string()


def _tables(document: TOMLDocument) -> Iterator[tuple[tuple[str, ...], Table | InlineTable]]:
    """Every table as it stands in the text, with its path; one that is written in parts comes in parts."""
    from tomlkit.items import InlineTable, Table

    waiting: list[tuple[tuple[str, ...], Any]] = [((), document)]
    while waiting:
        path, container = waiting.pop()
        for key, item in container.body:
            if key is not None and isinstance(item, Table | InlineTable):
                yield (*path, key.key), item
                waiting.append(((*path, key.key), item.value))


def _line(change: Change, text: str) -> str:
    name = header_of((), change.name)[1:-1]
    return f"{name} = {toml_value(change.value)}{_end(text)}"


def _end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
