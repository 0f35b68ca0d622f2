"""Fuzz targets: texts of models and servers, which are scored, compared, drawn and reported; and input lines of programs."""

from __future__ import annotations

import unicodedata

from sftchat.chat.context import Display
from sftchat.chat.render.reply import ReplyText
from sftchat.inference.openai.limits import RequestFailed
from sftchat.inference.openai.protocol import read_event
from sftchat.inference.openai.reply import split_off_surrogate
from sftchat.plugins.manager import load_plugins
from sftchat.text import normalise, printable, strip_thinking, tokens
from sftchat.types import Example, Reply
from tests.fuzz.inputs import DEEP, json_like, words_of
from tests.fuzz.target import Room, Target, text_of

REGISTRY = load_plugins()
GOLD = "李四-张三:师徒\n王五-赵六:父子"


def commands_in(text: str) -> list[str]:
    """Return the characters that may control a terminal or reorder its text."""
    return [ascii(c) for c in text if (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Zl", "Zp")) or "\u202a" <= c <= "\u202e"]


def scorers(content: bytes, room: Room) -> None:
    """Any reply to any prompt is a score of every installed task, the same each time; ``\\x1e`` stands between the two."""
    said, _, asked = text_of(content).partition("\x1e")
    for task in REGISTRY.tasks.values():
        example = Example(({"role": "user", "content": f"请从以下文本抽取：{asked}"},), GOLD)
        score = task.score(example, Reply(said))
        assert score == task.score(example, Reply(said))
        assert all(count >= 0 for count in score.stats.values())


def texts(content: bytes, room: Room) -> None:
    """Text functions end, and normalising twice changes nothing."""
    text = text_of(content)
    assert normalise(normalise(text)) == normalise(text)
    tokens(text)
    strip_thinking(text)
    assert printable(printable(text)) == printable(text)


def drawing(content: bytes, room: Room) -> None:
    """A reply is drawn the same for any pieces, and none of it controls the terminal."""
    text = text_of(content)
    drawn = []
    for size in (1, 3, len(text) or 1):
        for columns in (1, 24):
            reply = ReplyText(Display(thoughts=True))
            lines = [line for start in range(0, len(text), size) for line in reply.feed(text[start : start + size], columns)]
            reply.tail()
            lines += reply.end(columns)
            shown = "\n".join("".join(piece for _, piece in line) for line in lines)
            assert commands_in(shown) == []
            drawn.append((columns, shown))
    assert len(set(drawn)) == 2


def events(content: bytes, room: Room) -> None:
    """Any data of a server is a piece of a reply, or a named error."""
    text = text_of(content)
    ready, surrogate = split_off_surrogate(text)
    ready.encode()
    assert len(surrogate) <= 1
    try:
        piece = read_event(text)
    except RequestFailed:
        return
    assert isinstance(piece.text, str)
    assert isinstance(piece.finish_reason, str)


TARGETS = {
    "scorers": Target(scorers, words_of("甲乙", "李四", ":", "：", "-", "—", "，", "。", "\n", "师徒", "父子", "无", "(", ")", "`", "1.", "<think>", "</think>", "\x1e", "{", "}", "答案", "42")),
    "texts": Target(texts, words_of("甲", "乙", " ", "\u3000", "\u200b", "①", "ﬁ", "İ", "<think>", "</think>", "\u0301", "·", "…", "\n")),
    "drawing": Target(drawing, words_of("```", "\n", "|", "---", "| a | b |\n|---|---|\n", "# ", "**", "*", "`", "<think>", "</think>", "\x1b[2J", "\r", "\t", "\u202e", "甲", "- ", "1. ", "> ", "[a](b)", "$", "\\", "\x9b", "👩‍👩‍👧")),
    "events": Target(events, json_like({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}, {"error": {"message": "x", "code": 400}}, {"choices": [{"text": "a"}]}) | DEEP),
}  # fmt: skip
