"""Text rendering of a chat template: prompts, and what the assistant generates after them up to the stop token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product, takewhile
from typing import Any

from sftchat.errors import TemplateError, first_line
from sftchat.templates.limits import TooMuchError, run_bounded
from sftchat.templates.partial_reply import NEXT_PLACEHOLDER, REPLY_PLACEHOLDER, THOUGHT_PLACEHOLDER, PrefixedReply, describe_difference
from sftchat.templates.special_tokens import (
    SpecialTokenPatterns,
    arguments_as_text,
    mark_tools,
    mark_turns,
    special_token_patterns,
    unmark,
)
from sftchat.templates.turn_parts import (
    THOUGHT_KEYS,
    ends_with_thought,
    extract_thought,
    fill_empty_thought,
    find_missing_part,
    find_missing_tool,
    leading_thought,
)
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END
from sftchat.types import Message

Tools = Sequence[Mapping[str, Any]]
Turn = dict[str, Any]

TOOL_CALL: Mapping[str, Any] = {"type": "function", "id": "call00001", "function": {"name": "look", "arguments": {"at": REPLY_PLACEHOLDER}}}
QUESTION: Message = {"role": "user", "content": "?"}
REPLY: Turn = {"role": "assistant", "content": REPLY_PLACEHOLDER}
CALL_CONVERSATION: list[Any] = [QUESTION, {"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]}]
"""A conversation that ends with a tool call; the id has nine alphanumeric characters, as Mistral's templates require."""


