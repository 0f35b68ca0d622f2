"""A task: one object that says how data is made, rendered, trained on and scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sftchat._util.returned import plain_example, plain_number, plain_reply, plain_score, plain_texts
from sftchat._util.third_party import Malformed, call_plugin
from sftchat.types import Example, Reply, SamplingParams, Score

NAME = re.compile(r"[a-z][a-z0-9_-]*")


def ratio(numerator: Any, denominator: Any, empty: float = 0.0) -> Any:
    """Divide, with a stated value where the denominator is 0; for numbers and for numpy arrays alike.

    Args:
        numerator: A number or an array.
        denominator: A number or an array of the same shape.
        empty: The value of 0/0.
    """
    if isinstance(denominator, (int, float)):
        return numerator / denominator if denominator else empty
    import numpy as np  # only reached with arrays: `sftchat plugins` must not pay for numpy

    zero = denominator == 0
    return np.where(zero, empty, numerator / np.where(zero, 1, denominator))


@dataclass(frozen=True)
class Metric:
    """A figure computed from summed counts, so that it can be resampled by adding rows.

    Attributes:
        name: As printed and as typed in ``--min NAME=X``.
        function: Takes the sums of ``Score.stats`` by key (numbers, or arrays of one shape) and returns the value of the same shape.
            It must be a function of the sums alone: F1 is ``2·tp / (pred + gold)``, never a mean of items' F1.
        description: One line for the reader of a table.
        higher_is_better: False for error rates.
        stats: The keys that ``function`` reads.
        items: Every item contributes 0 or 1 to the numerator and 1 to the denominator: a rate, whose interval is Wilson's.
    """

    name: str
    function: Callable[[Mapping[str, Any]], Any]
    description: str = ""
    higher_is_better: bool = True
    stats: tuple[str, ...] = ()
    items: bool = False


def rate(name: str, stat: str, description: str = "", total: str = "n") -> Metric:
    """A metric that is the share of items for which ``stat`` is 1."""
    return Metric(name, lambda sums: ratio(sums[stat], sums[total]), description, stats=(stat, total), items=True)


@dataclass(frozen=True)
class TrainingDefaults:
    """What a task wants of training where the user says nothing; None leaves the program's own default.

    Attributes:
        learning_rate: Peak learning rate.
        epochs: Passes over the data.
        batch_size: Rows of one forward pass.
        max_length: Longest row in tokens, prompt and reply together.
        lora_rank: Rank of the adapter.
        rows: Rows drawn from the generator when no data is given.
    """

    learning_rate: float | None = None
    epochs: float | None = None
    batch_size: int | None = None
    max_length: int | None = None
    lora_rank: int | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Demonstration:
    """How ``sftchat demo`` shows a task on the embedded model: minutes on a CPU, nothing downloaded.

    Attributes:
        rows: Rows to draw from the generator and train on.
        items: Items in each held-out set.
        held_out: Generator options of each held-out set by the title it is shown under, such as ``{"new names": {"names": "test"}}``.
        epochs: Passes over the rows.
        seconds: How long training may take; a machine that would take longer sees part of a pass.
    """

    rows: int
    items: int
    held_out: Mapping[str, Mapping[str, Any]]
    epochs: float = 1.0
    seconds: float = 145.0


def no_defaults(method: str, parameters: int) -> TrainingDefaults:
    """The trainer hook of a task that wants nothing special."""
    return TrainingDefaults()


def no_problems(example: Example) -> Iterable[str]:
    """The row check of a task that has none of its own."""
    return ()


@dataclass(frozen=True)
class Task:
    """Everything sftchat needs to know of a task.

    Attributes:
        name: Lower-case letters, digits, ``-`` and ``_``; unique among all plugins.
        description: One line.
        generate: ``generate(n, seed, **options)`` yields ``n`` examples; the same arguments yield the same examples everywhere.
            Keyword-only parameters are the options of ``sftchat data generate --option name=value``.
        score: Judges one reply against its example. Never raises, whatever the reply is. It is given copies, and what it returns is copied.
        metrics: At least one; the first is the primary one, which picks checkpoints and gates.
        template: Name of the chat template for models that have none of their own.
        sampling: How replies are generated for scoring.
        training_defaults: The trainer hook: ``training_defaults(method, parameters)`` for the method (``"full"``, ``"lora"``, …)
            and the number of parameters of the base model. The user's own flags win.
        problems: What is wrong with a row in the eyes of the task, one line each.
        evalsets: Gold sets by name; the first is what ``sftchat eval`` scores when no ``--evalset`` is given.
        row_format: The shape of rows that ``sftchat data generate`` writes unless told otherwise.
        demonstration: How ``sftchat demo`` shows the task; None when it cannot be learned by a small model in minutes.
    """

    name: str
    description: str
    generate: Callable[..., Iterable[Example]]
    score: Callable[[Example, Reply], Score]
    metrics: tuple[Metric, ...]
    template: str = "chatml"
    sampling: SamplingParams = field(default_factory=SamplingParams)
    training_defaults: Callable[[str, int], TrainingDefaults] = no_defaults
    problems: Callable[[Example], Iterable[str]] = no_problems
    evalsets: Mapping[str, Path] = field(default_factory=dict)
    row_format: str = "messages"
    demonstration: Demonstration | None = None

    def __post_init__(self) -> None:
        """Refuse a task that could not be typed, tabulated or gated; keep copies of what is listed."""
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "evalsets", {str(name): Path(path) for name, path in self.evalsets.items()})
        if not NAME.fullmatch(self.name):
            raise ValueError(f"task name '{self.name}' must be lower-case letters, digits, '-' and '_', starting with a letter")
        if not self.metrics:
            raise ValueError(f"task '{self.name}' has no metric; the first one gates")
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError(f"task '{self.name}' has two metrics of one name: {', '.join(names)}")

    @property
    def metric(self) -> Metric:
        """The primary metric."""
        return self.metrics[0]


def judge(task: Task, example: Example, reply: Reply) -> Score:
    """Let a task judge one reply; it gets copies, and what it returns is copied.

    Raises:
        PluginError: When the scorer raises or returns something that is no score, though its contract is to judge anything.
    """

    def scored() -> Score:
        return plain_score(task.score(plain_example(example), plain_reply(reply)))

    return call_plugin(f"the scorer of task '{task.name}'", scored, doing=lambda: f"on item '{example.id or example.source}'")


def metric_value(metric: Metric, sums: Mapping[str, float]) -> float:
    """A metric of summed counts, for one reply or for many.

    Raises:
        PluginError: When the metric cannot be computed from what the scorer counts, or is no finite number.
    """

    def computed() -> float:
        value = metric.function(dict(sums))
        try:
            return float(plain_number(value))
        except Malformed as error:
            raise Malformed(f"is {error} for {_listed(sums)}, must be a finite number") from None

    return call_plugin(f"metric '{metric.name}'", computed, doing=lambda: f"for {_listed(sums)}")


def _listed(sums: Mapping[str, float]) -> str:
    """Summed counts in words."""
    return ", ".join(f"{key} {count:g}" for key, count in sums.items())


def reward(task: Task, score: Score) -> float:
    """The primary metric of one reply alone, turned so that more is better.

    Raises:
        PluginError: When the metric cannot be computed from what the scorer counts.
    """
    value = metric_value(task.metric, score.stats)
    return value if task.metric.higher_is_better else -value


def problems_of(task: Task, example: Example) -> tuple[str, ...]:
    """What is wrong with a row in the eyes of its task.

    Raises:
        PluginError: When the check raises, or yields something that is no text.
    """

    def found() -> tuple[str, ...]:
        return plain_texts(task.problems(plain_example(example)), "problems")

    return call_plugin(f"the check of task '{task.name}'", found, doing=lambda: f"on {example.source or example.id or 'a row'}")


def training_defaults(task: Task, method: str, parameters: int) -> TrainingDefaults:
    """What a task wants of training.

    Args:
        task: Whose trainer hook is asked.
        method: ``full``, ``lora``, ….
        parameters: Parameters of the base model; 0 where they are not known yet.

    Raises:
        PluginError: When the hook raises, or returns something else than ``TrainingDefaults`` of numbers.
    """

    def wanted() -> TrainingDefaults:
        given = task.training_defaults(method, parameters)
        if not isinstance(given, TrainingDefaults):
            raise Malformed(f"returns {type(given).__name__}, must return sftchat.TrainingDefaults")
        return TrainingDefaults(**{item.name: _setting(item.name, getattr(given, item.name)) for item in fields(TrainingDefaults)})

    return call_plugin(f"the trainer hook of task '{task.name}'", wanted)


def _setting(name: str, value: object) -> Any:
    """A number that a trainer hook wants; whole where only whole ones make sense."""
    if value is None:
        return None
    try:
        number = plain_number(value)
    except Malformed as error:
        raise Malformed(f"wants {name} {error}, must be a number") from None
    if name not in ("learning_rate", "epochs") and not isinstance(number, int):
        raise Malformed(f"wants {name} {number}, must be a whole number")
    return number
