"""What a kind of product is: a plain value that says all there is to say about it.

From a Kind come the command, its options, the man page, the Make dependencies,
the choice of calibrations, the reasons to rebuild, the quality flags and the lineage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from .catalogues.refinput import RefcatInput
    from .pixels.spool import Spool

# Where the pixels of two frames cannot be combined unless these agree.
DETECTOR_MATCH = (
    "instrument",
    "detector",
    "readout",
    "gain_setting",
    "binning",
    "window",
    "nx",
    "ny",
    "temperature_set_c",
    "overscan_mode",
)


# What the versions of one product share, besides their kind: a later one follows an earlier one.
SAME_PRODUCT = (*(name for name in DETECTOR_MATCH if name != "overscan_mode"), "filter", "night", "exposure")


# What is said of a product without a good pixel; known again where that is no failure.
NO_GOOD_PIXEL = "no good pixel is left"


@dataclass(frozen=True)
class Selector:
    """How the inputs of a need are found, by name."""

    name: str


def raw() -> Selector:
    """One raw frame makes one product."""
    return Selector("raw")


def group() -> Selector:
    """All frames that agree in the kind's match and group keys make one product."""
    return Selector("group")


def valid_at() -> Selector:
    """The calibration that is valid at the frame's start and wins over the others."""
    return Selector("valid_at")


def of_frame() -> Selector:
    """The product that belongs to the same exposure and detector; of many inputs, that of each."""
    return Selector("of_frame")


def holding() -> Selector:
    """The newest product that has the kind's one input among its own inputs."""
    return Selector("holding")


def catalogue() -> Selector:
    """The reference catalogue that the parameter of the role's name names."""
    return Selector("catalogue")


def named() -> Selector:
    """What a person names, and nothing else."""
    return Selector("named")


# The kinds of inputs that nothing here makes and no index lists: a file of another pipeline, a reference catalogue.
FOREIGN, REFCAT = "foreign", "refcat"


def is_outside(kind: str) -> bool:
    """Whether an input of a kind is neither a product nor a raw frame: it is known by its content alone."""
    return kind in (FOREIGN, REFCAT)


# The meta of what fills each role so far; the recipe's own frames are under the role of the lead.
MetaByRole = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Need:
    """One input role of a kind.

    or_kinds: other kinds that fill the role, in order of preference after `kind`.
    lead: what the command is given may fill this role; the first need always leads.
    unless: says, from the inputs chosen so far, why the role is to stay empty.
    on_request: target processing fills the role with what exists, and makes nothing for it.
    optional_with: a role; where it is filled this one is optional.
    only_given: further kinds that fill the role where a person gives them; none is made or chosen for it.
    asked_by: a parameter and its value; with any other the role stays empty. table: of a product with planes, the
    table that the recipe gets in their place. some_with: a parameter and its value; with it some of many frames
    may lack what fills the role. some: that they may. own: a field of the frame's meta that does in the place of what
    fills the role.
    """

    role: str
    kind: str
    select: Selector
    many: bool = False
    at_least: int = 1
    optional: bool = False
    help: str = ""
    or_kinds: tuple[str, ...] = ()
    lead: bool = False
    unless: Callable[[MetaByRole], str] | None = None
    on_request: bool = False
    optional_with: str = ""
    only_given: tuple[str, ...] = ()
    asked_by: tuple[str, str] | None = None
    table: str = ""
    some_with: tuple[str, str] | None = None
    some: bool = False
    own: str = ""

    @property
    def is_told(self) -> bool:
        """Whether it is news that the role stays empty for a reason of its own (`unless`): a calibration is missed."""
        return self.select == valid_at() and not self.on_request

    def not_asked(self, params: object) -> str:
        """Why the role stays empty with these parameters, if so."""
        if self.asked_by is None:
            return ""
        name, wanted = self.asked_by
        value = getattr(params, name, wanted)
        return "" if value == wanted else f"{name} is {value}, not {wanted}"

    def with_params(self, params: object) -> Need:
        """The need as it is with these parameters."""
        name, wanted = self.some_with or ("", "")
        return replace(self, some=True) if name and getattr(params, name, None) == wanted else self

    def is_optional(self, roles: Collection[str]) -> bool:
        """Whether the role may stay empty where these are filled."""
        return self.optional or self.optional_with in roles

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that fill the role, in order of preference."""
        return (self.kind, *self.or_kinds)

    @property
    def takes(self) -> tuple[str, ...]:
        """The kinds that may be given for it."""
        return (*self.kinds, *self.only_given)


def needed_last(needs: Iterable[Need]) -> list[Need]:
    """Some needs in the order in which they are filled: what another can make unnecessary is looked for last."""
    return sorted(needs, key=lambda need: bool(need.unless or need.optional_with))


@dataclass(frozen=True)
class Limit:
    """A bound on a measure; outside it the product is flagged."""

    measure: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Measure:
    """A number that a recipe reports; its unit is the end of its name."""

    name: str
    help: str


@dataclass(frozen=True)
class Validity:
    """How many nights before and after its own a product serves by default; None is forever."""

    nights_before: int | None = 0
    nights_after: int | None = 0


def nights(before: int = 0, after: int = 0) -> Validity:
    """Valid for its own night, and so many before and after."""
    return Validity(before, after)


@dataclass(frozen=True)
class LeftOut:
    """An input that a recipe did not use, by its place in the list, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Result:
    """What a recipe returns: planes or a table, measures, and what it left out.

    planes: EXTNAME to 2-D array or spool; the first is the primary image. table: column
    to 1-D array. tables: EXTNAME to such tables, behind the planes. units: column to
    unit. meta: fields that the recipe knows better than its inputs. used: role to a sentence, when a recipe worked
    without an optional input and took a value from elsewhere. unit: that of the
    pixels, where it is not the kind's. cards: keyword, value and comment that the header
    of the table, or of the first image, has besides.
    """

    planes: Mapping[str, np.ndarray | Spool] = field(default_factory=dict)
    table: Mapping[str, np.ndarray | Spool] | None = None
    tables: Mapping[str, Mapping[str, np.ndarray | Spool]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, float | int | None] = field(default_factory=dict)
    left_out: Sequence[LeftOut] = ()
    meta: Mapping[str, object] = field(default_factory=dict)
    used: Mapping[str, str] = field(default_factory=dict)
    unit: str | None = None
    cards: Sequence[tuple[str, str | float, str]] = ()


