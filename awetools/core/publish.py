"""The one writer: puts a product on disk with its record, whole or not at all.

The order of the steps is what makes a kill at any moment harmless: the new file
is written under a name of its own, the old record is kept, the sidecar is renamed
into place, and the FITS file last, because its name and time are what Make looks
at. If sidecar and FITS disagree and the new file is still there, the next writer
finishes the rename.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .catalogues.refinput import RefcatInput
from .errors import BeingWritten, Unavailable, UsageError, WouldOverwrite
from .files import make_directory, sync_directory, write_whole
from .planning.filling import Input
from .planning.plan import Plan, key_part, refuse_foreign, validity_of
from .products import staged, state_of
from .record import SCHEMA_VERSION, Record, read_record, sidecar, to_bytes
from .store import Store, store_of, target_lock

if TYPE_CHECKING:
    from .fits import CardTuple, Plane, Written


# Where many machines write one store through a network: `awe-index --update` takes their records over afterwards.
INDEX_VARIABLE, WITHOUT_INDEX = "AWE_INDEX", "no"


@dataclass(frozen=True)
class Published:
    """A product that was written: its path, its record, and what the person should know."""

    path: Path
    record: Record
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def publish(
    plan: Plan,
    target: Path,
    store: Store | None,
    planes: Sequence[Plane],
    cards: Sequence[CardTuple],
    quality: Mapping[str, Any],
    run: Mapping[str, Any],
    used: Mapping[str, str],
    left_out: Sequence[Mapping[str, str]],
    force: bool = False,
    depfile: Path | None = None,
) -> Record:
    """Write a product and its record, and index it. Raises WouldOverwrite, Unavailable."""
    from .fits import write_fits

    make_directory(target.parent)
    with target_lock(target):
        finish_rename(target)
        _refuse_directory(target)
        if not force:
            refuse_foreign(target)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            written = write_fits(part, planes, cards, called=target)
            new = staged(target, written.file_sha256)
            part.replace(new)
        finally:
            part.unlink(missing_ok=True)
        try:
            sequence = store.next_sequence() if store else None
            record = compose(plan, target, written, quality, {**run, "sequence": sequence}, used, left_out)
            keep_record(target, store)
            if depfile is not None:
                write_depfile(depfile, target, plan)
            write_whole(sidecar(target), to_bytes(record))
        except BaseException:
            # Once the new record is in place, the replacement can only go forward.
            if not _is_half_replaced(target, new):
                new.unlink(missing_ok=True)
            raise
        new.replace(target)
        sync_directory(target.parent)
        # Under the lock, so that of two writers the last one's row is put last.
        _index(target, store, record)
    return record


def _refuse_directory(target: Path) -> None:
    """Raise WouldOverwrite where a directory has the name of the product, or of its record."""
    for path in (target, sidecar(target)):
        if path.is_dir():
            raise WouldOverwrite(f"{path}: is a directory", hint=f"mv {shlex.quote(str(path))} ELSEWHERE")


def _is_half_replaced(target: Path, new: Path) -> bool:
    """Whether the record in place is that of the staged file, and not of the file at the target."""
    record = read_record_or_none(target)
    if record is None or staged(target, record["product"]["file_sha256"]) != new:
        return False
    return state_of(target, record) == "replaced"


def _index(target: Path, store: Store | None, record: Record) -> None:
    if store is None or os.environ.get(INDEX_VARIABLE) == WITHOUT_INDEX:
        return
    from .indexing.index import product_row, put_records

    put_records(store, [product_row(store, target, record)])


def _index_if_lost(target: Path) -> None:
    """Put into the index what was published by a program that was killed before it could."""
    store = store_of(target)
    if store is None or os.environ.get(INDEX_VARIABLE) == WITHOUT_INDEX:
        return
    from .indexing.index import open_index
    from .indexing.indexrows import relative

    with open_index(store) as index:
        known = any(index.select("SELECT 1 FROM objects WHERE address = ?", (relative(store, target),)))
    if not known:
        with suppress(Unavailable):
            _index(target, store, read_record(sidecar(target)))


def finish_rename(target: Path) -> bool:
    """Roll forward a replacement that was stopped between its two renames; whether there was one."""
    if not sidecar(target).exists():
        return False
    record = read_record_or_none(target)
    if record is None or state_of(target, record) != "replaced":
        return False
    staged(target, record["product"]["file_sha256"]).replace(target)
    sync_directory(target.parent)
    return True


def drop_parts(target: Path) -> None:
    """Remove what writers of a product left that were killed, unless one is at it: they are as large as it."""
    part = re.compile(rf"\.{re.escape(target.name)}\.\d+\.part\Z")
    with suppress(BeingWritten, OSError), target_lock(target, wait=False):
        for path in target.parent.iterdir():
            if part.match(path.name):
                path.unlink(missing_ok=True)


def read_record_or_none(target: Path) -> Record | None:
    """The record of a product, or None if it cannot be read."""
    from .errors import NoRecord

    try:
        return read_record(sidecar(target))
    except NoRecord:
        return None


def keep_record(target: Path, store: Store | None) -> None:
    """Keep the record that is about to be replaced; records are never lost."""
    try:
        old = sidecar(target).read_bytes()
    except FileNotFoundError:
        return
    folder = store.records_path if store else target.parent / ".awe-records"
    make_directory(folder)
    kept = folder / kept_name(target.name, old)
    if not kept.exists():
        write_whole(kept, old)


def kept_name(name: str, record: bytes) -> str:
    """The name of the record of a product of some name among those that are kept."""
    import hashlib

    return f"{name}.{hashlib.sha256(record).hexdigest()[:16]}.json"


def write_depfile(depfile: Path, target: Path, plan: Plan) -> None:
    """Write the Make rule of a product: its inputs, each also as a target without a rule.

    So Make does not stop when an input is deleted (as gcc -MMD -MP).
    """
    check_depfile(depfile, target, plan)
    make_directory(depfile.parent)
    write_whole(depfile, _rule(target, plan).encode(errors="surrogateescape"))


def check_depfile(depfile: Path, target: Path, plan: Plan) -> None:
    """Raise WouldOverwrite if a depfile is to replace anything but such a rule, UsageError if Make cannot have it."""
    _rule(target, plan)
    hint = f"--depfile {shlex.quote(f'{target}.d')}"
    if os.path.abspath(depfile) in (os.path.abspath(target), os.path.abspath(sidecar(target))):
        raise WouldOverwrite(f"--depfile {depfile}: is the product or its record", hint=hint)
    if os.path.lexists(depfile) and not (depfile.is_file() and _is_rule(depfile)):
        raise WouldOverwrite(f"--depfile {depfile}: exists, and is not a rule that awetools wrote", hint=hint)


def watched(one: Input) -> Path:
    """The file whose time says when an input changed."""
    return one.source.watched if isinstance(one.source, RefcatInput) else one.source.address.path


def watched_files(plan: Plan) -> list[Path]:
    """The files whose time says that a product may have changed: those of its inputs, and of the grid that is named."""
    return [*map(watched, plan.inputs), *([plan.grid_file] if plan.grid_file else [])]


def _rule(target: Path, plan: Plan) -> str:
    inputs = list(dict.fromkeys(_make_name(str(one)) for one in watched_files(plan)))
    lines = [f"{_make_name(str(target))}: {' '.join(inputs)}", *(f"{name}:" for name in inputs)]
    return "\n".join(lines) + "\n"


def _is_rule(path: Path) -> bool:
    """Whether a file is empty or reads as a rule with its inputs as targets without one."""
    try:
        first, *rest = path.read_bytes().rstrip(b"\n").split(b"\n")
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    if not rest:
        return not first
    return b": " in first and all(line.endswith(b":") for line in rest)


def set_time(target: Path, inputs: Sequence[Path]) -> bool:
    """Give an up-to-date product the present time if an input's is newer, so that Make settles."""
    newest = max((path.stat().st_mtime_ns for path in inputs), default=0)
    if newest <= target.stat().st_mtime_ns:
        _index_if_lost(target)
        return False
    with target_lock(target):
        os.utime(target)
        record = read_record(sidecar(target))
        record = {**record, "product": {**record["product"], "mtime_ns": target.stat().st_mtime_ns}}
        write_whole(sidecar(target), to_bytes(record))
        _index(target, store_of(target), record)
    return True


