"""Generator of rows of seven kinds whose answers a program can check; deterministic in options and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from importlib import import_module
from random import Random
from typing import TYPE_CHECKING, cast

from sftchat.types import Example, Message
from sftchat_general.words import LANGUAGES, SPLITS

if TYPE_CHECKING:
    from sftchat_general.draft import Draft, RowBuilder

_MODULES = {
    "identity": "identity",
    "arithmetic": "arithmetic",
    "counting": "counting",
    "ordering": "ordering",
    "rewriting": "rewriting",
    "format": "layout",
    "reference": "reference",
}
"""Module of each kind, imported when rows are generated, so that listing plugins is fast."""

KINDS = tuple(_MODULES)
"""Kinds of rows."""

MAX_DRAWS = 25
"""Maximum number of draws to avoid a duplicate row; when all are duplicates, the options allow too few different rows."""

LARGEST_RANGE = range(10, 1001)
"""Valid values of the option ``largest``."""


def generate(
    n: int,
    seed: int,
    *,
    language: str = "both",
    kinds: Sequence[str] = KINDS,
    split: str = "train",
    phrasings: str = "",
    largest: int = 20,
    name: str = "",
    maker: str = "",
) -> Iterator[Example]:
    """Yield rows lazily; row i depends on the options, the seed and i, not on ``n``.

    Held out for ``test`` are words, names, colours, cities, pairs of operands, sets of numbers, days and months to be sorted, steps from one day
    or month to another, remembered numbers, and phrasings: no row of one split uses one of the other's. Not held out are the persona, the
    patterns, verbs and places of sentences to be rewritten, the ages, and the names of days and months. Rows are repeated
    only when the options allow no other row; that is soon for identity, which has few questions.

    Args:
        n: Number of rows.
        seed: Any integer; rows of different seeds are independent.
        language: ``zh``, ``en`` or ``both``.
        kinds: Kinds of rows, from ``KINDS``; all equally likely.
        split: ``train``, or ``test`` for held-out words, numbers and phrasings.
        phrasings: ``train`` or ``test`` to select the phrasings independently of words and numbers; empty for those of the split. Questions of
            identity consist of phrasings only.
        largest: The largest operand or result of arithmetic, from 10 to 1000.
        name: Name of the assistant, in both languages; empty for the default persona.
        maker: Name of its maker, likewise.

    Raises:
        ValueError: When an option is invalid; one lower-case line.
    """
    from sftchat_general.draft import PERSONA, Persona, RowBuilder

    if n < 0:
        raise ValueError(f"n is {n}, must be 0 or more")
    for option, value, values in (
        ("language", language, ("both", *LANGUAGES)),
        ("split", split, SPLITS),
        ("phrasings", phrasings or split, SPLITS),
    ):
        if value not in values:
            raise ValueError(f"{option} is {value!r}, must be {' or '.join(values)}")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"kinds has {', '.join(unknown) or 'nothing'}, must be some of {', '.join(KINDS)}")
    if largest not in LARGEST_RANGE:
        raise ValueError(f"largest is {largest}, must be from {LARGEST_RANGE.start} to {LARGEST_RANGE.stop - 1}")
    persona = Persona(
        {key: name or value for key, value in PERSONA.name.items()}, {key: maker or value for key, value in PERSONA.maker.items()}
    )
    languages = LANGUAGES if language == "both" else (language,)

    def draw(rng: Random) -> tuple[str, str, Draft]:
        kind, row_language = rng.choice(kinds), rng.choice(languages)
        return kind, row_language, _composer(kind)(RowBuilder(rng, row_language, split, phrasings or split, largest, persona))

    return _generate_rows(n, f"general-{split}-{phrasings or split}-{seed}", draw)


def _composer(kind: str) -> Callable[[RowBuilder], Draft]:
    return cast("Callable[[RowBuilder], Draft]", import_module(f"sftchat_general.{_MODULES[kind]}").compose)


def _generate_rows(n: int, prefix: str, draw: Callable[[Random], tuple[str, str, Draft]]) -> Iterator[Example]:
    """Yield rows with ids that start with ``prefix``; a row repeats an earlier one only after ``MAX_DRAWS`` draws.

    ``draw`` returns kind, language and draft of a row.
    """
    digests: set[int] = set()
    for i in range(n):
        for attempt in range(MAX_DRAWS):
            # Random hashes a text seed with SHA-512, so that the random streams of rows are independent
            kind, language, draft = draw(Random(f"{prefix}-{i}-{attempt}"))
            digest = int.from_bytes(blake2b("\n".join(draft.turns).encode(), digest_size=8).digest())
            if digest not in digests:
                break
        digests.add(digest)
        messages = tuple(Message(role="assistant" if turn % 2 else "user", content=text) for turn, text in enumerate(draft.turns))
        metadata = {
            "kind": kind,
            "language": language,
            "form": draft.form,
            "constraints": [dict(constraint) for constraint in draft.constraints],
            "facts": dict(draft.facts),
        }
        yield Example(messages, draft.gold, f"{prefix}-{i:06d}", metadata)
