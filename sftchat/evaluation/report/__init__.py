"""The result of an evaluation as data; the same inputs give the same bytes, so no clock is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sftchat.evaluation.comparison import Comparison, GateResult, Ranked
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.run import Failure
from sftchat.text import printable_json
from sftchat.types import SamplingParams

if TYPE_CHECKING:
    from sftchat.evaluation.gate import Verdict  # is reached from a report

SCHEMA_VERSION = 1
DIGITS = 10
"""Decimals kept in JSON: far more than any set can measure, and fewer than another order of summing changes."""


@dataclass(frozen=True)
class Report:
    """An evaluation: some models, some gold sets, maybe a baseline; mostly one task.

    Attributes:
        task: Name of the task; of all of them with commas where there are several, and each result then says which is its own.
        results: One for each model and gold set, in the order asked for.
        baselines: The baseline's results, one for each gold set.
        comparisons: Each model with the baseline on each gold set.
        sampling: How replies were generated.
        seed: Seed of the statistics.
        versions: Versions of the packages that the numbers depend on.
        gates: The gate's verdicts, one for each gated metric of each comparison.
        rankings: For each gold set that several models were scored on, the models by step and which tie with the best.
        verdict: What it means; None where nothing has judged it.
        remarks: What else whoever reads the verdict must know, such as that there is no baseline yet.
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
        """The verdicts on one comparison."""
        return tuple(found for found in self.gates if self.comparisons[found.comparison] is comparison)

    @property
    def failures(self) -> tuple[tuple[ModelResult, Failure], ...]:
        """Every item that some model could not answer."""
        return tuple((result, failure) for result in (*self.baselines, *self.results) for failure in result.failures)

    def to_json(self) -> str:
        """The report as JSON with sorted keys and a newline at the end; the same inputs give the same bytes.

        Control characters and marks that reorder or hide text are escaped, see ``sftchat.text.printable_json``.
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
        return printable_json(json.dumps(_rounded(document), ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)) + "\n"


def _rounded(value: Any) -> Any:
    """Cut floats to the decimals that are the same everywhere."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0  # -0.0 and 0.0 are one number
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
