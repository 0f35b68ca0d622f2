"""Plan an evaluation: select items, resolve baseline and replies, and check that they fit together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from sftchat._util.files import check_output_folder
from sftchat._util.parsing import load_json, read_text
from sftchat.errors import DataError, NotComparableError, UsageError, listed
from sftchat.evaluation.baseline import Baseline, check_comparable, check_whole, is_baseline, is_missing, nearest_file, read_baseline
from sftchat.evaluation.evalset import Evalset, all_examples, cluster_of, read_evalset
from sftchat.evaluation.replies import match, read_replies
from sftchat.evaluation.rules import GateConfig, GateOptions, parse_ids
from sftchat.task import Task
from sftchat.types import Reply, SamplingParams

Kind = Literal["newly-broken", "failing"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Selection:
    """Restriction of an evaluation to some items, as typed.

    Attributes:
        words: Ids, or files with one id per line.
        only: Select the items that failed or broke in an earlier evaluation.
        source: Output folder of that evaluation, or a baseline file; when None, the baseline of this evaluation.
    """

    words: tuple[str, ...] = ()
    only: Kind | None = None
    source: Path | None = None

    def ids(self, known: Collection[str], baseline: str | None = None) -> frozenset[str]:
        """Return the selected ids: the intersection when both ways of selecting are used.

        Args:
            known: All ids of the evalsets.
            baseline: Baseline of this evaluation.

        Raises:
            UsageError: When an id is unknown or nothing is selected.
            DataError: When a file is malformed.
        """
        chosen = parse_ids(self.words, known, "--ids") if self.words else frozenset(known)
        if self.only is None:
            return chosen
        source = self.source or (Path(baseline) if baseline else None)
        if source is None:
            raise UsageError(f"--only {self.only} needs --from DIR, the folder of an earlier evaluation, or a --baseline FILE")
        return chosen & past_ids(self.only, source)


def select(evalsets: Sequence[Evalset], ids: Collection[str]) -> tuple[Evalset, ...]:
    """Restrict evalsets to some items; an evalset without a selected item is dropped.

    Raises:
        UsageError: When no item is left.
    """
    kept = [replace(one, examples=tuple(example for example in one.examples if example.id in ids)) for one in evalsets]
    if not any(one.examples for one in kept):
        raise UsageError("none of the selected items is in the evalset")
    return tuple(one for one in kept if one.examples)


def past_ids(kind: Kind, source: Path) -> frozenset[str]:
    """Return the ids of items that went wrong in an earlier evaluation.

    Args:
        kind: ``newly-broken`` since the baseline of that evaluation, or all ``failing``.
        source: Output folder of that evaluation or, for ``failing``, a baseline file.

    Raises:
        UsageError: When the source does not contain this information.
        DataError: When it is malformed.
    """
    if source.is_file() and is_baseline(source):
        if kind == "newly-broken":
            raise UsageError(f"baseline {source} does not know what is newly broken; give the folder of an earlier evaluation with --from")
        return _some(kind, source, {identity for identity, item in read_baseline(source).items.items() if not item.right})
    report = source / "report.json"
    if not report.is_file():
        raise UsageError(f"'{source}' is neither the folder of an earlier evaluation nor a baseline")
    try:
        document = load_json(read_text(report))
        if kind == "newly-broken":
            return _some(kind, source, {identity for comparison in document["comparisons"] for identity in comparison["broken"]})
        # base name only: a path in the report must not lead out of its folder
        files = sorted({Path(result["replies"]).name for result in document["results"] if result.get("replies")})
        rows = [load_json(line) for file in files for line in read_text(source / file).split("\n") if line.strip()]
        return _some(kind, source, {row["id"] for row in rows if row.get("errors") or row.get("error")})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not the folder of an evaluation: {error}", str(source)) from error


def _some(kind: Kind, source: Path, ids: Collection[str]) -> frozenset[str]:
    """Return the ids; raise UsageError when there is none."""
    if not ids:
        raise UsageError(f"nothing in '{source}' is {kind.replace('-', ' ')}, so there is nothing to evaluate")
    return frozenset(ids)


REPORT = "report.json"


@dataclass(frozen=True)
class Source:
    """Source of replies: a model to open, or a file.

    Attributes:
        name: Name as typed by the user.
        file: File name of its replies in the output folder.
        stored: Replies of the file; None for a model.
        baseline: The file's content as a baseline, when it is one.
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
        baseline: Source to compare with.
        sampling: Sampling parameters.
        seed: Seed of the statistics.
        output: Folder for the results.
        rules: Gate configuration.
        cluster: Metadata key that groups items into clusters; empty for independent items.
        removed: Ids that are in the baseline but not in the evalsets.
        selected: Whether only selected items are evaluated; no gate is then computed.
        remarks: Messages that the verdict must include.
        self_check: Whether some items are repeated with each model.
        tasks: All tasks by name, needed to regenerate the rows of their generators.
    """

    task: Task
    evalsets: tuple[Evalset, ...]
    sources: tuple[Source, ...]
    baseline: Source | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    output: Path | None = None
    rules: GateConfig = field(default_factory=GateConfig)
    cluster: str = ""
    removed: tuple[str, ...] = ()
    selected: bool = False
    remarks: tuple[str, ...] = ()
    self_check: bool = False
    tasks: Mapping[str, Task] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models to open, in that order."""
        asked = (self.baseline, *self.sources) if self.baseline else self.sources
        return tuple(source.name for source in asked if source.stored is None)

    @property
    def demanded(self) -> GateConfig:
        """The gate configuration in force: an empty one for selected items."""
        return GateConfig() if self.selected else self.rules


