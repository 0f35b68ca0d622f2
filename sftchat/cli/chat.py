"""``sftchat chat``: talk to a model in the terminal, or line by line through a pipe."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.sampling import chosen_sampling, sampling_options
from sftchat.cli.shared import Session, engine_options, timeout_option
from sftchat.engines.base import Engine

if TYPE_CHECKING:
    from sftchat.chat.talk import View


@click.command()
@click.argument("model")
@click.option("--task", metavar="TASK", help="Generate as the task does when it is scored.")
@click.option("--system", default="", metavar="TEXT", help="System prompt.")
@sampling_options
@engine_options
@timeout_option
@click.pass_obj
def command(session: Session, /, model: str, task: str | None, system: str, **options: Any) -> int:
    """Talk to MODEL. The prompt is there at once; what you type while it loads waits for it.

    Enter sends, esc enter or ctrl-j starts a new line, ctrl-c stops a reply, /help says the rest.
    When standard input is not a terminal, every line is a message and standard output carries the replies.

    \b
    sftchat chat sftchat:nano
    sftchat chat run --task relation --temperature 0.7
    """
    from sftchat.chat.column import Opening
    from sftchat.chat.commands import Commands
    from sftchat.chat.conversation import Conversation
    from sftchat.chat.desk import Desk
    from sftchat.chat.settings import Settings
    from sftchat.chat.talk import Talk

    chosen = session.registry.task(task) if task else None
    sampling = chosen_sampling(chosen, options)
    commands = Commands(tuple(session.registry.commands.values()))
    if chosen is not None:
        options["preferred"] = chosen.template

    def load() -> Engine:
        return session.load_engine(model, **options)

    def make_talk(view: View) -> Talk:
        return Talk(
            [Opening(load, (model,))],
            view,
            commands=commands,
            desk=Desk(task=chosen),
            conversation=Conversation(system),
            settings=Settings(sampling),
        )

    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in ("dumb", "unknown"):
        from sftchat.chat.plain import Plain

        talk = Plain(make_talk, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
        talk.run()
        return 3 if talk.failures else 0

    from platformdirs import user_data_path

    from sftchat.chat.terminal import Terminal

    Terminal(make_talk, history=user_data_path("sftchat") / "history").run()
    return 0
