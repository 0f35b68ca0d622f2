"""``sftchat ask``: replies on stdout and nothing else, for scripts and pipes."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from sftchat._util.output import data_stream
from sftchat.chat.safe_text import ControlEscaper, escape_controls
from sftchat.cli.options import answering_options, complete_model, complete_task, sampling_options, take_sampling
from sftchat.cli.session import Session, json_text
from sftchat.engine import Engine, Request
from sftchat.errors import EngineError, UsageError
from sftchat.inference.ask import ask, ask_all, ask_streaming, make_question, read_questions, reply_row
from sftchat.text import pluralize, printable, sanitize_lines
from sftchat.thinking import LATE_THOUGHTS_NOTE, has_only_thoughts
from sftchat.types import Example, Reply, SamplingParams


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.argument("prompt", required=False)
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="Use the template and sampling of this task.")
@click.option("--system", default="", metavar="TEXT", help="System prompt.")
@click.option("--questions", type=click.Path(path_type=Path), metavar="FILE", help="Send every row, or every line of a .txt, in one batch.")
@click.option("-k", "samples", type=click.IntRange(min=1), default=1, metavar="N", help="Samples of each reply; needs --temperature.")
@click.option("--no-stream", is_flag=True, help="Print the reply when it is complete.")
@click.option("--show-thinking", is_flag=True, help="Print the thoughts of MODEL on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per reply.")
@sampling_options
@answering_options
@click.pass_obj
def command(
    session: Session, /, model: str, prompt: str | None, task: str | None, system: str, questions: Path | None, samples: int,
    no_stream: bool, show_thinking: bool, as_json: bool, **options: Any,
) -> int:  # fmt: skip
    """Print the reply of MODEL to PROMPT, which is read from standard input when it is '-' or left out.

    With --questions or -k, replies are printed in the order of the file, those of one question together; --json identifies them:
    {"id", "sample", "reply", "finish_reason", "prompt_tokens", "completion_tokens", "model"}, or "error" in place of a reply, and exit code 3.
    Thoughts are not part of a reply: the JSON has them as "thoughts". A reply cut off while MODEL thinks is an error with exit code 3.

    \b
    sftchat ask sftchat:nano "who are you?"
    sftchat ask run --task relation < story.txt
    sftchat ask run --questions stories.jsonl --json > replies.jsonl
    sftchat ask sftchat:nano "tell me a story" -k 4 --temperature 0.8
    """
    chosen_task = session.registry.task(task) if task else None
    sampling = take_sampling(chosen_task, options)
    if chosen_task is not None:
        options["preferred"] = chosen_task.template
        system = system or chosen_task.system
    if samples > 1 and not sampling.temperature:
        raise UsageError(f"-k {samples} would print one reply {samples} times: samples need a --temperature above 0")
    if questions is not None and prompt is not None:
        raise UsageError("give a PROMPT or --questions FILE, not both")
    examples = read_questions(questions, system) if questions is not None else (make_question(_read_prompt(prompt), system),)
    # the replies to a file of questions are evaluated later, so they must not depend on the batch
    with closing(session.load_engine(model, interactive=questions is None, **options)) as engine:
        if questions is not None or samples > 1:
            return _print_all(engine, model, examples, sampling, samples, as_json, show_thinking)
        request = Request("ask", examples[0].messages, sampling=sampling)
        return _print_reply(engine, model, request, stream=not (no_stream or as_json), as_json=as_json, show_thinking=show_thinking)


def _print_reply(engine: Engine, model: str, request: Request, *, stream: bool, as_json: bool, show_thinking: bool) -> int:
    """Print one reply, as it arrives or when it is complete; return the exit code."""
    # control characters are escaped for a terminal only; a file or a program gets the text unchanged
    escaper = ControlEscaper() if sys.stdout.isatty() else None

    def write_text(text: str) -> None:
        write(text if escaper is None else escaper.feed(text))

    def write_thoughts(text: str) -> None:
        if show_thinking:
            click.echo(sanitize_lines(text), nl=False, err=True)

    if stream:
        reply = ask_streaming(
            engine,
            request,
            on_text=write_text,
            on_thoughts=write_thoughts,
            on_text_was_thoughts=lambda: click.echo(f"sftchat: {LATE_THOUGHTS_NOTE}; --no-stream leaves them out", err=True),
        )
        write_thoughts("\n" if reply.thoughts else "")
        write((escaper.end() if escaper is not None else "") + "\n")
    else:
        reply = ask(engine, request)
        if as_json:
            write(json_text({**reply_row(reply), "model": model}, indent=None) + "\n")
        else:
            write_thoughts(f"{reply.thoughts}\n" if reply.thoughts else "")
            write((reply.text if escaper is None else escaper.feed(reply.text) + escaper.end()) + "\n")
    if has_only_thoughts(reply):
        click.echo(f"sftchat: error: {_cut_while_thinking_message(reply)}", err=True)
        return 3
    if reply.refused:
        click.echo("sftchat: the server marks the reply as a refusal", err=True)
    return 0


def _cut_while_thinking_message(reply: Reply) -> str:
    """Return the error message for a reply that was cut before its answer began, with a remedy."""
    tokens = f", at {pluralize(reply.completion_tokens, 'token')}" if reply.completion_tokens else ""
    advice = "--max-new-tokens N allows more, " if reply.finish_reason == "length" else ""
    return f"the reply was cut while thinking{tokens}; {advice}--template-argument enable_thinking=false asks many models not to think"


def _print_all(
    engine: Engine, model: str, questions: tuple[Example, ...], sampling: SamplingParams, samples: int, as_json: bool, show_thinking: bool
) -> int:
    """Print many replies in the order of the questions; return the exit code."""
    failures = 0
    for example, sample, reply in ask_all(engine, questions, sampling, samples):
        problem = ""
        if isinstance(reply, EngineError):
            problem = str(reply)
        elif has_only_thoughts(reply):
            problem = _cut_while_thinking_message(reply)
        if isinstance(reply, Reply) and show_thinking and reply.thoughts and not as_json:
            click.echo(sanitize_lines(reply.thoughts), err=True)
        if problem:
            failures += 1
            click.echo(printable(f"sftchat: error: question '{example.id}' was not answered: {problem}"), err=True)
        if as_json:
            row = {"error": str(reply)} if isinstance(reply, EngineError) else reply_row(reply)
            ids = {"id": example.id, **({"sample": sample} if samples > 1 else {})}
            write(json_text({**ids, **row, "model": model}, indent=None) + "\n")
        elif isinstance(reply, Reply) and not problem:
            write((escape_controls(reply.text) if sys.stdout.isatty() else reply.text) + "\n")
    return 3 if failures else 0


def write(text: str) -> None:
    """Write to stdout and flush, so that a reader sees the text at once, and a broken pipe is detected."""
    stream = data_stream()
    stream.write(text)
    stream.flush()


def _read_prompt(argument: str | None) -> str:
    """Return the prompt from the command line or from standard input, without a newline at its end.

    Raises:
        UsageError: When it is empty, or not text.
    """
    if argument not in (None, "-"):
        prompt = argument or ""
    elif argument is None and sys.stdin.isatty():
        raise UsageError("no prompt: give one after the model, or pipe it in")
    else:
        try:
            prompt = sys.stdin.read().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not {error.encoding}: {error.reason} at byte {error.start}") from None
    if not prompt.strip():
        raise UsageError("the prompt is empty")
    return prompt
