"""Gate options and gate configuration: gated metrics with margins, floors, must-pass items; parsed from the command line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sftchat._util.parsing import read_text
from sftchat.errors import DataError, UsageError, unknown
from sftchat.task import Metric, Task

POINT = 0.01
"""One point of a metric: the unit of margins, drops and the items needed."""
MARGIN = 2.0
MIN_DROP = 0.5


@dataclass(frozen=True)
class GatedMetric:
    """A metric of the gate.

    Attributes:
        metric: Name of the metric.
        margin: Drop, in points, that must be excluded before the outcome is ``fine``; above 0.
        min_drop: A smaller drop, in points, is no regression even when significant; 0 or more.
    """

    metric: str
    margin: float = MARGIN
    min_drop: float = MIN_DROP


@dataclass(frozen=True)
class GateConfig:
    """Everything that can change the exit code.

    Attributes:
        gated: Metrics compared with the baseline; the task's primary one when empty.
        floors: Minimum value by metric, compared with the point estimate.
        lower_floors: Minimum of the lower bound of the 95 % interval, by metric.
        must_pass: Ids of items that must be right.
        strict: Whether inconclusive comparisons and changed item sets fail too, with their own exit code.
        partial: Whether only items with a reply are scored, so that no requirement can be proven.
    """

    gated: tuple[GatedMetric, ...] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    lower_floors: Mapping[str, float] = field(default_factory=dict)
    must_pass: frozenset[str] = frozenset()
    strict: bool = False
    partial: bool = False


@dataclass(frozen=True)
class GateOptions:
    """Gate options as typed, before task and items are read.

    Attributes:
        gated: ``METRIC[=MARGIN]``.
        min_drop: In points.
        floors: ``METRIC=X``.
        lower_floors: ``METRIC=X``.
        must_pass: Ids, or files with one id per line.
        strict: Whether to accept only proven results.
        require_baseline: Whether to stop without a baseline, which is the default.
        allow_missing_baseline: Whether to continue without one, as in the first run of a CI job.
    """

    gated: tuple[str, ...] = ()
    min_drop: float = MIN_DROP
    floors: tuple[str, ...] = ()
    lower_floors: tuple[str, ...] = ()
    must_pass: tuple[str, ...] = ()
    strict: bool = False
    require_baseline: bool = False
    allow_missing_baseline: bool = False

    @property
    def against_baseline(self) -> tuple[str, ...]:
        """The options in use that require a baseline."""
        given = {
            "--gate": self.gated, "--min-drop": self.min_drop != MIN_DROP, "--strict": self.strict,
            "--require-baseline": self.require_baseline, "--allow-missing-baseline": self.allow_missing_baseline,
        }  # fmt: skip
        return tuple(name for name, value in given.items() if value)

    @property
    def given(self) -> tuple[str, ...]:
        """The options in use that the result must satisfy."""
        floors = {"--min": self.floors, "--min-lower": self.lower_floors, "--must-pass": self.must_pass}
        return (*self.against_baseline, *(name for name, value in floors.items() if value))

    def check(self) -> None:
        """Refuse contradictory options.

        Raises:
            UsageError: When a missing baseline is both allowed and refused.
        """
        given = [name for name in ("--strict", "--require-baseline") if name in self.against_baseline]
        if self.allow_missing_baseline and given:
            raise UsageError(
                f"--allow-missing-baseline goes on without a baseline, which {' and '.join(given)} refuse{'' if len(given) > 1 else 's'}; leave one out"
            )

    def rules(self, task: Task, known: Iterable[str]) -> GateConfig:
        """Parse the options for one task.

        Args:
            task: Task with the metrics.
            known: Ids of all its items.

        Raises:
            UsageError: When an option is invalid.
            DataError: When a file of ids cannot be read.
        """
        if not math.isfinite(self.min_drop):
            raise UsageError(f"--min-drop {self.min_drop:g} must be a number of points, such as {MIN_DROP:g}")
        return GateConfig(
            parse_gated(self.gated, task, self.min_drop),
            parse_floors(self.floors, task),
            parse_floors(self.lower_floors, task),
            parse_ids(self.must_pass, known, "--must-pass"),
            self.strict,
        )


def parse_floors(texts: Iterable[str], task: Task) -> dict[str, float]:
    """Parse ``METRIC=X`` arguments.

    Args:
        texts: Arguments as typed.
        task: Task with the metrics.

    Raises:
        UsageError: When an argument has another form, names an unknown metric or one that is better when lower, or is repeated.
    """
    floors: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        floor = _number(number)
        if floor is None:
            raise UsageError(f"floor '{text}' must be METRIC=X with a number X, such as {task.metric.name}=0.8")
        if not _metric(name, task).higher_is_better:
            raise UsageError(f"metric '{name}' is better when lower, so a floor makes no sense")
        if _metric(name, task).per_item_rate and floor > 1:
            raise UsageError(f"floor '{text}' can never be met: {name} is a share of the items, from 0 to 1")
        if name in floors:
            raise UsageError(f"metric '{name}' has two floors")
        floors[name] = floor
    return floors


def parse_gated(texts: Iterable[str], task: Task, min_drop: float = MIN_DROP) -> tuple[GatedMetric, ...]:
    """Parse ``METRIC[=MARGIN]`` arguments; the margin is in points.

    Args:
        texts: Arguments as typed; without any, the task's primary metric is gated.
        task: Task with the metrics.
        min_drop: Minimum drop of each metric, in points.

    Raises:
        UsageError: When an argument has another form, names an unknown metric, or is repeated.
    """
    found: dict[str, GatedMetric] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        margin = _number(number) if equals else MARGIN
        if margin is None or margin <= 0:
            raise UsageError(f"gate '{text}' must be METRIC or METRIC=MARGIN with a margin above 0 in points, such as {task.metric.name}=2")
        if _metric(name, task).name in found:
            raise UsageError(f"metric '{name}' is gated twice")
        found[name] = GatedMetric(name, margin, min_drop)
    return tuple(found.values()) or (GatedMetric(task.metric.name, MARGIN, min_drop),)


def parse_ids(words: Sequence[str], known: Iterable[str], option: str) -> frozenset[str]:
    """Parse ids, or files with one id per line.

    Args:
        words: Ids and files as typed; a known id takes precedence over a file of that name.
        known: All ids of the evalsets.
        option: Name of the option, for error messages.

    Raises:
        DataError: When a file cannot be read or is empty.
        UsageError: When an id is unknown.
    """
    there = frozenset(known)
    found: set[str] = set()
    for word in words:
        ids = [word] if word in there or not Path(word).is_file() else _lines(Path(word))
        for identity in ids:
            if identity not in there:
                raise UsageError(f"{option}: no item '{identity}' in the evalset, and no such file")
        found.update(ids)
    return frozenset(found)


def _lines(path: Path) -> list[str]:
    try:
        ids = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read ids: {getattr(error, 'strerror', None) or error}", str(path)) from error
    if not ids:
        raise DataError("the file has no ids; write one a line", str(path))
    return ids


def _metric(name: str, task: Task) -> Metric:
    """Return a metric of the task by name."""
    metrics = {metric.name: metric for metric in task.metrics}
    if name not in metrics:
        raise UsageError(unknown("metric", name, metrics))
    return metrics[name]


def _number(text: str) -> float | None:
    """Parse a finite number; return None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
