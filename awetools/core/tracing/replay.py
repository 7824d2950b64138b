"""What it takes to make products again from raw frames alone, with all that was in force made explicit.

From the records of a product and of its ancestors: which raw frames are registered and
what is set of them by hand, the camera tables besides the built-in ones, and each
maker's command line with every recorded parameter and every input by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AweError, BadValue, NoRecord, NoSuchFile, UsageError
from ..files import parse_address
from ..journal import Interval, nearest_words, stores_heard
from ..kind import FOREIGN, REFCAT, Kind
from ..params import Param, params_of
from ..record import Record, read_record
from ..settings import home_directory
from ..store import Store, default_path
from ..workspace import Workspace
from .lineage import Node, Reference
from .states import overrides_of, unreadable_record

if TYPE_CHECKING:
    from .lookup import Lookup

# Not set of a frame by hand: it follows from a parameter, which is given with its value.
BY_PARAMETER = ("overscan_mode",)


@dataclass(frozen=True)
class RawFile:
    """A raw frame to register: its file, what is set by hand, and the content hash of each detector used."""

    path: str
    settings: tuple[tuple[str, str], ...]
    contents: tuple[str, ...]


@dataclass(frozen=True)
class Product:
    """A product to make again, or (imported) to take as it is.

    file: where it goes, relative to the new store. argv: the command line that makes it,
    empty for an imported one. needs: the files of other products that it is made of.
    interval: that in which it serves, where that is not the kind's own.
    """

    node: Node
    record: Record
    file: str
    argv: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    interval: Interval | None = None

    @property
    def is_imported(self) -> bool:
        """Whether another pipeline made it, so that it is copied."""
        return not self.argv


@dataclass(frozen=True)
class Replay:
    """Everything that the targets are made of, each product after what it needs.

    tables: the camera tables besides the built-in ones, by the path they get in the new
    store. notes: what a person should know, such as a recipe that was revised since.
    """

    raws: tuple[RawFile, ...]
    tables: Mapping[str, str]
    products: tuple[Product, ...]
    targets: tuple[Product, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Found:
    """What the walk up the ancestors has come across."""

    lookup: Lookup
    products: dict[str, tuple[Node, Record]] = field(default_factory=dict)
    raws: dict[str, Node] = field(default_factory=dict)
    catalogues: dict[str, Node] = field(default_factory=dict)
    read: dict[str, list[Reference]] = field(default_factory=dict)


def replay_of(targets: Sequence[Node], lookup: Lookup, workspace: Workspace, kinds: Sequence[Kind]) -> Replay:
    """How to make products again from raw frames alone.

    workspace: with the stores and camera tables that were in force. Raises UsageError for
    what was not made here, NoRecord for an ancestor without a record, NoSuchFile naming all
    raw frames that are gone or changed, BadValue for meta that cannot be set again.
    """
    found = _Found(lookup)
    for node in targets:
        if _is_raw(node):
            raise UsageError(f"{node.path}: is a {node.kind}: nothing makes it")
        _gather(node, found)
    _refuse_lost(found)
    files = _files(found)
    said = _intervals(targets, found, workspace.stores)
    notes: list[str] = []
    made = {
        key: _product(node, record, found, files, said.get(key), kinds, notes)
        for key, (node, record) in found.products.items()
    }
    for node in targets:
        if made[node.id].is_imported:
            raise UsageError(
                f"{node.path}: was imported, so no script makes it again", hint="awe-lineage names its files"
            )
    return Replay(
        raws=tuple(_raw_files(found, workspace)),
        tables=_tables(workspace),
        products=tuple(made.values()),
        targets=tuple(made[key] for key in dict.fromkeys(node.id for node in targets)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _is_raw(node: Node | Reference) -> bool:
    return node.id == node.content


# What is there


def _gather(target: Node, found: _Found) -> None:
    """Find all ancestors, each product after those that it needs."""
    waiting: list[tuple[Node, Record | None]] = [(target, None)]
    while waiting:
        node, record = waiting.pop()
        if node.id in found.products:
            continue
        if record is not None:
            found.products[node.id] = (node, record)
            continue
        record = _record(node)
        waiting.append((node, record))
        if _is_imported(node):
            continue
        for one in node.inputs:
            above = found.lookup.resolve(one)
            if one.kind == REFCAT:
                found.catalogues[one.content] = above
            elif _is_raw(one):
                found.raws.setdefault(one.content, above)
                found.read.setdefault(one.content, []).append(one)
            elif one.id not in found.products:
                waiting.append((above, None))


def _record(node: Node) -> Record:
    if node.record_path is None:
        raise unreadable_record(node) or NoRecord(
            f"{node.path}: no record of this {node.kind} ({node.id[:8]}) is kept, so how it was made is not known"
        )
    return read_record(node.record_path)


def _is_imported(node: Node) -> bool:
    return any(one.kind == FOREIGN for one in node.inputs)


def _refuse_lost(found: _Found) -> None:
    """Raise NoSuchFile, naming every raw frame and imported product that is gone or not what it was."""
    lost = [f"{node.path}: {why}" for node in found.raws.values() if (why := _lost(node))]
    catalogues = [
        f"{node.path}: the reference catalogue is {'gone' if node.state == 'deleted' else 'another now'}"
        for node in found.catalogues.values()
        if node.state not in ("present", "moved")
    ]
    for node, _ in found.products.values():
        if _is_imported(node) and node.state not in ("present", "moved"):
            lost.append(f"{node.path}: imported, and {node.state}")
    hints = (
        ["awe-ingest DIR registers frames that were moved; they are found by their content"] if lost else []
    )
    hints += ["awe-refcat import NAME FILES makes the same one of the same tables"] if catalogues else []
    lost += catalogues
    if lost:
        raise NoSuchFile(
            f"{len(lost)} of the files that it was made of cannot be used: {'; '.join(lost)}",
            hint="; ".join(hints),
        )


def _lost(node: Node) -> str:
    """Why a raw frame cannot be used; empty if it can. What no store vouches for is read."""
    if node.state == "deleted":
        return "gone"
    if node.state == "changed" or (not node.checked and not _holds(node)):
        return "holds other pixels now"
    return ""


def _holds(node: Node) -> bool:
    from ..raws import open_raw
    from ..workspace import here

    with suppress(AweError):
        for one in open_raw(parse_address(node.path), here(stores=())):
            if one.fits is not None:
                one.fits.close()
            if one.content == node.content:
                return True
    return False


def _files(found: _Found) -> dict[str, str]:
    """Where each product goes in the new store: the store's own name for it."""
    files: dict[str, str] = {}
    for key, (node, record) in found.products.items():
        if not (node.kind.isascii() and node.kind.isidentifier()):
            raise NoRecord(f"{node.path}: its record says that it is a {node.kind!r}, which is no kind")
        one_frame = bool(record["meta"].get("exposure"))
        path = default_path(Store(Path()), node.kind, record["meta"], key, one_frame)
        files[key] = str(path) if str(path) not in files.values() else f"{path.parent}/{key}.fits"
    return files


