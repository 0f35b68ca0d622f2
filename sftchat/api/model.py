"""``sftchat.load``: a model in memory that replies, streams, replies to many prompts at once, and computes likelihoods."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Unpack, overload

from sftchat.api.options import EngineOptions, SamplingOptions, check_choice, check_engine_options, make_sampling
from sftchat.api.session import Session
from sftchat.api.wording import for_python, python_messages
from sftchat.data.formats import to_example
from sftchat.engine import Describes, Engine, Request, close_at_end, collect
from sftchat.errors import DataError, EngineError, UsageError
from sftchat.inference.ask import ask
from sftchat.likelihood import Likelihood, parse_likelihoods
from sftchat.thinking import ThoughtSplitter, separate_thoughts
from sftchat.types import Example, Message, Reply

Prompt = str | Sequence[Message] | Sequence[Mapping[str, Any]]
"""A user message as text, or a conversation that ends with one."""


class Model:
    """A loaded model; a context manager that closes it. Several threads may use it.

    Args:
        name: MODEL, as given to ``load``.
        engine: Its engine.
        options: Options with which it was opened.
    """

    def __init__(self, name: str, engine: Engine, options: Mapping[str, Any]) -> None:
        self.name = name
        self.options = dict(options)
        self._engine: Engine | None = engine

    @property
    def engine(self) -> Engine:
        """The engine, for the interface of ``sftchat.engine``.

        Raises:
            UsageError: When the model is closed.
        """
        if self._engine is None:
            raise UsageError(f"the model '{self.name}' is closed; load it again")
        return self._engine

    @for_python
    def reply(self, prompt: Prompt, *, system: str = "", **sampling: Unpack[SamplingOptions]) -> Reply:
        """Return the reply to one prompt; ``str(reply)`` is its text, and ``reply.thoughts`` the thoughts of a reasoning model.

        Args:
            prompt: A user message as text, or a conversation that ends with one.
            system: System prompt of a prompt without one.
            sampling: Sampling parameters, such as ``max_new_tokens=40`` and ``temperature=0.7``; greedy, at most 256 tokens by default.

        Raises:
            UsageError: When the prompt is empty or malformed, or a sampling parameter is out of its range.
            EngineError: When the request fails.
        """
        return ask(self.engine, _request("0", prompt, system, sampling))

    @for_python
    def stream(self, prompt: Prompt, *, system: str = "", **sampling: Unpack[SamplingOptions]) -> Generator[str, None, None]:
        """Yield the text of the reply as it is generated, without the thoughts of a reasoning model; closing the iterator stops the model.

        The arguments and errors are those of ``reply``.
        """
        return self._stream(_request("0", prompt, system, sampling))

    def _stream(self, request: Request) -> Generator[str, None, None]:
        splitter: ThoughtSplitter | None = None
        with python_messages(), close_at_end(self.engine.generate([request])) as chunks:
            for chunk in chunks:
                if splitter is None:
                    splitter = ThoughtSplitter(chunk.thoughts_opened)
                if chunk.finish_reason == "error":
                    raise EngineError(chunk.error or "the request failed")
                yield from (part.text for part in splitter.feed(chunk.text) if not part.is_thought)
        if splitter is not None:
            yield from (part.text for part in splitter.end() if not part.is_thought)

    @overload
    def replies(
        self, prompts: Iterable[Prompt], *, system: str = "", on_error: Literal["raise"] = "raise", **sampling: Unpack[SamplingOptions]
    ) -> list[Reply]: ...
    @overload
    def replies(
        self, prompts: Iterable[Prompt], *, system: str = "", on_error: Literal["return"], **sampling: Unpack[SamplingOptions]
    ) -> list[Reply | EngineError]: ...
    @for_python
    def replies(
        self,
        prompts: Iterable[Prompt],
        *,
        system: str = "",
        on_error: Literal["raise", "return"] = "raise",
        **sampling: Unpack[SamplingOptions],
    ) -> list[Reply] | list[Reply | EngineError]:
        """Return the replies to many prompts, in their order; the model batches them.

        Args:
            prompts: As for ``reply``.
            system: System prompt of the prompts without one.
            on_error: Whether to raise the first error of a request, or to return errors in place of replies.
            sampling: Sampling parameters, as for ``reply``.

        Raises:
            UsageError: As ``reply``.
            EngineError: When the engine fails, or a request and ``on_error`` is ``raise``.
        """
        if isinstance(prompts, str):
            raise UsageError("prompts is one text, must be a list of prompts; for one prompt call reply")
        check_choice("on_error", on_error, ("raise", "return"))
        requests = [_request(str(index), prompt, system, sampling) for index, prompt in enumerate(prompts)]
        results: dict[str, Reply | EngineError] = {}
        for id, reply in collect(self.engine, requests):
            if isinstance(reply, EngineError):
                if on_error == "raise":
                    raise EngineError(f"prompt {id}: {reply}")
                results[id] = reply
            else:
                results[id] = separate_thoughts(reply)
        return [results[request.id] for request in requests]

    @for_python
    def likelihood(self, prompt: Prompt, texts: str | Sequence[str], *, system: str = "", ended: bool = False) -> tuple[Likelihood, ...]:
        """Return the likelihood of each text as the reply to a prompt.

        Args:
            prompt: As for ``reply``.
            texts: One text or several; none is empty.
            system: System prompt of a prompt without one.
            ended: Whether the likelihood includes that of the end of the reply.

        Raises:
            UsageError: As ``reply``.
            EngineError: When the model or its server computes no likelihoods.
        """
        continuations = (texts,) if isinstance(texts, str) else tuple(texts)
        request = Request("0", _messages(prompt, system), continuations=continuations, ended=ended)
        likelihoods = parse_likelihoods(ask(self.engine, request).text)
        if likelihoods is None:
            raise EngineError(f"'{self.name}' returned no likelihoods")
        return likelihoods

    def close(self) -> None:
        """Free the model and its memory; a closed model is not closed again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._engine is None:
            return f"<sftchat model {self.name}, closed>"
        summary = f", {self._engine.summary}" if isinstance(self._engine, Describes) else ""
        return f"<sftchat model {self.name}{summary}>"


