"""The C kernels: all listed, built where there is a compiler, switched off by the environment, missed aloud."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

from awetools.core.pixels import kernels

FOLDER = Path(kernels.__file__).parent


def test_every_source_is_listed() -> None:
    assert sorted(kernels.KERNELS) == sorted(path.stem[1:] for path in FOLDER.glob("_*.c"))


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_a_kernel_is_built_where_there_is_a_compiler(name: str) -> None:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    assert importlib.import_module(f"awetools.core.pixels._{name}")
    assert name not in kernels.not_built()


def test_the_environment_switches_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.SWITCH, "numpy")
    assert kernels.kernel(kernels.KERNELS[0]) is None


def test_a_kernel_that_was_not_built_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "KERNELS", ("weight", "nowhere"))
    assert kernels.not_built() == ["nowhere"]
    assert kernels.kernel("nowhere") is None
