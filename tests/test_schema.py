"""Every record is of the form that docs/*.schema.json publishes, and the schemas refuse what is not."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest

from awetools.core.kinds import KINDS
from awetools.core.meta import FIELDS
from awetools.core.record import BLOCKS, SCHEMA_VERSION
from awetools.core.store import Store
from tests.support import ROOT


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


PRODUCT = validator("record.schema.json")
RAW = validator("raw-record.schema.json")


def problems(schema: jsonschema.Draft202012Validator, record: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in schema.iter_errors(record)]


def product_records(store: Store) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(store.root.glob("[!.]*/**/*.fits.json"))]


def test_every_product_record_is_valid(reduced_store: Store, sky_store: Store) -> None:
    records = product_records(reduced_store) + product_records(sky_store)
    assert {one["recipe"]["kind"] for one in records} == {kind.name for kind in KINDS}
    for record in records:
        assert problems(PRODUCT, record) == [], record["product"]["file"]


def test_every_raw_record_is_valid(store: Store) -> None:
    records = [json.loads(path.read_bytes()) for path in sorted((store.awe / "raw").rglob("*.json"))]
    assert records
    for record in records:
        assert problems(RAW, record) == [], record["file"]["path"]


@pytest.mark.parametrize("schema", [PRODUCT, RAW], ids=["product", "raw"])
def test_the_meta_of_the_schema_is_the_catalogue(schema: jsonschema.Draft202012Validator) -> None:
    properties = schema.schema["$defs"]["meta"]["properties"]
    assert list(properties) == [field.name for field in FIELDS]
    types = {"text": "string", "real": "number", "integer": "integer"}
    for field in FIELDS:
        if field.type in types and "type" in properties[field.name]:
            assert properties[field.name]["type"] == [types[field.type], "null"]


def test_the_schema_has_the_blocks_and_version_of_the_code() -> None:
    assert tuple(PRODUCT.schema["required"]) == BLOCKS
    assert PRODUCT.schema["properties"]["record"]["properties"]["schema"] == {"const": SCHEMA_VERSION}


def _changed(record: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    inner: Any = changed
    *parents, last = path.split(".")
    for name in parents:
        inner = inner[int(name)] if name.isdigit() else inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return changed


BROKEN: list[tuple[str, object]] = [
    *((block, None) for block in BLOCKS),
    ("recipe_key", "F" * 64),
    ("recipe.inputs", []),
    ("recipe.inputs.0.content", "0"),
    ("recipe.parameters.clip_sigma", 3.0),
    ("product.bytes", 2881),
    ("meta.filtre", "R"),
    ("meta.night", "2.3.2017"),
    ("quality.flags", -1),
    ("quality.measures.level_adu", "high"),
    ("validity.by", "somebody"),
    ("run.end", "yesterday"),
    ("extra", 1),
]


def test_the_schema_refuses_a_broken_record(reduced_store: Store) -> None:
    record = next(one for one in product_records(reduced_store) if one["recipe"]["kind"] == "bias")
    assert problems(PRODUCT, record) == []
    accepted = [path for path, value in BROKEN if not problems(PRODUCT, _changed(record, path, value))]
    assert accepted == []
