"""Is it up to date, and if not for which named reason; -u, -n, --why, --check; overrides; moved frames."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from awetools.core.products import open_product
from awetools.core.record import read_record
from awetools.core.store import Store, init_store
from tests.support import InProcess, awe, bias_frames, program, write_raw


@pytest.fixture
def made(tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Five biases and a master bias of the first four, `bias.fits`, in a store."""
    store = init_store(tmp_path / "store")
    frames = bias_frames(tmp_path / "raw", count=5)
    monkeypatch.chdir(store.root)
    assert run("ingest", "-q", *frames).code == 0
    assert run("bias", "-q", "-o", "bias.fits", *frames[:4]).code == 0
    return frames


def why(run: InProcess, *arguments: object) -> str:
    ran = run("bias", "--why", "-o", "bias.fits", *arguments)
    assert ran.code == 0, ran.err
    return ran.out.partition("\t")[2].strip()


def test_up_to_date_does_nothing_and_says_so(made: list[Path], run: InProcess) -> None:
    before = Path("bias.fits").stat()
    assert why(run, *made[:4]) == "up to date"
    assert run("bias", "--check", "-o", "bias.fits", *made[:4]).code == 0
    ran = run("bias", "-u", "-o", "bias.fits", *made[:4])
    assert (ran.code, ran.lines) == (0, ["bias.fits"]) and "up to date" in ran.err
    after = Path("bias.fits").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_missing(made: list[Path], run: InProcess) -> None:
    Path("bias.fits").unlink()
    assert why(run, *made[:4]).startswith("missing")


def test_parameters(made: list[Path], run: InProcess) -> None:
    reason = why(run, "--clip-sigma", "4", *made[:4])
    assert reason.startswith("parameters") and "clip_sigma was 3.0, is 4.0" in reason


def test_members(made: list[Path], run: InProcess) -> None:
    reason = why(run, *made)
    assert reason.startswith("members") and "bias4.fits" in reason
    reason = why(run, *made[1:4])
    assert reason.startswith("members") and "gone: bias0.fits" in reason


def test_inputs_when_a_raw_frame_was_edited(made: list[Path], run: InProcess) -> None:
    data = bytearray(made[0].read_bytes())
    data[-2881] ^= 4
    made[0].write_bytes(bytes(data))
    reason = why(run, *made[:4])
    assert reason.startswith("inputs") and "bias0.fits" in reason


def test_inputs_when_a_header_value_that_is_read_was_corrected(made: list[Path], run: InProcess) -> None:
    assert run("ingest", "-q", "--set", "saturation_adu=50000", *made[:4]).code == 0
    reason = why(run, *made[:4])
    assert reason.startswith("inputs") and "saturation_adu" in reason


def test_a_value_that_is_not_read_changes_nothing(made: list[Path], run: InProcess) -> None:
    assert run("ingest", "-q", "--set", "object=something", *made[:4]).code == 0
    assert why(run, *made[:4]) == "up to date"


