"""`awe-shell`: scripts and the prompt, errors in few words, what is at hand."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from awetools.core.store import Store
from tests.support import ROOT, Ran, program

SCRIPT = """
q = (Reduced.chip == 'sim1') & (Reduced.filter == 'R')
x = [k.imstat.stdev for k in q]
y = [k.flat.imstat.stdev for k in q]
pylab.scatter(x, y)
pylab.savefig('x.png')
print(len(x), len(y))
"""


def shell(*arguments: object, stdin: str | None = None, cwd: Path | None = None) -> Ran:
    return program("shell", *arguments, stdin=stdin, cwd=cwd, env={"MPLBACKEND": ""})


def test_the_five_lines_from_a_file_standard_input_and_text(reduced_store: Store) -> None:
    Path("five.py").write_text(SCRIPT)
    for arguments, stdin in ((["five.py"], None), ([], SCRIPT), (["-"], SCRIPT), (["-c", SCRIPT], None)):
        ran = shell(*arguments, stdin=stdin)
        assert (ran.code, ran.out) == (0, "3 3\n"), ran.err
        # Without a display it says what to do.
        assert ran.err.splitlines() == [
            "awe-shell: no display: pylab.savefig('plot.png') writes what was drawn"
        ]
        assert Path("x.png").read_bytes().startswith(b"\x89PNG")
        os.remove("x.png")


def test_the_five_lines_of_the_shell(reduced_store: Store) -> None:
    table = program("query", "reduced", "filter=R", "--get", "imstat.stdev,flat.imstat.stdev").out
    ran = program("plot", "--scatter", "-o", "x.svg", stdin=table)
    assert (ran.code, ran.out) == (0, "x.svg\n"), ran.err
    numbers = program("plot", "--scatter", "--numbers", stdin=table).out.splitlines()[1:]
    rows = sorted([float(one) for one in line.split("\t")] for line in table.splitlines()[1:])
    points = [[float(one) for one in line.split("\t")[2:4]] for line in numbers]
    assert len(rows) == 6 and sorted(points) == [pytest.approx(row, rel=1e-6) for row in rows]
    for wrong in (["--what", "mask"], ["a.fits"]):
        assert program("plot", "--scatter", "-o", "y.svg", *wrong, stdin=table).code == 2


def test_a_script_is_run_as_python_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("value = 3\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, mine, __main__ as main\n"
        "print(sys.argv[1:], mine.value, __name__, __file__ == sys.argv[0], main.mine.value)"
    )
    ran = shell(script, "a", "-v", "--help")
    assert (ran.code, ran.out) == (0, "['a', '-v', '--help'] 3 __main__ True 3\n"), ran.err


@pytest.mark.parametrize(
    "text, code, err",
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('no good')", 1, "awe-shell: no good\n"),
        ("raise KeyboardInterrupt", 130, "awe-shell: interrupted\n"),
    ],
)
def test_a_script_chooses_its_exit_code(text: str, code: int, err: str, tmp_path: Path) -> None:
    ran = shell("-c", text, cwd=tmp_path)
    assert (ran.code, ran.err) == (code, err)


def test_the_script_says_its_own_encoding(tmp_path: Path) -> None:
    script = b"# -*- coding: latin-1 -*-\nprint(ord('\xe9'))\n"
    done = subprocess.run(
        [sys.executable, "-m", "awetools", "shell"], input=script, capture_output=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, b"233\n"), done.stderr


def test_an_exception_is_the_traceback_of_the_script_alone(reduced_store: Store) -> None:
    text = "def mine():\n    return [k.imstat.stdv for k in Reduced]\nmine()\n"
    ran = shell(stdin=text)
    assert ran.code == 1 and ran.out == ""
    assert "awetools" not in ran.err and "return [k.imstat.stdv for k in Reduced]" in ran.err
    assert ran.err.splitlines()[-1] == "AttributeError: imstat has no attribute 'stdv' (nearest: stdev)"
    assert shell("-c", "x = (").err.splitlines()[-1].startswith("SyntaxError")
    for failing in ("open('nothing')", "1 / 0", "raise MemoryError", "import nothing"):
        ran = shell("--log-json", "-c", failing)
        assert ran.code == 1
        assert "Traceback" in json.loads(ran.err)["message"]


def test_an_error_of_ours_is_a_message_and_its_code(reduced_store: Store, tmp_path: Path) -> None:
    ran = shell("-c", "\nHotPix.get(chip='sim3')")
    assert ran.code == 5 and len(ran.err.splitlines()) == 2
    assert (
        ran.err.startswith("awe-shell: no-match: <text>, line 2: no frames") and "\ntry: awe-query" in ran.err
    )
    outside = tmp_path / "outside"
    outside.mkdir()
    assert shell("-c", "len(Bias)", cwd=outside).code == 4
    assert shell("nothing.py").code == 4 and shell(stdin="").code == 4


def test_messages_of_making_are_notes(store: Store) -> None:
    text = "print(HotPix.get(chip='sim1').hot_pixels > 0)"
    ran = shell("-c", text)
    assert (ran.code, ran.out) == (0, "True\n"), ran.err
    assert "awe-shell: making " in ran.err and "hotpix" in ran.err
    assert shell("-q", "-c", text) == Ran(0, "True\n", "")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_the_prompt(reduced_store: Store) -> None:
    shown = _session(["len(Reduced)", "Bias.chp", "HotPix.get(chip='sim3')", "Reduced[0].sky_a\t", "\x04"])
    assert "help(Reduced)" in shown and "awe> " in shown
    assert "\n12" in shown
    assert "nearest: chip" in shown and "face/names.py" not in shown and "code.py" not in shown
    assert "awe-shell: no-match: no frames" in shown
    assert "Reduced[0].sky_adu" in shown


def _session(lines: list[str]) -> str:
    """What a terminal shows of a session at Python's own prompt."""
    import pty

    number, terminal = pty.fork()
    if not number:
        os.environ.update(TERM="dumb", PYTHONPATH=str(ROOT))
        os.execv(sys.executable, [sys.executable, "-m", "awetools", "shell", "--plain"])
    shown = ""
    try:
        for line in lines:
            before = shown.count("awe> ")
            shown += _until(terminal, "awe> ")
            assert shown.count("awe> ") > before, shown
            os.write(terminal, line.encode() + (b"" if line == "\x04" else b"\n"))
        shown += _until(terminal, None)
    finally:
        os.close(terminal)
        os.waitpid(number, 0)
    return shown.replace("\r\n", "\n")


def _until(terminal: int, text: str | None) -> str:
    """What comes before a text, or before the end."""
    shown, end = "", time.monotonic() + 60
    while time.monotonic() < end and (text is None or not shown.endswith(text)):
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        shown += data.decode(errors="replace")
    return shown
