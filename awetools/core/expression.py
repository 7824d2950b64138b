"""The one expression language: queries, camera rules and conditions of selectors.

``filter = 'R' and 0.5 < sky_rms_adu < 9 and object like 'M51*'``. Values are null,
booleans, numbers and text. The same tree is evaluated here (camera rules, single
frames) and translated to SQL (queries); both give the same answer:

- Logic has three values, as in SQL: a comparison with null is null.
- Text compares exactly, by code point, less trailing blanks (FITS pads with them).
- Number with text: text that looks like a number compares as one; other text is
  equal to no number, and is neither above nor below one (null).
- Boolean with text: 'true', 't', 'false' and 'f' in any case mean the boolean.
- Arithmetic is that of 64-bit floats; what has no answer (division by zero) is null.
- ``like`` knows ``*`` (any text) and ``?`` (one character) and minds the case.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from .errors import UsageError

Value = None | bool | int | float | str

MAX_LENGTH = 100_000
MAX_DEPTH = 100
MAX_NODES = 50_000
MAX_PATTERN = 1_000


# The tree


@dataclass(frozen=True, slots=True)
class Literal:
    """A value written in the text."""

    value: Value


@dataclass(frozen=True, slots=True)
class Name:
    """A field, measure or header card."""

    name: str


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """left + - * / right."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function of one value: lower, upper, trim, abs."""

    function: str
    argument: Node


@dataclass(frozen=True, slots=True)
class Compare:
    """left = <> < <= > >= right."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class In:
    """Whether a value is one of several."""

    left: Node
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """Whether text fits a pattern."""

    left: Node
    pattern: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether there is no value."""

    left: Node


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; of null, null."""

    condition: Node


@dataclass(frozen=True, slots=True)
class And:
    """All conditions."""

    conditions: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any condition."""

    conditions: tuple[Node, ...]


Node = Literal | Name | Arithmetic | Call | Compare | In | Like | IsNull | Not | And | Or

_LOGICAL = (Compare, In, Like, IsNull, Not, And, Or)
_FUNCTIONS = ("lower", "upper", "trim", "abs")


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below a node."""
    match node:
        case Arithmetic() | Compare():
            return node.left, node.right
        case Call():
            return (node.argument,)
        case In():
            return node.left, *node.values
        case Like() | IsNull():
            return (node.left,)
        case Not():
            return (node.condition,)
        case And() | Or():
            return node.conditions
    return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, in no promised order."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(children(one))


def names(node: Node) -> set[str]:
    """Every name that the expression mentions."""
    return {one.name for one in walk(node) if isinstance(one, Name)}


# Text to tree

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?)?)(?![\w.])
    | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w.])
    | '(?P<text>(?:[^']|'')*)'
    | "(?P<quoted>(?:[^"]|"")+)"
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)
    | (?P<sign><=|>=|<>|!=|==|[-+*/=<>(),])
    )""",
    re.VERBOSE,
)
_WORD = re.compile(
    r'(?:([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)|"((?:[^"]|"")+)")(==|!=|<>|<=|>=|=|<|>)(.*)', re.DOTALL
)
_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t\n\v\f\r]*")
_INTEGER = re.compile(r"[+-]?[0-9]+")

_KEYWORDS = {"and", "or", "not", "in", "like", "between", "is", "null", "true", "false"}
_COMPARISONS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WORD_COMPARISONS = ("in", "like", "between", "is", "not")
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _SIGN = range(1, 8)


class _Token(NamedTuple):
    kind: str
    value: str
    at: int


def parse(text: str) -> Node:
    """The tree of an expression.

    Raises UsageError, naming the text and the column, where it cannot be read, is
    longer than 100,000 characters, nested deeper than 100 or of more than 50,000 parts.
    """
    _check_text(text)
    parser = _Parser(text)
    node = parser.expression(_OR)
    if parser.token.kind != "end":
        parser.fail(f"expected 'and', 'or' or the end, found {parser.found()}")
    _check_size(node, text)
    return node


