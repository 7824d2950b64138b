"""Copies of tables in the forms that other programs read: LDAC, VOTable, CSV, ECSV, regions, and .head files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .copies import refuse_others, write_copy, write_text_copy
from .errors import Mixture, NoSuchFile, UsageError, WrongKind
from .products import ProductInput

if TYPE_CHECKING:
    from .ellipses import Columns
    from .fits import CardTuple, Plane
    from .frame import Frame
    from .store import Store

MAKER = "awe-export"
# What VOTable and ECSV say of the product that a table is of.
TOLD = ("instrument", "detector", "exposure", "object", "filter", "night", "obs_start", "exptime_s")
FITS_ENDINGS = (".fits", ".fit", ".fts")
# The side of the stamps that PSFEx gets where nobody says.
USUAL_STAMP_PX = 35
LARGEST_STAMP_PX = 501


@dataclass(frozen=True)
class TableForm:
    """What a copy of a table is to be.

    to: a name of FORMS. stamp_px: side of the stamps of LDAC, 0 for none. sky: regions in
    coordinates of the sky.
    """

    to: str
    stamp_px: int = 0
    sky: bool = False
    force: bool = False


@dataclass(frozen=True)
class Writing:
    """How a form is written: the endings of its names, the first one the usual; many: several go into one file.

    mark: the line that says that awe-export wrote the text, at line `mark_at`; None where the form has no
    comments, so that such a file is replaced by force only.
    """

    endings: tuple[str, ...]
    lines: Callable[[ProductInput, TableForm, Sequence[Store]], Iterable[str]] | None = None
    mark: str | None = None
    mark_at: int = 0
    many: bool = False


@dataclass(frozen=True)
class _Content:
    columns: Columns
    units: dict[str, str]
    meta: dict[str, str | float]


def default_form(program: str) -> str | None:
    """The form in which a program reads tables; None where there is none."""
    return {"scamp": "ldac", "psfex": "ldac", "ds9": "regions", "swarp": "head"}.get(program)


def form_of_name(output: Path | None) -> str | None:
    """The form that the end of a name stands for; None where there is none, as for FITS."""
    ending = output.suffix.lower() if output else ""
    if ending in FITS_ENDINGS:
        return None
    return next((form for form, one in FORMS.items() if ending in one.endings), None)


def is_table(product: ProductInput) -> bool:
    """Whether a product holds no image."""
    from .fits import open_fits

    with open_fits(product.path) as fits:
        return not any(hdu.is_image for hdu in fits.hdus)


def table_target(product: Path, to: str) -> Path:
    """The name of a copy: that of the product, with the ending of its form."""
    return product.with_name(f"{product.stem}{FORMS[to].endings[0]}")


def export_tables(
    products: Sequence[ProductInput], target: Path, form: TableForm, stores: Sequence[Store] = ()
) -> list[Path]:
    """Write the copy of one table, or the LDAC of the detectors of one exposure; returns its path.

    stores: where its inputs may be, if they were moved. Raises UsageError (a name with another
    ending), Mixture, WrongKind, NoSuchFile (no image for stamps, no solution for a head),
    WouldOverwrite, BadHeader.
    """
    writing = FORMS[form.to]
    if target.suffix.lower() not in writing.endings:
        raise UsageError(f"-o {target}: a name of {form.to} ends in {' or '.join(writing.endings)}")
    refuse_others(target, form.force)
    if len(products) > 1 and not writing.many:
        raise Mixture(
            f"{target}: {form.to} holds one table, but there are {len(products)}", hint="--out-dir DIR"
        )
    if writing.lines is None:
        planes = [plane for one in products for plane in _ldac(one, form, stores)]
        write_copy(target, [_primary(), *planes], _primary_cards(products), MAKER, form.force)
        return [target]
    lines = list(writing.lines(products[0], form, stores))
    write_text_copy(target, lines, MAKER, form.force, writing.mark, writing.mark_at)
    return [target]


def commands_of_tables(program: str, paths: Sequence[Path]) -> list[str]:
    """The commands with which a program reads the tables that were written: one, where it takes all at once."""
    import shlex

    names = [shlex.quote(str(one)) for one in paths]
    if program == "ds9":
        return [f"ds9 IMAGE -regions {name}" for name in names]
    return [f"{program} {' '.join(names)}"] if names and program in ("scamp", "psfex") else []


def input_of(product: ProductInput, kinds: Sequence[str], stores: Sequence[Store]) -> ProductInput | None:
    """The input of one of these kinds that a product was made of, wherever it is now; None if it is gone."""
    from .products import open_product
    from .tracing.lookup import Lookup

    with Lookup(stores) as lookup:
        node = lookup.named(str(product.path))[0]
        for _, one in lookup.inputs(node):
            if one.state in ("present", "moved") and one.kind in kinds:
                return open_product(Path(one.path))
    return None


def image_of(product: ProductInput, stores: Sequence[Store]) -> Frame:
    """The image that a source list was made of. Raises NoSuchFile."""
    from .frame import Frame
    from .products import load_product

    found = input_of(product, ("reduced", "coadd"), stores)
    loaded = load_product(found) if found is not None else None
    if not isinstance(loaded, Frame):
        raise NoSuchFile(
            f"{product.path}: the image that it was made of is not at hand, so there are no stamps of its sources",
            hint="--vignet 0 writes none",
        )
    return loaded


# LDAC


def _ldac(product: ProductInput, form: TableForm, stores: Sequence[Store]) -> list[Plane]:
    from .exportldac import ldac_units

    columns = _content(product).columns
    stamps = image_of(product, stores) if form.stamp_px else None
    return ldac_units(product, columns, stamps, form.stamp_px)


def _primary() -> Plane:
    from .fits import Plane

    return Plane("")


def _primary_cards(products: Sequence[ProductInput]) -> list[CardTuple]:
    keys: list[CardTuple] = [("AWEKEY", products[0].key, "")] if len(products) == 1 else []
    history = [f"{MAKER} of {one.kind} {one.path.name}, key {one.key}" for one in products]
    return [*keys, ("AWEFROM", products[0].kind, ""), *(("HISTORY", text, "") for text in history)]


# Texts


def _csv(product: ProductInput, _form: TableForm, _stores: Sequence[Store]) -> Iterable[str]:
    from .exporttexts import csv_lines

    return csv_lines(_content(product).columns)


def _ecsv(product: ProductInput, _form: TableForm, _stores: Sequence[Store]) -> Iterable[str]:
    from .exporttexts import ecsv_lines

    found = _content(product)
    return ecsv_lines(found.columns, found.units, found.meta)


def _votable(product: ProductInput, _form: TableForm, _stores: Sequence[Store]) -> Iterable[str]:
    from .exporttexts import votable_lines

    found = _content(product)
    return votable_lines(found.columns, found.units, found.meta)


def _regions(product: ProductInput, form: TableForm, _stores: Sequence[Store]) -> Iterable[str]:
    from .exporttexts import region_lines

    parameters = product.record["recipe"]["parameters"]
    known = {name: one.get("value") if isinstance(one, dict) else one for name, one in parameters.items()}
    columns, cards = _content(product).columns, product.meta.get("wcs")
    return region_lines(columns, known, cards, form.sky, str(product.path))


def _head(product: ProductInput, _form: TableForm, stores: Sequence[Store]) -> Iterable[str]:
    """The coordinates of a product, which for a zero point are those of the solution that it was made with."""
    from .exportldac import head_lines

    if product.kind != "zeropoint":
        return head_lines(product, product)
    solution = input_of(product, ("astrom",), stores)
    if solution is None:
        raise NoSuchFile(
            f"{product.path}: the astrometric solution that it was made with is not at hand",
            hint="--to head of the astrom",
        )
    return head_lines(solution, product)


def _content(product: ProductInput) -> _Content:
    """The columns of a product's table with their units, and what it is of. Raises WrongKind for an image."""
    from .fits import open_fits

    with open_fits(product.path) as fits:
        tables = [hdu for hdu in fits.hdus if hdu.is_table]
        if not tables or any(hdu.is_image for hdu in fits.hdus):
            raise WrongKind(f"{product.path}: a {product.kind} is an image, not a table", hint="without --to")
        header = tables[0].header
        columns = fits.table(tables[0].index)
    count = int(str(header.get("TFIELDS") or 0))
    units = {
        str(header[f"TTYPE{place}"]).strip(): str(header[f"TUNIT{place}"]).strip()
        for place in range(1, count + 1)
        if header.get(f"TUNIT{place}")
    }
    meta = {name: product.meta[name] for name in TOLD if product.meta.get(name) is not None}
    return _Content(columns, units, {"awekey": product.key, "kind": product.kind, **meta})


FORMS: dict[str, Writing] = {
    "ldac": Writing((".ldac", ".cat", *FITS_ENDINGS), many=True),
    "votable": Writing((".vot", ".votable", ".xml"), _votable, "<!-- {} -->", 1),
    "csv": Writing((".csv",), _csv),
    "ecsv": Writing((".ecsv",), _ecsv, "# # {}", 2),
    "regions": Writing((".reg",), _regions, "# {}", 1),
    "head": Writing((".head", ".ahead"), _head, "COMMENT   {}"),
}
