"""Numbers in any notation, and their comparison."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example, Reply, Score, UsageError
from sftchat.scorers import numeric
from sftchat.scorers.numbers import Number, last_number

WIDE = str.maketrans("0123456789.,-", "０１２３４５６７８９．，－")


def example(gold: str) -> Example:
    return Example(({"role": "user", "content": "?"},), gold, "i")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,250 km", "1250"),
        ("It is 1.25e3 km.", "1250"),
        ("-$5.20", "-5.2"),
        ("$-5", "-5"),
        ("USD5", "5"),
        ("−５", "-5"),
        ("答案是-5度", "-5"),
        ("5-10", "10"),
        ("5–10 days", "10"),
        ("12.5%", "12.5%"),
        ("12 per cent", "12%"),
        ("百分之12", "12%"),
        ("1½", "1.5"),
        ("3 3/4 cups", "3.75"),
        ("$\\boxed{1\\frac{1}{2}}$", "1.5"),
        ("12/05/2024", "2024"),
        ("5/0", "0"),
        ("6.02×10²³", "6.02E+23"),
        ("1.5 \\times 10^{-3}", "0.0015"),
        ("10**6", "1000000"),
        ("10^-2", "0.01"),
        ("3.5万元", "35000"),
        ("3万5千", "35000"),
        ("1亿2000万", "120000000"),
        ("2千克", "2"),
        ("2.5 million people", "2500000"),
        ("5 m²", "5"),
        ("1 234 567", "1234567"),
        ("1\u202f234,5", "5"),
        ("1’234.5", "1234.5"),
        ("1{,}234", "1234"),
        ("1_000", "1000"),
        ("٣٫٥", "3.5"),
        (".5", "0.5"),
        ("**42**.", "42"),
        ("from 3 to 7", "7"),
        ("一共是三百二十元", "320"),
        ("一亿两千万", "120000000"),
        ("负三点一四", "-3.14"),
        ("百分之十二", "12%"),
        ("the answer is twenty-one", "21"),
        ("-0", "0"),
    ],
)
def test_a_number_is_read_in_any_notation(text: str, number: str) -> None:
    assert str(last_number(text)) == number


@pytest.mark.parametrize("text", ["", "no idea", "不一定", "第一", "唯一", "H2O", "x5", "v1.2.3", "GSM8K", "七上八下"])
def test_a_text_without_a_number_has_none(text: str) -> None:
    assert last_number(text) is None


@given(
    value=st.decimals(-(10**12), 10**12, places=3),
    grouped=st.booleans(),
    wide=st.booleans(),
    frame=st.sampled_from(["{}", "It costs ${}.", "约{}元", "x = {}", "**{} km**", "（{}）", "12 apples, then {}!", "\\boxed{{{}}}"]),
)
def test_any_number_is_found_again_however_it_is_written(value: Decimal, grouped: bool, wide: bool, frame: str) -> None:
    text = frame.format(f"{value:,}" if grouped else f"{value}")

    assert last_number(text.translate(WIDE) if wide else text) == Number(value)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["", "g", "e", ".17e", "E"]))
def test_any_float_is_found_again_in_every_python_format(value: float, form: str) -> None:
    number = last_number(format(value, form))

    assert number is not None
    assert float(number.value) == float(format(value, form))


@given(st.decimals(0, 10**9, places=2))
def test_a_decimal_comma_is_read_like_a_point(value: Decimal) -> None:
    text = f"{value:,}".translate(str.maketrans(",.", ".,"))

    assert last_number(f"{text} €", ",") == Number(value)


@given(st.text())
def test_any_text_has_a_number_or_none(text: str) -> None:
    number = last_number(text)

    assert number is None or (number.value.is_finite() and str(number))


@pytest.mark.parametrize(
    "text", ["9" * 20_000, "1e" + "9" * 5000, "1 " * 5000, "1," * 5000, "一" * 5000, "1/" * 5000, "- " * 5000, "10^" * 3000]
)
def test_long_texts_are_read_at_once(text: str) -> None:
    assert numeric().score(example("1"), Reply(text)).stats["n"] == 1


def test_a_score_says_which_number_was_read() -> None:
    scorer = numeric()

    assert [scorer.score(example("12"), Reply(reply)) for reply in ("It is 12.0 kg", "13", "many", "")] == [
        Score({"n": 1, "correct": 1}, "12"),
        Score({"n": 1, "correct": 0}, "13", ("wrong_number",)),
        Score({"n": 1, "correct": 0}, "", ("no_number",)),
        Score({"n": 1, "correct": 0}, "", ("empty",)),
    ]


@pytest.mark.parametrize(
    ("gold", "reply", "arguments", "right"),
    [
        ("3.14159", "3.14", {}, False),
        ("3.14159", "3.14", {"absolute": 0.01}, True),
        ("1000", "1009", {"relative": 0.01}, True),
        ("1000", "1011", {"relative": 0.01}, False),
        ("-1000", "-1009", {"relative": 0.01}, True),
        ("0", "0.0000001", {}, False),
        ("1/3", "0.3333333", {}, True),
        ("12.5%", "12.5", {}, True),
        ("12.5%", "0.125", {}, True),
        ("0.125", "12.5%", {}, True),
        ("12.5%", "0.125%", {}, False),
        ("1,5", "1.5", {"decimal": ","}, False),
        ("9" * 5000, "9" * 4999 + "8", {"relative": 0.0}, False),
    ],
)
def test_numbers_are_compared_within_the_larger_tolerance(gold: str, reply: str, arguments: dict[str, float | str], right: bool) -> None:
    scorer = numeric(**arguments)  # type: ignore[arg-type]

    assert scorer.score(example(gold), Reply(reply)).stats == {"n": 1, "correct": int(right)}


def test_a_gold_reply_without_a_number_is_a_problem_of_its_row() -> None:
    assert [list(numeric().validate_row(example(gold))) for gold in ("12", "many")] == [[], ["the gold reply has no number"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"absolute": -1.0}, "absolute is -1, must be a number from 0"),
        ({"relative": float("nan")}, "relative is nan, must be a number from 0"),
        ({"decimal": ";"}, "decimal is ';', must be '.' or ','"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, float | str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        numeric(**arguments)  # type: ignore[arg-type]

    assert str(caught.value) == message
