"""Queries on an index of a million products with 8 inputs each: conditions that lead along links, cones, SQL.

    query.py [--products N] [--runs N]

The index is that of index.py, with 32 detectors and 5 filters: the products of a block of
500 are of one detector and filter, and were made with the calibrations of the block. The
files of the answers are there, and empty: awe-query looks for each.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import index as large
from index import took
from measure import BIN, Table, best_cost, cache, versions

from awetools.core.expressions.expression import parse
from awetools.core.indexing.index import open_index
from awetools.core.indexing.indexfile import SCHEMA_VERSION, fill_database
from awetools.core.kinds import KINDS
from awetools.core.questions import query
from awetools.core.store import Store, init_store

DETECTORS, FILTERS = 32, 5
WARM_GOAL_MS, PROCESS_GOAL_MS = 50, 150
SELECTIVE = "chip = 'ccd53' and filter = '841'"
NIGHT, NIGHTS = "night = 2000-02-05", "2000-02-05 < night < 2000-02-09"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    print(*versions(), sep="\n")
    store = large_store(given.products)
    least = inner_bound(store)
    table = Table("ms", "objects", "goal", name_width=66)
    for condition, limit in (
        (f"{SELECTIVE} and flat.imstat.stdev > 0.1", 1000),
        (f"{SELECTIVE} and flat.imstat.stdev > 0.1", None),
        (f"{NIGHT} and flat.imstat.stdev > 0.1", None),
        (f"{NIGHTS} and bias.raw.obs_start > 2000-01-01", None),
        (f"flat.imstat.stdev > {least!r}", None),
        ("bias.raw.obs_start > 2100-01-01", None),
        ("cone(150.1, 2.2, 0.5)", None),
        (SELECTIVE, 1000),
    ):
        ask(table, store, condition, limit, given.runs)
    for goal_ms, words in (
        (
            PROCESS_GOAL_MS,
            ["query", "reduced", f"{SELECTIVE} and flat.imstat.stdev > 0.1", "--limit", "1000"],
        ),
        (PROCESS_GOAL_MS, ["query", "reduced", f"{NIGHT} and flat.imstat.stdev > 0.1"]),
        (PROCESS_GOAL_MS, ["query", "reduced", f"flat.imstat.stdev > {least!r}"]),
        (None, ["sql", "SELECT path FROM products LIMIT 10"]),
    ):
        done = best_cost([BIN / f"awe-{words[0]}", *words[1:]], store.root, given.runs)
        text = f"awe-{' '.join(words)}"[:66]
        table.row(text, done, 1e3 * done.cpu_s, "", "" if goal_ms is None else f"{goal_ms} ms")
    head(table, store)


def ask(table: Table, store: Store, condition: str, limit: int | None, runs: int) -> None:
    """One condition in process, warm."""
    question = query.Question("reduced", parse(condition), ("path", "flat.imstat.stdev"), (), limit)

    def once() -> list[dict[str, Any]]:
        return list(query.ask(question, [store], KINDS, gone))

    gone: list[str] = []
    once()
    for path in gone:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    found = len(once())
    done = min((took(once) for _ in range(runs)), key=lambda one: one.cpu_s)
    table.row(condition[:66], done, 1e3 * done.cpu_s, f"{found:,}", f"{WARM_GOAL_MS} ms")


def head(table: Table, store: Store) -> None:
    """All products into `head`: the first lines at once, in little memory."""
    command = f"{BIN}/awe-sql 'SELECT path, name, value FROM measures' | head -n 3 > /dev/null"
    done = best_cost(["bash", "-c", command], store.root)
    table.row("awe-sql, every measure | head", done, 1e3 * done.cpu_s, "", "")


def inner_bound(store: Store) -> float:
    """The measure that three flats exceed."""
    with open_index(store) as index:
        sql = "SELECT json_extract(measures, '$.\"imstat.stdev\"') FROM objects WHERE kind = 'flat' ORDER BY 1 DESC"
        return float(next(index.select(f"{sql} LIMIT 1 OFFSET 3"))[0])


def large_store(products: int) -> Store:
    """A store with nothing but an index, kept between runs."""
    place = cache() / f"query-{products}-{SCHEMA_VERSION}-{large.digest_of_layout()}"
    store = Store(place / "store")
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        store = init_store(place / "store")
        path = store.awe / "index-large.sqlite"
        fill_database(path, rows(store, products))
        store.index_path.symlink_to(path.name)
        (place / "done").touch()
    return Store(Path(os.path.realpath(store.root)))


def rows(store: Store, products: int) -> large.Rows:
    """The rows of index.py, of many detectors, filters and places on the sky."""
    for row, links in large.rows(store, products):
        number = (row["sequence"] or 1) - 1
        block = number // large.BLOCK
        yield (
            {
                **row,
                "detector": f"ccd{50 + block % DETECTORS}",
                "filter": str(840 + block // DETECTORS % FILTERS),
                "ra_deg": number * 7919 % 360_000 / 1000,
                "dec_deg": (number * 104_729 % 180_000 - 90_000) / 1000,
            },
            links,
        )


if __name__ == "__main__":
    main()
