"""Names that lead along links: from an object to what it was made from, and to what was made from it.

``flat.twiflat.raw.obs_start`` leads backward by the roles of inputs (or the kinds that
fill them), ``<-reduced.sky_adu`` forward to the products of a kind that were made from the
object. Which links a kind has is read from the declarations; what a path means in SQL
is made here. An object is passed on by its identity (recipe key; of a raw frame its
content), so a path may lead from one store into another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import UnknownName, UsageError, nearest
from ..expressions.sqlexpression import EXISTS, Bound
from ..indexing.index import Index
from ..indexing.querynames import QUERY_COLUMNS, path_sql
from ..kind import Kind, is_outside
from ..meta import ALIASES, FIELDS, FRAME_TYPES
from ..quality import measure_names
from ..store import Store

# No chain of declarations is as long.
MAX_LINKS = 16
BACKWARD = "<-"
# SELECTs in one another are quicker than tables that are joined, but SQLite takes a few only.
_MOST_NESTED = 1
# SQLite joins 64 tables, and an answer has 2000 columns.
_MOST_TABLES, MOST_COLUMNS = 60, 1000
# So many names are listed in a message.
_LISTED = 12

# Declarations


@dataclass(frozen=True)
class Link:
    """One step of a path: backward along a role or to inputs of a kind, or forward to products of a kind.

    kinds: what lies at its end. many: there can be several.
    """

    name: str
    kinds: tuple[str, ...]
    many: bool
    role: str | None = None
    forward: bool = False


@dataclass(frozen=True)
class LinkPath:
    """Where a name leads: along links, to a field; without a field, to the objects themselves."""

    text: str
    links: tuple[Link, ...]
    field: str | None
    start: tuple[str, ...]

    @property
    def many(self) -> bool:
        """Whether it can have several values."""
        return any(link.many for link in self.links)

    @property
    def end(self) -> tuple[str, ...]:
        """The kinds that lie at its end."""
        return self.links[-1].kinds if self.links else self.start


@dataclass(frozen=True, eq=False)
class Declared:
    """What the declarations say of all kinds: their measures, their roles, and what is made from them."""

    kinds: tuple[Kind, ...]
    _known: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every kind, the types of raw frames among them."""
        return tuple(dict.fromkeys([*(kind.name for kind in self.kinds), *FRAME_TYPES]))

    @cached_property
    def _links(self) -> Mapping[str, Mapping[str, Link]]:
        found: dict[str, dict[str, Link]] = {name: {} for name in self.names}
        for kind in self.kinds:
            links = found[kind.name]
            for need in kind.needs:
                _add(links, Link(need.role, need.takes, need.many, need.role))
        for kind in self.kinds:
            links = found[kind.name]
            roles = {need.role for need in kind.needs}
            for need in kind.needs:
                for name in set(need.takes) - roles:
                    _add(links, Link(name, (name,), need.many))
                for name in need.takes:
                    _add(
                        found.setdefault(name, {}),
                        Link(BACKWARD + kind.name, (kind.name,), True, forward=True),
                    )
        return found

    def links(self, kinds: Iterable[str]) -> dict[str, Link]:
        """The links that objects of some kinds can have, by name."""
        found: dict[str, Link] = {}
        for kind in kinds:
            for link in self._links.get(kind, {}).values():
                _add(found, link)
        return found

    def measures(self, kinds: Iterable[str]) -> list[str]:
        """The measures of some kinds; what is imported shares its kind with what is made here, but measures more."""
        wanted = set(kinds)
        return list(
            dict.fromkeys(name for one in self.kinds if one.name in wanted for name in measure_names(one))
        )

    def fields(self, kinds: Collection[str]) -> list[str]:
        """Every name that an object of some kinds has a value for."""
        if all(map(is_outside, kinds)):
            # The index knows nothing else of it.
            return ["content"]
        return list(
            dict.fromkeys(
                [*QUERY_COLUMNS, *(one.name for one in FIELDS), *ALIASES, "flag_names", *self.measures(kinds)]
            )
        )

    def start(self, kind: str) -> tuple[str, ...]:
        """The kinds that the name of a kind stands for; raises UnknownName with the nearest."""
        if kind == "raw":
            return FRAME_TYPES
        if kind in self.names:
            return (kind,)
        names = [*self.names, "raw"]
        raise UnknownName(f"no kind {kind!r}{nearest(kind, names)}; there are: {', '.join(names)}")

    def path(self, kind: str, text: str) -> LinkPath:
        """Where a name leads from objects of a kind.

        At each step a field comes before a link of the same name, if it is all that is left.
        Raises UnknownName, saying where the path ends and what is there; UsageError for
        one that is too long.
        """
        kinds = start = self.start(kind)
        links: list[Link] = []
        left = text
        while left:
            if left in self._field_names(kinds):
                return LinkPath(text, tuple(links), ALIASES.get(left, left), start)
            link, left = self._next(kinds, left, text)
            links.append(link)
            kinds = link.kinds
            if len(links) > MAX_LINKS:
                raise UsageError(f"{_short(text)!r}: leads along more than {MAX_LINKS} links")
        if not links:
            raise UnknownName(f"no field ''; awe-query {kind} --fields lists them")
        return LinkPath(text, tuple(links), None, start)

    def _field_names(self, kinds: tuple[str, ...]) -> frozenset[str]:
        found = self._known.get(kinds)
        if found is None:
            found = self._known[kinds] = frozenset(self.fields(kinds))
        return found

    def _next(self, kinds: tuple[str, ...], left: str, text: str) -> tuple[Link, str]:
        """The link that a path takes next, and what is left of it."""
        links = self.links(kinds)
        parts = left.split(".")
        for count in range(len(parts), 0, -1):
            link = links.get(".".join(parts[:count]))
            if link is not None:
                return link, ".".join(parts[count:])
        raise self._unknown(kinds, left, text)

    def _unknown(self, kinds: tuple[str, ...], left: str, text: str) -> UnknownName:
        links = self.links(kinds)
        fields = [*self.fields(kinds)]
        first = left.split(".")[0]
        known = [*fields, *links] if "." not in left else [*fields, *links, *self._beyond(links, left)]
        near = nearest(left, known) or nearest(first, [*links, *fields])
        what = "field" if not left.startswith(BACKWARD) else "product"
        hint = f"awe-query {'raw' if kinds == FRAME_TYPES else kinds[0]} --fields"
        if left == text:
            quotes = "; a text is written in quotes" if not near and text.isidentifier() else ""
            message = f"no field {_short(text)!r}{near}{quotes}"
            return UnknownName(message, hint=hint)
        owner = " or ".join(kinds)
        there = ", ".join([*links][:_LISTED]) + (", ..." if len(links) > _LISTED else "")
        leads = f"; its links: {there}" if there else "; it has no links"
        message = f"{_short(text)!r}: no {what} {_short(left)!r} of {owner}{near}{leads}"
        return UnknownName(message, hint="" if all(map(is_outside, kinds)) else hint)

    def _beyond(self, links: Mapping[str, Link], left: str) -> Iterator[str]:
        """Names one link further, for the nearest one of a path that is nearly right."""
        first, _, rest = left.partition(".")
        if first in links:
            return
        for name, link in links.items():
            if rest in self._field_names(link.kinds):
                yield f"{name}.{rest}"


