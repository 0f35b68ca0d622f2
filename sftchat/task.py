"""Task and Metric: how data are generated, rendered, trained on and scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from sftchat._util.plugin_calls import Malformed, call_plugin, copy_example, copy_messages, copy_reply, copy_score, copy_texts, to_number
from sftchat._util.renamed import former_names
from sftchat.thinking import has_only_thoughts, separate_thoughts
from sftchat.types import Example, Message, Reply, SamplingParams, Score

Thinking = Literal["drop", "keep", "off"]
"""What scorers get of a reasoning model's reply: ``drop``: the answer without the thoughts; ``keep``: both; ``off``: like ``drop``, and the chat
template is asked for replies without thoughts."""
UNFINISHED_THOUGHTS = "unfinished_thoughts"
"""Error class of a wrong reply that has thoughts and no answer."""
NAME = re.compile(r"[a-z][a-z0-9_-]*")


def ratio(numerator: Any, denominator: Any, empty: float = 0.0) -> Any:
    """Divide numbers or NumPy arrays; ``empty`` is the result where the denominator is 0.

    Args:
        numerator: A number or an array.
        denominator: A number or an array of the same shape.
        empty: The result where the denominator is 0, such as the precision of a model that predicts nothing.
    """
    if isinstance(denominator, (int, float)):
        return numerator / denominator if denominator else empty
    import numpy as np  # only imported for arrays: `sftchat plugins` must start without numpy

    is_zero = denominator == 0
    return np.where(is_zero, empty, numerator / np.where(is_zero, 1, denominator))


@former_names(items="per_item_rate")
@dataclass(frozen=True)
class Metric:
    """A metric: a function of the sums of the items' counts, so that the bootstrap only has to sum the counts of the resampled items.

    Attributes:
        name: Name, as printed and as typed in ``--min NAME=X``.
        function: Takes the sums of ``Score.stats`` by key (numbers, or arrays of one shape) and returns the value of the same shape.
            It must be a function of the sums alone: F1 is ``2·tp / (pred + gold)``, never a mean of items' F1.
        description: One line for tables.
        higher_is_better: False for error rates.
        stats: The keys that ``function`` reads.
        per_item_rate: Whether every item adds 0 or 1 to the numerator and 1 to the denominator; the interval is then Wilson's.
    """

    name: str
    function: Callable[[Mapping[str, Any]], Any]
    description: str = ""
    higher_is_better: bool = True
    stats: tuple[str, ...] = ()
    per_item_rate: bool = False


def rate(name: str, stat: str, description: str = "", total: str = "n") -> Metric:
    """Return a metric that is the share of items whose count ``stat`` is 1, not 0; ``total`` names a count that is 1 for every item."""
    return Metric(name, lambda sums: ratio(sums[stat], sums[total]), description, stats=(stat, total), per_item_rate=True)


@dataclass(frozen=True)
class TrainingDefaults:
    """A task's defaults for training; None uses the program's own default.

    Attributes:
        learning_rate: Peak learning rate.
        epochs: Passes over the data.
        batch_size: Rows of one forward pass.
        max_length: Maximum row length in tokens, prompt and reply together.
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
class ForgettingConfig:
    """Configuration of ``sftchat demo --model MODEL`` for a task: MODEL learns the task and forgets another, and keeps it with replayed rows.

    The replayed rows are prompts of the other task's generator with MODEL's own replies.

    Attributes:
        rows: Number of rows to generate and train on.
        evalset: Name of the task's evalset.
        other_task: Name of the task that is forgotten; its plugin must be installed.
        other_evalset: Name of its evalset.
        items: Maximum number of items of each evalset.
        questions: Questions that all models answer.
        options: Options of the generator, as text.
        settings: Hyper-parameters that differ from the defaults, by their names in ``TrainingConfig``.
        other_options: Options of the other task's generator, as text.
        replay: Share of the replayed rows in the second training, above 0 and below 1.
    """

    rows: int
    evalset: str
    other_task: str
    other_evalset: str
    items: int
    questions: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    other_options: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    replay: float = 0.2


@dataclass(frozen=True)
class DemoConfig:
    """Configuration of ``sftchat demo`` for a task, which trains the embedded model for minutes on a CPU.

    Attributes:
        rows: Number of rows to generate and train on.
        items: Number of items in each held-out set.
        held_out: Title of each held-out set, with its generator options, such as ``{"new names": {"names": "test"}}``.
        epochs: Passes over the rows.
        seconds: Time limit of the training; on a machine that would take longer, ``epochs`` is reduced.
        forgetting: Configuration of the demo with other models than the embedded one; None when there is none.
    """

    rows: int
    items: int
    held_out: Mapping[str, Mapping[str, Any]]
    epochs: float = 1.0
    seconds: float = 145.0
    forgetting: ForgettingConfig | None = None


def no_defaults(method: str, parameters: int) -> TrainingDefaults:
    """Return no defaults, for tasks without a trainer hook."""
    return TrainingDefaults()


def no_problems(example: Example) -> Iterable[str]:
    """Return no problems, for tasks without a row check."""
    return ()


