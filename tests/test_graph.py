"""The graph of needs: its keys are those of the makers, and it sees exactly what hangs on what changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadValue, NoMatch
from awetools.core.files import parse_address
from awetools.core.indexing.index import rebuild
from awetools.core.journal import append_verdict
from awetools.core.kind import Kind, Need, kind_named
from awetools.core.kinds import BIAS, FLAT, KINDS, REDUCED
from awetools.core.planning.campaign import Demand, Survey, check_kinds, everything_below, survey
from awetools.core.planning.filling import Wish
from awetools.core.planning.graph import View
from awetools.core.planning.nodes import Node, distances, label
from awetools.core.planning.plan import make_plan
from awetools.core.planning.reasons import reasons_of
from awetools.core.planning.tree import lines_of
from awetools.core.products import open_product
from awetools.core.raws import open_raw
from awetools.core.record import read_record, sidecar
from awetools.core.simulate import NightSpec
from awetools.core.store import Store, init_store
from awetools.core.workspace import Workspace, here
from tests.support import ON_SKY, InProcess, awe, data_path, program

# The frames are so small that objects cover most of some.
CROWDED: Mapping[str, Mapping[str, object]] = {
    "nightflat": {"max_masked_fraction": 1.0},
    "fringe": {"max_masked_fraction": 1.0},
}
SETS = [f"--set={kind}.{name}={value}" for kind, one in CROWDED.items() for name, value in one.items()]
SMALL = [kind for kind in KINDS if kind.name not in ON_SKY]
SHAPE = (128, 160)
# The store is as it was after each example; a survey is too slow to shrink by.
FEW = settings(
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every kind of product of a small night, and one frame of another night without calibrations."""
    from awetools.core.simulate.night import simulate_night

    base = tmp_path_factory.mktemp("full")
    simulate_night(
        base / "first",
        NightSpec(detectors=1, exposures=3, biases=4, flats=4, twilights=3, darks=3, shape=SHAPE, seed=5),
    )
    simulate_night(
        base / "second",
        NightSpec(
            detectors=1,
            exposures=1,
            biases=0,
            flats=0,
            twilights=0,
            darks=0,
            shape=SHAPE,
            seed=5,
            night="2024-03-05",
        ),
    )
    root = init_store(base / "store").root
    awe("ingest", "-q", base / "first" / "raw", base / "second" / "raw", cwd=root)
    # Flats and reduced frames use a night flat and a fringe map that exist, and make none for it.
    for kind in ("nightflat", "fringe", "sources"):
        ran = program("make", "-q", kind, "night=2024-03-02", *SETS, cwd=root)
        assert ran.code == 0, ran.err
    return root


