"""Rows for training and measuring relation extraction: same options and seed, same bytes, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from sftchat.types import Example, Message

PRESETS = ("novel", "article")
"""What the rows are like: prose to train on, or the published recipe to compare with."""

SPLITS = ("train", "test")
"""The two worlds of sentences and of names; neither a sentence nor a given name is in both."""


def generate(n: int, seed: int, *, preset: str = "novel", names: str = "train", forms: str = "train") -> Iterator[Example]:
    """Yield rows lazily; row i depends on the options, the seed and i alone, never on how many are asked for.

    Args:
        n: How many rows.
        seed: Any integer; rows of different seeds have nothing in common but their making.
        preset: ``novel`` or ``article``.
        names: Whose people a novel is about: ``train``, or ``test`` for names no training row has.
        forms: What sentences a novel is made of: ``train``, or ``test`` for sentences no training row has.

    Raises:
        ValueError: A number or an option has no meaning; one lower-case line.
    """
    if n < 0:
        raise ValueError(f"n is {n}, must be 0 or more")
    for option, value, values in (("preset", preset, PRESETS), ("names", names, SPLITS), ("forms", forms, SPLITS)):
        if value not in values:
            raise ValueError(f"{option} is {value!r}, must be {' or '.join(values)}")
    if preset == "article":
        return (_article(seed, i) for i in range(n))
    return (_novel(seed, i, names, forms) for i in range(n))


def _article(seed: int, i: int) -> Example:
    from sftchat_relation import article

    prompt, gold, numbers = article.compose(Random(f"article-{seed}-{i}"))
    metadata = {"preset": "article", "form_ids": numbers}
    return Example((Message(role="user", content=prompt),), gold, f"article-{seed}-{i:06d}", metadata)


def _novel(seed: int, i: int, names: str, forms: str) -> Example:
    from sftchat_relation import novel  # late: its tables of sentences take 30 ms, which listing plugins does not need

    # The text of the seed goes through SHA-512, so neighbouring rows share no stream of random numbers.
    prompt, gold, ids = novel.compose(Random(f"novel-{names}-{forms}-{seed}-{i}"), names, forms)
    metadata = {"preset": "novel", "names": names, "forms": forms, "form_ids": ids}
    return Example((Message(role="user", content=prompt),), gold, f"novel-{names}-{forms}-{seed}-{i:06d}", metadata)
