"""Whatever a person's settings of linear algebra are, programs do it in one thread: the bits are the same."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import click
from awetools.commands.runner import launch

@click.command()
def command():
    import os, numpy as np
    rng = np.random.default_rng(1)
    made = rng.normal(size=(900, 400))
    print(os.environ["OPENBLAS_NUM_THREADS"], (made.T @ made).tobytes().hex()[:400])

launch(command)
"""


def printed(threads: str) -> str:
    variables = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


def test_the_bits_do_not_depend_on_the_threads_that_a_person_sets() -> None:
    one, many = printed("1"), printed("4")
    assert one.startswith("1 ") and len(one) > 400
    assert many == one
