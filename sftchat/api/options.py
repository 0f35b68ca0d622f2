"""Keyword arguments of the Python functions: their names and types for editors and type checkers, and the check of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from sftchat.errors import UsageError, unknown_name_message
from sftchat.types import SamplingParams


class EngineOptions(TypedDict, total=False):
    """Options for opening a model; each is optional.

    Attributes:
        base: Base model of an adapter, as MODEL.
        dtype: Dtype of the weights.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        quantize: Rounds the linear layers: ``int8`` on a CPU, ``nf4`` with bitsandbytes.
        template: Chat template name or file, instead of the model's own.
        template_name: Name of one of the model's own templates.
        template_arguments: Arguments of the template.
        trust_remote_code: Whether code that comes with the model may run.
        allow_pickle: Whether pickled weights may be loaded.
        concurrency: Maximum number of simultaneous requests to a server, at least 1.
        timeout: Maximum time without data from a server, in seconds.
        request_timeout: Maximum total time of one request to a server, in seconds.
        extra_body: Additional fields of the JSON body of every request to a server.
    """

    base: str | None
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    device: str
    quantize: Literal["int8", "nf4"] | None
    template: str | None
    template_name: str | None
    template_arguments: Mapping[str, Any] | None
    trust_remote_code: bool
    allow_pickle: bool
    concurrency: int
    timeout: float
    request_timeout: float
    extra_body: Mapping[str, Any] | None


class SamplingOptions(TypedDict, total=False):
    """Sampling parameters; each is optional, see ``SamplingParams``.

    Attributes:
        max_new_tokens: Maximum length of a reply in tokens, at least 1; 256 by default.
        temperature: From 0, greedy and the default, to 2.
        top_p: Sample from the likeliest tokens that together reach this probability.
        top_k: Sample from this many likeliest tokens; 0 means all.
        repetition_penalty: Above 0; 1 is off.
        seed: Seed of the sampling.
        stop: Text, or texts, that end a reply.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int
    stop: str | Sequence[str]


_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "quantize": (None, "int8", "nf4"),
}
_POSITIVE = ("concurrency", "timeout", "request_timeout")


def check_engine_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for opening a model after a check of their names and values.

    Raises:
        UsageError: When a name is unknown, or a value is not allowed.
    """
    for name, value in options.items():
        if name not in EngineOptions.__annotations__:
            raise UsageError(unknown_name_message("option of a model", name, EngineOptions.__annotations__))
        if name in _CHOICES:
            check_choice(name, value, _CHOICES[name])
        if name in _POSITIVE and not (isinstance(value, (int, float)) and value > 0):
            raise UsageError(f"{name} is {value!r}, must be a number above 0")
    return dict(options)


def make_sampling(values: Mapping[str, Any]) -> SamplingParams:
    """Return sampling parameters from keyword arguments.

    Raises:
        UsageError: When a name is unknown, or a value is out of its range.
    """
    for name in values:
        if name not in SamplingOptions.__annotations__:
            raise UsageError(unknown_name_message("sampling parameter", name, SamplingOptions.__annotations__))
    given = dict(values)
    if "stop" in given:
        given["stop"] = (given["stop"],) if isinstance(given["stop"], str) else tuple(given["stop"])
    try:
        return SamplingParams(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise ``UsageError`` unless the value of an argument is one of the allowed ones."""
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}, must be one of {', '.join(map(repr, allowed))}")


def check_count(name: str, value: Any, minimum: int) -> None:
    """Raise ``UsageError`` unless the value of an argument is None or a whole number of at least ``minimum``."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UsageError(f"{name} is {value!r}, must be a whole number of at least {minimum}")
