"""Likelihood of a given reply, from servers that return log-probabilities of a prompt: vLLM, and with ``/completions`` SGLang."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.engine import Request
from sftchat.errors import EngineError
from sftchat.inference.openai.logprobs import choice_of, choices_of, logprobs_fields, number, token_of
from sftchat.inference.openai.protocol import path_and_body
from sftchat.inference.openai.server import ServerResponse
from sftchat.types import UNNUMBERED, Choice, SamplingParams, Token

ONE_TOKEN = SamplingParams(max_new_tokens=1)
"""A server must generate at least one token."""
Ask = Callable[[str, Mapping[str, Any], int], ServerResponse]
"""Posts a body to a path and returns the response; the number is the number of tokens that limits its size."""


@dataclass(frozen=True)
class _PromptToken:
    """A token of a prompt: its key in the server's list, and its log-probability and alternatives."""

    key: str
    choice: Choice


def score_text(
    ask: Ask, request: Request, model: str, text: str, alternatives: int, *, template_arguments: Mapping[str, Any] | None = None
) -> tuple[Choice, ...]:
    """Return the tokens of a text as the reply to a request, each with its log-probability; the end-of-reply token is excluded.

    For a conversation the server renders the prompt twice, with and without the reply; the additional tokens are the reply's. This requires
    ``prompt_logprobs`` and ``continue_final_message``, as in vLLM. A raw prompt requires ``echo`` with ``logprobs``, as in vLLM and SGLang.

    Args:
        ask: Sends a request to the server.
        request: The prompt.
        model: Name of the model on the server.
        text: The reply; not empty.
        alternatives: Number of top alternatives per token, at least 0.
        template_arguments: Default arguments of the server's chat template; those of the request override them.

    Raises:
        EngineError: When the server does not support it; names the missing feature.
    """
    request = replace(request, sampling=ONE_TOKEN, logprobs=None, reply_ids=())
    whole = replace(request, reply_prefix=request.reply_prefix + text)

    def ask_server(request: Request, extra: Mapping[str, Any], feature: str) -> Mapping[str, Any]:
        path, body = path_and_body(request, model, usage=False, template_arguments=template_arguments)
        length = sum(len(turn["content"]) for turn in request.messages) + len(request.prompt or "") + len(request.reply_prefix)
        answer = ask(path, {**body, **extra}, length)
        if answer.status != 200:
            raise _unsupported(model, feature, answer.error)
        try:
            value = load_json(answer.text, last_wins=True)
        except ValueError:
            value = None
        if not isinstance(value, Mapping):
            raise _unsupported(model, feature, "its answer is no JSON object")
        return value

    if request.prompt is not None:
        extra = {"echo": True, **logprobs_fields(alternatives, chat=False)}
        return _echoed(ask_server(whole, extra, "echo"), request.prompt + request.reply_prefix, text, model)
    extra = {"prompt_logprobs": alternatives}
    with_reply = _prompt(ask_server(whole, extra, "prompt_logprobs"), alternatives, model)
    without = _prompt(ask_server(request, {"prompt_logprobs": 0}, "prompt_logprobs"), 0, model)
    if [token.key for token in with_reply[: len(without)]] != [token.key for token in without] or len(with_reply) <= len(without):
        raise EngineError(
            f"model '{model}': its server's template begins a reply in another way than it goes on with one, so that the tokens of the text cannot be told"
        )
    return tuple(token.choice for token in with_reply[len(without) :])


def _unsupported(model: str, what: str, why: str) -> EngineError:
    return EngineError(f"model '{model}': its server does not give the log-probabilities of a given text ({what}): {why}")


def _prompt(answer: Mapping[str, Any], alternatives: int, model: str) -> list[_PromptToken]:
    """Return the prompt tokens in vLLM's format: per token the alternatives by id, its own first; null for the very first token."""
    listed = answer.get("prompt_logprobs")
    if not isinstance(listed, list):
        raise _unsupported(model, "prompt_logprobs", "it takes the request and sends none")
    tokens: list[_PromptToken] = []
    for entry in listed:
        if listed_tokens := _alternatives(entry):
            (key, token, logprob, rank), *_ = listed_tokens
            others = [(other, value) for _, other, value, other_rank in listed_tokens if other_rank is None or other_rank < alternatives]
            tokens.append(_PromptToken(key, choice_of(token, logprob, others, rank)))
        else:
            tokens.append(_PromptToken("", Choice(Token(UNNUMBERED, ""), 0.0)))
    return tokens


def _alternatives(entry: Any) -> list[tuple[str, Token, float, int | None]]:
    """Return id, token, log-probability and rank (from 0) of each alternative at one position."""
    alternatives = []
    for key, value in entry.items() if isinstance(entry, Mapping) else ():
        if not isinstance(value, Mapping):
            continue
        token, logprob, rank = token_of(value.get("decoded_token")), number(value.get("logprob")), value.get("rank")
        if token is not None and logprob is not None:
            alternatives.append((key, token, logprob, rank - 1 if isinstance(rank, int) and rank > 0 else None))
    return alternatives


def _echoed(answer: Mapping[str, Any], before: str, text: str, model: str) -> tuple[Choice, ...]:
    """Return the tokens of a text after a prompt, from a response that repeats both."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    logprobs = first.get("logprobs") if isinstance(first, Mapping) else None
    offsets = logprobs.get("text_offset") if isinstance(logprobs, Mapping) else None
    texts = logprobs.get("tokens") if isinstance(logprobs, Mapping) else None
    if not isinstance(logprobs, Mapping) or not isinstance(texts, list) or not str((first or {}).get("text", "")).startswith(before + text):
        raise _unsupported(model, "echo", "it takes the request and does not repeat the text")
    starts: Sequence[int] = offsets or []
    if not _fits(offsets, texts) or not all(isinstance(offset, int) for offset in starts):
        starts = _starts(texts)
    indices = [index for index, start in enumerate(starts) if len(before) <= start < len(before) + len(text)]
    columns = [name for name in ("tokens", "token_logprobs", "top_logprobs") if _fits(logprobs.get(name), texts)]
    scored = choices_of({name: [logprobs[name][index] for index in indices] for name in columns})
    if not indices or starts[indices[0]] != len(before) or len(scored) != len(indices):
        raise EngineError(f"model '{model}': no token begins where the text does, so that its likelihood cannot be told from the prompt's")
    return scored


def _fits(value: Any, texts: Sequence[Any]) -> bool:
    return isinstance(value, list) and len(value) == len(texts)


def _starts(texts: Sequence[Any]) -> list[int]:
    """Return the offset of each token, computed from the texts."""
    return [0, *itertools.accumulate(len(text) if isinstance(text, str) else 0 for text in texts)][:-1]
