"""The chat in the terminal: conversations, the generation of replies, and the user interfaces. The package is also the function ``sftchat.chat``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """Lets ``sftchat.chat(MODEL)`` work although a package has that name, whether or not it was imported before."""

    def __call__(self, *models: Any, **options: Any) -> int:
        """Call ``sftchat.api.chat.chat``."""
        from sftchat.api.chat import chat

        return chat(*models, **options)


sys.modules[__name__].__class__ = _CallablePackage
