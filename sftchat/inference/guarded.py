"""Wrapper for the engines of plugins: exceptions become ``PluginError``, results are validated, arguments are copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from sftchat._util.plugin_calls import Malformed, call_plugin, copy_json, iterate_plugin, short_repr, to_str
from sftchat.engine import Chunk, Engine, EngineType, Request, Revision, answer_requests
from sftchat.likelihood import score_with_choices
from sftchat.types import Choice, FinishReason, Token

FINISH_REASONS = get_args(FinishReason)
OPTIONAL_PROPERTIES = ("context_length", "template_hash", "template_arguments", "template_variables", "adapters")
OPTIONAL_METHODS = ("render", "count_tokens", "prompt_tokens", "trained_tokens", "decode", "choices", "add_adapter", "mix_adapters")
"""Optional members of an engine: those of the protocols in ``sftchat.engine``."""


class GuardedEngine:
    """An ``Engine`` of a plugin, called through ``call_plugin``; created by ``open_guarded``.

    Args:
        what: Name of the engine in messages.
        name: Name of the model, as the user gave it.
        engine: The plugin's engine.
    """

    def __init__(self, what: str, name: str, engine: Any) -> None:
        self.name = name
        self._what = what
        self._engine = engine

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies; requests with continuations are answered by the engine's ``choices``.

        Raises:
            EngineError: When a request has continuations and the engine has no ``choices``.
            PluginError: When the engine fails, or yields an invalid chunk.
            SftchatError: Raised by the engine on purpose.
        """
        return answer_requests(requests, self._generate, lambda group: score_with_choices(self, group))

    def _generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        copies = (replace(request, messages=copy_json(request.messages), tools=copy_json(request.tools)) for request in requests)
        chunks = call_plugin(self._what, self._engine.generate, copies, may_refuse=True)
        for chunk in iterate_plugin(self._what, chunks, may_refuse=True):
            yield call_plugin(self._what, plain_chunk, chunk)

    def close(self) -> None:
        """Free the resources of the engine.

        Raises:
            PluginError: When the engine fails.
        """
        call_plugin(self._what, self._engine.close)

    def __getattr__(self, name: str) -> Any:
        """Return another attribute of the engine; chat commands of the same plugin use them."""
        return getattr(self._engine, name)


def open_guarded(engine_type: EngineType, source: str, options: Mapping[str, Any]) -> Engine:
    """Open a model with a plugin's engine.

    Args:
        engine_type: Engine type of the plugin.
        source: MODEL without the scheme.
        options: Options of the command line.

    Raises:
        PluginError: When the plugin fails, or returns an object that is not an engine.
        SftchatError: Raised by the plugin on purpose.
    """
    what = f"engine '{engine_type.scheme}'"

    def open_and_validate() -> Engine:
        engine: Any = engine_type.open(source, copy_json(dict(options)))
        if not isinstance(engine, Engine):
            raise Malformed(f"opened a {type(engine).__name__}, which has not all of name, generate and close")
        model_name: object = engine.name
        if not isinstance(model_name, str):
            raise Malformed(f"opened a model of the name {short_repr(model_name)}, must be text")
        # isinstance with a runtime protocol looks at the class, so each engine gets a class with exactly its optional members
        members: dict[str, Any] = {name: _guarded_property(name) for name in OPTIONAL_PROPERTIES if hasattr(engine, name)}
        members |= {name: _guarded_method(name) for name in OPTIONAL_METHODS if callable(getattr(engine, name, None))}
        guarded: Engine = type("GuardedEngine", (GuardedEngine,), members)(what, to_str(model_name), engine)
        return guarded

    return call_plugin(what, open_and_validate, may_refuse=True)


