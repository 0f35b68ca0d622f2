"""Views of a chat: terminal, plain lines, JSON lines."""
