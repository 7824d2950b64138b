"""A reference catalogue as an input: found, lost and moved; named by those who trace, and kept from being removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from awetools.core.products import open_product
from awetools.core.store import Store, init_store
from tests.support import InProcess

TRUTH = Path(".awe/refcats/truth")


@pytest.fixture
def solved(sky_store: Store, run: InProcess) -> str:
    """An astrometric solution of its frame alone."""
    (path,) = run("astrom", "-q", "--no-gastrom", run("query", "sources").lines[0]).lines
    return path


def state_of(run: InProcess, path: str) -> str:
    ran = run("lineage", "--json", path)
    assert ran.code == 0, ran.err
    (node,) = [one for one in map(json.loads, ran.lines) if one["kind"] == "refcat"]
    assert node["checked"] and node["record"] is None
    return str(node["state"])


def content_of(run: InProcess) -> str:
    (one,) = map(json.loads, run("refcat", "list", "--json").lines)
    return str(one["content"])


def test_a_catalogue_is_there_moved_changed_or_gone(solved: str, run: InProcess, sky_night: Path) -> None:
    assert state_of(run, solved) == "present"
    assert run("lineage", solved).lines[-1].endswith("present")
    TRUTH.rename(TRUTH.with_name("other"))
    assert state_of(run, solved) == "moved"
    assert "moved to" in run("lineage", solved).lines[-1]
    TRUTH.with_name("other").rename("truth-away")
    assert state_of(run, solved) == "deleted"
    assert run("lineage", solved).lines[-1].endswith("deleted"), "there is no record to be missed"
    run("refcat", "import", "-q", "truth", sky_night / "truth" / "catalog.fits", "--epoch", "2024.2")
    assert state_of(run, solved) == "changed"


def test_a_catalogue_is_named_by_name_and_by_place(sky_store: Store, run: InProcess) -> None:
    solutions = run("query", "astrom").lines
    for name in ("truth", str(TRUTH), str(TRUTH.absolute())):
        touched = run("lineage", "--impact", name)
        assert touched.code == 0, touched.err
        assert set(solutions) < set(touched.lines)
    forward = run("lineage", "--forward", "--depth", "1", "truth")
    assert forward.lines[0].startswith("refcat truth") and "gastrom" in forward.out
    assert run("lineage", "no-such-catalogue").code == 4
    assert run("lineage", "/").code == 4


def test_pictures_and_documents_have_it(solved: str, run: InProcess) -> None:
    dot = run("lineage", "--format", "dot", solved)
    (line,) = [one for one in dot.lines if "refcat" in one and "label=" in one]
    assert "truth" in line and "#ececec" in line
    document = json.loads(run("lineage", "--format", "prov", solved).out)
    content = content_of(run)
    assert f"raw:{content}" in document["entity"]
    assert "refcat" in run("lineage", "--format", "table", solved).out


def test_the_index_knows_its_content(sky_store: Store, run: InProcess) -> None:
    content = content_of(run)
    solutions = run("query", "astrom").lines
    assert run("query", "astrom", f"refcat.content={content}").lines == solutions
    assert (
        run("query", "sources", f"<-astrom.refcat.content={content}").lines == run("query", "sources").lines
    )
    assert run("query", "astrom", "--get", "refcat.content").lines[1:] == [content] * len(solutions)
    assert run("query", "astrom", "refcat=truth").lines == solutions
    assert run("query", "sources", f"<-astrom.refcat={TRUTH}").lines == run("query", "sources").lines
    assert run("query", "astrom", "not refcat = 'truth' or refcat='truth'").code == 2
    assert run("query", "astrom", "refcat<>truth").code == 5
    unknown = run("query", "astrom", "refcat=trut")
    assert unknown.code == 2 and "no such reference catalogue" in unknown.err
    assert run("query", "astrom", "refcat.content=0").code == 5
    assert run("query", "astrom", "not refcat").code == 5
    unknown = run("query", "astrom", "refcat.filter=R")
    assert unknown.code == 2 and "no field 'filter' of refcat" in unknown.err
    assert run("query", "astrom", "sources.reduced.raw.filter=R").lines == solutions


def test_a_script_takes_the_catalogue_from_where_it_is(solved: str, tmp_path: Path, run: InProcess) -> None:
    shutil.move(TRUTH, TRUTH.with_name("elsewhere"))
    ran = run("lineage", "--script", solved)
    assert ran.code == 0, ran.err
    assert f"--refcat={TRUTH.absolute().with_name('elsewhere')}" in ran.out
    assert "--alone" not in ran.out
    shutil.move(TRUTH.with_name("elsewhere"), tmp_path / "elsewhere")
    lost = run("lineage", "--script", solved)
    assert lost.code == 4
    assert "the reference catalogue is gone" in lost.err and "try: awe-refcat import" in lost.err


def test_a_solution_of_all_is_made_again_with_the_same_bits(sky_store: Store, run: InProcess) -> None:
    ran = run("lineage", "--rerun", "--json", run("query", "astrom").lines[0])
    assert ran.code == 0, ran.err
    again = json.loads(ran.lines[0])
    assert again["same_bits"] and again["same_recipe"]


def test_a_difference_is_told_of_the_catalogue(solved: str, sky_night: Path, run: InProcess) -> None:
    run("refcat", "import", "-q", "deep", sky_night / "truth" / "catalog.fits", "--epoch", "2024.2")
    source = run("query", "sources").lines[0]
    (other,) = run("astrom", "-q", "--no-gastrom", "--refcat", "deep", source).lines
    told = run("lineage", "--diff", solved, other)
    assert "the reference catalogue is truth (" in told.out and "raw frame" not in told.out


def test_why_names_the_catalogues_and_the_solution(solved: str, tmp_path: Path, run: InProcess) -> None:
    table = tmp_path / "far.csv"
    table.write_text("ra,dec\n10,60\n10.1,60.1\n")
    run("refcat", "import", "-q", "far", table, "--epoch", "2016")
    source = run("query", "sources").lines[0]
    asked = [json.loads(line) for line in run("why", "--json", "--role", "refcat", source).lines]
    assert [(Path(one["path"]).name, one["verdict"]) for one in asked] == [
        ("truth", "chosen"),
        ("far", "unfit"),
    ]
    assert "no stars within 1 deg" in asked[1]["reason"]
    (holder,) = [json.loads(line) for line in run("why", "--json", "--role", "gastrom", source).lines][:1]
    assert holder["path"] == run("query", "gastrom").lines[0] and holder["verdict"] == "chosen"
    own = {one["role"]: one for one in map(json.loads, run("why", "--json", solved).lines) if one["used"]}
    assert own["refcat"]["path"] == str(TRUTH.absolute()) and own["refcat"]["used"]
    assert own["gastrom"]["verdict"] == "without"


def test_a_catalogue_that_products_need_is_not_removed(
    sky_store: Store, sky_night: Path, run: InProcess
) -> None:
    count = len(run("query", "astrom").lines)
    refused = run("refcat", "remove", "truth")
    assert refused.code == 2
    assert f"{count} astrom" in refused.err and "--force" in refused.err
    assert TRUTH.is_dir()
    run("refcat", "import", "-q", "copy", sky_night / "reference.fits")
    assert run("refcat", "remove", "copy").code == 0, "the same stars are there twice"
    assert run("refcat", "remove", "--force", "truth").code == 0
    assert not TRUTH.exists()


def test_a_catalogue_that_comes_first_outdates(
    sky_store: Store, sky_night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    nearer = init_store(tmp_path / "nearer")
    monkeypatch.setenv("AWE_PATH", f"{nearer.root}:{sky_store.root}")
    ran = run("refcat", "import", "truth", sky_night / "truth" / "catalog.fits", "--epoch", "2024.2")
    assert ran.code == 0
    assert "it comes before" in ran.err and "are outdated" in ran.err and "4 astrom" in ran.err


def test_publishing_leaves_the_catalogue(
    solved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    here = Store(Path.cwd())
    upper = init_store(tmp_path / "upper")
    monkeypatch.setenv("AWE_PATH", f"{here.root}:{upper.root}")
    assert run("judge", "-q", solved, "ready", "--reason", "a test").code == 0
    ran = run("publish", "--to", upper.root, solved)
    assert ran.code == 0, ran.err
    assert "the reference catalogue stays where it is" in ran.err
    monkeypatch.setenv("AWE_PATH", str(upper.root))
    monkeypatch.chdir(upper.root)
    (above,) = run("query", "astrom").lines
    assert state_of(run, above) in ("present", "deleted")
    assert run("verify", upper.root).code == 0
    assert open_product(Path(above)).key == open_product(Path(solved)).key
    shutil.rmtree(here.root)
    assert state_of(run, above) == "deleted"
    assert run("verify", upper.root).code in (0, 4)


def test_a_catalogue_that_is_judged_bad_serves_no_more(solved: str, sky_night: Path, run: InProcess) -> None:
    source = run("query", "sources").lines[0]
    assert run("lineage", "--invalidate", "--reason", "a test", "truth").code == 0
    named = run("astrom", "--refcat", "truth", source)
    assert named.code == 5 and "judged bad" in named.err
    alone = run("astrom", source)
    assert alone.code == 5 and "every reference catalogue is judged bad: truth" in alone.err
    run("refcat", "import", "-q", "deep", sky_night / "truth" / "catalog.fits", "--epoch", "2024.2")
    assert run("astrom", "-q", source).code == 0
    (bad,) = [
        one
        for one in map(json.loads, run("why", "--json", "--role", "refcat", source).lines)
        if one["verdict"] == "unfit"
    ]
    assert (Path(bad["path"]).name, bad["reason"]) == ("truth", "judged bad")
    assert run("lineage", "--invalidate", "--undo", "--reason", "a test", "truth").code == 0
    assert run("astrom", "-u", "--no-gastrom", "--refcat", "truth", source).lines == [solved]
