"""From the words of ``sftchat chat`` to a conversation: which models, what is refused before any of them is loaded, what goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.errors import EngineError, UsageError

if TYPE_CHECKING:
    from sftchat.chat.pane import Opening
    from sftchat.chat.sessions import Sessions, Summary
    from sftchat.cli.shared import Session
    from sftchat.engine import Engine
    from sftchat.models.reference import ModelReference


def openings(session: Session, models: Sequence[str], options: Mapping[str, Any]) -> list[Opening]:
    """How to open the models of a conversation; adapters of one base get one engine.

    Args:
        session: Opens models.
        models: MODEL arguments.
        options: Those of ``load_engine``.

    Raises:
        UsageError: When one cannot name a model, or two are the same.
        ModelError: When one has no usable weights.
    """
    from sftchat.chat.pane import Opening

    references = [session.resolve(model, **options) for model in models]
    places: dict[tuple[Any, ...], str] = {}
    for reference in references:
        key = (reference.scheme, reference.source, reference.revision, reference.base and reference.base.source)
        if key in places:
            twice = (
                f"'{reference.text}' stands twice"
                if places[key] == reference.text
                else f"'{places[key]}' and '{reference.text}' are the same"
            )
            raise UsageError(f"{twice}: there is nothing to compare")
        places[key] = reference.text
    shared = _shared(session, references, options)
    return [
        Opening(shared.get(reference.text) or partial(session.load_engine, reference.text, **options), (reference.text,), (adapter,))
        for reference in references
        for adapter in [reference.text if reference.text in shared and reference.base is not None else ""]
    ]


def _shared(session: Session, references: Iterable[ModelReference], options: Mapping[str, Any]) -> dict[str, Callable[[], Engine]]:
    """For models that one engine can answer for: how to open it."""
    groups: dict[tuple[str, str], list[ModelReference]] = {}
    for reference in references:
        if not reference.scheme:
            base = reference.base or reference
            groups.setdefault((base.source, base.revision), []).append(reference)
    found: dict[str, Callable[[], Engine]] = {}
    for members in groups.values():
        adapters = [member for member in members if member.base is not None]
        if len(members) > 1 and adapters:
            below = adapters[0].base
            assert below is not None
            load = partial(_load_with_adapters, session, below.argument, [adapter.text for adapter in adapters], {**options, "base": None})
            found |= {member.text: load for member in members}
    return found


def _load_with_adapters(session: Session, base: str, adapters: Sequence[str], options: Mapping[str, Any]) -> Engine:
    """Open a base and give it adapters.

    Raises:
        EngineError: When the engine cannot have adapters.
    """
    from sftchat.engine import Adapts

    engine = session.load_engine(base, **options)
    if not isinstance(engine, Adapts):
        raise EngineError(f"the engine of '{base}' takes no adapters")
    for adapter in adapters:
        engine.add_adapter(adapter, adapter)
    return engine


def wanted_session(sessions: Sessions, go_on: bool, name: str | None) -> Summary | None:
    """The session to go on with; None for a new one.

    Raises:
        UsageError: When there is no such session.
    """
    if not go_on and name is None:
        return None
    found = sessions.find(name or "")
    if found is None:
        raise UsageError(f"no session '{name}'; /sessions lists them" if name else "there is no conversation to go on with yet")
    return found


def chosen_models(given: Sequence[str], found: Summary | None) -> tuple[str, ...]:
    """The models to chat with: those given, else those of the session that goes on, else one of the runs here that the user chooses.

    Raises:
        UsageError: When there is nobody to choose, or nothing to choose from.
    """
    from sftchat.models.reference import NANO, expand

    if given:
        return expand(given)
    if found is not None and found.metadata.models:
        return found.metadata.models
    from sftchat.models.runs import find_runs

    runs = find_runs(Path())
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        near = f", such as '{runs[0].model}'" if runs else f"; the embedded one is {NANO}"
        raise UsageError(f"no MODEL given{near}")
    offered = [*((run.model, run.about) for run in runs), (NANO, "the embedded model")]
    wide = max(len(model) for model, _ in offered)
    for number, (model, about) in enumerate(offered, start=1):
        click.echo(f"{number:>3}  {model:<{wide}}  {about}".rstrip(), err=True)
    chosen = click.prompt("which one", type=click.IntRange(1, len(offered)), default=1, err=True)
    return (offered[chosen - 1][0],)
