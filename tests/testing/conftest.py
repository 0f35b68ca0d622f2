"""Shared fixtures for tests of ``sftchat.testing``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def shout(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin of the README."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "example_plugin"))
    import sftchat_example_plugin

    yield sftchat_example_plugin
    del sys.modules["sftchat_example_plugin"]
