"""A Modelfile for Ollama whose template says what ours says: derived from what the chat template writes, and proved by evaluating it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftchat.models.gotemplate import evaluate, literal
from sftchat.models.templates import Renderer, TemplateError
from sftchat.types import Message

SYSTEM, FIRST, REPLY, SECOND = (f"\u2063{word}\u2063" for word in ("system", "first", "reply", "second"))

CONVERSATIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "one turn": (("user", "你好，world"),),
    "a system turn": (("system", "Be brief.\nAlways."), ("user", "1 + 1?")),
    "several turns": (
        ("user", "问\n题"),
        ("assistant", "答"),
        ("user", "again"),
        ("assistant", "甲-乙:师徒\n无"),
        ("user", "{{ .System }} 再"),
    ),
    "a system turn and several turns": (
        ("system", "简短"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
        ("user", "e"),
    ),
    "white space around what is said": (("user", " a \n"), ("assistant", " b "), ("user", "c")),
    "a thought in the history": (("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c")),
}
"""What the template is proved on; the last two are known to be beyond Go's templates for some models, which is said and not refused."""
REQUIRED = 4


@dataclass(frozen=True)
class Modelfile:
    """A Modelfile and what was found out about it.

    Attributes:
        text: Its content.
        proved: Conversations that Ollama will write as we do.
        notes: What it will not, in sentences.
    """

    text: str
    proved: tuple[str, ...]
    notes: tuple[str, ...]


def write_modelfile(renderer: Renderer, stop_ids: Iterable[int], made_from: str) -> Modelfile:
    """Write and prove a Modelfile that lies beside the weights.

    Args:
        renderer: Tokenizer and template.
        stop_ids: Ids on which generation stops.
        made_from: What the user calls the model, for the comment in the file.

    Raises:
        TemplateError: When the template cannot be expressed; with the conversation that differs and where.
    """
    template, notes = go_template(renderer)
    proved = []
    for number, (name, turns) in enumerate(CONVERSATIONS.items()):
        problem = _difference(renderer, template, [Message(role=role, content=content) for role, content in turns])
        if problem is None:
            continue
        if not problem:
            proved.append(name)
        elif number < REQUIRED:
            raise TemplateError(f"chat template '{renderer.name}' cannot be written as a template for Ollama: with {name}, {problem}")
        else:
            notes.append(f"with {name}, {problem}")
    if '"""' in template:
        raise TemplateError(f"chat template '{renderer.name}' cannot be written into a Modelfile: it has three quotes in a row")
    stops = [str(renderer.tokenizer.convert_ids_to_tokens(identity)) for identity in sorted(set(stop_ids))]
    lines = [
        f"# {' '.join(made_from.split())}: the template is that of the model, proved by sftchat",
        "FROM .",
        f'TEMPLATE """{template}"""',
        *(f'PARAMETER stop "{stop}"' for stop in stops),
    ]
    return Modelfile("\n".join(lines) + "\n", tuple(proved), tuple(notes))


def go_template(renderer: Renderer) -> tuple[str, list[str]]:
    """A Go template that writes prompts as a chat template does, derived from prompts with known words in them; not yet proved.

    Returns:
        The template, and sentences about what it leaves out.

    Raises:
        TemplateError: When turns are not written one after the other in the same way.
    """
    notes: list[str] = []
    opening, between, after, end = _cut(renderer, [("user", FIRST), ("assistant", REPLY), ("user", SECOND)])
    alone, last = _cut(renderer, [("user", FIRST)])
    if alone != opening or last != end:
        raise TemplateError(
            f"chat template '{renderer.name}' cannot be written as a template for Ollama: it opens or ends a conversation differently by its length"
        )
    head = _plain(renderer, opening)  # first, since a token that Ollama writes may end as the one before a later turn does
    user_opens = _common_end(head, after)
    user_closes = os.path.commonprefix([end, between])  # noqa: RUF071 - of texts, not of paths
    try:
        before, inside, _ = _cut(renderer, [("system", SYSTEM), ("user", FIRST)])
    except TemplateError:
        system = None
        notes.append("the template has no place for a system prompt; Ollama would leave one out without a word")
    else:
        system = (_plain(renderer, before), inside)
    simple = system is None or system[1].endswith(user_opens)
    cut = len(user_opens) if simple else 0
    start = literal(head[: len(head) - cut])
    if system is not None:
        with_system = f"{literal(system[0])}{{{{ .System }}}}{literal(system[1][: len(system[1]) - cut])}"
        without = f"{{{{ else }}}}{start}" if start else ""
        start = f"{{{{ if .System }}}}{with_system}{without}{{{{ end }}}}"
    opens = literal(user_opens) if simple else f"{{{{ if gt $i 1 }}}}{literal(user_opens)}{{{{ end }}}}"
    user = f"{opens}{{{{ .Content }}}}{literal(user_closes)}"
    assistant = f"{literal(between[len(user_closes) :])}{{{{ .Content }}}}{literal(after[: len(after) - len(user_opens)])}"
    loop = f'{{{{ range $i, $m := .Messages }}}}{{{{ if eq .Role "user" }}}}{user}{{{{ else if eq .Role "assistant" }}}}{assistant}{{{{ end }}}}{{{{ end }}}}'
    notes.append("calls of tools are not written into it")
    if "strftime_now" in renderer.source:
        notes.append("the chat template writes today's date, where the Modelfile keeps that of the export")
    return start + loop + literal(end[len(user_closes) :]), notes


def _cut(renderer: Renderer, turns: Sequence[tuple[str, str]]) -> list[str]:
    """A prompt, cut at what the turns say."""
    text = renderer.prompt_text([Message(role=role, content=content) for role, content in turns])
    pieces = []
    for _, content in turns:
        piece, found, text = text.partition(content)
        if not found:
            raise TemplateError(f"chat template '{renderer.name}' cannot be written as a template for Ollama: it leaves a turn out")
        pieces.append(piece)
    return [*pieces, text]


def _plain(renderer: Renderer, text: str) -> str:
    """The beginning of a prompt without the token that the tokenizer puts before any text: Ollama puts it there itself."""
    tokenizer = renderer.tokenizer
    begins = tokenizer.bos_token_id is not None and tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if begins else text


def _common_end(first: str, second: str) -> str:
    """The longest end that two texts share."""
    return os.path.commonprefix([first[::-1], second[::-1]])[::-1]  # noqa: RUF071 - of texts, not of paths


def _difference(renderer: Renderer, template: str, messages: Sequence[Message]) -> str | None:
    """Where Ollama's prompt leaves ours, in words; empty when they are the same, None when ours cannot be."""
    try:
        ours = _plain(renderer, renderer.prompt_text(messages))
    except TemplateError:
        return None
    theirs = evaluate(template, ollama_data(messages))
    if ours == theirs:
        return ""
    at = len(os.path.commonprefix([ours, theirs]))  # noqa: RUF071 - of texts, not of paths
    return f"the model was trained on {ours[max(0, at - 12) : at + 24]!r} where Ollama would write {theirs[max(0, at - 12) : at + 24]!r}"


def ollama_data(messages: Sequence[Message]) -> dict[str, Any]:
    """What Ollama gives to a template: all turns, and the system prompts joined."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    return {"System": system, "Messages": [{"Role": message["role"], "Content": message["content"]} for message in messages]}
