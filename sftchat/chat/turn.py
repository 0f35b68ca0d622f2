"""One chat turn: fit the request into the model's context, generate the replies, record them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sftchat.chat.context import ChatContext, Overflow
from sftchat.chat.conversation import Answer, Conversation
from sftchat.engine import Chunk, Counts, Engine, Inspects, Renders, Request, append_chunk, collect
from sftchat.errors import EngineError, SftchatError, in_one_line
from sftchat.text import pluralize
from sftchat.thinking import LATE_THOUGHTS_NOTE, THOUGHTS_END, has_only_thoughts
from sftchat.types import FinishReason, Reply

if TYPE_CHECKING:
    from sftchat.chat.context import View
    from sftchat.chat.pane import EngineThread


class PendingReply:
    """A reply that is being generated.

    Args:
        started: Time of the request in seconds, on the clock used for ``add``.
        draft: The answer to continue, with the text it has already.

    Attributes:
        text: Text so far, including the draft.
        thoughts: Thoughts so far, when the engine separates them from the text.
        text_was_thoughts: True when text that was shown turned out to be thoughts.
        opened: True when the template opened the thoughts, so that the text starts inside them.
        refused: True when the server reported a refusal.
        token_ids: Token ids of the text, when the engine returns them.
        choices: Tokens of the text with log-probabilities, when requested and returned.
        tokens: Number of tokens generated in this turn.
        all_tokens: Number of tokens of the whole reply.
        dropped: Number of oldest turns left out of the prompt.
    """

    def __init__(self, started: float, draft: Answer) -> None:
        self.text = draft.reply.text
        self.thoughts = draft.reply.thoughts
        self.text_was_thoughts = False
        self.opened = False
        self.refused = draft.reply.refused
        self.token_ids = list(draft.token_ids)
        self.choices = list(draft.choices)
        self.tokens = 0
        self.all_tokens = draft.reply.completion_tokens
        self.dropped = 0
        self._started = started
        self._first = 0.0
        self._last = 0.0

    def add(self, chunk: Chunk, now: float) -> None:
        """Add a chunk that arrived at time ``now`` in seconds."""
        self.refused = self.refused or chunk.refused
        self.opened = self.opened or chunk.thoughts_opened
        if chunk.revises == "thought":
            self.choices.clear()
        self.choices += chunk.choices
        if not (chunk.text or chunk.tokens or chunk.thoughts or chunk.revises):
            return  # an engine may yield an empty chunk so that it can be stopped; that is not the first token
        self._first, self._last = self._first or now, now
        self.text, self.thoughts = append_chunk(self.text, self.thoughts, chunk)
        self.text_was_thoughts = self.text_was_thoughts or chunk.revises == "thought"
        self.token_ids += chunk.token_ids
        self.tokens += chunk.tokens
        self.all_tokens += chunk.tokens

    @property
    def thinking(self) -> bool:
        """True when the template opened the thoughts and they have not ended."""
        return self.opened and THOUGHTS_END not in self.text

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token (whose time is prefill); 0 when unknown."""
        seconds = self._last - self._first
        return (self.tokens - 1) / seconds if seconds > 0 and self.tokens > 1 else 0.0

    @property
    def first_token_seconds(self) -> float:
        """Time to first token; 0 before it."""
        return max(0.0, self._first - self._started) if self._first else 0.0

    @property
    def seconds(self) -> float:
        """Time to last token; 0 before the first."""
        return max(0.0, self._last - self._started) if self._last else 0.0


