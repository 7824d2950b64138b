"""The Python face: classes of the declared kinds, queries, objects, one statement for a thousand objects."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import awetools
from awetools.core import kinds
from awetools.core.errors import NoImage, NoMatch, NoStore, UnknownName, UsageError
from awetools.core.expressions.expression import parse_words
from awetools.core.kinds.foreign import IMPORTS
from awetools.core.kinds.hotpix import HOTPIX
from awetools.core.questions.query import ask, question_from_words
from awetools.core.store import Store
from awetools.core.workspace import here
from awetools.face.classes import OWN as OF_CLASSES
from awetools.face.classes import ObjectClass
from awetools.face.completing import Completer
from awetools.face.conditions import equal, text_of
from awetools.face.expressions import Query
from awetools.face.names import Step, followers
from awetools.face.objects import OWN as OF_OBJECTS
from awetools.face.objects import Object
from tests.support import ROOT, awe

Bias, Dark, Flat, HotPix, Reduced = (
    getattr(awetools, name) for name in ("Bias", "Dark", "Flat", "HotPix", "Reduced")
)
Raw, RawBias, RawScience = awetools.Raw, awetools.RawBias, awetools.RawScience

FIVE_LINES = """
from awetools import *
q = (Reduced.chip == 'sim1') & (Reduced.filter == 'R')
x = [k.imstat.stdev for k in q]
y = [k.flat.imstat.stdev for k in q]
pylab.scatter(x, y)
"""


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every SELECT on objects that SQLite is given, from now on."""
    seen: list[str] = []
    real = sqlite3.connect

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*given, **named)
        connection.set_trace_callback(lambda sql: seen.append(sql) if "objects.address" in sql else None)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    yield seen


def queried(
    kind: str, *words: str, get: str = "path", order: tuple[str, ...] = (), limit: int | None = None
) -> list[Any]:
    """What awe-query answers."""
    question = question_from_words(kind, words, get.split(","), order, limit)
    rows = [list(row.values()) for row in ask(question, here().stores, (*kinds.KINDS, *IMPORTS))]
    return [row if "," in get else row[0] for row in rows]


# The five lines


def test_the_five_lines_in_plain_python(reduced_store: Store, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    more = f"pylab.savefig({str(picture)!r})\nfor pair in zip(x, y): print(*pair, sep='\\t')"
    done = subprocess.run(
        [sys.executable, "-c", FIVE_LINES + more],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = queried("reduced", "detector=sim1", "filter=R", get="imstat.stdev,flat.imstat.stdev")
    assert expected and len(done.stdout.splitlines()) == len(expected)
    for line, known in zip(done.stdout.splitlines(), expected, strict=True):
        assert [float(one) for one in line.split()] == known
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_import_star_is_light() -> None:
    script = (
        "import sys, json; from awetools import *; "
        "slow = {'numpy', 'sqlite3', 'astropy', 'scipy', 'click', 'matplotlib', 'logging', 'difflib'}; "
        "print(sorted(slow & set(sys.modules)), Reduced, pylab)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.startswith("[] <awetools class Reduced> <matplotlib.pylab")


def test_pylab_names_the_extra_where_matplotlib_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoMatplotlib(), *sys.meta_path])
    with pytest.raises(ImportError, match=r"awetools\[plot\]"):
        awetools.pylab.scatter([1], [2])


class _NoMatplotlib:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_every_kind_and_type_of_raw_frame_is_a_class() -> None:
    names: list[str] = awetools.__all__
    assert {kind.class_name for kind in kinds.KINDS} < set(names)
    assert {"Raw", "RawBias", "RawScience", "pylab", "AweError"} < set(names)
    assert len(set(names)) == len(names)
    assert all(getattr(awetools, name) is not None for name in names)
    assert set(names) < set(dir(awetools))
    assert {"Coadd", "Sources"} < set(names) and isinstance(awetools.Coadd, ObjectClass)
    with pytest.raises(AttributeError, match="nearest: Reduced"):
        awetools.Redced  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute"):
        awetools.nothing  # noqa: B018


def test_a_new_kind_needs_no_line_here(reduced_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spots = replace(HOTPIX, name="hotspots", class_name="HotSpots", command="awe-hotspots")
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, spots))
    assert "HotSpots" in awetools.__all__
    assert "hot_pixels" in dir(awetools.HotSpots) and "master" in dir(awetools.HotSpots)
    assert list(awetools.HotSpots.hot_pixels > 3) == []
    assert Dark.hotspots.hot_fraction is not None


