"""Scorers as Python users give them: by name, with arguments, as an object or as a function."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sftchat.api.rows import gold_labels
from sftchat.data.row_options import RowOptions
from sftchat.errors import UsageError
from sftchat.evaluation.evalset import evalset_from_rows, read_evalset
from sftchat.scorers import make_scorer
from sftchat.scorers.base import Scorer
from sftchat.scorers.combine import function
from sftchat.types import Example, Reply

ScorerLike = str | Mapping[str, Any] | Scorer | Callable[[Example, Reply], Any]
"""Name of a scorer, its name and arguments, a scorer, or a function of an example and a reply that returns a bool, a number or a ``Score``."""


def to_scorer(scorer: ScorerLike) -> Scorer:
    """Return a scorer.

    Args:
        scorer: See ``ScorerLike``.

    Raises:
        UsageError: When there is no such scorer, an argument of it is wrong, or it is something else.
    """
    if isinstance(scorer, Scorer):
        return scorer
    if isinstance(scorer, str):
        return make_scorer(scorer)
    if isinstance(scorer, Mapping):
        arguments = dict(scorer)
        return make_scorer(str(arguments.pop("name", "")), arguments)
    if callable(scorer):
        return function(scorer)
    raise UsageError(f"scorer is {type(scorer).__name__}, must be a name, a dict with name and arguments, a scorer or a function")


def with_labels(scorer: ScorerLike, evalset: Any, row_options: RowOptions) -> ScorerLike:
    """Return the scorer ``choice`` with the gold replies of the evalset as labels, if it has none; any other scorer as it is."""
    arguments = {"name": scorer} if isinstance(scorer, str) else dict(scorer) if isinstance(scorer, Mapping) else {}
    if arguments.get("name") != "choice" or "labels" in arguments or evalset is None:
        return scorer
    if isinstance(evalset, (str, os.PathLike)):
        if not Path(evalset).is_file():
            return scorer
        examples = read_evalset(Path(evalset), row_options=row_options).examples
    else:
        examples = evalset_from_rows(evalset, row_options=row_options).examples
    return {**arguments, "labels": gold_labels(examples, 'scorer={"name": "choice", "labels": [...]}')}
