"""FITS in and out: against astropy on real files and made ones, round trips, and everything that can be broken."""

from __future__ import annotations

import errno
import gzip
import io
import math
import os
import random
import re
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from awetools.core import fits
from awetools.core.errors import (
    AweError,
    BadHeader,
    BeingWritten,
    NoImage,
    NoSuchExtension,
    NoSuchFile,
    NotFits,
    Truncated,
    Unavailable,
    Unreadable,
)
from awetools.core.fits import Plane, open_fits, write_fits
from awetools.core.fitsheader import Header, format_card, header_from_text, parse_header

from .support import DATA, ROOT, data_path

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def card(text: str) -> bytes:
    return text.ljust(80).encode("latin-1")


def block(*texts: str) -> bytes:
    return b"".join(card(text) for text in (*texts, "END"))


def only(text: str) -> Any:
    header = parse_header(block(text))
    assert len(header.cards) == 1
    return header.cards[0]


def astropy_value(header: astropy_fits.Header, key: str) -> Any:
    value = header[key]
    if isinstance(value, astropy_fits.card.Undefined):
        return None
    return value.rstrip() if isinstance(value, str) else value


def file_of(*hdus: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        astropy_fits.HDUList(list(hdus)).writeto(stream)
    return stream.getvalue()


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def frame(shape: tuple[int, int] = (40, 50), seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(500, shape).astype("u2")


def packed(data: np.ndarray, kind: str = "RICE_1", header: Any = None, **options: Any) -> bytes:
    return file_of(
        astropy_fits.PrimaryHDU(),
        astropy_fits.CompImageHDU(data, header, compression_type=kind, **options),
    )


# Reading headers


@pytest.mark.parametrize(
    ("text", "key", "value", "comment"),
    [
        ("EXPTIME =                 30.5 / seconds", "EXPTIME", 30.5, "seconds"),
        ("NAXIS1  =                 1056", "NAXIS1", 1056, ""),
        ("SIMPLE  =                    T / yes", "SIMPLE", True, "yes"),
        ("EQUINOX = 2000.0", "EQUINOX", 2000.0, ""),
        ("EXPTIME = 060.00 / from MicroObservatory", "EXPTIME", 60.0, "from MicroObservatory"),
        ("OBJECT  = 'it''s   '           / a / b", "OBJECT", "it's", "a / b"),
        ("OBJECT  = '  M51'", "OBJECT", "  M51", ""),
        ("OBJECT  = ''", "OBJECT", "", ""),
        ("PATH    = 'a/b'/c", "PATH", "a/b", "c"),
        ("CRVAL1  =      1.25D+02", "CRVAL1", 125.0, ""),
        ("CRVAL1  = -1.25e-3", "CRVAL1", -0.00125, ""),
        ("GAIN    = +7", "GAIN", 7, ""),
        ("GAIN    = .5", "GAIN", 0.5, ""),
        ("GAIN    = - 5. E 3 / spaced", "GAIN", -5000.0, "spaced"),
        ("CPLX    = (1.0, -2.0) / pair", "CPLX", "(1.0, -2.0)", "pair"),
        ("NOTHING =                      / undefined", "NOTHING", None, "undefined"),
        ("NOTHING =", "NOTHING", None, ""),
        ("HIERARCH ESO DET CHIP1 ID = 'ccd50' / chip", "ESO DET CHIP1 ID", "ccd50", "chip"),
        ("HIERARCH FPA.FILTER = 'g.00000'", "FPA.FILTER", "g.00000", ""),
        ("HIERARCH ESO TEL X=-3.5/m", "ESO TEL X", -3.5, "m"),
        ("COMMENT  = 'not a value' / x", "COMMENT", " = 'not a value' / x", ""),
        ("HISTORY flat = 3", "HISTORY", "flat = 3", ""),
        ("         a title", "", " a title", ""),
    ],
)
def test_well_formed_card(text: str, key: str, value: Any, comment: str) -> None:
    header = parse_header(block(text))
    assert header.cards == ((key, value, comment, text.ljust(80)),)
    assert type(header[key]) is type(value)
    assert header.problems == ()


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("filter  = 'R'", "FILTER", "R"),
        ("EXPTIME =30", "EXPTIME", 30),
        ("EXPTIME=30", "EXPTIME", 30),
        ("KEY =value/comment", "KEY", "value"),
        ("TEL_FOCUS =              15420 /", "TEL_FOCUS", 15420),
        ("OBJECT  = 'M51", "OBJECT", "M51"),
        ("OBJECT  = 'O'Brien' / name", "OBJECT", "O'Brien"),
        ("OBJECT  = 47 Tuc", "OBJECT", "47 Tuc"),
        ("SEEING  = NaN", "SEEING", None),
        ("SEEING  = -Infinity / x", "SEEING", None),
        ("SEEING  = 1E999", "SEEING", None),
        ("OBSERVER    / nobody", "OBSERVER", None),
        ("TITLE     a frame", "TITLE", "  a frame"),
        ("HIERARCH ESO nothing", "HIERARCH", " ESO nothing"),
        ("OBJECT  = 'Möbius'", "OBJECT", "Möbius"),
        ("OBJECT  = 'a\tb'", "OBJECT", "a\tb"),
        ("CONTINUE  'orphan'", "CONTINUE", "  'orphan'"),
    ],
)
def test_malformed_card_is_kept_and_named(text: str, key: str, value: Any) -> None:
    header = parse_header(block("SIMPLE  =                    T", text))
    assert header[key] == value
    assert type(header[key]) is type(value)
    assert len(header.problems) == 1
    assert header.problems[0].startswith("card 2: ")
    assert text[:6] in header.problems[0]


def test_first_of_a_repeated_keyword_answers_and_all_are_kept() -> None:
    header = parse_header(block("A       = 1", "B       = 2", "A       = 3", "END", "C       = 4"))
    assert dict(header) == {"A": 1, "B": 2}
    assert [entry.value for entry in header.cards] == [1, 2, 3]
    assert header.get("C", "none") == "none"
    assert "b" in header
    assert header["b"] == 2
    with pytest.raises(KeyError):
        header["C"]


