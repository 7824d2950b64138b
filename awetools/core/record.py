"""The provenance record: canonical JSON, keys, and the sidecar beside every product.

A product `bias.fits` has the record `bias.fits.json`. The JSON Schema of a record
is `docs/record.schema.json`; `check_record` is its short form for programs.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import NoRecord
from .shape import META, NUMBER, SCALAR, USED_META, Each, Maybe, checker, faults

SCHEMA_VERSION = 1
_MADE_BY_NEWER = "made by a newer awetools"
BLOCKS = ("record", "recipe", "recipe_key", "product", "meta", "validity", "quality", "software", "run")

# What programs read of a record; the schemas say more.
_INPUT = {"role": str, "kind?": str, "path?": str, "recipe_key?": Maybe(str), "meta": USED_META}
_PRODUCT_SHAPE = {
    "recipe": {
        "kind": str,
        "revision": int,
        "parameters": Each({"value": SCALAR, "origin?": str}),
        "inputs": [_INPUT],
        "without?": [str],
        "instead?": Each(str),
        "left_out?": [Each(str)],
    },
    "recipe_key": str,
    "product": {"file?": str, "bytes": int, "mtime_ns?": int},
    "meta": META,
    "validity": Maybe({"start?": Maybe(str), "end?": Maybe(str), "by?": str}),
    "quality": {"measures": Each(Maybe(NUMBER)), "flags": int, "flag_names?": [str]},
    "software": Each(str),
    "run": {"argv?": [str], "start?": str, "end?": str, "sequence?": Maybe(int)},
}
_RAW_SHAPE = {
    "file": {"path": str, "bytes": int, "mtime_ns": int, "inode": int},
    "overrides": Each(str),
    "problems": [str],
    "detectors": [{"detector": str, "hdus": [int], "content": str, "meta": META}],
}
_fits_product = checker(_PRODUCT_SHAPE)
_fits_raw = checker(_RAW_SHAPE)
_is_sha256 = re.compile("[0-9a-f]{64}").fullmatch

_encoded = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode

Record = dict[str, Any]


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no blanks, ASCII, shortest numbers."""
    return _encoded(value)


