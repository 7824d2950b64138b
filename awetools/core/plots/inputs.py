"""From files to plots: what fits a file, how it is called in the legend, what is read of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..batch import open_sources
from ..changes import Change
from ..errors import NoMatch, UnknownName, UsageError, WrongKind, nearest
from ..files import parse_address
from ..frame import Frame, Table
from ..kind import Kind, kind_named
from ..planning.filling import Source
from ..products import ProductInput, load_product, open_product
from ..raws import RawInput
from ..relatives import product_named, relatives
from ..workspace import Workspace
from .amplifiers import (
    PAIR_LEVEL,
    Measured,
    by_amplifier,
    has_column,
    linearity,
    photon_transfer,
)
from .columns import Value, columns_plot
from .detector import (
    Shown,
    from_predecessor,
    from_smooth,
    histogram,
    mask_overlay,
    overscan,
    profile,
    residual,
)
from .figure import Plot, logged
from .residuals import MARK as RESIDUALS
from .residuals import astrometry
from .solutions import NEEDED as OF_FRAMES
from .solutions import frames

# What files differ in, in the order in which a legend says it.
TOLD = ("detector", "filter", "night", "temperature_set_c", "exposure")
TITLE = ("instrument", "detector", "filter", "night", "exposure")


@dataclass(frozen=True)
class Choice:
    """What a person may choose besides the files.

    with_path: the product that residuals are against. smooth: they are against the
    image's own smooth version. block: side of their blocks (px). y: the measures. log:
    axes that are logarithmic, of `x` and `y`.
    """

    with_path: Path | None = None
    smooth: bool = False
    block: int = 64
    y: Sequence[str] = ()
    log: str = ""


def plot_files(
    what: str | None, names: Sequence[str], workspace: Workspace, kinds: Sequence[Kind], choice: Choice
) -> tuple[Plot, list[str]]:
    """A plot of files, and notes on what was taken for it.

    ``what``: a name of TABLES or IMAGES, or `overscan`, `measures`, `residual`; by
    default what fits the files. Raises UsageError for files that no one plot fits,
    WrongKind, NoImage, and what opening them raises.
    """
    sources: list[Source] = []
    for name in names:
        sources += open_sources(parse_address(name), workspace)
    what = what or _what_fits(sources, kinds)
    labels = labels_of(sources)
    notes: list[str] = []
    if what == "overscan":
        plot = _overscan(sources, labels)
    elif what in TABLES:
        plot = TABLES[what]([_table(one, label) for one, label in zip(sources, labels, strict=True)])
    elif what == "measures":
        plot = _measures(sources, kinds, choice)
    elif what == "residual":
        changes = _changes(sources, labels, workspace, kinds, choice, notes)
        plot = residual(changes, choice.block)
    else:
        shown = (_shown(one, label, kinds) for one, label in zip(sources, labels, strict=True))
        plot = IMAGES[what](shown)
    return logged(replace(plot, title=plot.title and f"{plot.title}: {title_of(sources)}"), choice.log), notes


TABLES = {
    "photon-transfer": photon_transfer,
    "linearity": linearity,
    "amplifiers": by_amplifier,
    "astrometry": astrometry,
    "frames": frames,
}
IMAGES = {
    "profile": profile,
    "histogram": histogram,
    "pulls": lambda shown: histogram(shown, pulls=True),
    "mask": mask_overlay,
}


def labels_of(sources: Sequence[Source]) -> list[str]:
    """A short label for each file: what it differs in from the others, or the file's name."""
    differ = [name for name in TOLD if len({one.meta.get(name) for one in sources}) > 1]
    labels = [" ".join(_said(one.meta.get(name)) for name in differ) for one in sources]
    if len(set(labels)) == len(labels) and all(labels):
        return labels
    names = [f"{label} {_file_name(one)}".strip() for label, one in zip(labels, sources, strict=True)]
    return names if len(sources) > 1 else [""]


def title_of(sources: Sequence[Source]) -> str:
    """What the files have in common: kind, instrument, detector, filter, night."""
    kinds = dict.fromkeys(one.kind.replace("_", " ") for one in sources)
    common = [
        _said(sources[0].meta.get(name))
        for name in TITLE
        if len({one.meta.get(name) for one in sources}) == 1
    ]
    return ", ".join([", ".join(kinds), *(text for text in common if text)])


def _said(value: object) -> str:
    """A field in words; the only numbers among them are temperatures."""
    if isinstance(value, int | float):
        return f"{value:g} \N{DEGREE SIGN}C".replace("-", "\N{MINUS SIGN}")
    return "" if value is None else str(value)


def _file_name(source: Source) -> str:
    detector = f"[{source.address.detector}]" if source.address.detector else ""
    return source.address.path.name.partition(".")[0] + detector


# What fits


def _what_fits(sources: Sequence[Source], kinds: Sequence[Kind]) -> str:
    fitting = {_fitting(one, kinds) for one in sources}
    if len(fitting) > 1:
        raise UsageError(
            f"the files are of several kinds, for which there are several plots: {', '.join(sorted(fitting))}",
            hint="--what NAME",
        )
    return fitting.pop()


