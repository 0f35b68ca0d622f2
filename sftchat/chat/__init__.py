"""The chat: conversation, commands and controller are independent of the terminal; ``ui`` has the views."""