def parse_words(words: Sequence[str]) -> Node | None:
    """The words of a command line as one condition, ANDed; None if there are none.

    ``key=value`` takes the value as it stands (``filter=R``, ``night=2017-03-02``);
    commas mean any of several, ``*`` and ``?`` mean like, ``<>``, ``!=``, ``<``,
    ``<=``, ``>`` and ``>=`` work too. Any other word is a whole expression. Raises UsageError.
    """
    nodes = [_word(word) for word in words]
    if not nodes:
        return None
    return nodes[0] if len(nodes) == 1 else _joined(And, nodes)


def condition(node: Node) -> Node:
    """The node as a condition: a bare name asks whether it is true. Raises UsageError for other values."""
    if isinstance(node, _LOGICAL):
        return node
    if isinstance(node, Literal) and (node.value is None or isinstance(node.value, bool)):
        return node
    if isinstance(node, Name):
        return Compare("=", node, Literal(True))
    raise UsageError("a condition is needed here (such as filter='R'), not a bare value")


def _word(word: str) -> Node:
    _check_text(word)
    found = _WORD.fullmatch(word)
    if not found:
        return condition(parse(word))
    plain, quoted, operator, value = found.groups()
    if value[:1] in ("'", '"'):
        return condition(parse(word))
    if any(sign in value for sign in " ()<>"):
        # "filter=R and night=5" is an expression, "object=NGC 2500" is a name with a blank.
        with suppress(UsageError):
            return condition(parse(word))
    name = Name(plain if quoted is None else quoted.replace('""', '"'))
    return _word_comparison(name, _COMPARISONS[operator], value)


def _word_comparison(name: Name, operator: str, value: str) -> Node:
    if operator not in ("=", "<>"):
        return Compare(operator, name, Literal(value))
    patterns = [part for part in value.split(",") if "*" in part or "?" in part]
    plain = tuple(Literal(part) for part in value.split(",") if part not in patterns)
    tests: list[Node] = [Like(name, _pattern(pattern)) for pattern in patterns]
    if len(plain) == 1:
        tests.append(Compare("=", name, plain[0]))
    elif plain:
        tests.append(In(name, plain))
    test = tests[0] if len(tests) == 1 else Or(tuple(tests))
    if operator == "=":
        return test
    return Compare("<>", name, test.right) if isinstance(test, Compare) else Not(test)


def _check_text(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise UsageError(f"an expression of {len(text):,} characters is too long (at most {MAX_LENGTH:,})")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"an expression is not valid text: {_shown(text[:60])}") from None
    if "\0" in text:
        raise UsageError(f"an expression holds a NUL character: {_shown(text[:60])}")


def _check_size(node: Node, text: str) -> None:
    """Chained comparisons share their middle: nested, they are many more nodes than the text has words."""
    waiting, count = [(node, 1)], 0
    while waiting:
        one, height = waiting.pop()
        count += 1
        if height > MAX_DEPTH:
            raise UsageError(f"an expression is nested deeper than {MAX_DEPTH}: {_shown(text[:60])}")
        if count > MAX_NODES:
            raise UsageError(f"an expression has more than {MAX_NODES:,} parts: {_shown(text[:60])}")
        waiting.extend((child, height + 1) for child in children(one))