def _intervals(targets: Sequence[Node], found: _Found, stores: Sequence[Store]) -> dict[str, Interval]:
    """The intervals, by key, that are not the kinds' own: set by hand when the targets were made, or by settings."""
    last = max(str(found.products[node.id][1]["run"].get("end") or "") for node in targets)
    intervals: dict[str, Interval] = {}
    for key, (node, record) in found.products.items():
        heard = nearest_words(stores_heard(Path(node.path), stores), last or None)
        validity = record["validity"] or {}
        if key in heard.validities:
            intervals[key] = heard.validities[key]
        elif validity and validity.get("by", "default") != "default":
            intervals[key] = Interval(validity.get("start"), validity.get("end"), reason=str(validity["by"]))
    return intervals


# The makers


def _product(
    node: Node,
    record: Record,
    found: _Found,
    files: Mapping[str, str],
    interval: Interval | None,
    kinds: Sequence[Kind],
    notes: list[str],
) -> Product:
    file = files[node.id]
    if _is_imported(node):
        notes.append(f"{node.path}: was imported; it is copied as it is")
        return Product(node, record, file, interval=interval)
    kind = next((one for one in kinds if one.name == node.kind), None)
    if kind is None:
        raise NoRecord(f"{node.path}: this awetools does not make {node.kind}")
    if kind.revision != record["recipe"]["revision"]:
        notes.append(
            f"{kind.command}: revision {kind.revision} of the recipe; {node.path} was made by revision "
            f"{record['recipe']['revision']}"
        )
    needs = [files[one.id] for one in node.inputs if not _is_raw(one)]
    argv = [kind.command, "-q", "-o", file, *(["--alone"] if kind.shared_by else [])]
    argv += _parameters(kind, record, _catalogues(kind, node, found), notes)
    argv += _inputs(kind, node, record, found, files, kinds)
    return Product(node, record, file, tuple(argv), tuple(dict.fromkeys(needs)), interval)


