"""Frames of other pipelines as inputs: what their headers mean, where their planes lie, the plan of the product."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .camera import Camera, DetectorAddress, detectors, recognise, translate
from .camera_detectors import extension_cards
from .camera_imports import ImportRule, chosen_import, like_zero_points, mapping_of
from .camera_rules import Cards, first_value
from .camera_tables import safe_name
from .distortion import has_sip
from .errors import BadHeader, BadSettings, BadValue, NotFits, UsageError, WrongKind
from .expressions.evaluation import number
from .files import Address
from .foreignfiles import (
    ForeignInput,
    FoundPlane,
    address_of,
    as_fits_table,
    images_of,
    infos_of,
    part_of,
    plane_of,
    planes_of,
    rules_of,
    tables_of,
    unused_images,
)
from .foreignnames import UNKNOWN
from .kind import Kind
from .params import Layer, Resolved, resolve
from .planning.filling import Input
from .planning.plan import Plan, key_part
from .products import is_product
from .raws import stat_of
from .record import recipe_key
from .store import PRODUCT_ENDINGS
from .workspace import Workspace

if TYPE_CHECKING:
    from .camera import HduInfo
    from .fits import FitsFile, Hdu

# What an imported product knows of its frame; the raw frame's amplifiers, sections and type are not its own.
NOT_KEPT = ("frame_type", "sections", "read_noise_adu")
# No zero point is beyond, of whatever unit.
FAINTEST_MAG = 100
RAW_TYPES = ("raw_bias", "raw_dark", "raw_domeflat", "raw_twiflat")


# The words of file names by which pipelines tell an image's planes from the image.
_PLANE_NAME = re.compile(
    r"(?:^|[._-])(oow|ood|okw|okd|weights?|wht|wtmap|wt|wei|ivar|invvar|rms|unc|conf|rrhr|mask|maskbits|mskimg|dqm?|flags?)(?=[._-])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Given:
    """What the person said of the files: `weight` and `mask` are a file or an extension."""

    weight: str | None = None
    mask: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    processed: bool = False


def plans_of(
    kind: Kind, address: Address, given: Given, workspace: Workspace
) -> Iterator[tuple[Plan, list[str]]]:
    """The plan of each product that a file makes, with what its header leaves open.

    Raises WrongKind (a raw frame, a product), BadHeader (no unit), NoImage, NoSuchExtension, Mixture.
    """
    stat_of(address.path)
    if is_product(address.path):
        raise WrongKind(
            f"{address.path}: is a product of awetools already", hint=f"awe-lineage {address.path}"
        )
    with _opened(kind, address) as fits:
        if "AWEKIND" in fits.hdus[0].header:
            raise WrongKind(
                f"{address.path}: a {fits.hdus[0].header['AWEKIND']} made by awetools, without its record",
                hint=f"awe-lineage {address.path}",
            )
        if len(kind.needs) == 1:
            for hdu in tables_of(fits, address):
                yield _table_plan(kind, fits, hdu, given, workspace)
            return
        camera, beside = given.overrides.get("camera"), (given.weight, given.mask)
        images = images_of(fits, address, workspace.cameras, camera, beside)
        used = {hdu.index for hdu in images}
        found = [one for hdu in images for one in _images_in(fits, hdu, address, given, workspace)]
        for one in found:
            plan, problems = _image_plan(kind, fits, one, len(images) > 1, given, workspace)
            used |= _hdus_of(plan, fits)
            left = unused_images(fits, used, one.rule.unused)
            if left and one is found[-1] and address.detector is None:
                problems.append(f"not used: the images {', '.join(left)} (see --weight and --mask)")
            yield plan, problems


def _hdus_of(plan: Plan, fits: FitsFile) -> set[int]:
    """The units of a file that a plan reads."""
    sources = [one.source for one in plan.inputs if isinstance(one.source, ForeignInput)]
    return {one.hdu for one in sources if one.address.path == fits.path}


def _opened(kind: Kind, address: Address) -> FitsFile:
    from .fits import open_fits

    try:
        return open_fits(address.path)
    except NotFits as error:
        if len(kind.needs) > 1:
            raise
        raise NotFits(
            f"{error.message}; a source list is a binary table", hint=as_fits_table(address.path)
        ) from None


# Images


@dataclass(frozen=True)
class _Image:
    """An image of a file, its cards, how its pipeline is read, and which plane of a cube it is (0-based)."""

    hdu: Hdu
    cards: Cards
    rule: ImportRule
    plane: int | None = None

    @property
    def filter(self) -> str | None:
        """The filter, where the pipeline has it in cards of its own."""
        if self.plane is not None and self.rule.plane_filter:
            found = self.cards.lookup(self.rule.plane_filter.format(plane=self.plane))
            return None if found is None else str(found)
        said = first_value(self.rule.filter, self.cards)
        return str(said.value) if said else None


def _own_fields(image: _Image, path: Path) -> dict[str, str]:
    """The fields that the pipeline's rule tells, and not the camera table."""
    found = {"filter": image.filter} if image.filter else {}
    return {**found, "exposure": safe_name(product_stem(path.name))} if image.rule.stack else found