def fit(engine: Engine, request: Request, overflow: Overflow) -> tuple[Request, int]:
    """Fit a request into the model's context window; return the request to send and the number of oldest turns left out.

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
        return request, 0
    limit, reply = engine.context_length, request.sampling.max_new_tokens
    wanted = 1 if overflow == "stop" else min(reply, limit - 1)
    used = engine.count_tokens(request)
    dropped = 0
    while overflow == "drop-oldest" and used + wanted > limit and (fewer := _without_oldest(request)) is not None:
        request, dropped = fewer, dropped + 1
        used = engine.count_tokens(request)
    if used + wanted <= limit:
        return request, dropped
    if overflow == "refuse" and used < limit:
        raise EngineError(
            f"the conversation has {used} tokens and the reply may have {reply}, the context holds {limit}; "
            "'/set overflow drop-oldest' leaves out the oldest turns, '/set max_new_tokens N' asks for less"
        )
    remedy = (
        "the message alone is too long"
        if dropped or _without_oldest(request) is None
        else "'/set overflow drop-oldest' leaves out the oldest turns, /undo and /reset take them back"
    )
    raise EngineError(
        f"the context is full: the conversation has {used} tokens, the context holds {limit}, prompt and reply together; {remedy}"
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
        chat: The chat whose panes reply.
        conversation: Conversation that ends with the user's message.
        partial_answers: By pane, answers to continue, or to keep if they are complete.
        view: Shows the replies.
        clock: Monotonic clock in seconds.
        answered: Called with the answers, one for each pane, before the view draws the end of the last reply.
        over: Called after the view has drawn the end of the last reply.
    """

    def __init__(
        self,
        chat: ChatContext,
        conversation: Conversation,
        partial_answers: Mapping[int, Answer],
        view: View,
        clock: Callable[[], float],
        *,
        answered: Callable[[tuple[Answer, ...]], None],
        over: Callable[[], None],
    ) -> None:
        self._answered = answered
        self._over = over
        self._panes = chat.panes
        self._conversation = conversation
        self._settings = chat.settings
        self._session = chat.services.session
        self._view = view
        self._clock = clock
        self._stop = threading.Event()
        self._answers = {pane: answer for pane, answer in partial_answers.items() if not answer.partial}
        self._drafts = {pane: self._draft(pane, partial_answers.get(pane)) for pane in range(len(self._panes)) if pane not in self._answers}
        self._generations = {pane: PendingReply(clock(), draft) for pane, draft in self._drafts.items()}

    def start(self) -> None:
        """Start to generate."""
        if not self._generations:
            self._end()
            self._over()
            return
        batches: dict[EngineThread, dict[int, tuple[Request, PendingReply]]] = {}
        for pane, generation in self._generations.items():
            self._panes[pane].generation = generation
            self._session.begin(self._conversation.head, pane, self._drafts[pane])
            self._view.begin_reply(pane, generation.text)
            batches.setdefault(self._panes[pane].engine_thread, {})[pane] = (self._request(pane), generation)
        for engine_thread, requests in batches.items():
            engine_thread.do(partial(self._generate, requests))

    def stop(self) -> None:
        """Stop all replies and keep the partial ones."""
        self.cancel()
        for pane in list(self._generations):
            self._finish(pane, self._generations[pane], "cancelled")

    def _draft(self, pane: int, earlier: Answer | None) -> Answer:
        """Return the answer of a pane before generation; a resampled answer gets a new seed."""
        sampling = self._settings.sampling
        attempts = sum(node.parent == self._conversation.head for node in self._conversation.nodes)
        return Answer(
            replace(earlier.reply, finish_reason="cancelled") if earlier is not None else Reply("", "cancelled"),
            self._panes[pane].name,
            self._panes[pane].adapter,
            replace(sampling, seed=sampling.seed + attempts) if sampling.temperature else sampling,
            self._settings.template_arguments,
            earlier.token_ids if earlier is not None else (),
            earlier.choices if earlier is not None else (),
        )

    def cancel(self) -> None:
        """Stop the engines and discard further output."""
        self._stop.set()

    def _request(self, pane: int) -> Request:
        conversation = self._conversation.seen_by(pane)
        number = len(conversation.turns)
        draft = self._drafts[pane]
        return Request(
            f"turn-{number}-{pane}" if pane else f"turn-{number}",
            conversation.messages,
            sampling=draft.sampling,
            adapter=self._panes[pane].adapter,
            reply_prefix=self._generations[pane].text,
            template_arguments=self._settings.template_arguments,
            # A continued reply needs the log-probabilities of its first part too.
            logprobs=ALTERNATIVES if self._settings.logprobs and (draft.choices or not draft.reply.text) else None,
        )

    # engine thread

    def _generate(self, batch: Mapping[int, tuple[Request, PendingReply]], engine: Engine) -> None:
        """Generate the replies of the panes that share an engine."""
        panes = {request.id: pane for pane, (request, _) in batch.items()}
        wanted: list[Request] = []

        def post(pane: int, reason: FinishReason, prompt_tokens: int = 0, problem: str = "") -> None:
            self._view.post(partial(self._finish, pane, batch[pane][1], reason, prompt_tokens, problem))

        def show(chunk: Chunk) -> None:
            pane = panes[chunk.request_id]
            self._view.post(partial(self._add_chunk, pane, batch[pane][1], chunk))

        if self._stop.is_set():
            return
        try:
            for pane, (request, generation) in batch.items():
                try:
                    fitted, dropped = fit(engine, _exact(engine, request, generation.token_ids), self._settings.overflow)
                except SftchatError as error:
                    post(pane, "error", problem=str(error))
                    continue
                if dropped:
                    self._view.post(partial(self._note_dropped, pane, generation, dropped))
                wanted.append(fitted)
            replies = dict(collect(engine, wanted, on_chunk=show, stop=self._stop.is_set)) if wanted else {}
        except Exception as error:  # any error in a model library ends the replies, not the chat
            for pane in batch:
                post(pane, "error", problem=in_one_line(error))
            return
        for id, reply in replies.items():
            if isinstance(reply, EngineError):
                post(panes[id], "error", problem=str(reply))
            else:
                post(panes[id], reply.finish_reason, reply.prompt_tokens)

    # UI thread

    def _add_chunk(self, pane: int, generation: PendingReply, chunk: Chunk) -> None:
        """Handle a chunk of a reply; chunks that arrive after the reply was stopped are ignored."""
        if self._generations.get(pane) is not generation:
            return
        generation.add(chunk, self._clock())
        self._session.piece(self._conversation.head, pane, chunk)
        if chunk.revises == "thought":  # the text shown so far was thoughts
            self._view.text_was_thoughts(pane)
        elif chunk.thoughts:
            self._view.show_thoughts(chunk.thoughts, pane)
        if chunk.text:
            self._view.show_piece(chunk.text, pane)

    def _note_dropped(self, pane: int, generation: PendingReply, turns: int) -> None:
        """Record and report that the oldest turns did not fit into the context."""
        if self._generations.get(pane) is generation:
            generation.dropped = turns
            lost = "the first turn is" if turns == 1 else f"the first {turns} turns are"
            self._view.info(f"{self._who(pane)}the context is full: {lost} not shown to the model")

    def _finish(self, pane: int, generation: PendingReply, reason: FinishReason, prompt_tokens: int = 0, problem: str = "") -> None:
        """Finish a reply: keep the generated text, or remove the message when there is none."""
        if self._generations.get(pane) is not generation:
            return
        del self._generations[pane]
        model = self._panes[pane]
        model.ended(generation, prompt_tokens)
        draft = self._drafts[pane]
        self._answers[pane] = answer = replace(
            draft,
            reply=Reply(
                generation.text,
                reason,
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
        self._view.end_reply(pane)
        if generation.text_was_thoughts:
            self._view.info(f"{self._who(pane)}{LATE_THOUGHTS_NOTE}")
        outcome = "the message is taken back" if answer.silent else "the partial reply is kept"
        if reason == "error":
            self._view.error(f"{self._who(pane)}{problem}; {outcome}")
        elif reason == "cancelled":
            self._view.info(f"{self._who(pane)}stopped; {outcome}")
        elif reason == "length" and 0 < model.context_length <= model.context_used:
            remedy = "'/set overflow drop-oldest' makes room"
            self._view.info(f"{self._who(pane)}cut where the context ends, at {model.context_used} tokens of prompt and reply; {remedy}")
        elif has_only_thoughts(answer.reply) or (reason == "length" and generation.thinking):
            self._view.info(
                f"{self._who(pane)}cut while thinking, at {pluralize(generation.all_tokens, 'token')}; '/set max_new_tokens N' allows more"
            )
        elif reason == "length":
            remedy = "/continue goes on, '/set max_new_tokens N' allows more"
            self._view.info(f"{self._who(pane)}cut at {generation.all_tokens} tokens; {remedy}")
        elif generation.refused:
            self._view.info(f"{self._who(pane)}the server marks the reply as a refusal")
        elif not generation.text:
            self._view.info(f"{self._who(pane)}the model said nothing")
        if not self._generations:
            self._over()

    def _end(self) -> None:
        self._answered(tuple(self._answers[pane] for pane in range(len(self._panes))))

    def _who(self, pane: int) -> str:
        """Name the model that a note is about; empty when there is only one."""
        return f"{self._panes[pane].name}: " if len(self._panes) > 1 else ""


def _exact(engine: Engine, request: Request, token_ids: Sequence[int]) -> Request:
    """Return a request that continues the exact tokens of a partial reply, provided they decode to its text; tokenizing the text again
    could give other tokens.
    """
    text = request.reply_prefix
    if not (text and token_ids and isinstance(engine, Inspects)) or text.endswith("\ufffd"):
        return request
    same_text = engine.decode(token_ids, request.adapter) == text
    return replace(request, reply_prefix="", reply_ids=tuple(token_ids)) if same_text else request