def _catalogues(kind: Kind, node: Node, found: _Found) -> dict[str, str]:
    """Where the reference catalogue of each role is, which a script does not make."""
    roles = [need.role for need in kind.catalogues]
    inputs = [one for one in node.inputs if one.role in roles]
    return {one.role: os.path.abspath(found.catalogues[one.content].path) for one in inputs}


def _parameters(kind: Kind, record: Record, catalogues: Mapping[str, str], notes: list[str]) -> Iterator[str]:
    """Every recorded parameter as an option, so that no setting of whoever runs it counts."""
    recorded = record["recipe"]["parameters"]
    known = {one.name: one for one in params_of(kind.params)}
    for name in sorted({*recorded} ^ {*known}):
        when = "was not known when this was recorded" if name in known else "is not known any more"
        notes.append(f"{kind.command}: the parameter {name} {when}")
    for name, one in known.items():
        if name in recorded:
            yield option_of(one, catalogues.get(name, recorded[name]["value"]))


def option_of(one: Param, value: object) -> str:
    """A parameter with its value, as a command line says it."""
    if one.type is bool:
        return one.option if value else f"--no-{one.option.removeprefix('--')}"
    return f"{one.option}={value}"


def _inputs(
    kind: Kind, node: Node, record: Record, found: _Found, files: Mapping[str, str], kinds: Sequence[Kind]
) -> Iterator[str]:
    blocks = record["recipe"]["inputs"]
    there = {one.role for one in node.inputs}
    lead = next((need.role for need in kind.leads if need.role in there), kind.primary.role)
    if any(_needs_leave(one, found, kinds) for one in blocks):
        yield "--accept-flags"
    named = [one for one in blocks if one["role"] != lead]
    if named and all(one.get("question") for one in named):
        yield "--chosen"
    farthest = max((one.get("nights_away") or 0 for one in blocks), default=0)
    if farthest:
        yield f"--allow-nearest={farthest}"
    for need in kind.needs:
        if need.role == lead or need.kind == REFCAT:
            continue
        option = need.role.replace("_", "-")
        given = [one for one in node.inputs if one.role == need.role]
        if not given:
            yield f"--no-{option}"
        for one in given:
            yield f"--{option}={_name(one, found, files)}"
    for one in node.inputs:
        if one.role == lead:
            yield _name(one, found, files)


def _needs_leave(block: Mapping[str, Any], found: _Found, kinds: Sequence[Kind]) -> bool:
    """Whether an input may be flagged when it is made again: it was, or its limits were not the declaration's."""
    if block.get("accepted_flags"):
        return True
    node, record = found.products.get(str(block.get("recipe_key")), (None, None))
    if node is None or record is None:
        return False
    declared = {
        (limit.measure, limit.low, limit.high)
        for kind in kinds
        if kind.name == node.kind
        for limit in kind.limits
    }
    were = {(one["measure"], one["low"], one["high"]) for one in record["quality"].get("limits", ())}
    return bool(record["quality"]["flags"]) or were != declared


