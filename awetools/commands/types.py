"""What the words of a command line can be besides text: kinds, cameras, filters, conditions.

Each type completes itself in a shell, from the declarations and from the index of
the store here. Completion reads only, waits for nobody and never fails.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ..core.errors import AweError, UnknownName, nearest

if TYPE_CHECKING:
    TextType = click.ParamType[str]
else:
    # Generic in newer versions of click only.
    TextType = click.ParamType

# A person who pressed the TAB key does not wait for a writer.
PATIENCE_S = 0.2


class KindType(TextType):
    """A kind of product; with `raw`, also the types of raw frames and `raw` for all of them."""

    name = "kind"

    def __init__(self, raw: bool = False) -> None:
        self.raw = raw

    def names(self) -> list[str]:
        """Every name that is taken."""
        from ..core.meta import FRAME_TYPES

        return [*self._summaries(), *(("raw", *FRAME_TYPES) if self.raw else ())]

    def _summaries(self) -> dict[str, str]:
        """The kinds with their summaries; where raw frames are asked for too, also those that are only imported."""
        from ..core.kinds import KINDS
        from ..core.kinds.foreign import IMPORTS

        imported = {kind.name: kind.summary for kind in IMPORTS} if self.raw else {}
        made = {kind.name: kind.summary for kind in KINDS}
        return {**made, **{name: text for name, text in imported.items() if name not in made}}

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The kind's name as it is; raises UnknownName with the nearest one."""
        names = self.names()
        if value in names:
            return value
        raise UnknownName(f"no kind {value!r}{nearest(value, names)}; there are: {', '.join(names)}")

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The kinds that begin so, with their summaries."""
        return _items(self.names(), incomplete, self._summaries())


class CameraType(TextType):
    """A camera that has a table."""

    name = "camera"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The camera's name as it is; raises UnknownName with the nearest one."""
        names = _camera_names()
        if value in names:
            return value
        raise UnknownName(f"no camera {value!r}{nearest(value, names)}; there are: {', '.join(names)}")

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The cameras that begin so."""
        try:
            return _items(_camera_names(), incomplete)
        except AweError:
            return []


class FilterType(TextType):
    """A filter; any text is taken, and those of the frames in the stores here are offered."""

    name = "filter"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The filters that begin so."""
        return _items(values_in_stores("filter"), incomplete)


class ConditionType(TextType):
    """A condition of a query; the names of fields are offered, and after `filter=` and its like the values."""

    name = "condition"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """`field=` for the fields that begin so, or `field=value` for the values that the stores hold."""
        from ..core.indexing.querynames import QUERY_COLUMNS
        from ..core.meta import ALIASES, FIELDS

        name, equals, _ = incomplete.partition("=")
        if equals:
            return _items([f"{name}={value}" for value in values_in_stores(name)], incomplete)
        helps = {f"{field.name}=": field.help for field in FIELDS if field.type != "json"}
        return _items([*helps, *(f"{name}=" for name in (*ALIASES, *QUERY_COLUMNS))], incomplete, helps)


def values_in_stores(field: str) -> list[str]:
    """The distinct values of a text field in the indexes of the stores here; empty if it is not known.

    An index that is missing or busy is passed over: it is not rebuilt for this.
    """
    from ..core.indexing.indexrows import META_COLUMNS
    from ..core.meta import ALIASES
    from ..core.store import search_path

    column = ALIASES.get(field, field)
    if META_COLUMNS.get(column) != "TEXT":
        return []
    try:
        stores = search_path(Path.cwd())
    except (AweError, OSError):
        return []
    return sorted({value for store in stores for value in _distinct(store.index_path, column)})


def _distinct(index: Path, column: str) -> list[str]:
    sql = f"SELECT DISTINCT {column} FROM objects WHERE {column} IS NOT NULL LIMIT 1000"
    try:
        with closing(
            sqlite3.connect(f"{index.as_uri()}?mode=ro", uri=True, timeout=PATIENCE_S)
        ) as connection:
            return [str(row[0]) for row in connection.execute(sql)]
    except sqlite3.Error:
        return []


def _camera_names() -> list[str]:
    from ..core.workspace import here

    return sorted(camera.name for camera in here().cameras)


def _items(
    names: Iterable[str], incomplete: str, helps: dict[str, str] | None = None
) -> list[CompletionItem[str]]:
    found: Sequence[str] = [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
    return [CompletionItem(name, help=(helps or {}).get(name)) for name in found]
