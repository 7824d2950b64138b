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
- A name may lead along links: ``flat.twiflat.raw.obs_start``, ``<-reduced.sky_adu``. What
  it leads to can have many values; one comparison, or one chain of them, is about one of
  these, and holds if any makes it hold; with ``not``, if none does.
- ``cone(ra, dec, radius)`` and ``polygon(ra1, dec1, ra2, dec2, ...)``, in degrees, ask where
  on the sky an object is; ra and dec can be texts: ``cone('13:29:52.7', '+47:11:43', 5/60)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import add, mul, sub, truediv
from typing import NamedTuple, NoReturn

from ..errors import UsageError
from ..units import angle_deg
from .skyregion import SHAPES, Region

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
class InRegion:
    """Whether a position is in a region of the sky."""

    region: Region
    ra_deg: Name
    dec_deg: Name


@dataclass(frozen=True, slots=True)
class And:
    """All conditions; of a chain (`0.5 < x < 9`) they are about the same x."""

    conditions: tuple[Node, ...]
    chain: bool = False


@dataclass(frozen=True, slots=True)
class Or:
    """Any condition."""

    conditions: tuple[Node, ...]


Node = Literal | Name | Arithmetic | Call | Compare | In | Like | IsNull | InRegion | Not | And | Or

_LOGICAL = (Compare, In, Like, IsNull, InRegion, Not, And, Or)
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
        case InRegion():
            return node.ra_deg, node.dec_deg
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
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.(?:<-)?[A-Za-z0-9_]+)*)
    | (?P<sign><=|>=|<>|!=|==|[-+*/=<>(),])
    )""",
    re.VERBOSE,
)
_WORD = re.compile(
    r'(?:((?:<-)?[A-Za-z_][A-Za-z0-9_]*(?:\.(?:<-)?[A-Za-z0-9_]+)*)|"((?:[^"]|"")+)")'
    r"(==|!=|<>|<=|>=|=|<|>)(.*)",
    re.DOTALL,
)
_BACKWARD = re.compile(r"<-[A-Za-z_][A-Za-z0-9_]*(?:\.(?:<-)?[A-Za-z0-9_]+)*")
NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t\n\v\f\r]*")
INTEGER = re.compile(r"[+-]?[0-9]+")

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
    if not words:
        return None
    if any(not word.strip() for word in words):
        raise UsageError("a condition is empty: is a variable of the shell empty?")
    try:
        nodes = [_word(word) for word in words]
    except UsageError as error:
        hint = "a condition with blanks is one word of the shell: quote it" if len(words) > 1 else error.hint
        raise UsageError(error.message, hint=hint) from None
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
        raise UsageError(f"an expression is not valid text: {shown(text[:60])}") from None
    if "\0" in text:
        raise UsageError(f"an expression holds a NUL character: {shown(text[:60])}")


def _check_size(node: Node, text: str) -> None:
    """Chained comparisons share their middle: nested, they are many more nodes than the text has words."""
    waiting, count = [(node, 1)], 0
    while waiting:
        one, height = waiting.pop()
        count += 1
        if height > MAX_DEPTH:
            raise UsageError(f"an expression is nested deeper than {MAX_DEPTH}: {shown(text[:60])}")
        if count > MAX_NODES:
            raise UsageError(f"an expression has more than {MAX_NODES:,} parts: {shown(text[:60])}")
        waiting.extend((child, height + 1) for child in children(one))


def _pattern(pattern: str) -> str:
    if len(pattern) > MAX_PATTERN:
        raise UsageError(f"a pattern of {len(pattern):,} characters is too long (at most {MAX_PATTERN:,})")
    return pattern


def shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _joined(kind: type[And] | type[Or], nodes: Sequence[Node]) -> Node:
    conditions: list[Node] = []
    for node in map(condition, nodes):
        flat = isinstance(node, kind) and not (isinstance(node, And) and node.chain)
        conditions.extend(node.conditions if flat and isinstance(node, kind) else (node,))
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
        raise UsageError(f"column {at + 1} of {shown(near)!r}: {what}")

    def found(self) -> str:
        """The current token, for a message."""
        return "the end" if self.token.kind == "end" else shown(repr(self.token.value[:40]))

    def _read(self) -> _Token:
        found = _TOKEN.match(self.text, self.position)
        if found is None:
            rest = self.text[self.position :]
            at = self.position + len(rest) - len(rest.lstrip())
            if not rest.strip():
                return _Token("end", "", len(self.text))
            if rest.lstrip()[0] in "'\"":
                self.fail("a quote is not closed", at)
            if rest.lstrip()[0] == ":":
                self.fail("a text such as '13:29:52.7' is written in quotes", at)
            if rest.lstrip()[0] == "~":
                self.fail("there is no ~: a part of a text is asked for as object like '*M51*'", at)
            self.fail(f"cannot read {shown(rest.lstrip()[:10])!r}", at)
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
        if self._next_is("<"):
            return self._backward()
        if not self.accept("("):
            self.fail(f"expected a value, found {self.found()}")
        node = self.expression(_OR)
        self.expect(")")
        return node

    def _backward(self) -> Node:
        """A path that begins with what was made from an object: where a value stands, < is no comparison."""
        found = _BACKWARD.match(self.text, self.token.at)
        if found is None:
            self.fail("expected a value, found '<' (what was made from it is <-KIND)")
        token = _Token("word", found.group(), self.token.at)
        self.position = found.end()
        self.token = self._read()
        return self._call(token) if self._next_is("(") else Name(token.value)

    def _call(self, token: _Token) -> Node:
        path, _, function = token.value.lower().rpartition(".")
        if function in SHAPES:
            return self._region(function, token)
        if function not in _FUNCTIONS or path:
            known = " ".join((*_FUNCTIONS, *SHAPES))
            self.fail(f"no function {token.value!r} (there are: {known})", token.at)
        self.expect("(")
        argument = self.expression(_OR)
        self.expect(")")
        return Call(function, argument)

    def _region(self, shape: str, token: _Token) -> Node:
        self.expect("(")
        forms = ("ra", "degrees", "") if shape == "cone" else ("ra", "degrees")
        numbers = [self._number(forms[0])]
        while self.accept(","):
            numbers.append(self._number(forms[len(numbers) % len(forms)]))
        self.expect(")")
        path = token.value[: -len(shape)]
        try:
            region = Region.of(shape, numbers)
        except UsageError as error:
            raise UsageError(f"column {token.at + 1}: {error.message}") from None
        return InRegion(region, Name(f"{path}ra_deg"), Name(f"{path}dec_deg"))

    def _number(self, form: str) -> float:
        """A number of a region; form: in which `angle_deg` reads a text, empty where none is taken."""
        at, node = self.token.at, self.expression(_SUM)
        text = node.value if isinstance(node, Literal) and isinstance(node.value, str) and form else None
        value = _constant_number(node) if text is None else angle_deg(text, form)
        if value is None:
            self.fail(
                "a region of the sky is given by numbers in degrees; ra and dec also as '13:29:52.7', '+47:11:43'",
                at,
            )
        return value

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
        return tests[0] if len(tests) == 1 else And(tuple(tests), chain=True)

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
        return And((Compare(">=", left, low), Compare("<=", left, self.expression(_SUM))), chain=True)

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


def _constant_number(node: Node) -> float | None:
    """What arithmetic of numbers alone comes to; None for anything else, and division by zero."""
    if isinstance(node, Literal):
        return float(node.value) if type(node.value) in (int, float) else None  # type: ignore[arg-type]
    if not isinstance(node, Arithmetic):
        return None
    left, right = _constant_number(node.left), _constant_number(node.right)
    if left is None or right is None or (node.operator == "/" and right == 0):
        return None
    return {"+": add, "-": sub, "*": mul, "/": truediv}[node.operator](left, right)  # type: ignore[no-any-return]


def _number_literal(text: str) -> int | float:
    # What a database holds as a whole number.
    if INTEGER.fullmatch(text) and len(text) < 20 and int(text) < 1 << 63:
        return int(text)
    return float(text)
