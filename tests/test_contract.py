"""What every kind and every command promises: one test each, so that a new tool is tested by being listed."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import click
import pytest

from awetools.commands.tools import TOOLS
from awetools.core.errors import all_errors, worst
from awetools.core.kind import REFCAT, Kind, Result, named
from awetools.core.kinds import KINDS
from awetools.core.meta import FIELDS, FRAME_TYPES
from awetools.core.params import params_of
from awetools.core.products import open_product
from awetools.core.quality import measure_names
from awetools.core.record import check_record
from awetools.core.store import Store
from tests.support import ON_SKY, InProcess, awe, program

UNITS = ("_adu", "_e", "_s", "_px", "_arcsec", "_mag", "_deg", "_sigma", "_fraction", "_c")
# Numbers without a unit: counts, and names of the field.
PLAIN = {
    "mean",
    "frames",
    "pairs",
    "left_out",
    "hot_pixels",
    "bad_columns",
    "saturated_pixels",
    "unstable_pixels",
}
PLAIN |= {"dead_amplifiers"}
PLAIN |= {"cold_pixels", "cold_columns"}
PLAIN |= {"nonlinear_pixels", "cosmic_pixels", "trail_pixels", "trails"}
PLAIN |= {"uncalibrated_pixels", "min_response", "max_response"}
PLAIN |= {
    "sources",
    "stars",
    "saturated_sources",
    "ellipticity",
    "noise_ratio",
    "density_low",
    "density_high",
}
PLAIN |= {"area_ratio", "flux_scale", "filled_pixels", "exposures_mean"}
PLAIN |= {"exposures", "detectors", "reference_stars", "held_stars", "groups", "anchors", "undetermined"}
PLAIN |= {"n_ref", "n_clipped", "n_sources", "n_catalogue", "clipped", "unusable"}
PLAIN |= {
    "chi2_reduced",
    "chance_log10",
    "degree",
    "parity",
    "colour_coefficient",
    "colour_coefficient_error",
}
# Measured of frames, and what a camera says of them: the same quantity.
MEASURED_FIELDS = {"read_noise_adu", "gain_e_adu", "nonlinear_adu"}

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
tools = pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)


def command_of(tool: Any) -> click.Command:
    found = importlib.import_module(tool.module).command
    assert isinstance(found, click.Command)
    return found


# Kinds


def test_names_are_unique() -> None:
    for names in (
        [kind.name for kind in KINDS],
        [kind.command for kind in KINDS],
        [kind.class_name for kind in KINDS],
    ):
        assert len(set(names)) == len(names)


@kinds
def test_the_recipe_takes_its_needs_and_parameters_by_name(kind: Kind) -> None:
    arguments = list(inspect.signature(kind.recipe).parameters)
    assert arguments == [*(need.role for need in kind.needs), "params"]
    text = inspect.getdoc(kind.recipe) or ""
    assert text.splitlines()[0].endswith("."), "the first line is one sentence"
    for need in kind.needs:
        assert f"{need.role}:" in text, f"the docstring does not say what {need.role} is"
    assert "Returns" in text


@kinds
def test_what_a_kind_names_exists(kind: Kind) -> None:
    fields = {field.name for field in FIELDS}
    assert set(kind.match) | set(kind.group) | set(kind.reads) <= fields
    known = {*FRAME_TYPES, REFCAT, *(one.name for one in KINDS)}
    assert {name for need in kind.needs for name in need.kinds} <= known
    assert {limit.measure for limit in kind.limits} <= set(measure_names(kind))
    assert kind.command in kind.example
    assert kind.command in [tool.program for tool in TOOLS]


def test_the_graph_of_kinds_has_no_cycle() -> None:
    done: list[str] = [*FRAME_TYPES, REFCAT]
    left = list(KINDS)
    while left:
        # What only a person names is there already: an older list of the same kind, say.
        needs = {kind.name: [need for need in kind.needs if need.select != named()] for kind in left}
        ready = [kind for kind in left if all(one in done for need in needs[kind.name] for one in need.kinds)]
        assert ready, f"a cycle among {[kind.name for kind in left]}"
        done += [kind.name for kind in ready]
        left = [kind for kind in left if kind not in ready]


@kinds
def test_parameters_have_help_unit_and_a_default_in_range(kind: Kind) -> None:
    from awetools.core.params import convert

    for one in params_of(kind.params):
        assert one.help.endswith("."), one.name
        assert convert(one, one.default, "built-in") == one.default
        if one.unit:
            assert one.name.split("_")[-1] in (one.unit.lower(), "grow", "mesh"), one.name


@kinds
def test_measures_end_in_their_unit(kind: Kind) -> None:
    for measure in kind.measures:
        assert measure.name.endswith(UNITS) or measure.name in PLAIN, measure.name
        assert measure.help.endswith(".")


@kinds
def test_no_measure_hides_a_field_of_the_meta(kind: Kind) -> None:
    assert {one.name for one in kind.measures} & {one.name for one in FIELDS} <= MEASURED_FIELDS


@kinds
def test_a_product_keeps_every_promise(kind: Kind, request: pytest.FixtureRequest) -> None:
    import numpy as np
    from astropy.io import fits

    request.getfixturevalue("sky_store" if kind.name in ON_SKY else "reduced_store")
    products = [open_product(Path(line)) for line in awe("query", kind.name).splitlines()]
    assert products
    for product in products:
        assert check_record(product.record) == []
        # Of the small night there is no illumination to be corrected.
        assert product.record["quality"]["flags"] == 0 or kind.name == "illumination"
        measures = product.record["quality"]["measures"]
        assert {measure.name for measure in kind.measures} <= set(measures)
        assert product.path.parent.parent.name == kind.name
        assert product.key[:8] in product.path.name
        with fits.open(product.path, checksum=True) as hdus:
            assert hdus[0].header["AWEKEY"] == product.key
            for hdu in hdus:
                if hdu.data is not None and getattr(hdu, "is_image", False):
                    assert np.isfinite(hdu.data).all()
            names = [hdu.name for hdu in hdus]
        if "SCI" in names:
            assert {"WEIGHT"} < set(names)


# Commands


@tools
def test_help_is_fast_in_what_it_imports_and_complete(tool: Any) -> None:
    script = (
        "import sys, json\n"
        f"from {tool.module} import command\n"
        "from awetools.commands.runner import run\n"
        f"code = run(command, ['--help'], {tool.program!r})\n"
        "slow = {'numpy._core', 'astropy', 'scipy', 'sep', 'reproject', 'sqlite_utils', 'tqdm', 'matplotlib'}\n"
        "print(json.dumps([code, sorted(slow & set(sys.modules))]), file=sys.stderr)\n"
    )
    import subprocess
    import sys

    from tests.support import ROOT

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert json.loads(done.stderr.splitlines()[-1]) == [0, []], done.stderr
    command = command_of(tool)
    assert command.short_help and command.short_help.endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} has no help"
    assert "Example" in (command.help or "") + (command.epilog or "")


@tools
def test_usage_errors_are_exit_2_in_our_words(tool: Any, run: InProcess) -> None:
    ran = run(tool.module.rpartition(".")[2], "--no-such-option")
    assert ran.code == 2 and ran.err.startswith(f"{tool.program}: usage: ") and "try: " in ran.err
    assert ran.out == ""


@tools
def test_version_and_log_json(tool: Any, run: InProcess) -> None:
    name = tool.module.rpartition(".")[2]
    assert run(name, "--version").out.startswith("awetools ")
    ran = run(name, "--log-json", "--no-such-option")
    assert ran.code == 2
    for line in ran.err.splitlines():
        assert json.loads(line)["program"] == tool.program


@tools
def test_options_that_tools_share_mean_the_same(tool: Any) -> None:
    letters = {
        "-o": "output",
        "-j": "jobs",
        "-0": "null",
        "-q": "quiet",
        "-v": "verbose",
        "-u": "update",
        "-n": "dry_run",
    }
    for parameter in command_of(tool).params:
        for letter in set(parameter.opts) & set(letters):
            assert parameter.name == letters[letter], f"{letter} is {parameter.name}"


def takes_names(tool: Any) -> bool:
    """Whether a tool reads its inputs from standard input; awe-verify without names is about the store here."""
    return tool.name != "verify" and any(one.name == "names" for one in command_of(tool).params)


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if takes_names(tool)], ids=lambda tool: tool.name)
def test_empty_standard_input_is_exit_4(tool: Any, tmp_path: Path) -> None:
    needed = {"why": ["--role", "bias"], "import": ["--as", "reduced"]}
    arguments = needed.get(tool.name, [])
    awe("init", cwd=tmp_path)
    ran = program(tool.name, *arguments, stdin="", cwd=tmp_path)
    assert ran.code == 4 and "empty-input" in ran.err, ran.err
    assert ran.out == ""


# Errors


def test_every_error_has_one_code_one_slug_and_a_line() -> None:
    errors = all_errors()
    assert len({error.slug for error in errors}) == len(errors)
    for error in errors:
        assert error.exit_code in (2, 3, 4, 5, 6, 7, 8)
        assert (error.__doc__ or "").strip().endswith(".")
        made = error("what", hint="try this")
        import pickle

        again = pickle.loads(pickle.dumps(made))
        assert (type(again), again.message, again.hint) == (error, "what", "try this")


def test_the_worst_exit_code_wins() -> None:
    assert worst([0, 3, 5]) == 5
    assert worst([3, 5, 6, 4, 7, 8, 1]) == 1
    assert worst([4, 7]) == 7
    assert worst([]) == 0


def test_a_recipe_that_forgets_a_measure_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, reduced_store: Store
) -> None:
    from dataclasses import replace

    from awetools.core.batch import Failure, Request
    from awetools.core.batch import run as make
    from awetools.core.kinds.hotpix import HOTPIX
    from awetools.core.workspace import here

    def forgetful(**given: Any) -> Result:
        made = HOTPIX.recipe(**given)
        return replace(made, measures={})

    broken = replace(HOTPIX, recipe=forgetful)
    bias = awe("query", "bias", "detector=sim1").strip()
    (outcome,) = make(Request(broken, KINDS, [bias], here(), output=Path("hot.fits")))
    assert isinstance(outcome, Failure) and "measures" in str(outcome.error)
    assert not Path("hot.fits").exists()
