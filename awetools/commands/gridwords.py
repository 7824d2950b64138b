"""The words of `awe-grid`: names of grids, and projections."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from ..core.errors import AweError, BadValue


class GridWord(click.ParamType[str]):
    """The name of a grid, a place, or a file."""

    name = "word"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The names of grids; files where frames are meant."""
        action, before = ctx.params.get("action"), ctx.params.get("words") or ()
        if action == "which" or (action == "make" and before):
            return [CompletionItem[str](incomplete, type="file")]
        if action == "make":
            return []
        from ..core.gridstore import ENDING, grids
        from ..core.store import search_path
        from ..core.workspace import working_directory

        try:
            names = {path.name.removesuffix(ENDING) for path, _ in grids(search_path(working_directory()))}
        except AweError:
            return []
        return [CompletionItem[str](one) for one in sorted(names) if one.startswith(incomplete)]


class ProjectionWord(click.ParamType[str]):
    """The code of a projection, and its parameters behind a colon."""

    name = "projection"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word in its canonical form; the parallel, which frames or a place will say, may be missing."""
        from ..core.sky.projections import PARALLEL, read_word, word_of

        code = str(value).strip().upper()
        try:
            return code if code in PARALLEL else word_of(*read_word(str(value)))
        except BadValue as error:
            self.fail(f"{error.message} ({error.hint})" if error.hint else error.message, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The codes, with what they stand for."""
        from ..core.sky.projections import PROJECTIONS

        return [
            CompletionItem[str](code, help=about.name)
            for code, about in PROJECTIONS.items()
            if code.startswith(incomplete.upper())
        ]
