"""One chat turn: fit the request into the model's context, generate the replies, record them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sftchat.chat.context import ALTERNATIVES_PER_TOKEN, ChatContext, Overflow
from sftchat.chat.conversation import Answer, Conversation
from sftchat.engine import Chunk, Counts, Engine, Inspects, Renders, Request, append_chunk, collect
from sftchat.errors import EngineError, SftchatError, in_one_line
from sftchat.text import pluralize
from sftchat.thinking import LATE_THOUGHTS_NOTE, THOUGHTS_END, has_only_thoughts
from sftchat.types import FinishReason, Reply

if TYPE_CHECKING:
    from sftchat.chat.context import View
    from sftchat.chat.pane import EngineThread, ModelPane


class PendingReply:
    """A reply that is being generated.

    Args:
        started: Time of the request in seconds, on the clock used for ``add``.
        draft: The answer to continue, with the text it has already.

    Attributes:
        text: Text so far, including the draft.
        thoughts: Thoughts so far, when the engine separates them from the text.
        text_was_thoughts: True when text that was shown turned out to be thoughts.
        opened_by_template: True when the template opened the thoughts, so that the text starts inside them.
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
        self.opened_by_template = False
        self.refused = draft.reply.refused
        self.token_ids = list(draft.token_ids)
        self.choices = list(draft.choices)
        self.tokens = 0
        self.all_tokens = draft.reply.completion_tokens
        self.dropped = 0
        self._started = started
        self._first_token_at = self._last_token_at = 0.0  # times on the same clock; 0 before the first token

    def add(self, chunk: Chunk, now: float) -> None:
        """Add a chunk that arrived at time ``now`` in seconds."""
        self.refused = self.refused or chunk.refused
        self.opened_by_template = self.opened_by_template or chunk.thoughts_opened
        if chunk.revises == "thought":
            self.choices.clear()
        self.choices += chunk.choices
        if not (chunk.text or chunk.tokens or chunk.thoughts or chunk.revises):
            return  # an engine may yield an empty chunk so that it can be stopped; that is not the first token
        self._first_token_at, self._last_token_at = self._first_token_at or now, now
        self.text, self.thoughts = append_chunk(self.text, self.thoughts, chunk)
        self.text_was_thoughts = self.text_was_thoughts or chunk.revises == "thought"
        self.token_ids += chunk.token_ids
        self.tokens += chunk.tokens
        self.all_tokens += chunk.tokens

    @property
    def still_thinking(self) -> bool:
        """True when the template opened the thoughts and they have not ended."""
        return self.opened_by_template and THOUGHTS_END not in self.text

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token (whose time is prefill); 0 when unknown."""
        seconds = self._last_token_at - self._first_token_at
        return (self.tokens - 1) / seconds if seconds > 0 and self.tokens > 1 else 0.0

    @property
    def first_token_seconds(self) -> float:
        """Time to first token; 0 before it."""
        return max(0.0, self._first_token_at - self._started) if self._first_token_at else 0.0

    @property
    def seconds(self) -> float:
        """Time to last token; 0 before the first."""
        return max(0.0, self._last_token_at - self._started) if self._last_token_at else 0.0


def fit_context(engine: Engine, request: Request, overflow: Overflow) -> tuple[Request, int]:
    """Fit a request into the model's context window; return the request to send and the number of oldest turns left out.

    The request is returned unchanged when the engine cannot count tokens, for example behind a server, which enforces its own limit.

    Args:
        engine: Engine that will receive the request.
        request: Request with messages; the last one is from the user.
        overflow: ``stop``: there must be space for one token. ``refuse``: there must be space for all of ``max_new_tokens``.
            ``drop-oldest``: leave out the oldest turns, never the system prompt, until there is space for ``max_new_tokens``.

    Raises:
        EngineError: When it does not fit.
    """
    if not (isinstance(engine, Counts) and isinstance(engine, Renders)):
        return request, 0
    limit, max_new_tokens = engine.context_length, request.sampling.max_new_tokens
    reserved = 1 if overflow == "stop" else min(max_new_tokens, limit - 1)
    used = engine.count_tokens(request)
    dropped = 0
    if overflow == "drop-oldest":
        while used + reserved > limit and (shorter := _drop_oldest_turn(request)) is not None:
            request, dropped = shorter, dropped + 1
            used = engine.count_tokens(request)
    if used + reserved <= limit:
        return request, dropped
    if overflow == "refuse" and used < limit:
        raise EngineError(
            f"the conversation has {used} tokens and the reply may have {max_new_tokens}, the context holds {limit}; "
            "'/set overflow drop-oldest' leaves out the oldest turns, '/set max_new_tokens N' asks for less"
        )
    remedy = (
        "the message alone is too long"
        if dropped or _drop_oldest_turn(request) is None
        else "'/set overflow drop-oldest' leaves out the oldest turns, /undo and /reset take them back"
    )
    raise EngineError(
        f"the context is full: the conversation has {used} tokens, the context holds {limit}, prompt and reply together; {remedy}"
    )


def _drop_oldest_turn(request: Request) -> Request | None:
    """Return the request without its oldest turn; None when only one user message is left."""
    system = [message for message in request.messages if message["role"] == "system"]
    others = request.messages[len(system) :]
    return replace(request, messages=(*system, *others[2:])) if len(others) > 2 else None


class TurnRunner:
    """Runs one chat turn for all panes. Thread: UI, except ``_generate`` (engine thread).

    Args:
        chat: The chat whose panes reply.
        conversation: Conversation that ends with the user's message.
        partial_answers: By pane, answers to continue, or to keep if they are complete.
        view: Shows the replies.
        clock: Monotonic clock in seconds.
        on_answers: Called with the answers, one for each pane, before the view draws the end of the last reply.
        on_end: Called after the view has drawn the end of the last reply.
    """

    def __init__(
        self,
        chat: ChatContext,
        conversation: Conversation,
        partial_answers: Mapping[int, Answer],
        view: View,
        clock: Callable[[], float],
        *,
        on_answers: Callable[[tuple[Answer, ...]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._on_answers = on_answers
        self._on_end = on_end
        self._panes = chat.panes
        self._conversation = conversation
        self._settings = chat.settings
        self._session = chat.services.session
        self._view = view
        self._clock = clock
        self._stop = threading.Event()
        # all dicts have pane indices as keys
        self._answers = {pane: answer for pane, answer in partial_answers.items() if not answer.partial}
        unanswered = [pane for pane in range(len(self._panes)) if pane not in self._answers]
        self._drafts = {pane: self._make_draft(pane, partial_answers.get(pane)) for pane in unanswered}
        self._generations = {pane: PendingReply(clock(), draft) for pane, draft in self._drafts.items()}

    def start(self) -> None:
        """Start to generate."""
        if not self._generations:
            self._return_answers()
            self._on_end()
            return
        batches: dict[EngineThread, dict[int, tuple[Request, PendingReply]]] = {}
        for pane, generation in self._generations.items():
            self._panes[pane].generation = generation
            self._session.begin_reply(self._conversation.head, pane, self._drafts[pane])
            self._view.begin_reply(pane, generation.text)
            batches.setdefault(self._panes[pane].engine_thread, {})[pane] = (self._make_request(pane), generation)
        for engine_thread, batch in batches.items():
            engine_thread.submit(partial(self._generate, batch))

    def stop(self) -> None:
        """Stop all replies and keep the partial ones."""
        self.cancel()
        for pane in list(self._generations):
            self._finish(pane, self._generations[pane], "cancelled")

    def cancel(self) -> None:
        """Stop the engines and discard further output."""
        self._stop.set()

    def _make_draft(self, pane: int, partial_answer: Answer | None) -> Answer:
        """Return the answer of a pane before generation; a resampled answer gets a new seed."""
        sampling = self._settings.sampling
        if sampling.temperature:
            attempts = sum(node.parent == self._conversation.head for node in self._conversation.nodes)
            sampling = replace(sampling, seed=sampling.seed + attempts)
        return Answer(
            replace(partial_answer.reply, finish_reason="cancelled") if partial_answer is not None else Reply("", "cancelled"),
            model=self._panes[pane].name,
            adapter=self._panes[pane].adapter,
            sampling=sampling,
            template_arguments=self._settings.template_arguments,
            token_ids=partial_answer.token_ids if partial_answer is not None else (),
            choices=partial_answer.choices if partial_answer is not None else (),
        )

    def _make_request(self, pane: int) -> Request:
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
            # when a reply is continued, the log-probabilities of its first part are needed too
            logprobs=ALTERNATIVES_PER_TOKEN if self._settings.logprobs and (draft.choices or not draft.reply.text) else None,
        )

    # engine thread

    def _generate(self, batch: Mapping[int, tuple[Request, PendingReply]], engine: Engine) -> None:
        """Generate the replies of the panes that share an engine."""
        pane_of_request = {request.id: pane for pane, (request, _) in batch.items()}
        generations = {pane: generation for pane, (_, generation) in batch.items()}
        requests: list[Request] = []

        def post_finish(pane: int, reason: FinishReason, prompt_tokens: int = 0, problem: str = "") -> None:
            self._view.post(partial(self._finish, pane, generations[pane], reason, prompt_tokens, problem))

        def post_chunk(chunk: Chunk) -> None:
            pane = pane_of_request[chunk.request_id]
            self._view.post(partial(self._add_chunk, pane, generations[pane], chunk))

        if self._stop.is_set():
            return
        try:
            for pane, (request, generation) in batch.items():
                try:
                    exact_request = _with_exact_prefix(engine, request, generation.token_ids)
                    fitted_request, dropped = fit_context(engine, exact_request, self._settings.overflow)
                except SftchatError as error:
                    post_finish(pane, "error", problem=str(error))
                    continue
                if dropped:
                    self._view.post(partial(self._note_dropped, pane, generation, dropped))
                requests.append(fitted_request)
            replies = dict(collect(engine, requests, on_chunk=post_chunk, stop=self._stop.is_set)) if requests else {}
        except Exception as error:  # any error in a model library ends the replies, not the chat
            for pane in batch:
                post_finish(pane, "error", problem=in_one_line(error))
            return
        for id, reply in replies.items():
            if isinstance(reply, EngineError):
                post_finish(pane_of_request[id], "error", problem=str(reply))
            else:
                post_finish(pane_of_request[id], reply.finish_reason, reply.prompt_tokens)

    # UI thread

    def _add_chunk(self, pane: int, generation: PendingReply, chunk: Chunk) -> None:
        """Record and show a chunk of a reply."""
        if self._generations.get(pane) is not generation:  # the reply was stopped
            return
        generation.add(chunk, self._clock())
        self._session.add_piece(self._conversation.head, pane, chunk)
        if chunk.revises == "thought":  # the text shown so far was thoughts
            self._view.text_was_thoughts(pane, chunk.thoughts)
        elif chunk.thoughts:
            self._view.show_thoughts(chunk.thoughts, pane)
        if chunk.text:
            self._view.show_piece(chunk.text, pane)

    def _note_dropped(self, pane: int, generation: PendingReply, turns: int) -> None:
        """Record and report that the oldest turns did not fit into the context."""
        if self._generations.get(pane) is generation:
            generation.dropped = turns
            left_out = "the first turn is" if turns == 1 else f"the first {turns} turns are"
            self._view.info(f"{self._model_prefix(pane)}the context is full: {left_out} not shown to the model")

    def _finish(self, pane: int, generation: PendingReply, reason: FinishReason, prompt_tokens: int = 0, problem: str = "") -> None:
        """Make the answer of a pane from its finished reply, and show how the reply ended; ``problem`` is the error message, if any."""
        if self._generations.get(pane) is not generation:  # the reply was stopped
            return
        del self._generations[pane]
        self._panes[pane].finish_reply(generation, prompt_tokens)
        draft = self._drafts[pane]
        self._answers[pane] = answer = replace(
            draft,
            reply=Reply(
                generation.text,
                reason,
                # in a request that continues a reply, the tokens of the reply so far count as prompt
                prompt_tokens=draft.reply.prompt_tokens or max(0, prompt_tokens - draft.reply.completion_tokens),
                completion_tokens=generation.all_tokens,
                thoughts=generation.thoughts.strip("\n"),
                refused=generation.refused,
            ),
            token_ids=tuple(generation.token_ids),
            choices=tuple(generation.choices),
            dropped=generation.dropped,
            first_token_seconds=generation.first_token_seconds,
            seconds=generation.seconds,
        )
        if not self._generations:
            self._return_answers()  # before the view draws the end, so that it shows the chat as ready
        self._view.end_reply(pane)
        if generation.text_was_thoughts:
            self._view.info(self._model_prefix(pane) + LATE_THOUGHTS_NOTE)
        if note := _describe_end(answer, generation, self._panes[pane], problem):
            show = self._view.error if reason == "error" else self._view.info
            show(self._model_prefix(pane) + note)
        if not self._generations:
            self._on_end()

    def _return_answers(self) -> None:
        self._on_answers(tuple(self._answers[pane] for pane in range(len(self._panes))))

    def _model_prefix(self, pane: int) -> str:
        """Return the model's name, to begin a note about it; empty when there is only one model."""
        return f"{self._panes[pane].name}: " if len(self._panes) > 1 else ""


