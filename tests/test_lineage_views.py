"""The views of a lineage: graphs, pictures, PROV and tables say the same, whatever the names are."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, init_store
from awetools.core.tracing.lineage import Line, Node
from awetools.core.tracing.lineagegraph import ALIKE, Graph, boxes_of, graph_of, plain, to_dot
from awetools.core.tracing.lineagesvg import to_svg
from awetools.core.tracing.provenance import to_prov
from tests.support import InProcess, bias_frames

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "a'b\"c\n$(touch x);`y`\\n<&>\u202e\u00e9\u661f ]]>.fits"


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess) -> str:
    """A bias of four frames and its hotpix, all under names that shells and formats trip over."""
    store = init_store(tmp_path / "sto're\t$HOME")
    frames = bias_frames(tmp_path / "raw")
    frames[0] = frames[0].rename(tmp_path / "raw" / f"raw{HOSTILE}")
    monkeypatch.chdir(store.root)
    assert run("bias", "-q", "-o", HOSTILE, *frames).code == 0
    assert run("hotpix", "-q", "-o", f"hot{HOSTILE}", HOSTILE).code == 0
    return f"hot{HOSTILE}"


def node(number: int, kind: str = "k", path: str | None = None, raw: bool = False) -> Node:
    content = f"{number:064x}"
    key = content if raw else f"{number:063x}f"
    return Node(key, content, kind, path or f"/s/{number}.fits", "present", None, {})


def graph(edges: dict[int, list[int]]) -> Graph:
    """Products that were made from those named, as a walk over all meets them."""
    lines = []
    for number, below in edges.items():
        lines.append(Line(node(number), "", 0, (), False))
        lines += [Line(node(one), "in", 1, (True,), True) for one in below]
    return graph_of(lines)


# One graph, many texts


def test_every_view_has_the_same_objects(reduced_store: Store, run: InProcess) -> None:
    (first, *_) = run("query", "reduced").lines
    found = [json.loads(line) for line in run("lineage", "--json", first).lines]
    links = {(one["id"], parent["id"]) for one in found for parent in one["parents"]}
    dot = run("lineage", "--format", "dot", first).out
    assert dot.count("tooltip=") == len(found) and dot.count(" -> ") == len(links)
    table = run("lineage", "--format", "tsv", first).lines
    assert len(table) == len(found) + 1 and table[0].split("\t")[:4] == ["steps", "role", "kind", "path"]
    assert {line.split("\t")[7] for line in table[1:]} == {one["id"] for one in found}
    prov = json.loads(run("lineage", "--format", "prov", first).out)
    assert len(prov["entity"]) == len(found)
    assert len(prov["wasDerivedFrom"]) == len(prov["used"]) == len(links)
    picture = ET.fromstring(run("lineage", "--format", "svg", first).out)
    titles = [title.text or "" for box in picture.iter(f"{SVG}g") for title in box.iter(f"{SVG}title")]
    assert {path for title in titles for path in title.split("\n")} == {one["path"] for one in found}


def test_the_forward_graph_is_the_backward_one(reduced_store: Store, run: InProcess) -> None:
    (bias, *_) = run("query", "bias").lines
    prov = json.loads(run("lineage", "--forward", "--format", "prov", bias).out)
    record = read_record(sidecar(Path(bias)))
    name = f"product:{record['recipe_key']}-{record['product']['content'][:16]}"
    used = [one for one in prov["wasDerivedFrom"].values() if one["prov:usedEntity"] == name]
    assert used and not [
        one for one in prov["wasDerivedFrom"].values() if one["prov:generatedEntity"] == name
    ]


def test_prov_is_read_by_others_and_says_who_when_and_with_what(reduced_store: Store, run: InProcess) -> None:
    prov = pytest.importorskip("prov.model")
    (first, *_) = run("query", "reduced").lines
    record = read_record(sidecar(Path(first)))
    assert run("lineage", first, "-o", "out.json").lines == ["out.json"]
    document = prov.ProvDocument.deserialize("out.json", format="json")
    about = json.loads(Path("out.json").read_text())
    assert len(list(document.get_records(prov.ProvEntity))) == len(about["entity"])
    assert len(list(document.get_records(prov.ProvUsage))) == len(about["used"])
    assert len(list(document.get_records(prov.ProvAssociation))) == 2 * len(about["activity"])
    (name,) = [one for one in about["activity"] if record["recipe_key"] in one]
    run_of = about["activity"][name]
    assert run_of["prov:startTime"] == record["run"]["start"]
    assert run_of["prov:endTime"] == record["run"]["end"]
    for parameter in record["recipe"]["parameters"]:
        assert f"param:{parameter}" in run_of
    labels = {one["prov:label"] for one in about["agent"].values()}
    assert labels == {record["run"]["user"], f"awetools {record['software']['awetools']}"}
    again = prov.ProvDocument.deserialize(content=document.serialize(format="json"), format="json")
    assert again == document


# Names


def test_hostile_names_stay_names(hostile: str, run: InProcess) -> None:
    prov = run("lineage", "--format", "prov", hostile)
    assert prov.code == 0
    paths = {one["prov:location"] for one in json.loads(prov.out)["entity"].values()}
    assert os.path.abspath(hostile) in paths
    table = run("lineage", "--format", "tsv", hostile).lines
    assert len(table) == 7 and all(len(line.split("\t")) == 9 for line in table)
    picture = ET.fromstring(run("lineage", "--format", "svg", hostile).out)
    assert any("<&>" in (title.text or "") for title in picture.iter(f"{SVG}title"))
    dot = run("lineage", "--format", "dot", hostile).lines
    statements = [line for line in dot if line.startswith("  n") and "label=" in line]
    # 6 objects, and one edge whose role says more than the kind.
    assert len([line for line in statements if "->" not in line]) == 6
    assert all(strings_of(line) is not None for line in dot), "a quote is left open"
    assert len(run("lineage", hostile).lines) == 6


def strings_of(line: str) -> list[str] | None:
    """The quoted strings of a line of DOT; None where a quote is not closed."""
    found, current, escaped = [], None, False
    for char in line:
        if current is None:
            current = "" if char == '"' else None
        elif escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char == '"':
            found.append(current)
            current = None
        else:
            current += char
    return found if current is None else None


@settings(max_examples=60, deadline=None)
@given(name=st.text(st.characters(exclude_categories=()), min_size=1))
def test_any_text_can_be_a_name(name: str) -> None:
    one = node(1, kind=name, path=f"/s/{name}")
    other = node(2, path=f"/t/{name}")
    made = graph_of([Line(one, "", 0, (), False), Line(other, name, 1, (True,), False)])
    picture = ET.fromstring(to_svg(made))
    assert len(list(picture.iter(f"{SVG}g"))) == 2
    dot = to_dot(made)
    assert all(strings_of(line) is not None for line in dot.splitlines())
    assert len(dot.splitlines()) == 4 + 2 + 1 + 1
    document = json.loads(to_prov(made))
    json.dumps(document).encode()
    assert len(document["entity"]) == 2
    assert plain(name).isprintable()


# Layout


def test_what_is_alike_is_one_box() -> None:
    edges: dict[int, list[int]] = {0: [1, *range(10, 10 + ALIKE)], 1: [2, 3, 4]}
    boxes, drawn = boxes_of(graph(edges))
    assert sorted(len(box.nodes) for box in boxes) == [1, 1, 1, 1, 1, ALIKE]
    assert len(drawn) == 5
    assert f"{ALIKE} k" in to_svg(graph(edges))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_boxes_never_overlap_and_edges_lead_to_the_right(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    loops = data.draw(st.booleans())
    edges: dict[int, list[int]] = {}
    for number in range(count):
        first = 0 if loops else number + 1
        edges[number] = data.draw(st.lists(st.integers(first, count), unique=True, max_size=4))
    made = graph(edges)
    picture = ET.fromstring(to_svg(made))
    width, height = (float(picture.attrib[name]) for name in ("width", "height"))
    rects = [box.findall(f"{SVG}rect")[-1].attrib for box in picture.iter(f"{SVG}g")]
    corners = [tuple(float(one[name]) for name in ("x", "y", "width", "height")) for one in rects]
    for number, (x, y, w, h) in enumerate(corners):
        assert x >= 0 and y >= 0 and x + w <= width + 1 and y + h <= height + 1
        for u, v, a, b in corners[:number]:
            assert x + w <= u or u + a <= x or y + h <= v or v + b <= y
    if loops:
        return
    for path in picture.findall(f"{SVG}path"):
        numbers = [
            float(one)
            for one in path.attrib["d"].replace("M", " ").replace("C", " ").replace("L", " ").split()
        ]
        assert numbers[0] < numbers[-2]


# The program


def test_formats_and_files(reduced_store: Store, run: InProcess, tmp_path: Path) -> None:
    (bias, *_) = run("query", "bias").lines
    for name, begin in (("a.dot", "digraph"), ("b.gv", "digraph"), ("deep/c.svg", "<svg"), ("d.json", "{")):
        assert run("lineage", bias, "-o", name).lines == [name]
        assert Path(name).read_text().startswith(begin)
        assert run("lineage", bias, "-o", name).code == 0, "its own file is replaced"
    assert run("lineage", bias, "--format", "dot", "-o", "named.txt").code == 0
    ran = run("lineage", bias, "-o", "a.png")
    assert ran.code == 2 and ".svg" in ran.err and not Path("a.png").exists()
    Path("mine.svg").write_text("mine")
    ran = run("lineage", bias, "-o", "mine.svg")
    assert ran.code == 2 and Path("mine.svg").read_text() == "mine"
    before = Path(bias).read_bytes()
    assert run("lineage", bias, "--format", "prov", "-o", bias).code == 2
    assert Path(bias).read_bytes() == before
    assert run("lineage", "nowhere.fits", "-o", "none.svg").code == 4 and not Path("none.svg").exists()
    table = run("lineage", "--format", "table", bias).lines
    assert table[0].startswith("steps  role") and "\t" not in "".join(table)


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "--format", "dot"],
        ["--tree", "--format", "svg"],
        ["--format", "paths"],
        ["--format", "tsv", "-o", "x.svg"],
        ["--impact", "--forward"],
        ["--impact", "--depth", "3"],
        ["--impact", "-o", "x.svg"],
        ["--impact", "--format", "svg"],
        ["--reason", "x"],
        ["--dry-run"],
        ["--impact", "--reason", "x"],
        ["--invalidate"],
        ["--invalidate", "--reason", " "],
    ],
)
def test_options_that_do_not_go_together(reduced_store: Store, run: InProcess, words: list[Any]) -> None:
    (bias, *_) = run("query", "bias").lines
    ran = run("lineage", *words, bias)
    assert ran.code == 2 and "usage" in ran.err and ran.out == ""
