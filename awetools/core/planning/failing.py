"""What fails, or will: the recipe's answer where it is known beforehand, and the reason without what its name says."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import AweError, NoSolution
from .nodes import Node


def will_fail(node: Node) -> AweError | None:
    """The failure that the recipe of a node ends in for certain, as far as its kind can tell before it runs."""
    foresee = node.kind.foresee
    if foresee is None or not node.given:
        return None
    roles = {filled.need.role for filled in node.supply.filled} if node.supply else set()
    try:
        foresee(node.meta(), node.setting.params.values, node.setting.catalogues, roles)
    except NoSolution as error:
        return error
    except AweError:
        # What is set wrongly is for the program itself to refuse.
        return None
    return None


def less_own_name(node: Node, reason: str) -> str:
    """A reason without the path of the one product of its exposure that it begins with: the node's name says it."""
    path, colon, rest = reason.partition(": ")
    is_its = node.kind.primary.kind in Path(path).parts and str(node.get("exposure")) in Path(path).name
    return rest if colon and is_its and not node.kind.primary.many else reason


def less_any_name(reason: str) -> str:
    """A reason without a path that it begins with, as others may have it for other files."""
    return re.sub(r"^/[^:]*: ", "", reason)


def is_foreseen(node: Node) -> bool:
    """Whether a node failed without having been tried."""
    return node.state == "failed" and isinstance(node.error, NoSolution)
