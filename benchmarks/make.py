"""What asking for products takes: a survey of very many with nothing to do, and a night from raw frames alone.

    make.py [--targets N] [--runs N] [--only survey,night]

The survey is of a store that has N reduced frames, all up to date, with their raw frames and calibrations; GNU make
and snakemake are asked the same of the same graph. The night is simulated; what awe-make adds to the recipes' own
time is the difference of its CPU seconds and those of one program a kind, run on the same frames.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from measure import BIN, Cost, Table, best_cost, cache, cost, night, program, versions

from awetools.core.indexing.index import put_records
from awetools.core.indexing.indexrows import product_row, raw_rows
from awetools.core.kind import kind_named
from awetools.core.kinds import KINDS
from awetools.core.planning.graph import Graph, View
from awetools.core.planning.nodes import Node
from awetools.core.planning.orders import in_order, output_of
from awetools.core.planning.plan import validity_of
from awetools.core.planning.targets import targets_of
from awetools.core.record import to_bytes
from awetools.core.store import Store, init_store, write_raw_record
from awetools.core.workspace import Workspace

FRAMES_A_NIGHT, DETECTORS, FILTERS = 500, 4, "RV"
GOAL_S = 3.0


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="survey,night")
    given = parser.parse_args()
    print(*versions(["make", "snakemake"]), sep="\n")
    if "survey" in given.only:
        survey(given.targets, given.runs)
    if "night" in given.only:
        one_night()


# A survey with nothing to do


def survey(targets: int, runs: int) -> None:
    """Ask for all reduced frames of a store, all up to date; then with one raw frame added."""
    table = Table("goal", name_width=46)
    costs = {}
    for count in (targets // 10, targets):
        store = survey_store(count)
        costs[count] = ask(store, runs)
        table.row(
            f"awe-make -n, {count:,} targets", costs[count], f"{GOAL_S:g} s" if count == targets else None
        )
    ratio = costs[targets].wall_s / costs[targets // 10].wall_s
    print(f"   ten times the targets take {ratio:.1f} times as long")
    store = survey_store(targets)
    added = add_frame(store)
    try:
        table.row(f"awe-make -n, {targets:,} and one new frame", ask(store, runs), f"{GOAL_S:g} s")
    finally:
        ingest(store.root, "--forget", added)
        added.unlink()
    peers(table, store)


def ask(store: Store, runs: int) -> Cost:
    """The run of least wall time of `awe-make reduced -n`."""
    found = [cost([BIN / "awe-make", "reduced", "-n", "-q"], store.root) for _ in range(runs)]
    return min(found, key=lambda one: one.wall_s)


def peers(table: Table, store: Store) -> None:
    """The same graph for GNU make, with and without its built-in rules, and snakemake."""
    folder = store.root.parent
    if program("make"):
        write_makefile(store, folder / "Makefile")
        table.row("make -rn, the same graph", cost(["make", "-rn", "-f", folder / "Makefile"], folder))
        table.row("make -n, the same graph", cost(["make", "-n", "-f", folder / "Makefile"], folder))
    else:
        table.missing("make -n", "GNU make")
    if program("snakemake"):
        write_snakefile(store, folder / "Snakefile")
        table.row(
            "snakemake -n, the same graph",
            cost(["snakemake", "-n", "-q", "-s", folder / "Snakefile"], folder),
        )
    else:
        table.missing("snakemake -n", "snakemake")


def survey_store(targets: int) -> Store:
    """A store of so many reduced frames, kept between runs."""
    place = cache() / f"survey-{targets}-{_digest_of_recipes()}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        store = init_store(place / "store")
        put_records(store, [row for rows in raw_records(store, place / "raw", targets) for row in rows])
        make_products(store)
        (place / "done").touch()
    return Store(Path(os.path.realpath(place / "store")))


def _digest_of_recipes() -> str:
    text = repr([(kind.name, kind.revision, kind.match, kind.reads) for kind in KINDS])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def templates() -> dict[str, dict[str, Any]]:
    """A raw record of each type, of a small simulated night."""
    words = ["--shape", "64x64", "--detectors", "1", "--filters", "R", "--biases", "3", "--flats", "1"]
    place = night(*words, "--exposures", "1")
    store = init_store(place / "store")
    ingest(store.root, place / "raw")
    records = [json.loads(path.read_bytes()) for path in (store.awe / "raw").rglob("*.json")]
    return {record["detectors"][0]["meta"]["frame_type"]: record for record in records}


def raw_records(store: Store, folder: Path, targets: int) -> Iterator[list[Any]]:
    """Empty raw files with their records, night by night: biases, flats in two filters, science frames."""
    known = templates()
    for number in range(targets // (FRAMES_A_NIGHT * DETECTORS)):
        day = date(2020, 1, 1) + timedelta(days=number)
        for detector in map(str, range(1, DETECTORS + 1)):
            frames = [("raw_bias", None, "01")] * 5
            frames += [("raw_domeflat", one, "02") for one in FILTERS for _ in range(3)]
            frames += [("raw_science", FILTERS[one % 2], "03") for one in range(FRAMES_A_NIGHT)]
            for place, (kind, filter_name, hour) in enumerate(frames):
                start = f"{day + timedelta(days=1)}T{hour}:{place // 60:02d}:{place % 60:02d}.000"
                about = {"detector": detector, "night": str(day), "filter": filter_name, "obs_start": start}
                yield raw_record(
                    store, folder / str(day) / f"{kind}_{detector}_{place}.fits", known[kind], about
                )


def raw_record(store: Store, path: Path, like: Mapping[str, Any], about: Mapping[str, Any]) -> list[Any]:
    """Write a raw file without pixels and its record; returns its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    stat = path.stat()
    first = like["detectors"][0]
    meta = {**first["meta"], **about, "exposure": path.stem}
    content = hashlib.sha256(str(path).encode()).hexdigest()
    file = {"path": str(path), "bytes": 0, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
    detectors = [{**first, "detector": about["detector"], "content": content, "meta": meta}]
    record = {**like, "file": file, "detectors": detectors}
    write_raw_record(store, record)
    return raw_rows(store, record, store.raw_record_path(str(path)))


def make_products(store: Store) -> None:
    """Products without pixels, with the keys that they would have, until all reduced frames are up to date."""
    workspace = Workspace((store,), store.root)
    sequence = 0
    while True:
        graph = Graph(KINDS, workspace, View())
        targets = targets_of(graph, kind_named(KINDS, "reduced"), [])
        to_make = [node for node in in_order(map(graph.decide, targets)) if node.key]
        if not to_make:
            return
        rows = []
        for node in to_make:
            sequence += 1
            rows.append(write_product(store, graph, node, sequence))
        put_records(store, rows)


def write_product(store: Store, graph: Graph, node: Node, sequence: int) -> Any:
    """A product without pixels; returns its row."""
    path = Path(output_of(graph, node))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    recipe = {"kind": node.kind.name, "revision": node.kind.revision, "parameters": {}, "inputs": []}
    about = {"bytes": 0, "mtime_ns": path.stat().st_mtime_ns, "content": node.key, "file_sha256": node.key}
    record = {
        "record": {"schema": 1, "type": "product"},
        "recipe": recipe,
        "recipe_key": node.key,
        "product": about,
        "meta": node.meta(),
        "validity": validity_of(node.kind, node.meta()),
        "quality": {"flags": 0, "measures": {}},
        "software": {},
        "run": {"sequence": sequence, "end": "2026-01-01T00:00:00.000"},
    }
    path.with_name(f"{path.name}.json").write_bytes(to_bytes(record))
    return product_row(store, path, record)


def add_frame(store: Store) -> Path:
    """One more science frame in the survey: its product is missing."""
    known = next((store.awe / "raw").rglob("*.json"))
    like = json.loads(known.read_bytes())
    path = Path(like["file"]["path"]).with_name("raw_science_added.fits")
    about = {**like["detectors"][0]["meta"], "frame_type": "raw_science", "filter": "R"}
    put_records(store, raw_record(store, path, like, about))
    return path


def rules(store: Store) -> Iterator[tuple[str, list[str]]]:
    """Each product with what it is made of, as rules."""
    graph = Graph(KINDS, Workspace((store,), store.root), View())
    seen = set()
    waiting = [graph.decide(node) for node in targets_of(graph, kind_named(KINDS, "reduced"), [])]
    while waiting:
        node = waiting.pop()
        if node in seen or node.item is None:
            continue
        seen.add(node)
        needs = [one for _, one in node.needs()]
        waiting += needs
        inputs = [one.address for one in node.raws] + [one.item.address for one in needs if one.item]
        yield node.item.address, inputs


def write_makefile(store: Store, path: Path) -> None:
    """The graph as a Makefile; each product was written after what it is made of."""
    found = list(rules(store))
    with path.open("w") as stream:
        stream.write(f"all: {' '.join(target for target, _ in found)}\n")
        for target, inputs in found:
            stream.write(f"{target}: {' '.join(inputs)}\n\tawe-reduce $^\n")


def write_snakefile(store: Store, path: Path) -> None:
    """The graph as a Snakefile, a rule a product."""
    found = list(rules(store))
    with path.open("w") as stream:
        stream.write(f"rule all:\n    input: {[target for target, _ in found]!r}\n")
        for target, inputs in found:
            stream.write(
                f"rule:\n    input: {inputs!r}\n    output: {target!r}\n    shell: 'awe-reduce {{input}}'\n"
            )


# A night from raw frames alone


# The same products by one program a kind, in the order of their needs.
CHAIN = """
awe-query raw_bias | awe-readnoise -q -j2; awe-query raw_bias | awe-bias -q -j2
awe-query raw_domeflat | awe-gain -q -j2; awe-query raw_dark | awe-dark -q -j2; awe-query dark | awe-hotpix -q -j2
awe-query raw_domeflat | awe-domeflat -q -j2; awe-query raw_twiflat | awe-twiflat -q -j2
awe-query domeflat | awe-coldpix -q -j2; awe-query domeflat | awe-flat -q -j2
awe-query raw_science | awe-reduce -q -j2
"""


def one_night() -> None:
    """Everything from raw frames: how busy two cores are, and what awe-make adds to the programs' own time."""
    words = ["--detectors", "2", "--shape", "2048x1024", "--filters", "R,V", "--biases", "10", "--flats", "6"]
    place = night(*words, "--twilights", "5", "--darks", "3", "--exposures", "10")
    table = Table("products", "busy", "ms a product", name_width=46)
    work = fresh_store(place)
    chain = cost(["sh", "-c", CHAIN], work)
    count = products(work)
    table.row("one program a kind, -j2", chain, count, busy(chain))
    work = fresh_store(place)
    took = cost([BIN / "awe-make", "reduced", "-q", "-j2"], work)
    added_ms = 1e3 * (took.cpu_s - chain.cpu_s) / products(work)
    table.row("awe-make reduced -j2, from raw frames alone", took, products(work), busy(took), added_ms)
    table.row("again, with nothing to do", best_cost([BIN / "awe-make", "reduced", "-q", "-j2"], work), 0)
    if products(work) != count:
        raise SystemExit(f"awe-make made {products(work)} products, the programs {count}")


def fresh_store(place: Path) -> Path:
    """A store with the raw frames of a night and nothing else."""
    work = place / "work"
    shutil.rmtree(work, ignore_errors=True)
    init_store(work)
    ingest(work, "-j2", place / "raw")
    return work


def ingest(work: Path, *words: str | Path) -> None:
    """Run awe-ingest in a store."""
    subprocess.run([BIN / "awe-ingest", "-q", *words], cwd=work, check=True, stdout=subprocess.DEVNULL)


def products(work: Path) -> int:
    """The number of products in a store."""
    return sum(1 for _ in work.rglob("*.fits.json"))


def busy(took: Cost) -> str:
    """Of the time of two cores, how much was used."""
    return f"{took.cpu_s / took.wall_s / 2:.0%}"


if __name__ == "__main__":
    main()
