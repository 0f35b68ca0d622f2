"""Likelihood of a given reply, from servers that return log-probabilities of a prompt: vLLM, and with ``/completions`` SGLang."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.engine import Request
from sftchat.errors import EngineError
from sftchat.inference.openai.events import path_and_body
from sftchat.inference.openai.logprobs import asked_for, choice_of, choices_of, number, token_of
from sftchat.inference.openai.server import Answer
from sftchat.types import UNNUMBERED, Choice, SamplingParams, Token

ONE_TOKEN = SamplingParams(max_new_tokens=1)
"""A server must generate at least one token."""
Ask = Callable[[str, Mapping[str, Any], int], Answer]
"""Posts a body to a path and returns the response; the number is the number of tokens that limits its size."""


@dataclass(frozen=True)
class _Read:
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

    def asked(one: Request, extra: Mapping[str, Any], lacking: str) -> Mapping[str, Any]:
        path, body = path_and_body(one, model, usage=False, template_arguments=template_arguments)
        length = sum(len(turn["content"]) for turn in one.messages) + len(one.prompt or "") + len(one.reply_prefix)
        answer = ask(path, {**body, **extra}, length)
        if answer.status != 200:
            raise _lacks(model, lacking, answer.words)
        try:
            found = load_json(answer.text, last_wins=True)
        except ValueError:
            found = None
        if not isinstance(found, Mapping):
            raise _lacks(model, lacking, "its answer is no JSON object")
        return found

    if request.prompt is not None:
        extra = {"echo": True, **asked_for(alternatives, chat=False)}
        return _echoed(asked(whole, extra, "echo"), request.prompt + request.reply_prefix, text, model)
    extra = {"prompt_logprobs": alternatives}
    with_reply = _prompt(asked(whole, extra, "prompt_logprobs"), alternatives, model)
    without = _prompt(asked(request, {"prompt_logprobs": 0}, "prompt_logprobs"), 0, model)
    if [one.key for one in with_reply[: len(without)]] != [one.key for one in without] or len(with_reply) <= len(without):
        raise EngineError(
            f"model '{model}': its server's template begins a reply in another way than it goes on with one, so that the tokens of the text cannot be told"
        )
    return tuple(one.choice for one in with_reply[len(without) :])


def _lacks(model: str, what: str, why: str) -> EngineError:
    """Return the error for a server that cannot score a text."""
    return EngineError(f"model '{model}': its server does not give the log-probabilities of a given text ({what}): {why}")


def _prompt(answer: Mapping[str, Any], alternatives: int, model: str) -> list[_Read]:
    """Return the prompt tokens in vLLM's format: per token the alternatives by id, its own first; null for the very first token."""
    listed = answer.get("prompt_logprobs")
    if not isinstance(listed, list):
        raise _lacks(model, "prompt_logprobs", "it takes the request and sends none")
    found: list[_Read] = []
    for entry in listed:
        read = _alternatives(entry)
        if read:
            (key, token, logprob, rank), *_ = read
            others = [(other, value) for _, other, value, place in read if place is None or place < alternatives]
            found.append(_Read(key, choice_of(token, logprob, others, rank)))
        else:
            found.append(_Read("", Choice(Token(UNNUMBERED, ""), 0.0)))
    return found


def _alternatives(entry: Any) -> list[tuple[str, Token, float, int | None]]:
    """Return id, token, log-probability and rank (from 0) of each alternative at one position."""
    found = []
    for key, one in entry.items() if isinstance(entry, Mapping) else ():
        if not isinstance(one, Mapping):
            continue
        token, logprob, rank = token_of(one.get("decoded_token")), number(one.get("logprob")), one.get("rank")
        if token is not None and logprob is not None:
            found.append((key, token, logprob, rank - 1 if isinstance(rank, int) and rank > 0 else None))
    return found


def _echoed(answer: Mapping[str, Any], before: str, text: str, model: str) -> tuple[Choice, ...]:
    """Return the tokens of a text after a prompt, from a response that repeats both."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    logprobs = first.get("logprobs") if isinstance(first, Mapping) else None
    offsets = logprobs.get("text_offset") if isinstance(logprobs, Mapping) else None
    texts = logprobs.get("tokens") if isinstance(logprobs, Mapping) else None
    if not isinstance(logprobs, Mapping) or not isinstance(texts, list) or not str((first or {}).get("text", "")).startswith(before + text):
        raise _lacks(model, "echo", "it takes the request and does not repeat the text")
    starts: Sequence[int] = offsets if offsets is not None and _are_offsets(offsets, texts) else _starts(texts)
    wanted = [place for place, start in enumerate(starts) if len(before) <= start < len(before) + len(text)]
    kept = {
        name: [logprobs[name][place] for place in wanted]
        for name in ("tokens", "token_logprobs", "top_logprobs")
        if _fits(logprobs.get(name), texts)
    }
    found = choices_of(kept)
    if not wanted or starts[wanted[0]] != len(before) or len(found) != len(wanted):
        raise EngineError(f"model '{model}': no token begins where the text does, so that its likelihood cannot be told from the prompt's")
    return found


def _fits(value: Any, texts: Sequence[Any]) -> bool:
    """Whether a value is a list with one entry per token."""
    return isinstance(value, list) and len(value) == len(texts)


def _are_offsets(offsets: Any, texts: Sequence[Any]) -> bool:
    """Whether the offsets are consistent with the texts of the tokens."""
    return _fits(offsets, texts) and all(isinstance(offset, int) for offset in offsets)


def _starts(texts: Sequence[Any]) -> list[int]:
    """Return the offset of each token, computed from the texts."""
    starts, at = [], 0
    for text in texts:
        starts.append(at)
        at += len(text) if isinstance(text, str) else 0
    return starts
