"""One chat turn: fit the request into the model's context, generate the replies, record them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from sftchat.chat.context import ChatContext
from sftchat.chat.conversation import Answer, Conversation
from sftchat.chat.reply import PendingReply, stream_replies
from sftchat.chat.settings import Overflow
from sftchat.engine import Chunk, Counts, Engine, Inspects, Renders, Request
from sftchat.errors import EngineError, SftchatError, in_one_line
from sftchat.text import pluralize
from sftchat.thinking import LATE, only_thoughts
from sftchat.types import FinishReason, Reply

if TYPE_CHECKING:
    from sftchat.chat.engine_thread import EngineThread
    from sftchat.chat.view import View


@dataclass(frozen=True)
class Fitted:
    """A request that fits into the context.

    Attributes:
        request: The request to send.
        dropped: Number of oldest turns left out.
    """

    request: Request
    dropped: int = 0


def fit(engine: Engine, request: Request, overflow: Overflow) -> Fitted:
    """Fit a request into the model's context window.

    The request is returned unchanged when the engine cannot count tokens, for example behind a server, which enforces its own limit.

    Args:
        engine: Engine that will receive the request.
        request: Request with messages; the last one is from the user.
        overflow: ``stop``: the reply may end where the context ends. ``refuse``: there must be space for all of ``max_new_tokens``.
            ``drop-oldest``: leave out the oldest turns, never the system prompt, until there is space for ``max_new_tokens``.

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
            f"the conversation has {used} tokens and the reply may have {reply}, the context holds {room}; "
            "'/set overflow drop-oldest' leaves out the oldest turns, '/set max_new_tokens N' asks for less"
        )
    remedy = (
        "the message alone is too long"
        if dropped or _without_oldest(request) is None
        else "'/set overflow drop-oldest' leaves out the oldest turns, /undo and /reset take them back"
    )
    raise EngineError(
        f"the context is full: the conversation has {used} tokens, the context holds {room}, prompt and reply together; {remedy}"
    )


def _without_oldest(request: Request) -> Request | None:
    """Return the request without its oldest turn; None when only one user message is left."""
    system = [message for message in request.messages if message["role"] == "system"]
    rest = request.messages[len(system) :]
    return replace(request, messages=(*system, *rest[2:])) if len(rest) > 2 else None


ALTERNATIVES = 10
"""Number of most likely tokens per position that ``/why`` lists and that are requested from servers."""


