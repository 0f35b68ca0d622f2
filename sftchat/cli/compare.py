"""``sftchat compare``: the same questions to several models, side by side, with scores where the task has gold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.completing import complete_model, complete_task
from sftchat.cli.questions import in_order, question, read_questions, reply_facts
from sftchat.cli.sampling import chosen_sampling, sampling_options
from sftchat.cli.shared import Session, answering_options, json_text, stderr
from sftchat.cli.tasks import trained_on
from sftchat.engine import Engine, Request
from sftchat.errors import EngineError, UsageError
from sftchat.task import metric_value
from sftchat.types import Example, Reply, SamplingParams

if TYPE_CHECKING:
    from sftchat.evaluation.scored import Item
    from sftchat.models.reference import ModelReference
    from sftchat.task import Task

Answer = Reply | EngineError


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL…", shell_complete=complete_model)
@click.option("-q", "--question", "texts", multiple=True, metavar="TEXT", help="A question, repeatable.")
@click.option(
    "--questions", type=click.Path(path_type=Path), metavar="FILE", help="Rows with or without gold, or a .txt with a question a line."
)
@click.option(
    "--task",
    "name",
    metavar="TASK",
    shell_complete=complete_task,
    help="Score replies that have gold; by default the task of the training, if they share one.",
)
@click.option("--system", default="", metavar="TEXT", help="System prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a question, one a line.")
@click.option("--quiet", is_flag=True, help="No progress.")
@sampling_options
@answering_options
@click.pass_obj
def command(
    session: Session,
    /,
    models: tuple[str, ...],
    texts: tuple[str, ...],
    questions: Path | None,
    name: str | None,
    system: str,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Put the same questions to two or more models and show what each says, the first difference marked.

    Adapters of one base are loaded on one base and answer in one batch. With a task and gold replies every reply is scored; whether one model
    is better than another is for 'sftchat eval --baseline' to say.

    \b
    sftchat compare sftchat:nano run -q "who are you?"
    sftchat compare 'run/checkpoint-*' --questions evalset.jsonl --task relation
    sftchat compare sftchat:nano run --questions evalset.jsonl --json

    JSON: {"id", "messages", "gold", "same", "replies": [{"model", "reply", "finish_reason", …, "metric", "value", "errors"}]}.
    Exit codes: 0 fine, 2 wrong usage, 3 some questions were not answered.
    """
    from sftchat.models.reference import expand

    models = expand(models)
    references = _checked(session, models, options)
    asked = _asked(texts, questions, system)
    task = _task(session, name, models)
    sampling = chosen_sampling(task, options)
    if task is not None:
        options["preferred"] = task.template
    answers = _answers(session, models, references, asked, sampling, quiet, options)

    from sftchat.cli.beside import show, summary

    failures = 0
    rows: list[list[Item | None]] = []
    for place, example in enumerate(asked):
        replies = [found[place] for found in answers]
        failures += sum(isinstance(reply, EngineError) for reply in replies)
        items = [_scored(task, example, reply) for reply in replies]
        rows.append(items)
        if as_json:
            click.echo(json_text(_line(models, example, replies, items, task), indent=None))
        else:
            show(models, example, replies, items, task)
    if not as_json and task is not None and len(asked) > 1:
        summary(models, rows, task)
    return 3 if failures else 0


def _checked(session: Session, models: Sequence[str], options: dict[str, Any]) -> list[ModelReference]:
    """Refuse what cannot be compared, by names and files alone, before anything is loaded."""
    from sftchat.models.reference import resolve

    if len(models) < 2:
        raise UsageError(f"only '{models[0]}' is given: compare needs two models or more")
    for model in models:
        if models.count(model) > 1:
            raise UsageError(f"model '{model}' stands twice")
    found = [
        resolve(model, base=options["base"], schemes=session.registry.engines, allow_pickle=options["allow_pickle"]) for model in models
    ]
    for reference in found:
        if reference.served and options["template"]:
            raise UsageError(f"--template cannot be compared: the server of '{reference.text}' renders prompts with its own")
    return found