def sha256_of(value: object) -> str:
    """SHA-256 of a value's canonical JSON, hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def recipe_key(
    kind: str, revision: int, parameters: Mapping[str, object], inputs: Sequence[Mapping[str, Any]]
) -> str:
    """What a product is known by: the hash of kind, revision, parameters and the content of its inputs.

    Each input has role, content and `meta`: the fields that the kind matches or
    reads. No path and no time enters.
    """
    parts = [input_text(one["role"], one["content"], canonical(one["meta"])) for one in inputs]
    return key_of_texts(kind, revision, canonical(dict(parameters)), parts)


def input_text(role: str, content: str, meta_text: str) -> str:
    """The canonical JSON of what of one input enters a key, from that of its meta."""
    quoted = f'"{content}"' if content.isalnum() and content.isascii() else canonical(content)
    return f'{{"content":{quoted},"meta":{meta_text},"role":"{role}"}}'


def key_of_texts(kind: str, revision: int, parameters_text: str, input_texts: Iterable[str]) -> str:
    """The recipe key, from the canonical JSON of its parts: for who makes thousands of keys of the same parts."""
    inputs = ",".join(sorted(input_texts))
    text = f'{{"inputs":[{inputs}],"kind":"{kind}","parameters":{parameters_text},"revision":{revision}}}'
    return hashlib.sha256(text.encode()).hexdigest()


def sidecar(product: Path) -> Path:
    """Where the record of a product lies."""
    # Also of a name that is no file's, such as `.` or `/`, of which with_name() knows none.
    return product.parent / f"{product.name}.json"


def to_bytes(record: Mapping[str, Any]) -> bytes:
    """The bytes of a sidecar: indented for people, ended by a newline."""
    return (json.dumps(record, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def from_bytes(text: bytes) -> Any:
    """The value of a JSON text; raises ValueError also for numbers that are not finite, which JSON has not."""
    value = json.loads(text, parse_constant=_finite)
    # A number such as 1e999 is read as infinite. Looking for it in the bytes of all values takes a third of
    # the time of a function called for every number.
    packed = marshal.dumps(value, 2)
    if any(one in packed for one in _INFINITE):
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    return value


# As marshal writes them; no text has these bytes, which are not UTF-8.
_INFINITE = tuple(marshal.dumps(one, 2) for one in (math.inf, -math.inf))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def read_record(path: Path) -> Record:
    """Read a sidecar of this or an older version; raises NoRecord, naming what is wrong.

    The record is not to be changed: whoever reads the same bytes again gets the same object.
    """
    return _read(path, _parsed_or_known)


def read_record_once(path: str) -> Record:
    """Read a sidecar as `read_record` does, without keeping it: for who reads thousands, each once."""
    return _read(path, _parsed)


def _read(path: Path | str, parsed: Callable[[bytes], tuple[Any, list[str]]]) -> Record:
    try:
        with open(path, "rb", buffering=0) as stream:
            text = stream.read()
        record, problems = parsed(text)
    except FileNotFoundError:
        hint = "awe-index --update, if the product was removed by hand; awe-verify says what is gone"
        raise NoRecord(f"{path}: no such record", hint=hint) from None
    except OSError as error:
        raise NoRecord(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise NoRecord(f"{path}: not JSON ({error})", hint="awe-verify") from None
    if problems:
        raise NoRecord(f"{path}: {problems[0]}", hint=cure_of(problems[0], "awe-verify"))
    checked: Record = record
    return checked


def _parsed(text: bytes) -> tuple[Any, list[str]]:
    record = from_bytes(text)
    return record, check_record(record)


# The calibrations of a batch are opened for every frame.
_parsed_or_known = lru_cache(maxsize=64)(_parsed)


def check_record(record: object) -> list[str]:
    """What is wrong with the form of a product's record; an empty list if nothing."""
    if not isinstance(record, dict):
        return ["not an object"]
    head = record.get("record")
    version = head.get("schema") if isinstance(head, dict) else None
    if not isinstance(version, int) or version < 1:
        return ["no schema version"]
    if version > SCHEMA_VERSION:
        return [_newer(version)]
    problems = [f"block {name!r} is missing" for name in BLOCKS if name not in record]
    if problems:
        return problems
    if not _fits_product(record):
        problems += faults(record, _PRODUCT_SHAPE, "")
    problems += [f"{name}: not a SHA-256" for name, value in _hashes(record) if not _is_hash(value)]
    return problems


def check_raw_record(record: object) -> list[str]:
    """What is wrong with the form of a raw frame's record; an empty list if nothing."""
    head = record.get("record") if isinstance(record, dict) else None
    version = head.get("schema") if isinstance(head, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return [_newer(version)]
    problems = [] if _fits_raw(record) else list(faults(record, _RAW_SHAPE, ""))
    if not problems and isinstance(record, dict) and not record["detectors"]:
        problems.append("it has no detector")
    return problems


def _newer(version: int) -> str:
    return f"schema version {version}: {_MADE_BY_NEWER}; this one reads up to {SCHEMA_VERSION}"


def cure_of(problem: str, otherwise: str) -> str:
    """The command that helps where a record cannot be used."""
    return "upgrade awetools" if _MADE_BY_NEWER in problem else otherwise


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _is_sha256(value) is not None


def _hashes(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    if not isinstance(record["recipe"], dict) or not isinstance(record["product"], dict):
        return []
    hashes = [("recipe_key", record["recipe_key"])]
    hashes += [(f"product.{name}", record["product"].get(name)) for name in ("file_sha256", "content")]
    inputs = record["recipe"].get("inputs")
    for number, one in enumerate(inputs if isinstance(inputs, list) else []):
        hashes.append(
            (f"recipe.inputs[{number}].content", one.get("content") if isinstance(one, dict) else one)
        )
    return hashes
