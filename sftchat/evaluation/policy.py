"""Policy files: what an evaluation in CI runs and requires, in TOML. Options of the command line take precedence."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sftchat._util.parsing import expand_user, from_json, read_text
from sftchat.data.task_overrides import TaskOverrides
from sftchat.errors import DataError, UsageError
from sftchat.evaluation.baseline import REPLY_FILE_SUFFIXES
from sftchat.evaluation.gate_options import MIN_DROP, GateOptions
from sftchat.evaluation.limits import check_limits
from sftchat.task import Task, Thinking
from sftchat.types import SamplingParams


@dataclass(frozen=True)
class PolicyTier:
    """Rules of one tier of a task.

    Attributes:
        gate: Margins in points, above 0, of the metrics to compare with the baseline, such as ``{ accuracy = 2 }``. Without ``gate`` in either tier, the
            primary metric is compared in ``block`` when there is a baseline.
        min_drop: A drop of fewer points is no regression.
        min: Minimum values by metric.
        min_lower: Minimum lower bounds of the 95 % intervals by metric.
        max: Maximum values by name of a measure of ``sftchat.evaluation.limits.MEASURES``, such as ``{ tokens = 60, truncated = 0.05 }``.
        max_upper: Maximum upper bounds of their 95 % intervals.
        must_pass: Ids of items that must be right, or files with one id per line.
    """

    gate: Mapping[str, float] | None = None
    min_drop: float = MIN_DROP
    min: Mapping[str, float] = field(default_factory=dict)
    min_lower: Mapping[str, float] = field(default_factory=dict)
    max: Mapping[str, float] = field(default_factory=dict)
    max_upper: Mapping[str, float] = field(default_factory=dict)
    must_pass: tuple[str, ...] = ()

    @property
    def has_rules(self) -> bool:
        """Whether the tier has a rule."""
        return bool(self.gate or self.min or self.min_lower or self.max or self.max_upper or self.must_pass)


@dataclass(frozen=True)
class PolicyTask:
    """``[[tasks]]`` of a policy file; paths are relative to its folder.

    Attributes:
        task: Name of an installed task, or a task file.
        evalsets: Evalsets: files, or names of the task's; its first one when empty.
        baseline: Baseline file or MODEL to compare with; empty for none.
        replies: File of stored replies to score instead of models; empty for none.
        system: System prompt instead of the task's.
        few_shot: Number of few-shot examples.
        samples: Number of replies to each item.
        thinking: What the scorer gets of a reply with thoughts.
        sampling: Sampling parameters by their names in ``SamplingParams``.
        block: Rules that fail the gate.
        warn: Rules that are only reported.
    """

    task: str
    evalsets: tuple[str, ...] = ()
    baseline: str = ""
    replies: str = ""
    system: str | None = None
    few_shot: int | None = None
    samples: int | None = None
    thinking: Thinking | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    block: PolicyTier = field(default_factory=PolicyTier)
    warn: PolicyTier = field(default_factory=PolicyTier)


@dataclass(frozen=True)
class PolicyFile:
    """Content of a policy file.

    Attributes:
        tasks: What is evaluated and required, at least one.
        models: MODEL arguments.
        strict: As ``--strict``.
    """

    tasks: tuple[PolicyTask, ...]
    models: tuple[str, ...] = ()
    strict: bool = False


@dataclass(frozen=True)
class Policy:
    """A policy file that was read and checked.

    Attributes:
        path: The file.
        content: Its content.
    """

    path: Path
    content: PolicyFile

    @property
    def models(self) -> tuple[str, ...]:
        """The MODEL arguments; those that are paths are relative to the present folder."""
        return tuple(self._located(model) for model in self.content.models)

    def task_word(self, entry: PolicyTask) -> str:
        """Return the task of an entry as ``--task`` takes it."""
        return str(self._folder / expand_user(entry.task)) if entry.task.lower().endswith(".toml") else entry.task

    def evalsets_of(self, entry: PolicyTask, task: Task) -> tuple[Path, ...]:
        """Return the evalset files of an entry, which may not exist; empty for the task's first one."""
        return tuple(
            task.evalsets[word] if word in task.evalsets and not (self._folder / word).exists() else self._folder / expand_user(word)
            for word in entry.evalsets
        )

    def baseline_of(self, entry: PolicyTask) -> str | None:
        """Return the baseline of an entry as ``--baseline`` takes it; None without one."""
        if not entry.baseline:
            return None
        is_file = Path(entry.baseline).suffix.lower() in REPLY_FILE_SUFFIXES and "://" not in entry.baseline
        return str(self._folder / expand_user(entry.baseline)) if is_file else self._located(entry.baseline)

    def replies_of(self, entry: PolicyTask) -> str | None:
        """Return the file of stored replies of an entry; None without one."""
        return str(self._folder / expand_user(entry.replies)) if entry.replies else None

    def files_of(self, entry: PolicyTask) -> tuple[str, ...]:
        """Return what an entry names and may be a file: its task file, evalsets, baseline, replies and must-pass files."""
        words = (*entry.evalsets, *entry.block.must_pass, *entry.warn.must_pass)
        named = (self.task_word(entry), self.baseline_of(entry) or "", self.replies_of(entry) or "", *map(self._located, words))
        return tuple(name for name in named if name)

    def overrides_of(self, entry: PolicyTask) -> TaskOverrides:
        """Return the changes to the task of an entry."""
        return TaskOverrides(
            system=entry.system, few_shot=entry.few_shot, samples=entry.samples, thinking=entry.thinking, sampling=_sampling(entry)
        )

    def gate_options_of(self, entry: PolicyTask, typed: GateOptions, baseline: str | None) -> GateOptions:
        """Return the gate options of an entry; options of the command line replace rules of ``block`` on the same metric.

        Args:
            entry: One of the tasks.
            typed: Gate options of the command line for this task.
            baseline: Baseline that is compared with; None without one.

        Raises:
            UsageError: When a tier compares metrics, but there is no baseline.
        """
        place = f"tasks[{self.content.tasks.index(entry)}]"
        for name, tier in (("block", entry.block), ("warn", entry.warn)):
            if tier.gate and baseline is None:
                raise UsageError(
                    f'{self.path}: {place}.{name}.gate compares with a baseline; add baseline = "FILE" to the task, or --baseline FILE'
                )
        block = self._tier_options(entry.block, f"{place}.block")
        block = replace(block, default_gate=entry.block.gate is None and entry.warn.gate is None)
        warn = self._tier_options(entry.warn, f"{place}.warn") if entry.warn.has_rules else None
        return replace(
            block,
            gated=_replaced(block.gated, typed.gated),
            floors=_replaced(block.floors, typed.floors),
            lower_floors=_replaced(block.lower_floors, typed.lower_floors),
            must_pass=(*block.must_pass, *typed.must_pass),
            min_drop=block.min_drop if typed.min_drop == MIN_DROP else typed.min_drop,
            strict=self.content.strict or typed.strict,
            require_baseline=typed.require_baseline,
            allow_missing_baseline=typed.allow_missing_baseline,
            warn=warn,
        )

    def _tier_options(self, tier: PolicyTier, place: str) -> GateOptions:
        return GateOptions(
            gated=tuple(f"{name}={margin!r}" for name, margin in (tier.gate or {}).items()),
            min_drop=tier.min_drop,
            floors=tuple(f"{name}={value!r}" for name, value in tier.min.items()),
            lower_floors=tuple(f"{name}={value!r}" for name, value in tier.min_lower.items()),
            must_pass=tuple(map(self._located, tier.must_pass)),
            limits=tier.max,
            upper_limits=tier.max_upper,
            default_gate=False,
            policy=str(self.path),
            place=place,
        )

    @property
    def _folder(self) -> Path:
        return self.path.parent

    def _located(self, word: str) -> str:
        """Return the path of a file or folder that exists beside the policy; any other word unchanged."""
        path = self._folder / expand_user(word)
        return str(path) if path.exists() else word


