"""A reference catalogue as an input of a product: which one a parameter means, and what the record says of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AweError, Flagged, Integrity, NoMatch, NoSuchFile, Protected, Unavailable, UsageError
from ..files import Address
from ..journal import words
from ..kind import REFCAT
from ..store import Store

if TYPE_CHECKING:
    from ..sky.refcat import Catalogue

# What the parameter says if no catalogue is to be used, and if it is to be found.
NONE, AUTO = "none", "auto"
# A catalogue serves a field if it has stars so near to the pointing.
NEAR_DEG = 1.0
CATALOGUES_KEPT = 16


@dataclass(frozen=True)
class RefcatInput:
    """A reference catalogue in the role of an input; its content is the hash of all its stars."""

    path: Path
    name: str
    content: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """The directory, as an address."""
        return Address(self.path)

    @property
    def watched(self) -> Path:
        """The file whose time is that of the catalogue; a directory's says nothing to Make."""
        from ..sky.refcat import HEADER

        return self.path / HEADER

    @property
    def kind(self) -> str:
        """What the record calls it."""
        return REFCAT

    @property
    def key(self) -> None:
        """It has no recipe key."""
        return

    def look(self) -> Catalogue:
        """The catalogue as its header tells of it, with nothing compared; raises as `open_catalogue`."""
        return _opened(self.path)

    def load(self) -> Catalogue:
        """The catalogue, to read cones from, which compares each shard with its hash; raises as `open_catalogue`."""
        from .refshards import content_of

        catalogue = _opened(self.path)
        if content_of(catalogue.columns, catalogue.shards) != catalogue.content:
            raise Integrity(
                f"{self.path}: its hash of all content is not that of its shards: edited since",
                hint="awe-refcat verify; import the catalogue again",
            )
        return replace(catalogue, checked=True)


def reference_of(value: str, meta: Mapping[str, Any], stores: Sequence[Store]) -> tuple[RefcatInput, str]:
    """The catalogue that a parameter means for a frame, and why it is that one.

    value: a name, the path of a catalogue (with a / in it), or `auto`: the only one there
    is, else the only one with stars within NEAR_DEG of the frame's pointing; none that is
    judged bad. Raises NoMatch if there is none, UsageError if several serve, Flagged for one
    that is named and judged bad, and as `refstore.find`.
    """
    from .refstore import find, shelves_of

    if "/" in value:
        return _unless_bad(_input(Path(value)), stores), f"the catalogue at {value}"
    if value != AUTO:
        if not stores:
            raise NoMatch(f"--refcat {value}: there is no store here", hint="--refcat DIRECTORY/NAME")
        return _unless_bad(_input(find(value, shelves_of(stores))), stores), ""
    there = all_catalogues(stores)
    found = [one for one in there if not is_bad(one, stores)]
    if there and not found:
        names = ", ".join(one.path.name for one in there)
        raise NoMatch(
            f"every reference catalogue is judged bad: {names}", hint="awe-refcat import has others"
        )
    if not found:
        raise NoMatch(
            "there is no reference catalogue",
            hint="awe-refcat import NAME FILES, or --refcat DIRECTORY/NAME; without one, frames that overlap are "
            "tied to each other: awe-gastrom --refcat none, then awe-gphot --refcat none",
        )
    if len(found) == 1:
        return found[0], "the only catalogue there is"
    near = [one for one in found if _has_stars_near(one, meta)]
    # The same stars under two names are one catalogue.
    if len({one.content for one in near}) == 1:
        return near[0], "the only catalogue with stars in this field"
    names = ", ".join(one.path.name for one in near or found)
    where = f"RA {meta.get('ra_deg')}, Dec {meta.get('dec_deg')}"
    if not near:
        raise NoMatch(
            f"no reference catalogue has stars within {NEAR_DEG:g} deg of {where}: {names}",
            hint="--refcat NAME takes one all the same; awe-refcat import has others",
        )
    raise UsageError(
        f"several reference catalogues have stars at {where}: {names}",
        hint="--refcat NAME (awe-make: --set astrom.refcat=NAME --set zeropoint.refcat=NAME)",
    )


def is_bad(one: RefcatInput, stores: Sequence[Store]) -> bool:
    """Whether a catalogue is judged bad, by the first store that has a word on it."""
    said = (words(store).verdicts.get(one.content) for store in stores)
    return next((verdict for verdict in said if verdict), None) == "bad"