def _pattern(pattern: str) -> str:
    if len(pattern) > MAX_PATTERN:
        raise UsageError(f"a pattern of {len(pattern):,} characters is too long (at most {MAX_PATTERN:,})")
    return pattern


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _joined(kind: type[And] | type[Or], nodes: Sequence[Node]) -> Node:
    conditions: list[Node] = []
    for node in map(condition, nodes):
        conditions.extend(node.conditions if isinstance(node, kind) else (node,))
    return kind(tuple(conditions))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        self.token = self._read()

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        """Raise UsageError for the current token, with the text around it and its column."""
        at = self.token.at if at is None else at
        start, end = max(0, at - 40), at + 30
        near = ("..." if start else "") + self.text[start:end] + ("..." if end < len(self.text) else "")
        raise UsageError(f"column {at + 1} of {_shown(near)!r}: {what}")

    def found(self) -> str:
        """The current token, for a message."""
        return "the end" if self.token.kind == "end" else _shown(repr(self.token.value[:40]))

    def _read(self) -> _Token:
        found = _TOKEN.match(self.text, self.position)
        if found is None:
            rest = self.text[self.position :]
            at = self.position + len(rest) - len(rest.lstrip())
            if not rest.strip():
                return _Token("end", "", len(self.text))
            if rest.lstrip()[0] in "'\"":
                self.fail("a quote is not closed", at)
            self.fail(f"cannot read {_shown(rest.lstrip()[:10])!r}", at)
        kind = str(found.lastgroup)
        value = found.group(kind)
        at = found.start(kind) - (kind in ("text", "quoted"))
        self.position = found.end()
        if kind == "word" and value.lower() in _KEYWORDS:
            return _Token("keyword", value.lower(), at)
        return _Token(kind, value, at)

    def advance(self) -> _Token:
        """The current token; the next one becomes current."""
        token, self.token = self.token, self._read()
        return token

    def accept(self, *values: str) -> str | None:
        """The sign or keyword, if it comes next and is one of these; it is then passed."""
        if self.token.kind in ("sign", "keyword") and self.token.value in values:
            return self.advance().value
        return None

    def expect(self, value: str) -> None:
        """Pass this sign or keyword, or fail."""
        if self.accept(value) is None:
            self.fail(f"expected {value!r}, found {self.found()}")

    def expression(self, level: int) -> Node:
        """An expression of operators that bind at least as strongly as level."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH}")
        node = self._prefix(level)
        while True:
            if level <= _OR and self._next_is("or"):
                node = self._series(Or, "or", _AND, node)
            elif level <= _AND and self._next_is("and"):
                node = self._series(And, "and", _NOT, node)
            elif level <= _COMPARISON and self._comparison_next():
                node = self._comparison(node)
            elif level <= _SUM and self._next_is("+", "-"):
                node = Arithmetic(self.advance().value, node, self.expression(_PRODUCT))
            elif level <= _PRODUCT and self._next_is("*", "/"):
                node = Arithmetic(self.advance().value, node, self.expression(_SIGN))
            else:
                self.depth -= 1
                return node

    def _next_is(self, *values: str) -> bool:
        return self.token.kind in ("sign", "keyword") and self.token.value in values

    def _comparison_next(self) -> bool:
        return self._next_is(*_COMPARISONS, *_WORD_COMPARISONS)

    def _series(self, kind: type[And] | type[Or], word: str, level: int, first: Node) -> Node:
        at = self.token.at
        nodes = [first]
        while self.accept(word):
            nodes.append(self.expression(level))
        try:
            return _joined(kind, nodes)
        except UsageError as error:
            self.fail(error.message, at)

    def _prefix(self, level: int) -> Node:
        if level <= _NOT and self._next_is("not"):
            at = self.advance().at
            inner = self.expression(_NOT)
            try:
                return Not(condition(inner))
            except UsageError as error:
                self.fail(error.message, at)
        if self.accept("-"):
            inner = self.expression(_SIGN)
            if isinstance(inner, Literal) and isinstance(inner.value, int | float):
                return Literal(-inner.value)
            return Arithmetic("-", Literal(0), inner)
        if self.accept("+"):
            return self.expression(_SIGN)
        return self._primary()

    def _primary(self) -> Node:
        token = self.token
        if token.kind == "number":
            self.advance()
            return Literal(_number_literal(token.value))
        if token.kind in ("text", "date"):
            self.advance()
            return Literal(token.value.replace("''", "'"))
        if token.kind == "quoted":
            self.advance()
            return Name(token.value.replace('""', '"'))
        if token.kind == "keyword" and token.value in ("true", "false", "null"):
            self.advance()
            return Literal({"true": True, "false": False, "null": None}[token.value])
        if token.kind == "word":
            self.advance()
            return self._call(token) if self._next_is("(") else Name(token.value)
        if not self.accept("("):
            self.fail(f"expected a value, found {self.found()}")
        node = self.expression(_OR)
        self.expect(")")
        return node

    def _call(self, token: _Token) -> Node:
        function = token.value.lower()
        if function not in _FUNCTIONS:
            self.fail(f"no function {token.value!r} (there are: {' '.join(_FUNCTIONS)})", token.at)
        self.expect("(")
        argument = self.expression(_OR)
        self.expect(")")
        return Call(function, argument)

    def _comparison(self, left: Node) -> Node:
        if self._next_is(*_COMPARISONS):
            node = self._chain(left)
        elif self.accept("is"):
            node = self._is_null(left)
        else:
            negative = self.accept("not") is not None
            node = self._membership(left)
            node = Not(node) if negative else node
        if self._comparison_next():
            self.fail("only = <> < <= > >= can be chained; put parentheses")
        return node

    def _chain(self, left: Node) -> Node:
        tests: list[Node] = []
        while self._next_is(*_COMPARISONS):
            operator = _COMPARISONS[self.advance().value]
            right = self.expression(_SUM)
            tests.append(Compare(operator, left, right))
            left = right
        return tests[0] if len(tests) == 1 else And(tuple(tests))

    def _is_null(self, left: Node) -> Node:
        negative = self.accept("not") is not None
        self.expect("null")
        return Not(IsNull(left)) if negative else IsNull(left)

    def _membership(self, left: Node) -> Node:
        if self.accept("in"):
            return In(left, self._constants())
        if self.accept("like"):
            if self.token.kind != "text":
                self.fail(f"expected a pattern in single quotes after 'like', found {self.found()}")
            return Like(left, _pattern(self.advance().value.replace("''", "'")))
        if self.accept("between") is None:
            self.fail(f"expected 'in', 'like' or 'between' after 'not', found {self.found()}")
        low = self.expression(_SUM)
        self.expect("and")
        return And((Compare(">=", left, low), Compare("<=", left, self.expression(_SUM))))

    def _constants(self) -> tuple[Literal, ...]:
        self.expect("(")
        values = [self._constant()]
        while self.accept(","):
            values.append(self._constant())
        self.expect(")")
        return tuple(values)

    def _constant(self) -> Literal:
        at = self.token.at
        node = self.expression(_SUM)
        if not isinstance(node, Literal):
            self.fail("a list after 'in' holds numbers and text in single quotes only", at)
        return node


def _number_literal(text: str) -> int | float:
    if _INTEGER.fullmatch(text) and len(text) < 19:
        return int(text)
    return float(text)


# Tree to value


def evaluate(node: Node, lookup: Callable[[str], object]) -> object:
    """The value of an expression: None, bool, int, float or str; `lookup` gives a name's value.

    A condition holds where the value `is True`; see `holds`. Lists and tables that
    `lookup` gives count as their JSON text. Raises only what `lookup` raises.
    """
    match node:
        case Literal():
            return node.value
        case Name():
            return _plain(lookup(node.name))
        case Arithmetic():
            return _arithmetic(node.operator, evaluate(node.left, lookup), evaluate(node.right, lookup))
        case Call():
            return _call(node.function, evaluate(node.argument, lookup))
        case Compare():
            return _compare(node.operator, evaluate(node.left, lookup), evaluate(node.right, lookup))
        case In():
            left = evaluate(node.left, lookup)
            return _any([_compare("=", left, evaluate(value, lookup)) for value in node.values])
        case Like():
            return _like(evaluate(node.left, lookup), node.pattern)
        case IsNull():
            return evaluate(node.left, lookup) is None
        case Not():
            inner = evaluate(node.condition, lookup)
            return None if inner is None else not inner
        case And():
            opposite = _any([_negated(evaluate(one, lookup)) for one in node.conditions])
            return _negated(opposite)
        case Or():
            return _any([evaluate(one, lookup) for one in node.conditions])


def holds(node: Node, lookup: Callable[[str], object]) -> bool:
    """Whether a condition is true (not false and not null)."""
    return evaluate(condition(node), lookup) is True


def _plain(value: object) -> Value:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if value is None or isinstance(value, bool | int | str):
        return value
    return json.dumps(value, separators=(",", ":"), default=str)


def _any(values: Sequence[object]) -> bool | None:
    if any(value is True for value in values):
        return True
    return None if any(value is None for value in values) else False


def _negated(value: object) -> bool | None:
    return None if value is None else not value


def number(value: object) -> int | float | None:
    """The number that a value is, or that a text looks like; None if it is neither."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else _float(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        return None
    stripped = value.strip()
    if _INTEGER.fullmatch(stripped) and len(stripped) < 19:
        return int(stripped)
    return float(stripped)


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _arithmetic(operator: str, left: object, right: object) -> float | None:
    one, two = number(left), number(right)
    if one is None or two is None:
        return None
    a, b = _float(one), _float(two)
    if operator == "/":
        result = a / b if b else math.nan
    else:
        result = a + b if operator == "+" else a - b if operator == "-" else a * b
    return None if math.isnan(result) else result


