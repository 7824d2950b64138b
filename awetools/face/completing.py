"""Completion at a prompt: by the names that objects list, without asking for their values."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Mapping
from typing import Any

_ENDING = re.compile(r"(?P<before>[A-Za-z_]\w*(?:\.\w+|\[-?\d+\])*)\.(?P<begin>\w*)$")


class Completer:
    """Completes names of a namespace, and attributes of what stands before a dot."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self._namespace = namespace
        self._found: list[str] = []

    def complete(self, text: str, state: int) -> str | None:
        """The completions of a text, one after the other, as readline asks for them."""
        if state == 0:
            self._found = self.completions(text)
        return self._found[state] if state < len(self._found) else None

    def completions(self, text: str) -> list[str]:
        """All completions of a text."""
        ending = _ENDING.search(text)
        if ending is None:
            known = {*self._namespace, *dir(builtins), *keyword.kwlist}
            return sorted(name for name in known if name.startswith(text) and not name.startswith("__"))
        before, begin = ending["before"], ending["begin"]
        try:
            names = dir(eval(before, dict(self._namespace)))
        except Exception:
            # What is half typed may mean anything.
            return []
        lead = text[: ending.start("begin")]
        shown = [one for one in names if one.startswith(begin) and (begin or not one.startswith("_"))]
        return [f"{lead}{one}" for one in sorted(shown)]