def _images_in(
    fits: FitsFile, hdu: Hdu, address: Address, given: Given, workspace: Workspace
) -> list[_Image]:
    """The images that a unit is: itself, or the planes of a cube."""
    infos = infos_of(fits)
    camera = recognise(workspace.cameras, infos, str(fits.path), given.overrides.get("camera"))
    cards = extension_cards(infos[hdu.index], fits.hdus[0].header, str(fits.path))
    rule = chosen_import(rules_of(workspace.cameras, camera.name), cards) or ImportRule("", None)
    each = [_Image(hdu, cards, rule, number) for number in range(hdu.shape[0])] if len(hdu.shape) == 3 else []
    filters = [one.filter for one in each] if rule.plane_filter else []
    return [_Image(hdu, cards, rule, number) for number in planes_of(hdu, address.detector, filters)]


def _image_plan(
    kind: Kind, fits: FitsFile, image: _Image, many: bool, given: Given, workspace: Workspace
) -> tuple[Plan, list[str]]:
    if not given.processed:
        _refuse_plane(fits)
    hdu, cards, rule = image.hdu, image.cards, image.rule
    given = replace(given, overrides={**_own_fields(image, fits.path), **given.overrides})
    meta, origin, problems = _meta_of(fits, hdu, given, workspace)
    _refuse_raw(fits, hdu, rule, origin, problems, given)
    if (found := first_value(rule.gain_e_adu, cards)) and "gain_e_adu" not in given.overrides:
        gain = number(found.value)
        meta["gain_e_adu"] = [float(gain)] if gain and gain > 0 else None
    address = address_of(fits, hdu, image.plane, many)
    content = fits.content([hdu.index])
    inputs = [Input("foreign", ForeignInput(address, hdu.index, content, meta, plane=image.plane), meta)]
    notes = []
    for role, planes, wanted in (("weight", rule.weight, given.weight), ("mask", rule.mask, given.mask)):
        if wanted == "none" or (role == "weight" and given.parameters.get("weight_type") == "none"):
            continue
        plane = plane_of(role, fits, hdu, planes, wanted, image.plane)
        if plane is not None:
            inputs.append(Input(role, plane.source, {}))
            rule = _as_found(rule, role, plane)
        elif rule.title and any(not one.when for one in planes):
            notes.append(f"no {role} plane was found where frames of {rule.title} have it")
    with_weight = any(one.role == "weight" for one in inputs)
    params = _params(kind, rule, cards, meta, given, with_weight)
    values, told = params.as_dict(), like_zero_points(cards)
    if values["zero_point_mag"] == UNKNOWN and values["unit"] != "nmgy":
        if told:
            problems.append(
                f"no zero point: {told} may be that of one unit a second, or of another: --zero-point"
            )
        elif rule.title and rule.zero_point_mag:
            notes.append(f"no zero point was found where frames of {rule.title} have it: --zero-point")
    return _plan(kind, inputs, params, meta, notes), problems