def _fitting(source: Source, kinds: Sequence[Kind]) -> str:
    """The plot that a person most likely wants of a file."""
    if isinstance(source, RawInput):
        sections = source.meta.get("sections") or ()
        return "overscan" if any(one.get("overscan") for one in sections) else "histogram"
    loaded = _contents_of(source)
    if loaded == "table":
        table = load_product(source)
        assert isinstance(table, Table)
        if has_column(table, PAIR_LEVEL):
            return "photon-transfer"
        if has_column(table, RESIDUALS):
            return "astrometry"
        if all(has_column(table, name) for name in OF_FRAMES):
            return "frames"
        return "amplifiers" if has_column(table, "AMP") else "measures"
    if loaded == "MASK":
        return "mask"
    return "profile" if kind_named(kinds, source.kind).validity else "pulls"


def _contents_of(product: ProductInput) -> str:
    """The name of a product's first image, or `table`."""
    from ..fits import open_fits

    with open_fits(product.path) as fits:
        return next((hdu.name for hdu in fits.hdus if hdu.is_image), "table")


# What is read


def _overscan(sources: Sequence[Source], labels: Sequence[str]) -> Plot:
    from ..raws import raw_frame_of

    opened = []
    try:
        frames = []
        for one, label in zip(sources, labels, strict=True):
            if not isinstance(one, RawInput):
                raise WrongKind(f"{one.address}: a {one.kind} has no overscan any more; raw frames have")
            opened.append(one.open())
            frames.append((label, raw_frame_of(one, opened[-1])))
        return overscan(frames)
    finally:
        for fits in opened:
            fits.close()


def _table(source: Source, label: str) -> Measured:
    loaded = load_product(source) if isinstance(source, ProductInput) else None
    if not isinstance(loaded, Table):
        raise WrongKind(f"{source.address}: a {source.kind} is an image, not a table of numbers")
    return Measured(str(source.address), label, loaded)


def _shown(source: Source, label: str, kinds: Sequence[Kind]) -> Shown:
    from ..kinds.common import trim
    from ..raws import raw_frame_of

    if isinstance(source, RawInput):
        with source.open() as fits:
            frame = raw_frame_of(source, fits)
            data = trim(frame, str(source.meta.get("overscan_mode") or "none")).image()
        return Shown(str(source.address), label, Frame(data, meta=source.meta))
    loaded = load_product(source)
    if isinstance(loaded, Table):
        raise WrongKind(f"{source.path}: a {source.kind} is a table, not an image", hint="--what amplifiers")
    return Shown(str(source.path), label, loaded, kind_named(kinds, source.kind).unit)


def _changes(
    sources: Sequence[Source],
    labels: Sequence[str],
    workspace: Workspace,
    kinds: Sequence[Kind],
    choice: Choice,
    notes: list[str],
) -> Iterator[tuple[str, Change]]:
    """What each file differs by, one after the other, and a note on from what."""
    for one, label in zip(sources, labels, strict=True):
        shown = _shown(one, label, kinds)
        against = None if choice.smooth else _against(one, workspace, kinds, choice)
        if against is None:
            notes.append(f"{one.address}: against its own smooth version")
            said = f"{label}, against its smooth version".removeprefix(", ")
            yield said, from_smooth(shown, choice.block)
            continue
        notes.append(f"{one.address}: against {against.path}")
        other = _shown(against, str(against.path), kinds)
        said = f"{label}, against {labels_of([one, against])[1]}".removeprefix(", ")
        yield said, from_predecessor(shown, other)


def _against(
    source: Source, workspace: Workspace, kinds: Sequence[Kind], choice: Choice
) -> ProductInput | None:
    """The product that another one is compared with; None where there is none before it."""
    if choice.with_path is not None:
        return product_named(str(choice.with_path), workspace)
    if not isinstance(source, ProductInput):
        return None
    found = relatives(source, kind_named(kinds, source.kind), workspace.stores, 1).predecessor
    return None if found is None else open_product(found)


def _measures(sources: Sequence[Source], kinds: Sequence[Kind], choice: Choice) -> Plot:
    rows: list[dict[str, Value]] = []
    declared: dict[str, None] = {}
    for one in sources:
        if not isinstance(one, ProductInput):
            raise WrongKind(f"{one.address}: a raw frame has no measures", hint="awe-imstat")
        declared |= dict.fromkeys(measure.name for measure in kind_named(kinds, one.kind).measures)
        rows.append(_told(one.meta) | _numbers(one.record["quality"]["measures"]))
    known = list(dict.fromkeys(name for row in rows for name in row if name not in (*TOLD, "obs_start")))
    for name in choice.y:
        if name not in known:
            raise UnknownName(f"no measure {name!r}{nearest(name, known)}; there are: {', '.join(known)}")
    wanted = list(choice.y) or [name for name in declared if any(row.get(name) is not None for row in rows)]
    if not wanted:
        raise NoMatch("none of the measures has a value")
    one_night = len({row["night"] for row in rows}) == 1
    by = next((name for name in ("detector", "filter") if len({row[name] for row in rows}) > 1), None)
    plot = columns_plot(rows, "obs_start" if one_night else "night", wanted, by)
    return replace(plot, title="Measures")


def _told(meta: Mapping[str, Any]) -> dict[str, Value]:
    return {name: _value(meta.get(name)) for name in (*TOLD, "obs_start")}


def _value(value: object) -> Value:
    return None if value is None else float(value) if isinstance(value, int | float) else str(value)


def _numbers(measures: Mapping[str, Any]) -> dict[str, Value]:
    return {name: None if value is None else float(value) for name, value in measures.items()}
