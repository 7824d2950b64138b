"""The classes: one for each declared kind and each type of raw frame, made when it is first used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from ..core import kinds as declared
from ..core.errors import nearest
from ..core.meta import FRAME_TYPES
from .names import Step, all_kinds, class_name_of, followers, step

if TYPE_CHECKING:
    from astropy.table import Table

    from .expressions import Attribute, Query
    from .objects import Object

OWN = ["all", "cone", "get", "limit", "newest", "order", "polygon", "select", "table"]


def class_names() -> dict[str, str]:
    """Every class and its kind: what is made here, what only awe-import makes, and raw frames."""
    return {class_name_of(name): name for name in (*(kind.name for kind in all_kinds()), "raw", *FRAME_TYPES)}


def class_named(name: str) -> ObjectClass:
    """The class of that name; raises AttributeError with the nearest name."""
    known = class_names()
    if name not in known:
        raise AttributeError(f"there is no class {name!r}{nearest(name, list(known))}")
    kind = known[name]
    if kind not in _made:
        _made[kind] = ObjectClass(kind, name)
    return _made[kind]


_made: dict[str, ObjectClass] = {}


class ObjectClass:
    """The products of a kind, or raw frames of a type, in the stores that are read from here.

    Reduced.filter == 'R' is a condition, and the query of all that meet it; joined with
    & | ~. Reduced.flat.level_adu is an attribute of an input.
    """

    def __init__(self, kind: str, name: str) -> None:
        self._kind, self._name = kind, name
        self.__doc__ = _text_of(kind, name)

    def __getattr__(self, name: str) -> Attribute:
        if name.startswith("_"):
            raise AttributeError(name)
        from .expressions import Attribute

        return Attribute(self._kind, f"{self._name}.{name}", step(self._step, name, self._name))

    @property
    def _step(self) -> Step:
        return Step("", "", (self._kind,))

    def __dir__(self) -> list[str]:
        return [*OWN, *followers(self._step)]

    def __repr__(self) -> str:
        return f"<awetools class {self._name}>"

    def __instancecheck__(self, one: object) -> bool:
        from .objects import Object

        return isinstance(one, Object) and (one.kind == self._kind or one.kind.startswith(f"{self._kind}_"))

    def all(self) -> Query:
        """All of them."""
        from .expressions import Query

        return Query(self._kind)

    def __iter__(self) -> Iterator[Object]:
        return iter(self._every)

    def __len__(self) -> int:
        return len(self._every)

    @cached_property
    def _every(self) -> Query:
        """All of them, with the last answer, which list() counts while it iterates."""
        return self.all()

    def __bool__(self) -> bool:
        return True

    @overload
    def __getitem__(self, place: SupportsIndex) -> Object: ...

    @overload
    def __getitem__(self, place: slice) -> list[Object]: ...

    def __getitem__(self, place: SupportsIndex | slice) -> Object | list[Object]:
        return self._every[place]

    def select(self, *conditions: str, **values: Any) -> Query:
        """Those that meet conditions: expressions as awe-query takes them, and values of fields."""
        return self.all().select(*conditions, **values)

    def cone(self, ra_deg: float, dec_deg: float, radius_deg: float) -> Query:
        """Those that point to within a radius of a place on the sky."""
        return self.all().cone(ra_deg, dec_deg, radius_deg)

    def polygon(self, *ra_dec_deg: float) -> Query:
        """Those that point to inside a polygon: ra1, dec1, ra2, dec2, ..."""
        return self.all().polygon(*ra_dec_deg)

    def order(self, *names: str | Attribute) -> Query:
        """All, sorted by these; a name may end in :desc."""
        return self.all().order(*names)

    def limit(self, count: int) -> Query:
        """The first of all, so many."""
        return self.all().limit(count)

    def newest(self) -> Query:
        """Of the versions of one product only the one made last."""
        return self.all().newest()

    def table(self, *names: str | Attribute) -> Table:
        """The attributes of all as a table of astropy."""
        return self.all().table(*names)

    def get(
        self,
        *conditions: str,
        make: bool = True,
        params: Mapping[str, object] | None = None,
        tell: Any = None,
        **values: Any,
    ) -> Object:
        """The one that meets the conditions, up to date: made if it must be, as awe-make does.

        conditions: expressions on what is known of raw frames, or the name of one; values:
        of fields, such as night='2017-03-02', detector='ccd1'. make: False takes what
        is there, and makes nothing. params: parameters of the kind. tell: called with
        each message, which otherwise goes to the logger awetools. Raises NoMatch,
        UsageError where several meet the conditions, and what keeps it from being made.
        """
        if self._kind not in {kind.name for kind in declared.KINDS}:
            return self.all().select(*conditions, **values).newest().one()
        from .conditions import text_of
        from .making import Wanted, made, there

        words = (*conditions, *(text_of(name, value) for name, value in values.items()))
        kind = next(one for one in declared.KINDS if one.name == self._kind)
        wanted = Wanted(kind, words, parameters=params or {})
        product: Object = made(wanted, tell) if make else there(wanted)
        return product


def _text_of(kind: str, name: str) -> str:
    found = [one for one in all_kinds() if one.name == kind]
    about = found[0].summary if found else f"Raw frames: {kind}."
    more = f"awe-query {kind} --fields lists the attributes, and so does dir({name})."
    return f"{name}: {about}\n\n{cleandoc(ObjectClass.__doc__ or '')}\n{more}"