def identity_of(engine_type: EngineType, source: str, options: Mapping[str, Any]) -> str:
    """Return the identity that a plugin's engine type reports; empty if it reports none.

    Args:
        engine_type: Engine type of the plugin.
        source: MODEL without the scheme.
        options: Options of the command line.

    Raises:
        PluginError: When the plugin fails, or returns something other than text.
        SftchatError: Raised by the plugin on purpose.
    """
    identify = engine_type.identify
    if identify is None:
        return ""

    def identify_and_validate() -> str:
        identity: object = identify(source, copy_json(dict(options)))
        if not isinstance(identity, str):
            raise Malformed(f"gives the identity {short_repr(identity)}, must be text")
        return to_str(identity)

    return call_plugin(f"engine '{engine_type.scheme}'", identify_and_validate, may_refuse=True)


def plain_chunk(chunk: object) -> Chunk:
    """Validate a chunk and convert its fields to built-in types.

    Args:
        chunk: Object that an engine yielded.

    Raises:
        Malformed: When it is not a ``Chunk``, or a field has the wrong type.
    """
    if not isinstance(chunk, Chunk):
        raise Malformed(f"yields {short_repr(chunk)}, must yield sftchat.Chunk")
    for name in ("request_id", "text", "error", "thoughts", "revises"):
        if not isinstance(getattr(chunk, name), str):
            raise Malformed(f"yields a chunk whose {name} is {short_repr(getattr(chunk, name))}, must be text")
    if chunk.finish_reason is not None and chunk.finish_reason not in FINISH_REASONS:
        raise Malformed(
            f"yields a chunk whose finish_reason is {short_repr(chunk.finish_reason)}, must be one of {', '.join(FINISH_REASONS)}, or None"
        )
    if chunk.revises not in get_args(Revision):
        raise Malformed(f"yields a chunk whose revises is {short_repr(chunk.revises)}, must be one of thought, again, or empty")
    logprobs = chunk.logprobs
    return Chunk(
        to_str(chunk.request_id),
        to_str(chunk.text),
        tuple(_plain_count(token, "token_ids") for token in chunk.token_ids),
        chunk.finish_reason,
        _plain_count(chunk.prompt_tokens, "prompt_tokens"),
        None if logprobs is None else tuple(map(float, logprobs)),
        to_str(chunk.error),
        _plain_count(chunk.unlisted_tokens, "unlisted_tokens"),
        _plain_count(chunk.cached_tokens, "cached_tokens"),
        to_str(chunk.thoughts),
        bool(chunk.refused),
        chunk.revises,
        tuple(_plain_choice(choice) for choice in chunk.choices),
        bool(chunk.thoughts_opened),
    )


def _plain_choice(choice: object) -> Choice:
    if not isinstance(choice, Choice):
        raise Malformed(f"yields a chunk with {short_repr(choice)} among its choices, must be sftchat.Choice")
    alternatives = tuple((_plain_token(token), float(logprob)) for token, logprob in choice.alternatives)
    return Choice(_plain_token(choice.token), float(choice.logprob), _plain_count(choice.rank, "choices"), alternatives)


def _plain_token(token: object) -> Token:
    if not isinstance(token, Token) or not isinstance(token.text, str):
        raise Malformed(f"yields a chunk with {short_repr(token)} among its choices, must be sftchat.Token with a text")
    data = tuple(_plain_count(byte, "choices") for byte in token.data)
    return Token(int(token.id), to_str(token.text), bool(token.special), bool(token.trained), data)


def _plain_count(value: Any, field: str) -> int:
    """Return an integer as ``int``; raises ``Malformed`` for a negative one or another type."""
    try:
        number = int(value.__index__())
    except (AttributeError, TypeError):
        number = -1
    if number < 0:
        raise Malformed(f"yields a chunk whose {field} is {short_repr(value)}, must be a whole number from 0")
    return number


def _guarded_property(name: str) -> property:
    def get(self: GuardedEngine) -> Any:
        return call_plugin(self._what, getattr, self._engine, name, may_refuse=True)

    return property(get)


def _guarded_method(name: str) -> Callable[..., Any]:
    def call(self: GuardedEngine, *args: Any, **kwargs: Any) -> Any:
        return call_plugin(self._what, lambda: getattr(self._engine, name)(*args, **kwargs), may_refuse=True)

    return call
