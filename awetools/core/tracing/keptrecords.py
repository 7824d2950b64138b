"""The records that were kept of products that are gone or replaced, by name, by key and by what was used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..indexing.kept import KEPT_BESIDE
from ..store import Store
from .states import readable

_HASH = re.compile(rb'"([0-9a-f]{64})"')


class KeptRecords:
    """The kept records of some stores; each folder is looked through once."""

    def __init__(self, stores: Sequence[Store]) -> None:
        """stores: those that are looked at; more may be added while this looks."""
        self._stores = stores
        self._kept: dict[Path, dict[str, Path]] = {}
        self._names: dict[Path, dict[str, list[Path]]] = {}
        self._uses: dict[str, list[Path]] | None = None

    def uses(self) -> Mapping[str, Sequence[Path]]:
        """The kept records of the stores by the hashes that their recipes name; each is looked through once."""
        if self._uses is None:
            self._uses = {}
            for path in (one for store in self._stores for one in sorted(store.records_path.glob("*.json"))):
                with suppress(OSError):
                    recipe = path.read_bytes().partition(b'\n "recipe_key"')[0]
                    for name in set(_HASH.findall(recipe)):
                        self._uses.setdefault(name.decode(), []).append(path)
        return self._uses

    def _folders(self, path: Path) -> list[Path]:
        """Where the record of a product may have been kept."""
        folders = [path.parent / KEPT_BESIDE, *(store.records_path for store in self._stores)]
        return [one for one in folders if one.is_dir()]

    def by_name(self, path: Path) -> list[Path]:
        """The records that were kept of products of a file's name, in any folder."""
        found: list[Path] = []
        for folder in self._folders(path):
            if folder not in self._names:
                names: dict[str, list[Path]] = {}
                for one in sorted(folder.glob("*.json")):
                    names.setdefault(one.name.rsplit(".", 2)[0], []).append(one)
                self._names[folder] = names
            found += self._names[folder].get(path.name, [])
        return found

    def with_key(self, key: str, path: Path) -> Path | None:
        """The kept record of a recipe key; those of the file's own name are looked at first."""
        for one in self.by_name(path):
            record = readable(one)
            if record is not None and record["recipe_key"] == key:
                return one
        found = (self._in(folder).get(key) for folder in self._folders(path))
        return next((one for one in found if one), None)

    def _in(self, folder: Path) -> dict[str, Path]:
        if folder not in self._kept:
            records = ((one, readable(one)) for one in sorted(folder.glob("*.json")))
            self._kept[folder] = {record["recipe_key"]: one for one, record in records if record}
        return self._kept[folder]