def test_continued_text_is_joined() -> None:
    header = parse_header(
        block("LONG    = 'one &' / first", "CONTINUE  'two&'", "CONTINUE  ' three' / last", "AMP     = 'a&'")
    )
    assert header["LONG"] == "one two three"
    assert header.cards[0].comment == "first last"
    assert header["AMP"] == "a&"
    assert header.problems == ()


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_parser(data: bytes) -> None:
    assert len(parse_header(data).cards) <= -(-len(data) // 80)


@given(st.text(alphabet="AB'/=&. 1+-EDTHIRCN", max_size=80))
@settings(max_examples=400, deadline=None)
def test_no_card_breaks_the_parser(text: str) -> None:
    for start in ("", "KEY     = ", "HIERARCH ", "CONTINUE  ", "LONG    = 'x&'".ljust(80) + "CONTINUE"):
        parse_header(card(start + text))


def test_text_with_lines_or_columns() -> None:
    cards = ["SIMPLE  =                    T", "OBJECT  = 'M51'", "", "COMMENT hello"]
    expected = {"SIMPLE": True, "OBJECT": "M51", "COMMENT": "hello"}
    lines = "##### HDU 0\n" + "\r\n".join(cards) + "\nEND\nOBJECT  = 'M52'\n"
    assert dict(header_from_text(lines)) == expected
    columns = "".join(text.ljust(80) for text in cards)
    assert {key: value for key, value in header_from_text(columns).items() if key} == expected


def test_header_of_pairs() -> None:
    header = Header.from_pairs([("exptime", 3.5), ("FILTER", "R  "), ("exptime", 4.0)])
    assert dict(header) == {"EXPTIME": 3.5, "FILTER": "R"}


@pytest.mark.filterwarnings("ignore")
def test_real_header_dumps_read_as_astropy_reads_them() -> None:
    compared = 0
    for path in sorted(data_path("headers").glob("*")):
        if path.suffix not in (".hdr", ".head", ".txt"):
            continue
        for text in re.split(r"(?m)^##### HDU.*\n", path.read_text("latin-1")):
            lines = [line.ljust(80) for line in re.split(r"(?m)^END *$", text)[0].split("\n") if line]
            ours, theirs = header_from_text(text), astropy_fits.Header.fromstring("".join(lines))
            assert len(ours.cards) == len(theirs.cards)
            compared += sum(compare_card(ours, theirs, entry, path.name) for entry in theirs.cards)
    assert compared > 15000


def compare_card(ours: Header, theirs: astropy_fits.Header, entry: Any, where: str) -> bool:
    """Whether astropy can read the card; asserts that we then read the same."""
    key = entry.keyword
    if key in ("", "COMMENT", "HISTORY") or entry.field_specifier:
        return False
    image = str(entry)
    if (image[8:10] != "= " and not image.startswith("HIERARCH")) or "''/" in image:
        return False  # astropy cuts long keywords, and takes a doubled quote before a slash for the end
    expected = astropy_value(theirs, key)
    assert ours[key] == expected, f"{where}: {key}"
    assert type(ours[key]) is type(expected), f"{where}: {key}"
    return True


# Writing cards

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300),
)
KEYS = st.one_of(
    st.text("ABCXYZ0189_-", min_size=1, max_size=8),
    st.lists(st.text("ABCXYZ019.", min_size=1, max_size=6), min_size=2, max_size=4).map(" ".join),
).filter(lambda key: key not in ("END", "CONTINUE", "COMMENT", "HISTORY"))


@given(KEYS, VALUES, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=90))
@settings(max_examples=400, deadline=None)
def test_card_round_trip(key: str, value: Any, comment: str) -> None:
    image = format_card(key, value, comment)
    assert len(image) % 80 == 0
    assert image.isascii()
    header = parse_header(image + card("NEXT    = 1"))
    expected = value.rstrip() if isinstance(value, str) else value
    assert header[key] == expected
    assert type(header[key]) is type(expected)
    assert len(header.cards) == 2
    assert header.problems == ()
    assert comment.strip().startswith(header.cards[0].comment)


@given(KEYS, VALUES)
@settings(max_examples=150, deadline=None)
def test_written_card_is_read_by_astropy(key: str, value: Any) -> None:
    # What astropy reads otherwise than the standard says: keywords with dots, a last '&', quotes inside a text.
    assume("." not in key)
    assume(not isinstance(value, str) or not (value.rstrip().endswith("&") or re.search(r"''|'[ /]", value)))
    theirs = astropy_fits.Header.fromstring(format_card(key, value).decode("ascii"))
    expected = value.rstrip() if isinstance(value, str) else value
    assert astropy_value(theirs, key) == expected


def test_card_forms() -> None:
    assert format_card("EXPTIME", 30, "seconds") == card("EXPTIME =                   30 / seconds")
    assert format_card("filter", "R", "band") == card("FILTER  = 'R       '           / band")
    assert format_card("X", 1e-5) == card("X       =              1.0E-05")
    assert format_card("X", np.float32(0.5)) == card("X       =                  0.5")
    assert format_card("X", np.int16(5)) == format_card("X", 5)
    assert format_card("X", np.bool_(True)) == format_card("X", True)
    assert format_card("X", math.nan) == format_card("X", None)
    assert format_card("OBJECT", "Möbius\n") == card("OBJECT  = 'M?bius? '")
    assert format_card("ESO DET ID", 3) == card("HIERARCH ESO DET ID =                    3")
    assert len(format_card("HISTORY", "x" * 100)) == 160
    assert format_card("COMMENT", "") == card("COMMENT")
    with pytest.raises(ValueError, match="no room"):
        format_card("K" * 70, 1.5)
    with pytest.raises(ValueError, match="keyword"):
        format_card("A=B", 1)