def _as_found(rule: ImportRule, role: str, found: FoundPlane) -> ImportRule:
    """A rule with what the place of a plane, or its own header, says of it."""
    if role == "mask":
        return replace(rule, mask_bits=rule.bits_of(found.header))
    own = found.rule.weight_type if found.rule else ""
    return replace(rule, weight_type=own or rule.weight_type)


def _meta_of(
    fits: FitsFile, hdu: Hdu, given: Given, workspace: Workspace
) -> tuple[dict[str, Any], Mapping[str, Any], list[str]]:
    """The meta of a frame whose image is all data, what it would be as a raw frame, and what is left open."""
    infos = infos_of(fits)
    camera = recognise(workspace.cameras, infos, str(fits.path), given.overrides.get("camera"))
    address = _detector_at(hdu.index, camera, infos, str(fits.path))
    overrides = {name: text for name, text in given.overrides.items() if name != "camera"}
    as_raw = _as_raw(camera, infos, address, fits)
    ny, nx = hdu.shape[-2:]
    whole = f"[1:{nx},1:{ny}]"
    section = {"amp": "A", "hdu": hdu.index, "data": whole, "overscan": None, "target": whole}
    overrides = {"sections": json.dumps([section]), "frame_type": "raw_science", **overrides}
    translation = translate(camera, infos, address, overrides, str(fits.path))
    return dict(translation.meta), as_raw, _open_questions(translation.problems, translation.meta)


def _detector_at(index: int, camera: Camera, infos: Sequence[HduInfo], file: str) -> DetectorAddress:
    """The detector that an HDU is, also where the camera table takes it for a plane beside the image."""
    found = detectors(camera, infos, file)
    named = next((one for one in found if one.hdus == (index,)), None)
    return named or DetectorAddress(found[0].name, (index,))


def _as_raw(
    camera: Camera, infos: Sequence[HduInfo], address: DetectorAddress, fits: FitsFile
) -> Mapping[str, Any]:
    try:
        translation = translate(camera, infos, address, {}, str(fits.path))
    except BadHeader:
        # Sections that do not fit the image are those of the raw frame that it was.
        return {"processed": True}
    processed = any("processed already" in text for text in translation.problems)
    return {**translation.meta, "processed": processed}


def _open_questions(problems: Sequence[str], meta: Mapping[str, Any]) -> list[str]:
    found = [text for text in problems if "processed already" not in text and "called " not in text]
    projection = str((meta.get("wcs") or {}).get("CTYPE1", ""))
    if projection[-3:] in ("TNX", "ZPX"):
        found.append(
            f"the distortion of {projection} is in WAT cards, which are not kept: positions are rough"
        )
    wcs = meta.get("wcs") or {}
    if has_sip(wcs) and any(key.startswith(("PV1_", "PV2_")) for key in wcs):
        found.append("the header has SIP and PV terms: --for ds9 keeps both, other copies are of SIP alone")
    if not wcs:
        found.append("the header has no celestial coordinate system")
    return found


def _refuse_plane(fits: FitsFile) -> None:
    """Raise WrongKind for a file whose name says that it is the weight or the mask of another."""
    found = _PLANE_NAME.search(fits.path.name)
    if found:
        raise WrongKind(
            f"{fits.path}: its name says ({found[1]}) that it is the weight or the mask of an image",
            hint=f"awe-import --weight {shlex.quote(str(fits.path))} IMAGE; --processed takes it as it is",
        )


def _refuse_raw(
    fits: FitsFile,
    hdu: Hdu,
    rule: ImportRule,
    as_raw: Mapping[str, Any],
    problems: Sequence[str],
    given: Given,
) -> None:
    """Raise WrongKind for what is, or seems, a raw frame."""
    if given.processed:
        return
    where = f"{fits.path}"
    if as_raw.get("frame_type") in RAW_TYPES and not as_raw.get("processed"):
        raise WrongKind(f"{where}: is a {as_raw['frame_type']}, not a product of another pipeline")
    sections = as_raw.get("sections") or []
    if not as_raw.get("processed") and any(one.get("overscan") and not one.get("doubt") for one in sections):
        raise WrongKind(
            f"{where}: has an overscan {sections[0]['overscan']}, so it is a raw frame",
            hint=f"awe-reduce {shlex.quote(str(fits.path))}; --processed takes it as it is",
        )
    told = as_raw.get("processed") or rule.title or given.weight or given.mask
    if hdu.bitpix > 0 and not told:
        raise WrongKind(
            f"{where}: whole numbers, and nothing in the header says that it was reduced: a raw frame?",
            hint="--processed takes it as it is",
        )