def _asked(texts: Sequence[str], questions: Path | None, system: str) -> tuple[Example, ...]:
    """The questions, from the command line or from a file."""
    if bool(texts) == (questions is not None):
        raise UsageError("nothing to ask: give -q TEXT or --questions FILE" if not texts else "give -q TEXT or --questions FILE, not both")
    if questions is not None:
        return read_questions(questions, system)
    if not all(text.strip() for text in texts):
        raise UsageError("a question is empty")
    return tuple(question(text, system, str(number)) for number, text in enumerate(texts, 1))


def _task(session: Session, name: str | None, models: Sequence[str]) -> Task | None:
    """The task that scores, if any.

    Raises:
        UsageError: When models were trained on different ones and none is chosen.
    """
    if name:
        return session.registry.task(name)
    trained = set(trained_on(models).values())
    if len(trained) > 1:
        raise UsageError(f"the models were trained on different tasks ({', '.join(sorted(trained))}); choose one with --task")
    return session.registry.task(trained.pop()) if trained else None


def _answers(
    session: Session,
    models: Sequence[str],
    references: Sequence[ModelReference],
    asked: Sequence[Example],
    sampling: SamplingParams,
    quiet: bool,
    options: dict[str, Any],
) -> list[list[Answer]]:
    """What each model says to each question; models that share a base in one batch, one base loaded at a time."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, reference in enumerate(references):
        ground = reference.base or reference
        groups.setdefault((ground.scheme, ground.source, ground.revision), []).append(place)
    found: list[list[Answer]] = [[] for _ in models]
    with closing(session.sharing()) as sharing, _counting(len(models) * len(asked), quiet) as told:
        for places in groups.values():
            engines = {place: sharing(models[place], **options) for place in places}
            for batch in _batches(engines):
                requests = [
                    Request(f"{place} {number}", example.messages, sampling=sampling, adapter=adapter)
                    for number, example in enumerate(asked)
                    for place, (_, adapter) in batch.items()
                ]
                for request, answer in in_order(next(iter(batch.values()))[0], requests, told):
                    found[int(request.id.partition(" ")[0])].append(answer)
            for engine in engines.values():
                engine.close()
    return found


def _batches(engines: dict[int, Engine]) -> list[dict[int, tuple[Engine, str]]]:
    """Models by place with the engine and the adapter that answer for them; those that share an engine together."""
    from sftchat.inference.open import AdapterEngine

    batches: dict[int, dict[int, tuple[Engine, str]]] = {}
    for place, engine in engines.items():
        inner, adapter = (engine.engine, engine.adapter) if isinstance(engine, AdapterEngine) else (engine, "")
        batches.setdefault(id(inner), {})[place] = (inner, adapter)
    return list(batches.values())


@contextmanager
def _counting(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """Count answers on a terminal; yields what is to be called for each."""
    console = stderr()
    if quiet or not console.is_terminal:
        yield lambda: None
        return
    from sftchat._util.consoles import bars

    with bars(console=console, transient=True) as bar:
        row = bar.add_task("asking", total=total)
        yield lambda: bar.advance(row)


def _scored(task: Task | None, example: Example, answer: Answer) -> Item | None:
    """The scorer's judgement, where there is gold and a reply."""
    if task is None or example.gold is None or isinstance(answer, EngineError):
        return None
    from sftchat.evaluation.evaluate import score

    return score(task, example, answer)


def _line(
    models: Sequence[str], example: Example, answers: Sequence[Answer], items: Sequence[Item | None], task: Task | None
) -> dict[str, Any]:
    """A question and what was said to it, for ``--json``."""
    replies: list[dict[str, Any]] = []
    for model, answer, item in zip(models, answers, items, strict=True):
        facts: dict[str, Any] = {"error": str(answer)} if isinstance(answer, EngineError) else reply_facts(answer)
        if item is not None and task is not None:
            value = metric_value(task.metric, item.score.stats)
            facts |= {"metric": task.metric.name, "value": value, "errors": list(item.score.errors), "answer": item.score.answer}
        replies.append({"model": model, **facts})
    gold = {} if example.gold is None else {"gold": example.gold}
    same = len({getattr(answer, "text", None) for answer in answers}) == 1
    return {"id": example.id, "messages": list(example.messages), **gold, "same": same, "replies": replies}
