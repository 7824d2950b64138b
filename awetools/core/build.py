"""Make one product: load its inputs, run the recipe, measure, judge, publish."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .catalogues.refinput import RefcatInput
from .errors import BadPixels, OutsideLimits
from .files import allow_open_files, make_directory, unpack_to_disk
from .foreignfiles import ForeignInput
from .frame import DEFAULT_MEMORY_BYTES, Frame, FrameRows, FrameSet, ImageSet, Table
from .journal import user_name
from .kind import NO_GOOD_PIXEL, Result
from .planning.filling import Input
from .planning.offgrid import is_elsewhere
from .planning.plan import Plan
from .products import ProductInput, load_product, load_table
from .publish import Published, drop_parts, publish, software
from .quality import judge
from .raws import RawInput, raw_frame_of
from .store import Store

if TYPE_CHECKING:
    import numpy as np

    from .fits import CardTuple, FitsFile, Plane
    from .unfinished import Unfinished

# Calibrations are kept between the frames of a batch, so that each is opened once.
KEPT_PRODUCTS = 10


@dataclass
class Loader:
    """Loads products, keeping the last few."""

    kept: OrderedDict[tuple[Path, str], Frame | Table] = field(default_factory=OrderedDict)

    def load(self, product: ProductInput) -> Frame | Table:
        """The pixels of a product, from memory if it was loaded before."""
        name = (product.path, product.content)
        if name not in self.kept:
            self.kept[name] = load_product(product)
            while len(self.kept) > KEPT_PRODUCTS:
                self.kept.popitem(last=False)
        self.kept.move_to_end(name)
        return self.kept[name]


@dataclass(frozen=True)
class How:
    """How a product is made: what does not change its bits. left_out: frames that could not be had, `FILE: REASON`."""

    memory_bytes: int = DEFAULT_MEMORY_BYTES
    strict: bool = False
    force: bool = False
    depfile: Path | None = None
    argv: Sequence[str] = ()
    threads: int = 1
    scratch: Path | None = None
    unfinished: Unfinished | None = None
    left_out: Sequence[str] = ()


def build(plan: Plan, target: Path, store: Store | None, how: How, loader: Loader) -> Published:
    """Make the product of a plan and publish it.

    Raises what the recipe raises, OutsideLimits under `strict`, and what publishing raises.
    """
    if not plan.kind.primary.many:
        return _built(plan, target, store, how, loader)
    from .partial import is_partial, partial_path
    from .unfinished import Unfinished

    # Planes that do not fit into memory lie beside the product, where there must be room for it anyway.
    make_directory(target.parent)
    if is_partial(partial_path(target)):
        drop_parts(target)
    with Unfinished(target, _stamp(plan)) as unfinished:
        how = replace(how, scratch=target.parent, unfinished=unfinished)
        published = _built(plan, target, store, how, loader)
    return replace(published, notes=(*published.notes, *unfinished.notes))


def _stamp(plan: Plan) -> str:
    """What decides the bits of a product: its key, and the versions of what makes it."""
    versions = software()
    return " ".join([plan.key, *(f"{name} {versions[name]}" for name in ("awetools", "numpy"))])


def _built(plan: Plan, target: Path, store: Store | None, how: How, loader: Loader) -> Published:
    clock = _Clock()
    with ExitStack() as stack:
        arguments = _arguments(plan, how, loader, stack)
        result = plan.kind.recipe(**arguments, params=plan.params.values)
    plan = _with_meta(plan, result)
    not_had = _not_had(how.left_out)
    lacking = [*(reason for _, reason in plan.omitted), *(one["reason"] for one in not_had)]
    measures = _with_those_lacking(_measures(plan, result), lacking)
    left_out = [*_left_out(plan, result), *not_had]
    quality = judge(plan.kind, measures, plan.limits)
    if quality["flags"] and how.strict:
        raise OutsideLimits(
            f"{target}: not written: {_limits_text(quality)}", hint="without --strict it is written, flagged"
        )
    record = publish(
        plan,
        target,
        store,
        planes_of(plan, result),
        header_cards(plan),
        quality,
        clock.run(how.argv),
        result.used,
        left_out,
        how.force,
        how.depfile,
    )
    warnings = [f"{target}: flagged: {_limits_text(quality)}"] if quality["flags"] else []
    notes = [*plan.notes, *(f"{role}: {text}" for role, text in result.used.items())]
    notes += _left_out_texts(left_out)
    return Published(target, record, tuple(warnings), tuple(notes))


class _Clock:
    """What a run took."""

    def __init__(self) -> None:
        self.start, self.wall, self.cpu = datetime.now(UTC), time.monotonic(), time.process_time()

    def run(self, argv: Sequence[str]) -> dict[str, Any]:
        return {
            "argv": list(argv),
            "start": self.start.isoformat(timespec="milliseconds"),
            "end": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "host": platform.node(),
            "user": user_name(),
            "wall_s": round(time.monotonic() - self.wall, 3),
            "cpu_s": round(time.process_time() - self.cpu, 3),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def _arguments(plan: Plan, how: How, loader: Loader, stack: ExitStack) -> dict[str, object]:
    arguments: dict[str, object] = {}
    for need in plan.kind.needs:
        found = plan.of_role(need.role)
        if not need.many:
            # Of a batch each frame comes once; its calibrations come again.
            kept = need.role != plan.lead
            if found and need.table and isinstance(found[0].source, ProductInput):
                arguments[need.role] = load_table(found[0].source, need.table)
                continue
            arguments[need.role] = _load(found[0], loader, stack, kept=kept) if found else None
            continue
        if not need.kind.startswith("raw_"):
            arguments[need.role] = _many(found, how, loader, stack) if found else ()
            continue
        spool = unpack_to_disk((one.source.address.path for one in found), how.memory_bytes)
        loaded = [_load(one, loader, stack, spool) for one in found]
        arguments[need.role] = FrameSet(tuple(loaded), how.memory_bytes)  # type: ignore[arg-type]
    return arguments


def _many(found: Sequence[Input], how: How, loader: Loader, stack: ExitStack) -> object:
    """Products of one role: tables, each read when it is looked at, or images, read in rows."""
    from .fits import open_fits

    allow_open_files(len(found))
    frames = []
    for one in found:
        fits = open_fits(one.source.address.path)
        if not fits.hdus[0].is_image:
            fits.close()
            return tuple(StoredTable(other.source, other.meta, loader) for other in found)
        frames.append(_rows_of(stack.enter_context(fits), one.meta))
    scratch = None if how.scratch is None else str(how.scratch)
    return ImageSet(tuple(frames), how.memory_bytes, how.threads, scratch, how.unfinished)


def _rows_of(fits: FitsFile, meta: Mapping[str, Any]) -> FrameRows:
    """The image of a product, with its weight and mask."""
    from .errors import NoImage

    first = fits.hdus[0]
    named = {hdu.name: hdu.index for hdu in fits.hdus if hdu.is_image}
    if "WEIGHT" not in named:
        raise NoImage(f"{fits.path}: has no plane WEIGHT", hint="awe-import --weight FILE, or awe-reduce")

    def read(y0: int, y1: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        mask = fits.rows(named["MASK"], y0, y1) if "MASK" in named else None
        return fits.rows(first.index, y0, y1), fits.rows(named["WEIGHT"], y0, y1), mask

    ny, nx = first.shape
    return FrameRows(meta, (ny, nx), read, str(first.header.get("BUNIT") or "adu").strip().lower())


@dataclass(frozen=True)
class StoredTable:
    """A Table whose columns are read when they are looked at: thousands of lists need not fit into memory."""

    product: Any
    meta: Mapping[str, Any]
    loader: Loader

    @property
    def columns(self) -> Mapping[str, Any]:
        """The columns, from the file or from the last few that were read."""
        table = self.loader.load(self.product)
        return table.columns if isinstance(table, Table) else {}


def _load(one: Input, loader: Loader, stack: ExitStack, spool: bool = False, kept: bool = True) -> object:
    if isinstance(one.source, RawInput):
        fits = stack.enter_context(one.source.open(spool))
        return raw_frame_of(replace(one.source, meta=one.meta), fits)
    if isinstance(one.source, ForeignInput | RefcatInput):
        return one.source.load()
    return loader.load(one.source) if kept else load_product(one.source)


def _with_meta(plan: Plan, result: Result) -> Plan:
    return replace(plan, meta={**plan.meta, **result.meta})


def _measures(plan: Plan, result: Result) -> dict[str, float | int | None]:
    from .pixels.spool import Spool
    from .pixels.spoolstats import count_above_zero, spool_imstat
    from .pixels.stats import imstat

    measures = {name: _plain(value) for name, value in result.measures.items()}
    declared = [measure.name for measure in plan.kind.measures]
    if sorted(measures) != sorted(declared):
        raise RuntimeError(
            f"{plan.kind.name}: measures {sorted(measures)} are not those declared, {sorted(declared)}"
        )
    if not result.planes:
        return measures
    image = next(iter(result.planes.values()))
    weight = result.planes.get("WEIGHT")
    good = image.size if weight is None else count_above_zero(weight)
    if not good:
        raise BadPixels(f"{plan.kind.name}: {NO_GOOD_PIXEL}", hint="look at the inputs with awe-preview")
    measures["good_fraction"] = good / image.size
    if isinstance(image, Spool) or isinstance(weight, Spool):
        statistics = spool_imstat(image, weight)
    else:
        statistics = imstat(image, None if weight is None else weight > 0)
    measures.update({f"imstat.{name}": _plain(value) for name, value in statistics.items()})
    return measures


def _with_those_lacking(
    measures: dict[str, float | int | None], reasons: Sequence[str]
) -> dict[str, float | int | None]:
    """The measures; the number of frames left out counts those that the recipe was not given, too.

    Not those that have nothing on the grid: nobody misses them.
    """
    number = measures.get("left_out")
    if number is None:
        return measures
    return measures | {"left_out": int(number) + sum(not is_elsewhere(one) for one in reasons)}


def _plain(value: object) -> float | int | None:
    """A measure as JSON takes it; what is not finite was not measured."""
    import math

    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        return None
    # Nine digits are more than any measure has, and keep records short and readable.
    return int(number) if isinstance(value, int) else float(f"{number:.9g}")


def planes_of(plan: Plan, result: Result) -> list[Plane]:
    """The planes of a result, as the FITS writer takes them; float planes are checked to be finite."""
    from .fits import Plane
    from .pixels.mask import BIT_NAMES
    from .pixels.spool import Spool
    from .pixels.spoolstats import spool_finite
    from .pixels.stats import all_finite

    if result.table is not None:
        table, units = dict(result.table), dict(result.units)
        return [Plane(name=plan.kind.name.upper(), table=table, units=units, cards=result.cards)]
    unit = plan.kind.unit if result.unit is None else result.unit
    planes = []
    for number, (name, data) in enumerate(result.planes.items()):
        finite = spool_finite(data) if isinstance(data, Spool) else all_finite(data)
        if data.dtype.kind == "f" and not finite:
            raise RuntimeError(f"{plan.kind.name}: the recipe left values in {name} that are not finite")
        cards: list[CardTuple] = [] if number else list(result.cards)
        if name == "SCI":
            cards.append(("BUNIT", unit, "unit of the pixels"))
        if name == "WEIGHT":
            cards.append(("BUNIT", _inverse_square(unit), "inverse variance"))
        if name == "MASK":
            cards += [
                (f"MBIT{bit.bit_length() - 1:02d}", text, f"mask bit {int(bit)}")
                for bit, text in BIT_NAMES.items()
            ]
        planes.append(Plane(name=name, data=data, cards=cards))
    planes += [Plane(name=name, table=dict(table)) for name, table in result.tables.items()]
    return planes


def _inverse_square(unit: str) -> str:
    """The unit of a weight: adu-2, or s2/adu2 where the pixels are in adu/s."""
    above, _, below = unit.partition("/")
    if below:
        return f"{below}2/{above}2"
    return f"{above}-2" if above else ""


def header_cards(plan: Plan) -> list[CardTuple]:
    """The cards of the primary header: what the product is, and its meta in the keywords of the field."""
    meta = plan.meta
    cards: list[CardTuple] = [
        ("AWEKIND", plan.kind.name, "kind of product; see the .json beside this file"),
        ("AWEKEY", plan.key, ""),
        ("AWEREV", plan.kind.revision, "revision of the recipe"),
    ]
    for field_name, keyword, comment in HEADER_NAMES:
        value = meta.get(field_name)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if value is not None:
            cards.append((keyword, value, comment))
    if meta.get("obs_start"):
        cards.append(("MJD-OBS", _mjd(meta["obs_start"]), "start of the (first) exposure, UTC"))
    for keyword, value in (meta.get("wcs") or {}).items():
        cards.append((keyword, value, ""))
    return cards


def _mjd(obs_start: str) -> float:
    since = datetime.fromisoformat(obs_start) - datetime(1858, 11, 17)
    return round(since.total_seconds() / 86400, 9)


HEADER_NAMES = (
    ("instrument", "INSTRUME", "instrument"),
    ("detector", "DETECTOR", "detector"),
    ("filter", "FILTER", "filter"),
    ("object", "OBJECT", "object"),
    ("exposure", "EXPID", "exposure id"),
    ("night", "NIGHT", "local date of the evening"),
    ("obs_start", "DATE-OBS", "start of the (first) exposure, UTC"),
    ("exptime_s", "EXPTIME", "[s] exposure time"),
    ("airmass", "AIRMASS", "airmass"),
    ("ra_deg", "RA", "[deg] nominal right ascension"),
    ("dec_deg", "DEC", "[deg] nominal declination"),
    ("binning", "CCDBIN", "binning"),
    ("gain_e_adu", "GAIN", "[e/ADU] effective gain"),
    ("read_noise_adu", "RDNOISE", "[ADU] read noise"),
    ("saturation_adu", "SATURATE", "[ADU] saturation"),
    ("zeropoint_mag", "PHOT_C", "[mag] zero point of 1 ADU/s"),
    ("slid", "SLID", "number of the source list"),
    ("overscan_mode", "OVERSCAN", "how the overscan was subtracted"),
)


def _left_out(plan: Plan, result: Result) -> list[dict[str, str]]:
    sources = [(one.source, reason) for one, reason in plan.omitted]
    sources += [(plan.given[one.number].source, one.reason) for one in result.left_out]
    return [
        {"path": str(source.address), "content": source.content, "reason": reason}
        for source, reason in sources
    ]


def _left_out_texts(left_out: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """What was left out, a line a reason."""
    alike: dict[str, list[str]] = {}
    for one in left_out:
        alike.setdefault(one["reason"], []).append(one["path"])
    for reason, (first, *others) in alike.items():
        names = ", ".join([first, *(os.path.basename(one) for one in others)])
        yield f"left out {names}: {reason}"


def _not_had(texts: Sequence[str]) -> list[dict[str, str]]:
    """Frames that were not given, each once: what is said of it first is nearest to the cause."""
    found: dict[str, str] = {}
    for text in texts:
        path, _, reason = text.partition(": ")
        found.setdefault(path, reason or "it could not be had")
    return [{"path": path, "reason": reason} for path, reason in found.items()]


def _limits_text(quality: Mapping[str, Any]) -> str:
    texts = []
    for one in quality["limits"]:
        if not one["ok"]:
            bounds = (
                f"{'' if one['low'] is None else one['low']}..{'' if one['high'] is None else one['high']}"
            )
            texts.append(f"{one['measure']} = {one['value']} is outside {bounds}")
    return "; ".join(texts)