def make_plan(
    task: Task,
    models: Sequence[str],
    *,
    evalsets: Sequence[Path] = (),
    baseline: str | None = None,
    replies: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    output: Path | None = None,
    demands: GateOptions | None = None,
    cluster: str = "",
    selection: Selection | None = None,
    label: str = "",
    self_check: bool = False,
    tasks: Mapping[str, Task] | None = None,
    partial: bool = False,
) -> Plan:
    """Read the evalsets and replies, and check that they fit together; no model is opened.

    Args:
        task: Task with the scorer.
        models: MODEL arguments; none when ``replies`` is given.
        evalsets: Evalset files; the task's first one when empty.
        baseline: A MODEL, or a file of replies, to compare with.
        replies: File of stored replies to score.
        limit: Maximum number of rows of each evalset, at least 1.
        seed: Seed of the resampling, and of the sampling when it is not greedy.
        output: Folder for the results.
        demands: Gate options as typed.
        cluster: Metadata key that groups items into clusters; empty for independent items.
        selection: Restriction to some items.
        self_check: Whether to repeat some items with each model, alone and in other batches.
        tasks: All tasks by name; their generators reproduce the rows that a checkpoint was trained on.
        partial: Whether to score only the items that have a reply in ``replies``.
        label: Inserted after ``replies`` in file names, such as ``.relation`` when there are several tasks.

    Raises:
        UsageError: When the task has no evalset and none is given, or an option does not fit the items.
        DataError: When an evalset or a file of replies is missing, malformed, or does not fit.
        NotComparableError: When the baseline measured something else, is missing, or would be compared only in part although all is required.
    """
    demands = demands or GateOptions()
    missing = baseline is not None and is_missing(baseline)
    if baseline is not None and missing and not demands.allow_missing_baseline:
        raise NotComparableError(
            f"no baseline '{baseline}'{nearest_file(baseline)}; write one with --update-baseline {baseline}, "
            "or add --allow-missing-baseline for the first run"
        )
    paths = evalsets or (_default_evalset(task),)
    sets = tuple(read_evalset(path, limit) for path in paths)
    known = frozenset().union(*(evalset.ids for evalset in sets))
    all_examples(sets)
    rules = demands.rules(task, known)
    remarks: tuple[str, ...] = ()
    if selection is not None:
        before = sum(len(evalset.examples) for evalset in sets)
        sets = select(sets, selection.ids(known, baseline))
        after = sum(len(evalset.examples) for evalset in sets)
        remarks = (f"{after} of {before} items were selected; no gate is computed on a selected subset",)
    if partial:
        if replies is None:
            raise UsageError("--partial says that some items have no reply in the file of --replies FILE; add that, or leave --partial out")
        sets, remark = _answered(sets, replies)
        if remark:  # otherwise the file is complete
            rules, remarks = replace(rules, partial=True), (*remarks, remark)
    examples = all_examples(sets)
    asked = [example.id for example in examples]
    if selection is None and not rules.partial:
        _refuse_part(sets, rules, asked, compared=baseline is not None and not missing)
    for example in examples if cluster else ():
        cluster_of(example, cluster)
    sampling = replace(task.sampling, seed=seed)
    if replies is not None:
        advice = "; --partial scores the items that have one"
        sources: tuple[Source, ...] = (_stored(replies, f"replies{label}.jsonl", asked, known, advice),)
    elif len(models) == 1:
        sources = (Source(models[0], f"replies{label}.jsonl"),)
    else:
        sources = tuple(Source(model, f"replies{label}.{number}.jsonl") for number, model in enumerate(models, start=1))
    beside: Source | None = None
    removed: tuple[str, ...] = ()
    if baseline is not None and missing:
        remarks = (*remarks, f"no baseline '{baseline}' yet{nearest_file(baseline)}; write one with --update-baseline {baseline}")
    elif baseline is not None:
        beside = _baseline(baseline, f"replies{label}.baseline.jsonl", asked, known)
        if beside.baseline is not None:
            check_comparable(beside.baseline, task, examples, None if replies is not None else sampling)
            check_whole(beside.baseline, sets)
            removed = tuple(identity for identity in beside.baseline.items if identity not in known)
    return Plan(
        task,
        sets,
        sources,
        beside,
        sampling,
        seed,
        output,
        rules,
        cluster,
        removed,
        selection is not None,
        remarks,
        self_check,
        tasks or {},
    )


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that already holds a report.

    Raises:
        UsageError: When it holds a report and ``overwrite`` is False, or when it is not a folder.
    """
    check_output_folder(folder)
    if (folder / REPORT).exists() and not overwrite:
        raise UsageError(f"'{folder}' already holds a report; add --overwrite to replace it, or give another folder with -o")


def _default_evalset(task: Task) -> Path:
    """Return the task's first evalset."""
    if not task.evalsets:
        raise UsageError(f"task '{task.name}' brings no evalset; give one with --evalset FILE")
    return next(iter(task.evalsets.values()))


