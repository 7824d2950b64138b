"""Fixtures: a small simulated night, made once, and stores with and without its products."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from awetools.core import batch
from awetools.core.coadd import strips
from awetools.core.indexing.index import rebuild
from awetools.core.memory import resident_bytes
from awetools.core.pixels.kernels import SWITCH
from awetools.core.simulate import NightSpec
from awetools.core.store import Store, init_store
from tests.support import InProcess, awe_here, bias_frames

# How long an example takes is the machine's matter.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What the process of the tests held when a test began; what a program of its own holds at least.
_held_bytes, PROGRAM_BYTES = 0, 60 << 20

SMALL_NIGHT = NightSpec(
    detectors=2,
    exposures=3,
    biases=4,
    flats=4,
    twilights=1,
    darks=3,
    shape=(160, 192),
    filters=("R", "V"),
    seed=5,
)


# Few of the small night's frames have the stars for an astrometric solution.
SKY_NIGHT = NightSpec(
    detectors=2,
    exposures=2,
    biases=3,
    flats=4,
    twilights=0,
    darks=0,
    shape=(256, 256),
    filters=("R",),
    stars_per_arcmin2=120,
    galaxies_per_arcmin2=5,
    seed=5,
)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No settings of the person who runs the tests, and no store above them, take part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("AWE_PATH", raising=False)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    global _held_bytes
    _held_bytes = resident_bytes(trim=False)


@pytest.fixture(scope="session", autouse=True)
def _own_memory() -> Iterator[None]:
    """A program that runs in the process of the tests is not blamed for the memory that those before it left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "resident_bytes", lambda: max(PROGRAM_BYTES, resident_bytes() - _held_bytes))
        # What a program keeps for its next frame, the next test has no use for.
        patch.setattr(batch, "keep_freed_memory", lambda: None)
        yield


@pytest.fixture(scope="module", params=["compiled", "numpy"])
def each_kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of a module run twice: with the C kernels, and with their numpy twins."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setenv(SWITCH, "numpy")
        else:
            patch.delenv(SWITCH, raising=False)
        yield


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> InProcess:
    """Programs run within the process of the test."""
    return InProcess(capfd)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess) -> Store:
    """A store with four registered biases beside it, their bias and its hotpix; the working directory."""
    store = init_store(tmp_path / "store")
    frames = bias_frames(tmp_path / "raw")
    monkeypatch.chdir(store.root)
    assert run("ingest", "-q", *frames).code == 0
    assert run("bias", "-q", "-o", "bias.fits", *frames).code == 0
    assert run("hotpix", "-q", "-o", "deep/hotpix.fits", "bias.fits").code == 0
    return store


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated night: `raw/` and `truth/`; read only."""
    from awetools.core.simulate.night import simulate_night

    directory = tmp_path_factory.mktemp("simulated") / "night"
    simulate_night(directory, SMALL_NIGHT)
    return directory


@pytest.fixture(scope="session")
def _ingested(night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ingested") / "store"
    init_store(root)
    awe_here("ingest", "-q", night / "raw", cwd=root)
    return root


@pytest.fixture(scope="session")
def _reduced(_ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reduced") / "store"
    shutil.copytree(_ingested, root)
    for kind, source in (
        ("readnoise", "raw_bias"),
        ("bias", "raw_bias"),
        ("gain", "raw_domeflat"),
        ("dark", "raw_dark"),
        ("hotpix", "dark"),
        ("domeflat", "raw_domeflat"),
        ("coldpix", "domeflat"),
        ("flat", "domeflat"),
        ("reduce", "raw_science"),
        ("sources", "reduced"),
        ("twiflat", "raw_twiflat"),
        ("nightflat", "raw_science"),
        ("fringe", "raw_science"),
    ):
        # The frames are so small that objects cover most of some.
        crowded = ("--max-masked-fraction", "1") if kind in ("nightflat", "fringe") else ()
        awe_here(kind, "-q", *crowded, *awe_here("query", source, cwd=root), cwd=root)
    return root


@pytest.fixture(scope="session")
def sky_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated night of a field full of stars, with `reference.fits`; read only."""
    from awetools.core.simulate.night import simulate_night

    directory = tmp_path_factory.mktemp("simulated-sky") / "night"
    simulate_night(directory, SKY_NIGHT)
    return directory


@pytest.fixture(scope="session")
def _sky_sources(sky_night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sky-sources") / "store"
    init_store(root)
    awe_here("ingest", "-q", sky_night / "raw", cwd=root)
    _make_each(
        root,
        ("readnoise", "raw_bias"),
        ("bias", "raw_bias"),
        ("gain", "raw_domeflat"),
        ("hotpix", "bias"),
        ("domeflat", "raw_domeflat"),
        ("coldpix", "domeflat"),
        ("flat", "domeflat"),
        ("reduce", "raw_science"),
        ("sources", "reduced"),
    )
    return root


@pytest.fixture(scope="session")
def _sky(_sky_sources: Path, sky_night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sky") / "store"
    shutil.copytree(_sky_sources, root)
    awe_here("refcat", "import", "-q", "truth", sky_night / "reference.fits", cwd=root)
    _make_each(
        root,
        *((kind, "sources") for kind in ("gastrom", "gphot", "sourcelist")),
        ("regrid", "reduced"),
        ("coadd", "reduced"),
    )
    (coadd,) = awe_here("query", "coadd", cwd=root)
    awe_here("diff", "-q", "--reference", coadd, coadd, cwd=root)
    _make_each(
        root,
        # Flagged, for there is none to be found, and so not used.
        ("illumination", "sources"),
    )
    return root


def _make_each(root: Path, *steps: tuple[str, str]) -> None:
    for command, source in steps:
        awe_here(command, "-q", *awe_here("query", source, cwd=root), cwd=root)


@pytest.fixture
def store(_ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own with the raw frames registered and no products; the working directory."""
    return _copy(_ingested, tmp_path, monkeypatch)


@pytest.fixture
def reduced_store(_reduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own with every product of the night; the working directory."""
    return _copy(_reduced, tmp_path, monkeypatch)


@pytest.fixture
def shared_store(_reduced: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store with every product that tests share, which they only read; the working directory."""
    monkeypatch.chdir(_reduced)
    return Store(_reduced.resolve())


@pytest.fixture
def source_store(_sky_sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own with the source lists of a field full of stars; the working directory."""
    return _copy(_sky_sources, tmp_path / "sky", monkeypatch)


@pytest.fixture
def sky_store(_sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own with the field's solutions and their catalogue `truth`, too; the working directory."""
    return _copy(_sky, tmp_path / "sky", monkeypatch)


def _copy(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    root = tmp_path / "store"
    shutil.copytree(source, root, copy_function=shutil.copy2)
    store = Store(root.resolve())
    rebuild(store)
    monkeypatch.chdir(root)
    return store