@for_python
def load(model: str | os.PathLike[str], *, session: Session | None = None, **options: Unpack[EngineOptions]) -> Model:
    """Load a model.

    Args:
        model: MODEL as on the command line: a folder, a run, a GGUF file, a name on a hub, ``sftchat:nano``, or ``http://HOST/v1#NAME``.
        session: Plugins and engines; those that are installed by default.
        options: Options for opening it, see ``sftchat.api.options.EngineOptions``.

    Raises:
        UsageError: When MODEL is not a valid reference, or an option is unknown or not allowed.
        ModelError: When it cannot be found or loaded.
        MissingExtraError: When an extra for this kind of model is not installed.
    """
    name = os.fspath(model)
    checked = check_engine_options(options)
    return Model(name, (session or Session()).load_engine(name, **checked), checked)


def _request(id: str, prompt: Prompt, system: str, sampling: Mapping[str, Any]) -> Request:
    return Request(id, _messages(prompt, system), sampling=make_sampling(sampling))


def _messages(prompt: Prompt, system: str) -> tuple[Message, ...]:
    """Return the conversation of a prompt."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UsageError("the prompt is empty")
        return Example((Message(role="user", content=prompt),)).with_system(system).messages
    try:
        example = to_example({"messages": list(prompt)}, "prompt")
    except DataError as error:
        raise UsageError(str(error)) from None
    if example.gold is not None or not example.messages or example.messages[-1]["role"] == "assistant":
        raise UsageError("the conversation ends with an assistant turn; the last turn must be the user's")
    return example.with_system(system).messages
