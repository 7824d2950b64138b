"""Plans run by others, and bad luck: nothing half-written, nothing left running, and asking again finishes."""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awetools.core.indexing.index import rebuild
from awetools.core.kinds import KINDS, REDUCED
from awetools.core.planning.campaign import Demand, survey
from awetools.core.planning.graph import View
from awetools.core.products import open_product
from awetools.core.record import read_record, sidecar
from awetools.core.simulate import NightSpec
from awetools.core.store import Store, init_store
from awetools.core.workspace import here
from tests.support import ROOT, InProcess, Ran, awe, program, write_raw

# readnoise, bias, gain, dark, hotpix, domeflat, coldpix, flat, and two reduced frames.
NODES = 10


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw frames of a very small night."""
    from awetools.core.simulate.night import simulate_night

    base = tmp_path_factory.mktemp("night") / "n"
    spec = NightSpec(
        detectors=1, exposures=2, biases=4, flats=4, twilights=0, darks=3, shape=(96, 128), seed=3
    )
    simulate_night(base, spec)
    return base / "raw"


@pytest.fixture(scope="module")
def reduced(sky: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of copies of these frames, with all that was made of them."""
    base = tmp_path_factory.mktemp("faults")
    root = new_store(base / "store", sky)
    ran = make(root)
    assert ran.code == 0 and f"{NODES} made" in ran.err, ran.err
    return root


@pytest.fixture
def store(reduced: Path, tmp_path: Path) -> Path:
    """A store of its own with all that was made."""
    root = tmp_path / "store"
    shutil.copytree(reduced, root, symlinks=True)
    rebuild(Store(root))
    return root


@pytest.fixture
def empty(sky: Path, tmp_path: Path) -> Path:
    """A store with raw frames of its own, of which nothing was made."""
    shutil.copytree(sky, tmp_path / "raw")
    return new_store(tmp_path / "store", tmp_path / "raw")


def new_store(root: Path, raw: Path) -> Path:
    init_store(root)
    awe("ingest", "-q", raw, cwd=root)
    return root


def make(root: Path, *arguments: object, kind: str = "reduced", **named: object) -> Ran:
    return program("make", kind, *arguments, cwd=root, **named)  # type: ignore[arg-type]