# Parameters


def _params(
    kind: Kind, rule: ImportRule, cards: Cards, meta: Mapping[str, Any], given: Given, with_weight: bool
) -> Resolved:
    """The parameters, those of the camera table put in; raises BadHeader where nothing tells the unit."""
    table: dict[str, object] = {}
    unit = first_value(rule.unit, cards)
    if unit is not None:
        table["unit"] = unit.value
    elif "unit" not in given.parameters:
        said = cards.lookup("BUNIT")
        about = f"BUNIT is {said!r}, which is none that is known" if said else "the header has no BUNIT"
        told = like_zero_points(cards)
        raise BadHeader(
            f"{meta.get('exposure')}: the unit of the pixels cannot be told: {about}{told and f', but {told}'}",
            hint="--unit adu, adu/s, e, e/s or nmgy; or --unit flux --zero-point MAG, where a pixel of 1 is MAG",
        )
    zero_point = first_value(rule.zero_point_mag, cards)
    if zero_point is not None:
        table["zero_point_mag"] = _zero_point(number(zero_point.value), rule, meta)
    if rule.weight_type:
        table["weight_type"] = rule.weight_type
    if "mask_bits" not in given.parameters and "mask_codes" not in given.parameters:
        table |= {"mask_bits": rule.mask_bits, "mask_codes": rule.mask_codes}
    origin = f"camera {meta.get('camera')}{f': {rule.title}' if rule.title else ''}"
    forced = {} if with_weight else {"weight_type": "none"}
    layers = [Layer(origin, table), Layer("command line", given.parameters), Layer("no weight plane", forced)]
    resolved = resolve(kind.params, layers)
    _check(resolved)
    if resolved.as_dict()["unit"] == "flux" and resolved.as_dict()["zero_point_mag"] == UNKNOWN:
        raise BadHeader(
            f"{meta.get('exposure')}: pixels are a flux, but nothing says of what magnitude a pixel of 1 is",
            hint="--zero-point MAG",
        )
    return resolved


def _zero_point(value: float | None, rule: ImportRule, meta: Mapping[str, Any]) -> str:
    """The magnitude of one unit a second, as text."""
    seconds = meta.get("exptime_s")
    if value is None or not abs(value) <= FAINTEST_MAG:
        return UNKNOWN
    if rule.zero_point_of == "exposure":
        if not seconds:
            return UNKNOWN
        value -= 2.5 * math.log10(seconds)
    return f"{value:.4f}"


def _check(resolved: Resolved) -> None:
    values = resolved.as_dict()
    if values.get("mask_bits") and values.get("mask_codes"):
        raise UsageError("--mask-bits and --mask-codes exclude each other: a mask has bits, or codes")
    for name in ("mask_bits", "mask_codes"):
        try:
            mapping_of(str(values.get(name, "")), f"--{name.replace('_', '-')}", bits=name == "mask_bits")
        except BadSettings as error:
            raise BadValue(error.message) from None
    zero_point = values.get("zero_point_mag", UNKNOWN)
    if zero_point != UNKNOWN:
        size = number(zero_point)
        if size is None or not abs(size) <= FAINTEST_MAG:
            raise BadValue(
                f"zero_point_mag = {zero_point!r}: neither a magnitude (-{FAINTEST_MAG} to {FAINTEST_MAG}) "
                f"nor {UNKNOWN}"
            )


# Tables


