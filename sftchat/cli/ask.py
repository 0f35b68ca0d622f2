"""``sftchat ask``: one reply on stdout, for scripts and pipes."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Any

import click

from sftchat.cli.sampling import chosen_sampling, sampling_options
from sftchat.cli.shared import Session, engine_options, timeout_option
from sftchat.engines.base import Chunk, Request
from sftchat.errors import UsageError


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--task", metavar="TASK", help="Generate as the task does when it is scored.")
@click.option("--system", default="", metavar="TEXT", help="System prompt.")
@click.option("--no-stream", is_flag=True, help="Print the reply when it is complete.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: reply, finish_reason, prompt_tokens, completion_tokens, model.")
@sampling_options
@engine_options
@timeout_option
@click.pass_obj
def command(
    session: Session, /, model: str, prompt: str | None, task: str | None, system: str, no_stream: bool, as_json: bool, **options: Any
) -> None:
    """Ask MODEL once. PROMPT is read from standard input when it is '-' or left out.

    \b
    sftchat ask sftchat:nano "who are you?"
    sftchat ask run --task relation < story.txt
    """
    from sftchat.chat.conversation import Conversation
    from sftchat.chat.lines import Printable
    from sftchat.chat.reply import stream_reply

    chosen = session.registry.task(task) if task else None
    sampling = chosen_sampling(chosen, options)
    if chosen is not None:
        options["preferred"] = chosen.template
    request = Request("ask", Conversation(system).ask(_prompt(prompt)).messages, sampling=sampling)
    # a terminal must not obey what a model wrote; a file or a program gets it as it is
    printable = Printable() if sys.stdout.isatty() else None

    def show(chunk: Chunk) -> None:
        write(chunk.text if printable is None else printable.feed(chunk.text))

    def keep(chunk: Chunk) -> None:
        pass

    with closing(session.load_engine(model, **options)) as engine:
        reply = stream_reply(engine, request, keep if no_stream or as_json else show)
    if as_json:
        found = {
            "reply": reply.text,
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "model": model,
        }
        write(json.dumps(found, ensure_ascii=False) + "\n")
    elif no_stream:
        write((reply.text if printable is None else printable.feed(reply.text) + printable.end()) + "\n")
    else:
        write((printable.end() if printable is not None else "") + "\n")


def write(text: str) -> None:
    """Write to stdout at once, so that a reader sees every character and a broken pipe shows here."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _prompt(given: str | None) -> str:
    """The prompt from the command line or from standard input; a newline that ends it is not part of it.

    Raises:
        UsageError: When it is empty, or not text.
    """
    if given not in (None, "-"):
        prompt = given or ""
    elif given is None and sys.stdin.isatty():
        raise UsageError("no prompt: give one after the model, or pipe it in")
    else:
        try:
            prompt = sys.stdin.read().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not {error.encoding}: {error.reason} at byte {error.start}") from None
    if not prompt.strip():
        raise UsageError("the prompt is empty")
    return prompt