# SQLite's lower and upper know the 26 letters only.
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _call(function: str, value: object) -> Value:
    if function == "abs":
        size = number(value)
        return None if size is None else abs(_float(size))
    text = _text(value)
    if text is None:
        return None
    if function == "lower":
        return text.translate(_LOWER)
    return text.translate(_UPPER) if function == "upper" else text.strip(" ")


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else repr(value)


def _compare(operator: str, left: object, right: object) -> bool | None:
    if left is None or right is None:
        return None
    if isinstance(left, str) and isinstance(right, str):
        return _ordered(operator, left.rstrip(" "), right.rstrip(" "))
    either_bool = isinstance(left, bool) or isinstance(right, bool)
    one, two = _side(left, either_bool), _side(right, either_bool)
    if one is None or two is None:
        return {"=": False, "<>": True}.get(operator)
    return _ordered(operator, one, two)


_TRUTHS = {"true": 1, "t": 1, "false": 0, "f": 0}


def _side(value: object, boolean: bool) -> int | float | None:
    if boolean and isinstance(value, str):
        truth = _TRUTHS.get(value.rstrip(" ").translate(_LOWER))
        if truth is not None:
            return truth
    return number(value)


def _ordered(operator: str, left: str | float, right: str | float) -> bool:
    if operator in ("=", "<>"):
        return (left == right) == (operator == "=")
    below: bool = left < right  # type: ignore[operator]
    if operator in ("<", ">="):
        return below == (operator == "<")
    above: bool = left > right  # type: ignore[operator]
    return above == (operator == ">")


