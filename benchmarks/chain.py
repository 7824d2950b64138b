"""One chip from raw to a list of sources with positions and magnitudes, calibrations at hand: where the time goes.

    chain.py [--runs N]

A simulated detector of 2048 x 4096 pixels with its reference catalogue, all calibrations made before. CPU is that
of whole processes, the least of several runs, each of another exposure: awe-make from the raw frame to its
`sourcelist`; then the programs one by one. `recipe` is what the records say that reading and the recipe took;
the rest is start, choice of inputs, writing, hashes and index. Peers: Gnuastro or ccdproc reduce (one
overscan value, no mask, no weight; ccdproc none either), source-extractor measures, SCAMP solves; nobody
makes their magnitudes. `rms`: the solution at the true stars.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gastrom import NETWORKS, ONE_THREAD, PARAMETERS, SCAMP
from measure import BIN, Cost, Table, cost, night, package, program, raw_frames, versions
from reduce import NIGHT, calibrated, gnuastro, run

from awetools.core.fits import open_fits
from awetools.core.fitsheader import header_from_text, wcs_cards
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.wcs import Wcs

GOAL_S, FAINTEST_MAG, EDGE_PX = 3.0, 21.0, 20
KINDS = {
    "reduced": "reduce",
    "sources": "sources",
    "astrom": "astrom",
    "zeropoint": "zeropoint",
    "sourcelist": "sourcelist",
}

CCDPROC = """
import sys
import ccdproc
from astropy.nddata import CCDData
raw, bias, flat, out = sys.argv[1:]
bias, flat = (CCDData.read(one, unit="adu", hdu=0) for one in (bias, flat))
frame = CCDData.read(raw, unit="adu")
frame = ccdproc.subtract_overscan(frame, fits_section="[1:32,:]", median=True)
frame = ccdproc.trim_image(frame, fits_section="[33:2080,:]")
frame = ccdproc.flat_correct(ccdproc.subtract_bias(frame, bias), flat)
frame.data = frame.data.astype("f4")
frame.to_hdu(as_image_hdu=False)[0].writeto(out, overwrite=True)
"""


class Least:
    """The least CPU of several runs, by name."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}

    def add(self, name: str, took: Cost) -> None:
        """Keep it if it is the least."""
        known = self.costs.get(name)
        self.costs[name] = took if known is None or took.cpu_s < known.cpu_s else known

    def total(self, names: list[str]) -> Cost:
        """The sum, and the largest memory."""
        found = [self.costs[name] for name in names]
        return Cost(
            sum(one.wall_s for one in found),
            sum(one.cpu_s for one in found),
            max(one.peak_mb for one in found),
        )


def prepared(store: Path, directory: Path) -> None:
    """A store with all calibrations and the reference catalogue."""
    calibrated(store, directory)
    run(["awe-refcat", "import", "reference", directory / "reference.fits"], store)


def told(path: Path, *names: str) -> float:
    """A number of the record of a product."""
    found = json.loads(path.with_name(f"{path.name}.json").read_text())
    for name in names:
        found = found[name]
    return float(found)


# Ours


def made_at_once(store: Path, raw: Path) -> Cost:
    """awe-make, from the raw frame to the list."""
    return cost([BIN / "awe-make", "-q", "sourcelist", raw], store, environment=ONE_THREAD)


def one_by_one(store: Path, raw: Path, least: Least) -> dict[str, Path]:
    """Each program by itself; the products."""
    products: dict[str, Path] = {}
    for kind, name in KINDS.items():
        given = {"reduced": raw, "sources": products.get("reduced")}.get(kind, products.get("sources"))
        out = store / "chain" / raw.stem / kind
        command = [BIN / f"awe-{name}", "-q", "--out-dir", out, str(given)]
        least.add(kind, cost(command, store, environment=ONE_THREAD))
        products[kind] = next(out.glob("*.fits"))
    return products


# Peers