def test_no_name_of_ours_hides_one_of_an_object() -> None:
    for kind in [one.name for one in kinds.KINDS]:
        names = set(followers(Step("", "", (kind,))))
        # The same thing, known without asking.
        assert names & set(OF_OBJECTS) <= {"kind", "path", "filename"}
        assert not names & set(OF_CLASSES)


# Conditions


def test_conditions_are_those_of_the_language(reduced_store: Store) -> None:
    def count(query: Query, *words: str, **more: Any) -> None:
        found = [one.path for one in query]
        assert found == queried("reduced", *words, **more), words
        assert found or "none" in str(words)

    count(Reduced.chip == "sim1", "chip=sim1")
    count(Reduced.chip != "sim1", "chip!=sim1")
    count((Reduced.chip == "sim1") & (Reduced.filter == "R"), "chip=sim1", "filter=R")
    count((Reduced.chip == "sim1") | (Reduced.filter == "R"), "chip='sim1' or filter='R'")
    count(~(Reduced.filter == "R"), "not filter='R'")
    count(Reduced.sky_adu > 0, "sky_adu>0")
    count(Reduced.sky_adu.between(0, 1e6), "0 <= sky_adu <= 1e6")
    count(Reduced.sky_adu / 2 + 1 <= 3 * Reduced.imstat.max - 1, "sky_adu / 2 + 1 <= 3 * imstat.max - 1")
    count(Reduced.filename.like("sim1*"), "filename like 'sim1*'")
    count(Reduced.filter.isin(["R", "I"]), "filter in ('R', 'I')")
    count(Reduced.filter.isin([]), "filter = 'none'")
    count(Reduced.verdict == None, "verdict is null")  # noqa: E711
    count(Reduced.filter != None, "filter is not null")  # noqa: E711
    count(Reduced.flat.imstat.stdev > 0, "flat.imstat.stdev > 0")
    count(Reduced.raw.exptime_s > 0, "raw.exptime_s > 0")
    count(Reduced.flat.domeflat.raw.obs_start > date(2000, 1, 1), "flat.domeflat.raw.obs_start > 2000-01-01")
    count(Reduced.bias == Bias.select(detector="sim1").one(), "detector=sim1")
    count(Reduced.select("chip=sim1", filter=["R", "V"], object="*"), "chip=sim1", "object like '*'")
    count(Reduced.imstat.pixels == np.int64(3), "imstat.pixels = 3 or filter = 'none'")
    count(Reduced.order("filter", "sky_adu:desc").limit(3), order=("filter", "sky_adu:desc"), limit=3)
    assert [one.path for one in Bias.reduced.sky_adu > -1e9] == queried("bias", "<-reduced.sky_adu > -1e9")


