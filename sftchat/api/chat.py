"""``sftchat.chat``: open the chat in the terminal of the program."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from sftchat._util.notebook import in_notebook
from sftchat.api.options import EngineOptions, SamplingOptions, check_engine_options, make_sampling
from sftchat.api.session import Session
from sftchat.api.wording import for_python
from sftchat.errors import UsageError
from sftchat.task import Task


def open_chat(session: Session, models: Sequence[str], engine_options: Mapping[str, Any], *, task: Any = None, **chat_options: Any) -> int:
    """Open models and chat with them until the user leaves.

    Args:
        session: Opens models, and has the chat commands.
        models: MODEL arguments, at least one.
        engine_options: Options of ``sftchat.inference.open.load_engine``.
        task: Task that scores the replies; None for none.
        chat_options: Further arguments of ``sftchat.chat.run.run_chat``.

    Returns:
        The exit code of ``run_chat``.

    Raises:
        SftchatError: When a model cannot be found or loaded.
    """
    from sftchat.chat.controller import ModelLoader
    from sftchat.chat.run import prepare_openings, run_chat

    options = {**engine_options, "interactive": True}
    if task is not None:
        options["preferred"] = task.template
    without_base = {**options, "base": None}  # for models that are opened later by a command of the chat
    loader = ModelLoader(
        partial(session.resolve, **without_base), partial(session.load_engine, **without_base), partial(session.identify, **without_base)
    )
    return run_chat(
        prepare_openings([session.resolve(model, **options) for model in models], session.load_engine, options),
        commands=session.registry.commands.values(),
        models=loader,
        task=task.for_training() if task is not None else None,
        **chat_options,
    )


@for_python
def chat(
    *models: str | os.PathLike[str],
    task: str | os.PathLike[str] | Task | None = None,
    system: str | None = None,
    sampling: SamplingOptions | None = None,
    rows: str | os.PathLike[str] = "chat-rows",
    session: Session | None = None,
    **engine_options: Unpack[EngineOptions],
) -> int:
    """Chat with a model, or with several side by side, in the terminal of the program; the conversation is saved as by ``sftchat chat``.

    Args:
        models: MODEL arguments or runs, at least one.
        task: Name of a task, task file or ``Task`` that scores the replies and whose system prompt and sampling parameters apply.
        system: System prompt instead of the task's.
        sampling: Sampling parameters, such as ``{"temperature": 0.7}``.
        rows: Folder for the rows of ``/good`` and similar commands.
        session: Plugins and engines; those that are installed by default.
        engine_options: Options for opening the models, as for ``sftchat.load``.

    Returns:
        0, or 3 when standard input is no terminal and a message got no reply.

    Raises:
        UsageError: When no model is given, an argument is wrong, or the program is a notebook, which has no terminal.
        SftchatError: When a model cannot be found or loaded.
    """
    from platformdirs import user_data_path

    from sftchat.chat.context import Settings
    from sftchat.chat.conversation import Conversation
    from sftchat.chat.run import is_plain
    from sftchat.chat.sessions import SESSIONS_FILE, SessionStore
    from sftchat.types import SamplingParams

    if not models:
        raise UsageError("give a model to chat with")
    for model in models:
        if not isinstance(model, (str, os.PathLike)):
            raise UsageError(f"model is {type(model).__name__}, must be a MODEL or a run; the chat opens it itself")
    if in_notebook():
        raise UsageError(
            "a notebook has no terminal for the chat; use sftchat.load(MODEL).reply(messages), or type in a terminal: sftchat chat"
        )
    options = check_engine_options(engine_options)
    session = session or Session()
    chosen = task if task is None or isinstance(task, Task) else session.registry.task(os.fspath(task))
    prompt = system if system is not None else chosen.system if chosen is not None else ""
    defaults = vars(chosen.sampling if chosen is not None else SamplingParams())
    folder = user_data_path("sftchat", appauthor=False)
    notes: list[str] = []
    sessions = SessionStore(folder / SESSIONS_FILE, notes.append)
    try:
        return open_chat(
            session,
            [os.fspath(model) for model in models],
            options,
            task=chosen,
            folder=folder,
            sessions=sessions,
            conversation=Conversation().with_system(prompt) if prompt else Conversation(),
            settings=Settings(sampling=make_sampling({**defaults, **(sampling or {})})),
            rows=Path(rows),
            start_notes=notes,
            plain=is_plain(),
        )
    finally:
        sessions.close()
