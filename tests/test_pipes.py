"""The programs in a real shell: pipes, GNU parallel, Make, signals, as the manual promises."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from awetools.core.store import Store
from tests.support import ROOT, Ran, awe

BIN = Path(sys.executable).parent


def shell(script: str, cwd: Path, timeout: float = 120) -> Ran:
    """Run a script in bash with the programs on the path."""
    assert (BIN / "awe-bias").exists(), "the programs are not installed: pip install -e ."
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def test_query_into_a_maker(store: Store) -> None:
    ran = shell("awe-query raw_bias night=2024-03-02 detector=sim1 | awe-bias -q -o bias.fits", store.root)
    assert (ran.code, ran.out) == (0, "bias.fits\n"), ran.err
    assert (store.root / "bias.fits.json").exists()


def test_the_whole_chain_as_one_pipe_of_paths(store: Store) -> None:
    script = """
    set -e -o pipefail
    awe-query raw_bias | awe-bias -q | awe-hotpix -q > /dev/null
    awe-query raw_domeflat | awe-domeflat -q | awe-flat -q > /dev/null
    awe-query raw_science | awe-reduce -q -j2 | awe-imstat --json | wc -l
    """
    ran = shell(script, store.root)
    assert (ran.code, ran.out.strip()) == (0, "12"), ran.err


def test_json_lines_pipe_as_paths_do(store: Store) -> None:
    ran = shell("awe-query raw_bias detector=sim1 --json | awe-bias -q -o bias.fits --json", store.root)
    assert ran.code == 0 and '"action": "made"' in ran.out, ran.err


def test_a_failed_query_arrives_as_empty_input(store: Store) -> None:
    ran = shell("awe-query raw_bias night=1999-01-01 | awe-bias -o bias.fits", store.root)
    assert ran.code == 4
    assert "awe-query: no-match" in ran.err and "awe-bias: empty-input" in ran.err
    assert not (store.root / "bias.fits").exists()


def test_a_closed_pipe_ends_quietly(store: Store) -> None:
    ran = shell(
        "set -o pipefail; awe-query raw --get path,meta 2>&1 | true; awe-query raw | head -1", store.root
    )
    assert "Traceback" not in ran.out + ran.err and "Broken" not in ran.out + ran.err
    ran = shell(
        'awe-header $(awe-query raw) > >(exec true) 2>err; echo "${PIPESTATUS[0]}"; cat err', store.root
    )
    assert ran.out.strip() in ("0", "141"), ran.out


def test_gnu_parallel_over_frames(reduced_store: Store) -> None:
    needs("parallel")
    script = """
    set -e
    mkdir red
    bias=$(awe-query bias detector=sim1) flat=$(awe-query flat detector=sim1 filter=R)
    awe-query raw_science detector=sim1 filter=R |
      parallel -j2 awe-reduce -q --bias $bias --flat $flat -o red/{/} {}
    ls red/*.fits | wc -l
    """
    ran = shell(script, reduced_store.root)
    assert (ran.code, ran.out.splitlines()[-1].strip()) == (0, "3"), ran.err


def digests(root: Path) -> dict[str, str]:
    """What every product of a Make-driven night holds, byte by byte."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.fits"))
        if "raw" not in path.relative_to(root).parts
    }


def test_make_reduces_a_night_and_redoes_only_what_an_edit_touches(night: Path, tmp_path: Path) -> None:
    needs("make")
    root = tmp_path / "night"
    (root / "raw").mkdir(parents=True)
    for path in sorted((night / "raw").glob("*_sim1.fits")):
        shutil.copy2(path, root / "raw")
    awe("init", cwd=root)
    awe("ingest", "-q", "raw", cwd=root)
    make = f"make -f {ROOT}/examples/night.mk NIGHT=2024-03-02"

    first = shell(f"{make} -j2", root)
    assert first.code == 0, first.err
    made = digests(root)
    # bias, dark and hot pixels; dome, twilight, cold pixels and flat of two filters; science frames.
    assert len(made) == 3 + 4 * 2 + 6, sorted(made)

    silent = shell(make, root)
    assert "awe-" not in silent.out and "Nothing to be done" in silent.out, silent.out

    time.sleep(0.05)
    bias = sorted((root / "raw").glob("sim_0001_*.fits"))[0]
    bias.touch()
    touched = shell(make, root)
    assert touched.code == 0, touched.err
    assert digests(root) == made
    assert "Nothing to be done" in shell(make, root).out

    flat = sorted((root / "raw").glob("sim_0005_*.fits"))[0]
    data = bytearray(flat.read_bytes())
    data[-2881 - 2000] ^= 64
    flat.write_bytes(bytes(data))
    edited = shell(make, root)
    assert edited.code == 0, edited.err
    changed = {name for name, digest in digests(root).items() if made[name] != digest}
    kinds = {name.split("_")[0].split("/")[0] for name in changed}
    assert kinds == {"domeflat", "coldpix", "flat", "reduced"}
    assert len(changed) == 1 + 1 + 1 + 3, changed
    assert "Nothing to be done" in shell(make, root).out

    data = bytearray(bias.read_bytes())
    data[-2881 - 2000] ^= 64
    bias.write_bytes(bytes(data))
    assert shell(make, root).code == 0
    after = digests(root)
    assert all(made[name] != after[name] for name in made if not name.startswith("hotpix"))
    assert "Nothing to be done" in shell(make, root).out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_under_j_leaves_nothing_half_written(
    reduced_store: Store, number: signal.Signals, code: int
) -> None:
    root = reduced_store.root
    names = awe("query", "raw_science", cwd=root).split() * 40
    links = root / "links"
    links.mkdir()
    for count, name in enumerate(names):
        (links / f"f{count:04d}.fits").symlink_to(name)
    process = subprocess.Popen(
        [BIN / "awe-reduce", "-q", "-j2", "--out-dir", "red", *sorted(links.iterdir())],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code, error.decode()
    assert b"Traceback" not in error
    assert not list((root / "red").glob(".*")), "something half-written was left"
    for sidecar in (root / "red").glob("*.json"):
        assert sidecar.with_suffix("").exists()
    left = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False)
    assert not left.stdout.split(), "a child process was left"


def test_the_three_ways_to_start_a_program_are_one(store: Store) -> None:
    names = "$(awe-query raw_bias detector=sim1)"
    for number, start in enumerate(("awe-bias", "awe bias", "python -m awetools bias")):
        ran = shell(f"{start} -q -o bias{number}.fits {names}", store.root)
        assert (ran.code, ran.out) == (0, f"bias{number}.fits\n"), ran.err
    one, two, three = ((store.root / f"bias{number}.fits").read_bytes() for number in range(3))
    assert one == two == three
    for start in ("awe-bias", "awe bias", "python -m awetools bias"):
        ran = shell(f"{start} --no-such-option", store.root)
        assert ran.code == 2 and "awe-bias: usage" in ran.err
