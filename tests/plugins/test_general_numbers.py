"""Numbers in digits, signs and separators of people and models, as read by the general task."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat_general.reading import is_bare_number, parse_number

SCRIPTS = {
    "full-width": 0xFF10,
    "Arabic-Indic": 0x0660,
    "Persian": 0x06F0,
    "Devanagari": 0x0966,
    "Bengali": 0x09E6,
    "mathematical": 0x1D7CE,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("−5", "-5"),
        ("－5", "-5"),
        ("–5", "-5"),
        ("5", "5"),
        ("５", "5"),
        ("１２．５", "12.5"),
        ("1,000", "1000"),
        ("1，000", "1000"),
        ("１，０００", "1000"),
        ("1 000", "1000"),
        ("1\u00a0000", "1000"),
        ("1\u202f000\u202f000", "1000000"),
        ("1\u2009000.5", "1000.5"),
        ("−1 000", "-1000"),
        ("٥", "5"),
        ("١٬٠٠٠٫٥", "1000.5"),
        ("−١٢", "-12"),
        ("۱۲۳", "123"),
        ("五", "5"),
        ("〇", "0"),
        ("十", "10"),
        ("十五", "15"),
        ("二十", "20"),
        ("一百零五", "105"),
        ("两百三十", "230"),
        ("一千", "1000"),
        ("三千二百一十", "3210"),
        ("一万", "10000"),
        ("十二万三千", "123000"),
        ("二〇二四", "2024"),
        ("负五", "-5"),
        ("十五个", "15"),
        ("forty-two", "42"),
    ],
)
def test_a_number_is_read_in_every_spelling(text: str, value: str) -> None:
    assert parse_number(text, "?") == Decimal(value)
    assert is_bare_number(text) or text.endswith("个")


@pytest.mark.parametrize("text", ["十百", "一二十", "万", "二两", "五五十", "百万万", "one two", "no number", "負"])
def test_text_without_a_numeral_gives_none(text: str) -> None:
    assert parse_number(text, "?") is None


@pytest.mark.parametrize(("text", "value"), [("12 345", "12345"), ("3 12", "12"), ("1234 567", "567"), ("1 0000", "0")])
def test_a_space_separates_only_thousands(text: str, value: str) -> None:
    assert parse_number(text, "?") == Decimal(value)


@given(
    value=st.integers(-(10**9), 10**9), script=st.sampled_from(list(SCRIPTS)), separator=st.sampled_from(["", ",", " ", "\u00a0", "\u202f"])
)
def test_any_whole_number_in_any_script_is_read(value: int, script: str, separator: str) -> None:
    written = f"{abs(value):,}".replace(",", separator).translate({ord(str(n)): chr(SCRIPTS[script] + n) for n in range(10)})

    assert parse_number(("−" if value < 0 else "") + written, "?") == value