# Reading pixels


def real_files() -> Iterator[Path]:
    for path in sorted(DATA.rglob("*")):
        if re.search(r"\.(fits|fit|cat)(\.gz|\.fz)?$", path.name, re.IGNORECASE):
            yield path


@pytest.mark.parametrize(
    "folder",
    ["legacysurvey-cutouts", "microobs-hatp32-20171220", "nickel-20170302", "refcats", "single-frames",
     "stl1001-calib-20170908"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_real_files_read_as_astropy_reads_them(folder: str) -> None:
    root = data_path(folder)
    files = [path for path in real_files() if path.is_relative_to(root)]
    assert files
    for path in files:
        with open_fits(path) as ours, astropy_fits.open(path, uint=True) as theirs:
            assert len(ours.hdus) == len(theirs), path
            assert ours.verify_checksums() == []
            for hdu, other in zip(ours.hdus, theirs, strict=True):
                compare_hdu(ours, hdu, other)


def compare_hdu(ours: fits.FitsFile, hdu: fits.Hdu, other: Any) -> None:
    described_otherwise = {"SIMPLE", "XTENSION", "EXTEND", "BITPIX", "BSCALE", "BZERO"}
    for entry in other.header.cards:
        if entry.keyword not in described_otherwise:
            compare_card(hdu.header, other.header, entry, hdu.where)
    if hdu.is_image:
        expected = other.data[0] if other.data.ndim == 3 else other.data
        pixels = ours.image(hdu.index)
        assert pixels.dtype == expected.dtype.newbyteorder("="), hdu.where
        np.testing.assert_array_equal(pixels, expected, err_msg=hdu.where)
        part = ours.rows(hdu.index, 5, 11, 3, 17)
        np.testing.assert_array_equal(part, expected[5:11, 3:17], err_msg=hdu.where)
    elif hdu.is_table:
        for name, values in ours.table(hdu.index).items():
            np.testing.assert_array_equal(values, table_column(other, name), err_msg=f"{hdu.where} {name}")


def table_column(hdu: Any, name: str) -> np.ndarray:
    values = np.asarray(hdu.data[name])
    if values.dtype.kind == "S":
        values = np.char.decode(values, "latin-1")
    if values.dtype.kind == "U":
        return np.char.strip(values)
    return values


@pytest.mark.parametrize("bitpix", ["u1", "i2", "i4", "i8", "f4", "f8", "u2", "u4", "u8"])
@FEW
@given(data=st.data())
def test_plain_image_of_each_type(tmp_path: Path, bitpix: str, data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))
    dtype = np.dtype(bitpix)
    kind = {"allow_nan": False} if dtype.kind == "f" else {}
    pixels = data.draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **kind)))
    path = put(tmp_path, "a.fits", file_of(astropy_fits.PrimaryHDU(pixels)))
    with open_fits(path) as file:
        assert file.hdus[0].shape == shape
        read = file.image(0)
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, pixels)
        y, x = data.draw(st.integers(0, shape[0])), data.draw(st.integers(0, shape[1]))
        np.testing.assert_array_equal(file.rows(0, y, shape[0], x), pixels[y:, x:])


def test_scaled_and_blank_pixels(tmp_path: Path) -> None:
    def written(dtype: str, **cards: float) -> Path:
        hdu = astropy_fits.PrimaryHDU(np.arange(6).reshape(2, 3).astype(dtype))
        raw = file_of(hdu).replace(
            card("EXTEND  =                    T"), b"".join(format_card(*item) for item in cards.items())
        )
        end = raw.index(b"END   ") + 80
        return put(tmp_path, "a.fits", raw[:end].ljust(2880) + raw[-2880:])

    cases: list[tuple[str, dict[str, float], str, Any]] = [
        ("i2", {"BSCALE": 0.5, "BZERO": 10}, "f4", [[10, 10.5, 11], [11.5, 12, 12.5]]),
        ("u1", {"BSCALE": 2}, "f4", [[0, 2, 4], [6, 8, 10]]),
        ("i4", {"BSCALE": 2}, "f8", [[0, 2, 4], [6, 8, 10]]),
        ("i2", {"BLANK": 4}, "f4", [[0, 1, 2], [3, np.nan, 5]]),
        ("i2", {"BZERO": 32768, "BLANK": 0}, "f4", [[np.nan, 32769, 32770], [32771, 32772, 32773]]),
        ("i2", {"BZERO": 32768.0, "BSCALE": 1.0}, "u2", [[32768, 32769, 32770], [32771, 32772, 32773]]),
        ("f4", {"BLANK": 4}, "f4", [[0, 1, 2], [3, 4, 5]]),
    ]
    for dtype, cards, read_as, expected in cases:
        with open_fits(written(dtype, **cards)) as file:
            pixels = file.image(0)
        assert pixels.dtype == np.dtype(read_as), cards
        np.testing.assert_array_equal(pixels, np.array(expected))
    for key, value in (("BSCALE", 0), ("BZERO", "zero"), ("BLANK", "x")):
        with open_fits(written("i2", **{key: value})) as file, pytest.raises(BadHeader, match=key):
            file.image(0)


def test_window_outside_the_image_is_refused(tmp_path: Path) -> None:
    with open_fits(put(tmp_path, "a.fits", file_of(astropy_fits.PrimaryHDU(frame())))) as file:
        for window in ((0, 41), (-1, 3), (3, 2), (0, 1, 0, 51), (0, 1, 7, 6)):
            with pytest.raises(BadHeader, match="50 x 40"):
                file.rows(0, *window)


def test_third_axis_of_one_counts_as_two_and_a_cube_is_refused(tmp_path: Path) -> None:
    flat = put(tmp_path, "flat.fits", file_of(astropy_fits.PrimaryHDU(frame()[None])))
    with open_fits(flat) as file:
        assert file.hdus[0].shape == (40, 50)
        np.testing.assert_array_equal(file.image(0), frame())
    cube = put(tmp_path, "cube.fits", file_of(astropy_fits.PrimaryHDU(np.zeros((3, 4, 5), "i2"))))
    with open_fits(cube) as file, pytest.raises(NoImage, match="5 x 4 x 3"):
        file.image(0)


