"""Tasks from a TOML file, or from a scorer alone: a prompt, few-shot examples, a scorer, sampling parameters and files, without Python."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sftchat._util.parsing import expand_user, from_json, read_text
from sftchat.data.few_shot import Choice, FewShot
from sftchat.data.formats import read_solved_examples, to_example
from sftchat.data.row_options import RowOptions, parse_column_map
from sftchat.errors import DataError, UsageError
from sftchat.scorers import for_raw_prompts, make_scorer
from sftchat.scorers.base import Scorer, task_fields
from sftchat.task import NAME, Task, Thinking, TrainingDefaults, no_turns
from sftchat.types import Example, SamplingParams


@dataclass(frozen=True)
class FewShotSection:
    """``[few_shot]`` of a task file.

    Attributes:
        k: Number of examples before each item.
        choose: ``first`` or ``nearest``, see ``FewShot``.
        rows: The examples, as rows of the task's files.
        file: File with the examples; without rows and file, the other items of the evalset are the examples.
    """

    k: int
    choose: Choice = "first"
    rows: tuple[Mapping[str, Any], ...] = ()
    file: str = ""


@dataclass(frozen=True)
class TaskFile:
    """Content of a task file; paths are relative to its folder.

    Attributes:
        scorer: Name of a scorer of ``sftchat.scorers`` under ``name``, and its arguments.
        name: Name of the task; the name of the file by default.
        description: One line.
        system: System prompt.
        prompt: Template of the prompt over the columns of a row, such as ``Summarise: {text}``.
        columns: The column to read under a name, as for ``--map``, such as ``gold = "label"``.
        few_shot: Few-shot examples in an evaluation.
        sampling: Sampling parameters, see ``SamplingParams``.
        samples: Number of replies to each item of an evaluation.
        thinking: ``drop``, ``keep`` or ``off``, see ``Task``.
        raw_prompt: Whether an evaluation sends prompts without a chat template.
        template: Chat template for models without their own.
        evalset: File of the default evalset.
        evalsets: Files of further evalsets by name.
        data: Files to train on.
        training: Defaults for training, see ``TrainingDefaults``.
        must_pass: Ids of items that must be right.
    """

    scorer: Mapping[str, Any]
    name: str = ""
    description: str = ""
    system: str = ""
    prompt: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    few_shot: FewShotSection | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    samples: int = 1
    thinking: Thinking = "drop"
    raw_prompt: bool = False
    template: str = "chatml"
    evalset: str = ""
    evalsets: Mapping[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    training: TrainingDefaults = field(default_factory=TrainingDefaults)
    must_pass: tuple[str, ...] = ()


def load_task_file(path: str | Path) -> Task:
    """Read a task from a TOML file.

    Args:
        path: The file; its keys are the attributes of ``TaskFile``.

    Raises:
        DataError: When the file is missing or malformed, or a key is unknown or has a value of another type.
        UsageError: When the scorer does not exist, or an argument of it is wrong.
    """
    file = expand_user(path)
    try:
        document = tomllib.loads(read_text(file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot be read as a task: {getattr(error, 'strerror', None) or error}", str(file)) from None
    try:
        content = from_json(TaskFile, document)
    except ValueError as error:
        raise DataError(f"not a task: {error} (keys: {', '.join(item.name for item in fields(TaskFile))})", str(file)) from None
    try:
        return _build_task(content, file)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None


def _build_task(content: TaskFile, file: Path) -> Task:
    name = content.name or re.sub(r"[^a-z0-9_-]+", "-", file.stem.lower()).strip("-_") or "task"
    if not NAME.fullmatch(name):
        raise UsageError(
            f"task name '{name}' must be lower-case letters, digits, '-' and '_', starting with a letter; set it with name = \"…\""
        )
    folder = file.parent
    arguments = dict(content.scorer)
    scorer_name = arguments.pop("name", None)
    if not isinstance(scorer_name, str):
        raise UsageError('[scorer] has no name; write for example name = "exact"')
    columns = parse_column_map(f"{key}={column}" for key, column in content.columns.items())
    # rows that sftchat writes for the task, such as validation items, have turns already
    options = RowOptions(columns=columns, prompt=content.prompt, keep_turns=bool(columns or content.prompt))
    evalsets = {**({Path(content.evalset).stem: content.evalset} if content.evalset else {}), **content.evalsets}
    return make_task(
        name,
        make_scorer(scorer_name, arguments),
        description=content.description or f"task of {file.name}",
        system=content.system,
        few_shot=_few_shot(content.few_shot, folder, options) if content.few_shot is not None else no_turns,
        sampling=content.sampling,
        samples=content.samples,
        thinking=content.thinking,
        raw_prompt=content.raw_prompt,
        template=content.template,
        evalsets={key: folder / expand_user(value) for key, value in evalsets.items()},
        training_files=tuple(str(folder / expand_user(name)) for name in content.data),
        training_defaults=lambda method, parameters: content.training,
        row_options=options.non_default,
        must_pass=content.must_pass,
    )


def _few_shot(section: FewShotSection, folder: Path, options: RowOptions) -> FewShot:
    if section.k < 1:
        raise UsageError(f"[few_shot] k is {section.k}, must be at least 1")
    if section.rows and section.file:
        raise UsageError("[few_shot] has both rows and file; remove one")
    pool: Iterable[Example] | None = None
    if section.rows:
        pool = [to_example(row, f"[few_shot] row {number}", options) for number, row in enumerate(section.rows, 1)]
    elif section.file:
        pool = read_solved_examples(folder / expand_user(section.file), options)
    few_shot = FewShot(section.k, section.choose)
    return few_shot if pool is None else few_shot.with_pool(tuple(pool))


def make_task(name: str, scorer: Scorer, *, description: str = "", raw_prompt: bool = False, **attributes: Any) -> Task:
    """Return the task of a scorer; its rows come from files only.

    Args:
        name: Name of the task.
        scorer: Scorer of its replies.
        description: One line.
        raw_prompt: Whether prompts have no chat template, also if the scorer does not say so.
        attributes: Further attributes of ``Task``.
    """

    def generate(n: int, seed: int) -> Iterable[Example]:
        raise UsageError(f"task '{name}' has no generator; give rows from a file")

    if raw_prompt:
        scorer = for_raw_prompts(scorer)
    return Task(
        name=name,
        description=description or f"replies scored by {scorer.name}",
        generate=generate,
        **task_fields(scorer),
        raw_prompt=raw_prompt or scorer.raw_prompt,
        settings={"scorer": {"name": scorer.name, **scorer.settings}},
        **attributes,
    )
