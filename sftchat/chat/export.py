"""Export a conversation to a file, and read one from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from sftchat._util.files import check_output_file, write_atomically, write_error
from sftchat.chat.conversation import Answer, Conversation
from sftchat.data.formats import read_examples
from sftchat.data.serialize import serialize
from sftchat.data.write import write_rows
from sftchat.errors import DataError, UsageError, unknown_name_message
from sftchat.types import Example, Reply

SUFFIXES = {".md": "markdown", ".markdown": "markdown"}


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
    chosen = format or SUFFIXES.get(path.suffix.lower(), "messages")
    if chosen not in WRITERS:
        raise UsageError(unknown_name_message("format", chosen, WRITERS))
    if path.exists():
        raise UsageError(f"'{path}' exists; give a name that is free")
    check_output_file(path)
    WRITERS[chosen](replace(conversation, history=True), path)  # the whole conversation, even when the model sees only the last turn
    return chosen


def _rows(format: str) -> Callable[[Conversation, Path], object]:
    """Build a writer of one row in a format."""

    def write(conversation: Conversation, path: Path) -> object:
        return write_rows(path, [serialize(Example(conversation.messages), format)])

    return write


def _markdown(conversation: Conversation, path: Path) -> object:
    """Write the conversation as Markdown: each message under its role, unchanged."""
    text = "\n".join(f"**{message['role']}**\n\n{message['content']}\n" for message in conversation.messages)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise write_error(path, error) from error
    return path


WRITERS: dict[str, Callable[[Conversation, Path], object]] = {
    "messages": _rows("messages"),
    "sharegpt": _rows("sharegpt"),
    "markdown": _markdown,
}


def read_conversation(path: Path, row: int = 1) -> tuple[Conversation, str]:
    """Read a conversation from one row of a file, in any format of training data.

    Args:
        path: JSONL or JSON.
        row: Row number, from 1.

    Returns:
        The conversation, and the last message when it has no reply.

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
        if message["role"] != ("user", "assistant")[index % 2]:
            raise DataError(
                f"turn {index + 1} is of role '{message['role']}'; a conversation alternates between user and assistant", example.source
            )
        if index % 2:
            conversation = conversation.ask(messages[index - 1]["content"]).answer(Answer(Reply(message["content"])))
    return conversation, messages[-1]["content"] if len(messages) % 2 else ""