def test_units_by_number_and_name(tmp_path: Path) -> None:
    table = astropy_fits.BinTableHDU.from_columns([astropy_fits.Column("a", "E", array=[1.0])], name="CAT")
    data = file_of(astropy_fits.PrimaryHDU(), astropy_fits.ImageHDU(frame(), name="CCD5", ver=3), table)
    with open_fits(put(tmp_path, "a.fits", data)) as file:
        assert [(hdu.index, hdu.name, hdu.version) for hdu in file.hdus] == [
            (0, "", 1),
            (1, "CCD5", 3),
            (2, "CAT", 1),
        ]
        assert [hdu.is_image for hdu in file.hdus] == [False, True, False]
        assert [hdu.is_table for hdu in file.hdus] == [False, False, True]
        np.testing.assert_array_equal(file.image("ccd5"), file.image(1))
        with pytest.raises(NoSuchExtension, match=r"'CCD6'.*CCD5"):
            file.hdu("CCD6")
        with pytest.raises(NoSuchExtension, match="0 to 2"):
            file.image(3)
        with pytest.raises(NoImage, match="header without data; images are HDU 1"):
            file.image(0)
        with pytest.raises(NoImage, match="a table"):
            file.image(2)
        with pytest.raises(NoImage, match="not a binary table"):
            file.table(1)


# Packed files


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"])
@pytest.mark.parametrize("spool", [False, True])
def test_each_tile_compression(
    tmp_path: Path, kind: str, spool: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "UNPACKED_AT_ONCE_BYTES", 0)
    monkeypatch.setattr(fits, "STRIP_BYTES", 2000)
    pixels = frame((44, 50)).astype("i4" if kind == "PLIO_1" else "i2")
    for tile in ((10, 20), (44, 50), (1, 50)):
        if kind == "HCOMPRESS_1" and tile[0] == 1:
            continue
        path = put(tmp_path, "a.fits.fz", packed(pixels, kind, tile_shape=tile))
        with open_fits(path, spool=spool) as file:
            assert file.hdus[1].compressed
            assert file.hdus[1].header["BITPIX"] == 8 * pixels.itemsize
            assert file.hdus[1].shape == (44, 50)
            np.testing.assert_array_equal(file.rows(1, 7, 31), pixels[7:31])
            np.testing.assert_array_equal(file.image(1), pixels)


def test_quantised_floats_are_those_of_astropy(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).normal(0, 10, (30, 40)).astype("f4")
    pixels[3, 4] = np.nan
    path = put(tmp_path, "a.fits.fz", packed(pixels, quantize_method=1, dither_seed=7))
    with open_fits(path) as file:
        np.testing.assert_array_equal(file.image(1), astropy_fits.getdata(path))


def test_unpacked_header_hides_the_packing(tmp_path: Path) -> None:
    header = astropy_fits.Header([("EXTNAME", "CCD1"), ("ZD", 30.5), ("BLANK", -32768), ("FILTER", "R")])
    with open_fits(put(tmp_path, "a.fz", packed(frame().astype("i2"), header=header))) as file:
        shown, stored = file.hdus[1].header, file.hdus[1].stored_header
    assert [entry.key for entry in shown.cards[:5]] == ["XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2"]
    assert (shown["XTENSION"], shown["BITPIX"], shown["NAXIS1"], shown["NAXIS2"]) == ("IMAGE", 16, 50, 40)
    assert (shown["ZD"], shown["FILTER"], shown["EXTNAME"], shown["BLANK"]) == (30.5, "R", "CCD1", -32768)
    assert not {"ZIMAGE", "ZCMPTYPE", "TFORM1", "TFIELDS", "ZTILE1"} & set(shown)
    assert stored["XTENSION"] == "BINTABLE"


@pytest.mark.parametrize("spool", [False, True])
def test_gzip_is_known_by_its_bytes(tmp_path: Path, spool: bool) -> None:
    plain = file_of(astropy_fits.PrimaryHDU(frame()))
    several = gzip.compress(plain[:3000]) + gzip.compress(plain[3000:]) + b"\0" * 700
    for name, data in (("a.fits", gzip.compress(plain)), ("b.gz", several), ("c.fits.gz", plain)):
        path = put(tmp_path, name, data)
        with open_fits(path, spool=spool) as file:
            np.testing.assert_array_equal(file.image(0), frame())
            assert file.stat.st_size == len(data)
    packed_twice = put(tmp_path, "d.fz.gz", gzip.compress(packed(frame().astype("i2"))))
    with open_fits(packed_twice, spool=spool) as file:
        np.testing.assert_array_equal(file.image(1), frame())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    data = gzip.compress(packed(frame().astype("i2")))
    good, bad = put(tmp_path, "a.gz", data), put(tmp_path, "b.gz", data[:-100])
    before = len(os.listdir("/proc/self/fd"))
    with open_fits(good, spool=True) as file:
        file.image(1)
    file.close()
    with pytest.raises(Truncated):
        open_fits(bad, spool=True)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(Unreadable, match="closed"):
        file.image(1)


def test_plain_rows_take_memory_for_themselves_only(tmp_path: Path) -> None:
    path = put(tmp_path, "a.fits", file_of(astropy_fits.PrimaryHDU(np.ones((4000, 1000), "f4"))))
    tracemalloc.start()
    with open_fits(path) as file:
        file.rows(0, 100, 110)
        file.verify_checksums()
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300_000


# Content


