"""Few-shot examples: solved examples of a task that are inserted before the turns of an item."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from sftchat.data.duplicates import prompt_text
from sftchat.data.formats import examples_hash
from sftchat.text import words
from sftchat.types import Example, Message

Choice = Literal["first", "nearest"]


@dataclass(frozen=True)
class FewShot:
    """Chooses few-shot examples for an item and returns their turns; the value of ``Task.few_shot``.

    An example with the id or the prompt of the item is never chosen, so that an evalset can be its own pool.

    Attributes:
        k: Number of examples, at least 1.
        choose: ``first``: those at the start of the pool, the same for all items; ``nearest``: those whose prompts are most similar to the item's,
            the most similar one last.
        pool: Examples with gold replies; None until the evalset is known, which is then the pool.
        from_evalset: Whether the pool is the evalset, which the settings then need not identify.
    """

    k: int
    choose: Choice = "first"
    pool: tuple[Example, ...] | None = None
    from_evalset: bool = False

    def __call__(self, example: Example) -> tuple[Message, ...]:
        """Return the turns to insert before those of an item: of each chosen example its turns, without a system prompt, and its gold reply."""
        prompt = prompt_text(example)
        others = (
            (index, other)
            for index, other in self._ordered(prompt)
            if not (other.id and other.id == example.id) and self._prompts[index] != prompt
        )
        chosen = [other for (_, other), _ in zip(others, range(self.k), strict=False)]
        if self.choose == "nearest":
            chosen.reverse()
        return tuple(message for shot in chosen for message in shot.conversation if message["role"] != "system")

    def with_pool(self, examples: Sequence[Example], *, from_evalset: bool = False) -> FewShot:
        """Return the same choice from another pool; examples without a gold reply are left out."""
        return replace(self, pool=tuple(example for example in examples if example.gold), from_evalset=from_evalset)

    @property
    def settings(self) -> dict[str, Any]:
        """The choice as JSON values, for the comparison with a baseline."""
        pool = "evalset" if self.from_evalset else examples_hash(self.pool or ())[:16]
        return {"k": self.k, "choose": self.choose, "pool": pool}

    @property
    def _examples(self) -> tuple[Example, ...]:
        return self.pool or ()

    @cached_property
    def _prompts(self) -> list[str]:
        return [prompt_text(example) for example in self._examples]

    def _ordered(self, prompt: str) -> list[tuple[int, Example]]:
        numbered = list(enumerate(self._examples))
        if self.choose == "first":
            return numbered
        similarities = self._index.similarities(prompt)
        return sorted(numbered, key=lambda entry: (-similarities[entry[0]], entry[0]))

    @cached_property
    def _index(self) -> _SimilarityIndex:
        return _SimilarityIndex(self._prompts)


class _SimilarityIndex:
    """Cosine similarity of TF-IDF vectors of words, with 1 + log(tf) and log(n / df), from an inverted index.

    Args:
        texts: The texts to search.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words(text)) for text in texts]
        occurrences = Counter(word for count in counts for word in count)
        self._size = len(texts)
        self._rarity = {word: math.log(1 + len(texts) / number) for word, number in occurrences.items()}
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, count in enumerate(counts):
            for word, weight in self._unit_vector(count).items():
                self._postings[word].append((index, weight))

    def similarities(self, text: str) -> list[float]:
        """Return the similarity of a text to each indexed one, from 0 to 1."""
        sums = [0.0] * self._size
        for word, weight in self._unit_vector(Counter(words(text))).items():
            for index, other_weight in self._postings.get(word, ()):
                sums[index] += weight * other_weight
        return sums

    def _unit_vector(self, count: Counter[str]) -> dict[str, float]:
        vector = {word: (1 + math.log(number)) * self._rarity[word] for word, number in count.items() if word in self._rarity}
        length = math.sqrt(sum(weight * weight for weight in vector.values()))
        return {word: weight / length for word, weight in vector.items()} if length else {}
