"""Every calibration that was looked at for a frame or a product, role by role, with the reason why it lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..errors import UnknownName, WrongKind, nearest
from ..kind import Kind, Need, kind_named, needed_last, of_frame
from ..params import Resolved
from ..products import ProductInput
from ..settings import resolve_params
from ..workspace import Workspace
from .choose import SERVES, Candidate, candidates, lost_to, question_of
from .filling import Source
from .plan import product_meta, with_overscan_mode
from .whyothers import looked_at

CHOSEN, ECLIPSED, UNFIT = "chosen", "eclipsed", "unfit"
NOT_NEEDED, WITHOUT, NONE = "not needed", "without", "none"


@dataclass(frozen=True)
class Line:
    """One candidate of a role: the verdict in a word, and why in a sentence (empty for the chosen one).

    candidate: None where there is nothing to look at. used: whether the product asked
    about was made with it. path: of what is no candidate any more.
    """

    role: str
    kind: str
    verdict: str
    reason: str
    candidate: Candidate | None = None
    used: bool = False
    path: str = ""


@dataclass(frozen=True)
class Answer:
    """What was looked at for one role, in the order of the choice; `missing` if it is needed and nothing serves."""

    role: str
    lines: tuple[Line, ...]
    missing: bool


def roles_of(kinds: Sequence[Kind]) -> list[str]:
    """Every role that is chosen for."""
    return sorted({need.role for kind in kinds for need in kind.chosen})


def answers(
    source: Source,
    role: str | None,
    workspace: Workspace,
    kinds: Sequence[Kind],
    as_of: str | None = None,
) -> list[Answer]:
    """What serves a frame in each role of what is made of it, or a product in each of its own roles.

    role: that one alone. as_of: an instant (UTC) whose answer is asked for. Raises
    UnknownName for a role that there is not, WrongKind for a frame of which nothing is made.
    """
    if role is not None and role not in roles_of(kinds):
        names = roles_of(kinds)
        raise UnknownName(f"there is no role {role!r}{nearest(role, names)}; there are: {', '.join(names)}")
    own = next(
        (kind for kind in kinds if isinstance(source, ProductInput) and kind.name == source.kind), None
    )
    has_roles = own and (own.chosen or not any(_asks(kind, source) for kind in kinds))
    if isinstance(source, ProductInput) and own and (has_roles if role is None else _has(own, role)):
        return _of_product(source, own, role, workspace, kinds, as_of)
    return _of_frame(source, role, workspace, kinds, as_of)


def _asks(kind: Kind, source: Source) -> bool:
    """Whether a kind is made of such frames, and chooses something else."""
    return bool(kind.chosen) and kind.lead_of(source.kind) is not None


def _has(kind: Kind, role: str) -> bool:
    return any(need.role == role for need in kind.chosen)


# What is made of a frame


def _of_frame(
    source: Source, role: str | None, workspace: Workspace, kinds: Sequence[Kind], as_of: str | None
) -> list[Answer]:
    found: dict[str, Answer] = {}
    for kind in _made_of(source, role, kinds):
        for answer in _for_kind(source, kind, workspace, kinds, as_of):
            if role in (None, answer.role):
                found.setdefault(answer.role, answer)
    return list(found.values())


def _made_of(source: Source, role: str | None, kinds: Sequence[Kind]) -> list[Kind]:
    """The kinds that are made of a frame and choose for a role.

    What is made of the one frame asks first (a reduced frame), then what is made of several
    such frames; for a role that none of these has, what is made of other frames.
    """
    asking = [
        (kind.lead_of(source.kind) is None, kind.primary.many, number, kind)
        for number, kind in enumerate(kinds)
        if kind.chosen and (role is None or _has(kind, role))
    ]
    if role is None:
        asking = [one for one in asking if not one[0]]
    if not asking:
        raise WrongKind(
            f"{source.address}: nothing that takes calibrations is made of a {source.kind}",
            hint=f"awe-header --explain-type {source.address}",
        )
    first = min(asking)[:2]
    return [kind for *rank, _, kind in sorted(asking, key=lambda one: one[:3]) if tuple(rank) == first]


def _for_kind(
    source: Source, kind: Kind, workspace: Workspace, kinds: Sequence[Kind], as_of: str | None
) -> Iterator[Answer]:
    lead = kind.lead_of(source.kind)
    params, meta = _asked(source, kind, workspace)
    filled: dict[str, Mapping[str, Any]] = {lead.role: meta} if lead else {}
    for need in needed_last(kind.chosen):
        if need is lead:
            continue
        reason = need.not_asked(params.values) or (need.unless(filled) if need.unless else "")
        if reason:
            yield Answer(need.role, (Line(need.role, need.kind, NOT_NEEDED, reason),), False)
            continue
        if need not in kind.ranked:
            lines = _otherwise(kind, need, source, source.content, workspace, kinds)
            if lines[0].verdict == CHOSEN:
                filled[need.role] = {}
            missing = lines[0].verdict != CHOSEN and not need.is_optional(filled)
            yield Answer(need.role, tuple(lines), missing)
            continue
        looked_at = _looked_at(need, {}, meta, workspace, kinds, as_of)
        if looked_at and looked_at[0].reason == SERVES:
            filled[need.role] = looked_at[0].meta
        yield _answer(need, looked_at)


def _asked(source: Source, kind: Kind, workspace: Workspace) -> tuple[Resolved, Mapping[str, Any]]:
    """The parameters, and the meta that calibrations must agree with, as where a product is made of the frame."""
    camera = workspace.camera_settings(source.meta)
    params = resolve_params(kind, source.meta, camera, workspace.settings, {})
    _, changes = with_overscan_mode(params, source.meta)
    return params, product_meta(kind, [{**source.meta, **changes}])


# What a product was made with


def _of_product(
    product: ProductInput,
    kind: Kind,
    role: str | None,
    workspace: Workspace,
    kinds: Sequence[Kind],
    as_of: str | None,
) -> list[Answer]:
    recipe = product.record["recipe"]
    found = []
    for need in kind.chosen:
        if role not in (None, need.role):
            continue
        if reason := _not_needed(need, recipe):
            found.append(Answer(need.role, (Line(need.role, need.kind, NOT_NEEDED, reason),), False))
            continue
        used = [one for one in recipe["inputs"] if one["role"] == need.role]
        if need in kind.ranked:
            lines = _compared(product, need, used, workspace, kinds, as_of)
        else:
            lead = next(str(one["content"]) for one in recipe["inputs"] if one["role"] == kind.primary.role)
            contents = {str(one["content"]) for one in used}
            lines = _otherwise(kind, need, product, lead, workspace, kinds, contents)
            if not any(line.used for line in lines):
                lines += [_gone(need, one, product) for one in used]
        if not used and need.role in recipe.get("without", ()):
            reason = recipe.get("instead", {}).get(
                need.role, "it was made without, by request or for want of one"
            )
            lines.insert(0, Line(need.role, need.kind, WITHOUT, reason, used=True))
        found.append(Answer(need.role, tuple(lines), False))
    return found


def _not_needed(need: Need, recipe: Mapping[str, Any]) -> str:
    """Why a product needed nothing in a role, if so: its parameters do not ask for it, or another input says it all."""
    given = {name: one["value"] for name, one in recipe.get("parameters", {}).items()}
    if reason := need.not_asked(SimpleNamespace(**given)):
        return reason
    roles = {one["role"]: one.get("meta") or {} for one in recipe["inputs"]}
    return need.unless(roles) if need.unless and need.role not in roles else ""


def _compared(
    product: ProductInput,
    need: Need,
    used: Sequence[Mapping[str, Any]],
    workspace: Workspace,
    kinds: Sequence[Kind],
    as_of: str | None,
) -> list[Line]:
    questions = {one["question"]["kind"]: one["question"] for one in used if one.get("question")}
    looked_at = _looked_at(need, questions, product.meta, workspace, kinds, as_of)
    lines = list(_answer(need, looked_at, {str(one["recipe_key"]) for one in used}).lines)
    known = {str(line.candidate.row["recipe_key"]) for line in lines if line.candidate}
    return lines + [_gone(need, one, product) for one in used if str(one["recipe_key"]) not in known]


def _otherwise(
    kind: Kind,
    need: Need,
    source: Source,
    content: str,
    workspace: Workspace,
    kinds: Sequence[Kind],
    used: set[str] | None = None,
) -> list[Line]:
    """The lines of a role in which nothing is compared; used: the contents that the product was made with."""
    lines = []
    for one in looked_at(kind, need, source.meta, content, workspace, kinds):
        verdict = CHOSEN if one.serves else UNFIT if one.path else NONE
        is_used = used is not None and one.content in used
        lines.append(Line(need.role, need.kind, verdict, one.reason, None, is_used, one.path))
    return lines


def _gone(need: Need, block: Mapping[str, Any], product: ProductInput) -> Line:
    path = os.path.join(product.path.parent, block.get("path") or "")
    reason = "it is in none of the stores" if os.path.exists(path) else "it was used, and is gone"
    return Line(
        need.role, str(block.get("kind") or need.kind), UNFIT, reason, None, True, os.path.normpath(path)
    )


# Both


def _looked_at(
    need: Need,
    questions: Mapping[str, Mapping[str, Any]],
    meta: Mapping[str, Any],
    workspace: Workspace,
    kinds: Sequence[Kind],
    as_of: str | None,
) -> list[Candidate]:
    """The candidates of all kinds that fill a role: the kinds in their order, but what serves before what does not."""
    found: list[Candidate] = []
    for kind in (kind_named(kinds, name) for name in need.kinds):
        question = questions.get(kind.name) or question_of(kind, meta)
        there = candidates(kind, question, workspace.stores, meta, as_of)
        # What belongs to another exposure was never in question.
        found += [one for one in there if need.select != of_frame() or _is_of_frame(one, meta)]
    return sorted(found, key=lambda one: one.reason != SERVES)


def _is_of_frame(one: Candidate, meta: Mapping[str, Any]) -> bool:
    return bool(one.meta.get("exposure") == meta.get("exposure"))


def _answer(need: Need, looked_at: Sequence[Candidate], used: set[str] | None = None) -> Answer:
    lines = []
    winner = looked_at[0] if looked_at and looked_at[0].reason == SERVES else None
    for one in looked_at:
        verdict = CHOSEN if one is winner else ECLIPSED if one.reason == SERVES else UNFIT
        reason = "" if winner is None or one is winner else lost_to(winner, one)
        is_used = used is not None and str(one.row["recipe_key"]) in used
        lines.append(Line(need.role, one.kind, verdict, reason or one.reason, one, is_used))
    if not lines:
        lines = [Line(need.role, need.kind, NONE, f"there is no {' or '.join(need.kinds)} of this detector")]
    return Answer(need.role, tuple(lines), winner is None and not need.optional)


def shown_path(line: Line) -> Path | None:
    """The file that a line is about."""
    return line.candidate.path if line.candidate else Path(line.path) if line.path else None
