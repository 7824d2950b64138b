"""Where a program works: the stores it reads, the settings in force, the cameras it knows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadSettings, NoSuchFile
from .settings import Settings, gather, home_directory
from .store import Store, search_path

if TYPE_CHECKING:
    from .camera import Cameras


@dataclass(frozen=True)
class Workspace:
    """The stores (private first), and a directory to look for the project's settings from."""

    stores: tuple[Store, ...]
    start: Path

    @cached_property
    def cameras(self) -> Cameras:
        """The built-in camera tables, with those of the home directory and the stores over them."""
        from .camera import load_cameras

        directories = [home_directory() / "cameras"]
        directories += [store.cameras_path for store in reversed(self.stores)]
        for path in directories:
            if os.path.lexists(path) and not path.is_dir():
                raise BadSettings(f"{path}: not a directory of camera tables", hint=f"ls -ld {path}")
        return load_cameras([path for path in directories if path.is_dir()])

    @cached_property
    def settings(self) -> list[Settings]:
        """The settings files in force, weakest first."""
        return gather([store.root for store in self.stores], self.start)

    def camera_settings(self, meta: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the camera's table sets for kinds; nothing for a camera that is not known here."""
        return self.cameras.settings(str(meta.get("camera")))


def here(start: Path | None = None, stores: Sequence[Store] | None = None) -> Workspace:
    """The workspace of a directory, by default the working directory."""
    start = (start or working_directory()).resolve()
    return Workspace(tuple(search_path(start) if stores is None else stores), start)


def working_directory() -> Path:
    """The working directory; raises NoSuchFile if it was removed meanwhile."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise NoSuchFile("the working directory does not exist any more", hint="cd DIR") from None