def _refuse_part(sets: Sequence[Evalset], rules: GateConfig, asked: Sequence[str], *, compared: bool) -> None:
    """Refuse ``--limit`` when it leaves out required items.

    Raises:
        UsageError: When a must-pass item is left out.
        NotComparableError: When the comparison must cover every item.
    """
    limited = next((one for one in sets if len(one.examples) < one.size), None)
    if limited is None:
        return
    if unasked := sorted(rules.must_pass.difference(asked)):
        raise UsageError(f"--must-pass items {listed(unasked)} are not among the first {len(limited.examples)} of --limit")
    if compared and rules.strict:
        raise NotComparableError(
            f"--limit compares {len(limited.examples)} of the {limited.size} items of {limited.name}, and --strict wants all; leave one of them out"
        )


def _baseline(text: str, file: str, asked: Sequence[str], known: frozenset[str]) -> Source:
    """Resolve ``--baseline``: a model, a baseline file, or a file of replies."""
    path = Path(text)
    if not path.is_file():
        return Source(text, file)
    if is_baseline(path):
        found = read_baseline(path)
        return Source(text, file, {id: item.reply for id, item in found.items.items()}, found)
    return _stored(path, file, asked, known)


def _answered(sets: Sequence[Evalset], path: Path) -> tuple[tuple[Evalset, ...], str]:
    """Restrict evalsets to the items with a reply in a file; also return a remark with their number, empty when the file is complete."""
    _check_file(path)
    ids = {identity for identity, reply in read_replies(path).items() if isinstance(reply, Reply)}
    count = sum(len(evalset.examples) for evalset in sets)
    if not ids.intersection(example.id for evalset in sets for example in evalset.examples):
        raise DataError(f"no reply to any of the {count} items", str(path))
    sets = select(sets, ids)
    some = sum(len(evalset.examples) for evalset in sets)
    return sets, f"{some} of {count} items have a reply in '{path}' and are scored; no gate passes on a part" if some < count else ""


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError("is a folder; give a file of replies" if path.is_dir() else "no such file of replies", str(path))


def _stored(path: Path, file: str, asked: Sequence[str], known: frozenset[str], advice: str = "") -> Source:
    """Read a file of replies and match it with the evalsets."""
    _check_file(path)
    replies = read_replies(path)
    match(replies, asked, str(path), known, advice)
    return Source(str(path), file, replies)