def _table_plan(
    kind: Kind, fits: FitsFile, hdu: Hdu, given: Given, workspace: Workspace
) -> tuple[Plan, list[str]]:
    meta, problems = _table_meta(fits, hdu, given, workspace)
    several = sum(one.is_table for one in fits.hdus) > 1
    address = Address(fits.path, part_of(fits, hdu) if several else None)
    foreign = ForeignInput(address, hdu.index, fits.content([hdu.index]), meta, is_table=True)
    params = resolve(kind.params, [Layer("command line", given.parameters)])
    return _plan(kind, [Input("foreign", foreign, meta)], params, meta, []), problems


def _table_meta(
    fits: FitsFile, hdu: Hdu, given: Given, workspace: Workspace
) -> tuple[dict[str, Any], list[str]]:
    """The meta of a table: of the image in its file, else of its own cards as if they were a picture's."""
    infos = infos_of(fits)
    image = next((one for one in fits.hdus if one.is_image), None)
    if image is None:
        ldac = _ldac_header(fits)
        header = ldac or hdu.header
        infos = [
            replace(one, shape=(1, 1), header=header) if one.index == hdu.index else one for one in infos
        ]
    place = image.index if image is not None else hdu.index
    camera = recognise(workspace.cameras, infos, str(fits.path), given.overrides.get("camera"))
    address = _detector_at(place, camera, infos, str(fits.path))
    overrides = {name: text for name, text in given.overrides.items() if name != "camera"}
    ny, nx = infos[place].shape or (1, 1)
    whole = f"[1:{nx},1:{ny}]"
    section = {"amp": "A", "hdu": place, "data": whole, "overscan": None, "target": whole}
    overrides = {"sections": json.dumps([section]), "frame_type": "raw_science", **overrides}
    translation = translate(camera, infos, address, overrides, str(fits.path))
    meta = dict(translation.meta)
    if image is None:
        meta |= {name: (ldac or {}).get(card) for name, card in (("nx", "NAXIS1"), ("ny", "NAXIS2"))}
    return meta, [
        text for text in _open_questions(translation.problems, meta) if "coordinate system" not in text
    ]


def _ldac_header(fits: FitsFile) -> Any:
    """The header of the image that SExtractor keeps in a FITS_LDAC catalogue; None if there is none."""
    from .fitsheader import header_from_text

    kept = next((hdu for hdu in fits.hdus if hdu.is_table and hdu.name == "LDAC_IMHEAD"), None)
    if kept is None:
        return None
    columns = list(fits.table(kept.index).values())
    if not columns or columns[0].dtype.kind != "U":
        return None
    return header_from_text("".join(f"{text:80}" for text in columns[0].ravel()))


# The plan


def _plan(
    kind: Kind, inputs: Sequence[Input], params: Resolved, meta: Mapping[str, Any], notes: Sequence[str]
) -> Plan:
    kept = {name: value for name, value in meta.items() if name not in NOT_KEPT}
    key = recipe_key(kind.name, kind.revision, params.as_dict(), [key_part(kind, one) for one in inputs])
    given = {one.role for one in inputs}
    without = tuple(need.role for need in kind.needs if need.role not in given)
    return Plan(
        kind=kind,
        lead="foreign",
        inputs=tuple(inputs),
        without=without,
        params=params,
        limits=tuple(kind.limits),
        meta=kept,
        key=key,
        notes=tuple(notes),
    )


def file_name_of(plan: Plan) -> str:
    """The name of an imported product under --out-dir: that of its file, and of its extension where it has several."""
    address = plan.inputs[0].source.address
    source = plan.inputs[0].source
    cube = isinstance(source, ForeignInput) and source.plane is not None
    name = plan.meta.get("filter") if cube else address.detector
    part = f"_{name or address.detector}".replace(",", "_") if address.detector else ""
    return f"{product_stem(address.path.name)}{part}.fits"


def product_stem(name: str) -> str:
    """The name of a foreign file without what says that it is FITS, or packed."""
    for ending in (".fz", ".gz"):
        name = name.removesuffix(ending)
    for ending in PRODUCT_ENDINGS:
        name = name.removesuffix(ending)
    return name
