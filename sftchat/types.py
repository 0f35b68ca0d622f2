"""Shared value types: messages, examples, replies and scores.

Standard library only, so that a plugin, a scorer or a CI job can import them without loading a model library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NotRequired, TypedDict

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""Why a reply ended: a stop token, the token limit, the user, or a failure of the engine."""


class Message(TypedDict):
    """One turn of a conversation, in the format of the OpenAI and Hugging Face libraries.

    ``context`` is the last part of a user turn's ``content``, from the column ``input`` or ``context`` of an Alpaca row; some templates render it
    under a heading. ``weight`` is 0 for an assistant turn without a loss, as in OpenAI's fine-tuning files.
    """

    role: str
    content: str
    context: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    name: NotRequired[str]
    weight: NotRequired[int]


def is_learned(message: Mapping[str, Any]) -> bool:
    """Return whether training has a loss on a turn: on assistant turns, unless their ``weight`` is 0."""
    return bool(message["role"] == "assistant" and message.get("weight", 1))


@dataclass(frozen=True)
class Example:
    """One item of a task: a prompt and its gold reply, if known.

    Attributes:
        messages: The conversation so far; ends with a user turn when there is a gold reply to generate.
        gold: The ideal reply; None for a prompt without one.
        id: Unique within its file; empty until a reader or an evalset assigns one.
        metadata: Further values of the row; stored and shown, never interpreted by the core.
        source: Origin as ``file:line``; empty for generated rows.
    """

    messages: tuple[Message, ...]
    gold: str | None = None
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages with the gold reply as the last assistant turn, as used in training."""
        if self.gold is None:
            return self.messages
        return (*self.messages, Message(role="assistant", content=self.gold))

    def with_system(self, system: str) -> Example:
        """Return the example with a system prompt; unchanged if it has one or ``system`` is empty."""
        if not system or (self.messages and self.messages[0]["role"] == "system"):
            return self
        return replace(self, messages=(Message(role="system", content=system), *self.messages))


@dataclass(frozen=True)
class Reply:
    """A model's reply to one example.

    Attributes:
        text: The reply as generated, without special tokens, otherwise unchanged.
        finish_reason: Why the reply ended: ``stop`` (stop token or stop string), ``length`` (token limit), ``cancelled`` (by the user) or ``error``.
        prompt_tokens: Length of the rendered prompt, in tokens.
        completion_tokens: Length of the reply, in tokens, without the stop token.
        thoughts: Reasoning that a server returned separately; a local model's thoughts are part of its text, as ``<think>…</think>``.
        refused: Whether the server marked the text as a refusal.
        other_samples: Further replies to the same prompt, if several were sampled; the other attributes are those of the first.
    """

    text: str
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thoughts: str = ""
    refused: bool = False
    other_samples: tuple[Reply, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def samples(self) -> tuple[Reply, ...]:
        """All replies to the prompt, in the order of their numbers; this reply is the first."""
        return (replace(self, other_samples=()), *self.other_samples) if self.other_samples else (self,)


@dataclass(frozen=True)
class Token:
    """One token, for display.

    Attributes:
        id: Id in the vocabulary; ``UNNUMBERED`` from a server, which returns texts only.
        text: Its decoded text, not sanitized for printing; U+FFFD for a part of a character.
        special: Whether it is a special token, which the template adds or which ends the reply; tokenizing text does not produce it.
        trained: Whether training has a loss on it.
        data: Its bytes, if a server returns them and they are a part of a character; empty otherwise.
    """

    id: int
    text: str
    special: bool = False
    trained: bool = False
    data: tuple[int, ...] = ()


UNNUMBERED = -1
"""The ``Token.id`` of a token whose id is unknown."""


@dataclass(frozen=True)
class Choice:
    """The model's probabilities at one token of a reply, before temperature and other sampling parameters.

    Attributes:
        token: The token in the reply.
        logprob: Natural logarithm of its probability.
        rank: Number of more probable tokens. For a server's token that is not among the alternatives, the number of alternatives.
        alternatives: The most probable tokens with their log-probabilities, best first.
    """

    token: Token
    logprob: float
    rank: int = 0
    alternatives: tuple[tuple[Token, float], ...] = ()


@dataclass(frozen=True)
class Score:
    """A scorer's result for one reply.

    Attributes:
        stats: Counts that add up over examples, such as ``{"tp": 2, "pred": 3, "gold": 3}``; a metric is a function of their sums.
            A scorer returns the same keys for every reply. A count is a finite number: ``int``, ``float``, ``bool`` (stored as 0 or 1),
            ``Decimal``, ``Fraction`` or a NumPy scalar. Any other value is an error.
        answer: The answer that the scorer parsed from the reply, normalised.
        errors: Short names of the error classes found, such as ``"missing"`` or ``"unparsable"``; empty when the reply is right.
        groups: Counts of the same kind by slice, such as one relation: ``{"师徒": {"tp": 1, "pred": 1, "gold": 1}}``.
        expected: The answer of the gold reply where answers are one of few labels; reports count ``expected`` and ``answer`` in a confusion table.
    """

    stats: Mapping[str, float]
    answer: str = ""
    errors: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    expected: str = ""


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of a reply.

    Attributes:
        max_new_tokens: Maximum length of a reply in tokens, at least 1.
        temperature: 0 is greedy decoding; up to 2.
        top_p: Sample from the smallest set of most probable tokens whose probabilities sum to at least this value, in (0, 1].
        top_k: Sample from this many most probable tokens; 0 means all.
        repetition_penalty: Reduces the logits of tokens that occur in the prompt or the reply (Keskar et al. 2019); 1 is off.
        seed: Seed of the sampling; ignored when greedy.
        stop: Strings that end the reply; not part of it.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a value out of range."""
        checks = (
            (self.max_new_tokens >= 1, f"max_new_tokens is {self.max_new_tokens}, must be at least 1"),
            (0.0 <= self.temperature <= 2.0, f"temperature is {self.temperature}, must be from 0 to 2"),
            (0.0 < self.top_p <= 1.0, f"top_p is {self.top_p}, must be above 0 and at most 1"),
            (self.top_k >= 0, f"top_k is {self.top_k}, must be 0 (all tokens) or more"),
            (self.repetition_penalty > 0, f"repetition_penalty is {self.repetition_penalty}, must be above 0"),
        )
        for is_valid, message in checks:
            if not is_valid:
                raise ValueError(message)
