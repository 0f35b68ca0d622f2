"""Likelihoods of given texts: the reply of an engine to a request with ``continuations``, and how engines and scorers write and read it.

The reply is one line of JSON, so that caches, files of replies and baselines store it like any other reply.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sftchat._util.parsing import load_json
from sftchat._util.plugin_calls import Malformed, call_plugin, copy_example, copy_texts
from sftchat.engine import Chunk, Request, Scores
from sftchat.errors import EngineError, SftchatError
from sftchat.task import Task
from sftchat.types import Choice, Example

KEY = "likelihoods"
"""The only key of the JSON object that a reply with likelihoods consists of."""
START = f'{{"{KEY}"'
"""The beginning of such a reply."""


@dataclass(frozen=True)
class Likelihood:
    """Likelihood of one continuation of a prompt.

    Attributes:
        logprob: Natural logarithm of the probability of all its tokens.
        tokens: Number of its tokens, the end-of-reply token included if it was scored.
        bytes: Number of bytes of its text in UTF-8.
        greedy: Whether each token is the most probable one, so that greedy decoding generates it.
    """

    logprob: float
    tokens: int
    bytes: int
    greedy: bool

    @classmethod
    def of(cls, text: str, logprobs: Sequence[float], greedy: bool) -> Likelihood:
        """Return the likelihood of a text with the log-probabilities of its tokens.

        Raises:
            EngineError: When one of them is not finite.
        """
        for number, logprob in enumerate(logprobs, start=1):
            if not math.isfinite(logprob):
                raise EngineError(f"the model's logits are not finite at token {number} of the reply")
        return cls(math.fsum(logprobs), len(logprobs), len(text.encode("utf-8", "surrogatepass")), greedy)

    @classmethod
    def of_choices(cls, text: str, choices: Sequence[Choice]) -> Likelihood:
        """Return the likelihood of a text whose tokens ``Scores.choices`` has returned."""
        return cls.of(text, [choice.logprob for choice in choices], all(choice.rank == 0 for choice in choices))


def format_likelihoods(likelihoods: Iterable[Likelihood]) -> str:
    """Return the reply text with likelihoods, in the order of ``Request.continuations``; floats keep all their digits."""
    return json.dumps({KEY: [vars(likelihood) for likelihood in likelihoods]}, separators=(",", ":"), allow_nan=False)


def parse_likelihoods(text: str) -> tuple[Likelihood, ...] | None:
    """Return the likelihoods in a reply text; None when it is another text, such as a generated reply."""
    if not text.startswith(START):
        return None
    try:
        entries = load_json(text)[KEY]
        return tuple(_parse_entry(entry) for entry in entries)
    except (ValueError, TypeError, KeyError):
        return None


def describe_likelihoods(text: str, answer: str) -> str:
    """Return a reply text as reports show it: likelihoods as the answer and rounded numbers, any other text unchanged.

    Args:
        text: The reply text.
        answer: The answer that the scorer found, such as the most likely choice; may be empty.
    """
    likelihoods = parse_likelihoods(text)
    if not likelihoods:
        return text
    numbers = ", ".join(f"{likelihood.logprob:.2f}" for likelihood in likelihoods)
    return f"{answer}\n(log-likelihood {numbers})" if answer else f"log-likelihood {numbers}"


def _parse_entry(entry: Any) -> Likelihood:
    """Return one likelihood; raises ``ValueError``, ``TypeError`` or ``KeyError`` for an invalid one."""
    logprob, tokens, size, greedy = (entry[name] for name in ("logprob", "tokens", "bytes", "greedy"))
    if type(logprob) not in (int, float) or not -1e300 < logprob <= 0 or type(greedy) is not bool:
        raise ValueError("no likelihood")
    if any(type(count) is not int or not 0 <= count < 1 << 53 for count in (tokens, size)):
        raise ValueError("no likelihood")
    return Likelihood(float(logprob), tokens, size, greedy)


def continuations_of(task: Task, example: Example) -> tuple[str, ...]:
    """Return the texts whose likelihood is computed for an example; none if the task generates replies.

    Raises:
        DataError: Raised by ``continuations`` for a row without them.
        PluginError: When ``continuations`` raises another error, or yields anything but texts, an empty text, or none.
    """
    function = task.continuations
    if function is None:
        return ()

    def call_continuations() -> tuple[str, ...]:
        texts = copy_texts(function(copy_example(example)), "continuations")
        if not all(texts) or not texts:
            raise Malformed("gives no continuation, or an empty one")
        return texts

    what, item = f"continuations of task '{task.name}'", example.id or example.source
    return call_plugin(what, call_continuations, doing=f"for item '{item}'", may_refuse=True)


def likelihood_chunk(request: Request, likelihoods: Iterable[Likelihood], prompt_tokens: int = 0) -> Chunk:
    """Return the only chunk of the reply to a request with continuations.

    Args:
        request: The request.
        likelihoods: One for each continuation.
        prompt_tokens: Number of tokens of the prompt; 0 if unknown.
    """
    return Chunk(request.id, format_likelihoods(likelihoods), finish_reason="stop", prompt_tokens=prompt_tokens)


def score_with_choices(engine: Any, requests: Iterable[Request]) -> Iterator[Chunk]:
    """Answer requests with continuations by ``Scores.choices``, one continuation after the other.

    Args:
        engine: The engine.
        requests: Requests with continuations.

    Raises:
        EngineError: When the engine does not implement ``Scores``.
    """
    if not isinstance(engine, Scores):
        raise EngineError(
            f"the engine of '{engine.name}' computes no likelihoods; checkpoint folders, GGUF files and servers that return log-probabilities of a prompt do"
        )
    for request in requests:
        try:
            likelihoods = [
                Likelihood.of_choices(text, engine.choices(request, text, ended=request.ended)) for text in request.continuations
            ]
        except SftchatError as error:
            yield Chunk(request.id, finish_reason="error", error=str(error))
        else:
            yield likelihood_chunk(request, likelihoods)
