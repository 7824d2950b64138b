"""Why two products differ: each planted cause is found, named, and the only one that is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core import publish
from awetools.core.kind import Kind, Result
from awetools.core.kinds import KINDS
from awetools.core.record import read_record, sidecar, to_bytes
from awetools.core.store import Store, init_store
from tests.support import InProcess, bias_frames, write_raw

Make = Callable[..., str]


@pytest.fixture
def make(run: InProcess) -> Make:
    """Makes a product of its own name; the arguments are those of the maker."""

    def made(command: str, name: str, *arguments: object) -> str:
        ran = run(command, "-q", "-o", name, *arguments)
        assert ran.code == 0, ran.err
        return name

    return made


def explained(run: InProcess, one: object, other: object) -> dict[str, Any]:
    ran = run("lineage", "--diff", "--check", "--json", one, other)
    found: dict[str, Any] = json.loads(ran.out)
    assert ran.code == (0 if found["same"] else 3), ran.err
    return found


def only_cause(run: InProcess, one: object, other: object) -> dict[str, Any]:
    found = explained(run, one, other)
    assert not found["same"]
    assert len(found["causes"]) == 1, "\n".join(one["sentence"] for one in found["causes"])
    (cause,) = found["causes"]
    assert isinstance(cause, dict)
    return cause


def inputs(product: str, role: str) -> list[str]:
    """The paths of the inputs of a role."""
    record = read_record(sidecar(Path(product)))
    names = [one["path"] for one in record["recipe"]["inputs"] if one["role"] == role]
    return [os.path.abspath(Path(product).parent / one) for one in names]


def chain(cause: dict[str, Any]) -> list[str]:
    return [step["kind"] for step in cause["chain"]]


@pytest.fixture
def first(reduced_store: Store, run: InProcess, make: Make) -> str:
    """A reduced frame, made with what the store has now."""
    return make("reduce", "a.fits", *inputs(run("query", "reduced").lines[0], "raw"))


@contextmanager
def other_recipe(name: str, **changes: object) -> Iterator[None]:
    """A kind as another version of awetools would have it."""
    kind = next(one for one in KINDS if one.name == name)
    before = {field: getattr(kind, field) for field in changes}
    for field, value in changes.items():
        object.__setattr__(kind, field, value)
    try:
        yield
    finally:
        for field, value in before.items():
            object.__setattr__(kind, field, value)


def recipe_with_other_bits(name: str) -> Callable[..., Result]:
    kind: Kind = next(one for one in KINDS if one.name == name)
    recipe = kind.recipe

    def other(**arguments: Any) -> Result:
        result = recipe(**arguments)
        planes = {**result.planes, "SCI": result.planes["SCI"] + np.float32(0.5)}
        return replace(result, planes=planes)

    return other


# The ten causes


def test_a_parameter_of_its_own(first: str, run: InProcess, make: Make) -> None:
    other = make("reduce", "b.fits", "--sky-mesh", 32, *inputs(first, "raw"))
    cause = only_cause(run, first, other)
    assert (cause["cause"], chain(cause)) == ("parameter", [])
    assert cause["one"] == {"value": 64, "origin": "built-in"}
    assert cause["other"] == {"value": 32, "origin": "command line"}
    ran = run("lineage", "--diff", first, other)
    assert ran.code == 0
    assert ran.lines[0] == (
        f"{first} and b.fits differ, because sky_mesh of the reduced is 64 (built-in) in the first, "
        "32 (command line) in the second"
    )


def test_a_parameter_of_a_bias_below_the_flat(first: str, run: InProcess, make: Make) -> None:
    (flat,) = inputs(first, "flat")
    (domeflat,) = inputs(flat, "domeflat")
    (bias,) = inputs(domeflat, "bias")
    other = make("bias", "x/bias.fits", "--clip-sigma", 4, *inputs(bias, "raw"))
    named = ("--hotpix", *inputs(domeflat, "hotpix"))
    made = make("domeflat", "x/domeflat.fits", "--bias", other, *named, *inputs(domeflat, "raw"))
    named = ("--no-twiflat", "--no-nightflat", "--coldpix", *inputs(flat, "coldpix"))
    made = make("flat", "x/flat.fits", *named, made)
    made = make("reduce", "b.fits", "--bias", bias, "--flat", made, *inputs(first, "raw"))
    cause = only_cause(run, first, made)
    assert (cause["cause"], chain(cause)) == ("parameter", ["flat", "domeflat", "bias"])
    assert cause["sentence"] == (
        f"because the flat differs ({Path(flat).name}, flat.fits), because the domeflat differs "
        f"({Path(domeflat).name}, domeflat.fits), because the bias differs ({Path(bias).name}, bias.fits), "
        "because clip_sigma of the bias is 3.0 (built-in) in the first, 4.0 (command line) in the second"
    )
    # All between may be deleted, as long as the records are kept.
    for one in ("x/flat.fits", "x/domeflat.fits", "x/bias.fits", flat, domeflat, bias):
        Path(one).unlink()
    assert only_cause(run, first, made)["text"] == cause["text"]


def test_a_raw_frame_less_in_an_ancestor(first: str, run: InProcess, make: Make) -> None:
    (flat,) = inputs(first, "flat")
    (domeflat,) = inputs(flat, "domeflat")
    left_out, *others = inputs(domeflat, "raw")
    made = make("domeflat", "domeflat.fits", *others)
    made = make("flat", "flat.fits", "--no-twiflat", "--no-nightflat", made)
    made = make("reduce", "b.fits", "--flat", made, *inputs(first, "raw"))
    cause = only_cause(run, first, made)
    assert (cause["cause"], chain(cause)) == ("frames", ["flat", "domeflat"])
    assert (cause["one"], cause["other"]) == ([left_out], None)
    assert cause["text"].startswith(
        f"the raw frame {Path(left_out).name} was left out of domeflat domeflat.fits"
    )
    turned = only_cause(run, made, first)
    assert (turned["one"], turned["other"]) == (None, [left_out])


def test_a_raw_frame_with_other_pixels(first: str, run: InProcess, make: Make, tmp_path: Path) -> None:
    from astropy.io import fits

    (bias,) = inputs(first, "bias")
    old, *others = inputs(bias, "raw")
    new = tmp_path / "copy" / Path(old.rpartition("[")[0] or old).name
    new.parent.mkdir()
    shutil.copy(old.rpartition("[")[0] or old, new)
    new.chmod(0o644)
    with fits.open(new, mode="update") as hdus:
        next(hdu for hdu in hdus if hdu.data is not None).data[5, 5] += 7
    address = f"{new}[{old.rpartition('[')[2]}" if "[" in old else str(new)
    made = make("bias", "bias.fits", address, *others)
    made = make("reduce", "b.fits", "--bias", made, *inputs(first, "raw"))
    cause = only_cause(run, first, made)
    assert (cause["cause"], chain(cause)) == ("pixels", ["bias"])
    assert f"{Path(address).name} holds other pixels" in cause["text"]


def test_a_corrected_gain(first: str, run: InProcess, make: Make) -> None:
    (raw,) = inputs(first, "raw")
    assert run("ingest", "-q", "--set", "gain_e_adu=2.5", raw.partition("[")[0]).code == 0
    cause = only_cause(run, first, make("reduce", "b.fits", raw))
    assert (cause["cause"], chain(cause)) == ("meta", [])
    assert cause["text"].startswith("gain_e_adu of the raw frame")
    assert cause["text"].endswith("set by hand to 2.5 (and with it read_noise_adu)")


def test_a_corrected_filter_is_the_cause_and_not_the_other_flat(
    first: str, run: InProcess, make: Make
) -> None:
    (raw,) = inputs(first, "raw")
    was = read_record(sidecar(Path(first)))["meta"]["filter"]
    now = "V" if was == "R" else "R"
    assert run("ingest", "-q", "--filter", now, raw.partition("[")[0]).code == 0
    made = make("reduce", "b.fits", raw)
    assert inputs(made, "flat") != inputs(first, "flat")
    cause = only_cause(run, first, made)
    assert cause["cause"] == "meta"
    assert f"is {was!r} in the first, {now!r} in the second, set by hand to {now}" in cause["text"]


def test_frames_of_two_filters_are_told_apart_by_these(first: str, run: InProcess) -> None:
    one = read_record(sidecar(Path(first)))["meta"]
    other, meta = next(
        (path, meta)
        for path in sorted(Path("reduced").glob("*/*.fits"))
        if (meta := read_record(sidecar(path))["meta"])["filter"] != one["filter"]
    )
    ran = run("lineage", "--diff", first, other)
    assert f"(filter {one['filter']}" in ran.lines[0] and f"(filter {meta['filter']}" in ran.lines[0]
    assert "detector" not in ran.lines[0]


@pytest.fixture
def two_nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess, make: Make) -> list[Path]:
    """Biases of one night, and a store with the read noises of two; the working directory."""
    frames = bias_frames(tmp_path / "raw")
    later = []
    for number in range(4):
        data = np.random.default_rng(number).normal(1000, 6, (64, 96)).round().astype(np.uint16)
        cards = {"DATE-OBS": f"2024-03-03T23:1{number}:00.000"}
        later.append(write_raw(tmp_path / "raw" / f"later{number}.fits", data, cards))
    store = init_store(tmp_path / "store")
    monkeypatch.chdir(store.root)
    assert run("ingest", "-q", *frames, *later).code == 0
    make("readnoise", "one.fits", *frames)
    make("readnoise", "two.fits", *later)
    return frames


def test_another_calibration_chosen(two_nights: list[Path], run: InProcess, make: Make) -> None:
    before = make("bias", "a.fits", *two_nights)
    assert Path(inputs(before, "readnoise")[0]).name == "one.fits"
    assert run("validity", "-q", "--forever", "--reason", "pickup on the 2nd", "two.fits").code == 0
    after = make("bias", "b.fits", *two_nights)
    assert Path(inputs(after, "readnoise")[0]).name == "two.fits"
    cause = only_cause(run, before, after)
    assert (cause["cause"], chain(cause)) == ("choice", [])
    assert (
        "bias a.fits took as readnoise one.fits of 2024-03-02 (chosen by the rule; valid 2024-"
        in cause["text"]
    )
    assert cause["text"].endswith(
        "bias b.fits took two.fits of 2024-03-03 (chosen by the rule; "
        "valid ever to ever, set by hand: pickup on the 2nd)"
    )
    assert [Path(one).name for one in (cause["one"], cause["other"])] == ["one.fits", "two.fits"]


def test_another_calibration_because_the_first_was_judged_bad(
    two_nights: list[Path], run: InProcess, make: Make
) -> None:
    from awetools.core.journal import append_verdict
    from awetools.core.store import search_path

    before = make("bias", "a.fits", *two_nights)
    key = read_record(sidecar(Path("one.fits")))["recipe_key"]
    append_verdict(search_path(Path.cwd())[0], key, "bad", "light leak", "me")
    after = make("bias", "b.fits", "--readnoise", "two.fits", *two_nights)
    text = only_cause(run, before, after)["text"]
    assert text.endswith(
        "(named; valid 2024-03-03T12:00:00.000 to 2024-03-04T12:00:00.000; 1 nights away; one.fits was judged bad)"
    )


def test_another_revision(first: str, run: InProcess, make: Make) -> None:
    with other_recipe("reduced", revision=99):
        other = make("reduce", "b.fits", *inputs(first, "raw"))
    cause = only_cause(run, first, other)
    assert (cause["cause"], cause["other"]) == ("revision", 99)


def test_other_software(first: str, run: InProcess, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    (bias,) = inputs(first, "bias")
    was = publish.software()
    with monkeypatch.context() as patch, other_recipe("bias", recipe=recipe_with_other_bits("bias")):
        patch.setattr(publish, "software", lambda: {**was, "numpy": "1.26.0"})
        other = make("bias", "bias.fits", *inputs(bias, "raw"))
    made = make("reduce", "b.fits", "--bias", other, *inputs(first, "raw"))
    cause = only_cause(run, first, made)
    assert (cause["cause"], chain(cause)) == ("software", ["bias"])
    assert cause["text"].endswith(f"numpy {was['numpy']} in the first, 1.26.0 in the second")


def test_edited_after_it_was_made(first: str, run: InProcess) -> None:
    from astropy.io import fits

    shutil.copy2(first, "b.fits")
    shutil.copy2(f"{first}.json", "b.fits.json")
    assert explained(run, first, "b.fits")["same"]
    fits.setval("b.fits", "OBSERVER", value="nobody")
    found = explained(run, first, "b.fits")
    assert found["same"]
    assert "edited after it was made, but not its pixels" in found["besides"][0]
    with fits.open("b.fits", mode="update") as hdus:
        hdus[0].data[3, 4] += 1
    cause = only_cause(run, first, "b.fits")
    assert cause["cause"] == "edited"
    assert "b.fits was edited after it was made" in cause["text"]


def test_an_optional_input_missing(first: str, run: InProcess, make: Make) -> None:
    cause = only_cause(run, first, make("reduce", "b.fits", "--no-hotpix", *inputs(first, "raw")))
    assert (cause["cause"], chain(cause), cause["other"]) == ("without", [], None)
    assert cause["text"].startswith("reduced b.fits was made without hotpix;")


def test_another_host_only(first: str, run: InProcess) -> None:
    shutil.copy2(first, "b.fits")
    record = read_record(sidecar(Path(first)))
    Path("b.fits.json").write_bytes(to_bytes({**record, "run": {**record["run"], "host": "elsewhere"}}))
    found = explained(run, first, "b.fits")
    assert found["same"] and not found["causes"]
    assert "elsewhere in the second" in found["besides"][0]
    ran = run("lineage", "--diff", "--check", first, "b.fits")
    assert ran.code == 0
    assert ran.lines[0] == f"{first} and b.fits are the same: one recipe, the same bits"


# More than one, and none that can be known


def test_two_causes_are_both_found_the_nearer_first(first: str, run: InProcess, make: Make) -> None:
    (bias,) = inputs(first, "bias")
    other = make("bias", "bias.fits", "--combine", "median", *inputs(bias, "raw"))
    made = make("reduce", "b.fits", "--bias", other, "--no-coldpix", *inputs(first, "raw"))
    found = explained(run, first, made)
    assert [one["cause"] for one in found["causes"]] == ["without", "parameter"]


def test_without_the_records_it_says_so(first: str, run: InProcess, make: Make) -> None:
    (bias,) = inputs(first, "bias")
    other = make("bias", "x/bias.fits", "--combine", "median", *inputs(bias, "raw"))
    made = make("reduce", "b.fits", "--bias", other, *inputs(first, "raw"))
    Path("x/bias.fits.json").unlink()
    Path("x/bias.fits").unlink()
    cause = only_cause(run, first, made)
    assert (cause["cause"], cause["text"]) == ("unknown", "no record of bias bias.fits is kept")


def test_same_bits_of_another_recipe(first: str, run: InProcess, make: Make) -> None:
    other = make("reduce", "b.fits", "--no-trails", "--trail-sigma", 9, *inputs(first, "raw"))
    again = make("reduce", "c.fits", "--no-trails", *inputs(first, "raw"))
    found = explained(run, other, again)
    assert found["same_bits"] and not found["same_recipe"]
    assert "have the same bits, but other recipes" in run("lineage", "--diff", other, again).out


def test_what_cannot_be_compared(first: str, run: InProcess) -> None:
    (raw,) = inputs(first, "raw")
    for names, code, text in (
        ((first,), 2, "--diff compares two products, not 1"),
        ((first, first, first), 2, "not 3"),
        ((first, "no\nsuch.fits"), 4, "no-such-file"),
        ((first, raw), 4, "--diff compares products"),
        (("--depth", 3, first, first), 2, "does not go with --diff"),
    ):
        ran = run("lineage", "--diff", *names)
        assert (ran.code, ran.out) == (code, "")
        assert text in ran.err
    assert run("lineage", "--check", first).code == 2
