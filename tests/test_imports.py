"""Imports point down only: who may import whom, read from the files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "awetools"
FILES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in the file, less those for types alone."""
    package = ["awetools", *path.relative_to(ROOT).parts[:-1]]
    found: set[str] = set()
    skip = {
        inner
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in {ast.dump(one) for one in node.body}
    }
    for node in ast.walk(ast.parse(path.read_text())):
        if ast.dump(node) in skip:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = ".".join([*base, node.module] if node.module else base)
            found |= {module, *(f"{module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def area(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[0] == "core" and len(parts) > 2:
        return f"core.{parts[1]}"
    return parts[0] if len(parts) > 1 else ""


# Each of these rooms may import those that stand before it.
STOREYS = ("expressions", "indexing", "planning", "questions", "tracing", "sharing")

# What a room must not import.
FORBIDDEN = {
    "core": ("awetools.commands", "awetools.face", "click"),
    "face": ("awetools.commands", "click"),
    "core.pixels": (
        "awetools.commands",
        "click",
        "awetools.core.kinds",
        "awetools.core.fits",
        "awetools.core.frame",
    ),
    "core.kinds": (
        "awetools.commands",
        "click",
        "awetools.core.fits",
        "awetools.core.store",
        "awetools.core.indexing",
    ),
    "core.engines": (
        "awetools.commands",
        "click",
        "awetools.core.kinds",
        "awetools.core.indexing",
        "awetools.core.store",
        "awetools.core.planning.graph",
    ),
    "core.pictures": ("awetools.commands", "awetools.face", "click"),
    "core.coadd": (
        "awetools.commands",
        "awetools.face",
        "click",
        "awetools.core.kinds",
        "awetools.core.store",
    ),
    "core.pixelstory": ("awetools.commands", "awetools.face", "click"),
    **{f"core.{one}": ("awetools.commands", "awetools.face", "click") for one in STOREYS},
    "core.plots": ("awetools.commands", "click", "awetools.core.store", "awetools.core.indexing"),
    "core.simulate": ("awetools.commands", "click", "awetools.core.kinds", "awetools.core.store"),
}
PIXELS_MAY = ("awetools.core.errors", "awetools.core.pixels")
# Beside itself; the cards of a header are read without numpy, so that they are known outside too.
SKY_MAY = (
    *PIXELS_MAY,
    *(f"awetools.core.{one}" for one in ("sky", "wcscards", "distortion", "fitsheader", "units")),
)
# Magnitudes: above the sky, of which they take numbers and flags.
PHOTOMETRY_MAY = (*PIXELS_MAY, *(f"awetools.core.{one}" for one in ("photometry", "sky")))
# All others of the core are handed the kinds, and do not import them.
WITH_KINDS = ("images", "changes")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    modules = imported(path)
    for forbidden in FORBIDDEN.get(area(path), ()):
        assert not [one for one in modules if one == forbidden or one.startswith(f"{forbidden}.")], forbidden
    if area(path) == "core.pixels":
        ours = [one for one in modules if one.startswith("awetools.") and one != "awetools.core"]
        assert all(one.startswith(PIXELS_MAY) for one in ours), ours
    if area(path) == "core.sky":
        ours = [one for one in modules if one.startswith("awetools.") and one != "awetools.core"]
        assert all(one.startswith(SKY_MAY) for one in ours), ours
    if area(path) == "core.photometry":
        ours = [one for one in modules if one.startswith("awetools.") and one != "awetools.core"]
        assert all(one.startswith(PHOTOMETRY_MAY) for one in ours), ours
    storey = area(path).removeprefix("core.")
    if storey in STOREYS:
        above = STOREYS[STOREYS.index(storey) + 1 :]
        assert not [one for one in modules if one.split(".")[2:3] and one.split(".")[2] in above]
    if storey in ("core", *STOREYS) and path.stem not in WITH_KINDS:
        assert not [one for one in modules if one.startswith("awetools.core.kinds")]
    if path.stem == "errors":
        assert not [one for one in modules if one.startswith("awetools")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_why_it_exists(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} does not begin with a docstring"


@pytest.mark.parametrize(
    "path", [path for path in FILES if "core" in path.parts], ids=lambda path: str(path.relative_to(ROOT))
)
def test_core_never_prints_or_exits(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "exit", "quit"), node.lineno
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr not in ("exit", "stdout", "stderr"), node.lineno
