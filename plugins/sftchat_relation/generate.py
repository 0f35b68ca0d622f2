"""Generator of rows for relation extraction; deterministic in options and seed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from sftchat.types import Example, Message

PRESETS = ("novel", "article")
"""Kinds of rows: prose for training, or the published recipe for comparison."""

SPLITS = ("train", "test")
"""Splits of sentences and of names; no sentence and no given name is in both."""


def generate(n: int, seed: int, *, preset: str = "novel", names: str = "train", forms: str = "train") -> Iterator[Example]:
    """Yield rows lazily; row i depends on the options, the seed and i, not on ``n``.

    Args:
        n: Number of rows.
        seed: Any integer; rows of different seeds are independent.
        preset: ``novel`` or ``article``.
        names: Names of a novel's characters: ``train``, or ``test`` for held-out names.
        forms: Sentences of a novel: ``train``, or ``test`` for held-out sentences.

    Raises:
        ValueError: When an option is invalid; one lower-case line.
    """
    if n < 0:
        raise ValueError(f"n is {n}, must be 0 or more")
    for option, value, values in (("preset", preset, PRESETS), ("names", names, SPLITS), ("forms", forms, SPLITS)):
        if value not in values:
            raise ValueError(f"{option} is {value!r}, must be {' or '.join(values)}")
    if preset == "article":
        return (_generate_article_row(seed, i) for i in range(n))
    return (_generate_novel_row(seed, i, names, forms) for i in range(n))


def _generate_article_row(seed: int, i: int) -> Example:
    from sftchat_relation import article

    prompt, gold, numbers = article.compose(Random(f"article-{seed}-{i}"))
    metadata = {"preset": "article", "form_ids": numbers}
    return Example((Message(role="user", content=prompt),), gold, f"article-{seed}-{i:06d}", metadata)


def _generate_novel_row(seed: int, i: int, names: str, forms: str) -> Example:
    from sftchat_relation import novel  # here, because listing plugins does not need its tables of sentences, which take 30 ms to import

    # Random hashes a text seed with SHA-512, so that the random streams of rows are independent
    prompt, gold, ids = novel.compose(Random(f"novel-{names}-{forms}-{seed}-{i}"), names, forms)
    metadata = {"preset": "novel", "names": names, "forms": forms, "form_ids": ids}
    return Example((Message(role="user", content=prompt),), gold, f"novel-{names}-{forms}-{seed}-{i:06d}", metadata)
