"""Rows from a task's generator: parse its options and validate its output."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sftchat._util.plugin_calls import Malformed, call_plugin, copy_example, copy_json, iterate_plugin
from sftchat.errors import PluginError, UsageError, message_of, unknown_name_message
from sftchat.task import Task
from sftchat.types import Example

BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
REQUIRED = inspect.Parameter.empty
"""Default of an option without a default."""


def generator_options(task: Task) -> dict[str, Any]:
    """Return the generator's options: keyword-only parameters and their defaults, ``REQUIRED`` for those without."""
    parameters = call_plugin(f"the generator of task '{task.name}'", inspect.signature, task.generate).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def parse_options(task: Task, pairs: Iterable[str]) -> dict[str, Any]:
    """Parse ``name=value`` pairs into arguments of a task's generator, with the types of the defaults.

    Args:
        task: The task.
        pairs: Such as ``"closed=true"``; integers, floats, booleans, text, and comma-separated lists of text.

    Raises:
        UsageError: When a pair has no ``=``, a name is unknown or given twice, or a value has the wrong type.
    """
    defaults = generator_options(task)
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        name = name.replace("-", "_")
        if not equals:
            raise UsageError(f"option '{pair}' has no '='; write it as NAME=VALUE")
        if name not in defaults:
            raise UsageError(unknown_name_message(f"option of task {task.name}", name, defaults))
        if name in options:
            raise UsageError(f"option '{name}' is given twice; give it once")
        options[name] = _convert_option(name, value, defaults[name])
    missing = [name for name, default in defaults.items() if default is REQUIRED and name not in options]
    if missing:
        raise UsageError(f"task '{task.name}' needs the option '{missing[0]}'; give --option {missing[0]}=VALUE")
    return options


def _convert_option(name: str, value: str, default: Any) -> Any:
    if isinstance(default, bool):  # before int, because bool is a subclass of int
        if value.lower() in BOOLEANS:
            return BOOLEANS[value.lower()]
        raise UsageError(f"option '{name}' is '{value}', must be true or false")
    for number_type, type_name in ((int, "a whole number"), (float, "a number")):
        if isinstance(default, number_type):
            try:
                return number_type(value)
            except ValueError:
                raise UsageError(f"option '{name}' is '{value}', must be {type_name}, such as {default}") from None
    if isinstance(default, (tuple, list)):
        return type(default)(part.strip() for part in value.split(",") if part.strip())
    return value


def generate_examples(task: Task, n: int, seed: int, options: Mapping[str, Any] | None = None) -> Iterator[Example]:
    """Yield exactly ``n`` examples of a task's generator; deterministic in its arguments.

    Args:
        task: The task.
        n: Number of examples, at least 1.
        seed: Any integer.
        options: Keyword arguments of the generator, from ``parse_options``.

    Raises:
        UsageError: When the generator rejects an option value.
        PluginError: When the generator raises, or yields another number of examples.
    """
    generator = f"the generator of task '{task.name}'"
    count = 0
    numbers_by_id: dict[str, int] = {}

    def call_generator() -> Iterable[Example]:
        return task.generate(n, seed, **copy_json(dict(options or {})))

    def progress() -> str:
        return f"after {count} rows"

    try:
        items = call_plugin(generator, call_generator, doing=progress, may_refuse=True)
        for item in iterate_plugin(generator, items, doing=progress, may_refuse=True):
            example = call_plugin(generator, copy_example, item, doing=progress)
            if count == n:
                raise PluginError(f"{generator} gave more than the {n} rows it was asked for")
            count += 1
            if example.id and numbers_by_id.setdefault(example.id, count) != count:
                raise PluginError(
                    f"{generator} gave the id '{example.id}' to row {numbers_by_id[example.id]} and to row {count}; "
                    "give every row its own, such as f'{seed}-{index}'"
                )
            yield example
    except PluginError as error:
        # a ValueError before the first row rejects an option value; a later one is a bug of the plugin
        cause = error.__cause__
        if isinstance(cause, ValueError) and not isinstance(cause, Malformed) and count == 0 and options:
            raise UsageError(f"task '{task.name}': {message_of(cause)}") from cause
        raise
    if count < n:
        raise PluginError(f"{generator} gave {count} rows, {n} were asked for")