def _describe_end(answer: Answer, generation: PendingReply, pane: ModelPane, problem: str) -> str:
    """Return a note on a reply that did not end as usual; empty when it did."""
    reason = answer.reply.finish_reason
    if reason in ("error", "cancelled"):
        outcome = "the message is taken back" if answer.aborted_without_text else "the partial reply is kept"
        return f"{problem if reason == 'error' else 'stopped'}; {outcome}"
    if reason == "length" and 0 < pane.context_length <= pane.context_used:
        return f"cut where the context ends, at {pane.context_used} tokens of prompt and reply; '/set overflow drop-oldest' makes room"
    if has_only_thoughts(answer.reply) or (reason == "length" and generation.still_thinking):
        return f"cut while thinking, at {pluralize(generation.all_tokens, 'token')}; '/set max_new_tokens N' allows more"
    if reason == "length":
        return f"cut at {generation.all_tokens} tokens; /continue goes on, '/set max_new_tokens N' allows more"
    if generation.refused:
        return "the server marks the reply as a refusal"
    return "" if generation.text else "the model said nothing"


def _with_exact_prefix(engine: Engine, request: Request, token_ids: Sequence[int]) -> Request:
    """Replace the text of a partial reply by its token ids, if they decode to the text; tokenizing the text again could give other tokens."""
    text = request.reply_prefix
    if not text or not token_ids or not isinstance(engine, Inspects):
        return request
    if text.endswith("\ufffd") or engine.decode(token_ids, request.adapter) != text:  # U+FFFD: the last character is incomplete
        return request
    return replace(request, reply_prefix="", reply_ids=tuple(token_ids))
