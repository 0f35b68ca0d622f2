"""``sftchat.train``: fine-tune a model on rows, and return the run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from sftchat._util.notebook import import_tqdm
from sftchat.api.model import Model, load
from sftchat.api.options import EngineOptions, check_count
from sftchat.api.rows import Rows, to_rows
from sftchat.api.session import Session
from sftchat.api.wording import for_python, in_python
from sftchat.data.formats import assign_ids, examples_hash, to_example
from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, ReadingNotes, RowOptions, options_for_task, parse_column_map
from sftchat.errors import UsageError, unknown_name_message
from sftchat.models.manifest import Manifest, read_manifest
from sftchat.task import Task
from sftchat.types import Example

if TYPE_CHECKING:
    from sftchat.training.prepare import TrainingJob

DEFAULT_TASK = "general"
"""Task whose settings are used for rows when no task is named."""


@dataclass(frozen=True, repr=False)
class Run(os.PathLike[str]):
    """A finished training; it can be used as MODEL.

    Attributes:
        folder: The run folder.
    """

    folder: Path

    def __fspath__(self) -> str:
        return str(self.folder)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest: task, base model, hyper-parameters, data, and scores by step."""
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise UsageError(f"'{self.folder}' is no run of sftchat")
        return manifest

    @property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """Metrics on the validation items by step; step 0 is the base model; empty without scorings."""
        return self.manifest.scores

    def load(self, **options: Unpack[EngineOptions]) -> Model:
        """Load the trained model, see ``sftchat.load``."""
        return load(self, **options)

    def __repr__(self) -> str:
        return f"<sftchat run {self.folder}: {self.manifest.task}, {self.manifest.steps} steps from {self.manifest.base}>"


@dataclass(frozen=True)
class TrainingInputs:
    """What to train, as given by the user; ``sftchat train`` and ``sftchat.train`` prepare the same job from it.

    Attributes:
        task: The task.
        model: The base model as MODEL.
        output: The run folder.
        files: Files to train on; the task's own files or its generator when empty and there are no ``examples``.
        examples: Rows in memory instead of files; None without them.
        rows: Number of rows of the generator.
        options: Options of the generator as ``NAME=VALUE``.
        replay: Sources of replayed rows as ``SOURCE=SHARE``.
        row_options: Options for reading the files, in addition to the task's own.
        validation: File of items to score during training.
        hyperparameters: Hyper-parameters by their names in ``TrainingConfig``.
        others: Further attributes of ``TrainingJob``.
    """

    task: Task
    model: str
    output: Path
    files: tuple[str, ...] = ()
    examples: tuple[Example, ...] | None = None
    rows: int | None = None
    options: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    row_options: RowOptions = DEFAULT_ROW_OPTIONS
    validation: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)


def make_job(inputs: TrainingInputs, session: Session, notes: ReadingNotes | None = None) -> TrainingJob:
    """Check what can be checked without a model, read or generate the rows, and return the training job.

    Args:
        inputs: What to train.
        session: Plugins.
        notes: Collects changes to the rows.

    Raises:
        UsageError: When an option is out of its range or contradicts another, or the output folder cannot be used.
        DataError: When rows cannot be used.
        MissingExtraError: When the extra ``local`` is not installed.
    """
    from sftchat.models.loading import require_local

    require_local("training")
    from sftchat.inference.distributed import is_main_process
    from sftchat.training.checkpoints import check_not_in_use, check_output
    from sftchat.training.config import check_options
    from sftchat.training.replay import collect_replay_rows, parse_replays
    from sftchat.training.rows import collect_rows

    others = dict(inputs.others)
    task, files, seed = inputs.task.for_training(), inputs.files, inputs.hyperparameters.get("seed") or 0
    if not files and inputs.examples is None and inputs.rows is None and not inputs.options:
        files = task.training_files
    row_options = options_for_task(task, inputs.row_options) if files else inputs.row_options
    has_rows = bool(files) or inputs.examples is not None
    replays = parse_replays(inputs.replay, session.registry.tasks, trained="" if has_rows else task.name)
    check_options(
        task, inputs.model, dict(inputs.hyperparameters), inputs.validation, row_options=row_options, engine_types=session.registry.engines
    )
    if is_main_process():
        check_not_in_use(inputs.output)
        check_output(inputs.output, bool(others.get("resume")))
    if inputs.examples is not None:
        if files or inputs.rows is not None or inputs.options:
            raise UsageError("rows in memory are trained on alone; leave out files and options of the generator")
        examples = [example.with_system(task.system) for example in inputs.examples]
        sources: tuple[Mapping[str, Any], ...] = ({"file": "rows in memory", "sha256": examples_hash(inputs.examples)},)
    else:
        examples, sources = collect_rows(
            task, files, rows=inputs.rows, options=inputs.options, seed=seed, row_options=row_options, notes=notes
        )
    replay_rows, replay_sources = collect_replay_rows(replays, len(examples), seed)
    from sftchat.training.prepare import TrainingJob  # last, because it imports torch

    return TrainingJob(
        task, inputs.model, inputs.output, examples, (*sources, *replay_sources), inputs.hyperparameters, inputs.validation,
        replay=replay_rows, row_options=row_options, **others,
    )  # fmt: skip


