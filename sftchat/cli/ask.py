"""``sftchat ask``: replies on stdout and nothing else, for scripts and pipes."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sftchat._util.output import data_stream
from sftchat.cli.completing import complete_model, complete_task
from sftchat.cli.questions import in_order, question, read_questions, reply_facts
from sftchat.cli.sampling import chosen_sampling, sampling_options
from sftchat.cli.shared import Session, answering_options, json_text
from sftchat.engine import Chunk, Engine, Request
from sftchat.errors import EngineError, UsageError
from sftchat.text import pluralize, printable, sanitize_lines
from sftchat.thinking import LATE, Part, Thoughts, apart, only_thoughts
from sftchat.types import Example, Reply, SamplingParams


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.argument("prompt", required=False)
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="Generate as the task does when it is scored.")
@click.option("--system", default="", metavar="TEXT", help="System prompt.")
@click.option("--questions", type=click.Path(path_type=Path), metavar="FILE", help="Ask every row, or every line of a .txt, in one batch.")
@click.option("-k", "samples", type=click.IntRange(min=1), default=1, metavar="N", help="Samples of each reply; needs --temperature.")
@click.option("--no-stream", is_flag=True, help="Print the reply when it is complete.")
@click.option("--show-thinking", is_flag=True, help="Show on stderr what MODEL thinks before it answers.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a reply, one a line.")
@sampling_options
@answering_options
@click.pass_obj
def command(
    session: Session,
    /,
    model: str,
    prompt: str | None,
    task: str | None,
    system: str,
    questions: Path | None,
    samples: int,
    no_stream: bool,
    show_thinking: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Ask MODEL. PROMPT is read from standard input when it is '-' or left out.

    With --questions or -k replies follow each other, those of a question together, in the order of the file; --json tells them apart:
    {"id", "sample", "reply", "finish_reason", "prompt_tokens", "completion_tokens", "model"}, or "error" in place of a reply, and exit code 3.
    Thoughts are no part of a reply: they are "thoughts" in the JSON. A reply that is cut while MODEL thinks is an error, and exit code 3.

    \b
    sftchat ask sftchat:nano "who are you?"
    sftchat ask run --task relation < story.txt
    sftchat ask run --questions stories.jsonl --json > replies.jsonl
    sftchat ask sftchat:nano "tell me a story" -k 4 --temperature 0.8
    """
    chosen = session.registry.task(task) if task else None
    sampling = chosen_sampling(chosen, options)
    if chosen is not None:
        options["preferred"] = chosen.template
    if samples > 1 and not sampling.temperature:
        raise UsageError(f"-k {samples} would print one reply {samples} times: samples need a --temperature above 0")
    if questions is not None and prompt is not None:
        raise UsageError("give a PROMPT or --questions FILE, not both")
    many = questions is not None or samples > 1
    asked = read_questions(questions, system) if questions is not None else (question(_prompt(prompt), system),)
    with closing(session.load_engine(model, **options)) as engine:
        if many:
            return _batch(engine, model, asked, sampling, samples, as_json, show_thinking)
        request = Request("ask", asked[0].messages, sampling=sampling)
        return _one(engine, model, request, stream=not (no_stream or as_json), as_json=as_json, show_thinking=show_thinking)


