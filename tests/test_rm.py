"""awe-rm: bytes go, records stay, and lineage with them; what must not go does not, whenever it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from awetools.core.indexing.index import open_index
from awetools.core.journal import append_events, append_verdict, now
from awetools.core.record import check_record, read_record, sidecar
from awetools.core.rm import superseded
from awetools.core.store import Store, init_store, target_lock
from awetools.core.tracing.lookup import Lookup
from tests.support import ROOT, InProcess, bias_frames


def lineage(run: InProcess, *arguments: object) -> list[tuple[str, str, str]]:
    """Identity, name and state of every node."""
    ran = run("lineage", "--json", *arguments)
    assert ran.code == 0, ran.err
    found = [json.loads(line) for line in ran.lines]
    return [(one["id"], Path(one["path"]).name, one["state"]) for one in found]


def key_of(path: str | Path) -> str:
    return str(read_record(sidecar(Path(path)))["recipe_key"])


# What is removed


def test_bytes_go_and_the_lineage_stays(made: Store, run: InProcess) -> None:
    size, record = Path("bias.fits").stat().st_size, read_record(sidecar(Path("bias.fits")))
    before = lineage(run, "deep/hotpix.fits"), lineage(run, "bias.fits")
    ran = run("rm", "--json", "--reason", "disk is full", "bias.fits")
    assert ran.code == 0 and f"{size / 1e6:.3f} MB freed" in ran.err
    about = json.loads(ran.out)
    assert (about["path"], about["bytes"]) == (str(made.root / "bias.fits"), size)
    assert not os.path.lexists("bias.fits") and not os.path.lexists("bias.fits.json")
    assert not list(made.root.glob(".*.lock"))
    kept = read_record(Path(about["record"]))
    assert Path(about["record"]).parent == made.records_path and check_record(kept) == []
    assert {**kept, "removed": None} == {**record, "removed": None}
    assert kept["removed"]["path"] == "bias.fits" and kept["removed"]["reason"] == "disk is full"
    after = lineage(run, "deep/hotpix.fits"), lineage(run, "bias.fits")
    for one, other in zip(before, after, strict=True):
        assert [node[:2] for node in one] == [node[:2] for node in other]
        assert [node[2] for node in other if node[1] == "bias.fits"] == ["deleted"]
    assert run("query", "bias").code == 5
    assert run("index", "--check").code == 0 and run("verify", "-q").code == 0


def test_what_was_made_through_it_is_still_known(made: Store, run: InProcess, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "bias0.fits"
    before = {one[:2] for one in lineage(run, "--forward", raw)}
    assert len(before) == 3
    assert run("rm", "-q", "bias.fits").code == 0
    assert {one[:2] for one in lineage(run, "--forward", raw)} == before
    impact = run("lineage", "--impact", raw)
    assert impact.lines == [str(made.root / "bias.fits"), str(made.root / "deep" / "hotpix.fits")]
    assert "1 of these gone" in impact.err
    # Of the last link too, where no index knows anything.
    assert run("rm", "-q", "deep/hotpix.fits").code == 0
    assert run("lineage", "--impact", raw).lines == impact.lines
    assert {one[:2] for one in lineage(run, "--forward", raw)} == before
    with open_index(made) as index:
        assert not list(index.rows("recipe_key IS NOT NULL"))


def test_it_can_be_made_again_and_is_the_same(made: Store, run: InProcess, tmp_path: Path) -> None:
    content, key = Path("bias.fits").read_bytes(), key_of("bias.fits")
    before = lineage(run, "deep/hotpix.fits")
    assert run("rm", "-q", "bias.fits").code == 0
    ran = run("rm", "bias.fits")
    assert ran.code == 0 and ran.out == "" and "removed before" in ran.err
    frames = sorted((tmp_path / "raw").glob("*.fits"))
    assert run("bias", "-q", "-o", "bias.fits", *frames).code == 0
    assert (Path("bias.fits").read_bytes(), key_of("bias.fits")) == (content, key)
    assert lineage(run, "deep/hotpix.fits") == before
    assert run("lineage", "--impact", tmp_path / "raw" / "bias0.fits").lines == [
        str(made.root / "bias.fits"),
        str(made.root / "deep" / "hotpix.fits"),
    ]


def test_awe_make_makes_it_again(reduced_store: Store, run: InProcess) -> None:
    assert run("make", "-q", "flat").code == 0
    flats = run("query", "flat", "--newest").lines
    contents = [Path(flat).read_bytes() for flat in flats]
    assert run("rm", "-q", *flats).code == 0
    assert run("query", "flat", "--newest").lines != flats
    assert run("make", "-q", "flat").code == 0
    assert [Path(flat).read_bytes() for flat in flats] == contents


def test_a_dry_run_and_names_from_a_pipe(made: Store, run: InProcess) -> None:
    ran = run("rm", "-n", "bias.fits", "deep/hotpix.fits")
    assert ran.code == 0 and len(ran.lines) == 2 and "nothing was" in ran.err
    assert Path("bias.fits").exists() and not list(made.records_path.iterdir())
    assert not list(made.root.glob(".*.lock"))
    command = [sys.executable, "-m", "awetools", "rm", "-0", "-q"]
    done = subprocess.run(
        command,
        input=b"bias.fits\0deep/hotpix.fits\0",
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0 and done.stdout.count(b"\0") == 2
    assert not list(made.root.rglob("*.fits"))


def test_without_a_store_the_record_is_kept_beside(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("bias", "-q", "-o", "out/bias.fits", *bias_frames(tmp_path / "raw")).code == 0
    before = lineage(run, "out/bias.fits")
    assert run("rm", "-q", "out/bias.fits").code == 0
    assert [one.name for one in Path("out").iterdir()] == [".awe-records"]
    assert [one[:2] for one in lineage(run, "out/bias.fits")] == [one[:2] for one in before]


def test_of_two_removed_under_one_name_each_keeps_its_own(
    made: Store, run: InProcess, tmp_path: Path
) -> None:
    others = bias_frames(tmp_path / "new", level=1200)
    assert run("bias", "-q", "-o", "other/bias.fits", *others).code == 0
    keys = key_of("bias.fits"), key_of("other/bias.fits")
    assert run("rm", "-q", "bias.fits", "other/bias.fits").code == 0
    assert (lineage(run, "bias.fits")[0][0], lineage(run, "other/bias.fits")[0][0]) == keys


# What is not


def refused(run: InProcess, path: str | Path, slug: str, code: int = 2) -> None:
    before = Path(path).read_bytes() if Path(path).is_file() else b""
    for words in ((), ("-n",)):
        ran = run("rm", *words, path)
        assert ran.code == code and slug in ran.err and ran.out == "", ran.err
    assert not before or Path(path).read_bytes() == before


def test_raw_frames_are_sacred(made: Store, run: InProcess, tmp_path: Path) -> None:
    refused(run, tmp_path / "raw" / "bias0.fits", "protected")
    made.raw_record_path(str(tmp_path / "raw" / "bias0.fits")).write_text("{")
    refused(run, tmp_path / "raw" / "bias0.fits", "protected")
    made.raw_record_path(str(tmp_path / "raw" / "bias0.fits")).unlink()
    refused(run, tmp_path / "raw" / "bias0.fits", "would-overwrite")


def test_what_is_not_ours_stays(made: Store, run: InProcess) -> None:
    Path("mine.txt").write_text("mine")
    Path("link.fits").symlink_to("bias.fits")
    for path in ("mine.txt", "link.fits", "deep", ".awe/sequence"):
        refused(run, path, "would-overwrite")
    refused(run, "nowhere.fits", "no-such-file", 4)
    assert Path("link.fits").is_symlink() and Path("bias.fits").exists()


def test_a_product_without_its_record_is_not_called_foreign(made: Store, run: InProcess) -> None:
    sidecar(Path("bias.fits")).unlink()
    ran = run("rm", "bias.fits")
    assert ran.code == 4 and "no-record" in ran.err and "bias.fits.json is missing" in ran.err
    assert Path("bias.fits").exists() and "try: make the product again" in run("lineage", "bias.fits").err


def test_what_was_edited_stays(made: Store, run: InProcess) -> None:
    with Path("bias.fits").open("r+b") as stream:
        stream.seek(4000)
        stream.write(b"\x01\x02")
    refused(run, "bias.fits", "would-overwrite")
    sidecar(Path("deep/hotpix.fits")).write_text("{")
    refused(run, "deep/hotpix.fits", "no-record", 4)


def test_ready_and_published_ones_stay(made: Store, run: InProcess) -> None:
    append_verdict(made, key_of("bias.fits"), "ready", "fine", "me")
    refused(run, "bias.fits", "judged ready")
    append_verdict(made, key_of("bias.fits"), "none", "not so fine", "me")
    assert run("rm", "-n", "-q", "bias.fits").code == 0
    event = {"event": "publish", "identity": key_of("bias.fits"), "from": str(made.root), "to": "/up"}
    append_events(made, [{**event, "who": "me", "when": now(), "reason": ""}])
    refused(run, "bias.fits", "was published in /up")
    ran = run("rm", "bias.fits", "deep/hotpix.fits")
    assert ran.code == 2 and ran.lines == [str(made.root / "deep" / "hotpix.fits")], (
        "one does not stop the others"
    )


def test_the_nearest_word_counts(
    made: Store, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = init_store(tmp_path / "private")
    monkeypatch.setenv("AWE_PATH", f"{private.root}:{made.root}")
    append_verdict(made, key_of("bias.fits"), "ready", "fine", "me")
    append_verdict(private, key_of("bias.fits"), "good", "not that fine", "me")
    assert run("rm", "-n", "-q", "bias.fits").code == 0


def test_what_is_being_written_stays(made: Store, run: InProcess) -> None:
    with target_lock(made.root / "bias.fits"):
        refused(run, "bias.fits", "being-written", 7)


def test_a_folder_that_takes_no_records_keeps_its_products(made: Store, run: InProcess) -> None:
    if os.geteuid() == 0:
        made.records_path.rmdir()
        made.records_path.write_text("in the way")
    else:
        made.records_path.chmod(0o555)
    assert run("rm", "-q", "bias.fits").code == 7
    assert Path("bias.fits").exists() and Path("bias.fits.json").exists()


# Bad luck


def test_killed_at_any_moment_the_record_is_whole(made: Store, run: InProcess, tmp_path: Path) -> None:
    """The process is killed before each of its calls that change the disk, in turn."""
    script = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "left = int(sys.argv[1])\n"
        "def counted(function):\n"
        "    def call(*a, **k):\n"
        "        global left\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return function(*a, **k)\n"
        "    return call\n"
        "from awetools.core import rm, files\n"
        "for name in ('replace', 'fsync', 'unlink'): setattr(os, name, counted(getattr(os, name)))\n"
        "rm.forget = counted(rm.forget)\n"
        "rm.remove(Path('bias.fits'), [], '', 'me')\n"
    )
    frames = sorted((tmp_path / "raw").glob("*.fits"))
    before = lineage(run, "deep/hotpix.fits")
    killed = 0
    for moment in range(20):
        command = [sys.executable, "-c", script, str(moment)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
        assert done.returncode in (0, -signal.SIGKILL)
        assert [one[:2] for one in lineage(run, "deep/hotpix.fits")] == [one[:2] for one in before]
        assert lineage(run, "bias.fits")[0][0] == before[1][0], "its record is found whole"
        if Path("bias.fits").exists():
            assert run("verify", "-q", "--quick", "bias.fits").code == 0
        if done.returncode == 0:
            break
        killed += 1
        assert run("rm", "-q", "bias.fits").code == 0, "removing again goes on"
        assert run("bias", "-q", "-o", "bias.fits", *frames).code == 0
    assert killed >= 5 and not Path("bias.fits").exists()


def test_a_product_that_is_remade_meanwhile_is_not_lost(made: Store, run: InProcess, tmp_path: Path) -> None:
    frames = [str(one) for one in sorted((tmp_path / "raw").glob("*.fits"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    maker = subprocess.Popen(
        [sys.executable, "-m", "awetools", "bias", "-q", "-o", "bias.fits", *frames], env=environment
    )
    while maker.poll() is None:
        assert run("rm", "-q", "bias.fits").code in (0, 7)
        time.sleep(0.01)
    assert maker.returncode == 0
    assert Path("bias.fits").exists() == Path("bias.fits.json").exists()
    assert run("index", "--check").code == 0
    with Lookup([made]) as lookup:
        assert lookup.named("bias.fits")[0].inputs


# Versions


def test_superseded_versions_go_unless_they_are_needed(made: Store, run: InProcess, tmp_path: Path) -> None:
    frames = sorted((tmp_path / "raw").glob("*.fits"))
    (old,) = run("bias", "-q", "--clip-sigma", "4", *frames).lines
    (used,) = run("bias", "-q", "--clip-sigma", "5", *frames).lines
    (hotpix,) = run("hotpix", "-q", used).lines
    (newest,) = run("bias", "-q", "--clip-sigma", "6", *frames).lines
    paths = [made.root / "bias.fits", Path(old)]
    # The one of deep/hotpix.fits was eclipsed too, by that made from `used`.
    assert sorted(superseded("bias", [made])) == sorted(paths)
    assert superseded("hotpix", [made]) == [made.root / "deep" / "hotpix.fits"]
    assert run("rm", "--superseded", "bias", "clip=1").code in (2, 5)
    none = run("rm", "--superseded", "readnoise")
    assert none.code == 0 and "no readnoise is superseded" in none.err
    assert run("rm", "--superseded", "bias", "detector=nothing").code == 5
    append_verdict(made, key_of(old), "ready", "fine", "me")
    ran = run("rm", "--superseded", "bias", "detector=chip1")
    assert ran.code == 0 and ran.lines == [str(made.root / "bias.fits")] and "left out" in ran.err
    assert Path(used).exists() and Path(newest).exists() and Path(old).exists() and Path(hotpix).exists()
    append_verdict(made, key_of(newest), "bad", "bad", "me")
    assert superseded("bias", [made]) == [Path(old)], "what is bad eclipses nothing"
    assert run("rm", "-q", hotpix).code == 0
    assert run("validity", "-q", "--forever", "--reason", "kept", old).code == 0
    assert superseded("bias", [made]) == []
