"""`awe-refcat`: catalogues in stores and elsewhere, from tables to cones, and what bad input is told."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from awetools.core import files
from awetools.core.catalogues import refshards
from awetools.core.sky.refcat import open_catalogue
from awetools.core.store import Store, init_store
from tests.support import DATA, InProcess, data_path, program

TABLE = """ra,dec,Gmag,pmra,pmdec,e_pmra
10.0,20.0,12.5,1000,0,1
10.001,20.0,17,,,
10.5,20.0,14,0,0,1
359.9,-89.5,9,0,0,1
"""
DEAD_PID = 4_000_000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = init_store(tmp_path / "store")
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


UNITS = ("--unit", "pm_ra_mas_yr=mas/yr", "--unit", "pm_dec_mas_yr=mas/yr")
MOTION = (*UNITS, "--unit", "pm_ra_error_mas_yr=mas/yr")


@pytest.fixture
def gaia(store: Store, table: Path, run: InProcess) -> Path:
    assert run("refcat", "import", "gaia", table, "--epoch", "2000", *MOTION).code == 0
    return store.refcats_path / "gaia"


def test_import_says_where_and_what(store: Store, table: Path, run: InProcess) -> None:
    ran = run("refcat", "import", "mine", table, *MOTION, "-v")
    assert ran.code == 0 and ran.lines == [str(store.root / ".awe/refcats/mine")]
    for text in ("4 rows, CSV", "no epoch", "no errors of the positions", "mag_G = Gmag [mag]", "4 stars, G"):
        assert text in ran.err
    assert len(run("refcat", "import", "again", table, "-q").err) == 0


def test_names_come_from_standard_input(store: Store, table: Path) -> None:
    ran = program("refcat", "import", "mine", "--json", "-0", stdin=f"{table}\0", cwd=store.root)
    about = json.loads(ran.out)
    assert about["rows"] == 4 and open_catalogue(about["path"]).content == about["content"]
    ran = program("refcat", "import", "other", stdin="", cwd=store.root)
    assert ran.code == 4 and "empty-input" in ran.err


def test_a_dry_run_says_what_is_taken_for_what(store: Store, table: Path, run: InProcess) -> None:
    ran = run("refcat", "import", "mine", table, "-n", *UNITS)
    rows = {line.split("\t")[1]: line.split("\t")[2:] for line in ran.lines[1:]}
    assert rows["ra_deg"] == ["ra", "deg"] and rows["pm_ra_mas_yr"] == ["pmra", "mas/yr"]
    assert "e_pmra: its unit is not told" in ran.err and not store.refcats_path.exists()


def test_rows_that_cannot_be_are_refused_or_named(store: Store, tmp_path: Path, run: InProcess) -> None:
    (tmp_path / "t.csv").write_text("ra,dec\n1,2\n400,0\n,3\n")
    ran = run("refcat", "import", "mine", tmp_path / "t.csv")
    assert ran.code == 4 and "row 2: RA 400" in ran.err and "--skip-bad" in ran.err
    ran = run("refcat", "import", "mine", tmp_path / "t.csv", "--skip-bad", "-q")
    assert ran.code == 0 and "warning: t.csv: left out 2 rows" in ran.err and "row 3: no position" in ran.err


def test_columns_and_units_are_named_by_the_user(store: Store, tmp_path: Path, run: InProcess) -> None:
    (tmp_path / "t.csv").write_text("alpha0,delta0,v\n1.5,2,-7\n2.5,3,13\n")
    given = ("--column", "ra_deg=alpha0", "--column", "dec_deg=delta0", "--column", "mag_V=v")
    assert run("refcat", "import", "mine", tmp_path / "t.csv").code == 4
    made = run(
        "refcat", "import", "mine", tmp_path / "t.csv", *given, "--unit", "ra_deg=hour", "--missing=-7"
    )
    assert made.code == 0
    ran = run("refcat", "cone", "mine", "22.5,2,20", "--json", "--get", "ra_deg,mag_V")
    assert sorted((json.loads(line) for line in ran.lines), key=lambda row: row["ra_deg"]) == [
        {"ra_deg": 22.5, "mag_V": None},
        {"ra_deg": 37.5, "mag_V": 13.0},
    ]


@pytest.mark.parametrize("cone", ["10,20,0.01", "0:40:00,+20:00:00,36arcsec", "-350,20,0.6arcmin"])
def test_a_cone_in_any_writing(gaia: Path, run: InProcess, cone: str) -> None:
    ran = run("refcat", "cone", "--get", "ra_deg,mag_G", "gaia", "--", cone)
    assert ran.lines[0] == "ra_deg\tmag_G" and sorted(ran.lines[1:]) == ["10.0\t12.5", "10.001\t17.0"]


def test_an_epoch_moves_the_stars(gaia: Path, run: InProcess) -> None:
    ran = run("refcat", "cone", "gaia", "10,20,0.02", "--epoch", "2010", "--json")
    moved, still = sorted((json.loads(line) for line in ran.lines), key=lambda row: -row["epoch_yr"])
    assert moved["epoch_yr"] == 2010 and still["epoch_yr"] == 2000
    away = (moved["ra_deg"] - 10) * np.cos(np.radians(20)) * 3600
    assert away == pytest.approx(10, rel=1e-6)
    assert "1 of its 4 stars have no epoch or no proper motion" in ran.err


def test_only_bright_stars(gaia: Path, run: InProcess) -> None:
    ran = run("refcat", "cone", "gaia", "10,20,1", "--faintest", "G=14", "--get", "mag_G")
    assert ran.lines[0] == "mag_G" and sorted(ran.lines[1:]) == ["12.5", "14.0"]
    ran = run("refcat", "cone", "gaia", "10,20,1", "--faintest", "G=3")
    assert ran.code == 5 and "G <= 3" in ran.err and ran.out == ""


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "vot", "fits"])
def test_forms_hold_the_same_stars(gaia: Path, tmp_path: Path, run: InProcess, ending: str) -> None:
    from astropy.table import Table

    path = tmp_path / f"out.{ending}"
    assert run("refcat", "cone", "gaia", "10,20,1", "-o", path).lines == [str(path)]
    if ending == "json":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert sorted(row["mag_G"] for row in rows) == [12.5, 14.0, 17.0]
        return
    form = {"csv": "ascii.csv", "tsv": "ascii.tab", "vot": "votable", "fits": "fits"}[ending]
    found = Table.read(path, format=form)
    assert sorted(found["mag_G"]) == [12.5, 14.0, 17.0]
    assert found.colnames == list(open_catalogue(gaia).columns)
    if ending in ("vot", "fits"):
        assert (
            str(found["pm_ra_mas_yr"].unit) in ("mas / yr", "mas yr-1") and found["flags"].dtype.kind == "i"
        )


def test_what_a_cone_writes_is_imported_again(gaia: Path, tmp_path: Path, run: InProcess) -> None:
    run("refcat", "cone", "gaia", "10,20,180", "-o", tmp_path / "all.fits")
    assert run("refcat", "import", "again", tmp_path / "all.fits").code == 0
    one, two = (run("refcat", "cone", name, "10,20,180").out for name in ("gaia", "again"))
    assert one == two and len(one.splitlines()) == 5


def test_show_and_list(gaia: Path, run: InProcess) -> None:
    shown = dict(line.split("\t", 1) for line in run("refcat", "show", "gaia").lines)
    assert shown["rows"] == "4" and shown["source column mag_G"] == "Gmag [mag]"
    assert json.loads(run("refcat", "show", "gaia", "--json").out)["bands"] == ["G"]
    (about,) = [json.loads(line) for line in run("refcat", "list", "--json").lines]
    assert (about["name"], about["rows"], about["in_force"]) == ("gaia", 4, True)
    (gaia / "catalogue.json").write_text("{")
    ran = run("refcat", "list")
    assert ran.code == 4 and "unreadable" in ran.err


def test_the_nearest_store_counts_and_the_first_is_written(
    gaia: Path, table: Path, tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = init_store(tmp_path / "near"), gaia.parent.parent.parent
    monkeypatch.setenv("AWE_PATH", f"{near.root}:{far}")
    assert run("refcat", "cone", "gaia", "10,20,1", "--get", "flags").code == 0
    ran = run("refcat", "remove", "gaia")
    assert ran.code == 2 and f"AWE_PATH={far}" in ran.err and gaia.is_dir()
    ran = run("refcat", "import", "gaia", table)
    assert ran.lines == [str(near.refcats_path / "gaia")] and f"comes before {gaia}" in ran.err
    rows = [json.loads(line) for line in run("refcat", "list", "--json").lines]
    assert [(row["path"], row["in_force"]) for row in rows] == [
        (str(near.refcats_path / "gaia"), True),
        (str(gaia), False),
    ]
    ran = run("refcat", "remove", "gaia")
    assert ran.code == 0 and f"is now {gaia}" in ran.err and not list(near.refcats_path.iterdir())


def test_a_directory_of_ones_own(tmp_path: Path, table: Path, run: InProcess) -> None:
    own = tmp_path / "own"
    assert run("refcat", "--dir", own, "import", "a", table).lines == [str(own / "a")]
    (own / "something").mkdir()
    assert [json.loads(line)["name"] for line in run("refcat", "list", "--json", "--dir", own).lines] == ["a"]
    assert run("refcat", "remove", "something", "--dir", own).code == 4 and (own / "something").is_dir()
    assert run("refcat", "remove", "a", "--dir", own, "-n").code == 0 and (own / "a").is_dir()
    assert run("refcat", "remove", "a", "--dir", own).code == 0 and not (own / "a").exists()


def test_verify_finds_what_was_edited_or_is_gone(gaia: Path, run: InProcess) -> None:
    assert run("refcat", "verify").code == 0
    (shard,) = gaia.glob("*.fits")
    whole = shard.read_bytes()
    at = whole.rindex(np.array(12.5, ">f4").tobytes())
    shard.write_bytes(whole[:at] + b"\x41\x20" + whole[at + 2 :])
    ran = run("refcat", "verify", "gaia")
    assert ran.code == 8 and ran.lines[0].split("\t")[:2] == [str(gaia), "edited"]
    shard.unlink()
    ran = run("refcat", "verify", "--json")
    assert ran.code == 4 and json.loads(ran.lines[0])["problem"] == "no-such-file"
    assert run("refcat", "cone", "gaia", "10,20,1").code == 4


BAD = [
    (("import",), 2, "import what"),
    (("import", "../x", "t"), 2, "is no name of a catalogue"),
    (("import", "x", "nowhere.csv"), 4, "no such file"),
    (("import", "x", "t", "--column", "ra_deg"), 2, "OURS=THEIRS"),
    (("import", "x", "t", "--cone", "1,2,3"), 2, "--fetch"),
    (("import", "x", "--fetch", "http://localhost/"), 2, "say the cone"),
    (("import", "x", "--fetch", "localhost", "--cone", "1,2,3"), 2, "is not the address"),
    (("import", "x", "t", "--faintest", "G=3"), 2, "--faintest goes with cone"),
    (("list", "x"), 2, "awe-refcat show x"),
    (("show", "gaio"), 4, "nearest: gaia"),
    (("cone", "gaia"), 2, "one place"),
    (("cone", "gaia", "1,2"), 2, "is not RA,DEC,RADIUS"),
    (("cone", "gaia", "1,95,1"), 2, "dec must be"),
    (("cone", "gaia", "370,20,1"), 2, "ra must be"),
    (("cone", "gaia", "1,2,nan"), 2, "is no radius"),
    (("cone", "gaia", "1,2,3", "--faintest", "Q=3"), 2, "it has G"),
    (("cone", "gaia", "10,20,3", "--get", "mag_Q"), 2, "no column 'mag_Q'"),
    (("cone", "gaia", "10,20,3", "--get", "flags,flags"), 2, "two columns"),
    (("cone", "gaia", "1,2,3", "--faintest", "G=x"), 2, "no magnitude"),
    (("remove",), 2, "remove what"),
]


@pytest.mark.parametrize(("words", "code", "text"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input(gaia: Path, run: InProcess, words: tuple[str, ...], code: int, text: str) -> None:
    ran = run("refcat", *words)
    assert (ran.code, ran.out) == (code, "") and text in ran.err, ran.err


def test_a_catalogue_is_not_overwritten(gaia: Path, table: Path, run: InProcess) -> None:
    ran = run("refcat", "import", "gaia", table)
    assert ran.code == 2 and "try: awe-refcat remove gaia" in ran.err


def test_an_extension_that_is_not_there(store: Store, table: Path, run: InProcess) -> None:
    for extension in ("1", "STARS"):
        ran = run("refcat", "import", "x", table, "--extension", extension)
        assert ran.code == 4 and "no extension" in ran.err


def test_what_killed_imports_leave_is_named_and_removed(gaia: Path, run: InProcess) -> None:
    left = gaia.parent / f".x.{DEAD_PID}.catalogue"
    left.mkdir()
    (left / "spill").write_bytes(b"stars")
    elsewhere = gaia.parent.parent.parent / f".y.{DEAD_PID}.catalogue"
    elsewhere.mkdir()
    alive = refshards.unfinished(gaia.parent / "z")
    alive.mkdir()
    os.utime(alive, (0, 0))
    with files.held(alive):
        ran = run("verify")
        assert ran.code == 0
        assert sorted(line.split("\t")[:2] for line in ran.lines) == sorted(
            [str(path), "leftover"] for path in (left, elsewhere)
        )
        assert run("verify", "--clean").code == 0
        assert not left.exists() and not elsewhere.exists() and alive.is_dir() and gaia.is_dir()
    assert [json.loads(line)["name"] for line in run("refcat", "list", "--json").lines] == ["gaia"]


# Every table of the real data; those left out are not tables of positions.

TABLES = sorted(
    str(path.relative_to(DATA))
    for pattern in ("*.csv", "*.gz", "*landolt.dat", "lco-gaia-pair/*.gz")
    for path in (DATA / "refcats").glob(pattern)
    if not path.name.startswith("iraf-f")
)


@pytest.mark.parametrize("name", TABLES or ["refcats"])
def test_real_catalogues(store: Store, run: InProcess, name: str) -> None:
    path = data_path(name)
    ran = run("refcat", "import", "real", path, *(["--equinox", "2000"] if "landolt" in name else []))
    assert ran.code == 0, ran.err
    about = json.loads(run("refcat", "list", "--json").out)
    assert len(run("refcat", "cone", "real", "0,0,180").lines) == about["rows"] + 1 > 60
    assert run("refcat", "verify").code == 0


# Fetching


def test_fetching_needs_pyvo(store: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyvo.dal", None)
    monkeypatch.setitem(__import__("sys").modules, "pyvo", None)
    ran = run("refcat", "import", "x", "--fetch", "http://localhost/scs", "--cone", "1,2,3")
    assert ran.code == 7 and "awetools[vo]" in ran.err


OK = '<INFO name="QUERY_STATUS" value="OK"/>'
CUT = '<INFO name="QUERY_STATUS" value="OVERFLOW"/>'
ANSWER = """<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results">{}<TABLE><FIELD name="ra" ucd="POS_EQ_RA_MAIN" datatype="double" unit="deg"/>
<FIELD name="dec" ucd="POS_EQ_DEC_MAIN" datatype="double" unit="deg"/><DATA><TABLEDATA>
<TR><TD>10.0</TD><TD>20.0</TD></TR></TABLEDATA></DATA></TABLE>{}</RESOURCE></VOTABLE>"""


class _Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.partition("?")[0]
        body = ANSWER.format(OK, CUT if name == "/cut" else "").encode()
        self.send_response(503 if name == "/down" else 200)
        self.send_header("Content-Type", "application/x-votable+xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"x" * len(body) if name == "/junk" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetching(store: Store, run: InProcess, service: str) -> None:
    pytest.importorskip("pyvo")
    ran = run("refcat", "import", "x", "--fetch", f"{service}/ok", "--cone", "10,20,0.5")
    assert ran.code == 0, ran.err
    (source,) = open_catalogue(ran.lines[0]).header["sources"]
    assert source["origin"] == f"{service}/ok 10.0,20.0,0.5" and source["rows"] == 1
    for name, code, text in (
        ("cut", 4, "only 1 stars"),
        ("down", 7, "503"),
        ("junk", 7, "no table of stars"),
    ):
        ran = run("refcat", "import", name, "--fetch", f"{service}/{name}", "--cone", "10,20,0.5")
        assert ran.code == code and text in ran.err and ran.out == ""
    assert os.listdir(store.refcats_path) == ["x"]