def load_policy(path: Path) -> Policy:
    """Read a policy file and check everything in it that does not depend on the tasks.

    Args:
        path: A TOML file; its keys are the attributes of ``PolicyFile``.

    Raises:
        DataError: When the file is missing or malformed, a key is unknown or has a value of another type or out of its range, or a task has no rule.
    """
    try:
        document = tomllib.loads(read_text(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot be read as a policy: {getattr(error, 'strerror', None) or error}", str(path)) from None
    try:
        content = from_json(PolicyFile, document)
        if not content.tasks:
            raise ValueError("tasks is empty, must have at least one [[tasks]]")
        for index, entry in enumerate(content.tasks):
            _check_task(entry, f"tasks[{index}]")
    except (ValueError, UsageError) as error:
        raise DataError(f"not a policy: {error}{_keys_hint(str(error))}", str(path)) from None
    return Policy(path, content)


def _keys_hint(message: str) -> str:
    """Return the allowed keys at the place of an unknown key, for the end of a message; empty for other messages."""
    if not message.startswith("unknown key '"):
        return ""
    place = message.removeprefix("unknown key '").rpartition(".")[0]
    if place.endswith((".block", ".warn")):
        return f" (keys: {', '.join(item.name for item in fields(PolicyTier))})"
    return f" (keys: {', '.join(item.name for item in fields(PolicyTask if place else PolicyFile))})"


def _check_task(entry: PolicyTask, place: str) -> None:
    _sampling(entry, f"{place}.sampling")
    if entry.samples is not None and entry.samples < 1:
        raise ValueError(f"{place}.samples is {entry.samples}, must be at least 1")
    if entry.few_shot is not None and entry.few_shot < 0:
        raise ValueError(f"{place}.few_shot is {entry.few_shot}, must be 0 or more")
    for name, tier in (("block", entry.block), ("warn", entry.warn)):
        for metric, margin in (tier.gate or {}).items():
            if not (math.isfinite(margin) and margin > 0):
                raise ValueError(f"{place}.{name}.gate.{metric} is {margin:g}, must be a margin above 0 in points, such as 2")
        if not (math.isfinite(tier.min_drop) and tier.min_drop >= 0):
            raise ValueError(f"{place}.{name}.min_drop is {tier.min_drop:g}, must be 0 or more points")
        for key, floors in (("min", tier.min), ("min_lower", tier.min_lower)):
            for metric, floor in floors.items():
                if not math.isfinite(floor):
                    raise ValueError(f"{place}.{name}.{key}.{metric} is {floor:g}, must be a number, such as 0.8")
        for key, limits in (("max", tier.max), ("max_upper", tier.max_upper)):
            try:
                check_limits(limits)
            except UsageError as error:
                raise ValueError(f"{place}.{name}.{key}: {error}") from None
    if not (entry.block.has_rules or entry.warn.has_rules or entry.baseline):
        raise ValueError(f"{place} has no rule; give a baseline, or rules in [tasks.block] or [tasks.warn]")


def _sampling(entry: PolicyTask, place: str = "sampling") -> dict[str, Any]:
    """Return the given sampling parameters.

    Raises:
        ValueError: When one is unknown or out of its range.
    """
    try:
        parsed = from_json(SamplingParams, entry.sampling)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return {name: getattr(parsed, name) for name in entry.sampling}


def _replaced(rules: tuple[str, ...], typed: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``METRIC=X`` words, those of the command line in place of others on the same metric."""
    metrics = {word.partition("=")[0] for word in typed}
    return (*(word for word in rules if word.partition("=")[0] not in metrics), *typed)
