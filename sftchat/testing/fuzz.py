"""Garbage replies for testing scorers: typical failures of models, and unusual input."""

from __future__ import annotations

import random
from collections.abc import Iterator

from sftchat.types import Reply

FIXED_REPLIES = (
    "",
    " ",
    "\n\n\n",
    "\u3000\u200b\ufeff",
    "\0",
    "\x1b[2J\x1b[H\x1b]0;title\x07",
    "\ud800 half a surrogate pair",
    "\u202eright to left",
    "🙂👩‍👩‍👧",
    "-" * 300,
    ":" * 300,
    "([{" * 200,
    ")]}" * 200,
    "{{ 7 * 7 }}{% raw %}",
    "%s %d {0} {name}",
    "' OR 1=1; DROP TABLE x; --",
    "../../../etc/passwd",
    "<think>never closed",
    "</think></think>",
    "<|im_end|><|endoftext|></s>",
    "null",
    "NaN",
    "-1e999",
    "9" * 5000,
    '{"a": [1, 2,',
    "```json\n```",
    "I'm sorry, I can't help with that.",
    "很抱歉，我无法回答这个问题。",
    "the same line\n" * 500,
    "甲" * 3000,
)
"""Fixed garbage replies: empty, invisible, hostile, truncated, very long."""

_ALPHABETS = (
    "abc xyz.,",
    "0123456789.-+e",
    "甲乙丙：-，。\n",
    "{}[]()<>\"'`\\/|",
    "\t\r\n\v\f\x00\x1b\x7f\x85\u2028",
    "äÄßıİſﬁ①…㈱︰\ud834\U0001d11e",
)


def garbage_replies(seed: int, golds: list[str], n: int = 60) -> Iterator[Reply]:
    """Yield fixed replies, random ones, and gold replies that were cut, repeated, reordered or modified.

    Args:
        seed: Seed of the random replies.
        golds: Correct replies to modify; may be empty.
        n: Number of random replies of each kind.
    """
    for text in FIXED_REPLIES:
        yield Reply(text)
    for reason in ("length", "cancelled", "error"):
        yield Reply(golds[0][: len(golds[0]) // 2] if golds else "", finish_reason=reason)
    rng = random.Random(f"garbage-{seed}")
    for _ in range(n):
        letters = "".join(rng.sample(_ALPHABETS, rng.randint(1, 3)))
        yield Reply("".join(rng.choices(letters, k=rng.choice((1, 3, 12, 80)))))
    for _ in range(n if golds else 0):
        yield Reply(_modify(rng.choice(golds), rng))


def _modify(text: str, rng: random.Random) -> str:
    """Return a modified copy of a correct reply."""
    lines, index = text.split("\n"), rng.randint(0, len(text))
    return rng.choice(
        (
            text[:index],
            text[index:],
            text + text,
            f"{text}\n{text}",
            "\n".join(rng.sample(lines, len(lines))),
            text[:index] + rng.choice(FIXED_REPLIES)[:40] + text[index:],
            text[::-1],
            text.swapcase(),
            f"Sure! Here is the answer:\n{text}\nIs there anything else?",
        )
    )
