"""`awe-header`: what a raw frame's header means, and where each value came from."""

from __future__ import annotations

import json
from typing import Any

import click

from ..core.errors import AweError, worst
from . import options
from .messages import Messenger
from .runner import launch


@click.command(
    "header", short_help="Print the translated header of raw frames.", context_settings=options.SETTINGS
)
@options.inputs()
@click.option(
    "--explain-type",
    is_flag=True,
    help="Say which rules were tried for the frame's type, and what came of each.",
)
@click.option("--cards", is_flag=True, help="Print the cards of the file as they are read, and stop.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, as_json: bool, **given: Any) -> int:
    """Print what the header of each FILE means: field, value, and the card and rule that the value came from.

    `file.fits[CCD5]` names one detector of a multi-extension file. What was
    overridden for a registered frame says so.

    \b
    Example: awe-header --explain-type raw/d1000.fits
    """
    codes = []
    for name in options.read_names(names, null):
        try:
            if given["cards"]:
                _print_cards(name)
            else:
                _print_meta(name, messenger, as_json, given["explain_type"])
            codes.append(0)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return worst(codes)


def _print_cards(name: str) -> None:
    from ..core.files import parse_address
    from ..core.fits import open_fits

    with open_fits(parse_address(name).path) as fits:
        for hdu in fits.hdus:
            options.print_line(f"# HDU {hdu.index} {hdu.name}".rstrip())
            for card in hdu.header.cards:
                options.print_line(card.raw.rstrip())


def _print_meta(name: str, messenger: Messenger, as_json: bool, explain: bool) -> None:
    import os

    from ..core.errors import NoSuchExtension
    from ..core.files import parse_address
    from ..core.fits import open_fits
    from ..core.raws import stat_of, translate_fits
    from ..core.store import read_raw_record
    from ..core.workspace import here

    workspace, address = here(), parse_address(name)
    stat_of(address.path)
    record = read_raw_record(workspace.stores, os.path.realpath(address.path))
    with open_fits(address.path) as fits:
        found = translate_fits(fits, workspace, record["overrides"] if record else {})
        for text in fits.problems:
            messenger.warning(f"{address.path}: {text}")
    chosen = [(hdus, one) for hdus, one in found if _is_named(hdus, one.meta, address.detector)]
    if not chosen:
        there = ", ".join(str(one.meta["detector"]) for _, one in found)
        raise NoSuchExtension(f"{address.path}: no detector {address.detector!r}; there are: {there}")
    for _, one in chosen:
        _print_translation(name, one, as_json, explain)
        for text in one.problems:
            messenger.warning(f"{name}: {text}")


def _is_named(hdus: tuple[int, ...], meta: Any, detector: str | None) -> bool:
    if detector is None or str(meta["detector"]) == detector:
        return True
    return detector.isdecimal() and int(detector) in hdus


def _print_translation(name: str, one: Any, as_json: bool, explain: bool) -> None:
    if as_json:
        origins = {field: list(origin) for field, origin in one.origins.items()}
        about = {
            "path": name,
            "meta": one.meta,
            "origins": origins,
            "type_rules": list(one.type_trace),
            "problems": list(one.problems),
        }
        options.print_line(json.dumps(about))
        return
    if explain:
        for line in one.type_trace:
            options.print_line(line)
        return
    for field, value in one.meta.items():
        card, rule = one.origins.get(field, ("", ""))
        text = value if isinstance(value, str) else json.dumps(value)
        options.print_line(f"{field}\t{text}\t{card}\t{rule}".rstrip())


def main() -> None:
    """Run the program."""
    launch(command)
