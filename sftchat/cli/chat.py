"""``sftchat chat``: chat with models in the terminal, or line by line through a pipe."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat._util.output import data_stream
from sftchat.cli.completing import complete_model, complete_task
from sftchat.cli.sampling import chosen_sampling, sampling_options
from sftchat.cli.shared import Session, engine_options, quantize_option, timeout_options

if TYPE_CHECKING:
    from sftchat.chat.controller import ChatController
    from sftchat.chat.view import View


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@click.option(
    "--task", metavar="TASK", shell_complete=complete_task, help="Generate as the task does when it is scored, and mark every reply."
)
@click.option("--evalset", metavar="FILE", type=click.Path(path_type=Path), help="Gold for the marks, instead of the task's own evalset.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--continue", "go_on", is_flag=True, help="Go on with the last conversation.")
@click.option("--session", "name", metavar="ID", help="Go on with a conversation by its name or number.")
@click.option("--overflow", type=click.Choice(["stop", "refuse", "drop-oldest"]), help="What happens when the context is full; /help set.")
@click.option(
    "--rows",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=Path("chat-rows"),
    show_default=True,
    help="Where /good, /bad, /fix and /gold put rows.",
)
@click.option("--jsonl", is_flag=True, help="For programs: one object a line in, one a line out.")
@click.option("--vi", is_flag=True, help="Edit with the keys of vi.")
@sampling_options
@engine_options
@quantize_option
@timeout_options
@click.pass_obj
def command(
    session: Session, /, models: tuple[str, ...], task: str | None, evalset: Path | None, system: str | None, go_on: bool, name: str | None,
    overflow: str | None, rows: Path, jsonl: bool, vi: bool, **options: Any,
) -> int:  # fmt: skip
    """Chat with a MODEL, or with several side by side. Without one, the runs in this folder are offered, the newest first.

    The prompt is there at once; what you type while a model loads waits for it. Enter sends, esc enter or ctrl-j starts a new line,
    ctrl-c stops a reply, /help says the rest. When standard input is not a terminal, every line is a message and standard output
    carries the replies.

    \b
    sftchat chat sftchat:nano
    sftchat chat run --task relation --temperature 0.7
    sftchat chat base run run/checkpoint-100
    sftchat chat --continue
    """
    from platformdirs import user_data_path

    from sftchat.chat.command_line import Commands
    from sftchat.chat.controller import ChatController
    from sftchat.chat.conversation import Conversation
    from sftchat.chat.rows import Rows
    from sftchat.chat.scorer import GoldScorer
    from sftchat.chat.services import ChatServices, Models
    from sftchat.chat.sessions import FILE, Sessions, restored
    from sftchat.chat.sessions import Session as Kept
    from sftchat.chat.settings import Settings
    from sftchat.cli.talking import chosen_models, openings, wanted_session
    from sftchat.cli.tasks import trained_on

    plain = jsonl or not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in ("dumb", "unknown")
    plain = plain or not _has_terminal()
    if go_on and name is not None:
        raise click.UsageError("--continue goes on with the last conversation, --session with another; give one of them")
    chosen = session.registry.task(task) if task else None
    if evalset is not None and chosen is None:
        raise click.UsageError("--evalset gives gold to a task's scorer; name the task with --task")
    if evalset is not None and not evalset.is_file():
        raise click.UsageError(f"--evalset '{evalset}' is no file")
    notes: list[str] = []
    folder = user_data_path("sftchat", appauthor=False)
    sessions = Sessions(folder / FILE, notes.append)
    click.get_current_context().call_on_close(sessions.close)
    found = wanted_session(sessions, go_on, name)
    models = chosen_models(models, found)
    trained = set(trained_on(models).values()) & session.registry.tasks.keys()
    if chosen is None and len(trained) == 1 and not plain:
        (known,) = trained
        notes.append(f"trained on {known}: with --task {known} replies are generated as they are scored, and marked")
    before, settings = restored(sessions, found, len(models)) if found is not None else (Conversation(), Settings())
    if system is not None:
        before = before.with_system(system)
    settings = replace(settings, sampling=chosen_sampling(chosen, options, settings.sampling if found is not None else None))
    if overflow is not None:
        settings = replace(settings, overflow=overflow)  # type: ignore[arg-type]
    if chosen is not None:
        options["preferred"] = chosen.template
    opened = openings(session, models, options)

    def make_chat(view: View) -> ChatController:
        sessions.warn = view.info
        # a piped conversation is not kept: the user does not continue it
        kept = Kept(None if plain and found is None else sessions, found, before)
        single = {**options, "base": None}
        others = Models(partial(session.resolve, **single), partial(session.load_engine, **single), partial(session.identify, **single))
        scorer = GoldScorer(chosen, evalset) if chosen is not None else None
        services = ChatServices(scorer, kept, others, Rows(rows, (scorer.path,) if scorer is not None and scorer.path is not None else ()))
        return ChatController(
            opened, view, commands=Commands(tuple(session.registry.commands.values())), services=services, conversation=before, settings=settings, remarks=notes,
        )  # fmt: skip

    if plain:
        from sftchat.chat.ui.jsonl import JsonLines
        from sftchat.chat.ui.plain import Plain

        chat = (JsonLines if jsonl else Plain)(make_chat, stdin=sys.stdin, stdout=data_stream(), stderr=sys.stderr)
        chat.run()
        return 3 if chat.failures else 0

    from sftchat.chat.ui.app import Terminal

    Terminal(make_chat, history=folder / "history", vi=vi or None).run()
    return 0


def _has_terminal() -> bool:
    """Whether the installed prompt_toolkit has what the full view uses; a warning says what it lacks."""
    from sftchat._util.fallback import report_fallback
    from sftchat.chat.ui.scrollback import missing_parts

    missing = missing_parts()
    if missing:
        report_fallback("the full view of the terminal", f"prompt_toolkit has no {' and '.join(missing)}")
    return not missing
