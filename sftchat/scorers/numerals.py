"""Whole numbers in words: Chinese numerals, and English ones up to one hundred."""

from __future__ import annotations

import re
from functools import cache

HAN_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
"""Values of the Chinese digits."""
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
HAN_NUMERAL = f"负?[{''.join(HAN_DIGITS)}{''.join(_HAN_UNITS)}万]+"
"""Regular expression for the characters of a Chinese numeral; not every match is a number."""
MAX_DIGITS = 400
"""Maximum length of a numeral by digits; Python converts no more than 4,300 digits."""
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def parse_numeral(text: str) -> int | None:
    """Return the whole number that a text spells: ``twenty-one``, ``二百零五``, ``二〇二四``; None for other texts.

    Args:
        text: The numeral and nothing else, in lower case. English numerals reach from 0 to 100, Chinese ones to 10^8.
    """
    spelled = _english_numerals().get(text.replace("-", " "))
    return parse_chinese_numeral(text) if spelled is None else spelled


def parse_chinese_numeral(text: str) -> int | None:
    """Parse a whole number below 10^8 in Chinese numerals, with units (二百零五) or by digits (二〇二四); None for other texts."""
    if not re.fullmatch(HAN_NUMERAL, text):
        return None
    numeral = text.removeprefix("负")
    sign = -1 if numeral != text else 1
    if set(numeral) <= set(HAN_DIGITS):
        if ("两" in numeral and len(numeral) > 1) or len(numeral) > MAX_DIGITS:
            return None
        return sign * int("".join(str(HAN_DIGITS[character]) for character in numeral))
    if numeral.startswith("万") or numeral.count("万") > 1:
        return None
    total = 0
    for part in numeral.split("万"):
        value = _parse_below_10000(part)
        if value is None:
            return None
        total = total * 10_000 + value
    return sign * total


def _parse_below_10000(numeral: str) -> int | None:
    """Parse digits and units, such as 二百零五; None when they are in no valid order."""
    total, previous_unit = 0, 10_000
    digit: int | None = None  # the last digit, as long as no unit follows it
    for character in numeral:
        if character in HAN_DIGITS:
            if digit:
                return None
            digit = HAN_DIGITS[character]
        else:
            unit = _HAN_UNITS[character]
            if unit >= previous_unit or digit == 0:
                return None
            total += unit * (1 if digit is None else digit)
            previous_unit, digit = unit, None
    return total + (digit or 0)


@cache
def _english_numerals() -> dict[str, int]:
    """Return the numbers from 0 to 100 by their numerals."""
    small, tens = _SMALL.split(), _TENS.split()
    numbers = {word: value for value, word in enumerate(small)} | {"one hundred": 100}
    for index, word in enumerate(tens):
        for unit in range(10):
            numbers[word + (f" {small[unit]}" if unit else "")] = 10 * (index + 2) + unit
    return numbers