def test_mistakes_say_what_helps(reduced_store: Store) -> None:
    first = Reduced[0]
    for wrong, near in (
        (lambda: Reduced.chp, "nearest: chip"),
        (lambda: Reduced.flat.imstat.stdv, "nearest: stdev"),
        (lambda: Reduced.chip.x, "is a value"),
        (lambda: first.sky_ad, "nearest: sky_adu"),
        (lambda: first.imstat.stdv, "nearest: stdev"),
        (lambda: first.flat.levl, "Flat"),
    ):
        with pytest.raises(AttributeError, match=near):
            wrong()
    condition = Reduced.chip == "sim1"
    for unclear in (
        lambda: condition and condition,
        lambda: condition or condition,
        lambda: not condition,
        lambda: 0.5 < Reduced.sky_adu < 9,
        lambda: bool(Reduced.chip),
    ):
        with pytest.raises(TypeError, match="use & for and"):
            unclear()
    for refused, why in (
        (lambda: condition & (Bias.chip == "sim1"), "follow a link"),
        (lambda: condition & "filter='R'", "is no condition"),
        (lambda: Reduced.flat == 3, "another object"),
        (lambda: Reduced.imstat > 3, "the beginning of a name"),
        (lambda: Reduced.chip == object(), "cannot compare"),
        (lambda: Reduced.chip.isin("R"), "a list of values"),
        (lambda: condition.limit(1) & condition, "is no condition"),
    ):
        with pytest.raises(TypeError, match=why):
            refused()
    with pytest.raises(ValueError, match="at least 1"):
        condition.limit(0)
    with pytest.raises(UnknownName, match="nearest: chip"):
        list(Reduced.select(chp="sim1"))
    with pytest.raises(NoMatch, match="Reduced: 6, not one"):
        Reduced.select(chip="sim1").one()


def test_links_are_compared_with_objects_and_with_nothing(reduced_store: Store) -> None:
    flat = Reduced[0].flat
    with_it = [one.path for one in Reduced if one.flat == flat]
    assert 0 < len(with_it) < len(Reduced)
    assert [one.path for one in Reduced.flat == flat] == with_it
    assert [one.path for one in Reduced.flat.isin([flat])] == with_it
    assert len(Reduced.flat != flat) == len(Reduced) - len(with_it)
    assert len(Reduced.flat.isin(Flat)) == len(Reduced) and len(Reduced.flat.isin([])) == 0
    assert len(Bias.raw == Bias[0].raw[1]) == 1 and len(RawScience.reduced.isin(Reduced[:2])) == 2
    assert len(Reduced.flat == None) == 0  # noqa: E711
    assert len(Reduced.fringe.isnull()) + len(Reduced.fringe != None) == len(Reduced)  # noqa: E711


def test_numbers_are_those_of_python(reduced_store: Store) -> None:
    assert len(Reduced.exptime_s < 10**30) == len(Reduced.exptime_s < 10**400) == len(Reduced)
    assert len(Reduced.exptime_s < -(10**400)) == 0
    assert len(-Reduced.exptime_s < 0) == len(abs(-Reduced.exptime_s) > 0) == len(Reduced)
    with pytest.raises(IndexError, match=f"there are {len(Reduced)} Reduced"):
        Reduced[len(Reduced)]
    with pytest.raises(TypeError):
        Reduced.limit(2.5)


def test_without_a_store_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoStore) as caught:
        len(Reduced)
    assert caught.value.__notes__ == ["try: awe-init, or AWE_PATH=DIR"]


VALUES = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), min_size=1),
)


@given(VALUES)
def test_a_keyword_is_the_same_condition_as_a_word(value: Any) -> None:
    assert parse_words([text_of("filter", value)]) == equal("filter", value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.text())
def test_no_text_changes_a_statement(reduced_store: Store, text: str) -> None:
    assert len(Reduced.object == text) == 0 or text.strip(" ") in {one.object for one in Reduced}
    assert len((Reduced.object == text) | (Reduced.flat.object == text) | (Reduced.sky_adu > -1e9)) == 12


# Queries


def test_a_thousand_attributes_are_one_statement(reduced_store: Store, statements: list[str]) -> None:
    found = list(Reduced)
    assert len(found) == 12 and len(statements) == 1
    for n, read in enumerate(
        (
            lambda one: one.imstat.stdev,
            lambda one: one.flat.imstat.stdev,
            lambda one: one.flat.domeflat.obs_start,
            lambda one: one.chip,
        ),
        2,
    ):
        assert None not in [read(one) for one in found]
        assert len(statements) == n
        assert [read(one) for one in found] and len(statements) == n
    statements.clear()
    # The inputs of all are found by one statement, and what they are by one more.
    assert {len(one.bias.raw) for one in found} == {4} and len(statements) == 2
    assert all(frame.obs_start for one in found for frame in one.bias.raw) and len(statements) == 3


