"""Sections and amplifiers: text and back, checks that name the values, trimming, placing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import BadHeader
from awetools.core.sections import (
    Amplifier,
    Section,
    amplifier,
    amplifiers_from_meta,
    amplifiers_to_meta,
    detector_shape,
    packed_targets,
    parse_section,
    placed_targets,
    section_text,
    trimmed,
)

SINISTRO = [
    {"amp": "1", "hdu": 1, "data": "[1:4,1:3]", "overscan": "[6:8,1:3]", "target": "[1:4,6:4]"},
    {"amp": "2", "hdu": 2, "data": "[1:4,1:3]", "overscan": "[6:8,1:3]", "target": "[1:4,1:3]"},
    {"amp": "3", "hdu": 3, "data": "[1:4,1:3]", "overscan": "[6:8,1:3]", "target": "[8:5,1:3]"},
    {"amp": "4", "hdu": 4, "data": "[1:4,1:3]", "overscan": None, "target": "[8:5,6:4]"},
]


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("[1:1024,1:512]", Section(0, 1024, 0, 512)),
        ("[1025:2048,3072:2049]", Section(1024, 2048, 2048, 3072, False, True)),
        (" [ 1 : 2148, 1 : 2052 ] ", Section(0, 2148, 0, 2052)),
        ("[7,3:4]", Section(6, 7, 2, 4)),
        ("[*,-*]", Section(0, 100, 0, 50, False, True)),
    ],
)
def test_parse(text: str, section: Section) -> None:
    assert parse_section(text, (100, 50)) == section


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UNKNOWN",
        "[1:2]",
        "[1:2,3:4,5:6]",
        "[0:0,0:0]",
        "[1:2,3:4",
        "[a:b,1:2]",
        "[1:5:2,1:2]",
        "[-3:4,1:2]",
    ]
    + ["[1.5:2,1:2]", "[" + "9" * 500 + ":1,1:1]", None, 5, "[1:2,3:4]; x", "[²:3,1:2]"],
)
def test_malformed_text_is_named(text: object) -> None:
    with pytest.raises(BadHeader) as caught:
        parse_section(text, (100, 50))
    assert len(caught.value.message) < 150


def test_a_star_needs_the_size() -> None:
    with pytest.raises(BadHeader, match="size of the image"):
        parse_section("[*,*]")


sections = st.builds(
    lambda x, w, y, h, fx, fy: Section(x, x + w, y, y + h, fx and w > 1, fy and h > 1),
    *[st.integers(0, 5000), st.integers(1, 5000)] * 2,
    st.booleans(),
    st.booleans(),
)


@given(sections)
def test_text_round_trips(section: Section) -> None:
    assert parse_section(section_text(section)) == section


def test_meta_round_trips_and_gives_the_shape() -> None:
    shapes = dict.fromkeys((1, 2, 3, 4), (5, 9))
    amplifiers = amplifiers_from_meta(SINISTRO, shapes)
    assert amplifiers_to_meta(amplifiers) == SINISTRO
    assert detector_shape(amplifiers) == (6, 8)
    assert amplifiers[2].target.flip_x and not amplifiers[2].target.flip_y


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "[1:5,1:3]"}, r"\[1:5,1:3\] and target \[1:4,6:4\] differ in size"),
        ({"target": "[2:5,6:4]"}, r"overlap in the detector: \[2:5,6:4\] and \[8:5,6:4\]"),
        ({"target": "[1:4,7:5]"}, r"gap in the detector of 8 x 7 pixels"),
        ({"data": "[7:10,1:3]", "overscan": None}, r"\[7:10,1:3\] is not inside the image of 9 x 5"),
        ({"overscan": "[8:10,1:3]"}, r"overscan \[8:10,1:3\] is not inside the image of 9 x 5"),
        ({"overscan": "[4:8,1:3]"}, r"overscan \[4:8,1:3\] overlaps the data \[1:4,1:3\]"),
        ({"hdu": 7}, r"no image in HDU 7"),
        ({"amp": "2"}, r"one name: 2 2 3 4"),
        ({"data": "junk"}, r"not a section: 'junk'"),
        ({"hdu": "x"}, r"needs amp, hdu, data and target"),
    ],
)
def test_contradictions_name_the_values(change: dict[str, object], message: str) -> None:
    meta = [SINISTRO[0] | change, *SINISTRO[1:]]
    with pytest.raises(BadHeader, match=message):
        amplifiers_from_meta(meta, dict.fromkeys((1, 2, 3, 4), (5, 9)))


@pytest.mark.parametrize("meta", [None, [], "text", [5], [{}]])
def test_other_values_are_refused(meta: object) -> None:
    with pytest.raises(BadHeader):
        amplifiers_from_meta(meta)  # type: ignore[arg-type]


def test_flips_of_the_data_become_flips_of_the_target() -> None:
    made = amplifier("A", 0, Section(0, 4, 0, 3, True, False), None, Section(0, 4, 0, 3, True, True))
    assert made == Amplifier("A", 0, Section(0, 4, 0, 3), None, Section(0, 4, 0, 3, False, True))


def test_packed_targets_close_the_gaps() -> None:
    data = [parse_section(text) for text in ("[9:12,1:5]", "[17:20,1:5]", "[25:28,1:5]")]
    assert [section_text(one) for one in packed_targets(data)] == ["[1:4,1:5]", "[5:8,1:5]", "[9:12,1:5]"]


def test_unbinned_targets_are_divided_and_counted_from_the_window() -> None:
    texts = ("[1025:2048,3072:2049]", "[1025:2048,1025:2048]", "[3072:2049,1025:2048]")
    made = placed_targets([parse_section(text) for text in texts], (2, 2))
    assert [section_text(one) for one in made] == ["[1:512,1024:513]", "[1:512,1:512]", "[1024:513,1:512]"]


def assembled(amplifiers: tuple[Amplifier, ...], images: dict[int, np.ndarray]) -> np.ndarray:
    out = np.full(detector_shape(amplifiers), -1)
    for one in amplifiers:
        block = images[one.hdu][one.data.y0 : one.data.y1, one.data.x0 : one.data.x1]
        block = block[:: -1 if one.target.flip_y else 1, :: -1 if one.target.flip_x else 1]
        out[one.target.y0 : one.target.y1, one.target.x0 : one.target.x1] = block
    return out


@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2), st.integers(0, 3))
def test_trimming_cuts_the_assembled_detector(left: int, right: int, bottom: int, top: int) -> None:
    images = {hdu: np.arange(45).reshape(5, 9) + 100 * hdu for hdu in (1, 2, 3, 4)}
    amplifiers = amplifiers_from_meta(SINISTRO)
    whole = assembled(amplifiers, images)
    cut = trimmed(amplifiers, left, right, bottom, top)
    amplifiers_from_meta(amplifiers_to_meta(cut))
    expected = whole[bottom : whole.shape[0] - top, left : whole.shape[1] - right]
    assert np.array_equal(assembled(cut, images), expected)


def test_trimming_everything_is_refused() -> None:
    with pytest.raises(BadHeader, match="leaves nothing of 8 x 6"):
        trimmed(amplifiers_from_meta(SINISTRO), left=5, right=3)
