"""The chat on a terminal; prompt_toolkit is imported below here alone."""

from sftchat.chat.terminal.view import Terminal

__all__ = ["Terminal"]