@dataclass(frozen=True)
class Kind:
    """One kind of product, declared once.

    serves: why a product of that meta does not serve a frame of this one, although
    all match keys agree; empty if it does. foretell: what the recipe will add to the
    meta of a product, from the meta of its own frames and the roles that are filled.
    shared_by: the kind that each of its frames is then given out of it. foresee: raises the NoSolution that the recipe
    will raise, as far as the product's meta, the parameters, the catalogues and the roles that are filled tell it.
    """

    name: str
    command: str
    class_name: str
    summary: str
    description: str
    needs: Sequence[Need]
    match: Sequence[str]
    group: Sequence[str]
    reads: Sequence[str]
    validity: Validity | None
    params: type
    measures: Sequence[Measure]
    limits: Sequence[Limit]
    recipe: Callable[..., Result]
    revision: int
    unit: str = "adu"
    example: str = ""
    serves: Callable[[Mapping[str, Any], Mapping[str, Any]], str] | None = None
    foretell: Callable[[Mapping[str, Any], Collection[str]], Mapping[str, Any]] | None = None
    shared_by: str = ""
    foresee: Callable[[Mapping[str, Any], Any, Mapping[str, RefcatInput], Collection[str]], None] | None = (
        None
    )

    @property
    def primary(self) -> Need:
        """The first of the needs that the command's arguments fill."""
        return self.needs[0]

    @property
    def leads(self) -> Sequence[Need]:
        """The needs that the command's arguments may fill; of each product, they fill one."""
        return [need for need in self.needs if need.lead or need is self.needs[0]]

    @property
    def calibrations(self) -> Sequence[Need]:
        """The needs that are chosen among products, or named by an option."""
        needs = self.needs[1:] if len(self.leads) == 1 else self.needs
        return [need for need in needs if need.kind != REFCAT]

    @property
    def ranked(self) -> Sequence[Need]:
        """Of these, those for which candidates are compared."""
        return [need for need in self.calibrations if need.select not in (holding(), named())]

    @property
    def catalogues(self) -> Sequence[Need]:
        """The needs that reference catalogues fill."""
        return [need for need in self.needs if need.kind == REFCAT]

    @property
    def chosen(self) -> Sequence[Need]:
        """The needs that are filled by a choice, whichever way it is made."""
        return [need for need in self.needs if need in self.calibrations or need.kind == REFCAT]

    def lead_of(self, kind: str) -> Need | None:
        """The need that an argument of a kind fills; None if the command takes no such thing."""
        return next((need for need in self.leads if kind in need.takes), None)

    def need(self, role: str) -> Need:
        """The need of that role; KeyError if there is none."""
        for need in self.needs:
            if need.role == role:
                return need
        raise KeyError(role)


def kind_named(kinds: Sequence[Kind], name: str) -> Kind:
    """The kind of that name; raises UnknownName with the nearest one."""
    from .errors import UnknownName, nearest

    for kind in kinds:
        if kind.name == name:
            return kind
    names = [kind.name for kind in kinds]
    raise UnknownName(f"no kind {name!r}{nearest(name, names)}; there are: {', '.join(names)}")
