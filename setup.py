"""The C kernels of the package; all else that a build needs is declared in setup.cfg.

Each kernel is optional: where there is no compiler the package installs without it
and its numpy twin does the same work, slower.
"""

from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("awetools/core/pixels")
KERNELS = sorted(path.stem for path in FOLDER.glob("_*.c"))

# Without fused multiply-add, and without reordering of sums, a kernel gives the bits of its numpy twin.
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=[
        Extension(
            f"awetools.core.pixels.{name}",
            [str(FOLDER / f"{name}.c")],
            depends=sorted(str(one) for one in FOLDER.glob("*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
            extra_compile_args=FLAGS,
            optional=True,
        )
        for name in KERNELS
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
