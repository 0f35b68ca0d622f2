"""Lenient parsing of replies, independent of the gold: plain form, number, lines and items."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from sftchat.text import DASHES, normalise, tokens

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_QUOTES = " \"'“”‘’「」『』《》`*"
_END = ".。!?,;:、…~"
_BESIDE_HAN = re.compile(f"(?<=[{_HAN}]) | (?=[{_HAN}])")
_NUMBER = re.compile(
    rf"(?<![0-9])(?<![0-9]\.)(?:(?<![0-9a-zA-Z){_HAN}])-)?(?:[0-9]{{1,3}}(?: [0-9]{{3}})+(?![0-9])|[0-9]+(?:,[0-9]{{3}})*)(?:\.[0-9]+)?"
)
_RESULT = re.compile(rf"(?:=|等于|equals|结果是|答案是|answer is)\s*((?>{_NUMBER.pattern}))(?!\s*[-+×*/÷x=])", re.IGNORECASE)
_SEPARATORS = str.maketrans("\u066b\u066c\u066a", ".,%")
"""Decimal and thousands separators and the per cent sign of Arabic numbers."""
_HAN_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_NUMBER = re.compile(f"负?[{''.join(_HAN_DIGITS)}{''.join(_HAN_UNITS)}万]+")
_NUMERAL = "零一二三四五六七八九十百"
_MARKER = re.compile(r"\s*(?:[-*•·]|[0-9]+[.)、])\s+")
_NUMBERED = re.compile(r"\s*[0-9]+[.)、]\s*(?=\S)")
_FENCE = re.compile(r"\s*```[^\n`]*\n(.*?)\n?```\s*", re.DOTALL)
_LEAD_IN = re.compile(r"\A[^\n]*:\s*(?=\S)")


def fold(text: str) -> str:
    """Normalise a text for word search: one case, no space next to a Chinese character."""
    return _BESIDE_HAN.sub("", normalise(text)).casefold()


def plain_form(text: str, *, case: bool = False) -> str:
    """Return the form in which short answers are compared: as ``fold``, without surrounding quotes and final punctuation.

    Args:
        text: Any text.
        case: Whether case is significant.
    """
    one_line = _BESIDE_HAN.sub("", normalise(text))
    bare = one_line.strip(_QUOTES).rstrip(_END + _QUOTES)
    return bare if case else bare.casefold()


def contains_value(text: str, value: str) -> bool:
    """Return whether a folded text contains a value: as a whole word if Latin or digits, and not as the end of a Chinese numeral.

    Args:
        text: Result of ``fold``.
        value: As written in a constraint.
    """
    needle = fold(value)
    lookbehind = "(?<![a-z0-9])" if needle[:1].isascii() else f"(?<![{_NUMERAL}])" if needle[:1] in _NUMERAL else ""
    lookahead = "(?![a-z0-9])" if needle[-1:].isascii() else ""
    return bool(needle) and re.search(lookbehind + re.escape(needle) + lookahead, text) is not None


def parse_number(text: str, question: str) -> Decimal | None:
    """Return the number that a reply gives as its answer.

    That is the number after its last ``=`` or 等于; without one, the last number that is not in the question (in ``12 is 7 plus 5``, the
    12); else the last number. A reply may also be one numeral in words.

    Args:
        text: The reply.
        question: The question.
    """
    line = _one_line(text)
    results = _RESULT.findall(line)
    if results:
        return _to_decimal(results[-1])
    numbers = _NUMBER.findall(line)
    in_question = {_to_decimal(numeral) for numeral in _NUMBER.findall(_one_line(question))}
    new_numbers = [numeral for numeral in numbers if _to_decimal(numeral) not in in_question]
    if numbers:
        return _to_decimal((new_numbers or numbers)[-1])
    bare = plain_form(text).removesuffix("个")
    spelled = _SPELLED.get(bare.replace("-", " "), _parse_chinese_numeral(bare))
    return None if spelled is None else Decimal(spelled)


def is_bare_number(text: str) -> bool:
    """Return whether a reply is only a number, apart from punctuation and quotes."""
    bare = plain_form(text)
    return _NUMBER.fullmatch(_one_line(bare)) is not None or bare.replace("-", " ") in _SPELLED or _parse_chinese_numeral(bare) is not None


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
    rows = reply_lines(text)
    if len(rows) > 1 and rows[0].endswith((":", "：")):
        rows = rows[1:]
    if len(rows) > 1 and all(_MARKER.match(row) or _NUMBERED.match(row) for row in rows):
        rows = [_NUMBERED.sub("", row, count=1) for row in rows]
    joined = normalise("\n".join(rows))
    return [token for token in tokens(_LEAD_IN.sub("", joined, count=1)) if token not in ("and", "then")]


def text_length(text: str, unit: str) -> int:
    """Return the length of a text.

    Args:
        text: Any text.
        unit: ``words``, separated by white space, or ``characters``: letters and digits of any script.
    """
    return len(text.split()) if unit == "words" else sum(character.isalnum() for character in text)


def _one_line(text: str) -> str:
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
    digits = text.removeprefix("负")
    sign = -1 if digits != text else 1
    if not set(digits) - set(_HAN_DIGITS):
        return sign * int("".join(str(_HAN_DIGITS[digit]) for digit in digits)) if len(digits) == 1 or "两" not in digits else None
    total = 0
    for part in digits.split("万"):
        total = total * 10_000
        digit, above = None, 10_000
        for numeral in part:
            if numeral in _HAN_DIGITS:
                if digit:
                    return None
                digit = _HAN_DIGITS[numeral]
            elif _HAN_UNITS[numeral] >= above or digit == 0:
                return None
            else:
                above = _HAN_UNITS[numeral]
                total, digit = total + (1 if digit is None else digit) * above, None
        total += digit or 0
    return sign * total if digits.count("万") <= 1 and not digits.startswith("万") else None


def _spelled_numerals() -> dict[str, int]:
    """Return the numerals from 0 to 100 in words, English and Chinese."""
    units = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    )
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()
    spelled = {word: value for value, word in enumerate(units.split())} | {"one hundred": 100, "一百": 100, "两": 2}
    small = "零一二三四五六七八九"
    for value in range(100):
        ten, unit = divmod(value, 10)
        if ten > 1:
            spelled[tens[ten - 2] + (f" {units.split()[unit]}" if unit else "")] = value
        spelled[("" if ten < 2 else small[ten]) + ("十" if ten else "") + (small[unit] if unit or not ten else "")] = value
    return spelled


_SPELLED = _spelled_numerals()
