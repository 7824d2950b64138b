"""The expression language: what it reads, what it means, and that SQL means the same."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from awetools.core.errors import UnknownName, UsageError
from awetools.core.expressions.evaluation import evaluate, fits, holds
from awetools.core.expressions.expression import (
    And,
    Compare,
    In,
    Like,
    Literal,
    Name,
    Or,
    condition,
    names,
    parse,
    parse_words,
)
from awetools.core.expressions.sqlexpression import to_sql

ROW = {
    "filter": "R",
    "exptime_s": 20.0,
    "object": "M51a  ",
    "night": "2017-03-02",
    "flat.imstat.stdev": 0.02,
    "DATE-OBS": "2017-03-03T02:10:29.47",
    "ESO DPR TYPE": "FLAT,SKY",
    "airmass": None,
    "binning": "2",
    "good": True,
    "shutter": "T",
    "gains": [1.5, 2.0],
}


def value(text: str) -> object:
    return evaluate(parse(text), ROW.get)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("filter='R' and exptime_s > 10 and object like 'M51*'", True),
        ("filter = 'r'", False),
        ("filter == 'R' AND NOT exptime_s != 20", True),
        ("0.5 < exptime_s < 20", False),
        ("0.5 < exptime_s <= 20 < 21", True),
        ("filter in ('R', 'V')", True),
        ("filter not in ('R', 'V')", False),
        ("exptime_s in (1, 20)", True),
        ("exptime_s between 20 and 21 and filter = 'R'", True),
        ("exptime_s not between 20 and 21", False),
        ("object = 'M51a'", True),
        ("object like 'M5?a'", True),
        ("object like 'm51*'", False),
        ("object not like '*51*'", False),
        ("airmass is null", True),
        ("airmass is not null", False),
        ("gains is not null", True),
        ("gains = '[1.5,2.0]'", True),
        ("airmass > 1", None),
        ("not airmass > 1", None),
        ("airmass > 1 or filter = 'R'", True),
        ("airmass > 1 and filter = 'B'", False),
        ("filter in ('B', null)", None),
        ("flat.imstat.stdev < 0.05", True),
        ("\"DATE-OBS\" like '2017-03-03T*'", True),
        ("\"ESO DPR TYPE\" = 'FLAT,SKY'", True),
        ("night >= 2017-03-01 and night < 2017-03-03", True),
        ("binning = 2 and binning = '2'", True),
        ("binning = '2.0'", False),
        ("filter = 5", False),
        ("filter <> 5", True),
        ("filter < 5", None),
        ("exptime_s = '20'", True),
        ("good and shutter", True),
        ("shutter = true", True),
        ("not good", False),
        ("good = 'false'", False),
        ("exptime_s * 2 + 1 = 41", True),
        ("-exptime_s / 4 = -5", True),
        ("10 - 3 - 2 = 5", True),
        ("2 + 3 * 2 = 8 and (2 + 3) * 2 = 10", True),
        ("exptime_s / 0 is null", True),
        ("lower(filter) = 'r' and upper(object) = 'M51A'", True),
        ("trim('  a ') = 'a' and abs(-3) = 3", True),
        ("'it''s' = 'it''s'", True),
        ("'R' = filter", True),
        ("1e2 = 100 and .5 = 0.5 and 2. = 2", True),
        ("null = null", None),
        ("not (true and false) or null", True),
        ("filter = 'R' and (filter = 'V' or exptime_s = 20)", True),
    ],
)
def test_meaning(text: str, expected: object) -> None:
    assert value(text) is expected


def test_values_other_than_conditions() -> None:
    assert value("exptime_s / 1000") == 0.02
    assert value("object") == "M51a  "
    assert value("'060.00' * 1") == 60.0
    assert value("'R' * 2") is None


def test_and_binds_stronger_than_or_and_not_stronger_than_both() -> None:
    assert isinstance(parse("a = 1 or b = 2 and c = 3"), Or)
    assert isinstance(parse("not a = 1 and b = 2"), And)


def test_names() -> None:
    assert names(parse("a.b > 1 and \"DATE-OBS\" is null or lower(c) in ('x')")) == {"a.b", "DATE-OBS", "c"}


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("filter =", 9),
        ("filter = and", 10),
        ("filter = 'R", 10),
        ("filter = 'R' night = 1", 14),
        ("(a = 1", 7),
        ("a = 1)", 6),
        ("a in ()", 7),
        ("a in (b)", 7),
        ("a like b", 8),
        ("a is 5", 6),
        ("a ; drop table x", 3),
        ("a = 5s", 5),
        ("a = 1.2.3", 5),
        ("a = 1 in (1)", 7),
        ("a and 5", 3),
        ("not 5", 1),
        ("a not 5", 7),
        ("sleep(5) = 1", 1),
        ("a = 1 and or b", 11),
        ("1 + not a", 5),
    ],
)
def test_errors_name_the_column(text: str, column: int) -> None:
    with pytest.raises(UsageError, match=rf"^column {column} of "):
        parse(text)


def test_errors_show_the_text_without_control_characters() -> None:
    with pytest.raises(UsageError) as caught:
        parse("filter = \x1b[31m")
    assert "\x1b" not in caught.value.message and "filter = ?[31m" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "(" * 100_000,
        "not " * 20_000 + "a",
        "-" * 90_000 + "1",
        "lower(" * 5_000 + "a" + ")" * 5_000,
        "(" * 5_000 + "a = 1" + ")" * 5_000,
        " = ".join(["a"] * 1) + " + 1" * 20_000,
        "'" * 99_999,
        "\ud800 = 1",
        "a = '\0'",
        "'; drop table objects; --",
        "a = 1; select 1",
        "é = 1",
        "a = \u2018R\u2019",
        "a like '" + "*" * 5_000 + "'",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_hostile_text_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(UsageError):
        parse(text)
    with pytest.raises(UsageError):
        parse_words([text])
    assert time.perf_counter() - started < 2


def test_shared_middles_of_chains_cannot_grow_without_bound() -> None:
    text = "a"
    for _ in range(40):
        text = f"(1 < {text} < 2)"
    with pytest.raises(UsageError, match="parts"):
        parse(text)


@pytest.mark.parametrize("depth", [1, 6, 29, 48])
@pytest.mark.parametrize(
    "form",
    [
        lambda depth: "(" * depth + "a = 1" + ")" * depth,
        lambda depth: "not " * depth + "a = 1",
        lambda depth: "1" + " + 1" * depth + " > a",
        lambda depth: "1 + (" * depth + "a" + ")" * depth + " > 5",
        lambda depth: "a = (" * depth + "a = 1" + ")" * depth,
        lambda depth: "abs(" * depth + "a" + ")" * depth + " > 0",
        lambda depth: "(" * depth + "a = 1" + ") < t" * depth,
        lambda depth: "t < (" * depth + "a = 1" + ")" * depth,
        lambda depth: "(" * depth + "a = 1" + ") + t = 2" * depth,
        lambda depth: "(" * depth + "a = 1" + " or a = 2) and a = 3" * depth,
    ],
)
def test_nesting_works_in_sqlite_or_is_refused(form: Callable[[int], str], depth: int) -> None:
    node = parse(form(depth))
    expected = evaluate(node, {"a": 1.0, "t": "1"}.get)
    try:
        text, values = to_sql(node, lambda name: (name, "text" if name == "t" else "real"))
    except UsageError as error:
        assert "nested too deeply" in error.message and depth > 6
        return
    with sqlite3.connect(":memory:") as connection:
        found = connection.execute(f"SELECT {text} FROM (SELECT 1.0 AS a, '1' AS t)", values).fetchone()
    connection.close()
    assert found[0] == expected


def test_thousands_of_additions_are_refused() -> None:
    with pytest.raises(UsageError, match="nested deeper"):
        parse("1" + " + 1" * 5_000 + " > a")


def test_thousands_of_conditions_reach_sqlite() -> None:
    node = parse(" or ".join(f"a = {number}" for number in range(5_000)))
    text, values = to_sql(node, lambda name: (name, "real"))
    row = sqlite3.connect(":memory:").execute(f"SELECT {text} FROM (SELECT 4999.0 AS a)", values).fetchone()
    assert row == (1,)


def test_quotes_stay_data() -> None:
    hostile = "x'; DROP TABLE rows; --"
    node = parse_words([f"object={hostile}"])
    assert node == Compare("=", Name("object"), Literal(hostile))
    text, values = to_sql(node, lambda name: (name, "text"))
    assert values == [hostile] and "DROP" not in text
    assert value("'a'' or 1 = 1' = 'a'") is False


# Words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["filter=R"], Compare("=", Name("filter"), Literal("R"))),
        (["night=2017-03-02"], Compare("=", Name("night"), Literal("2017-03-02"))),
        (["filter=R,V"], In(Name("filter"), (Literal("R"), Literal("V")))),
        (["object=M51*"], Like(Name("object"), "M51*")),
        (
            ["object=M51*,NGC2500"],
            Or((Like(Name("object"), "M51*"), Compare("=", Name("object"), Literal("NGC2500")))),
        ),
        (["exptime_s>10"], Compare(">", Name("exptime_s"), Literal("10"))),
        (["exptime_s>=10"], Compare(">=", Name("exptime_s"), Literal("10"))),
        (["object=NGC 2500"], Compare("=", Name("object"), Literal("NGC 2500"))),
        (["object=(433) Eros"], Compare("=", Name("object"), Literal("(433) Eros"))),
        (["filter="], Compare("=", Name("filter"), Literal(""))),
        (['"ESO DPR TYPE"=FLAT'], Compare("=", Name("ESO DPR TYPE"), Literal("FLAT"))),
        (["filter!=R"], Compare("<>", Name("filter"), Literal("R"))),
        (["a=b=c"], Compare("=", Name("a"), Literal("b=c"))),
        (["good"], Compare("=", Name("good"), Literal(True))),
    ],
)
def test_words(words: list[str], expected: object) -> None:
    assert parse_words(words) == expected


def test_words_are_joined_by_and_and_mix_with_expressions() -> None:
    node = parse_words(["filter=R", "exptime_s > 10 and object like 'M51*'", "night=2017-03-02"])
    assert isinstance(node, And) and len(node.conditions) == 4
    assert holds(node, ROW.get)
    assert not holds(parse_words(["filter=R", "filter='V' or filter='B'"]), ROW.get)
    assert parse_words([]) is None


def test_a_words_value_is_text_even_if_it_reads_like_a_name() -> None:
    assert holds(parse_words(["detector=ccd50"]), {"detector": "ccd50", "ccd50": "other"}.get)
    assert holds(parse_words(["exptime_s=20"]), ROW.get)
    assert not holds(parse_words(["filter!=R,V"]), ROW.get)


# SQL


COLUMNS = {"t": "text", "u": "text", "r": "real", "i": "integer", "b": "boolean"}


def column(name: str) -> tuple[str, str]:
    if name not in COLUMNS:
        raise UnknownName(f"no field {name!r}")
    return f'"{name}"', COLUMNS[name]


def in_sqlite(node: object, row: dict[str, object]) -> object:
    text, values = to_sql(node, column)  # type: ignore[arg-type]
    with sqlite3.connect(":memory:") as connection:
        connection.execute('CREATE TABLE rows ("t" TEXT, "u" TEXT, "r" REAL, "i" INTEGER, "b" INTEGER)')
        stored = [one.rstrip(" ") if isinstance(one, str) else one for one in map(row.get, COLUMNS)]
        connection.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", stored)
        found = connection.execute(f"SELECT {text} FROM rows", values).fetchone()[0]
    connection.close()
    return None if found is None else bool(found)


some_text = st.sampled_from(
    ["", "R", "r", "R ", "a*b", "[x]", "]", "M51", "5", "5.0", " 5 ", "+5", "5.", ".5", "1e1", "5.e1"]
    + ["1e", "0x5", "inf", "nan", "true", "T", "f ", "é", "\t5\n", "-3", "10", "9", "5 5", "e5", "."]
    + ["99999999999999999999", "1e999", "9223372036854775807"]
) | st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=4)
some_number = (
    st.integers(-20, 20)
    | st.sampled_from([0.5, 5.0, -2.5, 1e300, 2**53 + 1, 2**62, -(2**63)])
    | st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))
)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def literals(kind: str) -> st.SearchStrategy[str]:
    if kind == "text":
        return some_text.map(quoted)
    if kind == "number":
        return some_number.map(repr).filter(lambda text: text != "-0.0")
    return st.sampled_from(["true", "false"])


texts = st.deferred(
    lambda: (
        st.sampled_from(["t", "u"])
        | literals("text")
        | st.builds("{}({})".format, st.sampled_from(["lower", "upper", "trim"]), texts)
    )
)
figures = st.deferred(
    lambda: (
        st.sampled_from(["r", "i"])
        | literals("number")
        | st.builds("({} {} {})".format, figures, st.sampled_from("+-*/"), figures)
        | st.builds("abs({})".format, figures | texts)
        | st.builds("({} + {})".format, texts, figures)
    )
)
truths = st.sampled_from(["b", "true", "false"])
anything = texts | figures | truths | st.just("null")
signs = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
lists = st.lists(
    literals("text") | literals("number") | st.just("null") | literals("truth"), min_size=1, max_size=4
).map(", ".join)
patterns = st.text(st.sampled_from(list("*?[]Rr5a^-é")), max_size=5).map(quoted)
tests = st.deferred(
    lambda: (
        st.builds("{} {} {}".format, anything, signs, anything)
        | st.builds("{} {} {} {} {}".format, anything, signs, anything, signs, anything)
        | st.builds("{} in ({})".format, st.sampled_from(["t", "u", "r", "i", "b"]), lists)
        | st.builds("{} not in ({})".format, texts, lists)
        | st.builds("{} between {} and {}".format, anything, figures, anything)
        | st.builds("{} like {}".format, texts | st.just("i"), patterns)
        | st.builds("{} is null".format, anything)
        | st.builds("({}) and ({})".format, tests, tests)
        | st.builds("({}) or ({})".format, tests, tests)
        | st.builds("not ({})".format, tests)
        | st.builds("({}) = ({})".format, tests, tests)
        | st.just("b")
    )
)
rows = st.fixed_dictionaries(
    {
        "t": st.none() | some_text,
        "u": st.none() | some_text,
        "r": st.none() | some_number.map(float),
        "i": st.none() | st.integers(-20, 20) | st.just(2**53 + 1),
        "b": st.none() | st.booleans(),
    }
)


@settings(max_examples=400, deadline=None)
@given(tests, rows)
@example("t < 5", {"t": " 5 ", "u": None, "r": None, "i": None, "b": None})
@example("t in (5, 'R', null)", {"t": "x", "u": None, "r": None, "i": None, "b": None})
@example("t in (5)", {"t": "5.0", "u": None, "r": None, "i": None, "b": None})
def test_sqlite_and_evaluate_agree(text: str, row: dict[str, object]) -> None:
    node = parse(text)
    try:
        found = in_sqlite(node, row)
    except UsageError as error:
        assert "is not" in error.message or "needs text" in error.message
        return
    result = evaluate(condition(node), row.get)
    expected = None if result is None else bool(result)
    assert found is expected


@settings(max_examples=300, deadline=None)
@given(some_text, st.text(st.sampled_from(list("*?[]R5a")), max_size=6))
def test_patterns_agree_with_glob(text: str, pattern: str) -> None:
    with sqlite3.connect(":memory:") as connection:
        glob = connection.execute("SELECT ? GLOB ?", (text, pattern.replace("[", "[[]"))).fetchone()[0]
    connection.close()
    assert fits(text, pattern) == bool(glob)


def test_patterns_with_many_stars_are_quick() -> None:
    started = time.perf_counter()
    assert not fits("a" * 5_000, "*a" * 200 + "b")
    assert time.perf_counter() - started < 2


def test_text_columns_stay_bare_so_that_indexes_serve() -> None:
    text, values = to_sql(parse("t = 'R  ' and u in ('a', 'b')"), column)
    assert text == '(("t" = ?) AND ("u" IN (?, ?)))' and values == ["R", "a", "b"]


def test_words_meet_the_columns_type() -> None:
    row = {"t": "5", "u": "5.0", "r": 5.0, "i": 5, "b": True}
    for words, expected in [
        (["t=5"], True),
        (["u=5"], False),
        (["r=5"], True),
        (["i=5.0"], True),
        (["r>4.5"], True),
        (["b=true"], True),
        (["b=F"], False),
        (["i=3,5"], True),
    ]:
        assert in_sqlite(parse_words(words), row) is expected, words


def test_a_number_is_not_compared_with_other_text_in_silence() -> None:
    with pytest.raises(UsageError, match="r is a number, but 'abc' is not"):
        to_sql(parse_words(["r>abc"]), column)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="like needs text; r is a number"):
        to_sql(parse("r like '5*'"), column)


def test_unknown_names_are_the_columns_business() -> None:
    with pytest.raises(UnknownName, match="no field 'exptime'"):
        to_sql(parse("exptime > 5"), column)


def test_import_is_light() -> None:
    slow = "('numpy', 'astropy', 'click')"
    script = (
        f"import sys, awetools.core.expressions.expression; print([m for m in {slow} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
