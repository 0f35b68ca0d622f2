"""Plan an evaluation: select items, resolve baseline and replies, and check that they fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sftchat._util.files import check_output_folder
from sftchat.data.few_shot import FewShot
from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, RowOptions, options_for_task
from sftchat.errors import DataError, NotComparableError, UsageError, list_quoted
from sftchat.evaluation.baseline import (
    Baseline,
    check_comparable,
    check_complete,
    is_baseline,
    is_missing_file,
    read_baseline,
    similar_file_hint,
)
from sftchat.evaluation.evalset import Evalset, cluster_of, concatenate_examples, read_evalset, scores_texts
from sftchat.evaluation.gate_options import GateConfig, GateOptions
from sftchat.evaluation.judge import Judge
from sftchat.evaluation.replies import check_replies_match, read_replies
from sftchat.evaluation.samples import check_samples, with_sample_metrics
from sftchat.evaluation.scored import rare_garbage_collection
from sftchat.evaluation.selection import REPORT, Selection, select_items
from sftchat.task import Task, row_problems
from sftchat.types import Example, Reply, SamplingParams


@dataclass(frozen=True)
class Source:
    """A model to open, or a file of stored replies.

    Attributes:
        name: Name as typed by the user.
        file: Name of the file in the output folder that its replies are written to.
        stored: Replies by id, or error messages for unanswered items; None for a model.
        baseline: Content of the file when it is a baseline.
    """

    name: str
    file: str
    stored: Mapping[str, Reply | str] | None = None
    baseline: Baseline | None = None


@dataclass(frozen=True)
class Plan:
    """A checked evaluation, ready to run.

    Attributes:
        task: Task with the scorer.
        evalsets: Evalsets, at least one.
        sources: Models or files under test, at least one.
        baseline: Source to compare with; None without a baseline.
        sampling: Sampling parameters.
        seed: Seed of the statistics.
        output: Folder for the results.
        gate_config: Gate configuration.
        cluster: Metadata key that groups items into clusters; empty for independent items.
        removed: Ids that are in the baseline but not in the evalsets.
        selected: Whether only selected items are evaluated; no gate is then computed.
        remarks: Lines to add to the reasons of the verdict.
        self_check: Whether some items are repeated with each model.
        tasks: All tasks by name, needed to regenerate the rows of their generators.
        judge: Judge whose verdicts are the scores of ``task``; None when the task's scorer needs none.
    """

    task: Task
    evalsets: tuple[Evalset, ...]
    sources: tuple[Source, ...]
    baseline: Source | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    output: Path | None = None
    gate_config: GateConfig = field(default_factory=GateConfig)
    cluster: str = ""
    removed: tuple[str, ...] = ()
    selected: bool = False
    remarks: tuple[str, ...] = ()
    self_check: bool = False
    tasks: Mapping[str, Task] = field(default_factory=dict)
    judge: Judge | None = None

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """The baseline, if there is one, and the models or files under test."""
        return self.sources if self.baseline is None else (self.baseline, *self.sources)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models to open, in that order."""
        return tuple(source.name for source in self.all_sources if source.stored is None)

    @property
    def gate_in_force(self) -> GateConfig:
        """The gate configuration; an empty one when only selected items are evaluated."""
        return GateConfig() if self.selected else self.gate_config


