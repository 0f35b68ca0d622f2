"""Commands that sample several replies, and that continue a raw text without a chat template."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sftchat.chat.commands.arguments import whole_number, why_no_message
from sftchat.chat.commands.inspect_prompt import question_request
from sftchat.chat.commands.token_view import Row, format_table
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.chat.safe_text import escape_controls
from sftchat.engine import Engine, Request, collect
from sftchat.errors import EngineError, UsageError
from sftchat.task import score_reply
from sftchat.text import normalise, pluralize
from sftchat.types import Example, Reply

if TYPE_CHECKING:
    from sftchat.chat.pane import JobHandle

MAX_SAMPLES = 256
"""Maximum number of samples."""
SAMPLING_TEMPERATURE = 0.7
"""Sampling temperature when that of the chat is 0, at which all samples would be equal."""


def _sample_replies(context: ChatContext, argument: str) -> None:
    """Sample replies to the last message and count equal answers."""
    count = whole_number(argument, "K")
    if count > MAX_SAMPLES:
        raise UsageError(f"K is {count}, must be at most {MAX_SAMPLES}")
    request = question_request(context, "")
    sampling = request.sampling if request.sampling.temperature else replace(request.sampling, temperature=SAMPLING_TEMPERATURE)
    requests = [replace(request, id=str(index), sampling=replace(sampling, seed=sampling.seed + index)) for index in range(count)]
    task = context.services.task

    def parse_answer(reply: Reply) -> str:
        """Return the answer that the task's scorer parses from a reply; the text when there is none."""
        if task is None:
            return normalise(reply.text)
        # some scorers need a gold reply; the answer that they parse does not depend on it
        example = Example(request.messages, reply.text, source="this sample")
        return normalise(score_reply(task, example, reply).answer or reply.text)

    def job(engine: Engine, handle: JobHandle) -> list[Reply]:
        replies: list[Reply] = []
        for _, reply in collect(engine, requests, stop=handle.stop.is_set):
            if isinstance(reply, EngineError):
                raise reply
            replies.append(reply)
        return replies

    def show(replies: list[Reply]) -> None:
        groups: dict[str, list[Reply]] = {}
        for reply in replies:
            groups.setdefault(parse_answer(reply), []).append(reply)
        rows: list[Row] = []
        for group in sorted(groups.values(), key=len, reverse=True):
            text = escape_controls(group[0].text.strip().replace("\n", " ⏎ "))
            rows.append((("good" if len(group) > 1 else "note", f"{len(group)}×"), ("", text or "(nothing)")))
        samples = f"{pluralize(len(replies), 'sample')} at temperature {sampling.temperature:g}"
        context.info([("note", f"{samples}, {pluralize(len(groups), 'different answer')}\n"), *format_table(rows)])

    context.work(f"sampling {count} answers", job, show)


def _continue_raw_text(context: ChatContext, argument: str) -> None:
    """Continue a text without a chat template, as a base model does."""
    if not argument:
        raise UsageError("TEXT is missing: what is to be continued")
    request = Request("raw", prompt=argument, sampling=context.sampling, adapter=context.focus.adapter)

    def job(engine: Engine, handle: JobHandle) -> None:
        ((_, reply),) = collect(engine, [request], stop=handle.stop.is_set)
        if isinstance(reply, EngineError):
            raise reply
        end_note = {"length": f"\ncut at {request.sampling.max_new_tokens} tokens", "cancelled": "\nstopped"}.get(reply.finish_reason, "")
        handle.info(argument + escape_controls(reply.text) + end_note)

    context.work("continuing the text", job, lambda _: None)


_command = partial(ChatCommand, topic="looking inside")
COMMANDS = (
    _command(
        "samples",
        "sample K replies to the last message and count equal ones",
        _sample_replies,
        "K",
        unavailable_reason=why_no_message,
        aliases=("n",),
    ),
    _command("raw", "continue TEXT without a chat template", _continue_raw_text, "TEXT"),
)
