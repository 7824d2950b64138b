"""The index at a million products: its size, lineage through it, making it anew, and many programs at once.

    index.py [--products N] [--records N] [--seconds S] [--only size,reach,rebuild,writers]

The rows are those of a reduced frame of a simulated night, written straight into an index as a rebuild does, with
other names, keys and inputs: in each 100,000 products all hang on one bias, directly and through calibrations of
their own 500; the last 1,000 are a chain, each made from the eight before it. Every product has 8 inputs, and every
raw frame is in the index too. Made once, and kept under AWETOOLS_BENCH_CACHE.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from make import fresh_store
from measure import BIN, Cost, Table, best_cost, cache, night, versions

from awetools.core.indexing.index import open_index, put_records
from awetools.core.indexing.indexfile import fill_database, open_memory
from awetools.core.indexing.indexrows import product_row, raw_rows, record_files
from awetools.core.indexing.reach import ancestors_of, descendants_of
from awetools.core.record import sidecar, to_bytes
from awetools.core.store import Store, init_store

INPUTS, GROUP, BLOCK, CHAIN = 8, 100_000, 500, 1000
CALIBRATIONS = ("flat", "hotpix", "coldpix", "readnoise", "gain", "dark")
WRITERS = 64
SIZE_GOAL_KIB, BACK_GOAL_S, IMPACT_GOAL_S, REBUILD_GOAL, WAIT_GOAL_S = 4.0, 0.2, 1.0, 5000, 0.5

Rows = Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default="size,reach,rebuild,writers")
    given = parser.parse_args()
    print(*versions(), sep="\n")
    if "size" in given.only:
        size(given.products)
    if "reach" in given.only:
        reach(given.products)
    if "rebuild" in given.only:
        rebuilt(given.records)
    if "writers" in given.only:
        writers(given.seconds)


def took(work: Callable[[], object]) -> Cost:
    """What a piece of work in this process takes; the peak is that of the whole process so far."""
    start, cpu = time.monotonic(), time.process_time()
    work()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(time.monotonic() - start, time.process_time() - cpu, peak_mb)


# A large index


def size(products: int) -> None:
    """Bytes of index a product, with its raw frames."""
    table = Table("KiB", "goal", name_width=46)
    store = large_store(products)
    kib = store.index_path.stat().st_size / 1024 / products
    table.row(f"index of {products:,} products, one", None, kib, f"{SIZE_GOAL_KIB:g} KiB")


def reach(products: int) -> None:
    """Lineage to all depths in a large index: the first time, and warm."""
    table = Table("objects", "goal", name_width=46)
    with open_index(large_store(products)) as index:
        for name, walk, number, goal_s in (
            ("ancestors of the end of a chain", ancestors_of, products - 1, BACK_GOAL_S),
            ("descendants of a bias", descendants_of, 0, IMPACT_GOAL_S),
            ("descendants of a raw bias", descendants_of, None, IMPACT_GOAL_S),
        ):
            identity = raw_content(0, 0) if number is None else key(number)
            for run in ("first", "again"):
                found: list[Any] = []

                def ask(walk: Any = walk, identity: str = identity, found: list[Any] = found) -> None:
                    found += walk([index], [identity])

                table.row(f"{name}, {run}", took(ask), f"{len(found):,}", f"{goal_s:g} s")


def large_store(products: int) -> Store:
    """A store with nothing but an index of so many products and their raw frames, kept between runs."""
    place = cache() / f"index-{products}-{digest_of_layout()}"
    store = Store(place / "store")
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        store = init_store(place / "store")
        path = store.awe / "index-large.sqlite"
        table = Table("a second", name_width=46)
        done = took(lambda: fill_database(path, rows(store, products)))
        store.index_path.symlink_to(path.name)
        (place / "done").touch()
        table.row(f"filling an index of {products:,} products", done, products / done.wall_s)
    return Store(Path(os.path.realpath(store.root)))


def digest_of_layout() -> str:
    """What tells layouts of the index apart, whatever their version says."""
    tables = open_memory([]).execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    layout = (INPUTS, GROUP, BLOCK, CHAIN, CALIBRATIONS)
    return hashlib.sha256(repr((tables, layout)).encode()).hexdigest()[:8]


@functools.cache
def templates() -> tuple[dict[str, Any], dict[str, Any]]:
    """The record of a raw frame and of a reduced one, of a small simulated night."""
    words = ["--shape", "512x512", "--detectors", "1", "--filters", "R", "--biases", "5", "--flats", "3"]
    place = night(*words, "--exposures", "1")
    work = fresh_store(place)
    subprocess.run([BIN / "awe-make", "reduced", "-q"], cwd=work, check=True, stdout=subprocess.DEVNULL)
    product = json.loads(next((work / "reduced").rglob("*.fits.json")).read_bytes())
    raw = json.loads(next((work / ".awe" / "raw").rglob("*.json")).read_bytes())
    return raw, product


def key(number: int) -> str:
    """The recipe key of a product."""
    return hashlib.sha256(f"key {number}".encode()).hexdigest()


def content(number: int) -> str:
    """The content of a product."""
    return hashlib.sha256(f"content {number}".encode()).hexdigest()


def raw_content(number: int, place: int) -> str:
    """The content of a raw frame of a product."""
    return hashlib.sha256(f"raw {number} {place}".encode()).hexdigest()


def kind_of(number: int, products: int) -> str:
    """The kind of a product: a bias for each group, calibrations for each block, a chain at the end."""
    if number >= products - CHAIN:
        return "stack"
    if number % GROUP == 0:
        return "bias"
    place = number % BLOCK
    return CALIBRATIONS[place - 1] if 0 < place <= len(CALIBRATIONS) else "reduced"


def inputs_of(number: int, products: int) -> list[tuple[str, int | None]]:
    """The inputs of a product: role, and the number of the product; None for a raw frame of its own."""
    kind = kind_of(number, products)
    raws: list[tuple[str, int | None]] = [("raw", None)] * INPUTS
    if kind == "bias":
        return raws
    bias = ("bias", number // GROUP * GROUP)
    if kind == "stack":
        before = [one for one in range(number - INPUTS, number) if one >= products - CHAIN]
        return [*(("reduced", one) for one in before), *raws][:INPUTS]
    if kind != "reduced":
        return [bias, *raws][:INPUTS]
    block = number // BLOCK * BLOCK
    return [raws[0], bias, *((one, block + 1 + place) for place, one in enumerate(CALIBRATIONS))]


def rows(store: Store, products: int) -> Rows:
    """The rows of raw frames, then of products, as a rebuild comes across them."""
    raw, product = templates()
    for number in range(products):
        for place, (_, of) in enumerate(inputs_of(number, products)):
            if of is None:
                yield raw_row(store, raw, number, place)
    for number in range(products):
        yield large_row(store, product, number, products)


def about(number: int) -> dict[str, Any]:
    """What differs between frames."""
    night_number, exposure = divmod(number, BLOCK)
    day = f"{2000 + night_number // 336}-{night_number // 28 % 12 + 1:02d}-{night_number % 28 + 1:02d}"
    start = f"{day}T{exposure // 60:02d}:{exposure % 60:02d}:00.000"
    return {"night": day, "exposure": f"e{number}", "obs_start": start, "object": f"field {number % 997}"}


def raw_row(store: Store, like: Mapping[str, Any], number: int, place: int) -> Any:
    """The row of a raw frame."""
    path = f"/data/archive/raw/{number // BLOCK}/exposure-{number}-{place}.fits"
    first = like["detectors"][0]
    meta = {**first["meta"], **about(number), "exposure": f"e{number}-{place}"}
    one = {**first, "content": raw_content(number, place), "meta": meta}
    record = {**like, "file": {**like["file"], "path": path}, "detectors": [one]}
    row, links = raw_rows(store, record, store.raw_record_path(path))[0]
    return {**row, "record_mtime_ns": number + 1}, links


def large_row(store: Store, like: Mapping[str, Any], number: int, products: int) -> Any:
    """The row of a product and its links."""
    record = product_of(like, number, kind_of(number, products))
    record["recipe"]["inputs"] = [
        {"role": role, "content": raw_content(number, place)}
        if of is None
        else {"role": role, "content": content(of), "recipe_key": key(of)}
        for place, (role, of) in enumerate(inputs_of(number, products))
    ]
    row, links = product_row(store, path_of(store, record, number), record)
    return {**row, "record_mtime_ns": number + 1}, links


def path_of(store: Store, record: Mapping[str, Any], number: int) -> Path:
    """Where the store would put a product."""
    meta = record["meta"]
    name = f"{meta['detector']}_R_{meta['exposure']}-{record['recipe_key'][:8]}.fits"
    return store.root / record["recipe"]["kind"] / str(meta["night"]) / name


def product_of(like: Mapping[str, Any], number: int, kind: str) -> dict[str, Any]:
    """A record like another, of another frame; each with its own measures, as those of frames are."""
    measures = like["quality"]["measures"]
    own = {name: _varied(value, number) for name, value in measures.items()}
    return {
        **like,
        "recipe": {**like["recipe"], "kind": kind},
        "recipe_key": key(number),
        "product": {**like["product"], "content": content(number)},
        "meta": {**like["meta"], **about(number)},
        "quality": {**like["quality"], "measures": own},
        "run": {**like["run"], "sequence": number + 1},
    }


def _varied(value: Any, number: int) -> Any:
    return round(value * (1 + number % 9973 * 1e-5), 6) if isinstance(value, float) else value


# From sidecars


def rebuilt(records: int) -> None:
    """Making the index anew from the records of reduced frames on disk, and the least that it takes."""
    table = Table("a second and core", "goal", name_width=46)
    for count in (records // 10, records):
        store = store_of_sidecars(count)
        done = best_cost([BIN / "awe-index", "--rebuild", "-q"], store.root)
        name = f"awe-index --rebuild, {count:,} sidecars"
        table.row(name, done, count / done.cpu_s, f"{REBUILD_GOAL:,}")
        paths = [store.root / path for path, _ in record_files(store)]
        done = min((took(functools.partial(read_all, paths)) for _ in range(3)), key=lambda one: one.cpu_s)
        table.row(f"reading and json.loads alone, {count:,}", done, count / done.cpu_s)


def read_all(paths: Sequence[Path]) -> None:
    """Read and parse files, nothing else."""
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            json.loads(stream.read())


def store_of_sidecars(records: int) -> Store:
    """A store with the sidecars of so many reduced frames, kept between runs."""
    place = cache() / f"sidecars-{records}-{digest_of_layout()}"
    store = Store(place / "store")
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        store = init_store(place / "store")
        _, product = templates()
        for number in range(records):
            record = product_of(product, number, "reduced")
            # Each has a raw frame of its own; the calibrations are those of its night.
            record["recipe"]["inputs"] = [
                {**one, "content": raw_content(number, 0)} if one["role"] == "raw" else one
                for one in product["recipe"]["inputs"]
            ]
            path = sidecar(path_of(store, record, number))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_bytes(record))
        (place / "done").touch()
    return Store(Path(os.path.realpath(store.root)))


# Many at once


def writers(seconds: float) -> None:
    """Programs that put records all the time, and one that reads: is all there, and how long did who wait."""
    table = Table("rows", "longest s", "goal s", name_width=46)
    place = cache() / "writers"
    shutil.rmtree(place, ignore_errors=True)
    store = init_store(place)
    _, product = templates()
    open_index(store).close()
    found = crowd(store, product, WRITERS, seconds)
    with open_index(store) as index:
        rows_there = next(index.select("SELECT count(*) FROM objects"))[0]
    if found["failed"] or rows_there != found["put"]:
        raise SystemExit(f"{found['failed']} writers failed; {found['put']} rows put, {rows_there} there")
    table.row(f"{WRITERS} writers", None, found["put"], found["write_s"])
    table.row("a reader meanwhile, opening each time", None, found["reads"], found["read_s"], WAIT_GOAL_S)
    table.row("  less the time that it had no core", None, found["reads"], found["blocked_s"], WAIT_GOAL_S)
    shutil.rmtree(place)


def crowd(store: Store, like: Mapping[str, Any], count: int, seconds: float) -> dict[str, Any]:
    """So many processes that put rows for a time, and one that reads; what was put, and the longest waits."""
    context = multiprocessing.get_context("fork")
    results: Any = context.Queue()
    until = time.monotonic() + seconds

    def write(writer: int) -> None:
        put, longest = 0, 0.0
        while time.monotonic() < until:
            number = writer * 1_000_000 + put
            record = product_of(like, number, "reduced")
            row = product_row(store, path_of(store, record, number), record)
            start = time.monotonic()
            put_records(store, [row])
            longest = max(longest, time.monotonic() - start)
            put += 1
        results.put(("write", put, longest))

    def read() -> None:
        reads, longest, longest_blocked = 0, 0.0, 0.0
        while time.monotonic() < until:
            start, no_core = time.monotonic(), without_a_core_s()
            with open_index(store) as index:
                list(index.rows("kind = 'reduced'", (), "ORDER BY number DESC LIMIT 20"))
                next(index.select("SELECT max(sequence) FROM objects WHERE kind = 'reduced'"))
            took_s = time.monotonic() - start
            longest = max(longest, took_s)
            longest_blocked = max(longest_blocked, took_s - (without_a_core_s() - no_core))
            reads += 1
        results.put(("read", reads, longest, longest_blocked))

    workers = [context.Process(target=write, args=(number,)) for number in range(count)]
    workers.append(context.Process(target=read))
    for one in workers:
        one.start()
    done = [results.get(timeout=seconds + 120) for _ in workers]
    for one in workers:
        one.join()
    wrote = [one for one in done if one[0] == "write"]
    _, reads, read_s, blocked_s = next(one for one in done if one[0] == "read")
    return {
        "put": sum(one[1] for one in wrote),
        "write_s": max(one[2] for one in wrote),
        "reads": reads,
        "read_s": read_s,
        "blocked_s": blocked_s,
        "failed": sum(1 for one in workers if one.exitcode),
    }


def without_a_core_s() -> float:
    """How long this process could have run, but others did."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


if __name__ == "__main__":
    main()
