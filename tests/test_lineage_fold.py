"""The tree of awe-lineage folds long rows of branches that are alike, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from awetools.core.store import init_store
from awetools.core.tracing.lineage import Line, Node
from awetools.core.tracing.lineagefold import MOST, SHOWN, Fold, folded
from tests.support import InProcess, write_raw


def line(name: str, kind: str, *lasts: bool, state: str = "present", repeated: bool = False) -> Line:
    node = Node(name, name, kind, f"/x/{name}", state, None, {})  # type: ignore[arg-type]
    return Line(node, kind, len(lasts), lasts, repeated)


def coadd_of(count: int, odd: int = -1) -> list[Line]:
    """A coadd of frames that share a bias; one of them is deleted."""
    lines = [line("coadd", "coadd")]
    for n in range(count):
        last = n == count - 1
        lines.append(line(f"r{n}", "reduced", last, state="deleted" if n == odd else "present"))
        lines.append(line(f"raw{n}", "raw_science", last, False))
        lines.append(line("bias", "bias", last, True, repeated=n > 0))
    return lines


def test_what_is_alike_is_one_line_that_counts_it() -> None:
    made = list(folded(coadd_of(200)))
    fold = made[-1]
    # The first frame is another: its bias was not met before.
    assert len(made) == 1 + 3 * (1 + SHOWN) + 1
    assert isinstance(fold, Fold) and len(fold.nodes) == 199 - SHOWN and fold.lines == 3 * (199 - SHOWN)
    assert fold.lasts == (True,) and fold.nodes[-1].id == "r199"


def test_short_rows_and_what_was_asked_for_stay() -> None:
    lines = coadd_of(1 + MOST)
    assert list(folded(lines)) == lines
    many = [line(f"p{n}", "bias") for n in range(3 * MOST)]
    assert list(folded(many)) == many
    assert list(folded([])) == []


def test_what_is_unlike_is_shown_among_them() -> None:
    made = list(folded(coadd_of(100, odd=50)))
    assert [one.node.id for one in made if isinstance(one, Line) and one.node.state == "deleted"] == ["r50"]
    folds = [one for one in made if isinstance(one, Fold)]
    assert sum(len(one.nodes) for one in folds) == 99 - 1 - 2 * SHOWN and [one.lasts for one in folds] == [
        (False,),
        (True,),
    ]


def test_the_tree_says_what_it_left_out_and_the_table_has_it(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = init_store(tmp_path / "store")
    (tmp_path / "raw").mkdir()
    rng = np.random.default_rng(7)
    frames = [
        write_raw(
            tmp_path / "raw" / f"bias{n:02d}.fits",
            rng.normal(1000, 5, (16, 16)).round().astype(np.uint16),
            {"DATE-OBS": f"2024-03-02T23:{n:02d}:00.000"},
        )
        for n in range(MOST + 5)
    ]
    monkeypatch.chdir(store.root)
    assert run("ingest", "-q", *frames).code == 0
    assert run("bias", "-q", "-o", "bias.fits", *frames).code == 0
    tree = run("lineage", "bias.fits").lines
    assert len(tree) == 1 + SHOWN + 1
    assert f"{MOST + 5 - SHOWN} more raw_bias like the last: " in tree[-1] and "--format table" in tree[-1]
    assert len(run("lineage", "--json", "bias.fits").lines) == 1 + MOST + 5
    assert (
        np.sum(["raw_bias" in one for one in run("lineage", "--format", "tsv", "bias.fits").lines])
        == MOST + 5
    )
