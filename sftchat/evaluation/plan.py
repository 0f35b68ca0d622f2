"""Only some items of a gold set: those named, or those that failed or broke the last time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

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
    """Which items alone to evaluate, as typed.

    Attributes:
        words: Ids, or files with one id a line.
        only: What went wrong the last time.
        source: The output folder of an earlier evaluation, or a baseline; the baseline compared with when None.
    """

    words: tuple[str, ...] = ()
    only: Kind | None = None
    source: Path | None = None

    def ids(self, known: Collection[str], baseline: str | None = None) -> frozenset[str]:
        """The ids of the items; with both ways of selecting, those that both select.

        Args:
            known: The ids there are.
            baseline: What is compared with.

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
    """The gold sets with the items asked for alone; a set of which none is left is dropped.

    Raises:
        UsageError: When none is left at all.
    """
    kept = [replace(one, examples=tuple(example for example in one.examples if example.id in ids)) for one in evalsets]
    if not any(one.examples for one in kept):
        raise UsageError("none of the selected items is in the evalset")
    return tuple(one for one in kept if one.examples)


def past_ids(kind: Kind, source: Path) -> frozenset[str]:
    """Ids of the items that went wrong the last time.

    Args:
        kind: ``newly-broken`` since the baseline of that time, or all that were ``failing``.
        source: The output folder of an earlier evaluation, or, for ``failing``, a baseline file.

    Raises:
        UsageError: When the source cannot say.
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
        # a name alone: what a report says must not lead out of its folder
        files = sorted({Path(result["replies"]).name for result in document["results"] if result.get("replies")})
        rows = [load_json(line) for file in files for line in read_text(source / file).split("\n") if line.strip()]
        return _some(kind, source, {row["id"] for row in rows if row.get("errors") or row.get("error")})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not the folder of an evaluation: {error}", str(source)) from error


def _some(kind: Kind, source: Path, ids: Collection[str]) -> frozenset[str]:
    """The ids, of which there must be one."""
    if not ids:
        raise UsageError(f"nothing in '{source}' is {kind.replace('-', ' ')}, so there is nothing to evaluate")
    return frozenset(ids)


REPORT = "report.json"


@dataclass(frozen=True)
class Source:
    """Where replies come from: a model to be opened, or a file.

    Attributes:
        name: What the user typed.
        file: What its replies are called in the output folder.
        stored: The replies of the file; None for a model.
        baseline: The file as a baseline, where it is one.
    """

    name: str
    file: str
    stored: Mapping[str, Reply | str] | None = None
    baseline: Baseline | None = None


@dataclass(frozen=True)
class Plan:
    """An evaluation that can begin.

    Attributes:
        task: Scores the replies.
        evalsets: What is asked, at least one.
        sources: Who is asked, at least one.
        baseline: With whom they are compared.
        sampling: How replies are generated.
        seed: Of the statistics.
        output: Folder of the results.
        rules: What is demanded.
        cluster: Metadata key of items that belong together; empty where they stand alone.
        removed: Ids that the baseline has and the gold sets do not.
        selected: Only chosen items are evaluated, which no gate can judge.
        remarks: What the verdict must mention.
        self_check: Whether each model is asked some items again.
        tasks: All there are, by name, so that rows of their generators can be made again.
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
        """Every model that has to be opened, in that order."""
        asked = (self.baseline, *self.sources) if self.baseline else self.sources
        return tuple(source.name for source in asked if source.stored is None)

    @property
    def demanded(self) -> GateConfig:
        """The rules that hold: none for chosen items."""
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
    """Read what is small and check that it fits together.

    Args:
        task: Scores the replies.
        models: MODEL arguments; none when ``replies`` is given.
        evalsets: Gold sets; the task's first one when empty.
        baseline: A MODEL, or a file of replies, to compare with.
        replies: Stored replies to be scored.
        limit: Score only this many rows of each gold set, at least 1.
        seed: Of the resampling, and of the samples where the task's sampling is not greedy.
        output: Folder of the results.
        demands: What is demanded of the results, as typed.
        cluster: Metadata key of items that belong together; empty where they stand alone.
        selection: Which items alone to evaluate.
        self_check: Ask each model some items again, alone and in other batches.
        tasks: All there are, by name; their generators make the rows again that a checkpoint was trained on.
        partial: Score the items alone that ``replies`` has a reply to.
        label: What the names of files begin with after ``replies``, such as ``.relation`` where there are several tasks.

    Raises:
        UsageError: When the task has no gold set and none is given, or an option does not fit the items.
        DataError: When a gold set or a file of replies is missing, malformed, or does not fit.
        NotComparableError: When the baseline measured something else, is missing, or would be compared in part where all is demanded.
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
        if remark:  # else the file is complete
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
    """Refuse a folder that holds results nobody said may be replaced.

    Raises:
        UsageError: When it does, or when it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output '{folder}' is a file; give a folder")
    if (folder / REPORT).exists() and not overwrite:
        raise UsageError(f"'{folder}' already holds a report; add --overwrite to replace it, or give another folder with -o")


def _default_evalset(task: Task) -> Path:
    """The task's own gold set."""
    if not task.evalsets:
        raise UsageError(f"task '{task.name}' brings no evalset; give one with --evalset FILE")
    return next(iter(task.evalsets.values()))


def _refuse_part(sets: Sequence[Evalset], rules: GateConfig, asked: Sequence[str], *, compared: bool) -> None:
    """Refuse ``--limit`` where what it leaves out is demanded.

    Raises:
        UsageError: When an item that must be right is not asked.
        NotComparableError: When a comparison must be of every item.
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
    """With what to compare: a model, a baseline, or a file of replies."""
    path = Path(text)
    if not path.is_file():
        return Source(text, file)
    if is_baseline(path):
        found = read_baseline(path)
        return Source(text, file, {id: item.reply for id, item in found.items.items()}, found)
    return _stored(path, file, asked, known)


def _answered(sets: Sequence[Evalset], path: Path) -> tuple[tuple[Evalset, ...], str]:
    """The gold sets with the items alone that have a reply in a file, and a remark that says how many those are."""
    _check_file(path)
    ids = {identity for identity, reply in read_replies(path).items() if isinstance(reply, Reply)}
    count = sum(len(evalset.examples) for evalset in sets)
    if not ids.intersection(example.id for evalset in sets for example in evalset.examples):
        raise DataError(f"no reply to any of the {count} items", str(path))
    sets = select(sets, ids)
    some = sum(len(evalset.examples) for evalset in sets)
    return sets, f"{some} of {count} items have a reply in '{path}' and are scored; no gate passes on a part" if some < count else ""


def _check_file(path: Path) -> None:
    """Refuse what is no file."""
    if not path.is_file():
        raise DataError("is a folder; give a file of replies" if path.is_dir() else "no such file of replies", str(path))


def _stored(path: Path, file: str, asked: Sequence[str], known: frozenset[str], advice: str = "") -> Source:
    """A file of replies that fits the gold sets."""
    _check_file(path)
    replies = read_replies(path)
    match(replies, asked, str(path), known, advice)
    return Source(str(path), file, replies)