def wcs_header() -> astropy_fits.Header:
    return astropy_fits.Header(
        [("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 12.5), ("CRPIX1", 3), ("A_0_2", 1e-7)]
    )


def content(path: Path, *hdus: int, spool: bool = False) -> str:
    with open_fits(path, spool=spool) as file:
        return file.content(hdus or None)


def test_content_does_not_see_packing_names_or_other_cards(tmp_path: Path) -> None:
    pixels, header = frame(), wcs_header()
    plain = file_of(astropy_fits.PrimaryHDU(pixels, header))
    other = header.copy()
    other["OBJECT"], other["CRPIX1"], other["CRVAL1A"], other["CTYPE2"] = "M51", 3.0, 7.0, "DEC--TAN  "
    as_extension = file_of(astropy_fits.PrimaryHDU(), astropy_fits.ImageHDU(pixels, other, name="CCD1"))
    with_cards = plain.replace(card("EXTEND  =                    T"), format_card("BSCALE", 1.0))
    same = {
        content(put(tmp_path, "plain.fits", plain), 0),
        content(put(tmp_path, "plain.fits", plain)),
        content(put(tmp_path, "gz.fits", gzip.compress(plain)), 0),
        content(put(tmp_path, "gz.fits", gzip.compress(plain)), 0, spool=True),
        content(put(tmp_path, "rice.fz", packed(pixels, header=header)), 1),
        content(put(tmp_path, "rice.fz", packed(pixels, header=header)), 0, 1),
        content(put(tmp_path, "rice.fz", packed(pixels, header=header)), 1, spool=True),
        content(put(tmp_path, "tiles.fz", packed(pixels, "GZIP_2", header, tile_shape=(7, 9))), 1),
        content(put(tmp_path, "extension.fits", as_extension), 1),
        content(put(tmp_path, "cards.fits", with_cards), 0),
    }
    assert len(same) == 1


def test_content_takes_an_absent_scale_for_the_default(tmp_path: Path) -> None:
    absent = file_of(astropy_fits.PrimaryHDU(frame().astype("i2")))
    place = card("EXTEND  =                    T")
    contents = {
        content(put(tmp_path, "a.fits", absent.replace(place, format_card(key, value))))
        for key, value in (("EXTEND", True), ("BSCALE", 1), ("BZERO", 0.0), ("BZERO", 0))
    }
    assert len(contents) == 1


def test_content_sees_pixels_scale_shape_and_coordinates(tmp_path: Path) -> None:
    pixels, header = frame().astype("i2"), wcs_header()
    changed = pixels.copy()
    changed[3, 3] += 1
    moved, bent = header.copy(), header.copy()
    moved["CRVAL1"] = 12.500001
    bent["A_0_2"] = 2e-7
    versions = [
        (pixels, header),
        (changed, header),
        (pixels, moved),
        (pixels, bent),
        (pixels, None),
        (pixels.astype("i4"), header),
        (pixels.astype("u2"), header),
        (pixels.reshape(50, 40), header),
    ]
    contents = {
        content(put(tmp_path, "a.fits", file_of(astropy_fits.PrimaryHDU(data, cards))), 0)
        for data, cards in versions
    }
    assert len(contents) == len(versions)


def test_content_of_an_extension_takes_the_primarys_coordinates_where_it_has_none(tmp_path: Path) -> None:
    def stored(primary: Any, extension: Any) -> Path:
        data = file_of(astropy_fits.PrimaryHDU(header=primary), astropy_fits.ImageHDU(frame(), extension))
        return put(tmp_path, "a.fits", data)

    header, moved = wcs_header(), wcs_header()
    moved["CRVAL1"] = 99.0
    assert (
        content(stored(None, None), 1) != content(stored(header, None), 1) != content(stored(moved, None), 1)
    )
    assert content(stored(header, None), 1) == content(stored(header, None), 0, 1)
    assert content(stored(header, header), 1) == content(stored(moved, header), 1)
    assert content(stored(None, header), 1) == content(stored(header, header), 1)


def test_real_nickel_frames_keep_their_content_when_packed(tmp_path: Path) -> None:
    path = data_path("nickel-20170302/bias/d1001.fits")
    plain = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with astropy_fits.open(path, do_not_scale_image_data=True) as file:
            hdu = astropy_fits.CompImageHDU(file[0].data, file[0].header, compression_type="RICE_1")
            hdu.header["BZERO"], hdu.header["BSCALE"] = 32768, 1
            rice = file_of(astropy_fits.PrimaryHDU(), hdu)
    expected = content(path, 0)
    assert content(put(tmp_path, "a.gz", gzip.compress(plain, 1)), 0) == expected
    assert content(put(tmp_path, "a.fz", rice), 1) == expected


# Tables

COLUMNS = {
    "flag": np.array([True, False, True]),
    "byte": np.array([1, 2, 255], "u1"),
    "short": np.array([-5, 0, 32767], "i2"),
    "ushort": np.array([0, 1, 65535], "u2"),
    "int": np.array([-5, 0, 2**31 - 1], "i4"),
    "uint": np.array([0, 1, 2**32 - 1], "u4"),
    "long": np.array([-5, 0, 2**62], "i8"),
    "ulong": np.array([0, 1, 2**64 - 1], "u8"),
    "sbyte": np.array([-128, 0, 127], "i1"),
    "float": np.array([1.5, -0.0, 1e30], "f4"),
    "double": np.array([1.5, np.pi, 1e300]),
    "name": np.array(["amp A", "", "b"]),
    "pair": np.arange(6.0).reshape(3, 2),
    "cube": np.arange(18, dtype="i2").reshape(3, 2, 3),
    "names": np.array([["a", "bc"], ["", "d"], ["e", "f"]]),
}


def test_table_round_trip_and_as_astropy_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "t.fits"
    units = {"float": "adu", "double": "deg"}
    written = write_fits(
        path, [Plane("CAT", table=COLUMNS, units=units, cards=[("NAMP", 3, "amplifiers")])], []
    )
    with open_fits(path) as file:
        assert [hdu.is_table for hdu in file.hdus] == [False, True]
        read = file.table("CAT")
        assert list(file.table(1, ["double", "flag", "double"])) == ["double", "flag"]
        assert file.hdus[1].header["TUNIT11"] == "deg"
        assert file.hdus[1].header["NAMP"] == 3
        assert file.content() == written.content
        assert file.verify_checksums() == []
        with pytest.raises(BadHeader, match="'doubel' \\(nearest: double\\)"):
            file.table(1, ["doubel"])
    assert list(read) == list(COLUMNS)
    with astropy_fits.open(path, checksum=True, uint=True) as file:
        for name, values in COLUMNS.items():
            assert read[name].dtype == values.dtype or values.dtype.kind == "U", name
            np.testing.assert_array_equal(read[name], values, err_msg=name)
            np.testing.assert_array_equal(table_column(file[1], name), values, err_msg=name)


def test_long_table_is_written_in_strips(tmp_path: Path) -> None:
    count = 400_001
    table = {"a": np.arange(count, dtype="f8"), "b": np.arange(count, dtype="i4"), "c": np.ones(count, "u1")}
    written = write_fits(tmp_path / "t.fits", [Plane("", table=table)], [])
    with open_fits(tmp_path / "t.fits") as file:
        assert file.verify_checksums() == []
        assert file.content() == written.content
        for name, values in file.table(1).items():
            np.testing.assert_array_equal(values, table[name])


def test_tables_without_rows_or_columns(tmp_path: Path) -> None:
    write_fits(tmp_path / "a.fits", [Plane("", table={"x": np.zeros(0), "s": np.zeros(0, "U3")})], [])
    write_fits(tmp_path / "b.fits", [Plane("", table={})], [])
    with open_fits(tmp_path / "a.fits") as file:
        assert {name: len(values) for name, values in file.table(1).items()} == {"x": 0, "s": 0}
    with open_fits(tmp_path / "b.fits") as file:
        assert file.table(1) == {}


def test_scaled_column(tmp_path: Path) -> None:
    plane = Plane("", table={"x": np.array([0, 2], "i2")}, units={"x": "m"}, cards=[("PLACE", 1, "")])
    path = tmp_path / "a.fits"
    write_fits(path, [plane], [])
    scaled = path.read_bytes().replace(format_card("TUNIT1", "m"), format_card("TSCAL1", 0.5))
    with open_fits(put(tmp_path, "b.fits", scaled.replace(card("PLACE   = "), b""))) as file:
        assert file.table(1)["x"].tolist() == [0.0, 1.0]
    shifted = scaled.replace(format_card("PLACE", 1), format_card("TZERO1", 3))
    with open_fits(put(tmp_path, "b.fits", shifted)) as file:
        assert file.table(1)["x"].tolist() == [3.0, 4.0]


def test_odd_columns_and_tables(tmp_path: Path) -> None:
    columns = [
        astropy_fits.Column("number", "I", array=np.array([3, 4])),
        astropy_fits.Column("text", "6A", array=np.array([" a", "b  "])),
    ]
    variable = astropy_fits.Column("variable", "PJ()", array=np.array([[1], [1, 2]], dtype=object))

    def stored(hdu: Any) -> Path:
        return put(tmp_path, "a.fits", file_of(astropy_fits.PrimaryHDU(), hdu))

    with open_fits(stored(astropy_fits.BinTableHDU.from_columns(columns))) as file:
        table = file.table(1)
    assert {name: values.tolist() for name, values in table.items()} == {
        "number": [3, 4],
        "text": ["a", "b"],
    }
    with open_fits(stored(astropy_fits.BinTableHDU.from_columns([*columns, variable]))) as file:
        assert file.table(1, ["number"])["number"].tolist() == [3, 4]
        with pytest.raises(BadHeader, match="type P"):
            file.table(1)
    with (
        open_fits(stored(astropy_fits.TableHDU.from_columns(columns[:1]))) as file,
        pytest.raises(NoImage, match="ASCII table"),
    ):
        file.table(1)


# Writing


def test_product_round_trip_and_checksums(tmp_path: Path) -> None:
    sci = np.random.default_rng(5).normal(1000, 5, (301, 407)).astype("f4")
    planes = [
        Plane("COEFF", table={"amp": np.array(["A", "B"]), "gain": np.array([1.5, 1.6])}),
        Plane("SCI", sci, cards=[("BUNIT", "adu", "unit of the pixels"), ("BITPIX", 8, "not ours to say")]),
        Plane("WEIGHT", 1 / np.abs(sci)),
        Plane("MASK", (sci > 1003).astype("i2")),
        Plane("COUNT", (sci > 999).astype("u2")),
    ]
    cards = [
        ("OBJECT", "M51", "target"),
        ("CTYPE1", "RA---TAN", ""),
        ("CRVAL1", 12.25, ""),
        ("HISTORY", "x", ""),
    ]
    path = tmp_path / "product.fits"
    written = write_fits(path, planes, cards)
    data = path.read_bytes()
    with open_fits(path) as file:
        assert [hdu.name for hdu in file.hdus] == ["SCI", "COEFF", "WEIGHT", "MASK", "COUNT"]
        assert [hdu.bitpix for hdu in file.hdus] == [-32, 8, -32, 16, 16]
        for plane in planes[1:]:
            read = file.image(plane.name)
            assert read.dtype == plane.data.dtype
            np.testing.assert_array_equal(read, plane.data)
        assert file.hdus[0].header["CRVAL1"] == 12.25
        assert file.hdus[0].header["BUNIT"] == "adu"
        assert (file.content(), file.file_sha256()) == (written.content, written.file_sha256)
        assert (written.bytes, written.mtime_ns) == (len(data), file.stat.st_mtime_ns)
        assert file.verify_checksums() == []
        assert file.problems == ()
    with astropy_fits.open(path, checksum=True) as file:
        file.verify("exception")
        np.testing.assert_array_equal(file["SCI"].data, sci)
    write_fits(tmp_path / "again.fits", planes, cards)
    assert (tmp_path / "again.fits").read_bytes() == data
    moved = write_fits(tmp_path / "moved.fits", planes, [*cards[:2], ("CRVAL1", 12.5, "")])
    assert moved.content != written.content
    renamed = write_fits(tmp_path / "renamed.fits", planes, [("OBJECT", "M52", ""), *cards[1:]])
    assert renamed.content == written.content


@FEW
@given(
    st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">f4", ">u2"]),
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=7),
    st.integers(0, 2**32 - 1),
)
def test_any_image_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.frombuffer(rng.bytes(8 * shape[0] * shape[1]), "u1")[: shape[0] * shape[1] * int(dtype[-1])]
    pixels = (
        np.nan_to_num(pixels.view(dtype).reshape(shape))
        if "f" in dtype
        else pixels.view(dtype).reshape(shape)
    )
    path = tmp_path / "a.fits"
    path.unlink(missing_ok=True)
    written = write_fits(path, [Plane("", pixels.T)], [("SEED", seed, "")])
    with open_fits(path) as file:
        np.testing.assert_array_equal(file.image(0), pixels.T)
        assert file.content() == written.content
        assert file.verify_checksums() == []
    with astropy_fits.open(path, checksum=True, uint=True) as file:
        np.testing.assert_array_equal(file[0].data, pixels.T)


