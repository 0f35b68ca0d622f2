"""A chat in which every command is available: scripted models with adapters and a template, a run with checkpoints, a task with gold, sessions.

    python tests/chat/everything.py FOLDER

Asks how many models there are to be, has a conversation with them in a new folder below FOLDER, and asks again when it was left. ``cut`` is answered by half a reply, ``think`` with a thought, ``bold`` in
Markdown, and everything else by its echo.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from sftchat import Reply, SamplingParams, Score, Task, rate
from sftchat.chat.commands import BUILTINS, Commands
from sftchat.chat.context import Settings
from sftchat.chat.controller import ChatController, ChatServices, ModelLoader
from sftchat.chat.pane import Opening
from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer
from sftchat.chat.sessions import Session, SessionStore
from sftchat.chat.ui.app import Terminal
from sftchat.engine import Request
from sftchat.testing import ScriptedEngine

STEPS = ("run/checkpoint-9", "run/checkpoint-20")
ITEMS = [{"id": f"item-{n}", "messages": [{"role": "user", "content": f"问 {n}"}], "gold": f"答：问 {n}"} for n in (1, 2)]
TASK = Task("echo", "", lambda n, seed: [], lambda example, reply: Score({"n": 1, "right": int(reply.text == example.gold)}),
            (rate("accuracy", "right"),))  # fmt: skip
LIKELIEST = [{"答": 0.9, "问": 0.1}, {"：": 0.75, "，": 0.25}]


def script(request: Request) -> str | Reply:
    """Return the reply to a request."""
    said = request.prompt or request.messages[-1]["content"]
    if request.reply_prefix or request.reply_ids:
        return "明月光"
    if said == "cut":
        return Reply("床前", finish_reason="length")
    return {"think": "<think>想一想</think>\n好", "bold": "**粗**体"}.get(
        said, f"答：{said}{f' by {request.adapter}' if request.adapter else ''}"
    )


class Model(ScriptedEngine):
    """Scripted model with adapters and a template with an argument."""

    template_hash = ""
    template_arguments: Mapping[str, Any] = {}
    template_variables = ("enable_thinking",)

    def __init__(self) -> None:
        super().__init__(script, likeliest=LIKELIEST)
        self.adapters: tuple[str, ...] = ("lora",)

    def add_adapter(self, name: str, model: str) -> None:
        """Have one more."""
        self.adapters += (name,)

    def mix_adapters(self, name: str, parts: Mapping[str, float]) -> None:
        """Have one more."""
        self.adapters += (name,)


def prepare(folder: Path) -> None:
    """Change to a new folder and create the run and the evalset there."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    for step in STEPS:
        Path(step).mkdir(parents=True)
        (Path(step) / "config.json").write_text("{}")
        (Path(step) / "model.safetensors").write_bytes(b"")
    Path("gold.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))


def make_chat(view: Any, models: int) -> ChatController:
    """Run a conversation with one model or two."""
    services = ChatServices(
        scorer=GoldScorer(TASK, Path("gold.jsonl")),
        session=Session(SessionStore(Path("sessions.sqlite"), view.info)),
        models=ModelLoader(lambda model: None, lambda model: Model(), lambda model: "hash"),
        rows=Rows(Path("rows")),
    )
    openings = [Opening(lambda name=name: Model(), (name,)) for name in (STEPS[0], "other")[:models]]  # type: ignore[misc]
    return ChatController(
        openings, view, commands=Commands(BUILTINS), services=services, settings=Settings(SamplingParams(max_new_tokens=100))
    )


def main() -> None:
    """Run one conversation after the other."""
    folder = Path(sys.argv[1]).absolute()
    for number in count():
        models = int(input("how many models> "))
        prepare(folder / str(number))
        Terminal(lambda view: make_chat(view, models)).run()  # noqa: B023


if __name__ == "__main__":
    main()