class TurnRunner:
    """Runs one chat turn for all panes. Thread: UI, except ``_generate`` (engine thread).

    Args:
        talk: The chat whose panes reply.
        conversation: Conversation that ends with the user's message.
        begun: By pane, answers to continue, or to keep if they are complete.
        view: Shows the replies.
        clock: Monotonic clock in seconds.
        answered: Called with the answers, one for each pane, before the view draws the end of the last reply.
        over: Called after the view has drawn the end of the last reply.
    """

    def __init__(
        self,
        talk: ChatContext,
        conversation: Conversation,
        begun: Mapping[int, Answer],
        view: View,
        clock: Callable[[], float],
        *,
        answered: Callable[[tuple[Answer, ...]], None],
        over: Callable[[], None],
    ) -> None:
        self._answered = answered
        self._over = over
        self._columns = talk.columns
        self._conversation = conversation
        self._settings = talk.settings
        self._session = talk.desk.session
        self._view = view
        self._clock = clock
        self._answers = {column: answer for column, answer in begun.items() if not answer.partial}
        self._drafts = {
            column: self._draft(column, begun.get(column)) for column in range(len(self._columns)) if column not in self._answers
        }
        self._generations = {column: PendingReply(clock(), draft) for column, draft in self._drafts.items()}

    def start(self) -> None:
        """Start to generate."""
        if not self._generations:
            self._end()
            self._over()
            return
        batches: dict[EngineThread, dict[int, tuple[Request, PendingReply]]] = {}
        for column, generation in self._generations.items():
            self._columns[column].generation = generation
            self._session.begin(self._conversation.head, column, self._drafts[column])
            self._view.begin_reply(column, generation.text)
            batches.setdefault(self._columns[column].worker, {})[column] = (self._request(column), generation)
        for worker, requests in batches.items():
            worker.do(partial(self._generate, requests))

    def stop(self) -> None:
        """Stop all replies and keep the partial ones."""
        for column in list(self._generations):
            self._generations[column].stop.set()
            self._finish(column, self._generations[column], "cancelled")

    def _draft(self, column: int, begun: Answer | None) -> Answer:
        """Return the answer of a pane before generation; a resampled answer gets a new seed."""
        sampling = self._settings.sampling
        attempts = sum(node.parent == self._conversation.head for node in self._conversation.nodes)
        return Answer(
            replace(begun.reply, finish_reason="cancelled") if begun is not None else Reply("", "cancelled"),
            self._columns[column].name,
            self._columns[column].adapter,
            replace(sampling, seed=sampling.seed + attempts) if sampling.temperature else sampling,
            self._settings.template_arguments,
            begun.token_ids if begun is not None else (),
            begun.choices if begun is not None else (),
        )

    def cancel(self) -> None:
        """Stop the engines and discard further output."""
        for generation in self._generations.values():
            generation.stop.set()

    def _request(self, column: int) -> Request:
        """Build the request for the model of a pane."""
        conversation = self._conversation.seen_by(column)
        number = len(conversation.turns)
        draft = self._drafts[column]
        return Request(
            f"turn-{number}-{column}" if column else f"turn-{number}",
            conversation.messages,
            sampling=draft.sampling,
            adapter=self._columns[column].adapter,
            reply_prefix=self._generations[column].text,
            template_arguments=self._settings.template_arguments,
            # A continued reply needs the log-probabilities of its first part too.
            logprobs=ALTERNATIVES if self._settings.logprobs and (draft.choices or not draft.reply.text) else None,
        )

    # engine thread

    def _generate(self, batch: Mapping[int, tuple[Request, PendingReply]], engine: Engine) -> None:
        """Generate the replies of the panes that share an engine."""
        columns = {request.id: column for column, (request, _) in batch.items()}
        wanted: list[Request] = []
        stops: dict[str, threading.Event] = {}

        def post(column: int, why: FinishReason, prompt_tokens: int = 0, problem: str = "") -> None:
            self._view.post(partial(self._finish, column, batch[column][1], why, prompt_tokens, problem))

        def show(chunk: Chunk) -> None:
            column = columns[chunk.request_id]
            self._view.post(partial(self._piece, column, batch[column][1], chunk))

        try:
            for column, (request, generation) in batch.items():
                if generation.stop.is_set():
                    continue
                try:
                    fitted = fit(engine, _exact(engine, request, generation.token_ids), self._settings.overflow)
                except SftchatError as error:
                    post(column, "error", problem=str(error))
                    continue
                if fitted.dropped:
                    self._view.post(partial(self._dropped, column, generation, fitted.dropped))
                wanted.append(fitted.request)
                stops[request.id] = generation.stop
            replies = stream_replies(engine, wanted, show, stops) if wanted else {}
        except Exception as error:  # any error in a model library ends the replies, not the chat
            for column in batch:
                post(column, "error", problem=in_one_line(error))
            return
        for id, reply in replies.items():
            if isinstance(reply, EngineError):
                post(columns[id], "error", problem=str(reply))
            else:
                post(columns[id], reply.finish_reason, reply.prompt_tokens)

    # UI thread

    def _piece(self, column: int, generation: PendingReply, chunk: Chunk) -> None:
        """Handle a chunk of a reply; chunks that arrive after the reply was stopped are ignored."""
        if self._generations.get(column) is not generation:
            return
        generation.add(chunk, self._clock())
        self._session.piece(self._conversation.head, column, chunk)
        if chunk.revises == "thought":  # the text shown so far was thoughts
            self._view.show_late_thoughts(column)
        elif chunk.thoughts:
            self._view.show_thoughts(chunk.thoughts, column)
        if chunk.text:
            self._view.show_piece(chunk.text, column)

    def _dropped(self, column: int, generation: PendingReply, turns: int) -> None:
        """Record and report that the oldest turns did not fit into the context."""
        if self._generations.get(column) is generation:
            generation.dropped = turns
            lost = "the first turn is" if turns == 1 else f"the first {turns} turns are"
            self._view.say(f"{self._who(column)}the context is full: {lost} not shown to the model")

    def _finish(self, column: int, generation: PendingReply, why: FinishReason, prompt_tokens: int = 0, problem: str = "") -> None:
        """Finish a reply: keep the generated text, or remove the message when there is none."""
        if self._generations.get(column) is not generation:
            return
        del self._generations[column]
        model = self._columns[column]
        model.ended(generation, prompt_tokens)
        draft = self._drafts[column]
        self._answers[column] = answer = replace(
            draft,
            reply=Reply(
                generation.text,
                why,
                draft.reply.prompt_tokens or max(0, prompt_tokens - draft.reply.completion_tokens),
                generation.all_tokens,
                generation.thoughts.strip("\n"),
                generation.refused,
            ),
            token_ids=tuple(generation.token_ids),
            choices=tuple(generation.choices),
            dropped=generation.dropped,
            first_token_seconds=generation.first_token_seconds,
            seconds=generation.seconds,
        )
        if not self._generations:
            self._end()  # before the view draws the end, so that it shows the chat as ready
        self._view.end_reply(column)
        if generation.late:
            self._view.say(f"{self._who(column)}{LATE}")
        fate = "the message is taken back" if answer.silent else "what was said is kept"
        if why == "error":
            self._view.complain(f"{self._who(column)}{problem}; {fate}")
        elif why == "cancelled":
            self._view.say(f"{self._who(column)}stopped; {fate}")
        elif why == "length" and 0 < model.context_length <= model.context_used:
            remedy = "'/set overflow drop-oldest' makes room"
            self._view.say(f"{self._who(column)}cut where the context ends, at {model.context_used} tokens of prompt and reply; {remedy}")
        elif only_thoughts(answer.reply) or (why == "length" and generation.thinking):
            self._view.say(
                f"{self._who(column)}cut while thinking, at {pluralize(generation.all_tokens, 'token')}; '/set max_new_tokens N' allows more"
            )
        elif why == "length":
            remedy = "/continue goes on, '/set max_new_tokens N' allows more"
            self._view.say(f"{self._who(column)}cut at {generation.all_tokens} tokens; {remedy}")
        elif generation.refused:
            self._view.say(f"{self._who(column)}the server marks the reply as a refusal")
        elif not generation.text:
            self._view.say(f"{self._who(column)}the model said nothing")
        if not self._generations:
            self._over()

    def _end(self) -> None:
        """Report the answers when all replies are complete."""
        self._answered(tuple(self._answers[column] for column in range(len(self._columns))))

    def _who(self, column: int) -> str:
        """Name the model that a note is about; empty when there is only one."""
        return f"{self._columns[column].name}: " if len(self._columns) > 1 else ""


def _exact(engine: Engine, request: Request, token_ids: Sequence[int]) -> Request:
    """Return a request that continues the exact tokens of a partial reply, provided they decode to its text; tokenizing the text again
    could give other tokens.
    """
    said = request.reply_prefix
    if not (said and token_ids and isinstance(engine, Inspects)) or said.endswith("\ufffd"):
        return request
    known = engine.decode(token_ids, request.adapter) == said
    return replace(request, reply_prefix="", reply_ids=tuple(token_ids)) if known else request
