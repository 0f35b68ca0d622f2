"""Ready-made scorers: functions that return a ``Scorer``, for tasks in files, for ``sftchat eval --scorer`` and for plugins.

Each is imported on first use. A plugin's task takes the parts of a scorer: ``Task(score=scorer.score, metrics=scorer.metrics, …)``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from sftchat._util.parsing import from_json
from sftchat.errors import UsageError, unknown_name_message

if TYPE_CHECKING:
    from sftchat.scorers.base import Scorer
    from sftchat.scorers.code_tests import python_tests
    from sftchat.scorers.combine import all_of, any_of, function, weighted
    from sftchat.scorers.json_form import json_schema
    from sftchat.scorers.json_values import json_fields
    from sftchat.scorers.labels import choice
    from sftchat.scorers.likelihood import multiple_choice, perplexity
    from sftchat.scorers.match import contains, exact, regex
    from sftchat.scorers.numbers import numeric
    from sftchat.scorers.numerals import parse_numeral
    from sftchat.scorers.overlap import chrf, rouge_l, rouge_l_f1
    from sftchat.scorers.sets import set_f1
    from sftchat.scorers.sql import sql_result
    from sftchat.scorers.tool_calls import tool_call
    from sftchat.scorers.translation import bleu

__all__ = [
    "Scorer",
    "all_of",
    "any_of",
    "bleu",
    "choice",
    "chrf",
    "contains",
    "exact",
    "function",
    "json_fields",
    "json_schema",
    "make_scorer",
    "multiple_choice",
    "numeric",
    "parse_numeral",
    "perplexity",
    "python_tests",
    "regex",
    "rouge_l",
    "rouge_l_f1",
    "set_f1",
    "sql_result",
    "tool_call",
    "weighted",
]

_MODULES = {
    "sftchat.scorers.base": ("Scorer",),
    "sftchat.scorers.code_tests": ("python_tests",),
    "sftchat.scorers.combine": ("all_of", "any_of", "function", "weighted"),
    "sftchat.scorers.json_form": ("json_schema",),
    "sftchat.scorers.json_values": ("json_fields",),
    "sftchat.scorers.labels": ("choice",),
    "sftchat.scorers.likelihood": ("multiple_choice", "perplexity"),
    "sftchat.scorers.match": ("contains", "exact", "regex"),
    "sftchat.scorers.numbers": ("numeric",),
    "sftchat.scorers.numerals": ("parse_numeral",),
    "sftchat.scorers.overlap": ("chrf", "rouge_l", "rouge_l_f1"),
    "sftchat.scorers.sets": ("set_f1",),
    "sftchat.scorers.sql": ("sql_result",),
    "sftchat.scorers.tool_calls": ("tool_call",),
    "sftchat.scorers.translation": ("bleu",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_WITHOUT_NAME = ("Scorer", "function", "parse_numeral", "rouge_l_f1")
NAMES = tuple(sorted({*_MODULE_OF} - {*_WITHOUT_NAME}))
"""Names of the scorers, as written in ``--scorer`` and in task files."""


def __getattr__(name: str) -> Any:
    """Import a scorer on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sftchat.scorers' has no attribute '{name}'")
    value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
    return value


def make_scorer(name: str, arguments: Mapping[str, Any] | None = None) -> Scorer:
    """Return the scorer of a name.

    Args:
        name: One of ``NAMES``.
        arguments: Its arguments as JSON values; a list of scorers is a list of objects with ``name`` and arguments.

    Raises:
        UsageError: When there is no such scorer, or an argument is unknown, missing or of another type.
    """
    if name not in NAMES:
        raise UsageError(unknown_name_message("scorer", name, NAMES))
    make: Callable[..., Scorer] = __getattr__(name)
    parameters, hints = inspect.signature(make).parameters, get_type_hints(make)
    values = dict(arguments or {})
    for argument in values:
        if argument not in parameters:
            raise UsageError(f"scorer '{name}': {unknown_name_message('argument', argument, parameters)}")
        try:
            values[argument] = from_json(hints[argument], values[argument])
        except ValueError as error:
            raise UsageError(f"scorer '{name}': argument '{argument}': {str(error).removeprefix('the whole ')}") from None
    for parameter in parameters.values():
        if parameter.default is inspect.Parameter.empty and parameter.name not in values:
            raise UsageError(f"scorer '{name}' needs the argument '{parameter.name}'")
    return make(**values)


def for_raw_prompts(scorer: Scorer) -> Scorer:
    """Return a scorer of likelihoods for prompts without a chat template: with its delimiter before each text; any other scorer unchanged."""
    if scorer.continuations is None or scorer.raw_prompt or scorer.name not in NAMES:
        return scorer
    return make_scorer(scorer.name, {**scorer.settings, "raw": True})
