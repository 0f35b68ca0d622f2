"""Lenient parsing of replies, independent of the gold: plain form, number, lines and items."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from sftchat.text import DASHES, normalise, tokens

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_QUOTES = " \"'“”‘’「」『』《》`*"
_FINAL_PUNCTUATION = ".。!?,;:、…~"
_SPACE_BESIDE_HAN = re.compile(f"(?<=[{_HAN}]) | (?=[{_HAN}])")
_NUMBER = re.compile(
    rf"(?<![0-9])(?<![0-9]\.)(?:(?<![0-9a-zA-Z){_HAN}])-)?(?:[0-9]{{1,3}}(?: [0-9]{{3}})+(?![0-9])|[0-9]+(?:,[0-9]{{3}})*)(?:\.[0-9]+)?"
)
"""A number: optional minus, digits with optional groups of thousands, optional decimals."""
_RESULT = re.compile(rf"(?:=|等于|equals|结果是|答案是|answer is)\s*((?>{_NUMBER.pattern}))(?!\s*[-+×*/÷x=])", re.IGNORECASE)
"""The number after an equals sign or a word for it, unless an operator follows the number."""
_SEPARATORS = str.maketrans("\u066b\u066c\u066a", ".,%")
"""Decimal and thousands separators and the per cent sign of Arabic numbers."""
_HAN_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_NUMBER = re.compile(f"负?[{''.join(_HAN_DIGITS)}{''.join(_HAN_UNITS)}万]+")
_HAN_NUMERALS = "零一二三四五六七八九十百"
_BULLET = re.compile(r"\s*(?:[-*•·]|[0-9]+[.)、])\s+")
_NUMBERING = re.compile(r"\s*[0-9]+[.)、]\s*(?=\S)")
_FENCE = re.compile(r"\s*```[^\n`]*\n(.*?)\n?```\s*", re.DOTALL)
_LEAD_IN = re.compile(r"\A.*:\s*(?=\S)")
"""A line up to its last colon, if other text follows it."""


def fold(text: str) -> str:
    """Normalise a text for word search: one case, no space next to a Chinese character."""
    return _SPACE_BESIDE_HAN.sub("", normalise(text)).casefold()


def plain_form(text: str, *, case: bool = False) -> str:
    """Return the form in which short answers are compared: as ``fold``, without surrounding quotes and final punctuation.

    Args:
        text: Any text.
        case: Whether case is significant.
    """
    one_line = _SPACE_BESIDE_HAN.sub("", normalise(text))
    bare = one_line.strip(_QUOTES).rstrip(_FINAL_PUNCTUATION + _QUOTES)
    return bare if case else bare.casefold()


def contains_value(text: str, value: str) -> bool:
    """Return whether a text contains a value: Latin letters and digits as whole words, a Chinese numeral not as the end of a longer one.

    Args:
        text: Result of ``fold``.
        value: As written in a constraint.
    """
    folded = fold(value)
    if not folded:
        return False
    lookbehind = lookahead = ""
    if folded[0].isascii():
        lookbehind = "(?<![a-z0-9])"
    elif folded[0] in _HAN_NUMERALS:
        lookbehind = f"(?<![{_HAN_NUMERALS}])"
    if folded[-1].isascii():
        lookahead = "(?![a-z0-9])"
    return re.search(lookbehind + re.escape(folded) + lookahead, text) is not None


def parse_number(text: str, question: str) -> Decimal | None:
    """Return the number that a reply gives as its answer.

    That is the number after its last ``=`` or 等于; without one, the last number that is not in the question (the 12 in ``12 is 7 plus 5``);
    else the last number. A reply may also be one numeral in words, or Chinese. None for a reply without a number.

    Args:
        text: The reply.
        question: The question.
    """
    line = _normalise_for_numbers(text)
    results = _RESULT.findall(line)
    if results:
        return _to_decimal(results[-1])
    numbers = _NUMBER.findall(line)
    in_question = {_to_decimal(numeral) for numeral in _NUMBER.findall(_normalise_for_numbers(question))}
    new_numbers = [numeral for numeral in numbers if _to_decimal(numeral) not in in_question]
    if numbers:
        return _to_decimal((new_numbers or numbers)[-1])
    bare = plain_form(text).removesuffix("个")
    spelled = _SPELLED.get(bare.replace("-", " "), _parse_chinese_numeral(bare))
    return None if spelled is None else Decimal(spelled)


def is_bare_number(text: str) -> bool:
    """Return whether a reply is only a number, apart from quotes and final punctuation."""
    bare = plain_form(text)
    return (
        _NUMBER.fullmatch(_normalise_for_numbers(bare)) is not None
        or bare.replace("-", " ") in _SPELLED
        or _parse_chinese_numeral(bare) is not None
    )


def strip_fence(text: str) -> str:
    """Remove a code fence around the whole reply."""
    fence = _FENCE.fullmatch(text)
    return fence[1] if fence else text


def reply_lines(text: str) -> list[str]:
    """Return the non-blank lines of a reply, without a surrounding code fence."""
    return [line.strip() for line in strip_fence(text).splitlines() if line.strip()]


def item_tokens(text: str) -> list[str]:
    """Return the tokens of the items that a reply lists, in any layout.

    Bullets, numbering, a lead-in that ends with a colon, and the ``and`` before the last item are removed.
    """
    lines = reply_lines(text)
    if len(lines) > 1 and lines[0].endswith((":", "：")):
        lines = lines[1:]
    if len(lines) > 1 and all(_BULLET.match(line) or _NUMBERING.match(line) for line in lines):
        lines = [_NUMBERING.sub("", line, count=1) for line in lines]
    joined = normalise("\n".join(lines))
    return [token for token in tokens(_LEAD_IN.sub("", joined, count=1)) if token not in ("and", "then")]


def text_length(text: str, unit: str) -> int:
    """Return the length of a text.

    Args:
        text: Any text.
        unit: ``words``, separated by white space, or ``characters``: letters and digits of any script.
    """
    return len(text.split()) if unit == "words" else sum(character.isalnum() for character in text)


def _normalise_for_numbers(text: str) -> str:
    """Normalise a text for number search: dashes become hyphens, digits of all scripts ASCII, and bold marks are removed."""
    line = normalise(text).translate(dict.fromkeys(map(ord, DASHES), "-")).replace("**", "")
    if line.isascii():
        return line
    return "".join(str(unicodedata.decimal(character)) if character.isdecimal() else character for character in line.translate(_SEPARATORS))


def _to_decimal(numeral: str) -> Decimal:
    return Decimal(numeral.replace(",", "").replace(" ", ""))


def _parse_chinese_numeral(text: str) -> int | None:
    """Parse a whole number below 10^8 in Chinese numerals, with units (二百零五) or by digits (二〇二四); None for other texts."""
    if not _HAN_NUMBER.fullmatch(text):
        return None
    numeral = text.removeprefix("负")
    sign = -1 if numeral != text else 1
    if set(numeral) <= set(_HAN_DIGITS):
        if "两" in numeral and len(numeral) > 1:
            return None
        return sign * int("".join(str(_HAN_DIGITS[character]) for character in numeral))
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
        if character in _HAN_DIGITS:
            if digit:
                return None
            digit = _HAN_DIGITS[character]
        else:
            unit = _HAN_UNITS[character]
            if unit >= previous_unit or digit == 0:
                return None
            total += unit * (1 if digit is None else digit)
            previous_unit, digit = unit, None
    return total + (digit or 0)


def _spell_numerals() -> dict[str, int]:
    """Return the numbers from 0 to 100 by their numerals in words, English and Chinese."""
    small = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    )
    small_words, tens_words = small.split(), "twenty thirty forty fifty sixty seventy eighty ninety".split()
    han_digits = "零一二三四五六七八九"
    numbers = dict(zip([*small_words, *han_digits], [*range(20), *range(10)], strict=True)) | {"one hundred": 100, "一百": 100, "两": 2}
    for number in range(10, 100):
        tens, units = divmod(number, 10)
        numbers[(han_digits[tens] if tens > 1 else "") + "十" + (han_digits[units] if units else "")] = number
        if tens > 1:
            numbers[tens_words[tens - 2] + (f" {small_words[units]}" if units else "")] = number
    return numbers


_SPELLED = _spell_numerals()
