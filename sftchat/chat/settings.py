"""How replies are shown; changed by commands and keys, read by the view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sftchat.types import SamplingParams


@dataclass
class Display:
    """What a person may choose about the showing of replies.

    Attributes:
        markdown: Render Markdown; otherwise replies are shown as they were written.
        thoughts: Show what a model thinks before it answers; otherwise one line says that it did.
    """

    markdown: bool = True
    thoughts: bool = False


Overflow = Literal["stop", "refuse", "drop-oldest"]
"""What happens when the talk grows longer than the model's context: the reply ends where the context does; a message whose reply might not
fit is refused; or the oldest turns are left out of what the model is shown. It is said each time."""
OVERFLOWS: tuple[Overflow, ...] = get_args(Overflow)


@dataclass(frozen=True)
class Settings:
    """The settings of a talk.

    Attributes:
        sampling: How tokens are chosen.
        overflow: What happens when the context is full.
        template_arguments: Arguments of the chat template, over the model's own.
        logprobs: Ask servers for the log-probabilities of the tokens of a reply; those of models that are loaded here are computed when asked.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    overflow: Overflow = "stop"
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    logprobs: bool = False
