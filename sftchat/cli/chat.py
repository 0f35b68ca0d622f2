"""``sftchat chat``: chat with models in the terminal, or line by line through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.options import (
    allow_code_option,
    complete_model,
    complete_task,
    engine_options,
    quantize_option,
    sampling_options,
    take_sampling,
    timeout_options,
)
from sftchat.cli.session import Session
from sftchat.errors import UsageError

if TYPE_CHECKING:
    from sftchat.chat.sessions import Summary


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@click.option(
    "--task", metavar="TASK", shell_complete=complete_task, help="Use the template and sampling of this task, and score every reply."
)
@allow_code_option
@click.option("--evalset", metavar="FILE|NAME", help="Evalset with gold replies, or a NAME of the task's evalsets; by default its first.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--continue", "continue_last", is_flag=True, help="Continue the last conversation.")
@click.option("--session", "session_id", metavar="ID", help="Continue a conversation, by its name or number.")
@click.option(
    "--overflow",
    type=click.Choice(["stop", "refuse", "drop-oldest"]),
    help="What happens when the context is full; '/help set' explains it.",
)
@click.option(
    "--rows",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=Path("chat-rows"),
    show_default=True,
    help="Folder for the rows of /good, /bad, /fix and /gold.",
)
@click.option("--jsonl", is_flag=True, help="Read and write one JSON object per line, for programs.")
@click.option("--vi", is_flag=True, help="Edit with the keys of vi.")
@sampling_options
@engine_options
@quantize_option
@timeout_options
@click.pass_obj
def command(
    session: Session, /, models: tuple[str, ...], task: str | None, evalset: str | None, system: str | None, continue_last: bool, session_id: str | None,
    overflow: str | None, rows: Path, jsonl: bool, vi: bool, **options: Any,
) -> int:  # fmt: skip
    """Chat with a MODEL, or with several side by side. Without one, the runs in this folder, the newest first, and small models are offered.

    You can type at once; messages wait until the model is loaded. Enter sends, esc enter or ctrl-j starts a new line, ctrl-c stops a
    reply, and /help lists the commands. When standard input is not a terminal, every line is a message and standard output
    carries the replies.

    \b
    sftchat chat sftchat:nano
    sftchat chat run --task relation --temperature 0.7
    sftchat chat base run run/checkpoint-100
    sftchat chat --continue
    """
    from platformdirs import user_data_path

    from sftchat.api.chat import open_chat
    from sftchat.chat.context import Settings
    from sftchat.chat.conversation import Conversation
    from sftchat.chat.run import find_session, is_plain
    from sftchat.chat.sessions import SESSIONS_FILE, SessionStore, restore
    from sftchat.evaluation.evalset import evalset_path
    from sftchat.models.manifest import trained_tasks

    plain = jsonl or is_plain()
    if continue_last and session_id is not None:
        raise click.UsageError("--continue goes on with the last conversation, --session with another; give one of them")
    chosen_task = session.registry.task(task) if task else None
    if evalset is not None and chosen_task is None:
        raise click.UsageError("--evalset gives gold to a task's scorer; name the task with --task")
    gold_path = evalset_path(chosen_task, evalset) if evalset is not None and chosen_task is not None else None
    if gold_path is not None and not gold_path.is_file():
        raise click.UsageError(f"--evalset '{gold_path}' is no file")
    start_notes: list[str] = []
    folder = user_data_path("sftchat", appauthor=False)
    sessions = SessionStore(folder / SESSIONS_FILE, start_notes.append)
    click.get_current_context().call_on_close(sessions.close)
    resumed = find_session(sessions, session_id or "") if continue_last or session_id is not None else None
    models = choose_models(models, resumed)
    trained = set(trained_tasks(models).values()) & session.registry.tasks.keys()
    if chosen_task is None and len(trained) == 1 and not plain:
        (task_name,) = trained
        start_notes.append(f"trained on {task_name}: with --task {task_name} replies are generated as they are scored, and marked")
    conversation, settings = restore(sessions, resumed, len(models)) if resumed is not None else (Conversation(), Settings())
    if system is None and resumed is None and chosen_task is not None:
        system = chosen_task.system or None
    if system is not None:
        conversation = conversation.with_system(system)
    settings = replace(settings, sampling=take_sampling(chosen_task, options, settings.sampling if resumed is not None else None))
    if overflow is not None:
        settings = replace(settings, overflow=overflow)  # type: ignore[arg-type]
    return open_chat(
        session,
        models,
        options,
        folder=folder,
        task=chosen_task,
        evalset=gold_path,
        sessions=sessions,
        resumed=resumed,
        conversation=conversation,
        settings=settings,
        rows=rows,
        start_notes=start_notes,
        plain=plain,
        jsonl=jsonl,
        vi=vi or None,
    )


def choose_models(arguments: Sequence[str], resumed: Summary | None) -> tuple[str, ...]:
    """Return the models to chat with: the arguments, else those of the resumed session, else one that the user chooses.

    The choice is among the runs in this folder, the models that can be fetched, and the embedded one; a chosen one that is not here is fetched.

    Raises:
        UsageError: When there is no terminal to choose on.
        ModelError: When the chosen model cannot be fetched.
    """
    from sftchat.models.fetch import FETCHABLE, fetch
    from sftchat.models.reference import NANO, expand_patterns

    if arguments:
        return expand_patterns(arguments)
    if resumed is not None and resumed.metadata.models:
        return resumed.metadata.models
    from sftchat.models.runs import find_runs

    runs = find_runs(Path())
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        hint = f", such as '{runs[0].model}'" if runs else f"; the embedded one is {NANO}, and 'sftchat fetch' lists those to fetch"
        raise UsageError(f"no MODEL given{hint}")
    choices = [(run.model, run.description) for run in runs]
    for model in FETCHABLE:
        choices.append(
            (model.argument, model.title if model.is_here else f"{model.title}, {model.download_bytes / 1e6:.0f} MB to download")
        )
    choices.append((NANO, "the embedded model, for relations in Chinese prose"))
    width = max(len(argument) for argument, _ in choices)
    for number, (argument, description) in enumerate(choices, start=1):
        click.echo(f"{number:>3}  {argument:<{width}}  {description}".rstrip(), err=True)
    number = click.prompt("which one", type=click.IntRange(1, len(choices)), default=1, err=True)
    chosen = choices[number - 1][0]
    for model in FETCHABLE:
        if model.argument == chosen and not model.is_here:
            fetch(model, lambda line: click.echo(line, err=True))
    return (chosen,)
