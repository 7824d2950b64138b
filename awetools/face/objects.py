"""A product or raw frame as an object: its attributes, its pixels, where it comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import NoMatch, UsageError
from .answers import Answer, of_identities
from .names import Step, class_name_of, followers, step

if TYPE_CHECKING:
    import numpy as np
    from astropy.io.fits import Header
    from astropy.table import Table

    from .ancestry import Lineage
    from .making import State, Wanted

# What every object has besides its fields, measures and inputs.
OWN = (
    *("class_name", "data", "exists", "filename", "header", "id", "judge", "kind", "lineage", "make"),
    *("mask", "measures", "path", "table", "uptodate", "weight", "why"),
)


class Object:
    """A product or raw frame; its fields, measures and inputs are attributes.

    An attribute is read for all objects of one answer at once. One that is yet to be
    made has none, and says so.
    """

    def __init__(
        self,
        answer: Answer | None,
        row: int,
        at: Step | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self._answer, self._row, self._wanted = answer, row, wanted
        self._at = at or Step("", "", (self._kind_at(""),))

    def _kind_at(self, path: str) -> str:
        if self._answer is None:
            assert self._wanted is not None
            return self._wanted.kind.name
        return str(self._answer.value(self._row, f"{path}kind"))

    # Attributes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._follow(step(self._at, name))

    def _follow(self, at: Step) -> Any:
        answer = self._there()
        if at.is_link and at.many:
            found = answer.linked(self._row, at.path.removesuffix("."), at.kinds)
            return [Object(*place) for place in found]
        if at.is_link:
            return Object(answer, self._row, at)
        if at.prefix:
            return Part(self, at)
        return answer.value(self._row, at.path)

    def _there(self) -> Answer:
        if self._answer is None:
            assert self._wanted is not None
            raise self._wanted.absent()
        return self._answer

    def _value(self, name: str) -> Any:
        return self._there().value(self._row, f"{self._at.path}{name}")

    def __dir__(self) -> list[str]:
        return [*OWN, *followers(self._at)]

    def __repr__(self) -> str:
        if self._answer is None:
            return f"<{self.class_name}: to be made>"
        path = self._value("path")
        return f"{self.class_name}({path!r})" if path else f"<no {self.class_name}>"

    def __bool__(self) -> bool:
        return self._answer is not None and self._value("path") is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Object):
            return NotImplemented
        return self is other or (
            bool(self) and bool(other) and (self.kind, self.id) == (other.kind, other.id)
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.id)) if self else id(self)

    # What it is

    @property
    def kind(self) -> str:
        """Its kind: bias, reduced, raw_science, ..."""
        if self._answer is not None and self._at.path and (found := self._value("kind")):
            return str(found)
        return self._at.kinds[0]

    @property
    def class_name(self) -> str:
        """The name of its class."""
        return class_name_of(self.kind)

    @property
    def id(self) -> str:
        """What it is known by: the recipe key; of a raw frame the content of its pixels."""
        return str(self._value("recipe_key") or self._value("content"))

    @property
    def path(self) -> str:
        """Where its file is; file.fits[CCD5] for a detector of a raw frame."""
        path = self._value("path")
        if path is None:
            raise NoMatch(f"there is no such {self.class_name}: it was made without one, or the file is gone")
        return str(path)

    @property
    def filename(self) -> str:
        """The name of its file, without the folder."""
        return os.path.basename(self.path)

    @property
    def measures(self) -> Mapping[str, float | None]:
        """All that was measured, by name; nothing of a raw frame."""
        if self.kind.startswith("raw"):
            return {}
        measures: dict[str, float | None] = self._record()["quality"]["measures"]
        return measures

    def _record(self) -> dict[str, Any]:
        from ..core.record import read_record, sidecar

        return read_record(sidecar(self._file()))

    def _file(self) -> Path:
        from ..core.files import parse_address

        return parse_address(self.path).path

    # Whether it is there, and as it should be

    def exists(self) -> bool:
        """Whether it is there."""
        return bool(self) and os.path.exists(self._file())

    def uptodate(self) -> bool:
        """Whether it is there, and what would be made now would be the same."""
        return self._state().is_fresh

    def why(self) -> str:
        """Why it would be made (again), or cannot be; nothing if it is up to date."""
        return self._state().why

    def _state(self) -> State:
        from .making import state_of_path, state_of_wanted

        if self._wanted is not None:
            return state_of_wanted(self._wanted)
        return state_of_path(self.path, self.kind)

    def make(self) -> Object:
        """The product, made if it is missing or out of date: what awe-make does for it."""
        from .making import made, wanted_at

        product: Object = made(self._wanted or wanted_at(self.path, self.kind))
        return product

    # What is in it

    @property
    def data(self) -> np.ndarray:
        """The pixels (ny, nx), read anew each time; of a raw frame trimmed. Raises NoImage for a table."""
        from .contents import pixels

        return pixels(self.path)

    @property
    def weight(self) -> np.ndarray | None:
        """The inverse variance of each pixel, or None."""
        from .contents import plane

        return plane(self.path, "WEIGHT")

    @property
    def mask(self) -> np.ndarray | None:
        """The mask bits of each pixel, or None."""
        from .contents import plane

        return plane(self.path, "MASK")

    @property
    def header(self) -> Header:
        """The FITS header, as astropy has it."""
        from .contents import header

        return header(self.path)

    @property
    def table(self) -> Table:
        """The table of a product that is one, as astropy has it. Raises NoImage for an image."""
        from .contents import table

        return table(self.path)

    # Where it comes from

    def lineage(self, depth: int | None = None, forward: bool = False) -> Lineage:
        """What it was made from, or (forward) what was made from it: prints as a tree, iterates over each once."""
        from .ancestry import lineage_of

        return lineage_of(self.path, depth, forward)

    def judge(self, verdict: str, reason: str) -> None:
        """Judge it good, bad or ready, or take the verdict back (none), as awe-judge does. Raises what that raises."""
        if not reason.strip():
            raise UsageError("a verdict needs its reason, which goes on record")
        from ..core.journal import user_name
        from ..core.judge import Failure, judge, subjects_at
        from ..core.workspace import here

        for one in list(judge(subjects_at(self.path, here()), verdict, reason, user_name())):
            if isinstance(one, Failure):
                raise one.error
        now = of_identities(self.kind, [self.id], self._there().stores)
        if now.rows:
            # What was known of the verdict is not so any more.
            self._answer, self._row, self._at = now, 0, Step("", "", (self.kind,))


class Part:
    """The values of an object whose names begin alike, such as imstat."""

    def __init__(self, of: Object, at: Step) -> None:
        self._of, self._at = of, at

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._of._follow(step(self._at, name, self._at.prefix))

    def __dir__(self) -> list[str]:
        return followers(self._at)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in followers(self._at))
        return f"{self._at.prefix}({values})"


def objects_of(answer: Answer) -> list[Object]:
    """The objects of an answer."""
    return [Object(answer, number) for number in range(len(answer.rows))]
