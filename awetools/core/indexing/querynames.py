"""What can be asked of an object, as SQL over the tables of the index: the words in force before the record's."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import UnknownName, nearest
from ..meta import ALIASES, FIELDS, Field
from ..store import Store
from .indexfile import sql_value
from .indexrows import META_COLUMNS, SETUP_FIELDS

# What can be asked of every object besides its meta and measures.
QUERY_COLUMNS = {
    field.name: field
    for field in (
        Field("path", "text", "", "Where the file is."),
        Field("filename", "text", "", "Name of the file, without its folder."),
        Field("kind", "text", "", "Kind of product, or type of raw frame."),
        Field("made", "text", "UTC", "When the product was made, or the raw frame registered."),
        Field("sequence", "integer", "", "Place in the order in which the store's products were made."),
        Field("flags", "integer", "bits", "One bit for each measure that is outside its limits; 0 is clean."),
        Field("verdict", "text", "", "What a person judged: good, bad or ready."),
        Field("recipe_key", "text", "", "What the product is known by."),
        Field("content", "text", "SHA-256", "Hash of the pixels."),
        Field("bytes", "integer", "", "Size of the file."),
        Field("valid_from", "text", "UTC", "Start of the validity of a calibration."),
        Field("valid_to", "text", "UTC", "End of the validity of a calibration."),
        Field(
            "valid_by", "text", "", "hand if the interval was set by hand; else default, or a settings file."
        ),
    )
}
# What is left of the address less all up to its last slash.
FILENAME = "substr(objects.address, 1 + length(rtrim(objects.address, replace(objects.address, '/', ''))))"
IDENTITY = "coalesce(objects.recipe_key, objects.content)"
# What people said of an object comes before what its record says.
VERDICT = f"(SELECT verdict FROM verdicts WHERE identity = {IDENTITY})"
_BY_HAND = f"FROM validities WHERE identity = {IDENTITY}"
IN_FORCE = {
    "valid_from": f"CASE WHEN EXISTS(SELECT 1 {_BY_HAND}) THEN (SELECT since {_BY_HAND}) ELSE objects.valid_from END",
    "valid_to": f"CASE WHEN EXISTS(SELECT 1 {_BY_HAND}) THEN (SELECT until {_BY_HAND}) ELSE objects.valid_to END",
    "valid_by": f"CASE WHEN EXISTS(SELECT 1 {_BY_HAND}) THEN 'hand' ELSE objects.valid_by END",
    # A product that was made again later was judged by the newer limits.
    "flags": f"coalesce((SELECT qualities.flags FROM qualities WHERE identity = {IDENTITY} "
    "AND qualities.made >= coalesce(objects.made, '')), objects.flags)",
}
# The set-up of an object.
SETUP = "(SELECT setups.meta FROM setups WHERE setups.number = objects.setup)"


def column_sql(store: Store, name: str, measures: Sequence[str], table: str = "objects") -> tuple[str, str]:
    """A name of the query language as SQL and its type; raises UnknownName with the nearest name.

    table: what the statement calls the objects.
    """
    sql, kind = _column(store, name, measures)
    return sql.replace("objects.", f"{table}."), kind


def _column(store: Store, name: str, measures: Sequence[str]) -> tuple[str, str]:
    name = ALIASES.get(name, name)
    if name == "path":
        return path_sql(store, "objects.address"), "text"
    if name == "filename":
        return FILENAME, "text"
    if name == "verdict":
        return VERDICT, "text"
    if name in IN_FORCE:
        return IN_FORCE[name], QUERY_COLUMNS[name].type
    if name in QUERY_COLUMNS:
        return f"objects.{name}", QUERY_COLUMNS[name].type
    if name in META_COLUMNS:
        return f"objects.{name}", META_COLUMNS[name].lower()
    # A measure before a meta field of the same name: the one number that was measured, not the
    # list of one an amplifier.
    if name in measures:
        return f"json_extract(objects.measures, '$.\"{name}\"')", "real"
    if name in {field.name for field in FIELDS}:
        whole = SETUP if name in SETUP_FIELDS else "objects.rest"
        return f"json_extract({whole}, '$.{name}')", "text"
    known = [*QUERY_COLUMNS, *(field.name for field in FIELDS), *ALIASES, *measures]
    raise UnknownName(f"no field {name!r}{nearest(name, known)}")


def path_sql(store: Store, address: str) -> str:
    """An address as the path that `absolute` makes of it."""
    inside = os.path.join(store.root, "")
    return f"CASE WHEN substr({address}, 1, 1) = '/' THEN {address} ELSE {text_sql(inside)} || {address} END"


def text_sql(value: str) -> str:
    """A text as SQL, whatever bytes it has."""
    given = sql_value(value)
    raw = given if isinstance(given, bytes) else value.encode()
    return f"CAST(x'{raw.hex()}' AS TEXT)"
