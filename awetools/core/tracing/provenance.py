"""A lineage in the words of W3C PROV: entities, the runs that made them, who ran them and with which software.

The form is PROV-JSON (W3C member submission of 24 April 2013).
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from typing import Any

from ..errors import NoRecord
from ..record import Record, read_record, sha256_of
from .lineage import Node
from .lineagegraph import Graph, Identity

PREFIXES = {
    "awe": "urn:awetools:",
    "product": "urn:awetools:product:",
    "raw": "urn:awetools:raw:",
    "run": "urn:awetools:run:",
    "agent": "urn:awetools:agent:",
    "param": "urn:awetools:parameter:",
}
META = ("instrument", "detector", "filter", "night", "obs_start", "object", "exptime_s")

Block = dict[str, Any]


def to_prov(graph: Graph) -> str:
    """The graph as one PROV-JSON document; a product whose record is lost is an entity without its run."""
    document: dict[str, Any] = {"prefix": PREFIXES}
    for name in (
        "entity",
        "activity",
        "agent",
        "used",
        "wasGeneratedBy",
        "wasAssociatedWith",
        "wasDerivedFrom",
    ):
        document[name] = {}
    runs: dict[Identity, str] = {}
    for identity, node in graph.nodes.items():
        document["entity"][_entity(node)] = _entity_block(node)
        record = _record_of(node)
        if record is not None:
            runs[identity] = _add_run(document, node, record)
    for edge in graph.edges:
        product, source = _entity(graph.nodes[edge.product]), _entity(graph.nodes[edge.input])
        if edge.product in runs:
            used = {"prov:activity": runs[edge.product], "prov:entity": source, "prov:role": edge.role}
            _relate(document, "used", used)
        derived = {"prov:generatedEntity": product, "prov:usedEntity": source}
        _relate(document, "wasDerivedFrom", derived)
    shown = {name: block for name, block in document.items() if block}
    return json.dumps(shown, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _entity(node: Node) -> str:
    """The name of an object: the same recipe made by other software may be another."""
    return f"raw:{node.content}" if node.id == node.content else f"product:{node.id}-{node.content[:16]}"


def _entity_block(node: Node) -> Block:
    block: Block = {
        "prov:label": _text(os.path.basename(node.path)),
        "prov:type": _name(f"awe:{node.kind}"),
        "prov:location": _text(os.path.abspath(node.path)),
        "awe:content": node.content,
        "awe:state": node.state,
    }
    if node.id != node.content:
        block["awe:recipe_key"] = node.id
    for name in META:
        value = node.meta.get(name)
        if isinstance(value, str | int | float):
            block[f"awe:{name}"] = _value(value)
    return block


def _record_of(node: Node) -> Record | None:
    """The record of a product; None for a raw frame, and where it is not to be had."""
    if node.id == node.content or node.record_path is None:
        return None
    try:
        return read_record(node.record_path)
    except NoRecord:
        return None


def _add_run(document: dict[str, Any], node: Node, record: Record) -> str:
    """The run that made a product, with who and what was behind it; returns its name."""
    recipe, run = record["recipe"], record["run"]
    name = f"run:{node.id}-{node.content[:16]}"
    block: Block = {"prov:type": _name(f"awe:{recipe['kind']}"), "awe:revision": _value(recipe["revision"])}
    if run.get("argv"):
        block["prov:label"] = _text(shlex.join(run["argv"]))
    for name_there, name_here in (("start", "prov:startTime"), ("end", "prov:endTime")):
        if run.get(name_there):
            block[name_here] = run[name_there]
    if run.get("host"):
        block["awe:host"] = _text(str(run["host"]))
    for parameter, one in recipe["parameters"].items():
        block[f"param:{parameter}"] = _value(one["value"])
    document["activity"][name] = block
    generated: Block = {"prov:entity": _entity(node), "prov:activity": name}
    if run.get("end"):
        generated["prov:time"] = run["end"]
    _relate(document, "wasGeneratedBy", generated)
    for role, agent, about in _agents(record):
        document["agent"][agent] = about
        _relate(
            document,
            "wasAssociatedWith",
            {"prov:activity": name, "prov:agent": agent, "prov:role": role},
        )
    return name


def _agents(record: Record) -> list[tuple[str, str, Block]]:
    """The person and the software of a run: role, name and what is known of each."""
    software, user = record["software"], record["run"].get("user")
    versions = {f"awe:{name}": _text(str(version)) for name, version in sorted(software.items())}
    label = _text(f"awetools {software.get('awetools', '?')}")
    found = [
        (
            "software",
            f"agent:software-{sha256_of(software)[:16]}",
            {"prov:type": _name("prov:SoftwareAgent"), "prov:label": label, **versions},
        )
    ]
    if user:
        who = str(user)
        about = {"prov:type": _name("prov:Person"), "prov:label": _text(who)}
        found.append(("user", f"agent:user-{sha256_of(who)[:16]}", about))
    return found


def _relate(document: dict[str, Any], relation: str, block: Mapping[str, Any]) -> None:
    document[relation][f"_:{relation}{len(document[relation])}"] = dict(block)


def _name(text: str) -> Block:
    return {"$": text, "type": "prov:QUALIFIED_NAME"}


def _value(value: object) -> Any:
    """A value with its type, as PROV-JSON has it; lists as their JSON."""
    if isinstance(value, bool):
        return {"$": "true" if value else "false", "type": "xsd:boolean"}
    if isinstance(value, int):
        return {"$": str(value), "type": "xsd:integer"}
    if isinstance(value, float):
        return {"$": repr(value), "type": "xsd:double"}
    return _text(value if isinstance(value, str) else json.dumps(value))


def _text(text: str) -> str:
    """A text that every reader of JSON takes: bytes of a file name that are not UTF-8 are replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
