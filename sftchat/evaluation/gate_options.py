"""The options of the gate as typed, and as parsed for one task: metrics to compare, floors, limits, must-pass items, in the tiers block and warn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sftchat.errors import DataError, UsageError, unknown_name_message
from sftchat.evaluation.evalset import parse_ids
from sftchat.evaluation.limits import check_limits
from sftchat.task import Metric, Task

MARGIN, MIN_DROP = 2.0, 0.5
"""Defaults, in points."""
TierName = Literal["block", "warn"]
"""Whether a rule that is not met fails the gate, or is only reported."""


@dataclass(frozen=True)
class GatedMetric:
    """A metric that the gate compares with the baseline.

    Attributes:
        metric: Name of the metric.
        margin: The outcome is ``fine`` only when a drop of more than this many points is excluded; above 0.
        min_drop: A drop of fewer points is no regression even when it is significant; 0 or more.
    """

    metric: str
    margin: float = MARGIN
    min_drop: float = MIN_DROP


@dataclass(frozen=True)
class GateConfig:
    """Everything that can change the exit code.

    Attributes:
        gated: Metrics compared with the baseline.
        floors: Minimum value, by metric.
        lower_floors: Minimum of the lower bound of the 95 % interval, by metric.
        must_pass: Ids of items that must be right.
        strict: Whether the exit code is not 0 for inconclusive comparisons and changed item sets either.
        partial: Whether only the items with a reply are scored, so that nothing is proven for the others.
        limits: Maximum of a measure of ``limits.MEASURES``, by name.
        upper_limits: Maximum of the upper bound of its 95 % interval, by name.
        warn: Rules that are reported and change no exit code; None without any.
        policy: Name of the policy file that states the rules; empty for rules from options.
    """

    gated: tuple[GatedMetric, ...] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    lower_floors: Mapping[str, float] = field(default_factory=dict)
    must_pass: frozenset[str] = frozenset()
    strict: bool = False
    partial: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    upper_limits: Mapping[str, float] = field(default_factory=dict)
    warn: GateConfig | None = None
    policy: str = ""

    @property
    def tiers(self) -> tuple[tuple[TierName, GateConfig], ...]:
        """The rules by tier: these are ``block``, those of ``warn`` follow if there are any."""
        return (("block", self),) if self.warn is None else (("block", self), ("warn", self.warn))

    @property
    def has_requirements(self) -> bool:
        """Whether there are rules that need no baseline."""
        own = self.floors or self.lower_floors or self.must_pass or self.limits or self.upper_limits
        return bool(own) or (self.warn is not None and self.warn.has_requirements)


@dataclass(frozen=True)
class GateOptions:
    """Gate options as typed, before task and items are read.

    Attributes:
        gated: ``METRIC[=MARGIN]``.
        min_drop: ``GatedMetric.min_drop`` of every gated metric.
        floors: ``METRIC=X``, see ``GateConfig``.
        lower_floors: ``METRIC=X``, see ``GateConfig``.
        must_pass: Ids, or files with one id per line.
        strict: See ``GateConfig``.
        require_baseline: Whether to stop when the baseline is missing, which is also the default.
        allow_missing_baseline: Whether to continue when the baseline is missing, as in the first run of a CI job.
        limits: See ``GateConfig``.
        upper_limits: See ``GateConfig``.
        default_gate: Whether the primary metric is gated when ``gated`` is empty.
        warn: Rules that are reported only; None without any.
        policy: Name of the policy file that states the rules; empty for rules from options.
        place: Key of the rules in that file, for messages.
    """

    gated: tuple[str, ...] = ()
    min_drop: float = MIN_DROP
    floors: tuple[str, ...] = ()
    lower_floors: tuple[str, ...] = ()
    must_pass: tuple[str, ...] = ()
    strict: bool = False
    require_baseline: bool = False
    allow_missing_baseline: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    upper_limits: Mapping[str, float] = field(default_factory=dict)
    default_gate: bool = True
    warn: GateOptions | None = None
    policy: str = ""
    place: str = ""

    @property
    def baseline_options(self) -> tuple[str, ...]:
        """Names of the options in use that require a baseline."""
        values = {
            "--gate": self.gated, "--min-drop": self.min_drop != MIN_DROP, "--strict": self.strict,
            "--require-baseline": self.require_baseline, "--allow-missing-baseline": self.allow_missing_baseline,
        }  # fmt: skip
        return tuple(name for name, value in values.items() if value)

    @property
    def options_in_use(self) -> tuple[str, ...]:
        """Names of all options in use."""
        values = {"--policy": self.policy, "--min": self.floors, "--min-lower": self.lower_floors, "--must-pass": self.must_pass}
        return (*self.baseline_options, *(name for name, value in values.items() if value))

    def check(self) -> None:
        """Refuse contradictory options.

        Raises:
            UsageError: When a missing baseline is both allowed and refused.
        """
        refusing = [name for name in ("--strict", "--require-baseline") if name in self.baseline_options]
        verb = "refuse" if len(refusing) > 1 else "refuses"
        if self.allow_missing_baseline and refusing:
            raise UsageError(f"--allow-missing-baseline goes on without a baseline, which {' and '.join(refusing)} {verb}; leave one out")

    def parse(self, task: Task, ids: Iterable[str]) -> GateConfig:
        """Parse the options for one task.

        Args:
            task: Task with the metrics.
            ids: Ids of all its items.

        Raises:
            UsageError: When an option is invalid.
            DataError: When a file of ids cannot be read.
        """
        try:
            config = self._parse(task, ids)
        except (UsageError, DataError) as error:
            if not self.place:
                raise
            raise type(error)(f"{self.policy}: {self.place}: {error}") from None
        return config if self.warn is None else replace(config, warn=self.warn.parse(task, ids))

    def _parse(self, task: Task, ids: Iterable[str]) -> GateConfig:
        if not math.isfinite(self.min_drop):
            raise UsageError(f"--min-drop {self.min_drop:g} must be a number of points, such as {MIN_DROP:g}")
        return GateConfig(
            gated=_parse_gated(self.gated, task, self.min_drop) if self.gated or self.default_gate else (),
            floors=parse_floors(self.floors, task),
            lower_floors=parse_floors(self.lower_floors, task),
            must_pass=parse_ids(self.must_pass, ids, "--must-pass"),
            strict=self.strict,
            limits=check_limits(self.limits),
            upper_limits=check_limits(self.upper_limits),
            policy=self.policy,
        )


def parse_floors(texts: Iterable[str], task: Task) -> dict[str, float]:
    """Parse ``METRIC=X`` arguments.

    Raises:
        UsageError: When an argument has another form, names an unknown metric or one that is better when lower, or is repeated.
    """
    floors: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        floor = _parse_number(number)
        if floor is None:
            raise UsageError(f"floor '{text}' must be METRIC=X with a number X, such as {task.metric.name}=0.8")
        metric = _find_metric(name, task)
        if not metric.higher_is_better:
            raise UsageError(f"metric '{name}' is better when lower, so a floor makes no sense")
        if metric.per_item_rate and floor > 1:
            raise UsageError(f"floor '{text}' can never be met: {name} is a share of the items, from 0 to 1")
        if name in floors:
            raise UsageError(f"metric '{name}' has two floors")
        floors[name] = floor
    return floors


def _parse_gated(texts: Iterable[str], task: Task, min_drop: float) -> tuple[GatedMetric, ...]:
    """Parse ``METRIC[=MARGIN]`` arguments, with margins in points; without any, the task's primary metric is gated."""
    gated: dict[str, GatedMetric] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        margin = _parse_number(number) if equals else MARGIN
        if margin is None or margin <= 0:
            raise UsageError(f"gate '{text}' must be METRIC or METRIC=MARGIN with a margin above 0 in points, such as {task.metric.name}=2")
        _find_metric(name, task)  # refuses an unknown name
        if name in gated:
            raise UsageError(f"metric '{name}' is gated twice")
        gated[name] = GatedMetric(name, margin, min_drop)
    return tuple(gated.values()) or (GatedMetric(task.metric.name, MARGIN, min_drop),)


def _find_metric(name: str, task: Task) -> Metric:
    metrics = {metric.name: metric for metric in task.metrics}
    if name not in metrics:
        raise UsageError(unknown_name_message("metric", name, metrics))
    return metrics[name]


def _parse_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
