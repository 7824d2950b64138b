"""awe-make on real frames: everything from raw, nothing twice, and every reason to make something again by its name."""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from awetools.core.indexing.index import rebuild
from awetools.core.journal import append_verdict
from awetools.core.products import open_product
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, init_store
from tests.support import ROOT, InProcess, Ran, awe, data_path, program

NIGHT = " 2017-03-02 loral"
SHARED = {"readnoise", "bias", "gain", "hotpix"}
CHAIN_R = {"domeflat R", "coldpix R", "flat R"}
CHAIN_V = {"domeflat V", "coldpix V", "flat V"}
FRAMES_R = {f"reduced R d{number}" for number in (1120, 1123, 1126)}
FRAMES_V = {f"reduced V d{number}" for number in (1121, 1124)}
REDUCED = FRAMES_R | FRAMES_V
ALL = SHARED | CHAIN_R | CHAIN_V | REDUCED
SCIENCE = {"d1120", "d1121", "d1123", "d1124", "d1126"}
# Not registered at first: a bias that is found late.
LATE = "d1009.fits.fz"


@dataclass(frozen=True)
class Night:
    """A store in which one command made everything from copies of raw frames, and what that command said."""

    root: Path
    raw: Path
    first: Ran


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """The M51 frames of the Nickel night in R and V, reduced by one command."""
    source, base = data_path("nickel-20170302"), tmp_path_factory.mktemp("nickel")
    for path in sorted(source.glob("*/d*.fits*")):
        name = path.name.partition(".")[0]
        if path.parent.name != "science" or name in SCIENCE:
            folder = base / ("late" if path.name == LATE else "raw") / path.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path.name)
    root = init_store(base / "store").root
    awe("ingest", "-q", base / "raw", cwd=root)
    return Night(root, base / "raw", program("make", "reduced", cwd=root))


