"""Run checked plans: evaluate the models one after the other, store replies, compare, decide, report; in one process or in several."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftchat._util.files import create_folder, write_atomically
from sftchat._util.parsing import load_json, read_text
from sftchat.engine import Engine
from sftchat.errors import PluginError, UsageError
from sftchat.evaluation.cached_engine import CachedEngine, CacheOptions
from sftchat.evaluation.evaluate import (
    OnOutcome,
    generate_outcomes,
    package_versions,
)
from sftchat.evaluation.gate import decide_verdict, gate_tiers
from sftchat.evaluation.judge import judge_options
from sftchat.evaluation.judge_phase import verdicts_name
from sftchat.evaluation.judging import answering_task
from sftchat.evaluation.ledger import Ledger
from sftchat.evaluation.plan import Plan
from sftchat.evaluation.recording import ledger_entries
from sftchat.evaluation.reply_cache import ReplyCache, default_path
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.selection import REPORT
from sftchat.evaluation.task_run import OpenEngine, Say, TaskRun, Watch
from sftchat.inference.distributed import ProcessInfo, process_info, take_accelerator, wait_for_all
from sftchat.inference.identity import OPTIONS_WITHOUT_EFFECT
from sftchat.task import Task
from sftchat.text import pluralize


def ignore_line(_: str) -> None:
    """Do nothing with a line for the user."""


def no_progress(_title: str, _total: int, _cached: Callable[[], int]) -> AbstractContextManager[OnOutcome]:
    """Show no progress."""
    return nullcontext(lambda outcome: None)


class Evaluation:
    """A planned evaluation with everything that it needs to open models; ``sftchat eval`` is a command line for it.

    Args:
        plans: One plan per task; all with the same folder, sampling seed and models.
        load: Opens a model. Called with the name of the model, the task's template as ``preferred``, and the options.
        identify: Returns a hash of everything but the request that affects a model's replies, or an empty text when this is unknown. Called like
            ``load``, and with a function that hashes a file as ``hashed``.
        options: Keyword arguments of ``load`` and ``identify``.
        fresh: Whether to ignore cached replies and replace them.
        watch: Shows progress; None shows nothing.
        say: Called with a line for the user.
        ledger: Ledger that the results are added to; None for none.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        load: Callable[..., Engine],
        identify: Callable[..., str],
        options: Mapping[str, Any],
        *,
        fresh: bool = False,
        watch: Watch | None = None,
        say: Say = ignore_line,
        ledger: Ledger | None = None,
    ) -> None:
        self.plans = plans
        self.load = load
        self.identify = identify
        self.options = options
        self.fresh = fresh
        self.watch = watch
        self.say = say
        self.ledger = ledger
        self.cache = ReplyCache(default_path(), say)
        self._identities: dict[tuple[str, str], str] = {}  # of the models in the cache, by task and model
        self._hashes: dict[Path, str] = {}  # of the models' files, so that the ledger reads none again
        self._cache_options: list[CacheOptions] = []

    def run(self) -> Report | None:
        """Evaluate the plans; see ``run_plans``. With several processes, all of them generate replies, and all but the first return None.

        Raises:
            UsageError: When replies cannot be shared by several processes, or the output folder cannot be created.
            SftchatError: See ``run_plans``.
        """
        process = process_info()
        if self.fresh and process.count > 1:
            raise UsageError("--fresh asks everything in one process; set SFTCHAT_CACHE_DIR to a new folder to ask it again in several")
        quiet = self.watch is None or process.rank > 0
        watch = no_progress if self.watch is None or quiet else self.watch
        with closing(self.cache):
            if process.count > 1 and any(plan.models for plan in self.plans):
                take_accelerator()
                generate_shard(self.plans, self._opener, watch, process)
                wait_for_all()
            if process.rank > 0:
                return None
            report = run_plans(self.plans, self._opener, watch, self.cache, ignore_line if quiet else self.say, self._judge_opener)
            if self.ledger is not None:
                self.ledger.record(ledger_entries(report, self.plans, self.options, self._identities, self._known_hash))
            return report

    def _opener(self, task: Task) -> OpenEngine:
        """Return the function that opens models, by name, with the template of a task."""

        def note_identity(model: str, identity: str) -> None:
            self._identities[task.name, model] = identity

        return self._open_with(task, self.options, note_identity)

    def _judge_opener(self, task: Task) -> OpenEngine:
        """Return the function that opens the judge of a task."""
        return self._open_with(task, judge_options(self.options), lambda model, identity: None)

    def _open_with(self, task: Task, options: Mapping[str, Any], note_identity: Callable[[str, str], None]) -> OpenEngine:
        def identify(model: str) -> str:
            identity = self.identify(model, hashed=self._hash_file, preferred=task.template, **options)
            note_identity(model, identity)
            return identity

        def describe(model: str) -> str:
            effective = {name: value for name, value in options.items() if name not in OPTIONS_WITHOUT_EFFECT}
            return repr((model, task.template, sorted(effective.items())))

        cache_options = CacheOptions(self.cache, identify, self.fresh, describe=describe, say=self.say)
        self._cache_options.append(cache_options)
        return lambda name: CachedEngine(name, lambda model: self.load(model, preferred=task.template, **options), cache_options)

    def _hash_file(self, path: Path) -> str:
        self._hashes[path] = self.cache.file_hash(path)
        return self._hashes[path]

    def _known_hash(self, path: Path) -> str:
        """Return the hash of a file as it was when the model was identified."""
        return self._hashes[path] if path in self._hashes else self._hash_file(path)

    @property
    def partial_files(self) -> dict[Path, int]:
        """Files with replies from which the same evaluation can be resumed, each with the number of its replies."""
        folder = self.plans[0].output
        paths = sorted(folder.glob("replies*.partial.jsonl")) if folder is not None else []
        return {path: path.read_bytes().count(b"\n") for path in paths}

    def kept_lines(self, error: BaseException) -> Iterator[str]:
        """Yield the lines for the user on which replies are kept, and where, after an error or an interrupt."""
        action = "without --fresh goes on" if self.fresh else "goes on"
        condition = ", once the plugin is mended" if isinstance(error, PluginError) else ""
        cached = sum(options.kept for options in self._cache_options)
        for path, count in {self.cache.path: cached, **self.partial_files}.items():
            if count:
                yield f"{pluralize(count, 'reply', 'replies')} kept in {path}; the same command {action} from there{condition}"
        if lost := sum(options.lost for options in self._cache_options):
            yield f"{pluralize(lost, 'reply', 'replies')} lost: replies that cannot be cached are kept with -o only"