def test_a_query_is_asked_anew_when_iterated(reduced_store: Store, statements: list[str]) -> None:
    query = Reduced.chip == "sim1"
    assert len(list(query)) == 6 and len(query) == 6 and query[0] == query[-6]
    assert [one.path for one in query[:2]] == [one.path for one in query][:2]
    with pytest.raises(IndexError):
        query[6]
    assert len(statements) == 2
    os.remove(query[0].path)
    assert len(list(query)) == 5
    awe("index", "--update")
    assert len(query) == 5 and query.exists() and not query.select(filter="none").exists()
    gone = next(iter(Reduced))
    shutil.move(gone.path, "elsewhere")
    # What does not meet the question any more has the attributes that can still be found, or none.
    assert gone.sky_adu is None and not gone.exists() and not gone.uptodate()


def test_tables_to_look_at_and_for_astropy(reduced_store: Store) -> None:
    shown = repr(Reduced.filter == "R")
    assert "detector" in shown and shown.endswith("<Reduced: 6>") and len(shown.splitlines()) == 8
    assert repr(Raw.all()).endswith("<Raw: the first 10 of more>")
    assert repr(Reduced.filter == "none") == "<Reduced: 0>"
    assert "<th>detector</th>" in Reduced.all()._repr_html_()
    table = Reduced.table(Reduced.filename, "exptime_s", Reduced.flat.imstat.stdev, "verdict", "raw.object")
    assert len(table) == 12 and str(table["exptime_s"].unit) == "s"
    assert table["verdict"].mask.all() and table["flat.imstat.stdev"].dtype.kind == "f"
    assert list(table["filename"]) == [one.filename for one in Reduced]


# Objects


def test_a_product_is_an_object(reduced_store: Store) -> None:
    hot = HotPix.select(chip="sim1").one()
    assert isinstance(hot, Object) and isinstance(hot, HotPix) and not isinstance(hot, Bias)
    assert hot.exists() and hot.uptodate() and hot.why() == "" and bool(hot)
    assert hot.data.shape == (192, 160) and hot.data.dtype == np.int16
    assert hot.measures["hot_pixels"] == hot.hot_pixels == np.count_nonzero(hot.mask & 1)
    assert hot.header["AWEKIND"] == "hotpix" and hot.weight is None
    assert hot.dark.obs_start == hot.master.obs_start and hot.filename == os.path.basename(hot.path)
    assert hot == HotPix.select(chip="sim1")[0] and len({hot, *HotPix}) == 2
    assert "imstat" in dir(hot) and "lineage" in dir(hot) and "dark" in dir(hot)
    assert repr(hot) == f"HotPix({hot.path!r})" and repr(hot.imstat).startswith("imstat(clipped_mean=")
    with pytest.raises(NoImage):
        hot.table  # noqa: B018
    reduced = Reduced[0]
    assert reduced.data.shape == reduced.weight.shape == reduced.mask.shape
    assert reduced.data is not reduced.data
    (raw,) = [reduced.raw]
    assert isinstance(raw, RawScience) and isinstance(raw, Raw) and raw.measures == {}
    assert raw.data.shape == reduced.data.shape and raw.exists() and raw.uptodate() and raw.mask is None
    assert raw.header["INSTRUME"] and reduced in raw.reduced
    gain = awetools.Gain[0]
    assert len(gain.table) and gain.header["AWEKIND"] == "gain"
    with pytest.raises(NoImage):
        gain.data  # noqa: B018


def test_an_input_that_is_not_there(reduced_store: Store) -> None:
    without = HotPix[0]
    assert not without.bias and without.bias.level_adu is None and repr(without.bias) == "<no Bias>"
    with pytest.raises(NoMatch, match="no such Bias"):
        without.bias.data  # noqa: B018
    assert [one.fringe.fringe_adu if "fringe_adu" in dir(one.fringe) else None for one in Reduced]


