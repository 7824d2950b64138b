"""Several stores on AWE_PATH: what is shown, switched, read, written, and what happens when one goes away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from awetools.core.errors import NoStore, Unavailable
from awetools.core.indexing.index import open_index, rebuild
from awetools.core.journal import append_verdict
from awetools.core.record import read_record, sidecar
from awetools.core.sharing.contexts import contexts_file, standings
from awetools.core.store import Store, init_store, search_path
from tests.support import InProcess, awe, bias_frames


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """Three empty stores on AWE_PATH; in the first."""
    found = [init_store(tmp_path / name) for name in ("own", "project", "public")]
    monkeypatch.setenv("AWE_PATH", ":".join(str(one.root) for one in found))
    monkeypatch.chdir(found[0].root)
    return found


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    store = init_store(root / "store")
    frames = bias_frames(root / "raw")
    awe("ingest", "-q", *frames, cwd=store.root)
    awe("make", "-q", "bias", cwd=store.root)
    return root


def put_into(store: Store, made: Path) -> Path:
    """The products of the store that was made, copied into another with all that belongs to them."""
    for name in ("bias", "readnoise", ".awe/raw"):
        shutil.copytree(made / "store" / name, store.root / name, dirs_exist_ok=True)
    rebuild(store)
    (found,) = store.root.glob("bias/*/*.fits")
    return found


def judge(store: Store, path: Path, verdict: str) -> None:
    append_verdict(store, read_record(sidecar(path))["recipe_key"], verdict, "test", "tester")


# Showing


def test_the_stores_are_shown_in_order(stores: list[Store], run: InProcess, _made: Path) -> None:
    put_into(stores[1], _made)
    ran = run("context", "--json")
    shown = [json.loads(line) for line in ran.lines]
    assert ran.code == 0
    assert [one["root"] for one in shown] == [str(one.root) for one in stores]
    assert [one["written"] for one in shown] == [True, False, False]
    assert [one["products"] for one in shown] == [0, 2, 0]
    assert [one["raw_frames"] for one in shown] == [0, 4, 0]
    assert shown[1]["bytes"] == sum(one.stat().st_size for one in stores[1].root.glob("*/*/*.fits"))
    assert [one["publishes_to"] for one in shown] == [str(stores[1].root), str(stores[2].root), None]
    assert run("context").lines[0].split("\t")[:3] == ["order", "name", "root"]


def test_permissions_are_shown_as_they_are(stores: list[Store]) -> None:
    for store, mode in zip(stores, (0o700, 0o750, 0o755), strict=True):
        store.awe.chmod(mode)
    own, project, public = standings(stores)
    assert own.readers == own.writers and " and the group " not in own.readers
    assert " and the group " in project.readers and " and the group " not in project.writers
    assert public.readers == "everyone" and public.writers == own.writers


def test_without_a_store(tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("context")
    assert ran.code == 4 and "awe-init" in ran.err


def test_a_store_that_cannot_be_read_is_named_and_the_others_shown(
    stores: list[Store], run: InProcess, _made: Path
) -> None:
    put_into(stores[0], _made)
    open_index(stores[1]).close()
    Path(os.path.realpath(stores[1].index_path)).write_bytes(b"rubbish" * 1000)
    ran = run("context", "--json")
    shown = [json.loads(line) for line in ran.lines]
    assert ran.code == 7 and str(stores[1].root) in ran.err
    assert [one["products"] for one in shown] == [2, None, 0]


# Switching


def test_a_context_is_kept_and_switched_to_by_a_shell(stores: list[Store], run: InProcess) -> None:
    names = [one.root for one in stores]
    assert run("context", "define", "survey", *names).code == 0
    assert (
        run("context", "list", "--json").out
        == json.dumps({"name": "survey", "stores": [str(one) for one in names]}) + "\n"
    )
    switch = run("context", "use", "survey").out
    said = subprocess.run(
        ["sh", "-c", 'unset AWE_PATH; eval "$1"; echo "$AWE_PATH"', "sh", switch],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == os.environ["AWE_PATH"]
    assert "this is the context survey" in run("context").err
    assert run("context", "forget", "survey").code == 0
    ran = run("context", "use", "survey")
    assert ran.code == 2 and ran.out == ""
    assert all(one.awe.is_dir() for one in stores)


def test_nothing_but_the_environment_decides(
    stores: list[Store], run: InProcess, monkeypatch: object
) -> None:
    before = run("context", "--json").lines
    run("context", "define", "other", stores[2].root)
    run("context", "use", "other")
    after = run("context", "--json").lines
    assert after == before


def test_directories_can_be_used_without_a_name(stores: list[Store], run: InProcess) -> None:
    ran = run("context", "use", "../public", ".", "../public")
    assert ran.out == f"export AWE_PATH={stores[2].root}:{stores[0].root}\n"
    assert run("context", "use", "--shell", "fish", ".").out == f"set -gx AWE_PATH {stores[0].root}\n"
    assert run("context", "use", "--shell", "csh", ".").out == f"setenv AWE_PATH {stores[0].root}\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["use", "surwey"], 2, "nearest: survey"),
        (["use"], 2, "use what"),
        (["use", "./nothing"], 4, "not a store"),
        (["define", "x"], 2, "define NAME"),
        (["define", "a b", "."], 2, "letters"),
        (["define", "$(rm)", "."], 2, "letters"),
        (["define", "x", "/"], 4, "not a store"),
        (["forget", "surwey"], 2, "nearest: survey"),
        (["list", "x"], 2, "takes no"),
        (["--shell", "fish"], 2, "goes with use"),
        (["rename", "x"], 2, "usage"),
    ],
)
def test_what_makes_no_sense_is_said(
    stores: list[Store], run: InProcess, words: list[str], code: int, says: str
) -> None:
    run("context", "define", "survey", ".")
    ran = run("context", *words)
    assert ran.code == code and says in ran.err and ran.out == "", ran.err


def test_names_with_quotes_and_blanks_come_through_the_shell(tmp_path: Path, run: InProcess) -> None:
    store = init_store(tmp_path / 'it\'s a "$HOME" \u00fc')
    assert run("context", "define", "odd", store.root).code == 0
    switch = run("context", "use", "odd").out
    said = subprocess.run(
        ["sh", "-c", 'eval "$1"; echo "$AWE_PATH"', "sh", switch], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(store.root)
    colon = init_store(tmp_path / "a:b")
    ran = run("context", "use", colon.root)
    assert ran.code == 2 and "no name has one" in ran.err


def test_a_file_of_contexts_that_is_wrong_is_named(run: InProcess) -> None:
    contexts_file().parent.mkdir(parents=True)
    for text in ("survey = 3\n", "[survey]\nstores = []\n", "[survey\n"):
        contexts_file().write_text(text)
        ran = run("context", "list")
        assert ran.code == 2 and str(contexts_file()) in ran.err


def test_names_of_contexts_are_completed(stores: list[Store], run: InProcess) -> None:
    from awetools.commands.completion import SHELLS
    from awetools.commands.context import command
    from awetools.commands.messages import Messenger

    run("context", "define", "survey", ".")

    def completed(*words: str) -> list[str]:
        answer = SHELLS["bash"](command, {"obj": Messenger("x")}, "awe-context", "X")
        return [one.value for one in answer.get_completions(list(words[:-1]), words[-1])]

    assert "survey" in completed("use", "su") and completed("forget", "") == ["survey"]
    assert "use" in completed("")


# Reading all, writing the first


def test_the_nearest_verdict_counts(stores: list[Store], run: InProcess, _made: Path) -> None:
    bias = put_into(stores[1], _made)
    judge(stores[1], bias, "bad")
    assert run("query", "bias", "--get", "verdict").lines[1:] == ["bad"]
    judge(stores[0], bias, "good")
    judge(stores[2], bias, "bad")
    assert run("query", "bias", "--get", "verdict").lines[1:] == ["good"]
    assert run("query", "bias", "verdict=bad").lines == []
    assert run("query", "bias", "verdict=good").lines == [str(bias)]


def test_the_same_product_in_two_stores_with_two_verdicts(
    stores: list[Store], run: InProcess, _made: Path
) -> None:
    near, far = put_into(stores[0], _made), put_into(stores[2], _made)
    judge(stores[2], far, "bad")
    judge(stores[0], near, "good")
    ran = run("query", "bias", "--get", "path,verdict")
    assert f"{near}\tgood" in ran.lines and not [line for line in ran.lines if line.endswith("bad")]
    ran = run("hotpix", "-q", near)
    assert ran.code == 0
    assert ran.lines[0].startswith(str(stores[0].root))


def test_what_is_made_goes_to_the_first_store(stores: list[Store], run: InProcess, _made: Path) -> None:
    bias = put_into(stores[2], _made)
    ran = run("make", "-q", "hotpix")
    assert ran.code == 0, ran.err
    (made,) = stores[0].root.glob("hotpix/*/*.fits")
    assert not list(stores[0].root.glob("bias/*")) and not list(stores[2].root.glob("hotpix/*"))
    (source,) = read_record(sidecar(made))["recipe"]["inputs"]
    assert os.path.normpath(made.parent / source["path"]) == str(bias)
    ran = run("lineage", "--forward", "--json", bias)
    assert str(made) in [json.loads(line)["path"] for line in ran.lines]


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "bias"),
        ("lineage", "BIAS"),
        ("lineage", "--forward", "BIAS"),
        ("why", "BIAS"),
        ("make", "-n", "hotpix"),
        ("verify", "--quick"),
        ("index",),
        ("index", "--check"),
        ("timeline", "bias"),
        ("validity", "BIAS"),
        ("params", "bias"),
        ("compare", "--with", "BIAS", "BIAS"),
        ("imstat", "BIAS"),
        ("hotpix", "-n", "BIAS"),
    ],
    ids=" ".join,
)
def test_every_reader_finds_what_lies_in_the_last_of_three_stores(
    stores: list[Store], run: InProcess, _made: Path, arguments: tuple[str, ...]
) -> None:
    bias = put_into(stores[2], _made)
    ran = run(*(str(bias) if one == "BIAS" else one for one in arguments))
    assert ran.code == 0, ran.err
    assert "bug" not in ran.err


# A path that is not as it should be


def test_a_store_that_is_named_twice_is_one(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    link = stores[0].root.parent / "link"
    link.symlink_to(stores[0].root)
    monkeypatch.setenv("AWE_PATH", f"{stores[0].root}::{link}:{stores[1].root}:")
    assert search_path(Path()) == stores[:2]


def test_what_is_no_store_is_named(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWE_PATH", f"{stores[0].root}:{tmp_path}/gone")
    with pytest.raises(NoStore, match=r"gone, which is not a store \(it does not exist\)"):
        search_path(Path())
    monkeypatch.setenv("AWE_PATH", f"{stores[0].root}:{tmp_path}")
    with pytest.raises(NoStore, match="which is not a store"):
        search_path(Path())


def test_a_store_that_vanishes_meanwhile_is_named(stores: list[Store], run: InProcess, _made: Path) -> None:
    put_into(stores[0], _made)
    found = search_path(Path())
    shutil.rmtree(stores[1].root)
    with pytest.raises(Unavailable, match="project: the store is gone"):
        open_index(found[1])
    ran = run("query", "bias")
    assert ran.code == 4 and str(stores[1].root) in ran.err


def test_a_record_of_a_newer_version_is_named_and_the_others_go_on(
    stores: list[Store], run: InProcess, _made: Path
) -> None:
    bias = put_into(stores[1], _made)
    (readnoise,) = stores[1].root.glob("readnoise/*/*.fits")
    newer = json.loads(sidecar(bias).read_text())
    newer["record"]["schema"] = 99
    sidecar(bias).write_text(json.dumps(newer))
    ran = run("lineage", bias)
    assert ran.code == 4 and f"{bias}.json" in ran.err and "upgrade awetools" in ran.err
    assert run("query", "readnoise").lines == [str(readnoise)]
    frame = next((stores[1].awe / "raw").glob("*/*.json"))
    raw = json.loads(frame.read_text())
    raw["record"]["schema"] = 99
    frame.write_text(json.dumps(raw))
    ran = run("header", raw["file"]["path"])
    assert ran.code in (0, 4)
    ran = run("imstat", raw["file"]["path"])
    assert ran.code == 4 and str(frame) in ran.err and "upgrade awetools" in ran.err


def test_what_is_in_force_is_shown_whatever_the_file_of_contexts(stores: list[Store], run: InProcess) -> None:
    contexts_file().parent.mkdir(parents=True, exist_ok=True)
    contexts_file().write_text("x = [")
    ran = run("context")
    assert ran.code == 2 and str(contexts_file()) in ran.err
    assert [line.split("\t")[2] for line in ran.lines[1:]] == [str(one.root) for one in stores]


def test_no_store_is_proposed_where_none_can_be(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for name, hint in (("file", False), ("absent", True)):
        monkeypatch.setenv("AWE_PATH", str(tmp_path / name))
        ran = run("context")
        assert ran.code == 4 and ("awe-init" in ran.err) == hint