@rare_garbage_collection()
def make_plan(
    task: Task,
    models: Sequence[str],
    *,
    evalset_sources: Sequence[Path | Evalset] = (),
    baseline: str | None = None,
    replies: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    output: Path | None = None,
    gate_options: GateOptions | None = None,
    cluster: str = "",
    selection: Selection | None = None,
    label: str = "",
    self_check: bool = False,
    tasks: Mapping[str, Task] | None = None,
    partial: bool = False,
    row_options: RowOptions = DEFAULT_ROW_OPTIONS,
    judge: Judge | None = None,
) -> Plan:
    """Read the evalsets and replies, and check that they fit together; no model is opened.

    Args:
        task: Task with the scorer.
        models: MODEL arguments; none when ``replies`` is given.
        evalset_sources: Evalsets, or files to read them from; the task's first one when empty.
        baseline: A MODEL, or a file of replies, to compare with.
        replies: File of stored replies to score.
        limit: Maximum number of rows of each evalset, at least 1.
        seed: Seed of the resampling, and of the sampling when it is not greedy.
        output: Folder for the results.
        gate_options: Gate options as typed.
        cluster: Metadata key that groups items into clusters; empty for independent items.
        selection: Restriction to some items.
        self_check: Whether to repeat some items with each model, alone and in other batches.
        tasks: All tasks by name; their generators reproduce the rows that a checkpoint was trained on.
        partial: Whether to score only the items that have a reply in ``replies``.
        row_options: Options for reading the evalsets, in addition to the task's own.
        judge: Judge that scores instead of the task's scorer, or compares the model's replies with the baseline's.
        label: Inserted after ``replies`` in file names, such as ``.relation`` when there are several tasks.

    Raises:
        UsageError: When the task has no evalset and none is given, or an option does not fit the items.
        DataError: When an evalset or a file of replies is missing, malformed, or does not fit.
        NotComparableError: When the baseline measured something else, is missing, or would be compared only in part although all is required.
    """
    gate_options = gate_options or GateOptions()
    if judge is not None:
        task = judge.apply(task, baseline)
    existing_baseline = baseline
    baseline_remarks: tuple[str, ...] = ()
    if baseline is not None and is_missing_file(baseline):
        advice = f"{similar_file_hint(baseline)}; write one with --update-baseline {baseline}"
        if not gate_options.allow_missing_baseline:
            raise NotComparableError(f"no baseline '{baseline}'{advice}, or add --allow-missing-baseline for the first run")
        existing_baseline, baseline_remarks = None, (f"no baseline '{baseline}' yet{advice}",)
    options = options_for_task(task, row_options)
    evalsets = tuple(
        read_evalset(source, limit, options, texts=scores_texts(task), gold=task.needs_gold)
        if isinstance(source, Path)
        else source.first(limit)
        for source in evalset_sources or (_default_evalset(task),)
    )
    all_ids = frozenset().union(*(evalset.ids for evalset in evalsets))
    examples = concatenate_examples(evalsets)  # refuses an id that two evalsets share
    task = _prepare_task(task, examples)
    if selection is None and task.must_pass:
        gate_options = replace(gate_options, must_pass=(*gate_options.must_pass, *task.must_pass))
    config = gate_options.parse(task, all_ids)
    remarks: tuple[str, ...] = ()
    if selection is not None:
        count = _count_examples(evalsets)
        evalsets = select_items(evalsets, selection.ids(all_ids, baseline))
        remarks = (f"{_count_examples(evalsets)} of {count} items were selected; no gate is computed on a selected subset",)
    if partial:
        if replies is None:
            raise UsageError("--partial says that some items have no reply in the file of --replies FILE; add that, or leave --partial out")
        count = _count_examples(evalsets)
        evalsets = _select_answered(evalsets, replies)
        answered = _count_examples(evalsets)
        if answered < count:
            config = replace(config, partial=True)
            remarks = (*remarks, f"{answered} of {count} items have a reply in '{replies}' and are scored; no gate passes on a part")
    examples = concatenate_examples(evalsets)
    requested_ids = [example.id for example in examples]
    if selection is None and not config.partial:
        _check_limit(evalsets, config, requested_ids, compared=existing_baseline is not None)
    if cluster:
        for example in examples:
            cluster_of(example, cluster)  # raises an error when the example lacks the key
    sampling = replace(task.sampling, seed=seed)
    if replies is not None:
        advice = "; --partial scores the items that have one"
        sources: tuple[Source, ...] = (_read_reply_source(replies, f"replies{label}.jsonl", requested_ids, all_ids, advice),)
    elif len(models) == 1:
        sources = (Source(models[0], f"replies{label}.jsonl"),)
    else:
        sources = tuple(Source(model, f"replies{label}.{number}.jsonl") for number, model in enumerate(models, start=1))
    baseline_source: Source | None = None
    removed: tuple[str, ...] = ()
    if existing_baseline is not None:
        baseline_source = _resolve_baseline(existing_baseline, f"replies{label}.baseline.jsonl", requested_ids, all_ids)
        if judge is not None and judge.pairwise:
            baseline_source = replace(baseline_source, baseline=None)  # its replies are compared, whatever counted them
        if baseline_source.baseline is not None:
            check_comparable(baseline_source.baseline, task, examples, None if replies is not None else sampling)
            check_complete(baseline_source.baseline, evalsets)
            removed = tuple(item_id for item_id in baseline_source.baseline.items if item_id not in all_ids)
            if judge is not None:
                judge.table.add_baseline(baseline_source.baseline, task)
    return Plan(
        task=task,
        evalsets=evalsets,
        sources=sources,
        baseline=baseline_source,
        sampling=sampling,
        seed=seed,
        output=output,
        gate_config=config,
        cluster=cluster,
        removed=removed,
        selected=selection is not None,
        remarks=(*remarks, *baseline_remarks),
        self_check=self_check,
        tasks=tasks or {},
        judge=judge,
    )


