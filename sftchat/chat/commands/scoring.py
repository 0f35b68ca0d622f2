"""Commands that use the task's evalset in the chat."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from sftchat.chat.commands.arguments import whole_number
from sftchat.chat.context import ChatCommand, ChatContext, Settings
from sftchat.engine import Chunk, Describes, Engine, Request
from sftchat.errors import EngineError, UsageError, list_quoted
from sftchat.types import Example, Reply

if TYPE_CHECKING:
    from sftchat.chat.conversation import Conversation
    from sftchat.chat.pane import JobHandle
    from sftchat.chat.scorer import GoldScorer

DEFAULT_ITEM_COUNT = 20


@dataclass(frozen=True)
class _ChatEngine:
    """Engine wrapper that adds the adapter and the template arguments of the chat to each request."""

    engine: Engine
    adapter: str
    settings: Settings

    @property
    def name(self) -> str:
        """Name of the wrapped engine."""
        return self.engine.name

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies with the wrapped engine."""
        return self.engine.generate(
            replace(request, adapter=self.adapter, template_arguments=self.settings.template_arguments) for request in requests
        )

    def close(self) -> None:
        """Do nothing: the chat still uses the engine."""


def _why_no_evalset(context: ChatContext) -> str:
    scorer = context.services.scorer
    if scorer is None:
        return "the conversation has no task; 'sftchat chat MODEL --task TASK' has"
    return "" if scorer.path is not None else f"task '{scorer.task.name}' has no evalset; --evalset FILE gives one"


def _evaluate_panes(context: ChatContext, argument: str) -> None:
    """Score the model of each pane on the same items, one pane at a time."""
    scorer = context.services.scorer
    assert scorer is not None
    count = min(whole_number(argument, "K", DEFAULT_ITEM_COUNT), len(scorer.examples))
    indices = sorted(random.Random(context.sampling.seed).sample(range(len(scorer.examples)), count))
    items = [scorer.examples[index] for index in indices]

    def evaluate(pane: int) -> None:
        model = context.panes[pane]
        settings, adapter = context.settings, model.adapter

        def done(metrics: str) -> None:
            with_adapter = f" with adapter {adapter}" if adapter else ""
            engine = model.engine
            precision = f" in {engine.precision}" if isinstance(engine, Describes) and engine.precision != "float32" else ""
            context.info(f"{model.name}{with_adapter}{precision}, {count} of {len(scorer.examples)} items: {metrics}")
            if pane + 1 < len(context.panes):
                evaluate(pane + 1)

        context.work(
            f"scoring {count} items",
            lambda engine, handle: _compute_metrics(_ChatEngine(engine, adapter, settings), scorer, items, handle),
            done,
            pane,
        )

    evaluate(0)


def _compute_metrics(engine: Engine, scorer: GoldScorer, items: list[Example], handle: JobHandle) -> str:
    """Score a model on items; return its metrics as text.

    Raises:
        EngineError: When no item got a reply, the engine cannot generate any more, or the user stopped the job.
        PluginError: When the task's scorer or one of its metrics breaks its contract.
    """
    from sftchat.evaluation.evalset import EvalsetIdentity
    from sftchat.evaluation.evaluate import generate_outcomes, summarise
    from sftchat.evaluation.scored import Failure, collect_outcomes

    def raise_if_stopped(_: object) -> None:
        if handle.stopped:
            raise EngineError("stopped")

    outcomes = list(generate_outcomes(engine, scorer.task, items, raise_if_stopped))
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if len(failures) == len(outcomes):
        raise EngineError(f"no item was answered: {failures[0].error}")
    result = summarise(engine.name, scorer.task, collect_outcomes(outcomes), EvalsetIdentity("chat"))
    texts = []
    for metric in result.metrics:
        interval = f" [{metric.low:.3f}, {metric.high:.3f}]" if metric.low is not None else ""
        texts.append(f"{metric.name} {metric.value:.3f}{interval}")
    unanswered = f"; {len(failures)} not answered: {failures[0].error}" if failures else ""
    return ", ".join(texts) + unanswered


def _send_item(context: ChatContext, argument: str) -> None:
    """Send an evalset item on a new branch from the root, so that the model sees it as in an evaluation."""
    scorer = context.services.scorer
    assert scorer is not None
    by_id = {example.id: example for example in scorer.examples}
    if argument in by_id:
        example = by_id[argument]
    elif argument.isdecimal() and 1 <= int(argument) <= len(scorer.examples):
        example = scorer.examples[int(argument) - 1]
    else:
        ids = list_quoted(list(by_id), 3)
        raise UsageError(f"no item '{argument}': give a number from 1 to {len(scorer.examples)} or an id, such as {ids}")
    context.generate(_ask_item(context.conversation, example))


def _ask_item(conversation: Conversation, example: Example) -> Conversation:
    """Return the conversation with its head at the root and the messages of an example added."""
    from sftchat.chat.conversation import Answer

    messages = list(example.messages)
    conversation = conversation.reset()
    if messages[0]["role"] == "system":
        conversation = conversation.with_system(messages.pop(0)["content"])
    for message in messages:
        text = message["content"]
        conversation = conversation.ask(text) if message["role"] == "user" else conversation.answer(Answer(Reply(text)))
    return conversation


def _complete_item(context: ChatContext, argument: str) -> Iterable[str]:
    scorer = context.services.scorer
    return [example.id for example in scorer.examples] if scorer is not None else []


_command = partial(ChatCommand, topic="data")
COMMANDS = (
    _command("eval", "score 20 items of the evalset, or K", _evaluate_panes, "[K]", unavailable_reason=_why_no_evalset),
    _command("item", "send an item of the evalset", _send_item, "N|ID", _complete_item, unavailable_reason=_why_no_evalset),
)
