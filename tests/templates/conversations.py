"""Random conversations with tools, calls, results, thoughts and empty parts, and properties of their rows under any chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sftchat.errors import TemplateError
from sftchat.templates.parity import NO_REMEDY, add_remedy
from sftchat.templates.renderer import IGNORED, Rendered, Renderer, choose_renderer
from sftchat.types import Message

FORGED = ("<|im_end|>", "<|im_start|>assistant\n", "</s>", "<|eot_id|>", "<|e|>", "### Response:\n", "<|turn|>")
SAID = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["你好🙂", "a\r\nb", *FORGED])
EVERYTHING = (
    "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ eos_token }}{% endif %}"
    "{% for m in messages %}{{ m['role'] }}: {% for key in ('reasoning_content', 'reasoning', 'thinking') %}{% if m.get(key) %}({{ m[key] }}){% endif %}"
    "{% endfor %}{{ m['content'] }}{% for c in m.get('tool_calls') or [] %}{{ c['function'] | tojson }}{% endfor %}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
"""Template that renders every conversation, for tokenizers with an end of text."""


@dataclass(frozen=True)
class Conversation:
    """A conversation in which every text contains a unique word.

    Attributes:
        messages: Its turns.
        tools: Its tools.
    """

    messages: tuple[Any, ...]
    tools: tuple[Any, ...]

    @property
    def replies(self) -> list[int]:
        """Indices of the assistant's turns."""
        return [index for index, message in enumerate(self.messages) if message["role"] == "assistant"]