def _name(one: Reference, found: _Found, files: Mapping[str, str]) -> str:
    return os.path.abspath(found.raws[one.content].path) if _is_raw(one) else files[one.id]


# The raw frames


def _raw_files(found: _Found, workspace: Workspace) -> Iterator[RawFile]:
    """Each raw file once, with all that has to be set by hand for its detectors to mean what they meant."""
    by_file: dict[str, list[Node]] = {}
    for node in found.raws.values():
        by_file.setdefault(os.path.abspath(parse_address(node.path).path), []).append(node)
    for path, nodes in sorted(by_file.items()):
        wanted = [(node, _wanted(found.read[node.content])) for node in nodes]
        settings = _settings(path, wanted, workspace)
        yield RawFile(path, tuple(sorted(settings.items())), tuple(node.content for node in nodes))


def _wanted(read: Sequence[Reference]) -> dict[str, Any]:
    """What the makers read of a raw frame's meta; raises BadValue where two of them read it otherwise."""
    wanted: dict[str, Any] = {}
    for one in read:
        for name, value in one.meta.items():
            if name in BY_PARAMETER:
                continue
            if wanted.setdefault(name, value) != value:
                raise BadValue(
                    f"{one.path}: {name} was corrected between two of the products, from {wanted[name]!r} to "
                    f"{value!r} or back; one script cannot make both",
                    hint="awe-make makes them again with the frame as it is now",
                )
    return wanted


def _settings(
    path: str, wanted: Sequence[tuple[Node, Mapping[str, Any]]], workspace: Workspace
) -> dict[str, str]:
    """What is to be set by hand: what the frame's record says was, and what it was read as before a correction."""
    settings = dict(overrides_of(wanted[0][0]))
    for name, values in _differing(path, wanted, settings, workspace).items():
        if any(value != values[0] for value in values):
            raise BadValue(f"{path}: {name} of its detectors was read as {values}, which no --set says")
        settings[name] = _as_text(values[0])
    left = _differing(path, wanted, settings, workspace) if settings else {}
    for name, values in left.items():
        raise BadValue(
            f"{path}: {name} was read as {values[0]!r}, and --set {name}={settings.get(name)} does not bring it back",
            hint="the camera tables changed since: awe-header -v shows how the frame is read now",
        )
    return settings


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _differing(
    path: str,
    wanted: Sequence[tuple[Node, Mapping[str, Any]]],
    settings: Mapping[str, str],
    workspace: Workspace,
) -> dict[str, list[Any]]:
    """The fields that would be read otherwise than they were, each with what is wanted of the detectors."""
    from ..fits import open_fits
    from ..raws import translate_fits

    with open_fits(Path(path)) as fits:
        translated = [one.meta for _, one in translate_fits(fits, workspace, settings)]
    of_detector = {str(meta["detector"]): meta for meta in translated}
    differing: dict[str, list[Any]] = {}
    for _, meta in wanted:
        now = of_detector.get(str(meta.get("detector")), translated[0])
        for name, value in meta.items():
            if _plain(name, now.get(name)) != _plain(name, value):
                differing.setdefault(name, []).append(value)
    return differing


def _plain(name: str, value: Any) -> Any:
    """A value without what says only where the detector lies in its file."""
    return [{**one, "hdu": None} for one in value] if name == "sections" and value else value


def _tables(workspace: Workspace) -> dict[str, str]:
    """The camera tables besides the built-in ones, by where they go in the new store: home's and the stores' own."""
    places = [(home_directory() / "cameras", ".awe/home/awetools/cameras")]
    places += [(store.cameras_path, ".awe/cameras") for store in reversed(workspace.stores)]
    tables: dict[str, str] = {}
    for folder, place in places:
        for path in sorted(folder.glob("*.toml")):
            text = path.read_text(encoding="utf-8")
            name = f"{place}/{path.name}"
            if tables.setdefault(name, text) != text:
                raise BadValue(f"{path}: two stores have a camera table of this name, and a script one store")
    return tables