def _like(value: object, pattern: str) -> bool | None:
    text = _text(value)
    return None if text is None else fits(text.rstrip(" "), pattern)


def fits(text: str, pattern: str) -> bool:
    """Whether text fits a pattern with * and ?, in time proportional to the product of their lengths."""
    at = start = 0
    star = -1
    place = 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, start = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", text[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            start += 1
            at, place = start, star + 1
        else:
            return False
    return all(char == "*" for char in pattern[place:])


# Tree to SQL

Column = Callable[[str], tuple[str, str]]

# SQLite's parser keeps at most 100 things waiting; depth counts them, generously.
_SQL_DEPTH = 95
_COLUMN_DEPTH = 20


class _Sql(NamedTuple):
    text: str
    values: tuple[object, ...]
    type: str
    depth: int


_NUMERIC = ("real", "integer", "boolean", "float")
_SORTS = {"real": "number", "float": "number", "boolean": "truth value"}
_TRUTH_SQL = (
    "CASE lower(rtrim({0})) WHEN 'true' THEN 1 WHEN 't' THEN 1 "
    "WHEN 'false' THEN 0 WHEN 'f' THEN 0 ELSE {0} END"
)
_NULL = _Sql("NULL", (), "null", 1)
_ABOVE_NUMBERS = "CAST(9e999 AS REAL)"