@pytest.fixture
def store(night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own with all that was made; the working directory."""
    return copied(night.root, tmp_path / "store", monkeypatch)


def copied(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of a store; the products are links, which nothing writes to in place."""
    shutil.copytree(source, root, copy_function=_link_product, symlinks=True)
    store = Store(root.resolve())
    rebuild(store)
    monkeypatch.chdir(root)
    return store


def _link_product(source: str, target: str) -> None:
    (os.link if source.endswith(".fits") else shutil.copy2)(source, target)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Iterator[InProcess]:
    yield InProcess(capfd)
    gc.unfreeze()
    gc.enable()


@pytest.fixture
def frame(night: Night) -> Iterator[Callable[[str], Path]]:
    """A raw frame by its name, which is put back as it was, to the nanosecond and inode, after the test."""
    before: dict[Path, tuple[bytes, os.stat_result]] = {}

    def named(name: str) -> Path:
        (path,) = night.raw.glob(f"*/{name}*")
        before[path] = path.read_bytes(), path.stat()
        return path

    yield named
    for path, (data, stat) in before.items():
        away = path.with_name(path.name + ".away")
        if away.exists():
            away.rename(path)
        path.write_bytes(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def short(label: str) -> str:
    return label.replace(NIGHT, "")


def reasons(run: InProcess, *arguments: object, code: int = 0) -> dict[str, set[str]]:
    """What would be made, and the names of the reasons."""
    ran = run("make", *arguments, "--why", "--json")
    assert ran.code == code, ran.err
    found = [json.loads(line) for line in ran.lines]
    return {short(one["label"]): {why["reason"] for why in one["reasons"]} for one in found}


def states(run: InProcess, *arguments: object) -> dict[str, str]:
    ran = run("make", *arguments, "--tree", "--json")
    assert ran.code == 0, ran.err
    return {short(one["label"]): one["state"] for one in map(json.loads, ran.lines)}


def made(ran: Ran, code: int = 0) -> dict[str, str]:
    """What a run of awe-make --json did with its targets."""
    assert ran.code == code, ran.err
    return {short(one["label"]): one["action"] for one in map(json.loads, ran.lines)}


def products(root: Path) -> dict[str, str]:
    """Each product with when its recipe was run: later if it was made again."""
    return {
        str(path.relative_to(root)): str(read_record(sidecar(path))["run"]["start"])
        for path in root.rglob("*.fits")
    }


def kinds_of(paths: object) -> list[str]:
    return sorted(str(path).partition("/")[0] for path in paths)  # type: ignore[attr-defined]


def product(kind: str, name: str = "") -> Path:
    (path,) = (one for one in Path(kind).rglob("*.fits") if name in one.name)
    return path


def content(path: Path) -> str:
    return open_product(path).content


def flip(path: Path, offset: int = -2881) -> None:
    """Change one bit of a file, which gets another time; a link to it stays as it was."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    if path.stat().st_nlink > 1:
        path.unlink()
    path.write_bytes(bytes(data))


def judge(store: Store, identity: str, verdict: str = "bad") -> None:
    append_verdict(store, identity, verdict, "a test", "somebody")


def content_of_raw(name: str) -> str:
    (row,) = awe("query", "raw", "--get", "path,content", "--json", f"path like '*{name}*'").splitlines()
    return str(json.loads(row)["content"])


# Everything, and nothing twice


def test_one_command_makes_everything_from_raw_frames(night: Night) -> None:
    assert night.first.code == 0, night.first.err
    assert [Path(line).name.split("-")[0] for line in night.first.lines] == [
        "loral_R_d1120",
        "loral_V_d1121",
        "loral_R_d1123",
        "loral_V_d1124",
        "loral_R_d1126",
    ]
    assert all(Path(line).is_file() for line in night.first.lines)
    assert kinds_of(products(night.root)) == sorted(one.partition(" ")[0] for one in ALL)
    assert f"{len(ALL)} made" in night.first.err
    assert not (night.root / ".awe" / "runs").exists(), "of a run that went well nothing is kept"


def test_asking_again_makes_nothing(night: Night, store: Store, run: InProcess) -> None:
    before = products(store.root)
    ran = program("make", "reduced")
    assert ran.code == 0 and "5 up to date" in ran.err and "making" not in ran.err
    assert [Path(one).name for one in ran.lines] == [Path(one).name for one in night.first.lines]
    assert products(store.root) == before
    assert set(states(run, "reduced").values()) == {"fresh"}
    assert run("make", "reduced", "--check").code == 0
    assert run("make", "--outdated", "-n").out == ""


def test_the_maker_itself_says_that_all_is_up_to_date(store: Store, run: InProcess) -> None:
    science = awe("query", "raw_science")
    ran = program("reduce", "-u", "--why", stdin=science)
    assert ran.code == 0 and all(line.endswith("\tup to date") for line in ran.lines), ran.out
    for kind, *asked in (
        ("bias", "raw_bias"),
        ("gain", "raw_domeflat"),
        ("domeflat", "raw_domeflat", "filter=R,V"),
        ("flat", "domeflat"),
    ):
        assert run(kind, "--check", *awe("query", *asked).splitlines()).code == 0


def test_one_raw_bias_judged_bad_remakes_what_depends_on_it(store: Store, run: InProcess) -> None:
    identity = content_of_raw("d1003")
    before = products(store.root)
    judge(store, identity)
    found = reasons(run, "reduced")
    assert set(found) == ALL
    assert found["readnoise"] == {"members"} and found["bias"] == {"members", "upstream"}
    assert all(found[one] == {"upstream"} for one in ALL - {"readnoise", "bias"})
    ran = program("make", "reduced", "exposure=d1120", "--json")
    assert made(ran) == {"reduced R d1120": "made"}
    assert "8 made" in ran.err
    more = set(products(store.root)) - set(before)
    assert kinds_of(more) == sorted(SHARED | {"domeflat", "coldpix", "flat", "reduced"})
    assert {one: products(store.root)[one] for one in before} == before
    assert reasons(run, "reduced", "exposure=d1120") == {}
    record = read_record(sidecar(max(Path("bias").rglob("*.fits"), key=lambda one: one.stat().st_mtime_ns)))
    assert len(record["recipe"]["inputs"]) == 8 + 1
    # Taken back, the products of before are those that are asked for: their keys never changed.
    judge(store, identity, "none")
    assert reasons(run, "reduced") == {}


def test_a_parameter_changes_exactly_what_hangs_on_it(store: Store, run: InProcess) -> None:
    given = ("--set", "bias.clip_sigma=4")
    found = reasons(run, "reduced", *given)
    assert set(found) == ALL - {"readnoise"}
    assert found["bias"] == {"parameters"}
    assert all(found[one] == {"upstream"} for one in ALL - {"readnoise", "bias"})
    ran = program("make", "reduced", "exposure=d1120", *given)
    assert ran.code == 0 and "7 made" in ran.err, ran.err
    (path,) = map(Path, ran.lines)
    (bias,) = [one for one in read_record(sidecar(path))["recipe"]["inputs"] if one["role"] == "bias"]
    used = open_product(store.root / "bias" / "2017-03-02" / Path(bias["path"]).name)
    assert used.record["recipe"]["parameters"]["clip_sigma"]["value"] == 4
    assert reasons(run, "reduced", "exposure=d1120", *given) == {}
    assert reasons(run, "reduced") == {}
    ran = run("make", "reduced", "exposure=d1120")
    assert ran.code == 0 and ran.lines != [str(path)]


def test_a_parameter_that_is_what_it_was_changes_nothing(store: Store, run: InProcess) -> None:
    assert reasons(run, "reduced", "--set", "bias.clip_sigma=3.0", "--set", "domeflat.clip_sigma=5") != {}
    assert reasons(run, "reduced", "--set", "bias.clip_sigma=3.0") == {}


# Reasons

# awe-make of a version in which the recipe of coldpix has another revision.
RAISED = """
from dataclasses import replace
from awetools.core import kinds
from awetools.commands import coldpix, make
from awetools.commands.maker import maker

raised = replace(kinds.COLDPIX, revision=kinds.COLDPIX.revision + 1)
kinds.KINDS = tuple(raised if one is kinds.COLDPIX else one for one in kinds.KINDS)
coldpix.command = maker(raised)
make.main()
"""


def test_missing(store: Store, run: InProcess) -> None:
    path = product("reduced", "d1120")
    before = content(path)
    path.unlink()
    assert reasons(run, "reduced") == {"reduced R d1120": {"missing"}}
    assert run("make", "reduced", "--check").code == 3
    ran = program("make", "reduced", "--json")
    assert made(ran).pop("reduced R d1120") == "made"
    assert content(path) == before and "1 made, 4 up to date" in ran.err


def test_a_remade_input_with_equal_content_leaves_what_hangs_on_it_fresh(
    store: Store, run: InProcess
) -> None:
    flat = product("flat", "R-")
    before, was = products(store.root), content(flat)
    flat.unlink()
    found = reasons(run, "reduced")
    assert found == {"flat R": {"missing"}, **{key: {"upstream"} for key in FRAMES_R}}
    assert made(program("make", "reduced", "--json")) == dict.fromkeys(REDUCED, "up-to-date")
    after = products(store.root)
    name = str(flat)
    assert content(flat) == was and after.pop(name) != before.pop(name)
    assert after == before


def test_remade_on_request_with_equal_content_nothing_else_is(store: Store, run: InProcess) -> None:
    before = products(store.root)
    contents = {name: content(Path(name)) for name in before}
    found = reasons(run, "reduced", "filter=R", "--remake", "domeflat")
    assert found.pop("domeflat R") == {"remake"}
    assert set(found) == {"coldpix R", "flat R", *FRAMES_R}
    ran = program("make", "reduced", "filter=R", "--remake", "domeflat", "--json")
    assert made(ran) == dict.fromkeys(FRAMES_R, "up-to-date")
    after = products(store.root)
    written = {name for name in after if after[name] != before.get(name)}
    assert written == {str(product("domeflat", "R-"))}
    assert {name: content(Path(name)) for name in after} == contents
    assert "1 made, 5 up to date" in ran.err, ran.err


def test_edited_is_blocked_and_remade_only_with_force(store: Store, run: InProcess) -> None:
    flat = product("flat", "R-")
    before = content(flat)
    flip(flat)
    ran = run("make", "reduced", "--why")
    assert ran.code == 5 and ran.out == ""
    assert str(flat.absolute()) in ran.err and "was edited" in ran.err and "try: --force" in ran.err
    found = states(run, "reduced")
    assert {one for one, state in found.items() if state == "blocked"} == FRAMES_R
    ran = program("make", "reduced", "--json")
    assert {one for one, action in made(ran, 5).items() if action == "up-to-date"} == FRAMES_V
    forced = reasons(run, "reduced", "--force")
    assert forced == {"flat R": {"edited"}, **{key: {"upstream"} for key in FRAMES_R}}
    ran = program("make", "reduced", "--force", "--json")
    assert made(ran) == dict.fromkeys(REDUCED, "up-to-date")
    assert content(flat) == before and reasons(run, "reduced") == {}


def test_an_edited_target_is_named(store: Store, run: InProcess) -> None:
    path = product("reduced", "d1123")
    flip(path)
    ran = run("make", "reduced", "exposure=d1123")
    assert ran.code == 5 and path.name in ran.err and "--force" in ran.err and ran.out == ""
    assert reasons(run, "reduced", "--force") == {"reduced R d1123": {"edited"}}
    path.touch()
    assert made(program("make", "reduced", "--force", "--json"))["reduced R d1123"] == "made"
    assert reasons(run, "reduced") == {}


def test_recipe(store: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    from awetools.core import kinds

    raised = replace(kinds.COLDPIX, revision=kinds.COLDPIX.revision + 1)
    changed = tuple(raised if one is kinds.COLDPIX else one for one in kinds.KINDS)
    monkeypatch.setattr(kinds, "KINDS", changed)
    found = reasons(run, "reduced")
    assert found["coldpix R"] == found["coldpix V"] == {"recipe"}
    assert set(found) == {"coldpix R", "coldpix V", "flat R", "flat V", *REDUCED}
    before = products(store.root)
    done = subprocess.run(
        [sys.executable, "-c", RAISED, "reduced", "exposure=d1120"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    # The pixels of the mask are the same; so is all that is made of it.
    assert "1 made, 2 up to date" in done.stderr, done.stderr
    assert kinds_of(set(products(store.root)) - set(before)) == ["coldpix"]
    assert set(reasons(run, "reduced")) == {"coldpix V", "flat V", *FRAMES_V}


def test_inputs_a_raw_frame_was_edited(
    store: Store, run: InProcess, frame: Callable[[str], Path], night: Night
) -> None:
    path = frame("d1123")
    flip(path)
    ran = run("make", "reduced", "--why")
    (line,) = ran.lines
    assert "inputs: raw: the content of d1123.fits changed" in line
    assert f"{path}: was changed since it was registered" in ran.err and "R d1123" in ran.err
    before = products(store.root)
    ran = program("make", "reduced", "--json")
    assert made(ran)["reduced R d1123"] == "made" and "1 made, 4 up to date" in ran.err
    (new,) = set(products(store.root)) - set(before)
    assert Path(new).name.startswith("loral_R_d1123-")
    ran = program("make", "reduced", "--json")
    assert set(made(ran).values()) == {"up-to-date"}


def test_inputs_an_edited_bias_touches_everything(
    store: Store, run: InProcess, frame: Callable[[str], Path]
) -> None:
    path = frame("d1001")
    flip(path)
    found = reasons(run, "reduced")
    assert set(found) == ALL
    assert found["readnoise"] == {"inputs"} and found["bias"] == {"inputs", "upstream"}
    ran = run("make", "reduced", "-n")
    assert f"{path}: was changed" in ran.err and "bias 2017-03-02 loral" in ran.err


def test_inputs_a_header_value_that_is_read_was_corrected(
    store: Store, run: InProcess, frame: Callable[[str], Path]
) -> None:
    awe("ingest", "-q", "--set", "saturation_adu=50000", frame("d1123"))
    assert reasons(run, "reduced") == {"reduced R d1123": {"inputs"}}
    ran = run("make", "reduced", "--why")
    assert "d1123.fits: saturation_adu was [65000.0], is [50000.0]" in ran.out
    awe("ingest", "-q", "--set", "object=Whirlpool", frame("d1124"))
    assert set(reasons(run, "reduced")) == {"reduced R d1123"}


def test_a_frame_touched_or_packed_otherwise_changes_nothing(
    store: Store, run: InProcess, frame: Callable[[str], Path]
) -> None:
    frame("d1011").touch()
    ran = run("make", "reduced", "-n")
    assert (ran.code, ran.out) == (0, "") and "warning" not in ran.err


def test_a_removed_frame_is_named_and_fresh_stays_fresh(
    store: Store, run: InProcess, frame: Callable[[str], Path]
) -> None:
    path = frame("d1123")
    path.rename(path.with_name(path.name + ".away"))
    ran = run("make", "reduced")
    assert ran.code == 0 and len(ran.lines) == 5
    assert f"{path}: the file is gone; it went into reduced 2017-03-02 loral R d1123" in ran.err
    product("reduced", "d1123").unlink()
    ran = program("make", "reduced", "--json")
    assert made(ran, 5) == {**dict.fromkeys(REDUCED, "up-to-date"), "reduced R d1123": "blocked"}
    assert f"{path}: registered, but the file is gone" in ran.err and "awe-ingest" in ran.err


def test_members_a_new_raw_bias(store: Store, run: InProcess, night: Night) -> None:
    awe("ingest", "-q", night.raw.parent / "late")
    found = reasons(run, "reduced")
    assert set(found) == ALL and found["readnoise"] == {"members"}
    ran = run("make", "bias", "--why")
    assert all(f"members: raw: new: {LATE}" in line for line in ran.lines) and len(ran.lines) == 2


def test_better_another_calibration_now_wins(store: Store, run: InProcess) -> None:
    biases = awe("query", "raw_bias").splitlines()
    other = awe("bias", "-q", *biases[:5]).strip()
    # A second version alone, of other frames, is not what the rule asks for.
    assert reasons(run, "reduced") == {}
    awe("validity", "--forever", "--reason", "a test", other)
    found = reasons(run, "reduced")
    assert (
        found["gain"] == {"better"}
        and "better" in found["domeflat R"]
        and "better" in found["reduced V d1121"]
    )
    assert "bias" not in found and "readnoise" not in found
    ran = run("make", "gain", "--why")
    assert "better: bias: was loral-" in ran.out and f"is {Path(other).name}" in ran.out
    awe("validity", "--default", "--reason", "a test", other)
    assert reasons(run, "reduced") == {}


def test_what_is_taken_because_its_interval_was_set_by_hand_is_named_where_another_would_be_made(
    store: Store, run: InProcess
) -> None:
    flat = product("flat", "R-")
    awe("validity", "--forever", "--reason", "a test", flat)
    said = f"{flat.absolute()}: is taken as it is"
    assert said not in run("make", "reduced", "-n").err
    identity = content_of_raw("d1012")
    judge(store, identity)
    ran = run("make", "reduced", "filter=R", "-n")
    assert ran.err.count(said) == 1 and "/flat/" not in ran.out, ran.err
    # Also when the other has been made.
    awe("make", "-q", "flat", "filter=R")
    assert said in run("make", "reduced", "filter=R", "-n").err
    judge(store, identity, "none")
    assert said not in run("make", "reduced", "filter=R", "-n").err


# States


def test_a_calibration_judged_bad_blocks_what_hangs_on_it(store: Store, run: InProcess) -> None:
    flat = product("flat", "V-")
    judge(store, open_product(flat).key)
    found = states(run, "reduced")
    assert states(run, "flat", "filter=V")["flat V"] == "flagged"
    assert {one for one, state in found.items() if state == "blocked"} == FRAMES_V
    ran = program("make", "reduced", "--json")
    assert made(ran, 5) == {**dict.fromkeys(FRAMES_R, "up-to-date"), **dict.fromkeys(FRAMES_V, "blocked")}
    assert f"{flat.absolute()}: was judged bad" in ran.err
    assert reasons(run, "reduced", code=5) == {}
    # Another that serves is taken instead.
    other = awe("flat", "-q", "--no-coldpix", product("domeflat", "V-")).strip()
    awe("validity", "--forever", "--reason", "a test", other)
    assert reasons(run, "reduced") == {key: {"better"} for key in FRAMES_V}


def test_what_is_flagged_serves_only_when_judged_good(store: Store, run: InProcess) -> None:
    path = product("bias")
    awe("params", "--set", "bias.limits.level_adu=..1")
    ran = program("make", "bias", "--remake", "bias")
    assert ran.code == 0 and "warning" in ran.err, ran.err
    assert read_record(sidecar(path))["quality"]["flags"]
    ran = run("make", "bias")
    assert ran.code == 0 and ran.lines == [str(path.absolute())] and "flagged" in ran.err
    ran = run("make", "reduced", "-n")
    # Of the bias and of the flat that needs it.
    assert ran.code == 5 and ran.err.count("is flagged, and nobody judged it good") == 1, ran.err
    judge(store, open_product(path).key, "good")
    assert reasons(run, "reduced") == {}


def test_depth_takes_what_is_further_down_as_it_is(store: Store, run: InProcess) -> None:
    given = ("--set", "bias.clip_sigma=4")
    found = states(run, "reduced", "filter=R", "--depth", 1)
    assert {one for one, state in found.items() if state == "not checked"} >= {"domeflat R"}
    assert found["flat R"] == found["reduced R d1120"] == "fresh"
    assert reasons(run, "reduced", "--depth", 0, *given) == {}
    assert "domeflat R" not in reasons(run, "reduced", "--depth", 1, *given)
    assert "bias" in reasons(run, "reduced", "--depth", 1, *given)
    product("domeflat", "R-").unlink()
    assert reasons(run, "reduced", "--depth", 0) == {}


def test_out_of_memory_is_said_and_asking_again_finishes(store: Store) -> None:
    path = product("reduced", "d1120")
    before = content(path)
    path.unlink()
    less = (150 << 20, 150 << 20)
    done = subprocess.run(
        [sys.executable, "-m", "awetools", "make", "reduced"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, less),
    )
    assert done.returncode == 7 and "out of memory" in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == 4, "the others are there"
    assert made(program("make", "reduced", "--json")).pop("reduced R d1120") == "made"
    assert content(path) == before


# Options


def test_tree_for_people(store: Store, run: InProcess) -> None:
    ran = run("make", "reduced", "filter=V", "--tree")
    assert ran.code == 0
    assert ran.lines[0].startswith("reduced 2017-03-02 loral V d1121  fresh  /")
    assert "|- raw_science d1121.fits.fz" in ran.lines
    assert sum("bias 2017-03-02 loral  fresh" in line and "(above)" not in line for line in ran.lines) == 1
    assert sum("readnoise" in line for line in ran.lines) > 3
    assert "9 raw_bias: d1000.fits.fz ... d1008.fits.fz" in ran.out
    less = run("make", "reduced", "filter=V", "--tree", "--depth", 1)
    assert 2 < len(less.lines) < len(ran.lines) and "raw_bias" not in less.out


def test_tree_as_json_is_every_node_once(store: Store, run: InProcess) -> None:
    ran = run("make", "reduced", "--tree", "--json")
    found = [json.loads(line) for line in ran.lines]
    labels = [short(one["label"]) for one in found]
    assert sorted(labels) == sorted(ALL)
    for one in found:
        assert set(one) == {"label", "kind", "state", "path", "reasons", "needs", "raw"}
        assert Path(one["path"]).is_file() and one["reasons"] == []
        assert {short(need["label"]) for need in one["needs"]} <= ALL
    (bias,) = [one for one in found if one["kind"] == "bias"]
    assert len(bias["raw"]) == 9 and [one["role"] for one in bias["needs"]] == ["readnoise"]


def test_only_until_remake(store: Store, run: InProcess) -> None:
    given = ("--set", "bias.clip_sigma=4")
    assert set(reasons(run, "reduced", "--only", "bias", *given)) == {"bias"}
    assert set(reasons(run, "reduced", "--until", "hotpix", *given)) == {"bias", "hotpix"}
    assert set(reasons(run, "reduced", "filter=R", "--until", "domeflat", *given)) == {
        "bias",
        "gain",
        "hotpix",
        "domeflat R",
    }
    assert set(reasons(run, "reduced", "--only", "hotpix", "--remake", "hotpix")) == {"hotpix"}
    ran = run("make", "bias", "--until", "flat")
    assert ran.code == 5 and "no such kind is among what bias needs" in ran.err
    ran = run("make", "reduced", "--only", "fringe")
    assert ran.code == 5 and "--tree" in ran.err


def test_only_makes_that_kind_and_nothing_else(store: Store, run: InProcess) -> None:
    before = products(store.root)
    ran = program("make", "reduced", "--only", "hotpix", "--set", "hotpix.threshold_sigma=6")
    assert ran.code == 0, ran.err
    assert kinds_of(set(products(store.root)) - set(before)) == ["hotpix"]


def test_a_saved_set_of_parameters(store: Store, run: InProcess) -> None:
    awe("params", "--set", "bias.clip_sigma=4")
    awe("params", "bias", "--save", "tight")
    awe("params", "--unset", "bias.clip_sigma")
    assert reasons(run, "reduced") == {}
    found = reasons(run, "reduced", "--params-set", "tight")
    assert found["bias"] == {"parameters"} and "readnoise" not in found
    assert reasons(run, "reduced", "--params-set", "tight", "--set", "bias.clip_sigma=3") == {}
    ran = run("make", "reduced", "--params-set", "tigth", "-n")
    assert ran.code in (2, 4, 5) and "tight" in ran.err


def test_check_says_no_by_its_exit_code(store: Store, run: InProcess) -> None:
    assert run("make", "reduced", "--check").code == 0
    ran = run("make", "reduced", "--check", "--set", "bias.clip_sigma=4")
    assert ran.code == 3 and ran.out == "" and "upstream" in ran.err and "4 more of 5" in ran.err
    judge(store, open_product(product("flat", "V-")).key)
    assert run("make", "reduced", "--check").code == 5


def test_outdated_is_a_campaign_over_what_exists(store: Store, run: InProcess) -> None:
    assert reasons(run, "--outdated") == {}
    given = ("--set", "coldpix.low_ratio=0.9")
    assert set(reasons(run, "--outdated", *given)) == {"coldpix R", "coldpix V", "flat R", "flat V", *REDUCED}
    assert set(reasons(run, "--outdated", "coldpix", "filter=V", *given)) == {"coldpix V"}
    # What was never made is not out of date; what is gone is.
    awe("ingest", "-q", data_path("nickel-20170302") / "science" / "d1030.fits.fz")
    product("reduced", "d1120").unlink()
    assert reasons(run, "--outdated") == {"reduced R d1120": {"missing"}}
    assert set(reasons(run, "reduced")) == {"reduced R d1120", "reduced R d1030"}


def test_as_of_is_the_answer_of_that_day(store: Store, run: InProcess) -> None:
    flat = product("flat", "V-")
    now = awe("query", "reduced", "--get", "made", "--json").splitlines()
    latest = max(json.loads(line)["made"] for line in now)
    judge(store, open_product(flat).key)
    assert reasons(run, "reduced", "--as-of", latest) == {}
    assert reasons(run, "reduced", code=5) == {}
    assert set(reasons(run, "reduced", "--as-of", "2017-03-05")) == ALL
    ran = run("make", "reduced", "--as-of", "2017-03-01", "-n")
    assert ran.code == 5, "there were no frames yet"


def test_a_product_a_vanished_product_and_a_raw_frame_are_asked_for_by_name(
    store: Store, run: InProcess, night: Night
) -> None:
    path = product("reduced", "d1120")
    ran = run("make", path)
    assert (ran.code, ran.lines) == (0, [str(path.absolute())])
    flat = product("flat", "R-")
    flat.unlink()
    assert set(reasons(run, path)) == {"flat R", "reduced R d1120"}
    assert set(reasons(run, flat)) == {"flat R"}
    assert made(program("make", flat, "--json")) == {"flat R": "made"}
    (raw,) = night.raw.glob("*/d1126*")
    ran = run("make", "reduced", raw, night.raw / "science" / "d1124.fits.fz")
    assert ran.code == 0 and ["d1124" in ran.lines[0], "d1126" in ran.lines[1]] == [True, True]
    assert len(run("make", "domeflat", night.raw / "flat" / "d1012.fits.gz", "--json").lines) == 1
    ran = run("make", "bias", raw)
    assert ran.code == 5 and "is raw_science" in ran.err and "of which no bias is made" in ran.err
    ran = run("make", "bias", flat)
    assert ran.code == 2 and "is a flat, not a bias" in ran.err
    ran = run("make", "reduced/nothing.fits")
    assert ran.code == 5 and "nothing is known of such a product" in ran.err
    ran = run("make", "reduced", data_path("nickel-20170302") / "science" / "d1030.fits.fz")
    assert ran.code == 5 and "is not registered" in ran.err and "awe-ingest" in ran.err


def test_paths_in_and_out(store: Store, run: InProcess) -> None:
    ran = run("make", "reduced", "-0")
    assert ran.out.count("\0") == 5 and "\n" not in ran.out
    product("reduced", "d1120").unlink()
    assert run("make", "reduced", "-n", "-0").out.count("\0") == 1
    ran = run("make")
    assert ran.code == 2 and "say what is to be made" in ran.err


def test_in_another_store_the_calibrations_of_the_public_one_serve(
    store: Store, run: InProcess, night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = init_store(tmp_path / "own").root
    monkeypatch.setenv("AWE_PATH", os.pathsep.join(map(str, (own, store.root))))
    monkeypatch.chdir(own)
    (raw,) = night.raw.glob("science/d1120*")
    awe("ingest", "-q", raw)
    assert reasons(run, "reduced", "exposure=d1120") == {}
    before = products(store.root)
    given = ("--set", "reduced.cosmic_sigma=9")
    assert reasons(run, "reduced", "exposure=d1120", *given) == {"reduced R d1120": {"parameters"}}
    ran = program("make", "reduced", "exposure=d1120", *given)
    assert ran.code == 0, ran.err
    assert Path(ran.lines[0]).is_relative_to(own)
    assert products(store.root) == before and kinds_of(products(own)) == ["reduced"]
    inputs = read_record(sidecar(Path(ran.lines[0])))["recipe"]["inputs"]
    assert {one["role"] for one in inputs} >= {"bias", "flat", "hotpix", "coldpix", "gain", "readnoise"}
    # What the private store says of a public calibration counts for who works there.
    judge(Store(own), open_product(store.root / str(next(store.root.glob("flat/*/*_R-*.fits")))).key)
    assert run("make", "reduced", "exposure=d1120", "-n").code == 5
    monkeypatch.setenv("AWE_PATH", str(store.root))
    assert reasons(run, "reduced", "exposure=d1120") == {}
