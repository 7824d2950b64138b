"""Publishing: to which store products go, all or nothing, and the embargoes that hold them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import NoStore, Unavailable, UsageError
from ..files import make_directory, parse_address
from ..planning.plan import refuse_foreign
from ..store import AWE, Store, store_of
from ..tracing.lineage import Node
from ..tracing.lookup import Lookup
from .embargo import Embargo, embargoes, hold
from .handover import Done, hand_over, receiving
from .handoverstage import Handover
from .publication import Publication, Wish, plan


def destination(path: Path, stores: Sequence[Store], to: Path | None) -> tuple[Store, Store]:
    """The store that holds a product, and the one to which it is published: the next of the search path, or `to`.

    Raises NoStore, UsageError.
    """
    holder = store_of(path)
    if holder is None:
        raise NoStore(
            f"{path}: is in no store; what is published is a product of a store",
            hint="make it in one: awe-make KIND, or -o STORE/NAME",
        )
    place = stores.index(holder) if holder in stores else None
    if to is not None:
        if not (to / AWE).is_dir():
            raise NoStore(f"--to {to}: is not a store", hint=f"awe-init {shlex.quote(str(to))}")
        upper = Store(to.resolve())
        if upper == holder:
            raise UsageError(f"--to {to}: is the store that holds {path}")
        if place is not None and upper in stores[:place]:
            raise UsageError(
                f"--to {to}: comes before {holder.root} in AWE_PATH; products are published upward"
            )
        return holder, upper
    if place is None:
        listed = ":".join(str(one.root) for one in stores) or "empty"
        raise NoStore(
            f"{path}: its store {holder.root} is not in AWE_PATH ({listed})",
            hint=f"AWE_PATH={shlex.quote(str(holder.root))}:UPPER, or --to STORE",
        )
    if place + 1 == len(stores):
        raise NoStore(
            f"{path}: its store {holder.root} is the last one of AWE_PATH, so there is none above it",
            hint=f"AWE_PATH={shlex.quote(str(holder.root))}:UPPER, or --to STORE",
        )
    return holder, stores[place + 1]


def publish_all(
    paths: Sequence[Path],
    stores: Sequence[Store],
    store: Store,
    wish: Wish,
    step_done: Callable[[], None] = lambda: None,
) -> tuple[Publication, Done, Done]:
    """Publish products to a store, all or nothing; with problems nothing is done.

    Returns what was planned, what an interrupted run had left to be carried out, and what
    was done now. Raises Unavailable, Integrity, BeingWritten, WouldOverwrite.
    """
    done = Done()
    with receiving(store) as finished:
        found = plan(paths, stores, store, wish)
        if not found.problems and (found.pieces or found.events or found.others):
            steps = [one.step for one in found.pieces]
            handover = Handover(steps, found.events, found.others, wish.force)
            done = hand_over(store, handover, step_done, lambda: _make_room(found, wish.force))
    return found, finished, done


def hold_all(
    names: Sequence[str], stores: Sequence[Store], wish: Wish, dry_run: bool = False
) -> Iterator[tuple[Node, bool, Embargo | None]]:
    """Set the embargo of products and raw frames where each of them is, or take back all there are.

    Where each of them is: so that whoever publishes from that store is held. What no store
    holds is held in the first. Yields each with whether that changed anything, and the
    embargo then in force. Raises Unavailable, NoStore.
    """
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    with Lookup(stores) as lookup:
        nodes = {node.id: node for name in names for node in lookup.named(name)}
        heard = list(lookup.stores)
    wanted: dict[Store, list[str]] = {}
    if wish.until is None:
        held = {store: [one for one in embargoes([store]) if one in nodes] for store in heard}
        wanted = {store: identities for store, identities in held.items() if identities}
    else:
        for node in nodes.values():
            wanted.setdefault(_holder(node) or stores[0], []).append(node.id)
    changed = set()
    for store, identities in wanted.items():
        changed |= set(hold(store, identities, wish.until, wish.reason, wish.who, dry_run))
    known = embargoes(heard)
    for node in nodes.values():
        yield node, node.id in changed, known.get(node.id)


def _holder(node: Node) -> Store | None:
    """The store that a product lies in, or that registered a raw frame."""
    if node.id != node.content:
        return store_of(parse_address(node.path).path)
    return None if node.record_path is None else store_of(node.record_path)


def _make_room(found: Publication, force: bool) -> None:
    """What would keep a file from its place after the commit is found before it: directories, others' files."""
    for one in found.pieces:
        target = found.store.root / one.target
        make_directory(target.parent)
        if not os.access(target.parent, os.W_OK | os.X_OK, effective_ids=True):
            raise Unavailable(f"{target.parent}: this user cannot write in it")
        if one.what == "product" and not force:
            refuse_foreign(target)
