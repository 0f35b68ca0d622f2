"""Commands that change how replies are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.errors import UsageError


def _switch(name: str, what: str) -> Callable[[ChatContext, str], None]:
    """Build a command that turns a display option on or off; without an argument it shows the current value."""

    def run(context: ChatContext, argument: str) -> None:
        if argument not in ("", "on", "off"):
            raise UsageError(f"/{name} is '{argument}', must be 'on' or 'off'")
        if argument:
            setattr(context.display, name, argument == "on")
        context.info(f"{what}: {'on' if getattr(context.display, name) else 'off'}")

    return run


def _on_off(context: ChatContext, argument: str) -> Iterable[str]:
    return ("on", "off")


COMMANDS = (
    ChatCommand(
        "markdown",
        "render Markdown, or show replies as they were written",
        _switch("markdown", "Markdown is rendered"),
        "[on|off]",
        _on_off,
        allowed_while_busy=True,
        topic="display",
    ),
    ChatCommand(
        "thoughts",
        "show what a model thinks before it answers, or one line for it",
        _switch("thoughts", "thoughts are shown"),
        "[on|off]",
        _on_off,
        allowed_while_busy=True,
        topic="display",
    ),
)
