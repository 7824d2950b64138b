"""Digests of a file and of its data units, by both ways, are those of hashlib."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.fitsdigest import digests
from awetools.core.pixels.kernels import SWITCH, kernel

BLOCK_BYTES = 2880
UNITS = st.lists(st.tuples(st.integers(1, 3), st.lists(st.integers(0, 5000), max_size=4)), max_size=3)


@pytest.mark.parametrize("switch", ["", "numpy"])
@given(units=UNITS, seed=st.integers(0, 99))
def test_digests_are_those_of_hashlib(switch: str, units: list[tuple[int, list[int]]], seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, switch)
        digest = digests()
        for blocks, strips in units:
            header = random.bytes(blocks * BLOCK_BYTES)
            digest.header(header)
            data = [random.bytes(length) for length in strips]
            for strip in data:
                digest.data(memoryview(strip))
            unit = b"".join(data)
            filling = bytes(-len(unit) % BLOCK_BYTES)
            assert digest.unit(filling) == hashlib.sha256(unit).hexdigest()
            whole += header + unit + filling
        assert digest.file() == hashlib.sha256(whole).hexdigest()


def test_the_kernel_refuses_what_does_not_fit() -> None:
    module = kernel("sha256")
    if module is None or not module.usable():
        pytest.skip("no kernel, or a processor without its instructions")
    words = np.zeros(8, np.uint32)
    for one, other, data in (
        (words[:7], words, bytes(64)),
        (words, words[:7], bytes(64)),
        (words, words, bytes(63)),
    ):
        with pytest.raises(ValueError):
            module.update(one.copy(), other.copy(), data)
