"""The objects that answer a query: of a thousand of them, a column is read with one statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.expressions.expression import And, In, Literal, Name, Node, Or
from .names import all_kinds

if TYPE_CHECKING:
    from ..core.questions.query import Question
    from ..core.store import Store

# What is known of every object at once.
BASE = ("path", "kind", "recipe_key", "content")
# A statement can name so many values.
MOST_VALUES = 10_000


class Answer:
    """Objects as they were when they were asked for; columns are read when they are first wanted, for all of them."""

    def __init__(self, question: Question, stores: Sequence[Store], rows: list[dict[str, Any]]) -> None:
        self.question = question
        self.stores = stores
        self.rows = rows
        self._columns: dict[str, list[Any]] = {}
        self._linked: dict[str, list[list[tuple[Answer, int]]]] = {}

    def value(self, row: int, name: str) -> Any:
        """A field, measure or link path of one object; reads it for all."""
        if name in BASE:
            return self.rows[row][name]
        if name not in self._columns:
            self._columns[name] = self._read(name)
        return self._columns[name][row]

    def _read(self, name: str) -> list[Any]:
        found = {row["path"]: row[name] for row in _ask(self._with(name), self.stores)}
        left = [row for row in self.rows if row["path"] not in found]
        if left:
            # What does not meet the condition any more is asked for by its identity.
            for row in self._by_identity(left, name):
                found.setdefault(row["path"], row[name])
        return [found.get(row["path"]) for row in self.rows]

    def _with(self, *names: str) -> Question:
        return replace(self.question, columns=tuple(dict.fromkeys(("path", *names))))

    def _by_identity(self, rows: Sequence[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
        question = replace(self._with(name), limit=None, newest=False)
        for part in among_identities([identity_of(row) for row in rows]):
            yield from _ask(replace(question, condition=part), self.stores)

    def linked(self, row: int, role: str, kinds: Sequence[str]) -> list[tuple[Answer, int]]:
        """The inputs of one object under a role, each as its place among all that these objects have."""
        if role not in self._linked:
            self._linked[role] = self._follow(role, kinds)
        return self._linked[role][row]

    def _follow(self, role: str, kinds: Sequence[str]) -> list[list[tuple[Answer, int]]]:
        """The inputs of all objects: with two statements, and one more for each other kind that they may be."""
        which = "content" if all(one.startswith("raw") for one in kinds) else "recipe_key"
        self.value(0, f"{role}.{which}")
        wanted = [_listed(one) for one in self._columns[f"{role}.{which}"]]
        identities = list(dict.fromkeys(one for some in wanted for one in some))
        places: dict[str, tuple[Answer, int]] = {}
        for kind in kinds:
            answer = of_identities(kind, [one for one in identities if one not in places], self.stores)
            for number, row in enumerate(answer.rows):
                places.setdefault(identity_of(row), (answer, number))
        return [[places[one] for one in some if one in places] for some in wanted]


def answer_of(question: Question, stores: Sequence[Store]) -> Answer:
    """The answer to a question, asked now."""
    return Answer(question, stores, list(_ask(replace(question, columns=BASE), stores)))


def of_identities(kind: str, identities: Sequence[str], stores: Sequence[Store]) -> Answer:
    """The objects of a kind that have these recipe keys (raw frames: contents)."""
    from ..core.questions.query import Question

    question = Question(kind, Literal(False), BASE)
    rows: dict[str, dict[str, Any]] = {}
    parts = list(among_identities(identities))
    for part in parts:
        for row in _ask(replace(question, condition=part), stores):
            rows.setdefault(identity_of(row), row)
    if parts:
        question = replace(question, condition=parts[0] if len(parts) == 1 else Or(tuple(parts)))
    return Answer(question, stores, list(rows.values()))


def among_identities(identities: Sequence[str]) -> Iterator[Node]:
    """The condition to be one of some objects, in parts that a statement can hold."""
    for first in range(0, len(identities), MOST_VALUES):
        values = tuple(Literal(one) for one in identities[first : first + MOST_VALUES])
        products = In(Name("recipe_key"), values)
        raws = And((In(Name("content"), values), In(Name("kind"), _raw_types())))
        yield Or((products, raws))


def _raw_types() -> tuple[Literal, ...]:
    from ..core.meta import FRAME_TYPES

    return tuple(Literal(one) for one in FRAME_TYPES)


def identity_of(row: dict[str, Any]) -> str:
    """What an object is known by: the recipe key; of a raw frame the content."""
    return str(row["recipe_key"] or row["content"])


def _listed(value: Any) -> list[str]:
    if isinstance(value, list):
        return [one for one in value if one is not None]
    return [] if value is None else [value]


def _ask(question: Question, stores: Sequence[Store]) -> Iterator[dict[str, Any]]:
    from ..core.questions.query import ask

    return ask(question, stores, all_kinds())