def test_any_change_of_a_bit_fails_the_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    write_fits(path, [Plane("SCI", frame().astype("f4"))], [("OBJECT", "M51", "")])
    good = path.read_bytes()
    for place in (2880 + 17, 2880 + 7999, good.index(b"M51")):
        bad = bytearray(good)
        bad[place] ^= 4
        with open_fits(put(tmp_path, "bad.fits", bytes(bad))) as file:
            found = file.verify_checksums()
        assert [problem.split(": ")[1].split()[0] for problem in found] == (
            ["DATASUM", "CHECKSUM"] if place > 2880 else ["CHECKSUM"]
        )
        assert "bad.fits[0]" in found[0]


def test_writing_needs_little_memory(tmp_path: Path) -> None:
    pixels = np.ones((2000, 4000), "f4")
    tracemalloc.start()
    write_fits(tmp_path / "a.fits", [Plane("SCI", pixels)], [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = Plane("SCI", frame())
    taken = put(tmp_path, "taken.fits", b"precious")
    with pytest.raises(BeingWritten, match=re.escape(str(taken))):
        write_fits(taken, [plane], [])
    assert taken.read_bytes() == b"precious"
    with pytest.raises(Unavailable, match="No such file"):
        write_fits(tmp_path / "absent" / "a.fits", [plane], [])
    with pytest.raises(ValueError, match="3 axes"):
        write_fits(tmp_path / "a.fits", [Plane("SCI", np.zeros((2, 2, 2)))], [])
    with pytest.raises(TypeError, match="complex"):
        write_fits(tmp_path / "a.fits", [Plane("SCI", np.zeros((2, 2), complex))], [])
    with pytest.raises(ValueError, match="lengths"):
        write_fits(tmp_path / "a.fits", [Plane("", table={"a": np.zeros(2), "b": np.zeros(3)})], [])
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO):

        def full(*_: object, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(Unavailable, match=os.strerror(code)):
            write_fits(tmp_path / "a.fits", [plane], [])
        monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.fits"]


def test_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Unreadable, match="Permission denied"):
        open_fits(tmp_path / "a.fits")
    with pytest.raises(Unavailable, match="Permission denied"):
        write_fits(tmp_path / "a.fits", [Plane("", frame())], [])


# Bad files


def test_what_is_not_a_fits_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[Path, type[AweError], str]] = [
        (tmp_path / "absent.fits", NoSuchFile, "no such file"),
        (tmp_path, NoSuchFile, "a directory"),
        (tmp_path / "pipe", NoSuchFile, "pipe"),
        (tmp_path / "a\0b", NoSuchFile, "name"),
        (tmp_path / ("x" * 300), Unreadable, "too long"),
        (put(tmp_path, "empty.fits", b""), NotFits, "empty"),
        (put(tmp_path, "empty.gz", gzip.compress(b"")), NotFits, "empty"),
        (put(tmp_path, "text.fits", b"hello, this is text\n"), NotFits, "'hello, this is t'"),
        (put(tmp_path, "text.gz", gzip.compress(b"hello")), NotFits, "'hello'"),
        (put(tmp_path, "a.bz2", b"BZh91AY&SY"), NotFits, "bzip2"),
        (put(tmp_path, "dump.hdr", card("SIMPLE  = T") + b"\n" + card("END")), NotFits, "line ends"),
        (put(tmp_path, "open.fits", card("SIMPLE  = T") * 50), Truncated, "no END card"),
    ]
    for path, error, text in cases:
        with pytest.raises(error) as caught:
            open_fits(path)
        assert text in caught.value.message
        assert str(path)[:100] in caught.value.message


