"""What programs say to a person who is lost: the next command, and nothing ten times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from awetools.core.store import init_store
from tests.support import InProcess, bias_frames, write_raw


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> InProcess:
    init_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    return InProcess(capfd)


@pytest.mark.parametrize(
    "words, helps",
    [
        (("nightflat",), "try: awe-nightflat --help"),
        (("coadd",), "try: awe-coadd --help"),
        (("raw",), "try: awe-ingest DIRECTORY"),
        (("raw_dark",), "try: awe-query raw --get path,frame_type,object"),
        (("bias", "night=2024-03-02"), "try: awe-query bias --get night"),
    ],
)
def test_a_question_without_an_answer_names_another_command(
    words: tuple[str, ...], helps: str, run: InProcess
) -> None:
    ran = run("query", *words)
    assert ran.code == 5 and helps in ran.err


def test_an_unknown_field_names_the_list_of_fields(run: InProcess) -> None:
    for words in (("bias", "levl_adu=3"), ("bias", "--get", "levl_adu"), ("bias", "--order", "levl_adu")):
        ran = run("query", *words)
        assert ran.code == 2 and "level_adu" in ran.err and "try: awe-query bias --fields" in ran.err


def test_what_is_the_same_for_all_frames_is_said_once(tmp_path: Path, run: InProcess) -> None:
    assert run("bias", "-q", *bias_frames(tmp_path / "raw")).code == 0
    rng = np.random.default_rng(4)
    frames = [
        write_raw(
            tmp_path / "raw" / f"s{number}.fits",
            rng.normal(1300, 15, (64, 96)).astype(np.uint16),
            {"IMAGETYP": "object", "EXPTIME": 30.0, "DATE-OBS": f"2024-03-02T23:3{number}:00.000"},
        )
        for number in range(3)
    ]
    ran = run("reduce", "--no-flat", *frames)
    assert ran.code == 0, ran.err
    said = [line for line in ran.err.splitlines() if "by the camera table" in line]
    assert len(said) == 2 and "the same for 2 more" in said[1]
    ran = run("reduce", "--no-flat", "-v", *frames)
    assert sum("by the camera table" in line for line in ran.err.splitlines()) == 3
    assert "the same for" not in ran.err
