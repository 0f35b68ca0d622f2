"""Export a conversation to a file, and read one from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from sftchat._util.files import check_output_file, write_atomically, write_error
from sftchat.chat.conversation import Answer, Conversation
from sftchat.data.formats import read_examples
from sftchat.data.serialize import serialize
from sftchat.data.write import write_rows
from sftchat.errors import DataError, UsageError, unknown_name_message
from sftchat.types import Example, Reply

FORMAT_OF_SUFFIX = {".md": "markdown", ".markdown": "markdown"}


def export(conversation: Conversation, path: Path, format: str = "") -> str:
    """Write a conversation, as the focused model sees it, to a new file.

    Args:
        conversation: Conversation with at least one turn.
        path: A file that does not exist yet.
        format: ``messages``, ``sharegpt`` or ``markdown``; by default from the suffix: ``.md`` is Markdown, any other is messages.

    Returns:
        The format.

    Raises:
        UsageError: When the format is unknown, the file exists, or it cannot be created.
        DataError: When a text cannot be encoded as JSON.
    """
    format = format or FORMAT_OF_SUFFIX.get(path.suffix.lower(), "messages")
    if format not in WRITERS:
        raise UsageError(unknown_name_message("format", format, WRITERS))
    if path.exists():
        raise UsageError(f"'{path}' exists; give a name that is free")
    check_output_file(path)
    WRITERS[format](replace(conversation, history=True), path)  # the whole conversation, even when the model sees only the last turn
    return format


def _write_row(format: str, conversation: Conversation, path: Path) -> None:
    """Write the conversation as one row of training data."""
    write_rows(path, [serialize(Example(conversation.messages), format)])


def _write_markdown(conversation: Conversation, path: Path) -> None:
    """Write the conversation as Markdown: each message under its role, unchanged."""
    text = "\n".join(f"**{message['role']}**\n\n{message['content']}\n" for message in conversation.messages)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise write_error(path, error) from error


WRITERS: dict[str, Callable[[Conversation, Path], None]] = {
    "messages": partial(_write_row, "messages"),
    "sharegpt": partial(_write_row, "sharegpt"),
    "markdown": _write_markdown,
}


def read_conversation(path: Path, row: int = 1) -> tuple[Conversation, str]:
    """Read a conversation from one row of a file, in any format of training data.

    Args:
        path: JSONL or JSON.
        row: Row number, from 1.

    Returns:
        The conversation without a last message that has no reply; and that message, empty when every message has a reply.

    Raises:
        DataError: When the row does not exist, or is not a conversation.
    """
    example = next(islice(read_examples(path), row - 1, None), None)
    if example is None:
        raise DataError(f"the file has no row {row}", str(path))
    messages = list(example.conversation)
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else ""
    conversation = Conversation(system)
    for index, message in enumerate(messages):
        if message["role"] != ("assistant" if index % 2 else "user"):
            raise DataError(
                f"turn {index + 1} is of role '{message['role']}'; a conversation alternates between user and assistant", example.source
            )
        if index % 2:
            conversation = conversation.ask(messages[index - 1]["content"]).answer(Answer(Reply(message["content"])))
    unanswered = messages[-1]["content"] if len(messages) % 2 else ""
    return conversation, unanswered