def generate_shard(plans: Sequence[Plan], opener: Callable[[Task], OpenEngine], watch: Watch, process: ProcessInfo) -> None:
    """Generate and cache the replies of every model to this process's shard of the items, so that the first process finds all in the cache.

    Args:
        plans: All plans of the evaluation, the same in every process.
        opener: For a task, returns a function that opens a model by its name.
        watch: Shows progress.
        process: Rank of this process, and number of processes.

    Raises:
        UsageError: When a model's replies cannot be cached, so the processes cannot share them.
        ModelError: When a model cannot be loaded.
        EngineError: When a model cannot generate any more.
        PluginError: When the task's scorer breaks its contract.
    """
    for plan in plans:
        task = plan.task if plan.judge is None else answering_task(plan.task)
        for model in plan.models:
            with closing(opener(plan.task)(model)) as engine:
                if not engine.caches:
                    raise UsageError(
                        f"the replies of '{model}' are not cached, so {process.count} processes cannot share the work; start one process"
                    )
                for evalset in plan.evalsets:
                    shard = evalset.examples[process.rank :: process.count]
                    title = f"{model} on {evalset.name}, part {process.rank + 1} of {process.count}"
                    hits_before = engine.hits
                    # a default argument, because the function must keep the present value of ``hits_before``
                    with watch(title, len(shard), lambda hits_before=hits_before: engine.hits - hits_before) as advance:  # type: ignore[misc]
                        for _ in generate_outcomes(engine, task, shard, advance, sampling=plan.sampling):
                            pass