def start(root: Path, *arguments: str, before: Callable[[], object] | None = None) -> subprocess.Popen[str]:
    """awe-make, running; its messages can be read line by line."""
    return subprocess.Popen(
        [sys.executable, "-m", "awetools", "make", "reduced", "-v", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def products(root: Path) -> dict[str, str]:
    """Each product, whole by its own record, with its content."""
    found = {}
    for path in root.glob("*/*/*.fits"):
        found[str(path.relative_to(root))] = open_product(path).content
    return found


def whole(root: Path, reduced: Path) -> None:
    """Asked again all is there, equal to what an undisturbed run made, and nothing is left to do."""
    ran = make(root)
    assert ran.code == 0, ran.err
    assert len(ran.lines) == 2
    assert products(root) == products(reduced)
    assert not survey(Demand(REDUCED, ()), View(), here(root), KINDS).to_make


def clean(root: Path) -> None:
    """Nothing half-written is left, but what `awe-verify --clean` takes away."""
    assert program("verify", "--clean", ".", cwd=root).code == 0
    assert not list(root.glob("[a-z]*/*/.*"))


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


def children_of(number: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == number and fields[0] != "Z":
                found.append(int(name))
    return found


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def flip(path: Path, offset: int = -2881) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


def began(path: Path) -> str:
    """When a product was made."""
    return str(read_record(sidecar(path))["run"]["start"])


def one(root: Path, kind: str) -> Path:
    return sorted(root.glob(f"{kind}/*/*.fits"))[0]


# Plans run by others


@pytest.mark.parametrize("how", ["make", "sh"])
def test_an_exported_plan_gives_the_same_products(
    empty: Path, reduced: Path, tmp_path: Path, how: str
) -> None:
    ran = make(empty, "--export", how)
    assert ran.code == 0 and f"would make {NODES}" in ran.err and not products(empty)
    path = tmp_path / "exported"
    path.write_text(ran.out)
    command: list[str | Path] = ["make", "-j2", "-f", path] if how == "make" else ["sh", path]
    done = subprocess.run(
        command, env=with_programs(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    whole(empty, reduced)
    # There is nothing left to do for make either, and for awe-make nothing to export.
    if how == "make":
        again = subprocess.run(command, env=with_programs(), cwd=tmp_path, capture_output=True, check=True)
        assert b"awe-" not in again.stdout
    assert make(empty, "--export", "json").out == ""


def test_exported_json_lines_are_a_plan_for_awe_node(empty: Path, reduced: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    plan.mkdir()
    ran = make(empty, "--export", "json")
    (plan / "plan.jsonl").write_text(ran.out)
    run = {"schema": 1, "root": str(empty), "environment": {"AWE_PATH": str(empty)}, "argv": ["awe-make"]}
    (plan / "run.json").write_text(json.dumps(run))
    (plan / "state").mkdir()
    (plan / "log").mkdir()
    nodes = [json.loads(line) for line in ran.lines]
    assert len(nodes) == NODES
    for number, node in enumerate(nodes):
        earlier = {one["id"] for one in nodes[:number]}
        assert {*node["needs"], *node["wants"]} <= earlier
        assert node["seconds"] > 0 and node["memory_mb"] > 0 and node["cpus"] == 1
    done = program("node", plan, *(node["id"] for node in nodes), cwd=empty)
    assert done.code == 0, done.err
    assert len(done.lines) == NODES
    whole(empty, reduced)


def test_a_kept_plan_can_be_run_again_without_the_index(empty: Path, reduced: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    assert make(empty, "--plan", plan).code == 0
    names = [json.loads(line)["id"] for line in (plan / "plan.jsonl").read_text().splitlines()]
    status = program("node", plan, "--status")
    assert [line.split("\t")[1] for line in status.lines] == ["done"] * NODES
    assert {path.name for path in (plan / "log").glob("*.log")} == {f"{name}.log" for name in names}
    ran = program("node", plan, *names)
    assert ran.code == 0 and ran.err.count("was done before") == NODES
    for path in [*empty.glob("[a-z]*/*/*"), *(empty / ".awe").glob("index*")]:
        path.unlink()
    ran = program("node", plan, *names)
    assert ran.code == 0, ran.err
    whole(empty, reduced)


# Killed


@pytest.mark.parametrize("seen", [2, 7])
def test_awe_make_killed_leaves_no_child_and_asking_again_finishes(
    empty: Path, reduced: Path, seen: int
) -> None:
    making = start(empty, "-j2")
    until(lambda: len(list(empty.glob("*/*/*.fits"))) >= seen)
    below = children_of(making.pid)
    making.kill()
    making.communicate()
    until(lambda: not any(map(is_alive, below)), 5)
    before = {path: began(path) for path in empty.glob("*/*/*.fits")}
    whole(empty, reduced)
    assert before and all(began(path) == when for path, when in before.items())
    clean(empty)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_awe_make_interrupted_ends_all_it_started(empty: Path, reduced: Path, number: int, code: int) -> None:
    making = start(empty)
    until(lambda: len(list(empty.glob("*/*/*.fits"))) >= 2)
    below = children_of(making.pid)
    making.send_signal(number)
    _, messages = making.communicate(timeout=20)
    assert making.returncode in (code, -number) and "Traceback" not in messages
    assert not any(map(is_alive, below))
    whole(empty, reduced)
    clean(empty)


def test_a_worker_killed_takes_only_its_node_which_is_tried_again(empty: Path, reduced: Path) -> None:
    making = start(empty)
    until(lambda: len(list(empty.glob("*/*/*.fits"))) >= 2)
    guard_and_worker = children_of(making.pid)
    for child in guard_and_worker:
        if os.getpgid(child) == child and not _is_guard(child):
            os.kill(child, signal.SIGKILL)
    out, messages = making.communicate(timeout=60)
    assert making.returncode == 0, messages
    assert len(out.splitlines()) == 2
    whole(empty, reduced)
    clean(empty)


def _is_guard(number: int) -> bool:
    """The guard leads a session; workers are groups of their maker's session."""
    return os.getsid(number) == number


@pytest.fixture
def small_disk(tmp_path: Path, sky: Path) -> Iterator[Path]:
    """A store on a disk that holds about half of what is to be made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield new_store(disk / "store", sky)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_disk_full_in_the_middle(small_disk: Path, reduced: Path) -> None:
    ran = make(small_disk)
    assert ran.code == 7, ran.err
    assert "No space left on device" in ran.err and "Traceback" not in ran.err
    assert 0 < len(products(small_disk)) < NODES
    disk = small_disk.parent
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    whole(small_disk, reduced)
    clean(small_disk)


def test_a_disk_without_room_for_any_file(empty: Path, reduced: Path) -> None:
    """No file may grow over some kilobytes: a full quota, without a disk of its own."""

    def less() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    making = start(empty, before=less)
    _, messages = making.communicate(timeout=60)
    assert making.returncode == 7, messages
    assert "Traceback" not in messages
    products(empty)
    whole(empty, reduced)


def test_two_at_once_on_one_store(empty: Path, reduced: Path) -> None:
    both = [start(empty, "-j2") for _ in range(2)]
    for making in both:
        out, messages = making.communicate(timeout=120)
        assert making.returncode == 0, messages
        assert len(out.splitlines()) == 2
    assert {str(path.name) for path in empty.glob("*/*/*.fits")} == {
        Path(name).name for name in products(reduced)
    }
    whole(empty, reduced)


def test_a_node_that_takes_too_long_is_ended(empty: Path, reduced: Path) -> None:
    ran = make(empty, "--timeout", "0.001", kind="bias")
    assert ran.code == 7 and "ran out of time" in ran.err and ran.out == "", ran.err
    assert not (empty / ".awe" / "failed").exists(), "another time there may be time enough"
    whole(empty, reduced)


# Files that people touched


def test_a_raw_frame_that_was_cut_off_blocks_or_fails_only_what_it_goes_into(empty: Path) -> None:
    assert make(empty).code == 0
    (raw,) = awe("query", "raw_science", "--get", "path", cwd=empty).splitlines()[1:2]
    path = Path(raw)
    path.write_bytes(path.read_bytes()[:-4000])
    ran = make(empty)
    assert "Traceback" not in ran.err and path.name in ran.err, ran.err
    assert ran.code in (0, 4, 5, 8)
    assert "bug" not in ran.err


@pytest.mark.parametrize("how", ["value", "input", "key", "garbage", "gone"])
def test_a_sidecar_edited_by_hand(store: Path, reduced: Path, how: str) -> None:
    path = one(store, "flat")
    record = sidecar(path)
    text = record.read_text()
    value = json.loads(text)
    if how == "value":
        name = sorted(value["recipe"]["parameters"])[0]
        value["recipe"]["parameters"][name]["value"] = 42
    elif how == "input":
        value["recipe"]["inputs"][0]["content"] = "0" * 64
    elif how == "key":
        value["recipe_key"] = "0" * 64
    record.unlink()
    if how == "garbage":
        record.write_bytes(b"\x00\xff{{{")
    elif how != "gone":
        record.write_text(json.dumps(value))
    ran = make(store)
    assert "Traceback" not in ran.err and "bug" not in ran.err, ran.err
    assert ran.code == 5 and path.name in ran.err and "--force" in ran.err, ran.err
    assert ran.out == ""
    ran = make(store, "--force")
    assert ran.code == 0, ran.err
    whole(store, reduced)


def test_a_product_cut_off(store: Path, reduced: Path) -> None:
    for kind in ("bias", "reduced"):
        path = one(store, kind)
        path.write_bytes(path.read_bytes()[:-2880])
    ran = make(store)
    assert ran.code == 5 and ran.out == "" and "was edited" in ran.err, ran.err
    ran = make(store, "--force")
    assert ran.code == 0, ran.err
    whole(store, reduced)


def test_a_raw_frame_removed_after_use(empty: Path) -> None:
    assert make(empty).code == 0
    raw = Path(awe("query", "raw_bias", cwd=empty).splitlines()[1])
    kept = raw.read_bytes()
    stat = raw.stat()
    raw.unlink()
    ran = make(empty)
    assert ran.code == 0 and len(ran.lines) == 2
    assert f"{raw}: the file is gone; it went into" in ran.err and "bias 2024-03-02 sim1" in ran.err
    one(empty, "bias").unlink()
    ran = make(empty, "-n")
    assert ran.code == 5, ran.err
    assert f"{raw}: registered, but the file is gone" in ran.err and "awe-ingest" in ran.err
    ran = make(empty, kind="bias")
    assert ran.code == 5 and f"{raw}: registered, but the file is gone" in ran.err
    # The same bytes under another name are the same frame.
    other = raw.with_name("again.fits")
    other.write_bytes(kept)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    awe("ingest", "-q", other, cwd=empty)
    ran = make(empty)
    assert ran.code == 0, ran.err
    assert make(empty, "--check").code == 0


def test_times_in_the_future_change_nothing(store: Path, reduced: Path) -> None:
    future = time.time() + 10 * 365 * 86400
    for path in store.glob("[a-z]*/*/*"):
        os.utime(path, (future, future))
    whole(store, reduced)
    for path in store.glob("[a-z]*/*/*"):
        os.utime(path, (0, 0))
    whole(store, reduced)


# Index and journal


def index_of(root: Path) -> Path:
    return (root / ".awe" / "index.sqlite").resolve()


def test_the_index_deleted_before(store: Path, reduced: Path) -> None:
    for path in (store / ".awe").glob("index*"):
        path.unlink()
    whole(store, reduced)


def test_the_index_deleted_while_awe_make_runs(empty: Path, reduced: Path) -> None:
    making = start(empty)
    until(lambda: len(list(empty.glob("*/*/*.fits"))) >= 2)
    for path in (empty / ".awe").glob("index*"):
        path.unlink(missing_ok=True)
    out, messages = making.communicate(timeout=60)
    assert making.returncode == 0, messages
    assert len(out.splitlines()) == 2
    whole(empty, reduced)


@pytest.mark.parametrize("version", [1, 9999])
def test_an_index_of_another_version(store: Path, reduced: Path, version: int) -> None:
    connection = sqlite3.connect(index_of(store))
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()
    ran = make(store)
    if version == 9999:
        assert ran.code != 0 and "newer" in ran.err and "awe-index" in ran.err, ran.err
        assert "Traceback" not in ran.err
        awe("index", "--rebuild", cwd=store)
    else:
        assert ran.code == 0, ran.err
    whole(store, reduced)


def test_an_index_that_is_none(store: Path, reduced: Path) -> None:
    index_of(store).write_bytes(b"not a database" * 1000)
    ran = make(store)
    assert "Traceback" not in ran.err and "bug" not in ran.err, ran.err
    if ran.code:
        assert "awe-index" in ran.err
        awe("index", "--rebuild", cwd=store)
    whole(store, reduced)


def test_a_torn_journal(store: Path) -> None:
    lines = awe("query", "raw_science", "--get", "content", "--json", cwd=store).splitlines()
    event = {
        "event": "verdict",
        "identity": json.loads(lines[0])["content"],
        "verdict": "bad",
        "when": "2026-01-01T00:00:00+00:00",
    }
    journal = Store(store).journal_path
    journal.write_text(json.dumps(event) + "\n" + '{"event": "verdict", "identi')
    ran = make(store)
    assert ran.code == 0, ran.err
    assert len(ran.lines) == 1, "the whole line counts, and what was torn does not"


# Words


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["object=SIMFELD"], 5, "nearest: SIMFIELD"),
        (["night=2024-03-03"], 5, "written YYYY-MM-DD (there is: 2024-03-02)"),
        (["filter=r"], 5, "awe-query raw_science"),
        (["object like 'M99*'"], 5, "awe-query raw_science"),
        (["exptime_s > 1e9"], 5, "awe-query raw_science"),
        (["object='; DROP TABLE objects; --'"], 5, "no frames"),
        (["object=\"' OR '1'='1\""], 2, "no field"),
        (["object = 'x' ; select 1"], 2, "cannot read"),
        (["__import__('os').system('touch pwned')"], 2, ""),
        (["$(touch pwned)"], 2, ""),
        (["object=\udcff"], 2, "not valid text"),
        (["object=" + "a" * 100000], 2, "too long"),
        (["(" * 5000], 2, ""),
        (["objekt=M51"], 2, "nearest: object"),
        ([""], 2, ""),
    ],
)
def test_conditions_that_match_nothing_or_mean_harm(
    reduced: Path,
    words: list[str],
    code: int,
    said: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(reduced)
    ran = InProcess(capfd)("make", "reduced", "-n", *words)
    gc.enable()
    assert ran.code == code, ran.err
    assert said in ran.err and "Traceback" not in ran.err and "bug" not in ran.err
    assert not list(reduced.parent.rglob("pwned"))
    assert len(ran.err) < 20000


HOSTILE = 'M51\'; touch pwned; $(touch pwned) "`touch pwned`" {@} ../../x'


def test_hostile_names_of_store_frames_objects_and_detectors(tmp_path: Path) -> None:
    import numpy as np

    root = tmp_path / "my \"store\" 'of' $HOME; #1 @{bias-1} [x]"
    folder = tmp_path / "raw 'frames' [1]"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(10):
        kind = ["bias"] * 4 + ["flat"] * 4 + ["object"] * 2
        level = {"bias": 1000, "flat": 20000, "object": 1500}[kind[number]]
        cards = {
            "IMAGETYP": kind[number],
            "DETECTOR": "../c'h\"ip; touch pwned",
            "FILTER": "R $(touch pwned)/..",
            "OBJECT": HOSTILE[:60],
            "EXPTIME": 0.0 if kind[number] == "bias" else 5.0,
            "DATE-OBS": f"2024-03-02T23:{10 + number}:00.000",
        }
        data = (level + np.sqrt(max(level - 1000, 25) / 1.5) * rng.standard_normal((96, 96))).astype(
            np.uint16
        )
        write_raw(folder / f"f'{number}; $(x).fits", data, cards)
    new_store(root, folder)
    ran = make(root)
    assert ran.code == 0, ran.err
    assert len(ran.lines) == 2 and all(Path(line).is_relative_to(root) for line in ran.lines)
    assert not list(tmp_path.rglob("pwned")) and not list(root.rglob("*touch*/*"))
    assert make(root, "--check").code == 0
    name = HOSTILE[:60].replace("'", "''")
    assert len(make(root, f"object='{name}'").lines) == 2
    assert make(root, "--tree").code == 0
    for path in root.glob("reduced/*/*.fits"):
        path.unlink()
    script = make(root, "--export", "sh")
    assert script.code == 0
    done = subprocess.run(
        ["sh"],
        input=script.out.encode(errors="surrogateescape"),
        env=with_programs(),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert make(root, "--check").code == 0 and not list(tmp_path.rglob("pwned"))


def with_programs() -> dict[str, str]:
    """The environment in which a plan's command lines find the programs of this package."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


# What failed before


def test_an_optional_calibration_that_fails_is_tried_once_and_done_without(empty: Path) -> None:
    given = ("--set", "gain.min_level_adu=60000")
    ran = make(empty, *given)
    # What it was wanted for is made without it, so nobody is refused anything; it is said all the same.
    assert ran.code == 0 and "no two flats make a pair" in ran.err, ran.err
    assert f"{NODES - 1} made, 1 failed" in ran.err
    assert len(ran.lines) == 2 and not list(empty.glob("gain/*/*"))
    record = read_record(sidecar(Path(ran.lines[0])))
    assert "gain" not in {one["role"] for one in record["recipe"]["inputs"]}
    assert len(list((empty / ".awe" / "failed").iterdir())) == 1
    before = products(empty)
    ran = make(empty, *given)
    assert ran.code == 0 and len(ran.lines) == 2 and "making" not in ran.err and products(empty) == before
    ran = make(empty, *given, kind="gain")
    assert ran.code == 5 and "it failed before" in ran.err and "--retry" in ran.err
    ran = make(empty, *given, "--retry", kind="gain")
    assert ran.code == 4 and "no two flats make a pair" in ran.err
    # Another parameter is another key: nothing has to be said twice.
    ran = make(empty, kind="gain")
    assert (ran.code == 0 and "1 made" in ran.err) or len(ran.lines) == 1
    assert make(empty, *given, "--check").code == 0


def test_what_does_not_hang_on_a_failure_goes_on(empty: Path) -> None:
    ran = make(empty, "--set", "domeflat.min_level_adu=60000", "--json")
    assert ran.code in (4, 6), ran.err
    actions = [json.loads(line)["action"] for line in ran.lines]
    assert actions == ["blocked", "blocked"]
    assert {path.parent.parent.name for path in empty.glob("*/*/*.fits")} >= {
        "bias",
        "dark",
        "gain",
        "hotpix",
    }
    assert "not made, as they hang on what failed" in ran.err
    ran = make(empty, "--set", "domeflat.min_level_adu=60000", "-n")
    assert ran.code == 5 and ran.out == "" and "failed before" in ran.err
    assert make(empty).code == 0


def test_a_note_of_a_failure_that_is_garbage_is_no_note(store: Path, reduced: Path) -> None:
    folder = store / ".awe" / "failed"
    folder.mkdir()
    (folder / "x.json").write_bytes(b"\x00{")
    (folder / "y.json").write_text('["list"]')
    whole(store, reduced)
