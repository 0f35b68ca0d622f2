"""What shows a chat: the terminal, plain lines, JSON lines."""
