"""Generator of rows for relation extraction; deterministic in options and seed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from sftchat.types import Example, Message

PRESETS = ("novel", "article")
"""Kinds of rows: prose for training, or the published recipe for comparison."""

LANGUAGE_CODES = ("zh", "en")
"""Codes of the languages of a novel; those of `language.LANGUAGES`."""

SPLITS = ("train", "test")
"""Splits of sentences and of names; no sentence and no given name is in both."""


def generate(
    n: int, seed: int, *, preset: str = "novel", language: str = "zh", names: str = "train", forms: str = "train"
) -> Iterator[Example]:
    """Yield rows lazily; row i depends on the options, the seed and i, not on ``n``.

    Args:
        n: Number of rows.
        seed: Any integer; rows of different seeds are independent.
        preset: ``novel`` or ``article``.
        language: Language of a novel: ``zh``, ``en``, or ``both`` for a row of either; the preset ``article`` is in Chinese.
        names: Names of a novel's characters: ``train``, or ``test`` for held-out names.
        forms: Sentences of a novel: ``train``, or ``test`` for held-out sentences.

    Raises:
        ValueError: When an option is invalid; one lower-case line.
    """
    if n < 0:
        raise ValueError(f"n is {n}, must be 0 or more")
    options = (
        ("preset", preset, PRESETS),
        ("language", language, (*LANGUAGE_CODES, "both")),
        ("names", names, SPLITS),
        ("forms", forms, SPLITS),
    )
    for option, value, values in options:
        if value not in values:
            raise ValueError(f"{option} is {value!r}, must be {' or '.join(values)}")
    if preset == "article":
        if language != "zh":
            raise ValueError(f"language is {language!r}, must be zh with the preset article")
        return (_generate_article_row(seed, i) for i in range(n))
    return (_generate_novel_row(seed, i, names, forms, _language_of_row(language, seed, i)) for i in range(n))


def _generate_article_row(seed: int, i: int) -> Example:
    from sftchat_relation import article

    prompt, gold, numbers = article.compose(Random(f"article-{seed}-{i}"))
    metadata = {"preset": "article", "form_ids": numbers}
    return Example((Message(role="user", content=prompt),), gold, f"article-{seed}-{i:06d}", metadata)


def _language_of_row(language: str, seed: int, i: int) -> str:
    """Return the language of a row; with ``both``, the row is that of one language with the same seed."""
    return Random(f"language-{seed}-{i}").choice(LANGUAGE_CODES) if language == "both" else language


def _generate_novel_row(seed: int, i: int, names: str, forms: str, language: str) -> Example:
    from sftchat_relation import novel  # here, because listing plugins does not need its tables of sentences, which take 30 ms to import
    from sftchat_relation.language import LANGUAGES

    prefix = f"novel-{names}-{forms}-{seed}"
    metadata = {"preset": "novel", "names": names, "forms": forms}
    if language != "zh":
        prefix = f"novel-{language}-{names}-{forms}-{seed}"
        metadata["language"] = language
    # Random hashes a text seed with SHA-512, so that the random streams of rows are independent
    prompt, gold, ids = novel.compose(Random(f"{prefix}-{i}"), names, forms, LANGUAGES[language])
    return Example((Message(role="user", content=prompt),), gold, f"{prefix}-{i:06d}", {**metadata, "form_ids": ids})
