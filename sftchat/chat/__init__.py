"""The chat: conversation, commands and talk know no terminal; ``terminal`` and ``plain`` show a talk."""