@pytest.fixture
def store(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own with all that was made; the working directory."""
    root = tmp_path / "store"
    shutil.copytree(full, root, symlinks=True)
    rebuild(Store(root))
    monkeypatch.chdir(root)
    return Store(root)


def looked(
    words: Sequence[str] = ("night=2024-03-02",), kind: Kind = REDUCED, view: View | None = None
) -> Survey:
    return survey(Demand(kind, words), view or View(sets=CROWDED), here(), KINDS)


def maker_key(node: Node, workspace: Workspace, sets: Mapping[str, Mapping[str, object]]) -> str:
    """The key that the maker's own planning gives to what a node is given."""
    primary: list[object] = []
    for one in node.given:
        if isinstance(one, Node):
            assert one.item is not None
            primary.append(open_product(Path(one.item.address)))
            continue
        for raw in open_raw(parse_address(one.address), workspace):
            if raw.fits is not None:
                raw.fits.close()
            primary.append(raw)
    wish = Wish({}, parameters=sets.get(node.kind.name, {}))
    return make_plan(node.kind, primary, wish, workspace, KINDS).key  # type: ignore[arg-type]


# Keys


def test_every_key_is_that_of_the_maker(store: Store) -> None:
    workspace = here()
    seen = set()
    for kind in SMALL:
        found = looked(kind=kind)
        for node in everything_below(found.targets):
            assert node.state == "fresh", (label(node), node.state, node.error)
            assert node.item is not None and node.item.recipe_key == node.key
            if node.kind is kind:
                assert node.key == maker_key(node, workspace, CROWDED), label(node)
                seen.add(kind.name)
    assert seen == {kind.name for kind in SMALL}


def test_a_maker_that_is_given_the_same_says_up_to_date(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    run = InProcess(capfd)
    raws = {"hotpix": "dark", "coldpix": "domeflat", "flat": "domeflat"}
    for kind in SMALL:
        source = raws.get(kind.name, kind.primary.kind)
        options = [
            f"--{name.replace('_', '-')}={value}" for name, value in CROWDED.get(kind.name, {}).items()
        ]
        given = run("query", source, "night=2024-03-02").lines
        ran = run(kind.command.removeprefix("awe-"), "--check", *options, *given)
        assert given and ran.code == 0, (kind.name, ran.err)
        ran = run(kind.command.removeprefix("awe-"), "-u", *options, *given)
        assert ran.code == 0 and "up to date" in ran.err and "made" not in ran.err, (kind.name, ran.err)


@pytest.fixture(scope="module")
def warm_and_cold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real night of the STL-1001 with its biases and darks of two temperatures, all that can be made of it."""
    root = init_store(tmp_path_factory.mktemp("stl") / "store").root
    folder = data_path("stl1001-calib-20170908")
    awe("ingest", "-q", *sorted(folder.glob("bias/*")), *sorted(folder.glob("dark/*Neg10*")), cwd=root)
    awe(
        "ingest",
        "-q",
        *sorted(folder.glob("dark/*60s-Neg5*")),
        *sorted(folder.glob("dark/*[13]0s-Neg5*")),
        cwd=root,
    )
    ran = program("make", "dark", cwd=root)
    # Three frames are too few of the colder ones: that is said, and the others are made.
    assert ran.code == 5 and "needs at least 3 raw_dark, not 2" in ran.err
    assert len(ran.lines) == 1
    return root


def test_darks_of_two_temperatures(warm_and_cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(warm_and_cold)
    darks = {node.get("temperature_set_c"): node for node in looked((), kind_named(KINDS, "dark")).targets}
    assert (darks[-5].state, darks[-10].state) == ("fresh", "blocked")
    biases = looked((), BIAS).targets
    assert {node.get("temperature_set_c"): node.state for node in biases} == {-5: "fresh", -10: "missing"}
    for node in everything_below([darks[-5]]):
        assert node.state == "fresh" and node.key == maker_key(node, here(), {})
        assert node.get("temperature_set_c") == -5
    used = {label(node) for node in everything_below([darks[-5]])}
    assert len(used) == 3, "dark, bias and read noise of one temperature"


def test_detectors_of_several_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real frame of four amplifiers, with biases and flats made in its image."""
    from astropy.io import fits

    real = data_path("single-frames/lco-sinistro-raw-mef-20211007.fits.gz")
    rng = np.random.default_rng(3)
    root = init_store(tmp_path / "store").root
    with fits.open(real) as frame:
        for number in range(6):
            kind = "BIAS" if number < 3 else "LAMPFLAT"
            frame[0].header["OBSTYPE"] = kind
            frame[0].header["EXPTIME"] = 0.0 if kind == "BIAS" else 20.0
            frame[0].header["DATE-OBS"] = f"2021-10-08T00:0{number}:00.000"
            for amplifier in frame[1:]:
                level = np.full((522, 544), 2500.0)
                if kind != "BIAS":
                    level[:512, :512] += 20000.0 + 1000 * (number // 5)
                noise = np.sqrt(np.maximum(level - 2500, 0) / 6.3 + 1.5)
                amplifier.data = (level + noise * rng.standard_normal(level.shape)).astype(np.uint16)
            frame.writeto(tmp_path / f"{number}.fits", checksum=True)
    awe("ingest", "-q", real, *tmp_path.glob("*.fits"), cwd=root)
    ran = program("make", "reduced", cwd=root)
    assert ran.code == 0, ran.err
    monkeypatch.chdir(root)
    found = looked(())
    for node in everything_below(found.targets):
        assert node.state == "fresh", (label(node), node.error)
        assert node.key == maker_key(node, here(), {}), label(node)
    detector = found.targets[0].get("detector")
    ran = program("make", "reduced", f"{real}[{detector}]", "--check", cwd=root)
    assert ran.code == 0, ran.err
    ran = program("make", "reduced", f"{real}[ccd9]", "-n", cwd=root)
    assert ran.code == 5 and "ccd9" in ran.err


def test_frames_without_calibrations_are_refused_as_the_maker_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = init_store(tmp_path / "store").root
    awe("ingest", "-q", data_path("microobs-hatp32-20171220"), cwd=root)
    monkeypatch.chdir(root)
    found = looked(())
    assert len(found.targets) == 36 and not found.to_make
    for node in found.targets[:3]:
        assert node.state == "blocked" and isinstance(node.error, NoMatch)
        assert "no bias for ccd" in node.error.message and "no flat for ccd" in node.error.message
        with pytest.raises(NoMatch, match=r"no flat.*no bias|no bias.*no flat"):
            maker_key(node, here(), {})


# What hangs on what


def descendants(store: Store, contents: set[str]) -> set[str]:
    """The products that records say were made, at any remove, of inputs with these contents: by their paths."""
    records = {path: read_record(sidecar(path)) for path in store.root.glob("*/*/*.fits")}
    found: set[str] = set()
    while True:
        more = {
            str(path)
            for path, record in records.items()
            if str(path) not in found
            and any(one["content"] in contents for one in record["recipe"]["inputs"])
        }
        if not more:
            return found
        found |= more
        contents = contents | {records[Path(one)]["product"]["content"] for one in more}


@contextmanager
def away(paths: Sequence[Path]) -> Iterator[None]:
    """While this is in force, some products are not there."""
    for path in paths:
        path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        for path in paths:
            path.with_suffix(".away").rename(path)


@settings(FEW, max_examples=25)
@given(data=st.data())
def test_what_was_removed_and_all_that_hangs_on_it_is_made_again(store: Store, data: st.DataObject) -> None:
    """But for what is filled on request, which is then done without, or has to be asked for."""
    requested = {"nightflat", "fringe"}
    paths = sorted(one for one in store.root.glob("*/*/*.fits") if one.parts[-3] not in requested)
    gone = data.draw(st.lists(st.sampled_from(paths), unique=True, min_size=1, max_size=4))
    hanging = descendants(store, {open_product(path).content for path in gone})
    with away(gone):
        found = survey(Demand(None, (), outdated=True), View(sets=CROWDED), here(), KINDS)
        names = {_name_of(node) for node in found.to_make}
    assert names == {_record_name(path) for path in {*map(str, gone), *hanging}}


def _name_of(node: Node) -> tuple[str, ...]:
    return node.kind.name, str(node.get("night")), str(node.get("filter")), str(node.get("exposure"))


def _record_name(path: str) -> tuple[str, ...]:
    """A product as `_name_of` names it; the record stays where its file is gone."""
    kind, meta = Path(path).parts[-3], read_record(sidecar(Path(path)))["meta"]
    return kind, str(meta.get("night")), str(meta.get("filter")), str(meta.get("exposure"))


@settings(FEW, max_examples=20)
@given(number=st.integers(0, 200))
def test_a_frame_judged_bad_touches_what_was_made_of_it_and_nothing_else(store: Store, number: int) -> None:
    rows = [json.loads(line) for line in _raws(store)]
    row = rows[number % len(rows)]
    hanging = {_record_name(path) for path in descendants(store, {row["content"]})}
    append_verdict(store, row["content"], "bad", "a test", "somebody")
    try:
        found = survey(Demand(None, (), outdated=True), View(sets=CROWDED), here(), KINDS)
        touched = {_name_of(node) for node in (*found.to_make, *found.blocked)}
        if row["kind"] == "raw_science":
            # What was made of it alone is nobody's target any more.
            hanging -= {name for name in hanging if name[0] in ("reduced", "sources")} - touched
        assert touched == hanging, row["path"]
    finally:
        append_verdict(store, row["content"], "none", "a test", "somebody")
    assert not survey(Demand(None, (), outdated=True), View(sets=CROWDED), here(), KINDS).targets


_ROWS: dict[Path, list[str]] = {}


def _raws(store: Store) -> list[str]:
    if store.root not in _ROWS:
        text = awe("query", "raw", "night=2024-03-02", "--get", "path,content,kind", "--json", cwd=store.root)
        _ROWS[store.root] = text.splitlines()
    return _ROWS[store.root]


@settings(FEW, max_examples=15)
@given(kinds=st.sets(st.sampled_from([kind.name for kind in KINDS]), min_size=1, max_size=3))
def test_a_changed_parameter_touches_that_kind_and_what_hangs_on_it(store: Store, kinds: set[str]) -> None:
    from awetools.core.params import params_of

    sets = {name: dict(values) for name, values in CROWDED.items()}
    for name in kinds:
        one = next((one for one in params_of(kind_named(KINDS, name).params) if one.type is float), None)
        if one is not None:
            low = sets.setdefault(name, {}).get(one.name, one.default)
            sets[name][one.name] = float(low) * 1.0078125  # type: ignore[arg-type]
    kinds = {
        name for name in kinds if any(one.type is float for one in params_of(kind_named(KINDS, name).params))
    }
    paths = [one for one in store.root.glob("*/*/*.fits") if one.parts[-3] in kinds]
    hanging = descendants(store, {open_product(path).content for path in paths})
    found = survey(Demand(None, (), outdated=True), View(sets=sets), here(), KINDS)
    changed = {_name_of(node) for node in found.to_make}
    assert changed == {_record_name(str(path)) for path in {*map(str, paths), *hanging}}
    for node in found.to_make:
        names = {one.name for one in reasons_of(found.graph, node)}
        assert ("parameters" in names) == (node.kind.name in kinds), (label(node), names)


def test_each_node_is_there_once_however_many_ask(store: Store) -> None:
    found = looked()
    nodes = everything_below(found.targets)
    assert len({label(node) for node in nodes}) == len(nodes)
    flats = [one for node in found.targets for role, one in node.needs() if role == "flat"]
    assert len(flats) == 3 and len(set(flats)) == 1
    lines = list(lines_of(found.graph, found.targets))
    assert sum("(above)" not in line.text for line in lines if line.node is flats[0]) == 1


def test_what_is_as_it_was_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what a maker found up to date and gave a new time."""
    from awetools.core.planning import graph

    read: list[Path] = []
    real = graph._read_state
    monkeypatch.setattr(graph, "_read_state", lambda path, item: read.append(path) or real(path, item))
    assert not looked().to_make and not read
    assert program("make", "-q", "reduced", "night=2024-03-02", "--remake", "domeflat", *SETS).code == 0
    assert not looked().to_make and not read
    (flat,) = store.root.glob("flat/*/*.fits")
    flat.touch()
    assert not looked().to_make and read == [flat]


def test_a_file_packed_otherwise_is_the_same_frame(store: Store) -> None:
    """The path and the packing of a raw frame are no part of any key."""
    import gzip

    (path,) = awe("query", "raw_science", "night=2024-03-05", cwd=store.root).splitlines()
    other = store.root / "elsewhere.fits.gz"
    other.write_bytes(gzip.compress(Path(path).read_bytes()))
    before = {node.key for node in looked().targets}
    awe("ingest", "-q", other, cwd=store.root)
    assert {node.key for node in looked().targets} == before
    assert len(looked(("night=2024-03-05",)).targets) == 1, "two copies of one frame are one target"


# The nearest calibration


def test_no_calibration_of_that_night_says_what_is_missing_and_the_nearest(store: Store) -> None:
    ran = program("make", "reduced", "night=2024-03-05", cwd=store.root)
    assert ran.code == 5 and ran.out == ""
    assert (
        "no bias for sim1 and the night 2024-03-05: there is no raw_bias of it" in ran.err
        and "there is no raw_domeflat of it" in ran.err
    )
    assert "nearest: bias 2024-03-02 sim1, 3 nights away" in ran.err
    assert "--allow-nearest 3" in ran.err and "awe-ingest the raw_bias of 2024-03-05" in ran.err
    ran = program("make", "reduced", "night=2024-03-05", "--allow-nearest", 2, cwd=store.root)
    assert ran.code == 5


def test_the_nearest_is_used_when_allowed_and_goes_on_record(store: Store) -> None:
    ran = program("make", "reduced", "night=2024-03-05", "--allow-nearest", 3, "--json", cwd=store.root)
    assert ran.code == 0, ran.err
    (made,) = map(json.loads, ran.lines)
    record = read_record(sidecar(Path(made["path"])))
    assert record["meta"]["calibration_nights_away"] == 3
    away = {one["role"]: one.get("nights_away", 0) for one in record["recipe"]["inputs"]}
    assert away["bias"] == away["flat"] == 3 and away["raw"] == 0
    found = awe("query", "reduced", "calibration_nights_away>0", cwd=store.root).splitlines()
    assert found == [made["path"]]
    # Asked the same again it is there; what was allowed for a product once stays allowed for it.
    assert (
        program("make", "reduced", "night=2024-03-05", "--allow-nearest=3", "--check", cwd=store.root).code
        == 0
    )
    assert program("make", "reduced", "night=2024-03-05", "--check", cwd=store.root).code == 0
    # Frames that have calibrations of their night get these, whatever is allowed.
    ran = program(
        "make", "reduced", "night=2024-03-02", "--allow-nearest", 9, "--check", *SETS, cwd=store.root
    )
    assert ran.code == 0, ran.err


# Declarations


def test_needs_in_a_circle_are_refused() -> None:
    bias = replace(BIAS, needs=(*BIAS.needs, Need("flat", "flat", FLAT.needs[0].select)))
    kinds = [bias if one is BIAS else one for one in KINDS]
    with pytest.raises(BadValue, match=r"circle: (\w+ -> )+\w+") as error:
        check_kinds(kinds)
    names = error.value.message.partition("circle: ")[2].split(" -> ")
    assert names[0] == names[-1] and {"bias", "flat"} <= set(names)
    itself = replace(BIAS, needs=(*BIAS.needs, Need("other", "bias", BIAS.needs[1].select)))
    with pytest.raises(BadValue, match="circle: bias -> bias"):
        check_kinds([itself if one is BIAS else one for one in KINDS])


@pytest.mark.parametrize(
    ("name", "value"), [("name", "bias"), ("command", "awe-bias"), ("class_name", "Bias")]
)
def test_two_kinds_with_one_name_are_refused(name: str, value: str) -> None:
    double = replace(FLAT, **{name: value})
    with pytest.raises(BadValue, match=f"two kinds claim .*{value}"):
        check_kinds([*(one for one in KINDS if one is not FLAT), double])


def test_the_declared_kinds_are_sound_and_have_distances() -> None:
    check_kinds(KINDS)
    steps = distances(KINDS, [REDUCED])
    assert steps["reduced"] == 0 and steps["flat"] == steps["bias"] == 1
    assert steps["domeflat"] == 2 and "twiflat" in steps


def test_a_command_over_declarations_in_a_circle_refuses(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bias = replace(BIAS, needs=(*BIAS.needs, Need("flat", "flat", FLAT.needs[0].select)))
    kinds = tuple(bias if one is BIAS else one for one in KINDS)
    with pytest.raises(BadValue, match="circle"):
        survey(Demand(REDUCED, ()), View(), here(), kinds)
