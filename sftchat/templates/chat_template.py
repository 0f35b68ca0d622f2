"""Text rendering of a chat template: prompts, and what the assistant generates after them up to the stop token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product, takewhile
from typing import Any

from sftchat.errors import TemplateError, first_line
from sftchat.templates.limits import TooMuchError, bounded
from sftchat.templates.partial_reply import MARK, NEXT, THOUGHT, PrefixedReply, describe_difference
from sftchat.templates.special_tokens import (
    SpecialTokenPatterns,
    marked,
    marked_tools,
    special_token_patterns,
    unmarked,
    with_text_arguments,
)
from sftchat.templates.turn_parts import (
    THOUGHTS,
    ends_with_thought,
    reply_left_out,
    thought_in_content,
    tools_left_out,
    with_thought,
    without_thought,
)
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END
from sftchat.types import Message

Tools = Sequence[Mapping[str, Any]]
Turn = dict[str, Any]

CALL: Mapping[str, Any] = {"type": "function", "id": "call00001", "function": {"name": "look", "arguments": {"at": MARK}}}
ASKED: Message = {"role": "user", "content": "?"}
CALLED: list[Any] = [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
"""A conversation that ends with a tool call; the id has nine alphanumeric characters, as Mistral's templates require."""


@dataclass(frozen=True)
class TextTemplate:
    """A Jinja template with its tokenizer.

    Attributes:
        tokenizer: A transformers tokenizer.
        name: Name of the template in messages.
        source: Its Jinja source.
        arguments: Template arguments.
        lenient: Whether to render, as well as possible, what fails the parity checks.
    """

    tokenizer: Any
    name: str
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lenient: bool = False

    @cached_property
    def ending(self) -> tuple[str, str]:
        """The text after the content of an assistant turn: ``(up to and including the stop token, the rest)``.

        The stop token is the first token that ends the turn. A template may end the reply before the turn, so it is the end-of-text token if that
        follows at once; text that appears only at the end of a conversation, or that opens the next turn, is not part of the reply.

        Raises:
            TemplateError: When neither template nor tokenizer has a stop token, so that a model could not learn to stop.
        """
        after = self._after_reply
        if not self._first_token(after):
            return self._implied_stop, ""
        closing, following = self._tokens_at_first(after), self._tokens_at_first(self._before_next_turn)
        shared = closing[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(closing, following, strict=False)))] or closing
        eos = getattr(self.tokenizer, "eos_token", None)
        count = shared.index(eos) + 1 if eos in shared else 1
        end = after.find(closing[0]) + sum(map(len, closing[:count]))
        return after[:end], after[end:]

    @cached_property
    def stop_is_implied(self) -> bool:
        """Whether the template writes no token after an assistant turn, as those of GLM-4: the first token of the next turn ends it."""
        return not self._first_token(self._after_reply)

    @cached_property
    def _implied_stop(self) -> str:
        """Text that ends a reply if the template writes none: up to the first token of the next turn, else the end-of-text token."""
        between = self._before_next_turn
        if token := self._first_token(between):
            return between[: between.find(token) + len(token)]
        if eos := getattr(self.tokenizer, "eos_token", None):
            return str(eos)
        raise TemplateError(
            f"chat template '{self.name}' ends an assistant turn with no token of its own, and the tokenizer has no end of text: "
            "a model could not learn to stop"
        )

    @cached_property
    def _implied_call_stop(self) -> str:
        """The same after a turn with a tool call: up to the first token of the tool turn."""
        try:
            called = self._shaped(CALLED, ())
            answered = self._shaped([*CALLED, {"role": "tool", "name": "look", "tool_call_id": CALL["id"], "content": NEXT}], ())
        except TemplateError:
            return self._implied_stop
        between = answered.removeprefix(called).partition(NEXT)[0] if answered.startswith(called) else ""
        token = self._first_token(between)
        return between[: between.find(token) + len(token)] if token else self._implied_stop

    @cached_property
    def _after_reply(self) -> str:
        """Text after the content of a final assistant turn; raises ``TemplateError``."""
        _, mark, after = self._shaped([ASKED, {"role": "assistant", "content": MARK}], ()).rpartition(MARK)
        if not mark:
            raise TemplateError(f"chat template '{self.name}' does not write what the assistant says")
        return after

    @cached_property
    def _before_next_turn(self) -> str:
        """Text between a reply and the next user turn; empty if the template fails."""
        try:
            text = self._shaped([ASKED, {"role": "assistant", "content": MARK}, {"role": "user", "content": NEXT}], ())
        except TemplateError:
            return ""
        return text.rpartition(MARK)[2].partition(NEXT)[0] if NEXT in text else ""

    @cached_property
    def stop(self) -> str:
        """The token that ends an assistant turn."""
        return next(token for token in self._longest_first if self.ending[0].endswith(token))

    @cached_property
    def call_stop(self) -> str:
        """The token that ends a turn with a tool call, which differs in gpt-oss; the same as ``stop`` if the template does not support tools."""
        try:
            turns, _ = self.turns(CALLED, ())
            written = self.reply(turns, 1, ())[1]
        except TemplateError:
            return self.stop
        return next(token for token in self._longest_first if written.endswith(token))

    @cached_property
    def thought_end(self) -> str:
        """The text that the template writes after a thought; ``</think>`` if it renders none."""
        turns: list[Any] = [{"role": "assistant", "content": MARK, key: THOUGHT} for key in THOUGHTS]
        turns += [{**CALLED[1], key: THOUGHT} for key in THOUGHTS]  # Gemma 4 renders thoughts only in turns with tool calls
        turns.append({"role": "assistant", "content": f"{THOUGHTS_BEGIN}\n{THOUGHT}\n{THOUGHTS_END}\n\n{MARK}"})
        for turn in turns:
            try:
                after = self._shaped([ASKED, turn], ()).partition(THOUGHT)[2].partition(MARK)[0]
            except TemplateError:
                continue
            if token := self._first_token(after):
                after = after[: after.find(token) + len(token)]
            if after.strip():
                return after.strip()
        return "</think>"

    @cached_property
    def thought_keys(self) -> Mapping[str, str]:
        """Keys under which the template reads the thought of a plain reply, each with the text it writes after the thought."""
        endings = {}
        for key in THOUGHTS:
            try:
                after = self._shaped([ASKED, {"role": "assistant", "content": MARK, key: THOUGHT}], ()).partition(THOUGHT)[2]
            except TemplateError:
                continue
            if MARK in after:
                endings[key] = after.partition(MARK)[0]
        return endings

    def _with_thought_key(self, turn: Turn) -> Turn:
        """Return the turn with its thought under a key that the template reads.

        A thought within the content stays there if the template writes it between the same tags.
        """
        if turn["role"] != "assistant" or not self.thought_keys or any(turn.get(key) for key in self.thought_keys):
            return turn
        key = next(iter(self.thought_keys))
        if thought := next((turn[other] for other in THOUGHTS if turn.get(other)), ""):
            return {**{name: value for name, value in turn.items() if name not in THOUGHTS}, key: thought}
        if thought_in_content(turn["content"]) and THOUGHTS_END not in self.thought_keys[key]:
            thought, bare = without_thought(turn)
            return {**bare, key: thought}
        return turn

    @cached_property
    def in_parts(self) -> bool:
        """Whether the template ignores content that is a string and requires a list of parts, as vision models do."""
        turns = [{"role": "user", "content": MARK}]
        try:
            return MARK not in self._run(turns, ()) and MARK in self._run(_as_parts(turns), ())
        except TemplateError:
            return False

    @cached_property
    def _patterns(self) -> SpecialTokenPatterns:
        return special_token_patterns(self.tokenizer)

    @cached_property
    def _longest_first(self) -> list[str]:
        return sorted(self.tokenizer.added_tokens_encoder, key=len, reverse=True)

    def turns(self, messages: Sequence[Message], tools: Tools, prompt: bool = False) -> tuple[list[Turn], str]:
        """Return the marked turns and their rendered text.

        Args:
            messages: The conversation.
            tools: Functions that the model may call, as JSON schemas.
            prompt: Whether to add the generation prompt.

        Raises:
            TemplateError: When the template fails, or omits tools or tool calls.
        """
        turns = [self._with_thought_key(turn) for turn in marked(self._patterns, messages)]
        whole = self.text(turns, tools, prompt)
        first = next((index for index, turn in enumerate(turns) if turn["role"] == "assistant"), 0)
        # a tool's name in a call does not show that the tool was offered
        offered = self.text(turns[:first], tools, True) if tools and first else whole
        if missing := tools_left_out((), tools, unmarked(offered)) or tools_left_out(turns, (), unmarked(whole)):
            raise TemplateError(f"chat template '{self.name}' leaves out {missing}")
        return turns, whole

    def reply(self, turns: Sequence[Turn], index: int, tools: Tools, whole: str = "", finished: str = "") -> tuple[str, str]:
        """Return the prompt of an assistant turn, and what the assistant generates after it up to the stop token.

        Args:
            turns: The marked turns.
            index: Index of the assistant turn.
            tools: See ``turns``.
            whole: A longer text that may contain the turn; for prompts, which are not trained on.
            finished: The text up to the end of the turn, if known.

        Raises:
            TemplateError: When the turn does not continue its prompt, or lacks content or a stop token.
        """
        before, turn = self.text(turns[:index], tools, True) if index else "", turns[index]
        stop, _ = self.ending
        # Llama 3's template and others strip the content of a turn
        contents = () if turn.get("tool_calls") else dict.fromkeys((turn["content"], turn["content"].strip()))
        plain = [content + stop for content in contents]
        if written := next((text for text in plain if whole.startswith(before + text)), ""):
            return before, written
        finished = finished or self.text(turns[: index + 1], tools)
        rest = finished[len(before) :] if finished.startswith(before) else self._own_text(turns, index, tools, before, finished)
        written = next((text for text in plain if rest.startswith(text)), "") or self._up_to_stop(rest, turn)
        if not written:
            raise TemplateError(f"chat template '{self.name}' ends turn {index} with no token of its own: a model could not learn to stop")
        if self.lenient:
            return before, written
        if own := self._with_thought(turns, index, tools, before, written):
            return before, own
        opening = self._opening(turns, index, tools, before) if reply_left_out(turn, unmarked(written)) else ""
        if missing := reply_left_out(turn, opening + unmarked(written)):
            raise TemplateError(f"chat template '{self.name}' leaves out {missing} of turn {index}, which would not be learned")
        return before, written

    def _with_thought(self, turns: Sequence[Turn], index: int, tools: Tools, before: str, written: str) -> str:
        """Restore a thought that the template empties or strips; empty if it does neither.

        At inference the model generates its thought nevertheless: templates omit it only because it is dropped from history.
        """
        thought, bare = without_thought(turns[index])
        empty = bool(thought and with_thought(written, thought, self.thought_end))
        in_content = "" if empty else thought_in_content(turns[index]["content"])
        stripped = in_content and reply_left_out(turns[index], unmarked(written)) == "the thoughts"
        if not empty and (not stripped or ends_with_thought(self._opening(turns, index, tools, before), self.thought_end)):
            return ""
        if not empty:
            bare = {**turns[index], "content": turns[index]["content"].removeprefix(in_content)}
        plain = self.reply([*turns[:index], bare], index, tools)[1]
        return with_thought(plain, thought, self.thought_end) if empty else in_content + plain

    def _own_text(self, turns: Sequence[Turn], index: int, tools: Tools, before: str, finished: str) -> str:
        """Return the reply's text after its prompt when the finished text does not start with that prompt; raises ``TemplateError``."""
        reply = PrefixedReply(
            write=self.text, past=turns[:index], turn=turns[index], tools=tools, prompt=before, thought_end=self.thought_end,
            tokens=self._longest_first,
        )  # fmt: skip
        if own := reply.own_text(finished):
            return own
        if self.lenient and turns[index]["content"]:
            return finished[finished.rfind(turns[index]["content"]) :]
        raise TemplateError(f"chat template '{self.name}' {describe_difference(index, reply.opening, before, finished)}")

    def _opening(self, turns: Sequence[Turn], index: int, tools: Tools, before: str) -> str:
        """Return the generation prompt: the header of the turn, and the start of a thought if the template opens one."""
        history = self.text(turns[:index], tools)
        return unmarked(before[len(history) :] if before.startswith(history) else before)

    def text(self, turns: Sequence[Turn], tools: Tools = (), add_generation_prompt: bool = False) -> str:
        """Render marked turns, with content in the format that the template requires.

        Raises:
            TemplateError: When the template fails.
        """
        text = self._shaped(turns, tools, add_generation_prompt)
        if add_generation_prompt or not turns or turns[-1]["role"] != "assistant" or not self.stop_is_implied:
            return text
        return text + (self._implied_call_stop if turns[-1].get("tool_calls") else self._implied_stop)

    def library_ids(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """Return the prompt ids from transformers' ``apply_chat_template``, as a server that calls it computes them.

        Raises:
            TemplateError: When the template fails.
        """
        turns = _as_parts(messages) if self.in_parts else messages
        return list(self._run(turns, tools, True, tokenize=True, return_dict=False, sanitize_control_tokens=True))

    def _shaped(self, turns: Sequence[Mapping[str, Any]], tools: Tools, add_generation_prompt: bool = False) -> str:
        turns = _as_parts(turns) if self.in_parts else turns
        text: str = self._run(turns, marked_tools(self._patterns, tools), add_generation_prompt, tokenize=False)
        return text

    def _run(self, turns: Sequence[Mapping[str, Any]], tools: Tools, add_generation_prompt: bool = False, **options: Any) -> Any:
        """Run the template; the only place where this is done.

        On failure other formats are tried too: arguments of tool calls as text, which some templates concatenate, and no tools as an empty list,
        which some templates iterate over.

        Args:
            turns: Messages for the template.
            tools: Tools for the template.
            add_generation_prompt: Whether the text ends with the generation prompt.
            options: Further arguments of ``apply_chat_template``; without any, the result is text.

        Raises:
            TemplateError: When the template fails or exceeds its limits of time or memory.
        """
        turns = [dict(turn) for turn in turns]
        as_text = with_text_arguments(turns)
        forms = [turns, as_text] if as_text != turns else [turns]
        offers: list[list[Mapping[str, Any]] | None] = [list(tools)] if tools else [None, []] if "tools" in self.source else [None]

        def run(form: list[Turn], offer: list[Mapping[str, Any]] | None) -> Any:
            return self.tokenizer.apply_chat_template(
                form,
                tools=offer,
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                **{"tokenize": False, **options},
                **self.arguments,
            )

        failed = Exception()
        for form, offer in product(forms, offers):
            try:
                return bounded(self.source, partial(run, form, offer))
            except TooMuchError as error:
                raise TemplateError(f"chat template '{self.name}' asks for too much: {error}; give another with --template") from error
            except Exception as error:  # a template is untrusted code: it may divide by zero, recurse without end, fill the memory
                failed = error
        roles = ", ".join(str(turn["role"]) for turn in turns)
        raise TemplateError(f"chat template '{self.name}' refuses the turns ({roles}): {first_line(failed)}") from failed

    def _tokens_at_first(self, text: str) -> list[str]:
        """Return the first added token of a text and those that directly follow it."""
        tokens: list[str] = []
        while token := self._first_token(text, at_start=bool(tokens)):
            tokens.append(token)
            text = text[text.find(token) + len(token) :]
        return tokens

    def _first_token(self, text: str, at_start: bool = False) -> str:
        """Return the first added token in a text, or the one at its very beginning; empty if there is none."""
        found = [(text.find(token), token) for token in self._longest_first if token in text]
        position, token = min(found, key=lambda match: (match[0], -len(match[1])), default=(0, ""))
        return "" if at_start and position else token

    def _up_to_stop(self, text: str, turn: Turn) -> str:
        """Return the text of a turn up to the last stop token, or another token that ends it: in gpt-oss a tool call ends differently."""
        cut = text[: text.rfind(self.stop) + len(self.stop)] if self.stop in text else ""
        # Solar ends a thought with the stop token of a reply
        lost_call = turn.get("tool_calls") and reply_left_out(turn, unmarked(cut)).startswith("the call")
        if cut and not lost_call:
            return cut
        text = text.rstrip()
        return text if any(text.endswith(token) for token in self._longest_first) else ""


def _as_parts(turns: Sequence[Mapping[str, Any]]) -> list[Turn]:
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