def _one(engine: Engine, model: str, request: Request, *, stream: bool, as_json: bool, show_thinking: bool) -> int:
    """One reply, as it comes or when it is complete; the exit code says whether it is one."""
    from sftchat.chat.reply import stream_reply
    from sftchat.chat.safe_text import Printable

    # a terminal must not obey what a model wrote; a file or a program gets it as it is
    shown = Printable() if sys.stdout.isatty() else None
    split: Thoughts | None = None
    streamed: list[str] = []

    def answer(text: str) -> None:
        streamed.append(text)
        write(text if shown is None else shown.feed(text))

    def late() -> None:
        """What was streamed are thoughts, known for them only now."""
        if streamed and not streamed[-1].endswith("\n"):
            write("\n")
        streamed.clear()
        click.echo(f"sftchat: {LATE}; --no-stream leaves them out", err=True)

    def show(chunk: Chunk) -> None:
        nonlocal split
        if split is None:
            split = Thoughts(chunk.thoughts_opened, bare=True)
        if chunk.revises == "thought" and streamed:
            split = Thoughts(bare=True)
            late()
        thoughts = chunk.thoughts if chunk.revises != "thought" else ""  # what turns out to be thoughts was shown as text
        for part in [*([Part(thoughts, True)] if thoughts else []), *(split.feed(chunk.text) if chunk.text else [])]:
            if not part.thought:
                answer(part.text)
            elif part.before:
                late()
            elif show_thinking:
                click.echo(sanitize_lines(part.text), nl=False, err=True)

    def keep(chunk: Chunk) -> None:
        pass

    reply = apart(stream_reply(engine, request, show if stream else keep))
    if stream:
        for part in split.end() if split is not None else []:
            if not part.thought:
                answer(part.text)
        if not "".join(streamed):
            answer(reply.text)  # the template opened thoughts that never ended, so this is the reply
        if show_thinking and reply.thoughts:
            click.echo(err=True)
        write((shown.end() if shown is not None else "") + "\n")
    elif as_json:
        write(json_text({**reply_facts(reply), "model": model}, indent=None) + "\n")
    else:
        if show_thinking and reply.thoughts:
            click.echo(sanitize_lines(reply.thoughts), err=True)
        write((reply.text if shown is None else shown.feed(reply.text) + shown.end()) + "\n")
    if only_thoughts(reply):
        click.echo(f"sftchat: error: {_cut(reply)}", err=True)
        return 3
    if reply.refused:
        click.echo("sftchat: the server marks the reply as a refusal", err=True)
    return 0


def _cut(reply: Reply) -> str:
    """What to do about a reply that is all thought."""
    tokens = f", at {pluralize(reply.completion_tokens, 'token')}" if reply.completion_tokens else ""
    allow = "--max-new-tokens N allows more, " if reply.finish_reason == "length" else ""
    return f"the reply was cut while thinking{tokens}; {allow}--template-argument enable_thinking=false asks many models not to think"


def _batch(
    engine: Engine, model: str, asked: tuple[Example, ...], sampling: SamplingParams, samples: int, as_json: bool, show_thinking: bool
) -> int:
    """Many replies in the order of the questions; the exit code says whether all were answered."""
    from sftchat.chat.safe_text import escape_controls

    requests = [
        Request(f"{place} {n}", example.messages, sampling=replace(sampling, seed=sampling.seed + n))
        for place, example in enumerate(asked)
        for n in range(samples)
    ]
    failures = 0
    for request, answer in in_order(engine, requests):
        place, _, sample = request.id.partition(" ")
        identity = asked[int(place)].id
        if isinstance(answer, EngineError):
            failures += 1
            click.echo(printable(f"sftchat: error: question '{identity}' was not answered: {answer}"), err=True)
            facts: dict[str, Any] = {"error": str(answer)}
        else:
            answer = apart(answer)
            facts = reply_facts(answer)
            if show_thinking and answer.thoughts and not as_json:
                click.echo(sanitize_lines(answer.thoughts), err=True)
            if only_thoughts(answer):
                failures += 1
                click.echo(printable(f"sftchat: error: question '{identity}' was not answered: {_cut(answer)}"), err=True)
        if as_json:
            numbered = {"id": identity, **({"sample": int(sample)} if samples > 1 else {})}
            write(json_text({**numbered, **facts, "model": model}, indent=None) + "\n")
        elif isinstance(answer, Reply) and not only_thoughts(answer):
            write((escape_controls(answer.text) if sys.stdout.isatty() else answer.text) + "\n")
    return 3 if failures else 0


def write(text: str) -> None:
    """Write to stdout at once, so that a reader sees every character and a broken pipe shows here."""
    stream = data_stream()
    stream.write(text)
    stream.flush()


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
