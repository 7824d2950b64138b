"""`awe-simulate`: a raw night of a mosaic camera, with its truth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from ..core.errors import UsageError
from ..core.params import params_of
from ..core.simulate import MODEL, NightSpec
from . import options
from .messages import Messenger
from .runner import launch

# What is not a single number is read from text by the command.
TYPES: dict[type, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, str: click.STRING}
NAMES = {"seeing_arcsec": "--seeing", "pixel_scale_arcsec": "--pixel-scale"}
TEXTS = {"shape": "NXxNY", "filters": "NAME,..."}


def _spec_options(function: Any) -> Any:
    for one in reversed(params_of(NightSpec)):
        name = NAMES.get(one.name, one.option)
        default = _shown(one.default)
        unit = f" ({one.unit})" if one.unit else ""
        about = "; ".join(part for part in (f"default: {default}", one.range_text) if part)
        text = f"{one.help.rstrip('.')}{unit}. [{about}]"
        kind = TYPES.get(one.type, click.STRING)
        option = click.option(name, one.name, type=kind, default=None, metavar=TEXTS.get(one.name), help=text)
        function = option(function)
    return function


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ("x" if isinstance(default[0], int) else ",").join(str(part) for part in default)
    return str(default)


@click.command(
    "simulate",
    short_help="Simulate a raw night of a mosaic camera, with its truth.",
    help="",
    context_settings=options.SETTINGS,
)
@click.argument("directory", type=click.Path(path_type=Path, readable=False))
@_spec_options
@options.processes
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, directory: Path, jobs: int, as_json: bool, **given: Any) -> None:
    """Filled in below: what the simulator models is said in one place."""
    from ..core.simulate.night import simulate_night
    from .progress import progress

    values = {name: value for name, value in given.items() if value is not None}
    if "shape" in values:
        values["shape"] = _shape(values["shape"])
    if "filters" in values:
        values["filters"] = tuple(part.strip() for part in values["filters"].split(",") if part.strip())
    night = NightSpec(**values)
    with progress(None, "awe-simulate", messenger) as step:
        summary = simulate_night(directory, night, jobs, lambda _done, _all: step())
    if as_json:
        options.print_line(json.dumps(dataclasses.asdict(summary), default=str))
        return
    for path in summary.raw:
        options.print_line(str(path))
    counts = ", ".join(f"{count} {kind}" for kind, count in summary.counts.items() if count)
    messenger.note(f"{directory}: {counts} frames, {summary.bytes_written / 1e6:.0f} MB, with their truth")


command.help = (
    "Write the raw frames of a simulated night into DIRECTORY/raw and the truth of every ingredient into "
    "DIRECTORY/truth. The directory must be new or empty. The same options give the same bytes, whatever -j.\n\n"
    "\b\nExample: awe-simulate night --detectors 2 --shape 512x1024 --filters R,V -j2\n\n" + MODEL
)


def _shape(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--shape {text}: not NXxNY, such as 2048x4096")
    return int(parts[0]), int(parts[1])


def main() -> None:
    """Run the program."""
    launch(command)