def run_plans(
    plans: Sequence[Plan], opener: Callable[[Task], OpenEngine], watch: Watch, cache: ReplyCache | None = None, say: Say = ignore_line,
    judge_opener: Callable[[Task], OpenEngine] | None = None,
) -> Report:  # fmt: skip
    """Evaluate, compare and decide; write ``report.json`` and the replies into the plans' folder, if there is one.

    Models are opened one at a time, the baseline first, and closed before the next is opened. A model whose replies are all cached is not opened.
    Replies that were generated before an error or an interrupt are in the cache, so the same evaluation can be resumed. Replies that cannot be
    cached are stored in ``replies.partial.jsonl`` until the report is written and every item is answered.

    Args:
        plans: One plan per task; all with the same folder, sampling seed and models.
        opener: For a task, returns a function that opens a model by its name.
        watch: Shows progress.
        cache: Stores the results of leak checks; None for no storing.
        say: Called with a line for the user before a leak check that takes long.
        judge_opener: For a task, returns a function that opens its judge by its name; by default ``opener``.

    Raises:
        UsageError: When the folder cannot be created.
        ModelError: When a model cannot be loaded.
        EngineError: When a model cannot generate any more.
        NotComparableError: When a baseline was counted by another scorer.
        PluginError: When the task's scorer or a metric breaks its contract.
    """
    output = plans[0].output
    with ExitStack() as stack:
        if output is not None:
            try:
                stack.enter_context(create_folder(output))
            except OSError as error:
                raise UsageError(f"cannot make output folder '{output}': {error.strerror}") from error
        openers = [(plan, opener(plan.task), (judge_opener or opener)(plan.task) if plan.judge else None) for plan in plans]
        task_reports = [TaskRun(plan, open_model, watch, cache, say, stack, open_judge).run() for plan, open_model, open_judge in openers]
        configs = {plan.task.name: plan.gate_in_force for plan in plans}
        comparisons, gates = gate_tiers(
            [comparison for task_report in task_reports for comparison in task_report.comparisons],
            lambda comparison: configs[comparison.candidate.task],
        )
        report = Report(
            task=", ".join(task_report.task for task_report in task_reports),
            results=tuple(result for task_report in task_reports for result in task_report.results),
            baselines=tuple(result for task_report in task_reports for result in task_report.baselines),
            comparisons=comparisons,
            sampling=plans[0].sampling,
            seed=plans[0].seed,
            versions=package_versions(),
            gates=gates,
            remarks=tuple(remark for task_report in task_reports for remark in task_report.remarks),
            rankings=tuple(ranking for task_report in task_reports for ranking in task_report.rankings),
            judge=next((task_report.judge for task_report in task_reports if task_report.judge is not None), None),
        )
        report = replace(report, verdict=decide_verdict(report, configs))
        if output is not None:
            old_files = _reply_files_of(output / REPORT)
            write_atomically(output / REPORT, report.to_json())
            names = {result.replies for result in (*report.results, *report.baselines)}
            for name in old_files - names | ({verdicts_name(name) for name in old_files} if report.judge is None else set()):
                (output / name).unlink(missing_ok=True)
        return report


def _reply_files_of(report: Path) -> set[str]:
    """Return the names of the files of replies that belong to a report; none when the report cannot be read."""
    try:
        document = load_json(read_text(report))
        names = {result.get("replies") for result in (*document["results"], *document["baselines"])}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()
    return {name for name in names if isinstance(name, str) and re.fullmatch(r"replies[\w.-]*\.jsonl", name)}
