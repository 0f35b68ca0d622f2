"""Wrapper for plugin engines: exceptions become errors of the plugin, results are validated, arguments are copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from sftchat._util.plugin_calls import Malformed, call_plugin, copy_json, iterate_plugin, short_repr, to_str
from sftchat.engine import Chunk, Engine, EngineType, Request, Revision
from sftchat.types import Choice, FinishReason, Token

FINISH_REASONS = (None, *get_args(FinishReason))
OPTIONAL_PROPERTIES = ("context_length", "template_hash", "template_arguments", "template_variables", "adapters")
OPTIONAL_METHODS = ("render", "count_tokens", "prompt_tokens", "trained_tokens", "decode", "choices", "add_adapter", "mix_adapters")
"""Optional members of an engine: those of the protocols in ``sftchat.engine``."""


class Guarded:
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
        """Generate replies.

        Raises:
            PluginError: When the engine fails, or yields an invalid chunk.
            SftchatError: Raised by the engine on purpose.
        """
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
        """Other attributes of the engine, for chat commands of the same plugin."""
        return getattr(self._engine, name)


def open_guarded(kind: EngineType, source: str, options: Mapping[str, Any]) -> Engine:
    """Open a model with a plugin's engine.

    Args:
        kind: Engine type of the plugin.
        source: MODEL without the scheme.
        options: Options of the command line.

    Raises:
        PluginError: When the plugin fails, or returns an object that is not an engine.
        SftchatError: Raised by the plugin on purpose.
    """
    what = f"engine '{kind.scheme}'"

    def validated() -> Engine:
        engine: Any = kind.open(source, copy_json(dict(options)))
        if not isinstance(engine, Engine):
            raise Malformed(f"opened a {type(engine).__name__}, which has not all of name, generate and close")
        name: object = engine.name
        if not isinstance(name, str):
            raise Malformed(f"opened a model of the name {short_repr(name)}, must be text")
        # runtime protocols look at the class, so the class gets the members that this engine has and no others
        more: dict[str, Any] = {name: _value(name) for name in OPTIONAL_PROPERTIES if hasattr(engine, name)}
        more |= {name: _method(name) for name in OPTIONAL_METHODS if callable(getattr(engine, name, None))}
        guarded: Engine = type("Guarded", (Guarded,), more)(what, to_str(name), engine)
        return guarded

    return call_plugin(what, validated, may_refuse=True)


def identity_of(kind: EngineType, source: str, options: Mapping[str, Any]) -> str:
    """Return the identity that a plugin's engine type reports; empty if it reports none.

    Args:
        kind: Engine type of the plugin.
        source: MODEL without the scheme.
        options: Options of the command line.

    Raises:
        PluginError: When the plugin fails, or returns something other than text.
        SftchatError: Raised by the plugin on purpose.
    """
    identify = kind.identify
    if identify is None:
        return ""

    def validated() -> str:
        identity: object = identify(source, copy_json(dict(options)))
        if not isinstance(identity, str):
            raise Malformed(f"gives the identity {short_repr(identity)}, must be text")
        return to_str(identity)

    return call_plugin(f"engine '{kind.scheme}'", validated, may_refuse=True)


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
    if not any(chunk.finish_reason is reason or chunk.finish_reason == reason for reason in FINISH_REASONS):
        raise Malformed(
            f"yields a chunk whose finish_reason is {short_repr(chunk.finish_reason)}, must be one of {', '.join(FINISH_REASONS[1:])}, or None"
        )
    if chunk.revises not in get_args(Revision):
        raise Malformed(f"yields a chunk whose revises is {short_repr(chunk.revises)}, must be one of thought, again, or empty")
    logprobs = chunk.logprobs
    return Chunk(
        to_str(chunk.request_id),
        to_str(chunk.text),
        tuple(_whole(token, "token_ids") for token in chunk.token_ids),
        chunk.finish_reason,
        _whole(chunk.prompt_tokens, "prompt_tokens"),
        None if logprobs is None else tuple(map(float, logprobs)),
        to_str(chunk.error),
        _whole(chunk.unlisted_tokens, "unlisted_tokens"),
        _whole(chunk.cached_tokens, "cached_tokens"),
        to_str(chunk.thoughts),
        bool(chunk.refused),
        chunk.revises,
        tuple(_choice(choice) for choice in chunk.choices),
        bool(chunk.thoughts_opened),
    )


def _choice(choice: object) -> Choice:
    """Validate a ``Choice`` and convert its fields to built-in types; raises ``Malformed``."""
    if not isinstance(choice, Choice):
        raise Malformed(f"yields a chunk with {short_repr(choice)} among its choices, must be sftchat.Choice")
    others = tuple((_token(token), float(value)) for token, value in choice.alternatives)
    return Choice(_token(choice.token), float(choice.logprob), _whole(choice.rank, "choices"), others)


def _token(token: object) -> Token:
    """Validate a ``Token`` and convert its fields to built-in types; raises ``Malformed``."""
    if not isinstance(token, Token) or not isinstance(token.text, str):
        raise Malformed(f"yields a chunk with {short_repr(token)} among its choices, must be sftchat.Token with a text")
    data = tuple(_whole(byte, "choices") for byte in token.data)
    return Token(int(token.id), to_str(token.text), bool(token.special), bool(token.trained), data)


def _whole(value: Any, name: str) -> int:
    """Return the value as an int; raise ``Malformed`` if it is not a whole number from 0."""
    try:
        number = int(value.__index__())
    except (AttributeError, TypeError):
        number = -1
    if number < 0:
        raise Malformed(f"yields a chunk whose {name} is {short_repr(value)}, must be a whole number from 0")
    return number


def _value(name: str) -> property:
    def read(self: Guarded) -> Any:
        return call_plugin(self._what, getattr, self._engine, name, may_refuse=True)

    return property(read)


def _method(name: str) -> Callable[..., Any]:
    def call(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        return call_plugin(self._what, lambda: getattr(self._engine, name)(*args, **kwargs), may_refuse=True)

    return call