def _prepare_task(task: Task, examples: Sequence[Example]) -> Task:
    """Return the task with the metrics of several samples and with few-shot examples from the evalset, if it has no others.

    Raises:
        UsageError: When several samples would be equal.
        DataError: When a ready-made scorer cannot read the gold reply of a row.
    """
    check_samples(task, task.sampling)
    if "scorer" in task.settings:
        for example in examples:
            for problem in row_problems(task, example):
                raise DataError(problem, example.source or example.id)
    if isinstance(task.few_shot, FewShot):
        few_shot = task.few_shot if task.few_shot.pool is not None else task.few_shot.with_pool(examples, from_evalset=True)
        task = replace(task, few_shot=few_shot, settings={**task.settings, "few_shot": few_shot.settings})
    return with_sample_metrics(task)


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that already holds a report.

    Raises:
        UsageError: When it holds a report and ``overwrite`` is False, or when it is not a folder.
    """
    check_output_folder(folder)
    if (folder / REPORT).exists() and not overwrite:
        raise UsageError(f"'{folder}' already holds a report; add --overwrite to replace it, or give another folder with -o")


def _default_evalset(task: Task) -> Path:
    if not task.evalsets:
        raise UsageError(f"task '{task.name}' brings no evalset; give one with --evalset FILE")
    return next(iter(task.evalsets.values()))


def _check_limit(evalsets: Sequence[Evalset], config: GateConfig, requested_ids: Sequence[str], *, compared: bool) -> None:
    """Refuse ``--limit`` when it leaves out must-pass items, or any item that ``--strict`` wants compared with the baseline."""
    limited = next((evalset for evalset in evalsets if len(evalset.examples) < evalset.size), None)
    if limited is None:
        return
    must_pass = frozenset[str]().union(*(tier.must_pass for _, tier in config.tiers))
    if left_out := sorted(must_pass.difference(requested_ids)):
        raise UsageError(f"--must-pass items {list_quoted(left_out)} are not among the first {len(limited.examples)} of --limit")
    if compared and config.strict:
        raise NotComparableError(
            f"--limit compares {len(limited.examples)} of the {limited.size} items of {limited.name}, and --strict wants all; leave one of them out"
        )


def _resolve_baseline(text: str, output_name: str, requested_ids: Sequence[str], all_ids: frozenset[str]) -> Source:
    """Resolve ``--baseline``: a model, a baseline file, or a file of replies."""
    path = Path(text)
    if not path.is_file():
        return Source(text, output_name)
    if is_baseline(path):
        baseline = read_baseline(path)
        return Source(text, output_name, {item_id: item.reply for item_id, item in baseline.items.items()}, baseline)
    return _read_reply_source(path, output_name, requested_ids, all_ids)


def _count_examples(evalsets: Iterable[Evalset]) -> int:
    return sum(len(evalset.examples) for evalset in evalsets)


def _select_answered(evalsets: Sequence[Evalset], path: Path) -> tuple[Evalset, ...]:
    _check_reply_file(path)
    ids = {item_id for item_id, reply in read_replies(path).items() if isinstance(reply, Reply)}
    if not ids.intersection(example.id for evalset in evalsets for example in evalset.examples):
        raise DataError(f"no reply to any of the {_count_examples(evalsets)} items", str(path))
    return select_items(evalsets, ids)


def _check_reply_file(path: Path) -> None:
    if not path.is_file():
        raise DataError("is a folder; give a file of replies" if path.is_dir() else "no such file of replies", str(path))


def _read_reply_source(path: Path, output_name: str, requested_ids: Sequence[str], all_ids: frozenset[str], advice: str = "") -> Source:
    _check_reply_file(path)
    replies = read_replies(path)
    check_replies_match(replies, requested_ids, str(path), all_ids, advice)
    return Source(str(path), output_name, replies)
