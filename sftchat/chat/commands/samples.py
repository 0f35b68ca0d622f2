"""Commands that ask in other ways: many samples of one answer, and a text continued without a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sftchat.chat.commands.arguments import whole_number
from sftchat.chat.commands.inspect_prompt import last_question
from sftchat.chat.commands.token_view import Row, table
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.chat.engine_thread import JobHandle
from sftchat.chat.safe_text import escape_controls
from sftchat.engine import Engine, Request, cancelling, collect
from sftchat.errors import EngineError, UsageError
from sftchat.task import judge
from sftchat.text import counted, normalise
from sftchat.types import Example, Reply

MOST = 256
"""The most samples of one answer."""
WARM = 0.7
"""Temperature of samples where the talk's is 0, at which all would be the same."""


def _samples(context: ChatContext, argument: str) -> None:
    """Sample answers to the last message and count those that say the same."""
    count = whole_number(argument, "K")
    if count > MOST:
        raise UsageError(f"K is {count}, must be at most {MOST}")
    request = last_question(context, "")
    sampling = request.sampling if request.sampling.temperature else replace(request.sampling, temperature=WARM)
    requests = [replace(request, id=str(n), sampling=replace(sampling, seed=sampling.seed + n)) for n in range(count)]
    task = context.desk.task

    def understood(reply: Reply) -> str:
        """What a reply says, as the task's scorer reads it; its text where there is no task."""
        said = judge(task, Example(request.messages, source="this sample"), reply).answer if task is not None else reply.text
        return normalise(said or reply.text)

    def job(engine: Engine, work: JobHandle) -> list[Reply]:
        found: list[Reply] = []
        for _, reply in collect(engine, requests):
            if isinstance(reply, EngineError):
                raise reply
            found.append(reply)
            if work.stopped:
                break
        return found

    def show(replies: list[Reply]) -> None:
        groups: dict[str, list[Reply]] = {}
        for reply in replies:
            groups.setdefault(understood(reply), []).append(reply)
        ordered = sorted(groups.values(), key=len, reverse=True)
        rows: list[Row] = [(("good" if len(group) > 1 else "note", f"{len(group)}×"), ("", _line(group))) for group in ordered]
        head = f"{counted(len(replies), 'sample')} at temperature {sampling.temperature:g}, {counted(len(ordered), 'different answer')}\n"
        context.say([("note", head), *table(rows)])

    context.work(f"sampling {count} answers", job, show)


def _line(group: Sequence[Reply]) -> str:
    """What a group says, in one line."""
    text = escape_controls(group[0].text.strip().replace("\n", " ⏎ "))
    return text or "(nothing)"


def _raw(context: ChatContext, argument: str) -> None:
    """Continue a text as it is, as a base model does."""
    if not argument:
        raise UsageError("TEXT is missing: what is to be continued")
    request = Request("raw", prompt=argument, sampling=context.sampling, adapter=context.focus.adapter)

    def job(engine: Engine, work: JobHandle) -> None:
        said: list[str] = []
        why = ""
        with cancelling(engine.generate([request])) as chunks:
            for chunk in chunks:
                if chunk.finish_reason == "error":
                    raise EngineError(chunk.error or "the engine failed and gave no reason")
                said.append(chunk.text)
                why = {"length": f"\ncut at {request.sampling.max_new_tokens} tokens"}.get(chunk.finish_reason or "", why)
                if work.stopped:
                    why = "\nstopped"
                    break
        work.say(argument + escape_controls("".join(said)) + why)

    context.work("continuing the text", job, lambda _: None)


def _nothing_asked(context: ChatContext) -> str:
    """Why there is nothing to sample."""
    return "" if context.conversation.head else "nothing was asked yet"


COMMANDS = (
    ChatCommand(
        "samples",
        "sample K answers to the last message and count what they say",
        _samples,
        "K",
        impossible=_nothing_asked,
        topic="looking inside",
        aliases=("n",),
    ),
    ChatCommand("raw", "continue TEXT as it is, without a chat template", _raw, "TEXT", topic="looking inside"),
)
