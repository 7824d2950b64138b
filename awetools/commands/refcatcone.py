"""`awe-refcat cone`: the stars of a place, printed or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import NoMatch, UsageError
from .answers import Output, print_answer, refuse_same_names
from .messages import Messenger
from .refcatwords import cone_of, magnitude, pairs

if TYPE_CHECKING:
    from ..core.catalogues.refstore import Shelf
    from ..core.questions.querytables import Column
    from ..core.sky.refcat import Catalogue, Stars

HELPS = {
    "ra_deg": "Right ascension, ICRS.",
    "dec_deg": "Declination, ICRS.",
    "ra_error_mas": "Standard error of RA times cos(Dec).",
    "dec_error_mas": "Standard error of Dec.",
    "epoch_yr": "Julian year of the position.",
    "pm_ra_mas_yr": "Proper motion in RA times cos(Dec).",
    "pm_dec_mas_yr": "Proper motion in Dec.",
}


def print_cone(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    """Print or write the stars of a cone; raises NoMatch where there is none."""
    from ..core.catalogues.refstore import opened

    if len(words) != 2:
        raise UsageError(
            "a cone is of one catalogue and one place", hint="awe-refcat cone NAME 202.47,47.2,0.2"
        )
    ra, dec, radius = cone_of(words[1])
    output = Output.of("json" if given["as_json"] else given["form"], given["output"], True)
    if output.form == "paths":
        raise UsageError("stars have no paths", hint="--format tsv, or -o NAME.tsv")
    limits = pairs(given["faintest"], "--faintest", "BAND=MAG")
    faintest = {band: magnitude(band, text) for band, text in limits.items()}
    made = opened(words[0], shelves)
    names = [one.strip() for one in (given["columns"] or "").split(",") if one.strip()] or list(made.columns)
    refuse_same_names(names, output)
    # Refuses what is not there before anything is printed.
    pieces = made.pieces(ra, dec, radius, epoch_yr=given["epoch"], faintest=faintest, columns=names)
    if not print_answer(_rows(pieces, names), _columns(made, names), output):
        fainter = "".join(f", {band} <= {limit:g}" for band, limit in faintest.items())
        raise NoMatch(
            f"{made.path}: no star within {radius:g} deg of {ra:.6f} {dec:+.6f}{fainter}",
            hint=f"awe-refcat show {made.path.name}",
        )
    if given["epoch"] is not None:
        _say_still(messenger, made, given["epoch"])
    return 0


def _say_still(messenger: Messenger, made: Catalogue, epoch_yr: float) -> None:
    """How many stars have no motion that is known, and so are where their own epoch saw them."""
    still = max(made.header["without_epoch"], made.header["without_motion"])
    if still:
        messenger.note(
            f"{made.name}: {still} of its {made.rows} stars have no epoch or no proper motion: "
            f"such stars are not moved to {epoch_yr:g}, and keep their own epoch_yr"
        )


def _columns(made: Catalogue, names: Sequence[str]) -> list[Column]:
    from ..core.questions.querytables import Column
    from ..core.sky.refcat import FLAGS, unit_of

    bits = "; ".join(f"{bit}: {text}" for bit, text in FLAGS.items())
    return [
        Column(
            name,
            "integer" if made.columns[name].startswith("i") else "real",
            unit_of(name),
            bits if name == "flags" else HELPS.get(name, ""),
        )
        for name in names
        if name in made.columns
    ]


def _rows(pieces: Iterator[Stars], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row a star; a number in few bits in its own shortest digits, None where it is not known."""
    for piece in pieces:
        lists = []
        for name in names:
            values = piece[name]
            if values.dtype == "f4":
                values = values.astype(str).astype("f8")
            lists.append([None if value != value else value for value in values.tolist()])
        yield from (dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True))