def test_lineage_is_a_tree_to_print_and_go_through(reduced_store: Store) -> None:
    flat = Flat[0]
    lineage = flat.lineage()
    assert str(lineage) == repr(lineage) and "└── " in str(lineage) and "(see above)" in str(lineage)
    kinds_met = [one.kind for one in lineage]
    assert kinds_met[0] == "flat" and "raw_bias" in kinds_met and len(lineage) == len(kinds_met)
    assert {one.kind for one in flat.lineage(forward=True)} >= {"flat", "reduced"}
    assert {one.kind for one in flat.lineage(depth=1)} <= {"flat", *(name for name in dir(Flat))}


def test_judging_is_a_word_in_the_journal(reduced_store: Store) -> None:
    bias = Bias[0]
    assert bias.verdict is None
    bias.judge("bad", reason="light leak")
    assert bias.verdict == "bad" and Bias[0].verdict == "bad"
    assert "bad" in (reduced_store.journal_path).read_text()


# Making


def test_get_makes_what_is_missing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    (night,) = {one.night for one in RawBias}
    before = HotPix.get(date=night, chip="sim1", make=False)
    assert not before.exists() and not before.uptodate() and "missing" in before.why() and not before
    assert repr(before) == "<HotPix: to be made>" and "hot_pixels" in dir(before)
    with pytest.raises(NoMatch, match="does not exist yet"):
        before.hot_pixels  # noqa: B018
    assert len(HotPix) == 0
    told: list[str] = []
    hot = HotPix.get(date=night, chip="sim1", tell=told.append)
    assert hot.exists() and hot.uptodate() and hot.why() == "" and hot.hot_pixels > 0
    assert any("making" in one and "hotpix" in one for one in told)
    assert len(HotPix) == 1 and before.exists() is False and before.make() == hot
    made = hot.path, os.stat(hot.path).st_mtime_ns
    again = HotPix.get(date=night, chip="sim1")
    assert (again.path, os.stat(again.path).st_mtime_ns) == made
    assert not list((store.awe / "runs").glob("*"))
    other = HotPix.get(date=night, chip="sim1", params={"threshold_sigma": 9.0}, make=False)
    assert other == hot and not other.uptodate() and "threshold_sigma was 5.0, is 9.0" in other.why()
    os.remove(hot.path)
    assert not hot.exists() and not hot.uptodate() and hot.make().exists()


def test_get_refuses_what_is_not_one(reduced_store: Store) -> None:
    with pytest.raises(UsageError, match=r"6 reduced meet detector = 'sim1'") as several:
        Reduced.get(detector="sim1")
    assert "Reduced.select" in several.value.hint
    with pytest.raises(NoMatch, match="nearest"):
        HotPix.get(chip="sim3")
    with pytest.raises(UnknownName, match="nearest: chip"):
        HotPix.get(chp="sim1")
    with pytest.raises(UnknownName, match="nearest: threshold_sigma"):
        HotPix.get(chip="sim1", params={"threshld_sigma": 3})
    assert RawScience.get(exposure=Reduced[0].exposure, detector="sim1").exposure == Reduced[0].exposure
    with pytest.raises(NoMatch, match="none meet"):
        Raw.get(object="none of these")


def test_get_raises_what_keeps_a_product_from_being_made(store: Store) -> None:
    for frame in (Raw.frame_type == "raw_bias") & (Raw.detector == "sim1"):
        awe("ingest", "--forget", frame.path.partition("[")[0])
    with pytest.raises(NoMatch, match="it was made without a bias"):
        Reduced.get(exposure=RawScience[0].exposure, detector="sim1")


def test_completion_asks_for_no_values(reduced_store: Store, statements: list[str]) -> None:
    query = Reduced.chip == "sim1"
    first = query[0]
    statements.clear()
    complete = Completer({"k": first, "q": query, "Reduced": Reduced}).completions
    assert complete("k.sky_") == ["k.sky_adu", "k.sky_rms_adu"]
    assert complete("k.imstat.clipped_s") == ["k.imstat.clipped_stdev"]
    assert complete("k.flat.imst") == ["k.flat.imstat"]
    assert complete("Reduced.flat.rec") == ["Reduced.flat.recipe_key"]
    assert "Reduced" in complete("Red") and "range" in complete("ran") and complete("nothing.x") == []
    assert not statements
