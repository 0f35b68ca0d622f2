"""Turns a finished report into the entries of the ledger."""

from __future__ import annotations

import hashlib
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sftchat.errors import PluginError, SftchatError
from sftchat.evaluation.baseline import GENERATION_SETTINGS, content_hash, sampling_to_json, settings_of
from sftchat.evaluation.gate import decide_verdict
from sftchat.evaluation.ledger import Entry, LedgerItem, LedgerResult, Role
from sftchat.evaluation.plan import Plan, Source
from sftchat.evaluation.report.view import Report, error_classes
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.scored import Item, Outcome
from sftchat.inference.identity import OPTIONS_WITHOUT_EFFECT
from sftchat.models.fingerprint import FileHasher, reply_identity
from sftchat.models.reference import resolve, step_of
from sftchat.task import Metric, metric_value
from sftchat.types import Reply

GIT_SECONDS = 5.0
"""Maximum time for git to name the commit."""
DEFAULTS = (None, "", "auto", False)
"""Values of options that choose nothing."""


def ledger_entries(
    report: Report, plans: Sequence[Plan], options: Mapping[str, Any], identities: Mapping[tuple[str, str], str], hash_file: FileHasher
) -> list[Entry]:
    """Return the results of a finished evaluation with their items, as the ledger stores them.

    A baseline that was read from a file is left out: it was recorded when it was evaluated.

    Args:
        report: Report with a verdict.
        plans: Plans of the evaluation.
        options: Options of the engines.
        identities: Identity of each model in the reply cache, by name of the task and of the model.
        hash_file: Returns the hash of a file of a model.
    """
    evaluation, now, commit = uuid.uuid4().hex, time.time(), git_commit(Path())
    entries: list[Entry] = []
    for plan in plans:
        for role, source, results in _results_by_source(report, plan):
            is_model = source.stored is None
            weights = weights_hash(source.name, options, hash_file) if is_model else ""
            for result in results:
                totals = result.items.totals
                entry = LedgerResult(
                    evaluation=evaluation,
                    time=now,
                    role=role,
                    model=source.name,
                    identity=identities.get((plan.task.name, source.name), "") if is_model else "",
                    weights=weights,
                    step=_step_of(source.name) if is_model else None,
                    task=plan.task.name,
                    evalset=result.evalset,
                    settings=all_settings(plan, options, is_model=is_model),
                    sampling=asdict(plan.sampling) | {"stop": list(plan.sampling.stop)} if is_model else None,
                    metrics=result.metrics,
                    requested=len(result.items.requested_ids),
                    answered=len(result.items),
                    right=totals.right,
                    truncated=totals.truncated,
                    failed=len(result.failures),
                    replies=str((plan.output / source.file).absolute()) if plan.output is not None else "",
                    commit=commit,
                    verdict=_outcome_of(result, report, plan) if role == "model" else "",
                    higher_is_better=plan.task.metric.higher_is_better,
                    per_item_rate=plan.task.metric.per_item_rate and not plan.cluster,
                )
                entries.append((entry, [ledger_item(outcome, plan.task.metric) for outcome in result.items.outcomes.values()]))
    return entries


def all_settings(plan: Plan, options: Mapping[str, Any], *, is_model: bool) -> dict[str, Any]:
    """Return everything besides model, task and evalset that a result depends on, as far as it was chosen; equal for comparable results.

    Args:
        plan: Plan of the evaluation.
        options: Options of the engines.
        is_model: Whether a model was asked; False for stored replies, whose sampling and options are unknown.
    """
    of_task = {name: value for name, value in settings_of(plan.task).items() if is_model or name not in GENERATION_SETTINGS}
    settings: dict[str, Any] = ({"cluster": plan.cluster} if plan.cluster else {}) | ({"task": of_task} if of_task else {})
    if not is_model:
        return settings | {"replies": "stored"}
    chosen = {
        name: value for name, value in options.items() if name not in OPTIONS_WITHOUT_EFFECT and value not in DEFAULTS and value != {}
    }
    return settings | {"sampling": sampling_to_json(plan.sampling)} | ({"options": chosen} if chosen else {})


def ledger_item(outcome: Outcome, metric: Metric) -> LedgerItem:
    """Return what the ledger stores of the outcome of one item."""
    content = content_hash(outcome.example)
    if not isinstance(outcome, Item):
        return LedgerItem(outcome.example.id, content, None, None, (), "", {})
    stats = {name: float(count) for name, count in outcome.score.stats.items()}
    try:
        value = metric_value(metric, stats)
    except PluginError:  # a metric of many items, such as a correlation
        value = None
    return LedgerItem(outcome.example.id, content, outcome.right, value, error_classes(outcome), reply_hash(outcome.reply), stats)


def reply_hash(reply: Reply) -> str:
    """Return a short hash of the text of a reply, or of the texts of all samples."""
    texts = "\0".join(sample.text for sample in reply.samples)
    return hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def git_commit(folder: Path) -> str:
    """Return the git commit that is checked out in a folder; empty without git, repository or commit."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _step_of(model: str) -> int | None:
    """Return the step of a checkpoint; None when unknown, also for a damaged manifest."""
    try:
        return step_of(model)
    except SftchatError:
        return None


def _results_by_source(report: Report, plan: Plan) -> Iterator[tuple[Role, Source, tuple[ModelResult, ...]]]:
    """Yield the sources of a plan with their results; the report has them in the order of the sources, one per evalset."""
    count = len(plan.evalsets)
    compares_pairs = plan.judge is not None and plan.judge.pairwise  # the numbers of the baseline are then those of the model, mirrored
    if plan.baseline is not None and plan.baseline.stored is None and not compares_pairs:
        yield "baseline", plan.baseline, tuple(result for result in report.baselines if result.task == plan.task.name)
    results = [result for result in report.results if result.task == plan.task.name]
    for index, source in enumerate(plan.sources):
        yield "model", source, tuple(results[index * count : (index + 1) * count])


def _outcome_of(result: ModelResult, report: Report, plan: Plan) -> str:
    """Return the outcome of the verdict on one result; that of the report is on all of them."""
    comparisons = tuple(comparison for comparison in report.comparisons if comparison.candidate is result)
    gates = tuple(
        replace(gate_result, comparison=index)
        for index, comparison in enumerate(comparisons)
        for gate_result in report.gates_of(comparison)
    )
    return decide_verdict(Report(result.task, (result,), comparisons=comparisons, gates=gates), plan.gate_in_force).outcome


def weights_hash(model: str, options: Mapping[str, Any], hash_file: FileHasher) -> str:
    """Return a hash of the files of a model; empty when unknown, as for a server or an engine of a plugin."""
    try:
        reference = resolve(model, base=options.get("base"), allow_pickle=options.get("allow_pickle", False))
        return reply_identity(reference, hash_file)
    except (SftchatError, OSError):
        return ""
