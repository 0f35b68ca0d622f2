"""The embedded model is a base model: its pretraining contains no row of a task that ships with sftchat."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
LENGTH = 9
"""Length in characters of a run that two independent sentences hardly ever share."""


@pytest.fixture
def patterns(monkeypatch: pytest.MonkeyPatch) -> Iterable[object]:
    """Import the module of the patterns as the script does."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import nano_patterns

    yield nano_patterns
    for name in ("nano_patterns", "nano_ties"):
        sys.modules.pop(name, None)


def pieces(text: str) -> set[str]:
    """Return every run of `LENGTH` Han characters of a text, without punctuation."""
    runs = re.findall(rf"[一-鿿]{{{LENGTH},}}", re.sub(r"[，。：；、“”？！…]", "", text))
    return {run[at : at + LENGTH] for run in runs for at in range(len(run) - LENGTH + 1)}


def test_no_pattern_has_a_label_of_the_relation_task(patterns: object) -> None:
    import nano_ties

    from sftchat_relation.vocabulary import NOVEL

    labels = {*nano_ties.DIRECTED, *nano_ties.MUTUAL, *patterns.DEEDS, *patterns.MUTUAL}  # type: ignore[attr-defined]
    assert labels & set(NOVEL) == set()


def test_no_pattern_shares_a_sentence_with_the_relation_task(patterns: object) -> None:
    from sftchat_relation.forms import DISTRACTOR_FORMS, GROUP_FORMS, RELATION_FORMS

    forms = [form.text for table in (DISTRACTOR_FORMS, GROUP_FORMS, RELATION_FORMS) for rows in table.values() for form in rows]
    fixed = {piece for form in forms for part in re.split(r"\{\w+\}|[\[\]|]", form) for piece in pieces(part)}
    rng = random.Random(0)
    made = {piece for _ in range(4000) for piece in pieces("".join(patterns.scenes(rng) + patterns.ties(rng)))}  # type: ignore[attr-defined]
    assert len(fixed) > 1000
    assert sorted(fixed & made) == []


def test_a_pattern_is_the_same_for_the_same_seed(patterns: object) -> None:
    one, two = random.Random(5), random.Random(5)
    assert [patterns.ties(one) for _ in range(50)] == [patterns.ties(two) for _ in range(50)]  # type: ignore[attr-defined]