def reference_ldac(directory: Path, out: Path) -> None:
    """The reference catalogue as SCAMP takes it."""
    from astropy.io import fits

    rows = fits.getdata(directory / "reference.fits")
    card = np.zeros(1, dtype=[("Field Header Card", "S80", (36,))])
    for i, text in enumerate(
        (
            "SIMPLE  =                    T",
            "BITPIX  =                    8",
            "NAXIS   =                    0",
            "END",
        )
    ):
        card["Field Header Card"][0][i] = text.ljust(80).encode()
    head = fits.BinTableHDU(card, name="LDAC_IMHEAD")
    head.header["TDIM1"] = "(80, 36)"
    degrees = rows["RA_ERROR"] / 3.6e6
    columns = {"X_WORLD": rows["RA"], "Y_WORLD": rows["DEC"], "ERRA_WORLD": degrees, "ERRB_WORLD": degrees}
    columns |= {
        "ERRTHETA_WORLD": 0 * degrees,
        "MAG": rows["MAG_R"],
        "MAGERR": rows["MAGERR_R"],
        "OBSDATE": rows["REF_EPOCH"],
    }
    objects = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, "1D" if name[1] == "_" or name == "OBSDATE" else "1E", array=one)
            for name, one in columns.items()
        ],
        name="LDAC_OBJECTS",
    )
    fits.HDUList([fits.PrimaryHDU(), head, objects]).writeto(out)