def test_recipe(made: list[Path], run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from awetools.core.batch import Outcome, Request
    from awetools.core.batch import run as make
    from awetools.core.kinds import KINDS
    from awetools.core.kinds.bias import BIAS
    from awetools.core.workspace import here

    raised = replace(BIAS, revision=BIAS.revision + 1)
    names = [str(path) for path in made[:4]]
    (outcome,) = make(Request(raised, KINDS, names, here(), output=Path("bias.fits"), mode="why"))
    assert isinstance(outcome, Outcome)
    assert [one.name for one in outcome.reasons] == ["recipe"]


def test_edited(made: list[Path], run: InProcess) -> None:
    with Path("bias.fits").open("r+b") as stream:
        stream.seek(5760)
        stream.write(b"x")
    assert why(run, *made[:4]).startswith("edited")
    assert run("bias", "--check", "-o", "bias.fits", *made[:4]).code == 3
    assert run("bias", "-u", "-o", "bias.fits", *made[:4]).code == 2


def test_better(reduced_store: Store, run: InProcess) -> None:
    science = awe("query", "raw_science", "detector=sim1", "filter=R", "--limit", "1").strip()
    # The store's fringes were made after its reduced frames.
    ran = run(
        "reduce",
        "--why",
        "--no-fringe",
        "-o",
        awe("query", "reduced", "detector=sim1", "filter=R", "--limit", "1").strip(),
        science,
    )
    assert ran.out.rstrip().endswith("up to date")
    awe("bias", "-q", "--clip-sigma", "5", stdin=awe("query", "raw_bias", "detector=sim1"))
    target = awe("query", "reduced", "detector=sim1", "filter=R", "--limit", "1").strip()
    reason = run("reduce", "--why", "--no-fringe", "-o", target, science).out
    assert "better: bias" in reason


def test_dry_run_makes_nothing(made: list[Path], run: InProcess) -> None:
    ran = run("bias", "-n", "-o", "new.fits", *made)
    assert ran.code == 0 and ran.lines == ["new.fits"] and "would make" in ran.err
    assert not Path("new.fits").exists()


def test_an_older_product_is_touched_by_update_and_keeps_its_bytes(made: list[Path], run: InProcess) -> None:
    before = Path("bias.fits").read_bytes()
    future = Path("bias.fits").stat().st_mtime_ns + 10**9
    os.utime(made[0], ns=(future, future))
    os.utime(made[0], ns=(future, future))
    assert run("bias", "-q", "-u", "-o", "bias.fits", *made[:4]).code == 0
    assert Path("bias.fits").read_bytes() == before
    assert open_product(Path("bias.fits")).kind == "bias"


def test_a_moved_frame_keeps_its_overrides(made: list[Path], run: InProcess, tmp_path: Path) -> None:
    run("ingest", "-q", "--set", "object=special", made[4])
    moved = tmp_path / "elsewhere.fits"
    shutil.move(made[4], moved)
    run("imstat", moved)
    rows = [json.loads(line) for line in run("query", "raw", "object=special", "--json").lines]
    assert str(moved) in [row["path"] for row in rows]


def test_an_override_is_on_record_and_shown(made: list[Path], run: InProcess) -> None:
    run("ingest", "-q", "--filter", "R", made[0])
    assert "override" in next(line for line in run("header", made[0]).lines if line.startswith("filter\t"))
    run("ingest", "-q", "--again", made[0])
    assert "filter\tR" in run("header", made[0]).out, "a later registration keeps it"


def test_a_frame_still_being_written_is_refused(made: list[Path], run: InProcess, tmp_path: Path) -> None:
    growing = tmp_path / "growing.fits"
    growing.write_bytes(made[0].read_bytes()[:-3000])
    ran = run("ingest", "--wait", "0.3", growing)
    assert ran.code == 7 and "being-written" in ran.err and "--wait" in ran.err
    past = growing.stat().st_mtime - 60
    os.utime(growing, (past, past))
    assert "truncated" in run("ingest", growing).err


def test_frames_with_the_same_pixels_are_named(made: list[Path], run: InProcess, tmp_path: Path) -> None:
    copy = tmp_path / "copy.fits"
    shutil.copy(made[0], copy)
    ran = run("ingest", copy)
    assert ran.code == 0 and "same pixels as" in ran.err and "copy.fits" in ran.err


def test_flags_limits_and_accept_flags(made: list[Path], run: InProcess) -> None:
    Path("awe.toml").write_text("[bias.limits]\nlevel_adu = [0, 10]\n")
    ran = run("bias", "-o", "flagged.fits", *made)
    assert ran.code == 0 and "flagged" in ran.err and "level_adu" in ran.err
    record = read_record(Path("flagged.fits.json"))
    assert record["quality"]["flag_names"] == ["level_adu"] and record["quality"]["flags"] == 1
    (limit,) = [one for one in record["quality"]["limits"] if one["measure"] == "level_adu"]
    assert limit["margin"] == pytest.approx(10 - limit["value"])
    ran = run("bias", "--strict", "-o", "strict.fits", *made)
    assert ran.code == 3 and not Path("strict.fits").exists()
    data = np.random.default_rng(1).normal(1300, 9, (64, 96)).astype(np.uint16)
    science = write_raw(
        Path("science.fits"), data, {"IMAGETYP": "object", "EXPTIME": 30.0, "FILTER": "R", "RDNOISE": 7.5}
    )
    words = ("-o", "red.fits", "--bias", "flagged.fits", "--no-flat", science)
    ran = run("reduce", *words)
    assert ran.code == 5 and "flagged" in ran.err and "--accept-flags" in ran.err
    assert run("reduce", "-q", "--accept-flags", *words).code == 0
    (used,) = [one for one in read_record(Path("red.fits.json"))["recipe"]["inputs"] if one["role"] == "bias"]
    assert used["accepted_flags"] == 1


def test_two_frames_of_one_name_never_share_a_product(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        Path(folder).mkdir()
        data = np.random.default_rng(len(folder)).normal(300, 9, (64, 96)).astype(np.uint16)
        write_raw(
            Path(folder, "s.fits"),
            data,
            {"IMAGETYP": "object", "EXPTIME": 9.0, "RDNOISE": 7.0, "FILTER": "R"},
        )
    ran = run("reduce", "--no-bias", "--no-flat", "--out-dir", "out", "a/s.fits", "b/s.fits")
    assert ran.code == 2 and "a/s.fits" in ran.err and "b/s.fits" in ran.err
    assert not Path("out").exists()


def test_a_new_camera_table_translates_registered_frames_again(made: list[Path], run: InProcess) -> None:
    assert "unchanged" in run("ingest", *made).err
    table = Path(".awe/cameras/testcam.toml")
    table.write_text(
        "name = 'testcam'\nextends = 'generic'\npriority = 90\nrecognise = \"INSTRUME = 'testcam'\"\n"
    )
    assert "5 registered" in run("ingest", *made).err
    assert all(
        "testcam" in line for line in run("query", "raw", "--get", "camera", "--format", "csv").lines[1:]
    )
    table.write_text(table.read_text() + "[settings.bias]\nclip_sigma = 3.5\n")
    assert "unchanged" in run("ingest", *made).err, "settings of kinds do not change what a header means"
    assert "clip_sigma was 3.0, is 3.5" in why(run, *made[:4])


def test_a_frame_still_being_written_is_waited_for(made: list[Path], run: InProcess, tmp_path: Path) -> None:
    import threading
    import time

    growing, whole = tmp_path / "growing.fits", made[0].read_bytes()
    growing.write_bytes(whole[:3000])

    def finish() -> None:
        time.sleep(0.4)
        growing.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    writer = threading.Thread(target=finish)
    writer.start()
    ran = run("ingest", "--wait", "20", growing)
    writer.join()
    assert ran.code == 0 and ran.lines == [str(growing)], ran.err


def test_a_moved_frame_that_is_registered_again_replaces_its_old_place(
    made: list[Path], run: InProcess, tmp_path: Path
) -> None:
    run("ingest", "-q", "--set", "object=special", made[0])
    folder = tmp_path / "moved"
    folder.mkdir()
    shutil.move(made[0], folder / "b0.fits")
    ran = run("ingest", folder)
    assert ran.code == 0 and "moved from" in ran.err and "bias0.fits" in ran.err
    paths = run("query", "raw_bias").lines
    assert len(paths) == 5 and str(folder / "b0.fits") in paths and str(made[0]) not in paths
    assert run("query", "raw", "object=special").lines == [str(folder / "b0.fits")]
    assert run("bias", "-q", "-u", "-o", "bias.fits", *paths[:1], *paths[1:]).code == 0


def test_a_frame_that_is_gone_is_left_out_and_named(made: list[Path], run: InProcess) -> None:
    made[0].unlink()
    ran = run("query", "raw_bias")
    assert len(ran.lines) == 4 and "bias0.fits" in ran.err and "gone" in ran.err


def test_a_deleted_calibration_is_not_chosen(reduced_store: Store, run: InProcess) -> None:
    science = awe("query", "raw_science", "detector=sim1", "filter=R", "--limit", "1").strip()
    Path(awe("query", "bias", "detector=sim1").strip()).unlink()
    ran = run("why", "--role", "bias", science)
    assert ran.code == 5 and "its file is gone" in ran.out
    ran = run("reduce", "-o", "red.fits", science)
    assert ran.code == 5 and "no-match" in ran.err and "its file is gone" in ran.err


def test_in_a_store_the_reason_is_how_it_differs_from_the_one_before(store: Store, run: InProcess) -> None:
    biases = awe("query", "raw_bias", "detector=sim1").split()
    assert run("bias", "-q", "--no-readnoise", *biases).code == 0
    ran = run("bias", "--why", "--no-readnoise", "--clip-sigma", "5", *biases)
    assert "parameters: clip_sigma was 3.0, is 5.0" in ran.out
    assert run("bias", "-q", "--no-readnoise", "--clip-sigma", "5", *biases).code == 0
    assert len(run("query", "bias", "detector=sim1").lines) == 2
    (newest,) = run("query", "bias", "detector=sim1", "--newest").lines
    assert read_record(Path(newest + ".json"))["recipe"]["parameters"]["clip_sigma"]["value"] == 5.0


def test_a_calibration_that_is_named_outside_its_validity_is_said(
    reduced_store: Store, run: InProcess, tmp_path: Path
) -> None:
    science = Path(awe("query", "raw_science", "detector=sim1", "filter=R", "--limit", "1").strip())
    assert (
        run(
            "ingest", "-q", "--set", "obs_start=2024-03-09T03:00:00", "--set", "night=2024-03-08", science
        ).code
        == 0
    )
    bias = awe("query", "bias", "detector=sim1").strip()
    ran = run("reduce", "--bias", bias, "--no-flat", "-o", tmp_path / "r.fits", science)
    assert ran.code == 0 and "was named, although it ended" in ran.err


def test_params_are_those_in_force_for_the_first_input(store: Store, run: InProcess) -> None:
    Path(".awe/awe.toml").write_text("[filter.R.domeflat]\nclip_sigma = 3.25\n")
    flats = awe("query", "raw_domeflat", "detector=sim1", "filter=R").split()
    shown = {line.split("\t")[0]: line.split("\t") for line in run("domeflat", "--params", *flats).lines}
    assert shown["clip_sigma"][1] == "3.25" and "[filter.R]" in shown["clip_sigma"][3]
    assert shown["overscan_mode"][1:] == ["rows-smooth", "-", "camera simulator"]
    assert "clip_sigma\t4.0" in program("domeflat", "--params", stdin="", cwd=store.root).out


def test_what_can_be_asked_is_listed(store: Store, run: InProcess) -> None:
    listed = {line.split("\t")[0] for line in run("query", "bias", "--fields").lines}
    assert {"path", "night", "exptime_s", "level_adu", "imstat.stdev", "flag_names"} <= listed
    assert "level_adu" not in {line.split("\t")[0] for line in run("query", "raw", "--fields").lines}
    for name in sorted(listed):
        assert run("query", "bias", "--get", name).code == 5, f"{name} is known, though there is no bias yet"


def test_what_was_set_by_hand_can_be_taken_back(made: list[Path], run: InProcess) -> None:
    run("ingest", "-q", "--filter", "R", "--set", "object=special", made[0])
    assert run("query", "raw", "filter=R").lines == [str(made[0])]
    assert run("ingest", "-q", "--unset", "filter", made[0]).code == 0
    assert run("query", "raw", "filter=R").code == 5
    assert run("query", "raw", "object=special").lines == [str(made[0])]
    assert run("ingest", "--unset", "filtre", made[0]).code == 2


def test_a_registration_can_be_taken_back(made: list[Path], run: InProcess) -> None:
    before = made[1].read_bytes()
    made[0].unlink()
    ran = run("ingest", "--forget", *made[:2])
    assert ran.code == 0 and ran.lines == [str(path) for path in made[:2]] and "2 forgotten" in ran.err
    ran = run("query", "raw")
    assert ran.lines == [str(path) for path in made[2:]] and "gone" not in ran.err
    assert made[1].read_bytes() == before
    ran = run("ingest", "--forget", made[1])
    assert ran.code == 4 and "not registered" in ran.err


def cooled(directory: Path, name: str, set_point: float, **cards: object) -> list[Path]:
    """Three biases of an SBIG-style camera at a temperature."""
    rng = np.random.default_rng(ord(name))
    directory.mkdir(exist_ok=True)
    about = {
        "INSTRUME": "SBIG ST-9",
        "IMAGETYP": "Bias Frame",
        "SET-TEMP": set_point,
        "CCD-TEMP": set_point,
        **cards,
    }
    return [
        write_raw(
            directory / f"{name}{n}.fits",
            rng.normal(1000, 5, (64, 96)).round().astype(np.uint16),
            {**about, "DATE-OBS": f"2024-03-02T23:1{n}:00.000"},
        )
        for n in range(3)
    ]


def test_groups_under_out_dir_never_share_a_name(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    warm, cold = cooled(tmp_path / "raw", "w", -5.0), cooled(tmp_path / "raw", "c", -10.0)
    ran = run("bias", "-q", "--out-dir", "out", *warm, *cold)
    assert ran.code == 0 and len(set(ran.lines)) == 2, ran.err
    for line in ran.lines:
        degrees = read_record(Path(line + ".json"))["meta"]["temperature_set_c"]
        assert line.endswith(f"_{degrees:g}C.fits")
    binned = cooled(tmp_path / "raw", "b", -5.0, XBINNING=2, YBINNING=2)
    ran = run("bias", "-q", "--out-dir", "other", *warm, *binned)
    assert ran.code == 2 and "w0.fits" in ran.err and "b0.fits" in ran.err and "binning" in ran.err
    assert not Path("other").exists(), "nothing is made when two would become one"


def test_products_of_products_under_out_dir_never_share_a_name(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = bias_frames(tmp_path / "raw")
    for sigma in (3, 4):
        assert run("bias", "-q", "--clip-sigma", sigma, "-o", f"b{sigma}.fits", *frames).code == 0
    ran = run("hotpix", "-q", "--out-dir", "out", "b3.fits", "b4.fits")
    assert ran.code == 2 and "b3.fits" in ran.err and "b4.fits" in ran.err and not Path("out").exists()
    assert run("hotpix", "-q", "--out-dir", "out", "b3.fits").code == 0