def no_turns(example: Example) -> Iterable[Message]:
    """Return no turns, for tasks without few-shot examples."""
    return ()


@former_names(problems="validate_row")
@dataclass(frozen=True)
class Task:
    """Definition of a task.

    Attributes:
        name: Lower-case letters, digits, ``-`` and ``_``; unique among all plugins.
        description: One line.
        generate: ``generate(n, seed, **options)`` yields ``n`` examples; the same arguments yield the same examples everywhere.
            Keyword-only parameters are the options of ``sftchat data generate --option name=value``.
        score: Scores one reply to an example; must not raise for any reply. It receives copies, and its result is copied.
        metrics: At least one. The first is the primary metric: it selects checkpoints and decides gates.
        template: Name of the chat template for models without their own.
        sampling: Sampling parameters for scoring.
        training_defaults: The trainer hook: ``training_defaults(method, parameters)`` for the method (``"full"``, ``"lora"``, …)
            and the number of parameters of the base model. The user's options take precedence.
        validate_row: Yields the problems of a row, one line each.
        evalsets: Evalsets by name, for ``sftchat eval --evalset NAME``; the first is the default and the one of the demo.
        row_format: Default row format of ``sftchat data generate``.
        demonstration: Configuration of ``sftchat demo``; None when a small model cannot learn the task in minutes.
        system: System prompt of the rows that have none, in training, evaluations and chats.
        few_shot: Returns the turns to insert before those of an example in an evaluation: solved examples of the task.
        raw_prompt: Whether an evaluation sends the text of the last user turn without a chat template, for base models.
        samples: Number of replies to each item of an evaluation; above 1 they must be sampled with a temperature.
        thinking: What the scorer gets of a reply with thoughts.
        row_options: Options for reading the task's files of rows, as keyword arguments of ``sftchat.data.row_options.RowOptions``.
        training_files: Files to train on when no other rows are given; empty to use the generator.
        must_pass: Ids of items that must be right for a gate to pass.
        continuations: Returns the texts whose likelihood after the prompt an evaluation computes instead of generating a reply, see
            ``sftchat.likelihood``; may raise ``DataError`` for a row. None generates replies.
        ended_continuations: Whether that likelihood includes the end-of-reply token's.
        needs_gold: Whether a row without a gold reply is refused; False for scorers that can do without, such as a judge.
        settings: Further settings that affect scores, such as the arguments of the scorer; part of the comparison with a baseline.
    """

    name: str
    description: str
    generate: Callable[..., Iterable[Example]]
    score: Callable[[Example, Reply], Score]
    metrics: tuple[Metric, ...]
    template: str = "chatml"
    sampling: SamplingParams = field(default_factory=SamplingParams)
    training_defaults: Callable[[str, int], TrainingDefaults] = no_defaults
    validate_row: Callable[[Example], Iterable[str]] = no_problems
    evalsets: Mapping[str, Path] = field(default_factory=dict)
    row_format: str = "messages"
    demonstration: DemoConfig | None = None
    system: str = ""
    few_shot: Callable[[Example], Iterable[Message]] = no_turns
    raw_prompt: bool = False
    samples: int = 1
    thinking: Thinking = "drop"
    row_options: Mapping[str, Any] = field(default_factory=dict)
    training_files: tuple[str, ...] = ()
    must_pass: tuple[str, ...] = ()
    continuations: Callable[[Example], Iterable[str]] | None = None
    ended_continuations: bool = False
    needs_gold: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate names and metrics; copy the collections."""
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "evalsets", {str(name): Path(path) for name, path in self.evalsets.items()})
        if self.samples < 1:
            raise ValueError(f"task '{self.name}' has samples = {self.samples}, must be at least 1")
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

    def for_training(self) -> Task:
        """Return the task as it is trained and used in a chat: one reply to each prompt, which has a template and no few-shot turns."""
        return replace(self, few_shot=no_turns, raw_prompt=False, samples=1)


def prompt_messages(task: Task, example: Example) -> tuple[Message, ...]:
    """Return the conversation that an evaluation sends for an example: with the task's system prompt and few-shot turns.

    Raises:
        PluginError: When ``few_shot`` raises, or yields anything but turns.
    """
    messages = example.with_system(task.system).messages
    if task.few_shot is no_turns:
        return messages

    def call_few_shot() -> tuple[Message, ...]:
        return copy_messages(task.few_shot(copy_example(example)))

    shots = call_plugin(f"few_shot of task '{task.name}'", call_few_shot, doing=lambda: f"for item '{example.id or example.source}'")
    start = 1 if messages and messages[0]["role"] == "system" else 0
    return (*messages[:start], *shots, *messages[start:])


def answer_of(task: Task, reply: Reply) -> Reply:
    """Return what the scorer gets of a reply: unless the task keeps thoughts, the answer alone, with the thoughts in ``Reply.thoughts``."""
    return separate_thoughts(reply) if _drops_thoughts(task, reply) else reply


def _drops_thoughts(task: Task, reply: Reply) -> bool:
    return task.thinking != "keep" and bool(reply.thoughts or "think>" in reply.text)


def score_reply(task: Task, example: Example, reply: Reply) -> Score:
    """Score one reply with the task's scorer, which receives copies; the result is copied too.

    Unless the task keeps thoughts, the scorer gets the answer alone, with the thoughts in ``Reply.thoughts``; a wrong reply that has no answer
    yet gets ``UNFINISHED_THOUGHTS`` as its only error class. Of several samples, only the first is scored.

    Raises:
        PluginError: When the scorer raises or returns anything but a valid score.
    """
    unfinished = _drops_thoughts(task, reply) and has_only_thoughts(reply)
    reply = answer_of(task, reply)

    def call_scorer() -> Score:
        return copy_score(task.score(copy_example(example), copy_reply(reply)))

    score = call_plugin(f"the scorer of task '{task.name}'", call_scorer, doing=lambda: f"on item '{example.id or example.source}'")
    return replace(score, errors=(UNFINISHED_THOUGHTS,)) if unfinished and score.errors else score


def metric_value(metric: Metric, sums: Mapping[str, float]) -> float:
    """Compute a metric from summed counts, of one reply or of many.

    Raises:
        PluginError: When the metric cannot be computed from the scorer's counts, or is not a finite number.
    """

    def compute() -> float:
        value = metric.function(dict(sums))
        try:
            return float(to_number(value))
        except Malformed as error:
            raise Malformed(f"is {error} for {_format_sums(sums)}, must be a finite number") from None

    return call_plugin(f"metric '{metric.name}'", compute, doing=lambda: f"for {_format_sums(sums)}")


@dataclass(frozen=True)
class ReplyScore:
    """Score of one reply, for display.

    Attributes:
        metric: Name of the task's primary metric.
        value: Metric value of this reply; None when the item has no gold reply.
        errors: Error classes from the scorer; without a gold reply, the problems that the task's row check finds in the reply.
        answer: The answer that the scorer extracted from the reply.
    """

    metric: str
    value: float | None = None
    errors: tuple[str, ...] = ()
    answer: str = ""

    @property
    def right(self) -> bool:
        """Whether the task finds no error in the reply."""
        return not self.errors

    @property
    def text(self) -> str:
        """Short text to show below the reply: ``F1 0.83: missing``, ``no gold, well-formed``."""
        if self.value is None:
            return f"no gold; would be refused as one: {', '.join(self.errors)}" if self.errors else "no gold, well-formed"
        value = f"{self.metric} {self.value:.2f}"
        return f"{value}: {', '.join(self.errors)}" if self.errors else value


def primary_score(task: Task, score: Score) -> ReplyScore:
    """Compute the primary metric of a single reply.

    Raises:
        PluginError: When the metric cannot be computed from the scorer's counts.
    """
    return ReplyScore(task.metric.name, metric_value(task.metric, score.stats), score.errors, score.answer)


def _format_sums(sums: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {count:g}" for key, count in sums.items())


def reward(task: Task, score: Score) -> float:
    """Return the primary metric of a single reply, negated if lower is better.

    Raises:
        PluginError: When the metric cannot be computed from the scorer's counts.
    """
    value = metric_value(task.metric, score.stats)
    return value if task.metric.higher_is_better else -value


def row_problems(task: Task, example: Example) -> tuple[str, ...]:
    """Return the problems that a task finds in a row.

    Raises:
        PluginError: When the check raises, or yields anything but text.
    """

    def find_problems() -> tuple[str, ...]:
        return copy_texts(task.validate_row(copy_example(example)), "problems")

    return call_plugin(f"the check of task '{task.name}'", find_problems, doing=lambda: f"on {example.source or example.id or 'a row'}")


def training_defaults(task: Task, method: str, parameters: int) -> TrainingDefaults:
    """Call a task's trainer hook and check its result.

    Args:
        task: The task.
        method: ``full``, ``lora``, ….
        parameters: Number of parameters of the base model; 0 when not yet known.

    Raises:
        PluginError: When the hook raises, or returns anything but ``TrainingDefaults`` of numbers.
    """

    def get_defaults() -> TrainingDefaults:
        defaults = task.training_defaults(method, parameters)
        if not isinstance(defaults, TrainingDefaults):
            raise Malformed(f"returns {type(defaults).__name__}, must return sftchat.TrainingDefaults")
        return TrainingDefaults(**{item.name: _check_setting(item.name, getattr(defaults, item.name)) for item in fields(TrainingDefaults)})

    return call_plugin(f"the trainer hook of task '{task.name}'", get_defaults)


def _check_setting(name: str, value: object) -> Any:
    """Return a value of ``TrainingDefaults`` as a built-in number; raise ``Malformed`` if it is not a number, or not a whole one where required."""
    if value is None:
        return None
    try:
        number = to_number(value)
    except Malformed as error:
        raise Malformed(f"wants {name} {error}, must be a number") from None
    if name not in ("learning_rate", "epochs") and not isinstance(number, int):
        raise Malformed(f"wants {name} {number}, must be a whole number")
    return number