@dataclass(frozen=True)
class TextTemplate:
    """A Jinja template with its tokenizer.

    Attributes:
        tokenizer: A transformers tokenizer.
        name: Name of the template in messages.
        source: Its Jinja source.
        arguments: Template arguments.
        lenient: Whether to return replies even if the template fails the parity checks.
    """

    tokenizer: Any
    name: str
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lenient: bool = False

    @cached_property
    def ending(self) -> tuple[str, str]:
        """The text after the content of an assistant turn: ``(up to and including the stop token, the rest)``.

        The stop token is the first token after the content, or the end-of-text token if it directly follows. Tokens that appear only at the end of
        a conversation, or only before a next turn, do not count.

        Raises:
            TemplateError: When neither template nor tokenizer has a stop token, so that a model could not learn to stop.
        """
        after = self._after_reply
        if not self._first_token(after):
            return self._implied_stop, ""
        tokens_at_end, tokens_before_next_turn = self._first_tokens(after), self._first_tokens(self._before_next_turn)
        pairs = zip(tokens_at_end, tokens_before_next_turn, strict=False)
        closing = [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)] or tokens_at_end
        eos = getattr(self.tokenizer, "eos_token", None)
        stop_tokens = closing[: closing.index(eos) + 1] if eos in closing else closing[:1]
        end = after.find(closing[0]) + len("".join(stop_tokens))
        return after[:end], after[end:]

    @cached_property
    def stop_is_implied(self) -> bool:
        """Whether the template writes no token after an assistant turn, as those of GLM-4; the first token of the next turn then ends it."""
        return not self._first_token(self._after_reply)

    @cached_property
    def _implied_stop(self) -> str:
        """Text that ends a reply if the template writes none: up to the first token of the next turn, else the end-of-text token."""
        if stop := self._up_to_first_token(self._before_next_turn):
            return stop
        if eos := getattr(self.tokenizer, "eos_token", None):
            return str(eos)
        raise TemplateError(
            f"chat template '{self.name}' ends an assistant turn with no token of its own, and the tokenizer has no end of text: "
            "a model could not learn to stop"
        )

    @cached_property
    def _implied_call_stop(self) -> str:
        """Text that ends a turn with a tool call if the template writes none: up to the first token of the tool turn."""
        result = {"role": "tool", "name": "look", "tool_call_id": TOOL_CALL["id"], "content": NEXT_PLACEHOLDER}
        try:
            up_to_call = self._render_marked(CALL_CONVERSATION, ())
            with_result = self._render_marked([*CALL_CONVERSATION, result], ())
        except TemplateError:
            return self._implied_stop
        between = with_result.removeprefix(up_to_call).partition(NEXT_PLACEHOLDER)[0] if with_result.startswith(up_to_call) else ""
        return self._up_to_first_token(between) or self._implied_stop

    @cached_property
    def _after_reply(self) -> str:
        """Text after the content of a final assistant turn; raises ``TemplateError``."""
        text = self._render_marked([QUESTION, REPLY], ())
        if REPLY_PLACEHOLDER not in text:
            raise TemplateError(f"chat template '{self.name}' does not write what the assistant says")
        return text.rpartition(REPLY_PLACEHOLDER)[2]

    @cached_property
    def _before_next_turn(self) -> str:
        """Text between a reply and the next user turn; empty if the template fails."""
        try:
            text = self._render_marked([QUESTION, REPLY, {"role": "user", "content": NEXT_PLACEHOLDER}], ())
        except TemplateError:
            return ""
        return text.rpartition(REPLY_PLACEHOLDER)[2].partition(NEXT_PLACEHOLDER)[0] if NEXT_PLACEHOLDER in text else ""

    @cached_property
    def stop(self) -> str:
        """The token that ends an assistant turn."""
        return next(token for token in self._tokens_longest_first if self.ending[0].endswith(token))

    @cached_property
    def call_stop(self) -> str:
        """The token that ends a turn with a tool call, which differs in gpt-oss; the same as ``stop`` if the template does not support tools."""
        try:
            turns, _ = self.render_messages(CALL_CONVERSATION, ())
            _, written = self.split_reply(turns, 1, ())
        except TemplateError:
            return self.stop
        return next(token for token in self._tokens_longest_first if written.endswith(token))

    @cached_property
    def thought_end(self) -> str:
        """The text that the template writes after a thought; ``</think>`` if it renders none."""
        turns: list[Any] = [{**REPLY, key: THOUGHT_PLACEHOLDER} for key in THOUGHT_KEYS]
        # Gemma 4 renders thoughts only in turns with tool calls
        turns += [{**CALL_CONVERSATION[-1], key: THOUGHT_PLACEHOLDER} for key in THOUGHT_KEYS]
        turns.append({**REPLY, "content": f"{THOUGHTS_BEGIN}\n{THOUGHT_PLACEHOLDER}\n{THOUGHTS_END}\n\n{REPLY_PLACEHOLDER}"})
        for turn in turns:
            try:
                after = self._render_marked([QUESTION, turn], ()).partition(THOUGHT_PLACEHOLDER)[2].partition(REPLY_PLACEHOLDER)[0]
            except TemplateError:
                continue
            after = self._up_to_first_token(after) or after
            if after.strip():
                return after.strip()
        return "</think>"

    @cached_property
    def thought_keys(self) -> Mapping[str, str]:
        """Keys under which the template reads the thought of a reply without tool calls, each with the text that it writes after the thought."""
        ends = {}
        for key in THOUGHT_KEYS:
            try:
                text = self._render_marked([QUESTION, {**REPLY, key: THOUGHT_PLACEHOLDER}], ())
            except TemplateError:
                continue
            after_thought = text.partition(THOUGHT_PLACEHOLDER)[2]
            if REPLY_PLACEHOLDER in after_thought:
                ends[key] = after_thought.partition(REPLY_PLACEHOLDER)[0]
        return ends

    def _with_thought_key(self, turn: Turn) -> Turn:
        """Return the turn with its thought under a key that the template reads.

        A thought in the content stays there if the template writes thoughts between the same tags.
        """
        if turn["role"] != "assistant" or not self.thought_keys or any(turn.get(key) for key in self.thought_keys):
            return turn
        key = next(iter(self.thought_keys))
        if thought := next((turn[other] for other in THOUGHT_KEYS if turn.get(other)), ""):
            return {**{name: value for name, value in turn.items() if name not in THOUGHT_KEYS}, key: thought}
        if leading_thought(turn["content"]) and THOUGHTS_END not in self.thought_keys[key]:
            thought, turn = extract_thought(turn)
            return {**turn, key: thought}
        return turn

    @cached_property
    def requires_parts(self) -> bool:
        """Whether the template ignores content that is a string and requires a list of parts, as those of vision models do."""
        turns = [{"role": "user", "content": REPLY_PLACEHOLDER}]
        try:
            return REPLY_PLACEHOLDER not in self._run(turns, ()) and REPLY_PLACEHOLDER in self._run(_content_as_parts(turns), ())
        except TemplateError:
            return False

    @cached_property
    def _patterns(self) -> SpecialTokenPatterns:
        return special_token_patterns(self.tokenizer)

    @cached_property
    def _tokens_longest_first(self) -> list[str]:
        return sorted(self.tokenizer.added_tokens_encoder, key=len, reverse=True)

    def render_messages(self, messages: Sequence[Message], tools: Tools, add_generation_prompt: bool = False) -> tuple[list[Turn], str]:
        """Return the marked turns of a conversation and their rendered text.

        Args:
            messages: The conversation.
            tools: Functions that the model may call, as JSON schemas.
            add_generation_prompt: Whether the text ends with the generation prompt.

        Raises:
            TemplateError: When the template fails, or omits tools or tool calls.
        """
        turns = [self._with_thought_key(turn) for turn in mark_turns(self._patterns, messages)]
        text = self.render(turns, tools, add_generation_prompt)
        first_reply = next((index for index, turn in enumerate(turns) if turn["role"] == "assistant"), 0)
        # tools are sought in the text before the first reply: the name of a tool in a call does not show that the tool was offered
        first_prompt = self.render(turns[:first_reply], tools, True) if tools and first_reply else text
        if missing := find_missing_tool((), tools, unmark(first_prompt)) or find_missing_tool(turns, (), unmark(text)):
            raise TemplateError(f"chat template '{self.name}' leaves out {missing}")
        return turns, text

    def split_reply(self, turns: Sequence[Turn], index: int, tools: Tools, *, longer_text: str = "", finished: str = "") -> tuple[str, str]:
        """Return the prompt of an assistant turn, and the text that the assistant generates after it, up to the stop token.

        Args:
            turns: The marked turns.
            index: Index of the assistant turn.
            tools: See ``render_messages``.
            longer_text: Rendered text of more turns, which may contain the reply as it is; for prompts, which are not trained on.
            finished: Rendered text of the turns up to this one; rendered if empty.

        Raises:
            TemplateError: When the turn does not continue its prompt, or lacks content or a stop token.
        """
        prompt, turn = self.render(turns[:index], tools, True) if index else "", turns[index]
        stop, _ = self.ending
        # Llama 3's template and others strip the content of a turn
        contents = () if turn.get("tool_calls") else dict.fromkeys((turn["content"], turn["content"].strip()))
        expected_texts = [content + stop for content in contents]
        for text in expected_texts:
            if longer_text.startswith(prompt + text):
                return prompt, text
        finished = finished or self.render(turns[: index + 1], tools)
        after_prompt = finished[len(prompt) :] if finished.startswith(prompt) else self._after_prefix(turns, index, tools, prompt, finished)
        written = next((text for text in expected_texts if after_prompt.startswith(text)), "") or self._up_to_stop(after_prompt, turn)
        if not written:
            raise TemplateError(f"chat template '{self.name}' ends turn {index} with no token of its own: a model could not learn to stop")
        if self.lenient:
            return prompt, written
        if with_thought := self._restore_thought(turns, index, tools, prompt, written):
            return prompt, with_thought
        opening = self._opening(turns, index, tools, prompt) if find_missing_part(turn, unmark(written)) else ""
        if missing := find_missing_part(turn, opening + unmark(written)):
            raise TemplateError(f"chat template '{self.name}' leaves out {missing} of turn {index}, which would not be learned")
        return prompt, written

    def _restore_thought(self, turns: Sequence[Turn], index: int, tools: Tools, prompt: str, written: str) -> str:
        """Return a written reply with its thought, where the template writes an empty thought or strips it from the content; empty if it does neither.

        At inference the model generates its thought nevertheless: templates omit it only because it is dropped from history.
        """
        turn = turns[index]
        thought, turn_without_thought = extract_thought(turn)
        if thought and fill_empty_thought(written, thought, self.thought_end):
            _, reply = self.split_reply([*turns[:index], turn_without_thought], index, tools)
            return fill_empty_thought(reply, thought, self.thought_end)
        thought_in_content = leading_thought(turn["content"])
        is_stripped = thought_in_content and find_missing_part(turn, unmark(written)) == "the thoughts"
        if not is_stripped or ends_with_thought(self._opening(turns, index, tools, prompt), self.thought_end):
            return ""
        answer = {**turn, "content": turn["content"].removeprefix(thought_in_content)}
        return thought_in_content + self.split_reply([*turns[:index], answer], index, tools)[1]

    def _after_prefix(self, turns: Sequence[Turn], index: int, tools: Tools, prompt: str, finished: str) -> str:
        """Return the reply's text after its prompt when the finished text does not start with that prompt; raises ``TemplateError``."""
        reply = PrefixedReply(
            write=self.render, past=turns[:index], turn=turns[index], tools=tools, prompt=prompt, thought_end=self.thought_end,
            tokens=self._tokens_longest_first,
        )  # fmt: skip
        if text := reply.find_text(finished):
            return text
        if self.lenient and turns[index]["content"]:
            return finished[finished.rfind(turns[index]["content"]) :]
        raise TemplateError(f"chat template '{self.name}' {describe_difference(index, reply.opening, prompt, finished)}")

    def _opening(self, turns: Sequence[Turn], index: int, tools: Tools, prompt: str) -> str:
        """Return the generation prompt: the header of the turn, and the start of a thought if the template opens one."""
        history = self.render(turns[:index], tools)
        return unmark(prompt[len(history) :] if prompt.startswith(history) else prompt)

    def render(self, turns: Sequence[Turn], tools: Tools = (), add_generation_prompt: bool = False) -> str:
        """Return the text of marked turns, with the stop token of a final reply even if the template writes none.

        Raises:
            TemplateError: When the template fails.
        """
        text = self._render_marked(turns, tools, add_generation_prompt)
        if add_generation_prompt or not turns or turns[-1]["role"] != "assistant" or not self.stop_is_implied:
            return text
        return text + (self._implied_call_stop if turns[-1].get("tool_calls") else self._implied_stop)

    def library_prompt_ids(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """Return the prompt ids from transformers' ``apply_chat_template``, as a server that calls it computes them.

        Raises:
            TemplateError: When the template fails.
        """
        turns = _content_as_parts(messages) if self.requires_parts else messages
        return list(self._run(turns, tools, True, tokenize=True, return_dict=False, sanitize_control_tokens=True))

    def _render_marked(self, turns: Sequence[Mapping[str, Any]], tools: Tools, add_generation_prompt: bool = False) -> str:
        """Return the text that the template writes for marked turns, without an added stop token; tools are marked here."""
        turns = _content_as_parts(turns) if self.requires_parts else turns
        return str(self._run(turns, mark_tools(self._patterns, tools), add_generation_prompt))

    def _run(self, turns: Sequence[Mapping[str, Any]], tools: Tools, add_generation_prompt: bool = False, **options: Any) -> Any:
        """Run the template.

        If it fails, other formats are tried: arguments of tool calls as text, which some templates concatenate, and an empty list instead of no
        tools, which some templates iterate over.

        Args:
            turns: Messages for the template.
            tools: Tools for the template.
            add_generation_prompt: Whether the text ends with the generation prompt.
            options: Further arguments of ``apply_chat_template``.

        Returns:
            The text; with ``tokenize=True`` the token ids.

        Raises:
            TemplateError: When the template fails or exceeds its limits of time or memory.
        """
        turns = [dict(turn) for turn in turns]
        turns_with_text = arguments_as_text(turns)
        turns_formats = [turns, turns_with_text] if turns_with_text != turns else [turns]
        tools_formats: list[list[Mapping[str, Any]] | None] = [list(tools) or None]
        if not tools and "tools" in self.source:
            tools_formats.append([])

        def run(turns_format: list[Turn], tools_format: list[Mapping[str, Any]] | None) -> Any:
            return self.tokenizer.apply_chat_template(
                turns_format,
                tools=tools_format,
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                **{"tokenize": False, **options},
                **self.arguments,
            )

        last_error = Exception()
        for turns_format, tools_format in product(turns_formats, tools_formats):
            try:
                return run_bounded(self.source, partial(run, turns_format, tools_format))
            except TooMuchError as error:
                raise TemplateError(f"chat template '{self.name}' asks for too much: {error}; give another with --template") from error
            except Exception as error:  # a template is untrusted code: it may divide by zero, recurse without end, fill the memory
                last_error = error
        roles = ", ".join(str(turn["role"]) for turn in turns)
        raise TemplateError(f"chat template '{self.name}' refuses the turns ({roles}): {first_line(last_error)}") from last_error

    def _first_tokens(self, text: str) -> list[str]:
        """Return the first added token of a text and those that directly follow it."""
        tokens: list[str] = []
        while token := self._first_token(text, at_start=bool(tokens)):
            tokens.append(token)
            text = text[text.find(token) + len(token) :]
        return tokens

    def _first_token(self, text: str, at_start: bool = False) -> str:
        """Return the first added token in a text, with ``at_start`` only one at its very beginning; empty if there is none."""
        matches = [(text.find(token), token) for token in self._tokens_longest_first if token in text]
        position, token = min(matches, key=lambda match: (match[0], -len(match[1])), default=(0, ""))
        return "" if at_start and position else token

    def _up_to_first_token(self, text: str) -> str:
        """Return a text up to the end of its first added token; empty if there is none."""
        token = self._first_token(text)
        return text[: text.find(token) + len(token)] if token else ""

    def _up_to_stop(self, text: str, turn: Turn) -> str:
        """Return the text of a turn up to the last stop token, or the whole text if another token ends it; empty if none does."""
        up_to_stop = text[: text.rfind(self.stop) + len(self.stop)] if self.stop in text else ""
        # Solar ends a thought with the stop token of a reply, and gpt-oss a tool call with another token
        lacks_call = turn.get("tool_calls") and find_missing_part(turn, unmark(up_to_stop)).startswith("the call")
        if up_to_stop and not lacks_call:
            return up_to_stop
        text = text.rstrip()
        return text if any(text.endswith(token) for token in self._tokens_longest_first) else ""


def _content_as_parts(turns: Sequence[Mapping[str, Any]]) -> list[Turn]:
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
