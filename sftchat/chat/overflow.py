"""What happens when a talk grows longer than the model's context; never in silence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sftchat.chat.settings import Overflow
from sftchat.engines.base import Counts, Engine, Renders, Request
from sftchat.errors import EngineError


@dataclass(frozen=True)
class Fitted:
    """A request that fits.

    Attributes:
        request: What to ask.
        dropped: How many of the oldest turns are not in it.
    """

    request: Request
    dropped: int = 0


def fit(engine: Engine, request: Request, overflow: Overflow) -> Fitted:
    """Make a request fit into the context of a model, or say why it does not.

    An engine that cannot count tokens, as one behind a server, is asked as it is: the server knows its own limit.

    Args:
        engine: Who will be asked.
        request: With messages; the last is the user's.
        overflow: ``stop`` lets the reply end where the context does, ``refuse`` wants room for all of ``max_new_tokens``, ``drop-oldest``
            makes that room by leaving out the oldest turns, the system prompt never.

    Raises:
        EngineError: When it does not fit.
    """
    if not (isinstance(engine, Counts) and isinstance(engine, Renders)):
        return Fitted(request)
    room, reply = engine.context_length, request.sampling.max_new_tokens
    wanted = 1 if overflow == "stop" else min(reply, room - 1)
    used = engine.count_tokens(request)
    dropped = 0
    while overflow == "drop-oldest" and used + wanted > room and (fewer := _without_oldest(request)) is not None:
        request, dropped = fewer, dropped + 1
        used = engine.count_tokens(request)
    if used + wanted <= room:
        return Fitted(request, dropped)
    if overflow == "refuse" and used < room:
        raise EngineError(
            f"the talk has {used} tokens and the reply may have {reply}, the context holds {room}; "
            "'/set overflow drop-oldest' leaves out the oldest turns, '/set max_new_tokens N' asks for less"
        )
    remedy = (
        "the message alone is too long"
        if dropped or _without_oldest(request) is None
        else "'/set overflow drop-oldest' leaves out the oldest turns, /undo and /reset take them back"
    )
    raise EngineError(f"the context is full: the talk has {used} tokens, the context holds {room}, prompt and reply together; {remedy}")


def _without_oldest(request: Request) -> Request | None:
    """The request without its first question and the reply to it; None when only one question is left."""
    system = [message for message in request.messages if message["role"] == "system"]
    rest = request.messages[len(system) :]
    return replace(request, messages=(*system, *rest[2:])) if len(rest) > 2 else None