def extractor(work: Path, gain: str) -> list[str]:
    """The command that measures reduced.fits."""
    (work / "sex.param").write_text("\n".join(PARAMETERS.split()) + "\n")
    (work / "sex.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    (work / "sex.conf").write_text("")
    network = next((one for one in NETWORKS if Path(one).exists()), "default.nnw")
    words = f"-c sex.conf -CATALOG_TYPE FITS_LDAC -GAIN {gain} -SATUR_LEVEL 50000 -PIXEL_SCALE 0.25 -SEEING_FWHM 0.9 "
    words += "-DETECT_MINAREA 5 -DETECT_THRESH 1.5 -ANALYSIS_THRESH 1.5 -BACK_SIZE 64 -VERBOSE_TYPE QUIET "
    words += f"-PARAMETERS_NAME sex.param -FILTER_NAME sex.conv -STARNNW_NAME {network} -NTHREADS 1 "
    words += "-CATALOG_NAME list.cat"
    return [str(program("source-extractor", "sex")), "reduced.fits", *words.split()]


def peer_steps(work: Path, raw: Path, store: Path, directory: Path) -> dict[str, Callable[[], Cost]]:
    """What the peers do, by name, in the order in which it is done."""
    bias, flat = (Path(run(["awe-query", kind], store).split()[0]) for kind in ("bias", "flat"))
    gain = next(one for one in raw_frames(directory, "OBJECT") if one["path"] == raw)["effective_gain_e_adu"]
    steps: dict[str, list[str]] = {}
    script = gnuastro(raw, bias, flat)
    if script:
        steps["Gnuastro"] = script
    if package("ccdproc"):
        steps["ccdproc"] = [sys.executable, "-c", CCDPROC, *map(str, (raw, bias, flat, "reduced.fits"))]
    if program("source-extractor", "sex"):
        steps["source-extractor"] = extractor(work, gain)
    if program("scamp"):
        words = ["-ASTREFCAT_NAME", "reference.cat", "-ASTRINSTRU_KEY", "FILTER,DETECTOR"]
        steps["SCAMP"] = [str(program("scamp")), "list.cat", *SCAMP, *words]
    return {
        name: lambda command=command: cost(command, work, environment=ONE_THREAD)
        for name, command in steps.items()
    }  # type: ignore[misc]


# How true


def rms_mas(wcs: Wcs, directory: Path, raw: Path) -> float:
    """The rms distance of a solution from the truth at the stars of a frame, milliarcseconds."""
    from awetools.core.sky.sphere import separation_arcsec

    true = head_wcs(directory / "truth" / "wcs" / f"{raw.stem}.head")
    with open_fits(directory / "truth" / "catalog.fits") as fits:
        rows = fits.table(1)
    bright = (np.char.strip(np.asarray(rows["TYPE"], str)) == "STAR") & (rows["MAG_R"] < FAINTEST_MAG)
    x, y = true.to_pixel(rows["RA"][bright], rows["DEC"][bright])
    ok = (x > EDGE_PX) & (y > EDGE_PX) & (x < 2048 - EDGE_PX) & (y < 4096 - EDGE_PX)
    away = separation_arcsec(*wcs.to_sky(x[ok], y[ok]), *true.to_sky(x[ok], y[ok]))
    return 1e3 * float(np.sqrt(np.mean(np.square(away))))


def head_wcs(path: Path) -> Wcs:
    """The coordinates of a .head file."""
    lines = [
        one
        for one in path.read_text(errors="replace").splitlines()
        if not one.startswith(("HISTORY", "COMMENT"))
    ]
    return read_wcs(wcs_cards(header_from_text("\n".join(lines))))


def product_wcs(path: Path) -> Wcs:
    """The coordinates of a product."""
    return read_wcs(json.loads(path.with_name(f"{path.name}.json").read_text())["meta"]["wcs"])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each, the least CPU counts; 4 at most")
    runs = min(parser.parse_args().runs, 4)
    print("\n".join(versions(["astarithmetic", "source-extractor", "scamp"], ["ccdproc"])))
    directory = night(*NIGHT)
    frames = [one["path"] for one in raw_frames(directory, "OBJECT")]
    with tempfile.TemporaryDirectory() as work:
        report(Path(work), directory, frames, runs)


def report(work: Path, directory: Path, frames: list[Path], runs: int) -> None:
    """Ours and the peers', in turns."""
    store, peers = work / "store", work / "peers"
    peers.mkdir()
    prepared(store, directory)
    if package("astropy"):
        reference_ldac(directory, peers / "reference.cat")
    least, recipes = Least(), dict.fromkeys(KINDS, float("inf"))
    rms: dict[str, float] = {}
    names: list[str] = []
    for i in range(runs):
        least.add("awe-make", made_at_once(store, frames[i]))
        products = one_by_one(store, frames[-1 - i], least)
        for kind, path in products.items():
            recipes[kind] = min(recipes[kind], told(path, "run", "cpu_s"))
        rms["awetools"] = rms_mas(product_wcs(products["astrom"]), directory, frames[-1 - i])
        steps = peer_steps(peers, frames[-1 - i], store, directory)
        names = list(steps)
        for name, step in steps.items():
            least.add(name, step())
        if "SCAMP" in steps:
            rms["SCAMP"] = rms_mas(head_wcs(peers / "list.head"), directory, frames[-1 - i])
    tables(least, recipes, names, rms)


def tables(least: Least, recipes: dict[str, float], peers: list[str], rms: dict[str, float]) -> None:
    """Ours, then the peers."""
    table = Table("recipe s", "rms mas", name_width=44)
    least_of = least.costs
    table.row(f"awe-make sourcelist (goal {GOAL_S:g} s)", least_of["awe-make"], None, rms["awetools"])
    for kind, name in KINDS.items():
        table.row(f"  awe-{name}", least_of[kind], recipes[kind])
    table.row("  the five programs", least.total(list(KINDS)), sum(recipes.values()))
    for name in peers:
        table.row(f"  {name}", least_of[name], None, rms.get(name))
    for first in ("Gnuastro", "ccdproc"):
        chain = [first, "source-extractor", "SCAMP"]
        if set(chain) <= set(peers):
            table.row(f"{' + '.join(chain)}", least.total(chain))
    for name in ("Gnuastro", "ccdproc", "source-extractor", "SCAMP"):
        if name not in peers:
            table.missing(name, name)


if __name__ == "__main__":
    main()