def _unless_bad(one: RefcatInput, stores: Sequence[Store]) -> RefcatInput:
    if is_bad(one, stores):
        hint = f"awe-judge --undo {one.path} --reason TEXT, or another --refcat"
        raise Flagged(f"{one.path}: the reference catalogue is judged bad", hint=hint)
    return one


def content_at(path: Path) -> str | None:
    """The content of the catalogue at a place, by its header; None where none can be read."""
    try:
        return _opened(path).content
    except AweError:
        return None


def place_of_content(content: str, stores: Sequence[Store]) -> Path | None:
    """Where the stores have a catalogue of a content; None where they have none."""
    from .refstore import catalogues, shelves_of

    if not stores:
        return None
    try:
        places = [place for place, _ in catalogues(shelves_of(stores))]
    except Unavailable:
        return None
    return next((place for place in places if content_at(place) == content), None)


def made_with(place: Path, stores: Sequence[Store]) -> Counter[str]:
    """How many products of the stores, by kind, were made with the catalogue at a place."""
    from ..indexing.index import open_index

    sql = (
        "SELECT objects.recipe_key, objects.kind FROM inputs CROSS JOIN links ON links.input = inputs.number "
        "CROSS JOIN objects ON objects.number = links.child WHERE inputs.recipe_key IS NULL AND inputs.content = ?"
    )
    found: dict[str, str] = {}
    for store in stores:
        with open_index(store) as index:
            found |= dict(index.select(sql, [content_at(place)]))
    return Counter(found.values())


def in_words(count: Counter[str]) -> str:
    """How many of which kinds."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(count.items()))


def refuse_needed(place: Path, stores: Sequence[Store]) -> None:
    """Raise Protected for the only catalogue of its content, if products were made with it."""
    count = made_with(place, stores)
    if not count:
        return
    content = content_at(place)
    others = (one.path for one in all_catalogues(stores) if one.content == content)
    if any(os.path.realpath(one) != os.path.realpath(place) for one in others):
        return
    raise Protected(
        f"{place}: {in_words(count)} were made with it, and could not be made again",
        hint=f"awe-lineage --impact {place} lists them; --force removes it all the same",
    )


def named_catalogue(text: str, stores: Sequence[Store]) -> Path | None:
    """The catalogue that a person names by its directory or, where no file has that name, by its own."""
    path = Path(text)
    if path.is_dir():
        return path
    if os.path.lexists(path) or not stores or "/" in text:
        return None
    from .refstore import find, is_name, shelves_of

    if not is_name(text):
        return None
    try:
        return find(text, shelves_of(stores))
    except (NoSuchFile, Unavailable):
        return None


def _input(path: Path) -> RefcatInput:
    catalogue = _opened(path)
    return RefcatInput(Path(os.path.abspath(path)), catalogue.name, catalogue.content)


def all_catalogues(stores: Sequence[Store]) -> list[RefcatInput]:
    """The catalogues of the stores, those that stand for their names. Raises as `open_catalogue`."""
    from .refstore import catalogues, shelves_of

    if not stores:
        return []
    return [_input(path) for path, is_first in catalogues(shelves_of(stores)) if is_first]


def far_from(one: RefcatInput, meta: Mapping[str, Any]) -> str:
    """Why a catalogue does not serve a field; empty if it has stars there."""
    where = f"RA {meta.get('ra_deg')}, Dec {meta.get('dec_deg')}"
    return "" if _has_stars_near(one, meta) else f"it has no stars within {NEAR_DEG:g} deg of {where}"


def _has_stars_near(one: RefcatInput, meta: Mapping[str, Any]) -> bool:
    if meta.get("ra_deg") is None or meta.get("dec_deg") is None:
        return False
    pieces = one.load().pieces(meta["ra_deg"], meta["dec_deg"], NEAR_DEG, columns=["ra_deg"])
    return next(pieces, None) is not None


def _opened(path: Path) -> Catalogue:
    """The catalogue of a directory, from memory if its header is as it was: frames come by the thousand."""
    from ..sky.refcat import HEADER, open_catalogue

    try:
        stat = os.stat(path / HEADER)
    except OSError:
        return open_catalogue(path)
    return _kept(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=CATALOGUES_KEPT)
def _kept(path: Path, _mtime_ns: int, _size: int) -> Catalogue:
    from ..sky.refcat import open_catalogue

    return open_catalogue(path)
