"""Numbers in texts, and the scorer ``numeric`` that compares them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

from sftchat.errors import UsageError
from sftchat.scorers.base import ACCURACY, WORD_CHARACTER, Answers, Scorer, answer_form, decided
from sftchat.scorers.numerals import HAN_NUMERAL, parse_chinese_numeral, parse_numeral
from sftchat.text import fold_width
from sftchat.types import Example, Reply, Score

_CONTEXT = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
"""Arithmetic that never raises: numbers of replies may have thousands of digits, or huge exponents."""
_SCALES = {
    **{"百": 2, "千": 3, "万": 4, "十万": 5, "百万": 6, "千万": 7, "亿": 8, "十亿": 9, "百亿": 10, "千亿": 11, "万亿": 12},
    **{"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12},
}
"""Words after a number that multiply it, with the power of ten."""
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_ARABIC_SEPARATORS = str.maketrans("\u066a\u066b\u066c", "%.,")
_HYPHENS = str.maketrans(dict.fromkeys("‐‑‒–−﹣", "-"))
_REWRITTEN = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2"),
        (r"\\(?:times|cdot)(?![a-zA-Z])", "×"),
        (r"\\(?=[$%])|\\[,!]", ""),
        (r"\{,\}", ","),
        (r"(?<![0-9])10\s*\*\*\s*(?=[-+(0-9])", "10^"),
        (r"\^\s*[{(]\s*([-+]?[0-9]+)\s*[)}]", r"^\1"),
        (r"\*\*", ""),  # bold marks
    )
)
"""Notations of LaTeX, Markdown and Python, and how they are written plainly."""
_HAN_MEASURE = "个只条张元块美元人名位次天日年月岁分小时钟秒米公里千克公斤斤克升吨度倍本页台辆件种场道题层颗支把"
_HAN_ANSWER = re.compile(
    rf"(?:^|[是为得到共有约:=,\s])(?P<percent>百分之)?(?P<numeral>{HAN_NUMERAL}|{HAN_NUMERAL}亿(?:{HAN_NUMERAL})?)"
    rf"(?:点(?P<decimals>[零〇一二三四五六七八九]+))?[{_HAN_MEASURE}]{{0,3}}$"
)
"""A Chinese numeral at the end of an answer, after a word such as 是, with an optional measure word."""
_ENGLISH_ANSWER = re.compile(r"(?:^|\b(?:is|are|equals)\s|[:=]\s?)(?P<numeral>[a-z]+(?:[ -][a-z]+)?)(?P<percent> per ?cent)?$")


@dataclass(frozen=True)
class Number:
    """A number in a text.

    Attributes:
        value: The number as written; 12.5 for ``12.5%``.
        percent: Whether a per cent sign, or a word for it, belongs to it.
    """

    value: Decimal
    percent: bool = False

    def __str__(self) -> str:
        value = _CONTEXT.normalize(self.value) if self.value else Decimal()  # no -0
        plain = abs(value.adjusted()) < 21 and int(value.as_tuple().exponent) > -21
        return (f"{value:f}" if plain else f"{value}") + ("%" if self.percent else "")

    def is_close(self, other: Number, absolute: Decimal, relative: Decimal) -> bool:
        """Return whether another number is within a tolerance of this one, which is the reference."""
        return any(
            _CONTEXT.subtract(mine, its).copy_abs() <= max(absolute, _CONTEXT.multiply(relative, mine.copy_abs()))
            for mine, its in self._comparable(other)
        )

    def _comparable(self, other: Number) -> Iterator[tuple[Decimal, Decimal]]:
        """Yield both values on one scale; of a number with and one without a per cent sign, first as if the sign were left out."""
        yield self.value, other.value
        if self.percent != other.percent:
            yield (*(_CONTEXT.scaleb(number.value, -2) if number.percent else number.value for number in (self, other)),)  # type: ignore[misc]


def numeric(*, extract: str = "whole", absolute: float = 0.0, relative: float = 1e-6, decimal: str = ".") -> Scorer:
    """Score whether the last number of the answer equals the last number of the gold answer, whatever the unit.

    ``{"gold": "1,250 km"}`` with the reply ``It is 1.25e3 km.`` is right; with ``1,260`` it is wrong (``wrong_number``).

    Args:
        extract: Where the answer stands in reply and gold, see ``EXTRACTIONS``.
        absolute: Largest difference that is still right, in the unit of the number.
        relative: The same as a share of the gold number; the larger of both tolerances counts.
        decimal: Decimal separator, ``.`` or ``,``; the other one separates thousands.

    Raises:
        UsageError: When an argument is invalid.
    """
    for name, tolerance in (("absolute", absolute), ("relative", relative)):
        if not 0 <= tolerance < float("inf"):
            raise UsageError(f"{name} is {tolerance:g}, must be a number from 0")
    if decimal not in (".", ","):
        raise UsageError(f"decimal is '{decimal}', must be '.' or ','")
    answers = Answers(extract)
    limits = Decimal(str(absolute)), Decimal(str(relative))

    def score(example: Example, reply: Reply) -> Score:
        answer, marked = answers.of(reply.text)
        gold, number = last_number(answers.gold(example), decimal), last_number(answer, decimal)
        right = gold is not None and number is not None and gold.is_close(number, *limits)
        return decided(right, str(number or ""), reply, "wrong_number" if number else "no_number", marked=marked)

    def validate_row(example: Example) -> Iterable[str]:
        return () if last_number(answers.gold(example), decimal) else ("the gold reply has no number",)

    settings = {"extract": extract, "absolute": absolute, "relative": relative, "decimal": decimal}
    return Scorer("numeric", score, (ACCURACY,), validate_row, settings)


def last_number(text: str, decimal: str = ".") -> Number | None:
    """Return the last number of a text, such as ``-1,250.5``, ``$3``, ``12.5%``, ``1 1/2``, ``6×10^23``, ``3.5万`` or ``2 million``; None without one.

    Digits may be of any script. A text without digits may end with a numeral in words: ``一共是三百二十元``, ``twelve``.

    Args:
        text: Any text.
        decimal: Decimal separator, ``.`` or ``,``.
    """
    number = None
    end, unit = -1, 0
    for match in _number_pattern(decimal).finditer(_plain_notation(text)):
        value, scale = _value_of(match, decimal), _SCALES.get((match["scale"] or "").lower(), 0)
        if number is not None and match.start() == end and scale < unit and value.adjusted() < unit:  # the 5千 of 3万5千
            value = _CONTEXT.add(number.value, value)
        number = Number(value, bool(match["percent"] or match["han_percent"]))
        end, unit = match.end(), scale
    return _number_in_words(text) if number is None else number


def _plain_notation(text: str) -> str:
    """Rewrite fractions, powers, LaTeX and digits of other scripts as ASCII."""
    if not text.isascii():
        text = re.sub(r"10([⁺⁻]?[⁰¹²³⁴-⁹]+)", lambda match: f"10^{match[1].translate(_SUPERSCRIPTS)}", text)
        text = re.sub("[⁰¹²³⁴-⁹]", "", text)  # of units, such as m²
        text = "".join(f" {unicodedata.normalize('NFKC', c).replace('⁄', '/')}" if _is_fraction(c) else c for c in text)
        text = fold_width(text).translate(_ARABIC_SEPARATORS).translate(_HYPHENS).replace("⁄", "/")
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return text


def _is_fraction(character: str) -> bool:
    return not character.isascii() and unicodedata.decomposition(character).startswith("<fraction>")


def _number_pattern(decimal: str) -> re.Pattern[str]:
    """Return the regular expression for a number and what belongs to it."""
    point, comma = (r"\.", ",") if decimal == "." else (",", r"\.")
    grouped = "|".join(f"[0-9]{{1,3}}(?:{separator}[0-9]{{3}})+(?![0-9])" for separator in (comma, "['’]", "_", " "))
    return re.compile(
        rf"(?P<han_percent>百分之)?(?<!{WORD_CHARACTER})(?<![0-9]{point})"
        rf"(?:(?<![)\]}}\-+])(?P<sign>[-+]))?(?:(?:USD|EUR|GBP|JPY|CNY|RMB|US\$|HK\$|[$€£¥₹₩])\s?)?(?P<sign_after>[-+])?"
        r"(?:10\s?\^\s?(?P<power_of_ten>[-+]?[0-9]+)"
        r"|(?<!/)(?<!/\s)(?:(?P<whole>[0-9]+)\s)?(?P<numerator>[0-9]+)\s?/\s?(?P<denominator>0*[1-9][0-9]*)(?![0-9/.]|\s?/)"
        rf"|(?P<digits>(?:{grouped}|[0-9]+)(?:{point}[0-9]+)?|{point}[0-9]+)"
        r"(?:[eE](?P<exponent>[-+]?[0-9]+)(?![0-9a-zA-Z])|\s?[×x*·]\s?10\s?\^\s?(?P<power>[-+]?[0-9]+))?)"
        rf"(?:\s?(?P<scale>[十百千万]?[万亿]|[百千](?!克|米|瓦|卡|帕|分)|(?i:hundred|thousand|lakh|million|crore|billion|trillion)(?![a-zA-Z])))?"
        r"(?P<percent>\s?(?:%|(?i:per ?cent)(?![a-zA-Z])|个百分点))?"
    )


def _value_of(match: re.Match[str], decimal: str) -> Decimal:
    if match["power_of_ten"]:
        value = _shift(Decimal(1), match["power_of_ten"])
    elif match["denominator"]:
        value = _CONTEXT.divide(Decimal(match["numerator"]), Decimal(match["denominator"]))
        value = _CONTEXT.add(Decimal(match["whole"] or 0), value)
    else:
        digits = re.sub(rf"[^0-9{decimal}]", "", match["digits"]).replace(decimal, ".")
        value = Decimal(digits)
        if exponent := match["exponent"] or match["power"]:
            value = _shift(value, exponent)
    if match["scale"]:
        value = _CONTEXT.scaleb(value, _SCALES[match["scale"].lower()])
    return value.copy_negate() if "-" in (match["sign"], match["sign_after"]) else value


def _shift(value: Decimal, exponent: str) -> Decimal:
    """Multiply by a power of ten; an exponent of more than nine digits counts as one of nine."""
    sign = -1 if exponent.startswith("-") else 1
    power = int(exponent.lstrip("+-").lstrip("0")[:10] or 0)
    return _CONTEXT.scaleb(_CONTEXT.plus(value), sign * min(power, 999_999_999))


def _number_in_words(text: str) -> Number | None:
    """Return the number that a text without digits gives in words at its end."""
    form = answer_form(text)
    if match := _HAN_ANSWER.search(form):
        high, _, low = match["numeral"].rpartition("亿")
        values = [parse_chinese_numeral(part) if part else 0 for part in (high, low)]
        if None not in values:
            value = Decimal(sum((part or 0) * factor for part, factor in zip(values, (10**8, 1), strict=True)))
            decimals = "".join(str(parse_chinese_numeral(digit)) for digit in match["decimals"] or "")
            value += Decimal(f"0.{decimals or 0}").copy_sign(value)
            return Number(value, match["percent"] is not None)
    if (match := _ENGLISH_ANSWER.search(form)) and (spelled := parse_numeral(match["numeral"])) is not None:
        return Number(Decimal(spelled), match["percent"] is not None)
    return None