def to_sql(node: Node, column: Column) -> tuple[str, list[object]]:
    """A condition as a fragment of SQLite's SQL, and the values of its parameters.

    `column` maps a name to its SQL and its type, 'text', 'real', 'integer' or
    'boolean', or raises UnknownName. Columns of text are taken to hold no trailing
    blanks, so that indexes serve. Raises UsageError where a number is compared with
    text that is none, and where the nesting is too deep for SQLite.
    """
    made = _sql(condition(node), column)
    if made.depth > _SQL_DEPTH:
        raise UsageError("the condition is nested too deeply for a query; use fewer parentheses")
    return made.text, list(made.values)


def _sql(node: Node, column: Column) -> _Sql:
    match node:
        case Literal():
            return _literal_sql(node.value)
        case Name():
            return _column_sql(*column(node.name))
        case Arithmetic():
            left, right = _float_sql(_sql(node.left, column)), _float_sql(_sql(node.right, column))
            return _binary_sql(node.operator, left, right, "float")
        case Call():
            return _call_sql(node, column)
        case Compare():
            return _compare_sql(node, _sql(node.left, column), _sql(node.right, column))
        case In():
            return _in_sql(node, _sql(node.left, column))
        case Like():
            return _like_sql(node, _sql(node.left, column))
        case IsNull():
            inner = _sql(node.left, column)
            return _Sql(f"({inner.text} IS NULL)", inner.values, "boolean", inner.depth + 1)
        case Not():
            inner = _sql(node.condition, column)
            return _Sql(f"(NOT {inner.text})", inner.values, "boolean", inner.depth + 2)
        case And():
            return _series_sql("AND", [_sql(one, column) for one in node.conditions])
        case Or():
            return _series_sql("OR", [_sql(one, column) for one in node.conditions])


def _column_sql(text: str, kind: str) -> _Sql:
    return _Sql(text, (), kind, _COLUMN_DEPTH if "(" in text else 2)


def _literal_sql(value: Value) -> _Sql:
    if value is None:
        return _NULL
    if isinstance(value, str):
        return _Sql("?", (value.rstrip(" "),), "text", 1)
    kind = "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "real"
    return _Sql("?", (int(value) if isinstance(value, bool) else value,), kind, 1)


def _binary_sql(operator: str, left: _Sql, right: _Sql, kind: str) -> _Sql:
    depth = 1 + max(left.depth, right.depth + 2)
    return _Sql(f"({left.text} {operator} {right.text})", left.values + right.values, kind, depth)


