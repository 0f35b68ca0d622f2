"""Settings of a chat: how replies are shown and generated; changed by commands and keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sftchat.types import SamplingParams


@dataclass
class Display:
    """Display options for replies.

    Attributes:
        markdown: Render Markdown; otherwise show replies as written.
        thoughts: Show thoughts; otherwise one line says that the model had some.
    """

    markdown: bool = True
    thoughts: bool = False


Overflow = Literal["stop", "refuse", "drop-oldest"]
"""Action when the conversation exceeds the model's context: let the reply end where the context ends; refuse a message whose reply might
not fit; or leave the oldest turns out of the prompt. Each case is reported.
"""
OVERFLOWS: tuple[Overflow, ...] = get_args(Overflow)


@dataclass(frozen=True)
class Settings:
    """Generation settings of a chat.

    Attributes:
        sampling: Sampling parameters.
        overflow: What to do when the context is full.
        template_arguments: Chat template arguments that override the model's own.
        logprobs: Request log-probabilities from servers; for local models they are computed on demand.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    overflow: Overflow = "stop"
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    logprobs: bool = False
