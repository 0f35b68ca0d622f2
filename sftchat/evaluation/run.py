"""Generate replies to the examples of an evalset and score them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from sftchat.data.turns import tools_of
from sftchat.engine import Engine, Request, collect
from sftchat.errors import EngineError, PluginError
from sftchat.evaluation.evalset import check_examples
from sftchat.task import Task, score_reply
from sftchat.types import Example, Reply, SamplingParams, Score


@dataclass(frozen=True)
class Item:
    """One example with the model's reply and the task's score."""

    example: Example
    reply: Reply
    score: Score

    @property
    def right(self) -> bool:
        """Whether the scorer found no error."""
        return not self.score.errors


@dataclass(frozen=True)
class Failure:
    """One example without a reply. It is not scored, so that a dead server is not mistaken for a bad model.

    Attributes:
        example: The example of the request.
        error: Error message of the engine.
    """

    example: Example
    error: str


Outcome = Item | Failure
Pair = tuple[Item, Item]
"""The same item twice: with the baseline's reply and with the candidate's."""
Progress = Callable[[Outcome], None]


def run(
    engine: Engine,
    task: Task,
    examples: Sequence[Example],
    on_progress: Progress | None = None,
    *,
    sampling: SamplingParams | None = None,
    scorer: Scorer | None = None,
) -> Iterator[Outcome]:
    """Generate and score replies, yielded in example order whatever the order of completion.

    Closing the iterator cancels the running requests.

    Args:
        engine: Receives all requests at once and batches them itself.
        task: Task whose scorer is used.
        examples: Examples with unique ids and gold replies.
        on_progress: Called with every outcome as soon as it is available, in order of completion.
        sampling: Sampling parameters; the task's own by default.
        scorer: Scorer of the task, to share count keys or scores between runs; a new one by default.

    Raises:
        DataError: When ids are not unique or a gold reply is missing.
        EngineError: When the engine cannot generate any more.
        PluginError: When the task's scorer breaks its contract.
    """
    check_examples(examples)
    judged = scorer or Scorer(task)
    by_id = {example.id: example for example in examples}
    params = task.sampling if sampling is None else sampling
    requests = requests_of(examples, params)
    ready: dict[str, Outcome] = {}
    position = 0
    with closing(collect(engine, requests)) as replies:
        for request_id, answer in replies:
            example = by_id[request_id]
            outcome = Failure(example, str(answer)) if isinstance(answer, EngineError) else judged(example, answer)
            if on_progress is not None:
                on_progress(outcome)
            ready[request_id] = outcome
            while position < len(examples) and examples[position].id in ready:
                yield ready.pop(examples[position].id)
                position += 1


def requests_of(examples: Iterable[Example], sampling: SamplingParams) -> list[Request]:
    """Build one request per example."""
    return [Request(example.id, example.messages, sampling=sampling, tools=tools_of(example)) for example in examples]


class Scorer:
    """Scorer of a task for one run; enforces the same count keys for every item.

    Args:
        task: Task whose scorer is called.
        remembers: Whether to cache scores by example and reply; two checkpoints give the same reply to most items.
    """

    def __init__(self, task: Task, *, remembers: bool = False) -> None:
        self.task = task
        self._known: dict[tuple[str, Reply], Item] | None = {} if remembers else None
        self._keys: frozenset[str] | None = None
        self._first = ""

    def __call__(self, example: Example, reply: Reply) -> Item:
        """Score one reply.

        Raises:
            PluginError: When the scorer breaks its contract.
        """
        if self._known is None:
            return self._judged(example, reply)
        key = (example.id, reply)
        if key not in self._known:
            self._known[key] = self._judged(example, reply)
        return self._known[key]

    def _judged(self, example: Example, reply: Reply) -> Item:
        """Score one reply without the cache."""
        item = score(self.task, example, reply)
        if self._keys is None:
            self._keys, self._first = frozenset(item.score.stats), example.id
        elif item.score.stats.keys() != self._keys:
            raise other_keys(self.task, (example.id, item.score.stats), (self._first, self._keys))
        return item


def other_keys(task: Task, one: tuple[str, Iterable[str]], other: tuple[str, Iterable[str]]) -> PluginError:
    """Build the error for a scorer that counts different keys for two items, each given as id and keys."""
    (id, keys), (first, others) = one, other
    return PluginError(
        f"the scorer of task '{task.name}' counts {', '.join(sorted(keys))} on item '{id}' and {', '.join(sorted(others))} on item '{first}'; "
        "it must count the same for every item"
    )


def score(task: Task, example: Example, reply: Reply) -> Item:
    """Score one reply.

    Raises:
        PluginError: When the scorer raises; its contract is to accept any reply.
    """
    return Item(example, reply, score_reply(task, example, reply))


def score_each(scorer: Scorer, example: Example, replies: Iterable[Reply | str | None]) -> list[Outcome | None]:
    """Score several models' replies to one example; equal replies are scored once.

    Args:
        scorer: Scorer of the task.
        example: The example of the requests.
        replies: One per model; an error message when the model failed, None when it was not called.

    Raises:
        PluginError: When the scorer raises.
    """
    known: dict[Reply, Item] = {}
    found: list[Outcome | None] = []
    for reply in replies:
        if isinstance(reply, Reply):
            if reply not in known:
                known[reply] = scorer(example, reply)
            found.append(known[reply])
        else:
            found.append(None if reply is None else Failure(example, reply))
    return found
