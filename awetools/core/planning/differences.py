"""Why the key of a product to be made is not that of one that was, by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..kind import Kind, Need
from ..record import Record


@dataclass(frozen=True)
class Reason:
    """Why a product must be made: a name that programs know, and the detail for people."""

    name: str
    detail: str


@dataclass(frozen=True)
class Part:
    """What of an input decides the key of a product: its role and content, the meta that is read, and its name."""

    role: str
    content: str
    meta: Mapping[str, Any]
    name: str
    chosen: bool


def differences(
    kind: Kind, parameters: Mapping[str, object], parts: Sequence[Part], record: Record
) -> list[Reason]:
    """Why the key of a product to be made is not that of a record, by name; there is always at least one reason."""
    reasons = [*recipe_differences(kind, parameters, record), *role_differences(kind.needs, parts, record)]
    return reasons or [Reason("recipe", "the record's key is not that of its own parts")]


def recipe_differences(kind: Kind, parameters: Mapping[str, object], record: Record) -> Iterable[Reason]:
    """In what revision and parameters differ from those of a record."""
    recipe = record["recipe"]
    if recipe["revision"] != kind.revision:
        yield Reason("recipe", f"revision {recipe['revision']}, now {kind.revision}")
    before = recipe["parameters"]
    for name in sorted(set(before) | set(parameters)):
        value = before[name]["value"] if name in before else None
        if value != parameters.get(name):
            yield Reason("parameters", f"{name} was {value!r}, is {parameters.get(name)!r}")


def role_differences(needs: Iterable[Need], parts: Sequence[Part], record: Record) -> Iterable[Reason]:
    """In what the inputs of some roles differ from those of a record."""
    for need in needs:
        old = [one for one in record["recipe"]["inputs"] if one["role"] == need.role]
        yield from _role_difference(need, [part for part in parts if part.role == need.role], old)


def _role_difference(
    need: Need, now: Sequence[Part], before: Sequence[Mapping[str, Any]]
) -> Iterable[Reason]:
    old = {one["content"] for one in before}
    new = {one.content for one in now}
    if old == new:
        yield from _meta_difference(now, before)
        return
    old_names = {os.path.basename(one["path"]) for one in before}
    new_names = {one.name for one in now}
    chosen = any(one.chosen for one in now) and not need.many
    if old_names == new_names:
        yield Reason("inputs", f"{need.role}: the content of {_few(new_names)} changed")
    elif need.many:
        gone, more = sorted(old_names - new_names), sorted(new_names - old_names)
        texts = [f"{word} {_few(names)}" for word, names in (("new:", more), ("gone:", gone)) if names]
        yield Reason("members", f"{need.role}: {', '.join(texts)}")
    else:
        yield Reason(
            "better" if chosen else "inputs", f"{need.role}: was {_few(old_names)}, is {_few(new_names)}"
        )


def _meta_difference(now: Sequence[Part], before: Sequence[Mapping[str, Any]]) -> Iterable[Reason]:
    known = {one["content"]: one["meta"] for one in before}
    for one in now:
        for name, value in one.meta.items():
            if known[one.content].get(name) != value:
                was = known[one.content].get(name)
                yield Reason("inputs", f"{one.name}: {name} was {was!r}, is {value!r}")


def _few(names: Iterable[str]) -> str:
    names = sorted(names)
    return (
        ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
    )