def compose(
    plan: Plan,
    target: Path,
    written: Written,
    quality: Mapping[str, Any],
    run: Mapping[str, Any],
    used: Mapping[str, str],
    left_out: Sequence[Mapping[str, str]],
) -> Record:
    """The record of a product (architecture: the record, version 1)."""
    parameters = {
        name: {"value": value, "origin": plan.params.origins[name]}
        for name, value in plan.params.as_dict().items()
    }
    return {
        "record": {"schema": SCHEMA_VERSION, "type": "product"},
        "recipe": {
            "kind": plan.kind.name,
            "revision": plan.kind.revision,
            "parameters": parameters,
            "inputs": [_input_block(plan, number, target) for number in range(len(plan.inputs))],
            "without": list(plan.without),
            "instead": dict(used),
            "left_out": list(left_out),
        },
        "recipe_key": plan.key,
        "product": {
            "file": target.name,
            "bytes": written.bytes,
            "mtime_ns": written.mtime_ns,
            "file_sha256": written.file_sha256,
            "content": written.content,
        },
        "meta": dict(plan.meta),
        "validity": validity_of(plan.kind, plan.meta, plan.validity, plan.validity_by),
        "quality": dict(quality),
        "software": software(),
        "run": dict(run),
    }


def software() -> dict[str, str]:
    """The versions that can change a product's bits."""
    import numpy

    from .. import __version__

    versions = {
        "awetools": __version__,
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "numpy": numpy.__version__,
    }
    for name in ("scipy", "astropy", "sep"):
        module = sys.modules.get(name)
        if module is not None:
            versions[name] = str(module.__version__)
    return versions


def _input_block(plan: Plan, number: int, target: Path) -> dict[str, Any]:
    one = plan.inputs[number]
    block: dict[str, Any] = {
        "role": one.role,
        "kind": one.source.kind,
        "path": _hint(str(one.source.address), target),
        "content": one.source.content,
        "recipe_key": one.source.key,
        "meta": key_part(plan.kind, one)["meta"],
    }
    if one.question is not None:
        block["question"] = dict(one.question)
    if one.nights_away:
        block["nights_away"] = one.nights_away
    if one.accepted_flags:
        block["accepted_flags"] = one.accepted_flags
    return block


def _hint(path: str, target: Path) -> str:
    """A product's path relative to the product that uses it, so that a store can be moved; others as they are."""
    full = os.path.abspath(path)
    store = target.parent.resolve()
    common = os.path.commonpath([full, str(store)])
    return os.path.relpath(full, store) if common not in ("/", "") and common != full else full


def _make_name(path: str) -> str:
    """A file name as Make reads it in a rule; raises UsageError for one that Make cannot have."""
    if "\n" in path:
        raise UsageError(f"--depfile: Make has no names with a line end, as in {path!r}")
    return (
        path.replace("$", "$$")
        .replace("\\", "\\\\")
        .replace(" ", "\\ ")
        .replace("#", "\\#")
        .replace(":", "\\:")
    )
