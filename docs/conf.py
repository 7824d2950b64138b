"""Settings of the documentation; the reference is written from the declarations at every build."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402

from awetools import __version__  # noqa: E402

generate.write(HERE / "reference")

project = "awetools"
author = "the awetools developers"
copyright = author
version = release = __version__
extensions: list[str] = []
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Small programs that reduce wide-field astronomical images"}
html_show_copyright = False
nitpicky = True
smartquotes = False