def test_truncation_names_both_lengths(tmp_path: Path) -> None:
    data = file_of(astropy_fits.PrimaryHDU(frame()))
    for end in (2880 + 3999, 2880 + 1, 2880):
        with pytest.raises(Truncated, match=rf"6880 bytes, but it has {end}\b"):
            open_fits(put(tmp_path, "a.fits", data[:end]))
    pressed = gzip.compress(data)
    for end in (len(pressed) - 1, len(pressed) // 2, 12):
        with pytest.raises(Truncated, match="gzip"):
            open_fits(put(tmp_path, "a.gz", pressed[:end]))
    broken = bytearray(pressed)
    broken[-6] ^= 1
    with pytest.raises(Truncated, match="gzip"):
        open_fits(put(tmp_path, "a.gz", bytes(broken)))


def test_file_that_shrinks_while_open(tmp_path: Path) -> None:
    path = put(tmp_path, "a.fits", file_of(astropy_fits.PrimaryHDU(frame())))
    with open_fits(path) as file:
        os.truncate(path, 5000)
        with pytest.raises(Truncated, match="5000"):
            file.image(0)


def test_missing_filling_and_trailing_junk_are_noted_but_read(tmp_path: Path) -> None:
    data = file_of(astropy_fits.PrimaryHDU(frame()))
    for odd, note in (
        (data[:6880], "not filled"),
        (data + b"junk", "4 bytes after"),
        (data + bytes(2880), "2880"),
    ):
        with open_fits(put(tmp_path, "a.fits", odd)) as file:
            np.testing.assert_array_equal(file.image(0), frame())
            assert len(file.problems) == 1
            assert note in file.problems[0]
    with open_fits(put(tmp_path, "b.fits", block("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0"))) as file:
        assert "not filled" in file.problems[0]
        assert not file.hdus[0].is_image


@pytest.mark.parametrize(
    ("cards", "error", "text"),
    [
        (["BITPIX  = 17", "NAXIS   = 0"], BadHeader, "BITPIX is 17"),
        (["BITPIX  = 'x'", "NAXIS   = 0"], BadHeader, "BITPIX is 'x'"),
        (["NAXIS   = 0"], BadHeader, "BITPIX is None"),
        (["BITPIX  = 16"], BadHeader, "no NAXIS"),
        (["BITPIX  = 16", "NAXIS   = -1"], BadHeader, "NAXIS is -1"),
        (["BITPIX  = 16", "NAXIS   = 1000"], BadHeader, "999"),
        (["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 5"], BadHeader, "no NAXIS2"),
        (["BITPIX  = 16", "NAXIS   = 1", "NAXIS1  = 5.5"], BadHeader, "NAXIS1 is 5.5"),
        (
            ["BITPIX  = 16", "NAXIS   = 2", f"NAXIS1  = {10**12}", f"NAXIS2  = {10**12}"],
            BadHeader,
            "any file",
        ),
        (["BITPIX  = 16", "NAXIS   = 2", f"NAXIS1  = {10**60}", f"NAXIS2  = {10**60}"], BadHeader, "1e+60"),
        (["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 100000", "NAXIS2  = 100000"], Truncated, "20000000000"),
    ],
)
def test_headers_that_make_no_sense(
    tmp_path: Path, cards: list[str], error: type[AweError], text: str
) -> None:
    with pytest.raises(error) as caught:
        open_fits(put(tmp_path, "a.fits", block("SIMPLE  = T", *cards).ljust(2880)))
    assert text in caught.value.message
    assert "a.fits[0]" in caught.value.message


def test_packed_image_that_lies_about_its_size(tmp_path: Path) -> None:
    good = packed(frame().astype("i2"))
    lies = [(b"ZNAXIS1 =                   50", b"ZNAXIS1 =            500000000"),
            (b"ZNAXIS2 =                   40", b"ZNAXIS2 =            400000000"),
            (b"ZTILE1  =                   50", b"ZTILE1  =                    0"),
            (b"'RICE_1  '", b"'MAGIC_1 '")]  # fmt: skip
    for truth, lie in lies:
        assert truth in good
        path = put(tmp_path, "a.fz", good.replace(truth, lie))
        with open_fits(path) as file, pytest.raises((BadHeader, Unreadable), match=re.escape("a.fz[1]")):
            file.image(1)


def test_damaged_hcompress_stream_is_refused(tmp_path: Path) -> None:
    good = packed(frame().astype("i2"), "HCOMPRESS_1", tile_shape=(10, 50))
    bad = good.replace(b"\xdd\x99\x00\x00\x00\x0a", b"\xdd\x99\x00\x00\xff\x0a", 1)
    assert bad != good
    with open_fits(put(tmp_path, "a.fz", bad)) as file, pytest.raises(Unreadable, match="tile 1 "):
        file.image(1)


SEEDS = st.tuples(
    st.sampled_from(["plain", "gzip", "rice", "gzip tiles"]), st.integers(0, 2**32 - 1), st.booleans()
)


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("small") / "a.fits"
    table = {"x": np.arange(5.0), "name": np.array(list("abcde")), "pair": np.zeros((5, 2), "u2")}
    planes = [Plane("SCI", frame()), Plane("WEIGHT", frame().astype("f4")), Plane("CAT", table=table)]
    write_fits(path, planes, [("CRVAL1", 1.5, ""), ("LONG", "x" * 100, "")])
    plain = path.read_bytes()
    tiles = packed(frame().astype("i2"), "GZIP_2")
    return {
        "plain": plain,
        "gzip": gzip.compress(plain),
        "rice": packed(frame().astype("i2")),
        "gzip tiles": tiles,
    }


def damaged(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.choice([1, 3, 20])):
        place = rng.randrange(len(data) if rng.random() < 0.4 else min(len(data), 9000))
        changed[place] = rng.choice([rng.randrange(256), *b"9 -.'TF"])
    return bytes(changed)


@given(SEEDS)
@settings(max_examples=400, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_give_a_result_or_a_named_error(
    tmp_path: Path, small_files: dict[str, bytes], case: tuple[str, int, bool]
) -> None:
    kind, seed, spool = case
    path = put(tmp_path, "damaged.fits", damaged(small_files[kind], random.Random(seed)))
    try:
        with open_fits(path, spool=spool) as file:
            use_everything(file)
    except AweError as error:
        assert "damaged.fits" in error.message


def use_everything(file: fits.FitsFile) -> None:
    file.verify_checksums()
    file.file_sha256()
    for hdu in file.hdus:
        for read in (file.image, file.table, lambda index: file.content([index])):
            try:
                read(hdu.index)
            except AweError as error:
                assert "damaged.fits" in error.message


def test_slow_packages_are_not_imported() -> None:
    code = (
        "import sys, awetools.core.fitsheader as header; early = 'numpy._core' in sys.modules;"
        "import awetools.core.fits; print(early, [n for n in ('astropy', 'scipy') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.strip() == "False []"