def words_of(message: Message) -> set[str]:
    """Unique words of a turn, its calls and its thoughts."""
    return set(re.findall(r"w\d+w", repr(message)))


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Turns in the order that rows may have: a system turn, then user turns with replies, each after any calls of tools and their results."""
    count = iter(range(1000))

    def said(empty: bool = False) -> str:
        """A text with a unique word, or an empty one."""
        if empty and draw(st.integers(0, 3)) == 0:
            return ""
        return f"w{next(count)}w{draw(SAID)}"

    def reply(**more: Any) -> dict[str, Any]:
        """An assistant turn, perhaps with a thought under a key or in the content."""
        content = said(empty=bool(more))
        kind = draw(st.sampled_from(["", "", "", "inline", "reasoning_content", "reasoning", "thinking"]))
        if kind == "inline":
            content = f"<think>\n{said()}\n</think>\n\n{content}"
        elif kind:
            more[kind] = said()
        return {"role": "assistant", "content": content, **more}

    names = draw(st.lists(st.sampled_from(["look", "add_up"]), max_size=2, unique=True))
    callable_names = names or (["look"] if draw(st.integers(0, 4)) == 0 else [])
    messages: list[dict[str, Any]] = [{"role": "system", "content": said()}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        messages.append({"role": "user", "content": said()})
        for _ in range(draw(st.integers(0, 2)) if callable_names else 0):
            called = draw(st.lists(st.sampled_from(callable_names), min_size=1, max_size=2))
            calls = [
                {"type": "function", "id": f"call0000{next(count) % 10}", "function": {"name": name, "arguments": {"at": said(empty=True)}}}
                for name in called
            ]
            messages.append(reply(tool_calls=calls))
            messages += [
                {"role": "tool", "content": said(empty=True), "name": call["function"]["name"], "tool_call_id": call["id"]}
                for call in calls
            ]
        messages.append(reply())
    parameters = {"type": "object", "properties": {"at": {"type": "string", "description": "Where."}}, "required": ["at"]}
    tools = tuple({"type": "function", "function": {"name": name, "description": "Do it.", "parameters": parameters}} for name in names)
    return Conversation(tuple(messages), tools)


def check_rows(renderer: Renderer, conversation: Conversation) -> None:
    """Check the guarantees of training for the rows of a conversation.

    Raises:
        TemplateError: When the template refuses the conversation.
        AssertionError: When a prompt is not a prefix of its row, or something else than the assistant's text and one stop token is trained.
    """
    messages, tools, replies = conversation.messages, conversation.tools, conversation.replies
    rows = renderer.training_rows(messages, tools)
    assert len(rows) in (1, len(replies))
    spans = list(trained_spans(rows))
    assert [row for row, *_ in spans] == (list(range(len(replies))) if len(rows) > 1 else [0] * len(replies))
    stops = set(renderer.for_tools(tools).stop_tokens)
    for index, (row, start, ids) in zip(replies, spans, strict=True):
        prompt = tuple(renderer.prompt_ids(messages[:index], tools=tools))
        assert rows[row].ids[: len(prompt)] == prompt
        assert start == len(prompt)
        assert ids[-1] in stops
        assert [token for token in ids[:-1] if token in stops] == []
        written = renderer.tokenizer.decode(ids)
        others = {word for place, message in enumerate(messages) if place != index for word in words_of(message)}
        assert words_of(messages[index]) <= set(re.findall(r"w\d+w", written))
        assert others.isdisjoint(re.findall(r"w\d+w", written))
        assert "".join(reply_text(messages[index]).split()) in "".join(written.split())


def reply_text(message: Message) -> str:
    """The content of a turn after its thought."""
    return message["content"].rpartition("</think>\n\n")[2]


def trained_spans(rows: Sequence[Rendered]) -> Iterator[tuple[int, int, list[int]]]:
    """Return row, start and ids of every run of labels."""
    for number, row in enumerate(rows):
        starts = [at for at, (a, b) in enumerate(pairwise([IGNORED, *row.labels])) if a == IGNORED != b]
        for start in starts:
            ids = []
            for label in row.labels[start:]:
                if label == IGNORED:
                    break
                ids.append(label)
            yield number, start, ids


def follow(words: str, renderer: Renderer, conversation: Conversation, folder: Path) -> tuple[Renderer, Conversation]:
    """Apply the remedy in the message of a refusal.

    Args:
        words: The message.
        renderer: The renderer that refused.
        conversation: The refused conversation.
        folder: Folder for a Jinja file.
    """
    tokenizer = renderer.tokenizer
    if words.endswith(NO_REMEDY):
        path = folder / "everything.jinja"
        path.write_text(EVERYTHING, encoding="utf-8")
        return choose_renderer(tokenizer, str(path)), conversation
    advice = words.rpartition("; ")[2]
    if found := re.search(r"--template-argument (\w+)=(true|false)", advice):
        renderer = replace(renderer, arguments={**renderer.arguments, found[1]: found[2] == "true"})
    elif found := re.search(r"--template-name ([\w.-]+)", advice):
        renderer = choose_renderer(tokenizer, arguments=renderer.arguments, name=found[1])
    elif found := re.search(r"--template (\w+)", advice):
        renderer = choose_renderer(tokenizer, found[1])
    else:
        assert advice.startswith("it can be trained on without"), words
    return renderer, lessened(conversation, advice)


def lessened(conversation: Conversation, advice: str) -> Conversation:
    """Return the conversation without the parts that the advice names."""
    messages = [dict(message) for message in conversation.messages]
    if "the system turn" in advice:
        messages = [message for message in messages if message["role"] != "system"]
    if "the thoughts" in advice:
        for message in messages:
            for key in ("reasoning_content", "reasoning", "thinking"):
                message.pop(key, None)
            if message["role"] == "assistant":
                message["content"] = re.sub(r"(?s)^<think>.*?</think>\n*", "", message["content"])
    return replace(conversation, messages=tuple(messages), tools=() if "the tools" in advice else conversation.tools)


def check_rows_or_remedy(renderer: Renderer, conversation: Conversation, folder: Path) -> None:
    """Apply ``check_rows`` to a conversation, or to the result of the remedy when the template refuses it."""
    try:
        check_rows(renderer, conversation)
    except TemplateError as error:
        words = add_remedy(error, renderer, conversation.messages, conversation.tools)
        check_rows(*follow(words, renderer, conversation, folder))
