"""A chat template as text: what a prompt is, and what an assistant writes after it up to the token on which it stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sftchat.errors import ModelError
from sftchat.models.completeness import reply_left_out, tools_left_out
from sftchat.models.marking import Forgeries, forgeries, marked, marked_tools, unmarked, with_text_arguments
from sftchat.models.template_limits import TooMuchError, bounded
from sftchat.types import Message

Tools = Sequence[Mapping[str, Any]]
Turn = dict[str, Any]
MARK = "\u2063reply\u2063"
"""Text that no template changes and none contains."""


class TemplateError(ModelError):
    """A chat template that cannot be trained on or cannot render a conversation."""


class RewrittenHistoryError(TemplateError):
    """A chat template that writes a reply differently once it is history, so that one row cannot teach every reply of a conversation."""


@dataclass(frozen=True)
class TextTemplate:
    """A Jinja template with the tokens that it may use.

    Attributes:
        tokenizer: A transformers tokenizer.
        name: What messages call the template.
        source: Its Jinja source.
        arguments: Template arguments.
        forced: What the proof would refuse is rendered as well as can be.
    """

    tokenizer: Any
    name: str
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    forced: bool = False

    @cached_property
    def ending(self) -> tuple[str, str]:
        """What follows the text of an assistant turn: ``(up to and with the stop token, the rest)``.

        Raises:
            TemplateError: When an assistant turn does not end with a token of its own, so that a model could not learn to stop.
        """
        text = self.text([{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}])
        _, found, after = text.rpartition(MARK)
        if not found:
            raise TemplateError(f"chat template '{self.name}' does not write what the assistant says")
        token = self._first_token(after)
        if not token:
            raise TemplateError(
                f"chat template '{self.name}' ends an assistant turn with no token of its own: a model could not learn to stop"
            )
        end = after.find(token) + len(token)
        while following := self._first_token(after[end:], at_once=True):  # Cohere closes the reply, then the turn
            end += len(following)
        return after[:end], after[end:]

    @cached_property
    def stop(self) -> str:
        """The token that ends an assistant turn."""
        return next(token for token in self._longest_first if self.ending[0].endswith(token))

    @cached_property
    def call_stop(self) -> str:
        """The token that ends a turn that calls a tool; gpt-oss has another one for it. The same as ``stop`` where the template knows no tools."""
        call = {"type": "function", "function": {"name": "look", "arguments": {"at": MARK}}}
        asked: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            turns, _ = self.turns(asked, ())
            written = self.reply(turns, 1, ())[1]
        except TemplateError:
            return self.stop
        return next(token for token in self._longest_first if written.endswith(token))

    @cached_property
    def in_parts(self) -> bool:
        """Whether the template leaves out content that is a text, and writes it from a list of parts: those of vision models do."""
        turns = [{"role": "user", "content": MARK}]
        try:
            return MARK not in self._run(turns, ()) and MARK in self._run(_as_parts(turns), ())
        except TemplateError:
            return False

    @cached_property
    def _forgeries(self) -> Forgeries:
        """What is marked in messages."""
        return forgeries(self.tokenizer)

    @cached_property
    def _longest_first(self) -> list[str]:
        """Every added token of the tokenizer."""
        return sorted(self.tokenizer.added_tokens_encoder, key=len, reverse=True)

    def turns(self, messages: Sequence[Message], tools: Tools, prompt: bool = False) -> tuple[list[Turn], str]:
        """Marked turns and their text.

        Args:
            messages: The conversation.
            tools: Functions that the model may call, as JSON schemas.
            prompt: The text ends where the next reply begins.

        Raises:
            TemplateError: When the template refuses the turns, or leaves out tools or calls of tools.
        """
        turns = marked(self._forgeries, messages)
        whole = self.text(turns, tools, prompt)
        if missing := tools_left_out(turns, tools, unmarked(whole)):
            raise TemplateError(f"chat template '{self.name}' leaves out {missing}; choose one that knows tools with --template")
        return turns, whole

    def reply(self, turns: Sequence[Turn], index: int, tools: Tools, whole: str = "", finished: str = "") -> tuple[str, str]:
        """The prompt of an assistant turn, and what the assistant writes after it up to its stop token.

        Args:
            turns: Marked turns.
            index: Of the assistant turn.
            tools: As of ``turns``.
            whole: A longer text in which the turn may be found, for prompts, where nothing is learned.
            finished: The text up to the turn's end, where it is known.

        Raises:
            TemplateError: When the turn does not continue its prompt, or lacks what the assistant says, or a stop token.
        """
        before, turn = self.text(turns[:index], tools, True) if index else "", turns[index]
        stop, _ = self.ending
        # Llama 3's template and others trim what a turn says
        plain = [said + stop for said in dict.fromkeys((turn["content"], turn["content"].strip()))] if not turn.get("tool_calls") else []
        if written := next((text for text in plain if whole.startswith(before + text)), ""):
            return before, written
        finished = finished or self.text(turns[: index + 1], tools)
        if not finished.startswith(before):
            if not self.forced:
                raise TemplateError(self._not_continued(turns, index, tools, before, finished))
            before = finished[: finished.rfind(turn["content"])]
        rest = finished[len(before) :]
        written = next((text for text in plain if rest.startswith(text)), "") or self._up_to_stop(rest)
        if not written:
            raise TemplateError(f"chat template '{self.name}' ends turn {index} with no token of its own: a model could not learn to stop")
        if (
            not self.forced
            and reply_left_out(turn, unmarked(written))
            and (missing := reply_left_out(turn, self._opening(turns, index, tools, before) + unmarked(written)))
        ):
            raise TemplateError(f"chat template '{self.name}' leaves out {missing} of turn {index}, which would not be learned")
        return before, written

    def _opening(self, turns: Sequence[Turn], index: int, tools: Tools, before: str) -> str:
        """What a prompt has written of a reply: the header of the turn, and the beginning of a thought where the template opens one."""
        history = self.text(turns[:index], tools)
        return unmarked(before[len(history) :] if before.startswith(history) else before)

    def _not_continued(self, turns: Sequence[Turn], index: int, tools: Tools, before: str, finished: str) -> str:
        """Why a finished turn is no continuation of its prompt, with the argument that is known to change it."""
        opening = self._opening(turns, index, tools, before)
        begun = unmarked(finished[len(before) - len(opening) :])[: len(opening) + 12]
        value = "true" if "</think>" in opening else "false"
        known = "enable_thinking" in self.source and "enable_thinking" not in self.arguments
        hint = f"; try --template-argument enable_thinking={value}" if known else ""
        return (
            f"chat template '{self.name}' opens turn {index} with {opening!r} in its prompt and with {begun!r} once it is finished: "
            f"what is trained would not begin with what inference sees{hint}"
        )

    def text(self, turns: Sequence[Turn], tools: Tools = (), add_generation_prompt: bool = False) -> str:
        """Run the template on marked turns, their content in the form that it understands.

        Raises:
            TemplateError: When it refuses the turns.
        """
        given = marked_tools(self._forgeries, tools)
        return self._run(_as_parts(turns) if self.in_parts else turns, given, add_generation_prompt)

    def _run(self, turns: Sequence[Turn], tools: Tools, add_generation_prompt: bool = False) -> str:
        """Run the template; once more with the arguments of tool calls as text, which some templates concatenate."""
        try:
            text: str = bounded(
                self.source,
                lambda: self.tokenizer.apply_chat_template(
                    list(turns),
                    tools=list(tools) or None,
                    chat_template=self.source,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **self.arguments,
                ),
            )
        except TooMuchError as error:
            raise TemplateError(f"chat template '{self.name}' asks for too much: {error}; give another with --template") from error
        except Exception as error:  # a template is a program from outside: it may divide by zero, call itself for ever, fill the memory
            if (as_text := with_text_arguments(turns)) != turns:
                return self._run(as_text, tools, add_generation_prompt)
            roles = ", ".join(str(turn["role"]) for turn in turns)
            raise TemplateError(f"chat template '{self.name}' refuses the turns ({roles}): {error}") from error
        return text

    def _first_token(self, text: str, at_once: bool = False) -> str:
        """The added token that comes first in a text, or at its very beginning; empty when there is none."""
        places = [(text.find(token), token) for token in self._longest_first if token in text]
        at, token = min(places, key=lambda place: (place[0], -len(place[1])), default=(0, ""))
        return "" if at_once and at else token

    def _up_to_stop(self, text: str) -> str:
        """The text up to the last stop token, or to another token that ends it: a call of gpt-oss ends otherwise than a reply."""
        if self.stop in text:
            return text[: text.rfind(self.stop) + len(self.stop)]
        text = text.rstrip()
        return text if any(text.endswith(token) for token in self._longest_first) else ""


def _as_parts(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with their content as a list of one text."""
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
