"""Make many products in one run: open the inputs, group them, decide, make what is needed.

Serves doing, -n, --why and --check alike. A failure stays with its product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .build import How, Loader, build
from .errors import AweError, Mixture, NotUpToDate, UsageError
from .files import Address, allow_open_files, parse_address, unpack_to_disk
from .gridstore import PARAMETER, with_grid
from .kind import Kind
from .memory import keep_freed_memory
from .meta import on_grid
from .parallel import run_forked
from .planning.differences import Reason
from .planning.filling import Source, Wish
from .planning.plan import (
    Plan,
    decide,
    group_inputs,
    make_plan,
    predecessor,
    refuse_foreign,
    refuse_mixture,
    target_of,
)
from .products import ProductInput, is_product, open_product
from .publish import check_depfile, finish_rename, set_time, watched_files, write_depfile
from .raws import RawInput, open_raw, stat_of
from .record import Record, read_record, sidecar
from .settings import resolve_params
from .store import names_on_sky
from .workspace import Workspace

Mode = Literal["make", "dry-run", "why", "check"]


@dataclass(frozen=True)
class Request:
    """One run of a maker, as the person asked for it."""

    kind: Kind
    kinds: Sequence[Kind]
    addresses: Sequence[str]
    workspace: Workspace
    output: Path | None = None
    out_dir: Path | None = None
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    parameters: Mapping[str, object] = field(default_factory=dict)
    mode: Mode = "make"
    update: bool = False
    accept_flags: bool = False
    chosen: bool = False
    nearest_nights: int = 0
    how: How = field(default_factory=How)
    processes: int = 1
    loader: Loader = field(default_factory=Loader)


@dataclass(frozen=True)
class Outcome:
    """What became of one product."""

    target: Path
    action: Literal["made", "up-to-date", "would-make"]
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    record: Record | None = None


@dataclass(frozen=True)
class Failure:
    """What could not be made, and why."""

    about: str
    error: Exception
    notes: tuple[str, ...] = ()


def run(request: Request) -> Iterator[Outcome | Failure]:
    """Make (or judge) every product of a request, in the order of the inputs."""
    if request.output is not None:
        _check_output(request)
    _check_grid(request)
    wish = Wish(
        {role: [_named_product(name) for name in names] for role, names in request.named.items()},
        request.without,
        request.parameters,
        request.accept_flags,
        request.chosen,
        request.nearest_nights,
    )
    keep_freed_memory()
    if request.kind.primary.many:
        yield from _run_groups(request, wish)
    else:
        yield from _run_each(request, wish)


def _check_grid(request: Request) -> None:
    """Raise for a grid that there is not: once, and not of each frame."""
    if hasattr(request.kind.params, PARAMETER):
        workspace = request.workspace
        params = resolve_params(request.kind, {}, {}, workspace.settings, request.parameters)
        with_grid(request.kind, params, workspace.stores)


def _named_product(name: str) -> ProductInput:
    stat_of(Path(name))
    return open_product(Path(name))


def _check_output(request: Request) -> None:
    assert request.output is not None
    if request.output.suffix.lower() not in (".fits", ".fit", ".fts"):
        raise UsageError(
            f"-o {request.output}: a product is plain FITS, so its name must end in .fits, .fit or .fts"
        )
    if not request.kind.primary.many and len(request.addresses) > 1:
        raise UsageError(
            f"-o names one product, but there are {len(request.addresses)} inputs", hint="--out-dir DIR"
        )


def _run_groups(request: Request, wish: Wish) -> Iterator[Outcome | Failure]:
    """Kinds that stack: every input is opened first, then each group makes one product."""
    found: list[Source] = []
    failures = []
    addresses = [parse_address(text) for text in request.addresses]
    allow_open_files(len(addresses))
    spool = unpack_to_disk((address.path for address in addresses), request.how.memory_bytes)
    for text, address in zip(request.addresses, addresses, strict=True):
        try:
            found += open_sources(address, request.workspace, spool)
        except AweError as error:
            failures.append(Failure(text, error))
    found, repeated = _without_repeats(found)
    if request.kind.shared_by:
        found, repeated = _of_frames_alone(found, repeated)
    if failures:
        # A stack of the frames that happen to be readable is not what was asked for.
        yield from failures
        return
    groups = group_inputs(request.kind, found)
    if request.kind.shared_by:
        _refuse_frames_twice(groups)
    if request.output is not None:
        refuse_mixture(request.kind, groups)
    if request.out_dir is not None:
        _refuse_same_products(request.kind, groups)

    # Said once, with the first product or its failure.
    notes: list[tuple[str, ...]] = [repeated, *[()] * (len(groups) - 1)]

    def work(number: int) -> list[Outcome]:
        return [_one(request, wish, groups[number], request.loader, notes[number])]

    results = run_forked(work, len(groups), request.processes)
    yield from _answers(results, [_about(one) for one in groups], notes)


def _run_each(request: Request, wish: Wish) -> Iterator[Outcome | Failure]:
    """Kinds of one input each: an input is opened when its turn comes, in its own process."""
    addresses = [parse_address(text) for text in request.addresses]
    if request.out_dir is not None:
        _refuse_same_names(addresses)
        _refuse_same_products(request.kind, [[one] for one in _products_among(addresses)])

    def work(number: int) -> list[Outcome]:
        sources = open_sources(addresses[number], request.workspace)
        if request.output is not None and len(sources) > 1:
            refuse_mixture(request.kind, [[one] for one in sources])
            raise Mixture(f"{addresses[number]}: holds {len(sources)} detectors", hint="--out-dir DIR")
        return [_one(request, wish, [one], request.loader, ()) for one in sources]

    results = run_forked(work, len(addresses), request.processes)
    yield from _answers(results, [str(one) for one in addresses], [()] * len(addresses))


def _refuse_same_names(addresses: Sequence[Address]) -> None:
    first: dict[str, Address] = {}
    for address in dict.fromkeys(addresses):
        name = f"{_stem(address.path)}[{address.detector}]"
        if name in first:
            raise UsageError(
                f"{first[name]} and {address} would both become {_stem(address.path)}.fits",
                hint="one --out-dir for each, or a store, whose names are unique",
            )
        first[name] = address


def _refuse_frames_twice(groups: Sequence[Sequence[Source]]) -> None:
    """Raise Mixture, naming both, if a shared solution would get two inputs of one frame."""
    for group in groups:
        first: dict[tuple[str, ...], Source] = {}
        for one in group:
            frame = tuple(str(one.meta.get(name)) for name in ("instrument", "detector", "exposure"))
            other = first.setdefault(frame, one)
            if other is not one:
                raise Mixture(
                    f"{other.address} and {one.address} are of one frame, {' '.join(frame)}: which is meant?",
                    hint="awe-query --newest names the last of each; awe-judge bad takes one out of the choice",
                )


def _refuse_same_products(kind: Kind, groups: Sequence[Sequence[Source]]) -> None:
    """Raise UsageError if two products of one run would get one name, saying in what they differ."""
    first: dict[str, Source] = {}
    for one in (group[0] for group in groups):
        name = _product_name(kind, one.meta)
        other = first.setdefault(name, one)
        if other is not one:
            differs = [key for key in (*kind.match, *kind.group) if one.meta.get(key) != other.meta.get(key)]
            raise UsageError(
                f"what is made of {other.address} and of {one.address} would both become {name} "
                f"(they differ in {', '.join(differs) or 'their content'})",
                hint="one run with -o for each, or a store, whose names are unique",
            )


def _products_among(addresses: Sequence[Address]) -> Iterator[Source]:
    """The inputs that are products; those that cannot be opened are reported when their turn comes."""
    for address in dict.fromkeys(addresses):
        with suppress(AweError):
            if is_product(address.path):
                yield open_product(address.path)


def _answers(
    results: Iterator[list[Outcome] | Exception], names: Sequence[str], notes: Sequence[tuple[str, ...]]
) -> Iterator[Outcome | Failure]:
    for name, note, result in zip(names, notes, results, strict=True):
        if isinstance(result, Exception):
            yield Failure(name, result, note)
        else:
            yield from result


def _about(group: Sequence[Source]) -> str:
    return str(group[0].address) + (f" and {len(group) - 1} more" if len(group) > 1 else "")


def open_sources(address: Address, workspace: Workspace, spool: bool = False) -> list[Source]:
    """What is at an address: a product, or the detectors of a raw frame."""
    stat_of(address.path)
    if is_product(address.path):
        return [open_product(address.path)]
    return list(open_raw(address, workspace, spool))


def _without_repeats(found: list[Source]) -> tuple[list[Source], tuple[str, ...]]:
    """The sources less those whose content was given before, and a note on each of them."""
    first: dict[str, Source] = {}
    notes = []
    for one in found:
        if one.content in first:
            notes.append(f"left out {one.address}: the same pixels as {first[one.content].address}")
        else:
            first[one.content] = one
    return list(first.values()), tuple(notes)


def _of_frames_alone(found: list[Source], notes: tuple[str, ...]) -> tuple[list[Source], tuple[str, ...]]:
    """The lists of frames, where there are also some of what was made of these on a sky grid; and a note on those.

    What a query of all lists gives is meant for the frames: those of their regrids and coadds are not others.
    """
    frames = {str(one.meta.get("exposure")) for one in found if not on_grid(one.meta)}
    again = [
        one for one in found if frames and on_grid(one.meta) and one.meta.get("exposure") in (None, *frames)
    ]
    if not again:
        return found, notes
    more = f" and {len(again) - 1} more" if len(again) > 1 else ""
    said = f"left out {again[0].address}{more}: of images on a sky grid; those of the frames are taken"
    return [one for one in found if one not in again], (*notes, said)


def _one(
    request: Request, wish: Wish, group: Sequence[Source], loader: Loader, notes: tuple[str, ...]
) -> Outcome:
    try:
        return _decided(request, wish, group, loader, notes)
    finally:
        for one in group:
            if isinstance(one, RawInput) and one.fits is not None:
                one.fits.close()


def _decided(
    request: Request, wish: Wish, group: Sequence[Source], loader: Loader, notes: tuple[str, ...]
) -> Outcome:
    kind = request.kind
    plan = make_plan(kind, group, wish, request.workspace, request.kinds)
    target, store = target_of(plan, request.output, request.out_dir, request.workspace, _file_name)
    _refuse_input_as_output(plan, target)
    if request.how.depfile is not None:
        check_depfile(request.how.depfile, target, plan)
    before = None
    if request.mode != "make" and store is not None and request.output is None and request.out_dir is None:
        before = predecessor(store, plan)
    reasons = tuple(decide(plan, target, before))
    if request.mode != "make":
        return _answer(request, target, reasons)
    if request.update and not reasons:
        _settle(plan, target, request.how)
        return Outcome(target, "up-to-date", notes=notes, record=read_record(sidecar(target)))
    if not request.how.force:
        finish_rename(target)
        refuse_foreign(target)
    published = build(plan, target, store, request.how, loader)
    notes = (*_header_problems(group), *notes, *published.notes)
    return Outcome(target, "made", reasons, published.warnings, notes, published.record)


def _header_problems(group: Sequence[Source]) -> Iterator[str]:
    """What the headers of the raw inputs left open or contradict, each said once with how many have it."""
    found: dict[str, list[str]] = {}
    for one in group:
        for problem in one.problems if isinstance(one, RawInput) else ():
            found.setdefault(problem, []).append(str(one.address))
    for problem, names in found.items():
        yield f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {problem}"


def _answer(request: Request, target: Path, reasons: tuple[Reason, ...]) -> Outcome:
    if request.mode == "check" and reasons:
        texts = "; ".join(f"{reason.name} ({reason.detail})" for reason in reasons)
        raise NotUpToDate(f"{target}: {texts}")
    return Outcome(target, "would-make" if reasons else "up-to-date", reasons)


def _settle(plan: Plan, target: Path, how: How) -> None:
    set_time(target, [path for path in watched_files(plan) if path.exists()])
    if how.depfile is not None:
        write_depfile(how.depfile, target, plan)


def _refuse_input_as_output(plan: Plan, target: Path) -> None:
    for one in plan.inputs:
        if target.exists() and target.samefile(one.source.address.path):
            raise UsageError(f"{target}: is an input and cannot be the output too")


def _file_name(plan: Plan) -> str:
    """The name of a product under --out-dir: of its one input, or of the group."""
    sources = plan.given
    if not plan.kind.primary.many and isinstance(sources[0].source, RawInput):
        address = sources[0].source.address
        return f"{_stem(address.path)}{f'_{address.detector}' if address.detector else ''}.fits"
    return _product_name(plan.kind, plan.meta)


def _product_name(kind: Kind, meta: Mapping[str, Any]) -> str:
    """KIND_NIGHT_DETECTOR[_FILTER][_EXPOSURE][_TEMPERATURE].fits, from the meta of the product or of an input.

    OBJECT, GRID and TILE stand for the detector of what many frames made on a sky grid, as in a store.
    """
    keeps_filter = "filter" in kind.match or not kind.primary.many
    degrees = meta.get("temperature_set_c")
    parts: list[object] = [
        kind.name,
        meta.get("night"),
        *(names_on_sky(meta) or [str(meta.get("detector") or "")]),
        meta.get("filter") if keeps_filter else None,
        meta.get("exposure") if "exposure" in kind.group else None,
        None if degrees is None else f"{degrees:g}C",
    ]
    return "_".join(str(part).replace("/", "-") for part in parts if part) + ".fits"


def _stem(path: Path) -> str:
    name = path.name
    for ending in (".fz", ".gz"):
        name = name.removesuffix(ending)
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in ("fits", "fit", "fts") else name