def _series_sql(word: str, parts: Sequence[_Sql]) -> _Sql:
    """Join parts by AND or OR as a balanced tree, so that thousands stay shallow."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return _binary_sql(word, _series_sql(word, parts[:middle]), _series_sql(word, parts[middle:]), "boolean")


def _float_sql(made: _Sql) -> _Sql:
    """The number that a value is or looks like, else NULL: text that is no number sorts above all numbers."""
    if made.type == "float":
        return made
    if made.type == "null" or made.type in _NUMERIC:
        return _Sql(f"CAST({made.text} AS REAL)", made.values, "float", made.depth + 2)
    text = f"(CASE WHEN {made.text} <= {_ABOVE_NUMBERS} THEN CAST({made.text} AS REAL) END)"
    return _Sql(text, made.values * 2, "float", made.depth + 8)


def _call_sql(node: Call, column: Column) -> _Sql:
    inner = _sql(node.argument, column)
    if node.function == "abs":
        inner = _float_sql(inner)
        return _Sql(f"abs({inner.text})", inner.values, "float", inner.depth + 2)
    _refuse_numbers(f"{node.function}()", inner, node.argument)
    return _Sql(f"{node.function}({_as_text(inner)})", inner.values, "text", inner.depth + 4)


def _refuse_numbers(what: str, made: _Sql, node: Node) -> None:
    if made.type in _SORTS:
        about = node.name if isinstance(node, Name) else "this"
        raise UsageError(f"{what} needs text; {about} is a {_SORTS[made.type]}")


def _as_text(made: _Sql) -> str:
    return made.text if made.type == "text" else f"CAST({made.text} AS TEXT)"


_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _compare_sql(node: Compare, one: _Sql, two: _Sql) -> _Sql:
    if "null" in (one.type, two.type):
        return _NULL._replace(type="boolean")
    if (one.type == "text") == (two.type == "text"):
        return _binary_sql(node.operator, one, two, "boolean")
    if isinstance(node.right, Literal) and two.type == "text":
        literal = _number_for(node.right, one, node.left)
        return _binary_sql(node.operator, one, _literal_sql(literal), "boolean")
    if isinstance(node.left, Literal) and one.type == "text":
        literal = _number_for(node.left, two, node.right)
        return _binary_sql(_MIRRORED[node.operator], two, _literal_sql(literal), "boolean")
    return _mixed_sql(node.operator, one, two)


def _number_for(literal: Literal, numeric: _Sql, named: Node) -> Value:
    """A literal as the number to compare a numeric value with."""
    if literal.value is None:
        return None
    value = _side(literal.value, numeric.type == "boolean")
    if value is None:
        about = f"{named.name} is a number" if isinstance(named, Name) else "a number is compared"
        raise UsageError(f"{about}, but {_shown(str(literal.value))[:60]!r} is not")
    return value


def _mixed_sql(operator: str, one: _Sql, two: _Sql) -> _Sql:
    """A number beside text: numeric affinity turns the text to a number, if it looks like one."""
    boolean = "boolean" in (one.type, two.type)
    left, right = _mixed_side(one, boolean), _mixed_side(two, boolean)
    test = _binary_sql(operator, left, right, "boolean")
    if operator in ("=", "<>"):
        return test
    words = left if one.type == "text" else right
    guarded = f"(CASE WHEN {words.text} <= {_ABOVE_NUMBERS} THEN {test.text} END)"
    return _Sql(guarded, words.values + test.values, "boolean", test.depth + 6)


def _mixed_side(made: _Sql, boolean: bool) -> _Sql:
    if made.type != "text":
        return _Sql(f"CAST({made.text} AS NUMERIC)", made.values, made.type, made.depth + 2)
    if not boolean:
        return made
    return _Sql(f"({_TRUTH_SQL.format(made.text)})", made.values * 2, "text", made.depth + 7)


def _in_sql(node: In, left: _Sql) -> _Sql:
    if left.type == "null":
        return _NULL._replace(type="boolean")
    if left.type != "text":
        return _listed(left, [_number_for(one, left, node.left) for one in node.values])
    values = [one.value for one in node.values]
    words = [value.rstrip(" ") for value in values if isinstance(value, str)]
    truths = [value for value in values if isinstance(value, bool)]
    figures = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    parts = [_mixed_sql("=", left, _literal_sql(value)) for value in truths]
    if figures:
        parts.append(_listed_figures(left, figures))
    if words or None in values:
        parts.append(_listed(left, [*words, *(value for value in values if value is None)]))
    return _series_sql("OR", parts)


def _listed(left: _Sql, values: Sequence[Value]) -> _Sql:
    marks = ", ".join("?" for _ in values)
    return _Sql(f"({left.text} IN ({marks}))", left.values + tuple(values), "boolean", left.depth + 5)


def _listed_figures(left: _Sql, figures: Sequence[Value]) -> _Sql:
    listed = _listed(left._replace(text=f"CAST({left.text} AS NUMERIC)"), figures)
    text = f"(CASE WHEN {left.text} > {_ABOVE_NUMBERS} THEN 0 ELSE {listed.text} END)"
    return _Sql(text, left.values + listed.values, "boolean", listed.depth + 9)


def _like_sql(node: Like, left: _Sql) -> _Sql:
    _refuse_numbers("like", left, node.left)
    pattern = node.pattern.replace("[", "[[]")
    return _Sql(f"({_as_text(left)} GLOB ?)", (*left.values, pattern), "boolean", left.depth + 4)
