"""The report of an evaluation as data; without timestamps, so that the same inputs give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sftchat.evaluation.comparison import Comparison, GateResult, Ranked
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.run import Failure
from sftchat.text import sanitize_json
from sftchat.types import SamplingParams

if TYPE_CHECKING:
    from sftchat.evaluation.gate import Verdict  # imports the report

SCHEMA_VERSION = 1
DIGITS = 10
"""Decimals in the JSON: more than any evalset can measure, and few enough to hide the rounding errors of another summation order."""


@dataclass(frozen=True)
class Report:
    """Report of an evaluation: models, evalsets, and a baseline if there is one; usually of one task.

    Attributes:
        task: Name of the task; comma-separated when there are several, and each result then names its own.
        results: One per model and evalset, in the order of the command line.
        baselines: The baseline's results, one per evalset.
        comparisons: Each model with the baseline on each evalset.
        sampling: Sampling parameters.
        seed: Seed of the statistics.
        versions: Versions of the packages that affect the numbers.
        gates: Gate results, one per gated metric of each comparison.
        rankings: Per evalset with several models, the models by step, with those that tie with the best.
        verdict: Verdict on the results; None before it is decided.
        remarks: Further lines for the reader of the verdict, such as that there is no baseline yet.
    """

    task: str
    results: tuple[ModelResult, ...]
    baselines: tuple[ModelResult, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    gates: tuple[GateResult, ...] = ()
    remarks: tuple[str, ...] = ()
    rankings: tuple[tuple[Ranked, ...], ...] = ()
    verdict: Verdict | None = None

    def gates_of(self, comparison: Comparison) -> tuple[GateResult, ...]:
        """Return the gate results of one comparison."""
        return tuple(found for found in self.gates if self.comparisons[found.comparison] is comparison)

    @property
    def failures(self) -> tuple[tuple[ModelResult, Failure], ...]:
        """Failures of all models, with the model's result."""
        return tuple((result, failure) for result in (*self.baselines, *self.results) for failure in result.failures)

    def to_json(self) -> str:
        """Return the report as JSON with sorted keys and a final newline; the same inputs give the same bytes.

        Control characters and characters that reorder or hide text are escaped, see ``sftchat.text.sanitize_json``.
        """
        document = {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "results": [result.as_json() for result in self.results],
            "baselines": [result.as_json() for result in self.baselines],
            "comparisons": [comparison.as_json() for comparison in self.comparisons],
            "sampling": asdict(self.sampling),
            "seed": self.seed,
            "versions": dict(self.versions),
            "gates": [asdict(found) for found in self.gates],
            "verdict": None if self.verdict is None else self.verdict.as_json(),
            "remarks": list(self.remarks),
            "rankings": [[ranked.as_json() for ranked in ranking] for ranking in self.rankings],
        }
        return sanitize_json(json.dumps(_rounded(document), ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)) + "\n"


def _rounded(value: Any) -> Any:
    """Round floats to the decimals that are the same on every machine."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0  # turns -0.0 into 0.0
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