@for_python
def train(
    task: str | os.PathLike[str] | Task | None = None,
    *,
    model: str | os.PathLike[str] = "sftchat:nano",
    output: str | os.PathLike[str],
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Rows | None = None,
    columns: Mapping[str, str] | None = None,
    rows: int | None = None,
    options: Mapping[str, Any] | None = None,
    replay: Mapping[str, float] | None = None,
    validation: str | os.PathLike[str] | None = None,
    template: str = "",
    force: bool = False,
    resume: bool = False,
    trust_remote_code: bool = False,
    progress: bool | None = None,
    session: Session | None = None,
    **hyperparameters: Any,
) -> Run:
    """Fine-tune a model, as ``sftchat train`` does, and return the run.

    Args:
        task: Name of a task, task file or ``Task``; the settings of the task ``general`` by default, if there are rows.
        model: The base model as MODEL.
        output: The run folder.
        data: File or files, or rows (see ``sftchat.api.rows.Rows``); the task's own files or its generator by default.
        columns: The column to read under a name, such as ``{"prompt": "question", "completion": "answer"}``.
        rows: Number of rows to draw from the generator.
        options: Options of the generator by name.
        replay: Shares of replayed rows by source, such as ``{"general": 0.2}``.
        validation: File of items to score during training.
        template: Chat template name or file that replaces the model's own.
        force: Whether to train even when the parity proof fails.
        resume: Whether to continue from the last checkpoint of ``output``.
        trust_remote_code: Whether code in the model repository may run.
        progress: Whether to show progress on standard error; by default on a terminal and in a notebook.
        session: Plugins; those that are installed by default.
        hyperparameters: Hyper-parameters by their names in ``sftchat.training.config.TrainingConfig``, such as ``method="lora"`` and ``epochs=1``.

    Raises:
        UsageError: When an argument is unknown, out of its range or contradicts another.
        DataError: When rows cannot be used.
        ModelError: When the model cannot be loaded, or its template fails the parity proof.
        EngineError: When training itself fails.
        MissingExtraError: When the extra ``local`` is not installed.
    """
    from sftchat.training.config import TrainingConfig

    known = {item.name for item in fields(TrainingConfig)}
    for name in hyperparameters:
        if name not in known:
            raise UsageError(unknown_name_message("hyper-parameter", name, known))
    check_count("rows", rows, 1)
    session = session or Session()
    if task is None and data is None:
        raise UsageError("give a task, or rows with data=…")
    chosen = task if isinstance(task, Task) else session.registry.task(os.fspath(task) if task is not None else DEFAULT_TASK)
    row_options = RowOptions(columns=parse_column_map(f"{name}={column}" for name, column in (columns or {}).items()))
    files, examples = _to_data(data, options_for_task(chosen, row_options))
    inputs = TrainingInputs(
        task=chosen,
        model=os.fspath(model),
        output=Path(output),
        files=files,
        examples=examples,
        rows=rows,
        options=tuple(f"{name}={value}" for name, value in (options or {}).items()),
        replay=tuple(f"{source}={share}" for source, share in (replay or {}).items()),
        row_options=row_options if files else RowOptions(),
        validation=None if validation is None else os.fspath(validation),
        hyperparameters={"seed": 0, "report_to": None, **hyperparameters},
        others={"template": template, "force": force, "resume": resume, "trust_remote_code": trust_remote_code, "command": "sftchat.train"},
    )
    notes = ReadingNotes()
    import_tqdm()
    job = make_job(inputs, session, notes)
    from sftchat._util.consoles import GuardedConsole, shows_progress
    from sftchat.training.progress import TrainingProgress
    from sftchat.training.run import train as run_training

    console = GuardedConsole(sys.stderr)
    with TrainingProgress(console, quiet=not shows_progress(console, progress)) as shown:
        for line in notes.lines():
            shown.message(in_python(line))
        run_training(
            job, shown.listener(inputs.model), engine_types=session.registry.engines, plugin_callbacks=session.registry.trainer_callbacks
        )
    return Run(inputs.output)


def _to_data(data: Any, row_options: RowOptions) -> tuple[tuple[str, ...], tuple[Example, ...] | None]:
    """Return files, or rows in memory as examples."""
    if data is None:
        return (), None
    if isinstance(data, (str, os.PathLike)):
        return (os.fspath(data),), None
    if isinstance(data, Sequence) and data and all(isinstance(name, (str, os.PathLike)) for name in data):
        return tuple(map(os.fspath, data)), None
    rows = to_rows(data)
    examples = (
        row if isinstance(row, Example) else to_example(row, f"row {number}", row_options) for number, row in enumerate(rows, start=1)
    )
    return (), tuple(assign_ids(examples))
