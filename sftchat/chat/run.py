"""Run a chat: open the models, continue a session, choose the view."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftchat._util.fallback import report_fallback
from sftchat._util.output import data_stream
from sftchat.chat.commands import Commands
from sftchat.chat.context import ChatCommand, Settings, View
from sftchat.chat.controller import ChatController, ChatServices, ModelLoader
from sftchat.chat.conversation import Conversation
from sftchat.chat.pane import Opening
from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer
from sftchat.chat.sessions import Session, SessionStore, Summary
from sftchat.engine import Engine
from sftchat.errors import UsageError
from sftchat.inference.open import load_with_adapters
from sftchat.models.reference import ModelReference, group_by_base

if TYPE_CHECKING:
    from sftchat.task import Task


def run_chat(
    openings: Sequence[Opening],
    *,
    commands: Iterable[ChatCommand],
    folder: Path,
    models: ModelLoader | None = None,
    task: Task | None = None,
    evalset: Path | None = None,
    sessions: SessionStore | None = None,
    resumed: Summary | None = None,
    conversation: Conversation | None = None,
    settings: Settings | None = None,
    rows: Path | None = None,
    start_notes: Sequence[str] = (),
    plain: bool = False,
    jsonl: bool = False,
    vi: bool | None = None,
) -> int:
    """Chat on the standard streams until the user leaves or the input ends.

    Args:
        openings: How to open the models, see ``prepare_openings``.
        commands: The chat commands.
        folder: Folder of the history of typed lines.
        models: Opens more models; by default they are refused.
        task: Task that scores the replies.
        evalset: File with the gold replies; the task's own evalset by default.
        sessions: Where to save the conversation. None saves nothing; a plain view saves only a resumed session.
        resumed: Session to continue.
        conversation: Conversation to continue; a new one by default.
        settings: Generation settings.
        rows: Folder for the rows of ``/good`` and similar commands; with None they are refused.
        start_notes: Notes to show at the start.
        plain: Read and write lines, see ``is_plain``; otherwise draw on a terminal.
        jsonl: Read and write JSON Lines; implies ``plain``.
        vi: Edit with vi keys; None follows the user's ``~/.inputrc``.

    Returns:
        The exit code: 3 when a message got no reply or a command failed in a plain view, else 0.

    Raises:
        SftchatError: When a model cannot be loaded.
    """

    def make_chat(view: View) -> ChatController:
        if sessions is not None:
            sessions.warn = view.info
        store = None if plain and resumed is None else sessions
        scorer = GoldScorer(task, evalset) if task is not None else None
        services = ChatServices(
            scorer=scorer,
            session=Session(store, resumed, conversation),
            models=models or ModelLoader(),
            rows=Rows(rows, (scorer.path,) if scorer is not None and scorer.path is not None else ()),
        )
        return ChatController(
            openings,
            view,
            commands=Commands(commands),
            services=services,
            conversation=conversation,
            settings=settings,
            start_notes=start_notes,
            announces_models=not (plain or jsonl),
        )

    if plain or jsonl:
        from sftchat.chat.ui.jsonl import JsonLines
        from sftchat.chat.ui.plain import Plain

        view = (JsonLines if jsonl else Plain)(make_chat, stdin=sys.stdin, stdout=data_stream(), stderr=sys.stderr)
        view.run()
        return 3 if view.failures else 0

    from sftchat.chat.ui.app import Terminal

    Terminal(make_chat, history=folder / "history", vi=vi).run()
    return 0


def is_plain() -> bool:
    """Return whether the chat needs the plain view: without a terminal, or, with a warning, when prompt_toolkit lacks internal parts."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in ("dumb", "unknown"):
        return True
    from sftchat.chat.ui.scrollback import missing_parts

    missing = missing_parts()
    if missing:
        report_fallback("the full view of the terminal", f"prompt_toolkit has no {' and '.join(missing)}")
    return bool(missing)


def prepare_openings(references: Sequence[ModelReference], load: Callable[..., Engine], options: Mapping[str, Any]) -> list[Opening]:
    """Return an opening for each model of a chat; adapters of one base share an engine.

    Args:
        references: The models.
        load: Opens a model, such as ``sftchat.inference.open.load_engine``.
        options: Further arguments of ``load``.

    Raises:
        UsageError: When two models are the same.
    """
    _check_different(references)
    openings: dict[int, Opening] = {}
    for group in group_by_base(references):
        members = [references[index] for index in group]
        adapters = [member for member in members if member.base is not None]
        base = adapters[0].base if adapters and len(members) > 1 else None  # a single model needs no shared base
        load_shared = partial(load_with_adapters, load, base, adapters, options) if base is not None else None
        for index, member in zip(group, members, strict=True):
            if load_shared is None:
                openings[index] = Opening(partial(load, member.text, **options), (member.text,))
            else:
                openings[index] = Opening(load_shared, (member.text,), (member.text if member.base is not None else "",))
    return [openings[index] for index in range(len(references))]


def _check_different(references: Sequence[ModelReference]) -> None:
    """Raise a ``UsageError`` when two models are the same."""
    text_of_model: dict[tuple[Any, ...], str] = {}
    for reference in references:
        model = (reference.scheme, reference.source, reference.revision, reference.base and reference.base.source)
        if model in text_of_model:
            first = text_of_model[model]
            same = f"'{first}' stands twice" if first == reference.text else f"'{first}' and '{reference.text}' are the same"
            raise UsageError(f"{same}: there is nothing to compare")
        text_of_model[model] = reference.text


def find_session(sessions: SessionStore, name: str = "") -> Summary:
    """Return the session to continue, by name or id; the last used one when ``name`` is empty.

    Raises:
        UsageError: When there is no such session.
    """
    session = sessions.find(name)
    if session is None:
        raise UsageError(f"no session '{name}'; /sessions lists them" if name else "there is no conversation to go on with yet")
    return session
