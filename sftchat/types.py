"""The values that travel between the rooms: messages, examples, replies and scores.

Standard library only, so that a plugin, a scorer or a CI job can import them without loading a model library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""Why a reply ended: a stop token, the token limit, the user, or a failure of the engine."""


class Message(TypedDict):
    """One turn of a conversation, as the OpenAI and Hugging Face libraries write it.

    ``context`` is the end of a user's content that an Alpaca row had under ``input`` or ``context``: some templates give it a heading of its own.
    ``weight`` is 0 for an assistant turn that is read but not learned, as in OpenAI's files for fine-tuning.
    """

    role: str
    content: str
    context: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    name: NotRequired[str]
    weight: NotRequired[int]


def is_learned(message: Mapping[str, Any]) -> bool:
    """Whether training has a loss on a turn: on those of the assistant, unless their ``weight`` is 0."""
    return bool(message["role"] == "assistant" and message.get("weight", 1))


@dataclass(frozen=True)
class Example:
    """One item of a task: a prompt and, where it is known, the gold reply.

    Attributes:
        messages: The conversation so far; ends with a user turn when there is a gold reply to be generated.
        gold: The reply a perfect model gives; None for a prompt without one.
        id: Unique within its file; empty until a reader or an evalset gives it one.
        metadata: Whatever else the row carried; kept, shown, never interpreted by the core.
        source: Where it came from, as ``file:line``; empty for generated rows.
    """

    messages: tuple[Message, ...]
    gold: str | None = None
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages with the gold reply as the last assistant turn: what training sees."""
        if self.gold is None:
            return self.messages
        return (*self.messages, Message(role="assistant", content=self.gold))


@dataclass(frozen=True)
class Reply:
    """What a model answered to one example.

    Attributes:
        text: The reply as generated, special tokens removed, nothing else changed.
        finish_reason: Why it ended.
        prompt_tokens: Length of the rendered prompt, in tokens.
        completion_tokens: Length of the reply, in tokens, the stop token not counted.
        thoughts: What a server kept apart as reasoning; thoughts of a local model stand in its text, as ``<think>…</think>``.
        refused: The text is a refusal by the server's own word.
    """

    text: str
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thoughts: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Token:
    """One token, to be looked at.

    Attributes:
        id: Its number in the vocabulary; ``UNNUMBERED`` from a server, which gives texts alone.
        text: What it decodes to alone; a part of a character is U+FFFD. Nobody has made it safe to print.
        special: It was put there by the template or ends the reply; no text can write it.
        trained: Training would make the model write it.
        data: Its bytes, each from 0 to 255, where a server gives them and they are a part of a character; empty otherwise.
    """

    id: int
    text: str
    special: bool = False
    trained: bool = False
    data: tuple[int, ...] = ()


UNNUMBERED = -1
"""The ``Token.id`` of a token whose number is not known."""


@dataclass(frozen=True)
class Choice:
    """What a model thought of one token of a reply, before temperature and all other sampling parameters.

    Attributes:
        token: The token that stands there.
        logprob: Natural logarithm of the probability it had.
        rank: How many tokens were likelier, from 0; of a server's token that is not among the alternatives, how many of those there are.
        alternatives: The likeliest tokens there with their log-probabilities, best first.
    """

    token: Token
    logprob: float
    rank: int = 0
    alternatives: tuple[tuple[Token, float], ...] = ()


@dataclass(frozen=True)
class Score:
    """A scorer's judgement of one reply.

    Attributes:
        stats: Counts that add up over examples, such as ``{"tp": 2, "pred": 3, "gold": 3}``; a metric is a function of their sums.
            A scorer returns the same keys for every reply. A count is a finite number: ``int``, ``float``, ``bool`` (kept as 0 or 1),
            ``Decimal``, ``Fraction`` or a scalar of numpy. Text, None, NaN and infinity are errors that name the item.
        answer: What the scorer understood the reply to say, in normal form.
        errors: One short class name for every fault, such as ``"missing"`` or ``"unparsable"``; empty when all is right.
        groups: The same kind of counts by slice, such as one relation: ``{"师徒": {"tp": 1, "pred": 1, "gold": 1}}``.
    """

    stats: Mapping[str, float]
    answer: str = ""
    errors: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: The most tokens a reply may have, at least 1.
        temperature: 0 is greedy: always the likeliest token; up to 2.
        top_p: Keep the smallest set of tokens whose probability reaches this, in (0, 1].
        top_k: Keep this many likeliest tokens; 0 keeps all.
        repetition_penalty: Divides the logits of tokens already present (Keskar et al. 2019); 1 is off.
        seed: Seed of the samples; ignored when greedy.
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
        """Refuse values that no engine could honour."""
        checks = (
            (self.max_new_tokens >= 1, f"max_new_tokens is {self.max_new_tokens}, must be at least 1"),
            (0.0 <= self.temperature <= 2.0, f"temperature is {self.temperature}, must be from 0 to 2"),
            (0.0 < self.top_p <= 1.0, f"top_p is {self.top_p}, must be above 0 and at most 1"),
            (self.top_k >= 0, f"top_k is {self.top_k}, must be 0 (all tokens) or more"),
            (self.repetition_penalty > 0, f"repetition_penalty is {self.repetition_penalty}, must be above 0"),
        )
        for holds, complaint in checks:
            if not holds:
                raise ValueError(complaint)
