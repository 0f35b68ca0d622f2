"""Lenient parsing of replies, independent of the gold: plain form, number, lines and items."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from sftchat.scorers import parse_numeral
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
    spelled = parse_numeral(bare)
    return None if spelled is None else Decimal(spelled)


def is_bare_number(text: str) -> bool:
    """Return whether a reply is only a number, apart from quotes and final punctuation."""
    bare = plain_form(text)
    return _NUMBER.fullmatch(_normalise_for_numbers(bare)) is not None or parse_numeral(bare) is not None


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
