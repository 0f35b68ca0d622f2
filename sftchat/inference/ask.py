"""Ask models one question with a streamed reply, many in one batch, or ask several models the same questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftchat._util.parsing import read_text
from sftchat.engine import Chunk, Engine, Request, collect
from sftchat.errors import DataError, EngineError
from sftchat.models.reference import ModelReference, group_by_base
from sftchat.thinking import ThoughtSplitter, separate_thoughts
from sftchat.types import Example, Message, Reply, SamplingParams


def make_question(text: str, system: str = "", id: str = "1") -> Example:
    """Return a conversation of one user message, with a system prompt if ``system`` is not empty."""
    return Example((Message(role="user", content=text),), id=id).with_system(system)


def read_questions(path: Path, system: str = "") -> tuple[Example, ...]:
    """Read the questions of a file.

    Args:
        path: ``.txt`` with a question on each line, or rows in any format of ``sftchat.data``; ``-`` reads rows from standard input.
        system: System prompt of the questions that have none; empty for no system prompt.

    Raises:
        DataError: When the file is missing, empty or malformed, or a row does not end with a user message.
    """
    from sftchat.data.formats import assign_ids, read_examples

    if path.suffix == ".txt":
        try:
            lines = read_text(path).splitlines()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", str(path)) from error
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8: {error.reason} at byte {error.start}", str(path)) from None
        questions = tuple(make_question(line, system, str(number)) for number, line in enumerate(lines, 1) if line.strip())
    else:
        questions = tuple(example.with_system(system) for example in assign_ids(read_examples(path)))
    for example in questions:
        if not example.messages or example.messages[-1]["role"] != "user":
            raise DataError("the row has no question: its messages must end with the user's", example.source or str(path))
    if not questions:
        raise DataError("the file has no questions", str(path))
    return questions


def ask(engine: Engine, request: Request, on_chunk: Callable[[Chunk], None] | None = None) -> Reply:
    """Return the reply to one request, with its thoughts separated from the text.

    Args:
        on_chunk: Called with every chunk of the reply as it arrives.

    Raises:
        EngineError: When the request fails.
    """
    ((_, reply),) = collect(engine, [request], on_chunk=on_chunk)
    if isinstance(reply, EngineError):
        raise reply
    return separate_thoughts(reply)


def ask_streaming(
    engine: Engine, request: Request, *, on_text: Callable[[str], None], on_thoughts: Callable[[str], None],
    on_text_was_thoughts: Callable[[], None],
) -> Reply:  # fmt: skip
    """Return the reply to one request, and pass its text on as it arrives.

    Args:
        on_text: Called with each piece of the reply's text; before ``on_text_was_thoughts`` also with a newline, if the text so far does not end
            with one.
        on_thoughts: Called with each piece of the thoughts that was not already passed to ``on_text``.
        on_text_was_thoughts: Called when a closing tag without an opening one shows that the text passed to ``on_text`` so far was thoughts.

    Raises:
        EngineError: When the request fails.
    """
    splitter: ThoughtSplitter | None = None
    streamed: list[str] = []

    def add_text(text: str) -> None:
        streamed.append(text)
        on_text(text)

    def declare_text_thoughts() -> None:
        """End the line of the text passed on so far and report that it was thoughts; does nothing if none was."""
        if not streamed:
            return
        if not streamed[-1].endswith("\n"):
            on_text("\n")
        streamed.clear()
        on_text_was_thoughts()

    def on_chunk(chunk: Chunk) -> None:
        nonlocal splitter
        if splitter is None:
            splitter = ThoughtSplitter(chunk.thoughts_opened, allow_missing_opening=True)
        if chunk.thoughts:
            on_thoughts(chunk.thoughts)
        if chunk.revises == "thought" and streamed:
            splitter = ThoughtSplitter(allow_missing_opening=True)
            declare_text_thoughts()
        for part in splitter.feed(chunk.text) if chunk.text else []:
            if not part.is_thought:
                add_text(part.text)
                continue
            if part.text:
                on_thoughts(part.text)
            if part.text_was_thoughts:
                declare_text_thoughts()

    reply = ask(engine, request, on_chunk)
    for part in splitter.end() if splitter is not None else []:
        if not part.is_thought:
            add_text(part.text)
    if not "".join(streamed):
        on_text(reply.text)  # all was passed on as thoughts, but without a closing tag it is the reply
    return reply


def ask_all(
    engine: Engine, questions: Sequence[Example], sampling: SamplingParams, samples: int = 1
) -> Iterator[tuple[Example, int, Reply | EngineError]]:
    """Yield the replies to questions, generated in one batch, in the order of the questions, each as early as this order allows.

    Args:
        sampling: Sampling parameters; the number of the sample is added to the seed.
        samples: Number of replies to each question.

    Yields:
        Question, number of the sample (from 0), and the reply or its error.

    Raises:
        EngineError: When the engine as a whole fails.
    """
    pairs = [(question, sample) for question in questions for sample in range(samples)]
    requests = [
        Request(str(index), question.messages, sampling=replace(sampling, seed=sampling.seed + sample))
        for index, (question, sample) in enumerate(pairs)
    ]
    replies: dict[int, Reply | EngineError] = {}
    next_index = 0
    with closing(collect(engine, requests)) as collected:
        for id, reply in collected:
            replies[int(id)] = reply if isinstance(reply, EngineError) else separate_thoughts(reply)
            while next_index in replies:
                question, sample = pairs[next_index]
                yield question, sample, replies.pop(next_index)
                next_index += 1


def ask_models(
    load: Callable[..., Engine], references: Sequence[ModelReference], questions: Sequence[Example], sampling: SamplingParams,
    options: Mapping[str, Any],
) -> Iterator[tuple[int, int, Reply | EngineError]]:  # fmt: skip
    """Yield the replies of several models to the same questions as they arrive.

    Models that share a base reply in one batch; one base is loaded at a time.

    Args:
        load: Opens a model, such as ``sftchat.inference.open.load_engine``.
        references: The models.
        sampling: Sampling parameters.
        options: Further arguments of ``load``.

    Yields:
        Index of the model, index of the question, and the reply or its error.

    Raises:
        ModelError: When a model cannot be loaded.
        EngineError: When an engine as a whole fails.
    """
    from sftchat.inference.open import load_with_adapters

    for group in group_by_base(references):
        first = references[group[0]]
        adapters = [references[model] for model in group if references[model].base is not None]
        adapter_names = {model: references[model].text if references[model].base is not None else "" for model in group}
        with closing(load_with_adapters(load, first.base or first, adapters, options)) as engine:
            requests = [
                Request(f"{model} {number}", question.messages, sampling=sampling, adapter=adapter_names[model])
                for number, question in enumerate(questions)
                for model in group
            ]
            with closing(collect(engine, requests)) as collected:
                for request_id, reply in collected:
                    model, number = map(int, request_id.split())
                    yield model, number, reply


def reply_row(reply: Reply) -> dict[str, Any]:
    """Return a reply as a row of a replies file, still without an id; ``thoughts`` and ``refused`` only if there are any."""
    return {
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        **({"thoughts": reply.thoughts} if reply.thoughts else {}),
        **({"refused": True} if reply.refused else {}),
    }
