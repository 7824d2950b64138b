"""The query language over links, stores and the sky: what a condition finds, against the same told by hand."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import UnknownName, UsageError
from awetools.core.expressions.expression import parse
from awetools.core.expressions.skyregion import Region, vector
from awetools.core.indexing.index import open_index, rebuild
from awetools.core.kinds import KINDS
from awetools.core.kinds.foreign import IMPORTS
from awetools.core.quality import measure_names
from awetools.core.questions import query
from awetools.core.questions.linkpaths import Declared
from awetools.core.questions.query import Question, ask
from awetools.core.store import Store, init_store
from tests.foreign_frames import star_field, write_foreign
from tests.support import InProcess, program

EVERY = (*KINDS, *IMPORTS)


def found(stores: list[Store], kind: str, text: str, *columns: str, **more: Any) -> list[dict[str, Any]]:
    condition = parse(text) if text else None
    return list(ask(Question(kind, condition, columns or ("path",), **more), stores, EVERY))


class Objects:
    """All objects of a store as their records say: what a query finds is told from these by plain Python."""

    def __init__(self, store: Store) -> None:
        self.by_identity: dict[str, dict[str, Any]] = {}
        self.users: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(store.root.rglob("*.fits.json")):
            record = json.loads(path.read_bytes())
            one = {
                **record["meta"],
                **record["quality"]["measures"],
                "identity": record["recipe_key"],
                "kind": record["recipe"]["kind"],
                "path": str(path).removesuffix(".json"),
                "inputs": [
                    (i["role"], i.get("recipe_key") or i["content"]) for i in record["recipe"]["inputs"]
                ],
            }
            self.by_identity[one["identity"]] = one
        for path in store.awe.glob("raw/*/*.json"):
            raw = json.loads(path.read_bytes())
            for detector in raw["detectors"]:
                meta = detector["meta"]
                many = len(raw["detectors"]) > 1
                address = f"{raw['file']['path']}[{detector['detector']}]" if many else raw["file"]["path"]
                about = {
                    "identity": detector["content"],
                    "kind": meta["frame_type"],
                    "path": address,
                    "inputs": [],
                }
                self.by_identity[detector["content"]] = {**meta, **about}
        for one in self.by_identity.values():
            for _, identity in one["inputs"]:
                self.users.setdefault(identity, []).append(one)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.by_identity.values() if one["kind"] == kind]

    def led_to(self, one: dict[str, Any], *links: str) -> list[dict[str, Any]]:
        ends = {one["identity"]: one}
        for link in links:
            ends = {end["identity"]: end for each in ends.values() for end in self._step(each, link)}
        return list(ends.values())

    def _step(self, one: dict[str, Any], link: str) -> Iterator[dict[str, Any]]:
        if link.startswith("<-"):
            yield from (user for user in self.users.get(one["identity"], []) if user["kind"] == link[2:])
            return
        for role, identity in one["inputs"]:
            if role == link and identity in self.by_identity:
                yield self.by_identity[identity]


PATHS: list[tuple[str, str, tuple[str, ...], str, Callable[[Any], bool]]] = [
    ("reduced", "flat.imstat.stdev > 0.02", ("flat",), "imstat.stdev", lambda v: v > 0.02),
    ("reduced", "flat.domeflat.raw.exptime_s > 1", ("flat", "domeflat", "raw"), "exptime_s", lambda v: v > 1),
    ("reduced", "bias.raw.obs_start > 2024-03-02", ("bias", "raw"), "obs_start", lambda v: v > "2024-03-02"),
    ("reduced", "bias.raw.obs_start > 2099-01-01", ("bias", "raw"), "obs_start", lambda v: v > "2099-01-01"),
    ("raw_bias", "<-bias.level_adu < 1e9", ("<-bias",), "level_adu", lambda v: v < 1e9),
    ("raw_bias", "<-bias.<-reduced.filter = 'V'", ("<-bias", "<-reduced"), "filter", lambda v: v == "V"),
    ("bias", "<-reduced.sky_adu > 300", ("<-reduced",), "sky_adu", lambda v: v > 300),
    ("flat", "<-reduced.raw.object like '*1*'", ("<-reduced", "raw"), "object", lambda v: "1" in v),
    (
        "domeflat",
        "<-flat.<-reduced.bias.raw.night <> ''",
        ("<-flat", "<-reduced", "bias", "raw"),
        "night",
        bool,
    ),
]


def test_conditions_along_links_find_what_the_records_say(
    reduced_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects(reduced_store)
    some = 0
    for few in (20_000, 0):
        monkeypatch.setattr(query, "FEW_OBJECTS", few)
        for kind, text, links, name, holds in PATHS:
            expected = {
                one["path"]
                for one in objects.of(kind)
                if any(holds(end[name]) for end in objects.led_to(one, *links) if end[name] is not None)
            }
            paths = [row["path"] for row in found([reduced_store], kind, text)]
            assert set(paths) == expected and len(paths) == len(expected), (few, text)
            some += 0 < len(expected) < len(objects.of(kind)) or not expected
    assert some >= 4


def test_get_gives_one_value_or_the_list_of_many(reduced_store: Store) -> None:
    objects = Objects(reduced_store)
    names = ("path", "flat.imstat.stdev", "flat.path", "bias.raw.path", "bias.raw.obs_start", "raw.exptime_s")
    rows = found([reduced_store], "reduced", "", *names)
    assert len(rows) == len(objects.of("reduced"))
    by_path = {one["path"]: one for one in objects.of("reduced")}
    for row in rows:
        one = by_path[row["path"]]
        (flat,) = objects.led_to(one, "flat")
        assert (row["flat.imstat.stdev"], row["flat.path"]) == (flat["imstat.stdev"], flat["path"])
        raws = sorted(objects.led_to(one, "bias", "raw"), key=lambda raw: raw["obs_start"])
        assert row["bias.raw.obs_start"] == [raw["obs_start"] for raw in raws]
        assert sorted(row["bias.raw.path"]) == sorted(raw["path"] for raw in raws)
        assert row["raw.exptime_s"] == one["exptime_s"]


def test_a_link_alone_asks_whether_there_is_one(reduced_store: Store) -> None:
    every = found([reduced_store], "bias", "")
    used = found([reduced_store], "bias", "<-reduced")
    assert used == every != []
    assert (
        found([reduced_store], "bias", "not <-reduced")
        == found([reduced_store], "bias", "<-reduced is null")
        == []
    )
    assert found([reduced_store], "reduced", "fringe") == []
    assert len(found([reduced_store], "reduced", "fringe is null")) == len(
        found([reduced_store], "reduced", "")
    )
    assert {row["<-gain"] for row in found([reduced_store], "bias", "", "<-gain")} == {True}
    # A frame without a fringe correction has no value of it: nothing is known.
    assert found([reduced_store], "reduced", "fringe.frames > 0 or not fringe.frames > 0") == []
    assert len(found([reduced_store], "reduced", "fringe.frames is null")) == len(
        found([reduced_store], "reduced", "")
    )


def test_a_chain_is_about_one_and_the_same_value(reduced_store: Store) -> None:
    starts = found([reduced_store], "bias", "", "raw.obs_start")[0]["raw.obs_start"]
    low, high = starts[0], starts[-1]
    both = f"raw.obs_start <= '{low}' and raw.obs_start >= '{high}'"
    chain = f"'{high}' <= raw.obs_start <= '{low}'"
    assert found([reduced_store], "bias", both)
    assert not found([reduced_store], "bias", chain)
    assert found([reduced_store], "bias", f"raw.obs_start between '{low}' and '{high}'")
    # With not: no value makes it hold.
    assert not found([reduced_store], "bias", f"not raw.obs_start = '{low}' and detector = 'sim1'")


def test_a_path_in_a_condition_is_the_one_that_is_shown(
    reduced_store: Store, tmp_path: Path, run: InProcess
) -> None:
    stores = [reduced_store, init_store(tmp_path / "empty")]
    for kind, name in (
        ("reduced", "path"),
        ("reduced", "flat.path"),
        ("raw_bias", "path"),
        ("bias", "raw.path"),
    ):
        (first, *_) = values_of(found(stores, kind, "", name)[0][name])
        for text in (f"{name} = '{first}'", f"{name} like '*/{Path(first).name}'", f"{name} in ('{first}')"):
            for order in (stores, stores[::-1]):
                rows = found(order, kind, text, name)
                assert rows and all(first in values_of(row[name]) for row in rows), (kind, text)
        assert not found(stores, kind, f"{name} like '{kind}*'")
    bias = found(stores, "bias", "")[0]["path"]
    assert run("make", "bias", "-n", f"path={found(stores, 'raw_bias', '')[0]['path']}").code == 0
    assert [line.split("\t")[1] for line in run("timeline", "bias", f"path={bias}").lines[1:]] == [bias]
    assert run("timeline", "bias", f"filename={Path(bias).name}").code == 0
    assert run("timeline", "bias", "filename=x").code == 5


def values_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_flags_are_named_as_in_the_record_whoever_made_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    monkeypatch.chdir(tmp_path)
    store = init_store(tmp_path)
    data = star_field()
    data[:100] = np.nan
    write_foreign(tmp_path / "foreign.fits", data)
    assert run("import_", "-q", "--as", "reduced", "foreign.fits").code == 0
    (row,) = found([store], "reduced", "flags <> 0", "path", "flag_names")
    record = json.loads(Path(f"{row['path']}.json").read_bytes())
    assert record["quality"]["flag_names"] == ["good_fraction"] == [row["flag_names"]]
    for kind in EVERY:
        for bit, name in enumerate(names := measure_names(kind)):
            assert query._flag_names(f"{kind.name}:{1 << bit}:{','.join(names)}", EVERY) == name


def test_order_and_limit_go_along_links(reduced_store: Store) -> None:
    rows = found([reduced_store], "reduced", "", "flat.imstat.stdev", order=("flat.imstat.stdev:desc",))
    values = [row["flat.imstat.stdev"] for row in rows]
    assert values == sorted(values, reverse=True) and len(set(values)) > 1
    assert found([reduced_store], "reduced", "", "path", order=("bias.raw.obs_start", "path"), limit=2)


def statements(store: Store, columns: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    def traced(*arguments: Any) -> Any:
        index = open_index(*arguments)
        index.connection.set_trace_callback(seen.append)
        return index

    monkeypatch.setattr("awetools.core.indexing.inforce.open_index", traced)
    found([store], "reduced", "", *columns)
    return seen


def test_any_number_of_columns_is_one_statement(
    reduced_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = (
        "path",
        "flat.imstat.stdev",
        "bias.level_adu",
        "bias.raw.obs_start",
        "flat.domeflat.night",
        "wcs",
    )
    assert len(statements(reduced_store, columns, monkeypatch)) == 1


def test_names_are_from_the_declarations_and_a_path_ends(reduced_store: Store, run: InProcess) -> None:
    declared = Declared(EVERY)
    assert declared.path("reduced", "imstat.stdev").links == ()
    assert declared.path("reduced", "flat.imstat.stdev").field == "imstat.stdev"
    assert declared.path("hotpix", "master.level_adu").end == ("dark", "bias")
    assert declared.path("hotpix", "dark.level_adu").end == ("dark",)
    assert declared.path("reduced", "flat.chip").field == "detector"
    for text, said in (
        ("flat.imstat.stdv", "nearest: imstat.stdev"),
        ("flt.night", "nearest: flat.night"),
        ("flat.domeflat.rw.night", "its links: raw"),
        ("<-flat.night", "nearest"),
        ("M51", "a text is written in quotes"),
    ):
        with pytest.raises(UnknownName) as caught:
            declared.path("reduced", text)
        assert said in caught.value.message, caught.value.message
    endless = ".".join(["raw", "<-reduced"] * 60) + ".night"
    ran = run("query", "reduced", f"{endless} = 'x'")
    assert ran.code == 2 and "more than 16 links" in ran.err
    deepest = ".".join(["raw", "<-reduced"] * 7 + ["flat"]) + ".night"
    assert run("query", "reduced", f"{deepest} is not null", "--count").out.strip() != "0"


@pytest.mark.parametrize("links", range(1, 5))
def test_nesting_works_in_sqlite_or_is_refused(reduced_store: Store, links: int) -> None:
    single = ".".join(["flat", "domeflat", "bias", "readnoise"][:links])
    many = ".".join(["raw", "<-reduced"] * links)
    end = "<-reduced" if links == 1 else "raw"
    counts: dict[str, set[int]] = {}
    for name in (f"{single}.valid_by", f"{many}.{single}.gain_e_adu", f"{single}.{end}.verdict"):
        for depth in range(0, 40, 2):
            text = "not (" * depth + f"{name} is null and detector = 'sim1'" + ")" * depth
            try:
                counts.setdefault(name, set()).add(len(found([reduced_store], "reduced", text)))
            except UsageError as error:
                assert "nested too deeply" in error.message and depth >= 4
        assert len(counts[name]) == 1


# Several stores


def split(store: Store, tmp_path: Path) -> list[Store]:
    """The products of a store over three: reduced frames in the first, flats in the second, all else in the third."""
    stores = [init_store(tmp_path / name) for name in ("private", "project", "public")]
    for path in sorted(store.root.rglob("*.fits*")):
        place = path.relative_to(store.root)
        if place.parts[0] == ".awe":
            continue
        rank = {"reduced": 0, "flat": 1}.get(place.parts[0], 2)
        target = stores[rank].root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for path in store.awe.glob("raw/*/*.json"):
        target = stores[2].root / path.relative_to(store.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for one in stores:
        rebuild(one)
    return stores


def test_links_lead_from_one_store_into_another(
    reduced_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("obs_start", "detector", "flat.imstat.stdev", "flat.domeflat.raw.obs_start", "bias.level_adu")
    before = {
        few: [found([reduced_store], kind, text, "content") for kind, text, *_ in PATHS] for few in (20_000,)
    }[20_000]
    rows = found([reduced_store], "reduced", "", *names, order=("sky_adu",))
    users = found([reduced_store], "bias", "", "<-reduced.sky_adu", "detector", order=("detector",))
    stores = split(reduced_store, tmp_path)
    monkeypatch.chdir(stores[0].root)
    assert found(stores, "reduced", "", *names, order=("sky_adu",)) == rows
    assert found(stores, "bias", "", "<-reduced.sky_adu", "detector", order=("detector",)) == users
    for few in (20_000, 0):
        monkeypatch.setattr(query, "FEW_OBJECTS", few)
        after = [found(stores, kind, text, "content") for kind, text, *_ in PATHS]
        assert [sorted(row["content"] for row in one) for one in after] == [
            sorted(row["content"] for row in one) for one in before
        ]
    # From afar nothing is known of what is nearer only.
    assert found(stores[2:], "bias", "<-reduced") == []
    monkeypatch.setenv("AWE_PATH", ":".join(str(one.root) for one in stores))
    ran = program("query", "reduced", "--get", "flat.path,bias.path", "--limit", "1", "--json")
    row = json.loads(ran.out)
    assert Path(row["flat.path"]).is_relative_to(stores[1].root) and Path(row["flat.path"]).exists()
    assert Path(row["bias.path"]).is_relative_to(stores[2].root) and Path(row["bias.path"]).exists()


def test_what_lies_in_two_stores_is_that_of_the_nearest(reduced_store: Store, tmp_path: Path) -> None:
    import shutil

    from awetools.core.journal import append_verdict

    far = init_store(tmp_path / "far")
    shutil.copytree(reduced_store.root / "bias", far.root / "bias", copy_function=shutil.copy2)
    rebuild(far)
    near = [row["path"] for row in found([reduced_store], "bias", "")]
    assert [row["path"] for row in found([reduced_store, far], "bias", "")] == near
    there = found([far, reduced_store], "bias", "", "path", "recipe_key", "<-reduced.bias.path")
    assert all(Path(row["path"]).is_relative_to(far.root) for row in there) and len(there) == len(near)
    assert all(Path(one).is_relative_to(far.root) for row in there for one in row["<-reduced.bias.path"])
    key = there[0]["recipe_key"]
    append_verdict(far, key, "bad", "", "me")
    append_verdict(reduced_store, key, "good", "", "me")
    detector = "recipe_key = '" + key + "'"
    assert found([far, reduced_store], "bias", detector, "verdict") == [{"verdict": "bad"}]
    assert found([reduced_store, far], "reduced", "bias.verdict = 'good'")
    assert not found([far, reduced_store], "reduced", "bias.verdict = 'good'")
    assert found([reduced_store, reduced_store], "bias", "") == found([reduced_store], "bias", "")


def test_order_and_limit_are_over_all_stores(reduced_store: Store, tmp_path: Path) -> None:
    want = [
        row["sky_adu"]
        for row in found([reduced_store], "reduced", "", "sky_adu", order=("sky_adu",), limit=5)
    ]
    other = init_store(tmp_path / "other")
    for number, path in enumerate(sorted(reduced_store.root.glob("reduced/*/*.fits"))):
        if number % 2:
            for one in (path, path.with_name(f"{path.name}.json")):
                target = other.root / one.relative_to(reduced_store.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                one.rename(target)
    for store in (reduced_store, other):
        rebuild(store)
    rows = found([reduced_store, other], "reduced", "", "sky_adu", order=("sky_adu",), limit=5)
    assert [row["sky_adu"] for row in rows] == want


# Injection

HOSTILE = [
    "'; DROP TABLE objects; --",
    '" OR 1=1 --',
    "x' OR '1'='1",
    "\\",
    "%",
    "\N{SNOWMAN}é",
    "?1",
    ":a",
    "$.x",
    "]",
]


@settings(max_examples=60, deadline=None)
@given(
    text=st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20)),
    name=st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=20)),
    link=st.sampled_from(["", "raw.", "<-flat.<-reduced."]),
)
def test_no_text_changes_the_statement(text: str, name: str, link: str) -> None:
    """A value stays a value, and a name that is none is refused: the SQL is that of any other text."""
    from awetools.core.expressions.sqlexpression import to_sql
    from awetools.core.indexing.index import Index
    from awetools.core.questions.linkpaths import PathsSql

    index = Index(Store(Path("/")), sqlite3.connect(":memory:"), None, False)
    paths = PathsSql(Declared(EVERY), "domeflat", index, (index.store,), ("main",))
    quoted = text.replace("'", "''")
    made = []
    try:
        for value in (quoted, "x"):
            made.append(to_sql(parse(f"{link}object = '{value}'"), paths.column, paths))
        assert made[0][0] == made[1][0] and made[0][1] == [text.rstrip(" ")]
    except UsageError:
        assert "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)
    asked = name.replace('"', '""')
    try:
        sql, _ = to_sql(parse(f'"{link}{asked}" is null'), paths.column, paths)
    except (UnknownName, UsageError):
        return
    assert name.isidentifier() or name.replace(".", "").replace("<-", "").isidentifier(), sql


# The sky


def test_a_cone_is_what_the_angle_says() -> None:
    import random

    rng = random.Random(4)
    for _ in range(400):
        ra, dec, radius = (
            rng.uniform(0, 360),
            rng.choice([-90, -89.9, 0, 60, 89.99, 90]),
            rng.choice([0.1, 3, 60, 95]),
        )
        region = Region.of("cone", (ra, dec, radius))
        at = rng.uniform(0, 360), math.degrees(math.asin(rng.uniform(-1, 1)))
        if rng.random() < 0.6:
            at = (ra + rng.gauss(0, radius)) % 360, max(-90, min(90, dec + rng.gauss(0, radius)))
        angle = math.degrees(
            math.acos(max(-1, min(1, sum(a * b for a, b in zip(vector(ra, dec), vector(*at), strict=True)))))
        )
        if abs(angle - radius) > 1e-5:
            assert region.holds(*at) == (angle < radius)
        low, high, ranges = region.box()
        if region.holds(*at):
            assert low <= at[1] <= high and any(a <= at[0] <= b for a, b in ranges)


@pytest.mark.parametrize("middle", [(0, 0), (359.9, 45), (120, 90), (10, -90), (180, 89.5)])
def test_a_polygon_is_what_its_great_circles_say(middle: tuple[float, float]) -> None:
    import random

    rng = random.Random(8)
    x, y, z = vector(*middle)
    corners, inside = [], (x, y, z)
    for step in range(5):
        # Corners 5 deg around the middle, in order.
        angle = math.radians(72 * step)
        one = (-y, x, 0.0) if abs(z) < 0.9 else (1.0, 0.0, 0.0)
        size = math.dist(one, (0, 0, 0))
        one = tuple(value / size for value in one)
        dot = sum(a * b for a, b in zip(one, inside, strict=True))
        one = tuple(a - dot * b for a, b in zip(one, inside, strict=True))
        size = math.dist(one, (0, 0, 0))
        one = tuple(value / size for value in one)
        two = (y * one[2] - z * one[1], z * one[0] - x * one[2], x * one[1] - y * one[0])
        away = [
            math.cos(math.radians(5)) * c
            + math.sin(math.radians(5)) * (math.cos(angle) * a + math.sin(angle) * b)
            for a, b, c in zip(one, two, inside, strict=True)
        ]
        corners.append(
            (
                math.degrees(math.atan2(away[1], away[0])) % 360,
                math.degrees(math.asin(max(-1, min(1, away[2])))),
            )
        )
    region = Region.of("polygon", [value for corner in corners for value in corner])
    planes = []
    for first, second in zip(corners, corners[1:] + corners[:1], strict=True):
        a, b = vector(*first), vector(*second)
        planes.append((a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]))
    hits = 0
    for _ in range(500):
        at = (middle[0] + rng.uniform(-8, 8) / max(0.02, math.cos(math.radians(middle[1])))) % 360, 0.0
        at = at[0], max(-90, min(90, middle[1] + rng.uniform(-8, 8)))
        sides = [sum(p * q for p, q in zip(plane, vector(*at), strict=True)) for plane in planes]
        if min(map(abs, sides)) < 1e-9:
            continue
        expected = all(side > 0 for side in sides) or all(side < 0 for side in sides)
        assert region.holds(*at) == expected
        hits += expected
        if expected:
            low, high, ranges = region.box()
            assert low <= at[1] <= high and any(a <= at[0] <= b for a, b in ranges)
    assert hits > 20


@pytest.mark.parametrize(
    "text",
    [
        "cone(1, 2)",
        "cone(1, 95, 1)",
        "cone(1, 2, -1)",
        "cone(1, 2, 'x')",
        "cone(1, 2, 1e999)",
        "polygon(1, 2, 3, 4)",
    ]
    + [
        "polygon(1, 2, 3, 4, 5)",
        "polygon(0,0, 10,0, 20,0)",
        "polygon(0,0, 120,0, 240,0)",
        "cone(ra_deg, 1, 2)",
    ],
)
def test_a_region_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_regions_take_texts_and_arithmetic() -> None:
    assert parse("cone('13:30:00', '-47:15:00', 5/60 + 0)") == parse(f"cone(202.5, -47.25, {5 / 60!r})")
    corners = "'00:40:00', '+01:00:00', 2*10, 1, 15, -(6-1)"
    assert parse(f"polygon({corners})") == parse("polygon(10, 1, 20, 1, 15, -5)")
    for text in ("cone(1, 2, '0:05:00')", "cone('13:70:00', 2, 1)", "cone(1, 2, 1/0)", "cone(1, 95, 1)"):
        with pytest.raises(UsageError, match="degrees"):
            parse(text)
    with pytest.raises(UsageError, match="in quotes"):
        parse("cone(13:29:52.7, 47, 1)")


def test_cones_find_frames(reduced_store: Store) -> None:
    rows = found([reduced_store], "raw_science", "ra_deg is not null", "path", "ra_deg", "dec_deg")
    assert rows
    ra, dec = rows[0]["ra_deg"], rows[0]["dec_deg"]
    near = [row for row in rows if Region.of("cone", (ra, dec, 0.01)).holds(row["ra_deg"], row["dec_deg"])]
    assert [row["path"] for row in found([reduced_store], "raw_science", f"cone({ra!r}, {dec!r}, 0.01)")] == [
        row["path"] for row in near
    ]
    assert len(found([reduced_store], "raw_science", "not cone(0, 90, 180)")) == 0
    assert found([reduced_store], "reduced", f"raw.cone({ra!r}, {dec!r}, 0.01)")
    assert found([reduced_store], "reduced", f"cone({ra!r}, {dec!r}, 0.01) and flat.imstat.stdev > 0")


# Groups and formats


def test_groups_are_counted_and_measured(reduced_store: Store, run: InProcess) -> None:
    rows = found([reduced_store], "reduced", "", "filter", "sky_adu")
    ran = run(
        "query", "reduced", "--group", "filter", "--get",
        "filter,count,min(sky_adu),max(sky_adu),mean(sky_adu),median(sky_adu),max(obs_start)",
        "--order", "max(sky_adu):desc", "--json",
    )  # fmt: skip
    lines = [json.loads(line) for line in ran.lines]
    assert len(lines) == len({row["filter"] for row in rows}) > 1
    assert lines[0]["max(sky_adu)"] == max(row["sky_adu"] for row in rows)
    for line in lines:
        values = sorted(row["sky_adu"] for row in rows if row["filter"] == line["filter"])
        assert (line["count"], line["min(sky_adu)"], line["max(sky_adu)"]) == (
            len(values),
            values[0],
            values[-1],
        )
        assert line["mean(sky_adu)"] == pytest.approx(sum(values) / len(values))
    assert run("query", "reduced", "--group", "filter", "--limit", "1").lines[1:] != []
    for bad in ("sky_adu", "sum(sky_adu)", "mean(object)", "mean()"):
        ran = run("query", "reduced", "--group", "filter", "--get", bad)
        assert ran.code == 2 and ran.err.startswith("awe-query: usage: "), bad
    assert run("query", "reduced", "--group", "nigt").code == 2


@pytest.mark.parametrize("end", ["csv", "tsv", "json", "vot", "fits"])
def test_no_value_is_changed_by_a_format(
    reduced_store: Store, run: InProcess, end: str, tmp_path: Path
) -> None:
    names = ["path", "night", "sky_adu", "airmass", "bytes", "flat.imstat.stdev", "fringe.frames"]
    path = tmp_path / f"x.{end}"
    ran = run("query", "reduced", "--get", ",".join(names), "-o", path)
    assert ran.code == 0 and ran.lines == [str(path)], ran.err
    rows = found([reduced_store], "reduced", "", *names)
    if end in ("vot", "fits"):
        from astropy.table import Table

        table = Table.read(path)
        assert str(table["sky_adu"].unit) == "adu"
        for name in names[:-1]:
            assert list(table[name]) == [row[name] for row in rows], name
        return
    if end == "json":
        assert [json.loads(line) for line in path.read_text().splitlines()] == rows
        return
    import csv

    read = list(csv.DictReader(path.read_text().splitlines(), delimiter="," if end == "csv" else "\t"))
    for name in ("sky_adu", "airmass", "flat.imstat.stdev"):
        assert [float(one[name]) for one in read] == [row[name] for row in rows]
    assert [one["path"] for one in read] == [row["path"] for row in rows]


def test_an_output_is_not_written_over_a_product(reduced_store: Store, run: InProcess) -> None:
    bias = found([reduced_store], "bias", "")[0]["path"]
    ran = run("query", "reduced", "-o", bias)
    assert ran.code == 2 and "would-overwrite" in ran.err
    assert run("query", "reduced", "-o", "x.doc").code == 2
    assert run("query", "reduced", "object='none'", "-o", "x.csv").code == 5 and not Path("x.csv").exists()


def test_what_makes_no_sense_is_refused_in_words(reduced_store: Store, run: InProcess) -> None:
    for words, said in (
        (["--get", "path,path"], "two columns are called 'path'"),
        (["--group", "filter", "--get", "filter,filter"], "two columns are called 'filter'"),
        (["--format", "csv", "-0"], "-0 is for names"),
        ([""], "a condition is empty"),
        (["object", "like", "M51*"], "quote it"),
        (["flat = 'x'"], "flat is a link: compare one of its attributes, such as flat.path"),
    ):
        ran = run("query", "reduced", *words)
        assert ran.code == 2 and said in ran.err and not ran.out, (words, ran.err)
    (night,) = {row["night"] for row in found([reduced_store], "reduced", "", "night")}
    written = f"it is written YYYY-MM-DD (there is: {night})"
    for word in (f"night={night.replace('-', '')}", "date=2017-3-2", "night>20990302", "night=2031-01-01"):
        ran = run("query", "reduced", word)
        assert ran.code == 5 and written in ran.err and not ran.out, (word, ran.err)
    assert "no filter" not in run("query", "reduced", "filter=*", "sky_adu<-1e9").err
    assert run("query", "reduced", "object=x or " * 1000 + "object=x").err.count("object") < 100
    assert len(run("query", "reduced", "--group", "wcs", "--get", "wcs,count").lines) > 1
    shown = run("query", "reduced", "--get", "path,filter", "-0").out
    assert shown.count("\0") == len(found([reduced_store], "reduced", "")) and "\n" not in shown


def test_a_star_is_all_fields_of_a_kind(reduced_store: Store, run: InProcess, tmp_path: Path) -> None:
    (first, *_) = [
        json.loads(line) for line in run("query", "reduced", "--get", "*,flat.path", "--json").lines
    ]
    fields = [line.split("\t")[:2] for line in run("query", "reduced", "--fields").lines]
    assert list(first) == [name for name, what in fields if what not in ("link", "links")] + ["flat.path"]
    for name in ("all.vot", "all.fits", "all.csv"):
        assert run("query", "reduced", "--get", "*", "-o", tmp_path / name).code == 0


# SQL


def test_infinity_is_a_number_in_json_and_columns_have_names(reduced_store: Store, run: InProcess) -> None:
    ran = run("sql", "SELECT 1e400 AS a, -1e400 AS b, 'Infinity' AS c, NULL AS d", "--json")
    assert "Infinity," not in ran.out
    assert json.loads(ran.out) == {"a": math.inf, "b": -math.inf, "c": "Infinity", "d": None}
    for text, form in (("SELECT 1 AS ''", "csv"), ("SELECT 1 AS a, 2 AS A", "fits")):
        ran = run("sql", text, "--format", form)
        assert ran.code == 2 and "column" in ran.err and "AS NAME" in ran.err
    for number in ("nan", "inf", "-1"):
        assert run("sql", "--timeout", number, "SELECT 1").code == 2
    assert "\x1b" not in run("sql", "SELECT char(27) || '[31m' AS a").out


def test_sql_is_asked_on_views_and_changes_nothing(reduced_store: Store, run: InProcess) -> None:
    rows = found([reduced_store], "reduced", "", "path", "sky_adu", order=("path",))
    ran = run(
        "sql",
        "SELECT path, value FROM measures WHERE name = 'sky_adu' AND kind = 'reduced' ORDER BY path",
        "--json",
    )
    assert [tuple(json.loads(line).values()) for line in ran.lines] == [
        (row["path"], row["sky_adu"]) for row in rows
    ]
    (name,) = run("sql", "SELECT filename FROM products WHERE kind = 'reduced' ORDER BY path LIMIT 1").lines[
        1:
    ]
    assert name == Path(rows[0]["path"]).name
    assert run("sql", "SELECT count(*) AS n FROM raws").lines == [
        "n",
        str(len(found([reduced_store], "raw", ""))),
    ]
    listed = [line.split("\t")[:2] for line in run("sql", "--views").lines[1:]]
    for view in {view for view, _ in listed}:
        names = ", ".join(name for one, name in listed if one == view)
        assert run("sql", f"SELECT {names} FROM {view}").code in (0, 5)
    before = reduced_store.index_path.read_bytes()
    for text, said in (
        ("ATTACH 'x' AS y", "ATTACH"),
        ("PRAGMA query_only = OFF", "PRAGMA"),
        ("SELECT load_extension('x')", "load_extension"),
        ("CREATE TEMP TABLE x (y)", "not allowed"),
        ("DELETE FROM verdicts", "DELETE"),
        ("UPDATE s0.objects SET kind = 'x'", "UPDATE"),
        ("DROP VIEW products", "not allowed"),
        ("VACUUM INTO 'x'", "ATTACH"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT zeroblob(2000000000)", "too big"),
        ("SELECT * FROM prodcts", "prodcts (nearest: products)"),
        ("SELECT p.file_name FROM products AS p", "p.file_name (nearest: filename)"),
        ("SELECT 1 AS a, 2 AS a", "two columns"),
        ("", "no SQL"),
        ("BEGIN", "not allowed"),
    ):
        ran = run("sql", text)
        assert ran.code == 2 and said in ran.err and not ran.out, (text, ran.err)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    ran = run("sql", "--timeout", "0.2", endless)
    assert ran.code == 7 and "no answer within 0.2 s" in ran.err
    assert reduced_store.index_path.read_bytes() == before and not Path("x").exists()


def test_a_long_answer_into_head_ends_at_once(reduced_store: Store) -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
    script = f"{sys.executable} -m awetools sql '{endless}' | head -n 2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout.split() == ["x", "1", "141"], done.stderr