def _add(links: dict[str, Link], link: Link) -> None:
    """Add a link; two of one name are one that leads to the kinds of both."""
    there = links.get(link.name)
    if there is None:
        links[link.name] = link
        return
    role = link.role if link.role == there.role else None
    kinds = tuple(dict.fromkeys((*there.kinds, *link.kinds)))
    links[link.name] = Link(link.name, kinds, there.many or link.many, role, link.forward)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


# SQL


@dataclass(frozen=True)
class _Chain:
    """The tables to join for the objects that links lead to, one at a time, and what names each of these."""

    tables: tuple[str, ...]
    key: str
    nested: int = 0


@dataclass(eq=False)
class PathsSql:
    """Names as SQL, as seen from the objects of a kind in one of several joined stores.

    stores, schemas: the nearest first, and what the statement calls them; rank: the place of
    the store whose table `objects` the statement goes through.
    """

    declared: Declared
    kind: str
    index: Index
    stores: tuple[Store, ...]
    schemas: tuple[str, ...]
    rank: int = 0
    _paths: dict[str, LinkPath] = field(default_factory=dict)

    def path(self, name: str) -> LinkPath:
        """Where a name leads; raises UnknownName."""
        found = self._paths.get(name)
        if found is None:
            found = self._paths[name] = self.declared.path(self.kind, name)
        return found

    def leads(self, name: str) -> bool:
        """Whether a name leads along links."""
        return bool(self.path(name).links)

    def column(self, name: str) -> tuple[str, str]:
        """A field of the objects themselves, and its type."""
        path = self.path(name)
        return self._field(path, "objects", self.schemas[self.rank])

    def end_column(self, name: str) -> tuple[str, str]:
        """A field of the table `t`, which is what a name leads to."""
        return self._field(self.path(name), "t", self.schemas[0])

    def bind(self, leading: Sequence[str]) -> Bound:
        """What several names lead to; those that begin with the same links are of the same object."""
        chains: dict[tuple[str, ...], _Chain] = {}
        columns: dict[str, tuple[str, str]] = {}
        tables: dict[str, None] = {}
        for name in leading:
            path = self.path(name)
            if path.field is None:
                columns[name] = (self._exists(path), EXISTS)
                continue
            chain = self._chain(path, chains)
            tables.update(dict.fromkeys(chain.tables))
            columns[name] = self._value(path, chain.key)
        if len(tables) > _MOST_TABLES:
            raise UsageError(
                f"one comparison follows {len(tables)} links to many objects; at most {_MOST_TABLES}"
            )
        return Bound(" CROSS JOIN ".join(tables), columns.__getitem__)

    def ordering(self, name: str, descending: bool) -> str:
        """What objects are sorted by; of many values by the least, or descending by the greatest."""
        path = self.path(name)
        if not path.links:
            return self.column(name)[0]
        if path.field is None:
            return self._exists(path)
        chain = self._chain(path, {})
        value = self._value(path, chain.key)[0]
        if not chain.tables:
            return value
        return f"(SELECT {'max' if descending else 'min'}({value}) FROM {' CROSS JOIN '.join(chain.tables)})"

    def shown(self, name: str) -> str:
        """What is read for --get; `Reader` turns it into a value, or the list of many."""
        path = self.path(name)
        if not path.links:
            return self._shown_field(path, "objects", self.rank)
        if path.field is None:
            return self._exists(path)
        chain = self._chain(path, {})
        value = self._value(path, chain.key, shown=True)[0]
        if not chain.tables:
            return value
        tables = " CROSS JOIN ".join(chain.tables)
        if not path.many:
            return f"(SELECT {value} FROM {tables} LIMIT 1)"
        start = self._value(LinkPath("", path.links, "obs_start", path.start), chain.key)[0]
        there = "" if path.links[-1].forward else f" WHERE {self._is_there(path, chain.key)}"
        inner = f"SELECT {value} AS v FROM {tables}{there} ORDER BY {start}, {chain.key}"
        # JSON keeps 15 digits of a number; quoted, all are kept.
        return f"(SELECT json_group_array(quote(v)) FROM ({inner}))"

    def driven(self, links: Sequence[Link], where: str) -> str:
        """The condition to be led by links to an object that meets `where`, begun at these objects.

        where: a condition on the table `t`, with the values of one store's parameters; the
        statement takes them `times(links)` times.
        """
        found = " UNION ALL ".join(self._ends(links[-1], where, rank) for rank in range(len(self.schemas)))
        for place in range(len(links) - 1, 0, -1):
            steps = [self._led_to(links[place], links[place - 1].kinds, found, one) for one in self.schemas]
            found = " UNION ALL ".join(steps)
        return self._first(links[0], found)

    def times(self, links: Sequence[Link]) -> int:
        """How often the condition of `driven` stands in it."""
        last = 0 if links[0].forward else 1
        return int(len(self.schemas) ** (len(links) - last + 1))

    # Chains of links

    def _chain(self, path: LinkPath, chains: dict[tuple[str, ...], _Chain]) -> _Chain:
        """The chain of a path; `chains` are those that are there already, by the links that lead to them."""
        chain: _Chain | None = None
        kinds = path.start
        for count, link in enumerate(path.links, start=1):
            names = tuple(one.name for one in path.links[:count])
            if names not in chains:
                chains[names] = self._step(link, kinds, chain, len(chains))
            chain, kinds = chains[names], link.kinds
        assert chain is not None
        return chain

    def _step(self, link: Link, kinds: tuple[str, ...], before: _Chain | None, number: int) -> _Chain:
        tables = () if before is None else before.tables
        selects = self._targets(link, kinds, before)
        nested = 0 if before is None else before.nested
        if not link.many and len(selects) == 1 and nested < _MOST_NESTED:
            return _Chain(tables, f"({selects[0]} LIMIT 1)", nested + 1)
        name = f"p{number + 1}"
        if len(selects) == 1:
            column, _, rest = selects[0].removeprefix("SELECT ").partition(" AS k ")
            listed = f"SELECT json_group_array(DISTINCT {column}) {rest}"
        else:
            listed = f"SELECT json_group_array(DISTINCT k) FROM ({' UNION ALL '.join(selects)})"
        return _Chain((*tables, f"json_each(({listed})) AS {name}"), f"{name}.value")

    def _targets(self, link: Link, kinds: tuple[str, ...], before: _Chain | None) -> list[str]:
        """The identities that a link leads to, as one SELECT a store that can have some."""
        if link.forward:
            key = _identity("objects", kinds) if before is None else before.key
            return [
                f"SELECT x.recipe_key AS k FROM {schema}.inputs AS n "
                f"CROSS JOIN {schema}.links AS l ON l.input = n.number "
                f"CROSS JOIN {schema}.objects AS x ON x.number = l.child "
                f"WHERE {_is(key, 'n', kinds)} AND {_of_kinds('x', link.kinds)}"
                for schema in self.schemas
            ]
        own = self.schemas[self.rank : self.rank + 1] if before is None else self.schemas
        found = []
        for schema in own:
            child = "= objects.number"
            if before is not None:
                child = f"IN (SELECT x.number FROM {schema}.objects AS x WHERE x.recipe_key = {before.key})"
            role = f" AND l.role = {_text(link.role)}" if link.role is not None else ""
            found.append(
                f"SELECT coalesce(n.recipe_key, n.content) AS k FROM {schema}.links AS l "
                f"CROSS JOIN {schema}.inputs AS n ON n.number = l.input WHERE l.child {child}{role}"
                f"{'' if link.role is not None else f' AND {self._input_is_of(link.kinds)}'}"
            )
        return found

    def _input_is_of(self, kinds: tuple[str, ...]) -> str:
        """Whether the input `n` is of one of these kinds, in whatever store."""
        return self._any(
            "SELECT 1 FROM {}.objects AS y "
            f"WHERE {_is('coalesce(n.recipe_key, n.content)', 'y', kinds)} AND {_of_kinds('y', kinds)}"
        )

    def _any(self, select: str) -> str:
        return f"({' OR '.join(f'EXISTS ({select.format(schema)})' for schema in self.schemas)})"

    # What lies at the end

    def _exists(self, path: LinkPath) -> str:
        chain = self._chain(path, {})
        there = self._is_there(path, chain.key)
        if not chain.tables:
            return there
        where = "" if path.links[-1].forward else f" WHERE {there}"
        return f"EXISTS (SELECT 1 FROM {' CROSS JOIN '.join(chain.tables)}{where})"

    def _is_there(self, path: LinkPath, key: str) -> str:
        if all(map(is_outside, path.end)):
            return f"({key}) IS NOT NULL"
        return self._any(f"SELECT 1 FROM {{}}.objects AS t WHERE {_is(key, 't', path.end)}")

    def _value(self, path: LinkPath, key: str, shown: bool = False) -> tuple[str, str]:
        """A field of the object of an identity, in the nearest store that has it, and its type."""
        kind = self._field(path, "t", self.schemas[0])[1]
        if all(map(is_outside, path.end)):
            return f"({key})", kind
        where = _is(key, "t", path.end)
        selects = []
        for rank, schema in enumerate(self.schemas):
            column = self._shown_field(path, "t", rank) if shown else self._field(path, "t", schema)[0]
            selects.append((rank, f"{column} AS v FROM {schema}.objects AS t WHERE {where}"))
        if len(selects) == 1:
            return f"(SELECT {selects[0][1]} LIMIT 1)", kind
        every = " UNION ALL ".join(f"SELECT {rank} AS r, {select}" for rank, select in selects)
        return f"(SELECT v FROM ({every}) ORDER BY r LIMIT 1)", kind

    def _field(self, path: LinkPath, table: str, schema: str) -> tuple[str, str]:
        assert path.field is not None
        if path.field == "flag_names":
            raise UsageError(
                f"{path.text}: can be shown only (--get); a condition is on the flags: flags = 0"
            )
        if path.field == "path":
            return path_sql(self.stores[self.schemas.index(schema)], f"{table}.address"), "text"
        sql, kind = self.index.column(path.field, self.declared.measures(path.end), table)
        return sql.replace("FROM setups", f"FROM {schema}.setups"), kind

    def _shown_field(self, path: LinkPath, table: str, rank: int) -> str:
        """A field as it is read; of flags with the kind and the measures that were made, which tell their names."""
        if path.field == "flag_names":
            flags = self.index.column("flags", (), table)[0]
            made = f"(SELECT group_concat(one.key) FROM json_each({table}.measures) AS one)"
            return f"{table}.kind || ':' || coalesce({flags}, 0) || ':' || coalesce({made}, '')"
        return self._field(path, table, self.schemas[rank])[0]

    # From the end to the beginning

    def _ends(self, link: Link, where: str, rank: int) -> str:
        """The identities of the objects at the end that meet a condition, less those of nearer stores."""
        if all(map(is_outside, link.kinds)):
            inputs = f"(SELECT content FROM {self.schemas[rank]}.inputs WHERE recipe_key IS NULL)"
            return f"SELECT t.content FROM {inputs} AS t WHERE ({where})"
        identity = _identity("t", link.kinds)
        known = _is(identity, "y", link.kinds)
        nearer = "".join(
            f" AND NOT EXISTS (SELECT 1 FROM {schema}.objects AS y WHERE {known})"
            for schema in self.schemas[:rank]
        )
        kind = _of_kinds("t", link.kinds)
        return f"SELECT {identity} FROM {self.schemas[rank]}.objects AS t WHERE {kind} AND ({where}){nearer}"

    def _led_to(self, link: Link, kinds: tuple[str, ...], found: str, schema: str) -> str:
        """The identities of the objects of some kinds that a link leads from, to what was found."""
        if link.forward:
            return (
                f"SELECT coalesce(n.recipe_key, n.content) FROM {schema}.objects AS x "
                f"CROSS JOIN {schema}.links AS l ON l.child = x.number "
                f"CROSS JOIN {schema}.inputs AS n ON n.number = l.input "
                f"WHERE x.recipe_key IN ({found}) AND {_of_kinds('x', link.kinds)}"
            )
        return (
            f"SELECT x.recipe_key FROM {schema}.links AS l CROSS JOIN {schema}.objects AS x ON x.number = l.child "
            f"WHERE {self._leads_to(link, found, schema)} AND {_of_kinds('x', kinds)}"
        )

    def _first(self, link: Link, found: str) -> str:
        schema = self.schemas[self.rank]
        if link.forward:
            kinds = self.declared.start(self.kind)
            every = " UNION ALL ".join(self._led_to(link, kinds, found, one) for one in self.schemas)
            return f"{_identity('objects', kinds)} IN ({every})"
        led = self._leads_to(link, found, schema)
        return f"objects.number IN (SELECT l.child FROM {schema}.links AS l WHERE {led})"

    def _leads_to(self, link: Link, found: str, schema: str) -> str:
        role = "" if link.role is None else f" AND l.role = {_text(link.role)}"
        raw = all(map(_is_raw, link.kinds))
        known = f"n.recipe_key IS NULL AND n.content IN ({found})" if raw else f"n.recipe_key IN ({found})"
        return f"l.input IN (SELECT n.number FROM {schema}.inputs AS n WHERE {known}){role}"


def _is_raw(kind: str) -> bool:
    # Files of others and catalogues are known by their content too.
    return kind in FRAME_TYPES or is_outside(kind)


def _identity(table: str, kinds: Sequence[str]) -> str:
    """What an object of some kinds is known by."""
    if all(map(_is_raw, kinds)):
        return f"{table}.content"
    return (
        f"{table}.recipe_key"
        if not any(map(_is_raw, kinds))
        else f"coalesce({table}.recipe_key, {table}.content)"
    )


def _is(key: str, table: str, kinds: Sequence[str]) -> str:
    """Whether a row, which has a recipe key or else a content, is of an identity of some kinds."""
    raw = f"{table}.recipe_key IS NULL AND {table}.content = {key}"
    if all(map(_is_raw, kinds)):
        return raw
    product = f"{table}.recipe_key = {key}"
    return product if not any(map(_is_raw, kinds)) else f"({product} OR {raw})"


def _of_kinds(table: str, kinds: Sequence[str]) -> str:
    return f"{table}.kind IN ({', '.join(map(_text, kinds))})"


def _text(value: str) -> str:
    """A name of the declarations as SQL."""
    return "'" + value.replace("'", "''") + "'"
