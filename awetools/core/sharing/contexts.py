"""Contexts: lists of stores, nearest first, that are kept under a name; and what each store of a path is."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import AweError, BadSettings, BadValue, NoStore, UnknownName, UsageError, nearest
from ..indexing.index import Index, open_index
from ..indexing.indexfile import may_write
from ..settings import home_directory, read_settings
from ..store import PATH_VARIABLE, Store, store_at

FILE_NAME = "contexts.toml"
STORES = "stores"
SHELLS: Mapping[str, str] = {
    "sh": "export {name}={value}",
    "fish": "set -gx {name} {value}",
    "csh": "setenv {name} {value}",
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Standing:
    """What a store is on a path.

    order: 1 for the nearest. written: whether what is made goes there. readers, writers:
    whom the file permissions let in. index: its state in words; problem: what keeps it
    from being read.
    """

    order: int
    store: Store
    written: bool
    may_read: bool
    may_write: bool
    readers: str
    writers: str
    products: int | None
    raw_frames: int | None
    bytes: int | None
    index: str
    problem: AweError | None = None


def contexts_file() -> Path:
    """Where the lists are kept: among the settings of the person."""
    return home_directory() / FILE_NAME


def contexts() -> dict[str, list[str]]:
    """The lists of stores by their names; raises BadSettings."""
    settings = read_settings(contexts_file())
    found: dict[str, list[str]] = {}
    for name, table in (settings.tree if settings else {}).items():
        listed = table.get(STORES) if isinstance(table, dict) else None
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed) or not listed:
            raise BadSettings(
                f"{contexts_file()}: [{name}] must have {STORES} = [DIR, ...]",
                hint=f"${{EDITOR:-vi}} {shlex.quote(str(contexts_file()))}",
            )
        found[name] = listed
    return found


def define(name: str, directories: Sequence[str]) -> list[str]:
    """Keep a list of stores under a name; returns the list as it is kept. Raises BadValue, NoStore."""
    from ..settingsfile import Change, change_settings

    if not _NAME.fullmatch(name):
        raise BadValue(f"{name!r:.60}: the name of a context has letters, digits, and - _ . within it")
    stores = [str(one.root) for one in _stores(directories)]
    _path_of(stores)
    change_settings(contexts_file(), [Change((name,), STORES, stores)])
    return stores


def forget(name: str) -> None:
    """Forget a list of stores; the stores stay. Raises UnknownName."""
    from ..settingsfile import Change, change_settings

    listed(name)
    change_settings(contexts_file(), [Change((name,), STORES, None)])


def listed(name: str) -> list[str]:
    """The stores of a name; raises UnknownName with the nearest one."""
    known = contexts()
    if name not in known:
        raise UnknownName(
            f"there is no context {name!r:.60}{nearest(name, list(known))}", hint="awe-context list"
        )
    return known[name]


def path_for(words: Sequence[str]) -> str:
    """The value of AWE_PATH for the name of a context, or for directories of stores, nearest first.

    Raises UnknownName, NoStore, UsageError.
    """
    known = contexts()
    names: list[str] = []
    for word in words:
        if word in known:
            names += known[word]
        elif os.sep in word or word.startswith((".", "~")) or os.path.isdir(word):
            names.append(word)
        else:
            raise UnknownName(
                f"{word!r:.60} is neither a context nor a directory{nearest(word, list(known))}",
                hint="awe-context list",
            )
    return _path_of([str(one.root) for one in _stores(names)])


def switch(value: str, shell: str) -> str:
    """The command of a shell that puts a value of AWE_PATH in force."""
    return SHELLS[shell].format(name=PATH_VARIABLE, value=shlex.quote(value))


def name_in_force(stores: Sequence[Store]) -> str | None:
    """The name of the context whose stores these are; None for none."""
    roots = [str(one.root) for one in stores]
    kept = (
        (name, [os.path.realpath(os.path.expanduser(one)) for one in names])
        for name, names in contexts().items()
    )
    return next((name for name, names in kept if names == roots), None)


def _stores(directories: Sequence[str]) -> list[Store]:
    if not directories:
        raise UsageError("a context has one store or more", hint="awe-context define NAME DIR...")
    return list(dict.fromkeys(store_at(one, "the context") for one in directories))


def _path_of(roots: Sequence[str]) -> str:
    for root in roots:
        if os.pathsep in root or "\n" in root:
            raise UsageError(
                f"{root!r:.80}: {PATH_VARIABLE} is a list with {os.pathsep} between its parts, so no name has one",
                hint=f"a link to it: ln -s {shlex.quote(root)} OTHER",
            )
    return os.pathsep.join(roots)


# What a store is


def standings(stores: Sequence[Store]) -> list[Standing]:
    """What each store of a path is; one that cannot be read says why, and the others are told."""
    return [_standing(number, store) for number, store in enumerate(stores, 1)]


def _standing(order: int, store: Store) -> Standing:
    products = raw_frames = size = None
    problem, state = None, "cannot be read"
    try:
        if not store.awe.is_dir():
            raise NoStore(f"{store.root}: is no store any more", hint=f"ls -ld {shlex.quote(str(store.awe))}")
        with open_index(store) as index:
            products, raw_frames, size = next(index.select(_COUNTS))
            state = _state_of(index)
    except AweError as error:
        problem = error
    return Standing(
        order=order,
        store=store,
        written=order == 1,
        may_read=os.access(store.awe, os.R_OK | os.X_OK, effective_ids=True),
        may_write=may_write(store.awe) and may_write(store.root),
        readers=_whom(store.awe, stat.S_IRUSR | stat.S_IXUSR),
        writers=_whom(store.awe, stat.S_IWUSR | stat.S_IXUSR),
        products=products,
        raw_frames=raw_frames,
        bytes=size,
        index=state,
        problem=problem,
    )


_COUNTS = (
    "SELECT count(recipe_key), count(*) - count(recipe_key), "
    "coalesce(sum(CASE WHEN recipe_key IS NULL THEN 0 ELSE bytes END), 0) FROM objects"
)


def _state_of(index: Index) -> str:
    if index.generation is None:
        return "made in memory each time"
    return "kept" if index.writable else "read only"


def _whom(path: Path, needed: int) -> str:
    """Whom the permissions of a directory let in: everyone, a group and its owner, or its owner alone."""
    try:
        about = path.stat()
    except OSError:
        return "nobody knows"
    if os.statvfs(path).f_flag & os.ST_RDONLY and needed & stat.S_IWUSR:
        return "nobody (read-only file system)"
    if about.st_mode & needed >> 6 == needed >> 6:
        return "everyone"
    if about.st_mode & needed >> 3 == needed >> 3:
        return f"{_user(about.st_uid)} and the group {_group(about.st_gid)}"
    return _user(about.st_uid) if about.st_mode & needed == needed else "nobody"


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
