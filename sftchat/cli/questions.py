"""What ``ask`` and ``compare`` put to models: one text, or a file of them, answered in one batch and given back in the file's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sftchat._util.parsing import read_text
from sftchat.engine import Engine, Request, collect
from sftchat.errors import DataError, EngineError
from sftchat.types import Example, Message, Reply

if TYPE_CHECKING:
    from pathlib import Path


def question(text: str, system: str = "", identity: str = "1") -> Example:
    """A text as a question."""
    before = (Message(role="system", content=system),) if system else ()
    return Example((*before, Message(role="user", content=text)), id=identity)


def read_questions(path: Path, system: str = "") -> tuple[Example, ...]:
    """The questions of a file.

    Args:
        path: ``.txt`` with a question a line, or rows of any shape that ``sftchat data`` reads; ``-`` reads rows from standard input.
        system: System prompt of those that have none.

    Raises:
        DataError: When the file is missing, empty or malformed, or a row asks nothing.
    """
    from sftchat.data.formats import assign_ids, read_examples

    if path.suffix == ".txt":
        try:
            lines = read_text(path).splitlines()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", str(path)) from error
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8: {error.reason} at byte {error.start}", str(path)) from None
        found = tuple(question(line, system, str(number)) for number, line in enumerate(lines, 1) if line.strip())
    else:
        found = tuple(_with_system(example, system) for example in assign_ids(read_examples(path)))
    for example in found:
        if not example.messages or example.messages[-1]["role"] != "user":
            raise DataError("the row has no question: its messages must end with the user's", example.source or str(path))
    if not found:
        raise DataError("the file has no questions", str(path))
    return found


def _with_system(example: Example, system: str) -> Example:
    """The example with a system prompt, where it has none."""
    if not system or (example.messages and example.messages[0]["role"] == "system"):
        return example
    return replace(example, messages=(Message(role="system", content=system), *example.messages))


def in_order(
    engine: Engine, requests: Sequence[Request], told: Callable[[], None] | None = None
) -> Iterator[tuple[Request, Reply | EngineError]]:
    """The answers in the order of the requests, each as soon as it and all before it are there.

    Args:
        engine: Gets all requests at once.
        requests: With unique ids.
        told: Called for every answer as it comes.

    Raises:
        EngineError: When nothing more can be generated.
    """
    ready: dict[str, Reply | EngineError] = {}
    waiting = list(reversed(requests))
    with closing(collect(engine, requests)) as answers:
        for identity, answer in answers:
            ready[identity] = answer
            if told is not None:
                told()
            while waiting and waiting[-1].id in ready:
                request = waiting.pop()
                yield request, ready.pop(request.id)
    for request in reversed(waiting):
        yield request, ready.get(request.id) or EngineError("the engine stopped without answering")


def reply_facts(reply: Reply) -> dict[str, Any]:
    """A reply as a replies file has it."""
    return {
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        **({"thoughts": reply.thoughts} if reply.thoughts else {}),
        **({"refused": True} if reply.refused else {}),
    }
