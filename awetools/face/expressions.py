"""Conditions as Python expressions, and the queries that they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from ..core.errors import NoMatch, NoStore
from ..core.expressions.expression import (
    And,
    Arithmetic,
    Call,
    Compare,
    In,
    IsNull,
    Like,
    Literal,
    Name,
    Node,
    Not,
    Or,
)
from .answers import Answer, answer_of
from .conditions import among, equal, literal
from .conditions import pattern as checked
from .names import Step, all_kinds, class_name_of, followers, step

if TYPE_CHECKING:
    from astropy.table import Table

    from ..core.questions.query import Question
    from ..core.store import Store
    from .objects import Object

# So many objects are shown of a query.
SHOWN = 10
# Up to here an index or slice asks for no more than it needs.
FIRST = 100
_ANDOR = "use & for and, | for or, ~ for not, each comparison in parentheses"
_TRUTH = f"{_ANDOR}; 0.5 < x < 9 is x.between(0.5, 9), and q.exists() says whether there are any"


class Attribute:
    """An attribute of all objects of a class: compare it with a value to make a condition."""

    def __init__(self, kind: str, name: str, at: Step) -> None:
        self._kind, self._name, self._at = kind, name, at

    def __getattr__(self, name: str) -> Attribute:
        if name.startswith("_"):
            raise AttributeError(name)
        return Attribute(self._kind, f"{self._name}.{name}", step(self._at, name, self._name))

    def __dir__(self) -> list[str]:
        return followers(self._at) or ["between", "isin", "isnull", "like"]

    def __repr__(self) -> str:
        return self._name

    def _node(self) -> Node:
        if self._at.kinds:
            what = "the beginning of a name" if self._at.prefix else "another object"
            raise TypeError(
                f"{self._name} is {what}: compare one of its attributes, such as {self._example()}"
            )
        return Name(self._at.path)

    def _example(self) -> str:
        names = dir(self)
        return f"{self._name}.{'path' if 'path' in names else names[0]}"

    def _is_one_of(self, objects: Sequence[Object]) -> Query:
        """Those that a link leads from to one of these objects."""
        found = [
            In(Name(self._at.path + field), ids)
            for field, raw in (("content", True), ("recipe_key", False))
            if (ids := tuple(Literal(one.id) for one in objects if one.kind.startswith("raw") == raw))
        ]
        if len(found) == 2:
            return Query(self._kind, Or(tuple(found)))
        return Query(self._kind, found[0] if found else Literal(False))

    def _compared(self, operator: str, other: Any) -> Query:
        from .objects import Object

        if isinstance(other, Object) and self._at.is_link and operator in ("=", "<>"):
            found = self._is_one_of([other])
            return found if operator == "=" else ~found
        if other is None and operator in ("=", "<>"):
            return self.isnull() if operator == "=" else ~self.isnull()
        return Query(self._kind, Compare(operator, self._node(), self._side(other)))

    def _side(self, other: Any) -> Node:
        if isinstance(other, Attribute):
            _refuse_mixture(self._kind, other._kind)
            return other._node()
        return literal(other)

    def __eq__(self, other: object) -> Query:  # type: ignore[override]
        return self._compared("=", other)

    def __ne__(self, other: object) -> Query:  # type: ignore[override]
        return self._compared("<>", other)

    def __lt__(self, other: Any) -> Query:
        return self._compared("<", other)

    def __le__(self, other: Any) -> Query:
        return self._compared("<=", other)

    def __gt__(self, other: Any) -> Query:
        return self._compared(">", other)

    def __ge__(self, other: Any) -> Query:
        return self._compared(">=", other)

    def __hash__(self) -> int:
        return hash((self._kind, self._name))

    def __bool__(self) -> bool:
        raise TypeError(f"{self._name} stands for the attribute of many objects: compare it; {_ANDOR}")

    def like(self, pattern: str) -> Query:
        """Those whose text fits a pattern with * (any text) and ? (one character)."""
        if not isinstance(pattern, str):
            raise TypeError(f"{self._name}.like: a pattern is text, not {pattern!r}")
        return Query(self._kind, Like(self._node(), checked(pattern)))

    def isin(self, values: Iterable[Any]) -> Query:
        """Those whose value is one of these."""
        from .objects import Object

        if isinstance(values, str):
            raise TypeError(f"{self._name}.isin: give a list of values, not the text {values!r}")
        values = list(values)
        if self._at.is_link and all(isinstance(one, Object) for one in values):
            return self._is_one_of(values)
        node, found = self._node(), among("", values)
        return Query(self._kind, replace(found, left=node) if isinstance(found, In) else found)

    def between(self, low: Any, high: Any) -> Query:
        """Those whose value lies between two, both included."""
        return self._compared(">=", low) & self._compared("<=", high)

    def isnull(self) -> Query:
        """Those that have no value; of a link, those that it leads nowhere from."""
        node = Name(self._at.path.removesuffix(".")) if self._at.is_link else self._node()
        return Query(self._kind, IsNull(node))

    def _calculated(self, operator: str, other: Any, swap: bool = False) -> Term:
        left, right = self._node(), self._side(other)
        return Term(
            self._kind, Arithmetic(operator, right, left) if swap else Arithmetic(operator, left, right)
        )

    def __add__(self, other: Any) -> Term:
        return self._calculated("+", other)

    def __radd__(self, other: Any) -> Term:
        return self._calculated("+", other, swap=True)

    def __sub__(self, other: Any) -> Term:
        return self._calculated("-", other)

    def __rsub__(self, other: Any) -> Term:
        return self._calculated("-", other, swap=True)

    def __mul__(self, other: Any) -> Term:
        return self._calculated("*", other)

    def __rmul__(self, other: Any) -> Term:
        return self._calculated("*", other, swap=True)

    def __neg__(self) -> Term:
        return self._calculated("-", 0, swap=True)

    def __abs__(self) -> Term:
        return Term(self._kind, Call("abs", self._node()))

    def __truediv__(self, other: Any) -> Term:
        return self._calculated("/", other)

    def __rtruediv__(self, other: Any) -> Term:
        return self._calculated("/", other, swap=True)


class Term(Attribute):
    """What is calculated from attributes; compared like one."""

    def __init__(self, kind: str, node: Node) -> None:
        super().__init__(kind, class_name_of(kind), Step(""))
        self._made = node

    def _node(self) -> Node:
        return self._made

    def __repr__(self) -> str:
        return f"<calculated from attributes of {self._name}>"


class Query:
    """The objects of a class that meet a condition; nothing is asked before they are wanted.

    Iterated, it is asked anew each time. Indexes and slices take the last answer as
    long as the indexes of the stores are as they were.
    """

    def __init__(
        self,
        kind: str,
        condition: Node | None = None,
        order: tuple[str, ...] = (),
        limit: int | None = None,
        newest: bool = False,
    ) -> None:
        self._kind, self._condition = kind, condition
        self._order, self._limit, self._newest = order, limit, newest
        self._kept: tuple[object, Answer] | None = None

    # Conditions

    def _joined(self, kind: type[And] | type[Or], other: object) -> Query:
        if not isinstance(other, Query):
            raise TypeError(f"{other!r:.60} is no condition; {_ANDOR}")
        _refuse_mixture(self._kind, other._kind)
        for one in (self, other):
            if one._limit is not None or one._newest:
                raise TypeError(
                    "a query that is limited or of the newest is no condition; join conditions first"
                )
        parts = [one._condition for one in (self, other) if one._condition is not None]
        if len(parts) < 2:
            return replaced(self, condition=parts[0] if parts and kind is And else None)
        return replaced(self, condition=kind(tuple(parts)))

    def __and__(self, other: object) -> Query:
        return self._joined(And, other)

    def __or__(self, other: object) -> Query:
        return self._joined(Or, other)

    def __invert__(self) -> Query:
        return replaced(self, condition=Literal(False) if self._condition is None else Not(self._condition))

    def __bool__(self) -> bool:
        raise TypeError(f"a query stands for many objects: {_TRUTH}")

    def select(self, *conditions: str, **values: Any) -> Query:
        """Those that also meet conditions: expressions as awe-query takes them, and values of fields."""
        from ..core.expressions.expression import parse_words

        parts = [
            self._condition,
            parse_words(conditions),
            *(equal(name, one) for name, one in values.items()),
        ]
        given = [one for one in parts if one is not None]
        return replaced(self, condition=And(tuple(given)) if given[1:] else given[0] if given else None)

    def cone(self, ra_deg: float, dec_deg: float, radius_deg: float) -> Query:
        """Those that point to within a radius of a place on the sky."""
        return self.select(_call("cone", (ra_deg, dec_deg, radius_deg)))

    def polygon(self, *ra_dec_deg: float) -> Query:
        """Those that point to inside a polygon: ra1, dec1, ra2, dec2, ..."""
        return self.select(_call("polygon", ra_dec_deg))

    def order(self, *names: str | Attribute) -> Query:
        """Sorted by these; a name may end in :desc."""
        return replaced(self, order=tuple(_name_of(one) for one in names))

    def limit(self, count: int) -> Query:
        """At most so many."""
        count = index(count)
        if count < 1:
            raise ValueError(f"limit({count}): must be at least 1")
        return replaced(self, limit=count if self._limit is None else min(count, self._limit))

    def newest(self) -> Query:
        """Of the versions of one product only the one made last."""
        return replaced(self, newest=True)

    # Answers

    def _question(self, columns: Sequence[str] = ("path",)) -> Question:
        from ..core.questions.query import Question

        return Question(self._kind, self._condition, tuple(columns), self._order, self._limit, self._newest)

    def _asked(self) -> Answer:
        stores = stores_here()
        answer = answer_of(self._question(), stores)
        self._kept = (_stamp(stores), answer)
        return answer

    def _last(self) -> Answer | None:
        """The last answer, if nothing has changed since."""
        if self._kept is not None and self._kept[0] == _stamp(stores_here()):
            return self._kept[1]
        return None

    def __iter__(self) -> Iterator[Object]:
        from .objects import objects_of

        return iter(objects_of(self._asked()))

    def __len__(self) -> int:
        return len((self._last() or self._asked()).rows)

    def exists(self) -> bool:
        """Whether there are any."""
        return bool(answer_of(replaced(self, limit=1)._question(), stores_here()).rows)

    @overload
    def __getitem__(self, place: SupportsIndex) -> Object: ...

    @overload
    def __getitem__(self, place: slice) -> list[Object]: ...

    def __getitem__(self, place: SupportsIndex | slice) -> Object | list[Object]:
        from .objects import Object, objects_of

        answer = self._last() or self._first(place) or self._asked()
        if isinstance(place, slice):
            return objects_of(answer)[place]
        rows = range(len(answer.rows))
        try:
            return Object(answer, rows[place])
        except IndexError:
            raise IndexError(f"[{place}]: there are {len(rows)} {class_name_of(self._kind)}") from None

    def _first(self, place: SupportsIndex | slice) -> Answer | None:
        """The answer as far as it is needed for an index or slice; None where that is all of it."""
        if isinstance(place, slice):
            ends = (place.start or 0, place.stop, place.step or 1)
            count = ends[1] if ends[1] is not None and min(ends) >= 0 else 0
        else:
            count = place.__index__() + 1
        if not 0 < count <= FIRST:
            return None
        return answer_of(replaced(self, limit=min(count, self._limit or count))._question(), stores_here())

    def one(self) -> Object:
        """The only one; raises NoMatch if there are none or several."""
        found = self[:2]
        if len(found) != 1:
            how = f"{len(self)}, not one," if found else "none"
            hint = "q.newest(), or q[0]" if found else f"awe-query {self._kind} lists what there is"
            raise NoMatch(f"{class_name_of(self._kind)}: {how} meet the conditions", hint=hint)
        return found[0]

    def table(self, *names: str | Attribute) -> Table:
        """Their attributes as a table of astropy, with one statement; by default what awe-query shows."""
        from .tables import table_of

        columns = self._columns(names)
        return table_of(self._kind, self._rows(columns), columns)

    def _columns(self, names: Sequence[str | Attribute] = ()) -> list[str]:
        from ..core.questions.query import DEFAULT_COLUMNS

        return [_name_of(one) for one in names] or list(DEFAULT_COLUMNS)

    def _rows(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        from ..core.questions.query import ask

        return list(ask(self._question(columns), stores_here(), all_kinds()))

    def _begin(self) -> tuple[list[str], list[dict[str, Any]], str]:
        """The columns, the first rows, and a line on how many there are."""
        columns, limit = self._columns(), self._limit
        rows = replaced(self, limit=min(SHOWN + 1, limit or SHOWN + 1))._rows(columns)
        more = len(rows) > SHOWN
        name = class_name_of(self._kind)
        return columns, rows[:SHOWN], f"{name}: the first {SHOWN} of more" if more else f"{name}: {len(rows)}"

    def __repr__(self) -> str:
        from .tables import text_table

        return text_table(*self._begin())

    def _repr_html_(self) -> str:
        from .tables import html_table

        return html_table(*self._begin())


def replaced(query: Query, **changes: Any) -> Query:
    """The same query with something changed."""
    now = {name: getattr(query, f"_{name}") for name in ("kind", "condition", "order", "limit", "newest")}
    return Query(**{**now, **changes})


def stores_here() -> tuple[Store, ...]:
    """The stores that are read from here; raises NoStore if there is none."""
    from ..core.workspace import here

    stores = here().stores
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    return stores


def _stamp(stores: Sequence[Store]) -> object:
    """What changes when an index or a journal is written."""
    looked: list[object] = []
    for store in stores:
        index = os.path.realpath(store.index_path)
        for path in (index, f"{index}-wal", store.journal_path):
            looked.append(_look(path))
    return (tuple(stores), tuple(looked))


def _look(path: str | Path) -> tuple[int, ...]:
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _refuse_mixture(kind: str, other: str) -> None:
    if kind != other:
        raise TypeError(
            f"a condition on {class_name_of(kind)} and one on {class_name_of(other)} cannot be joined: "
            "follow a link, as in Reduced.flat.night"
        )


def _name_of(one: str | Attribute) -> str:
    if not isinstance(one, Attribute):
        return one
    node = one._node()
    if not isinstance(node, Name):
        raise TypeError(f"{one!r} is no name")
    return node.name


def _call(function: str, values: Sequence[Any]) -> str:
    return f"{function}({', '.join(repr(float(one)) for one in values)})"
