"""``sftchat eval --rescore``: apply the present scorer to replies of earlier evaluations, without a model, and compare with the recorded results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftchat.engine import Chunk, Request
from sftchat.errors import SftchatError
from sftchat.evaluation.cached_engine import request_key
from sftchat.evaluation.evalset import Evalset
from sftchat.evaluation.evaluate import generate_outcomes, score_stored, summarise
from sftchat.evaluation.ledger import LedgerItem, LedgerResult
from sftchat.evaluation.plan import Plan
from sftchat.evaluation.recording import all_settings, ledger_item, reply_hash, weights_hash
from sftchat.evaluation.replies import read_replies
from sftchat.evaluation.reply_cache import ReplyCache
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.scored import ScoredItems, collect_outcomes
from sftchat.types import Reply, SamplingParams

ReadItems = Callable[[LedgerResult], Mapping[str, LedgerItem]]
ItemPair = tuple[LedgerItem, LedgerItem]
"""An item as it was recorded, and as the present scorer scores the same reply."""


@dataclass(frozen=True)
class Rescored:
    """The replies of one model to one evalset, scored by the present scorer.

    Attributes:
        model: Name of the model, or the file of stored replies.
        task: Name of the task.
        evalset: Name of the evalset.
        size: Number of its items.
        missing: Number of items whose replies are neither cached nor stored; the result is then incomplete.
        result: Result of the present scorer; None when replies are missing.
        recorded: Latest recorded result of the same replies; None without one.
        won: Items that were wrong and are right.
        lost: Items that were right and are wrong.
        recounted: Items that are right or wrong as before and have other counts or error classes.
        unlike: Number of items that cannot be compared, because the recorded result has another reply or other content.
    """

    model: str
    task: str
    evalset: str
    size: int
    missing: int = 0
    result: ModelResult | None = None
    recorded: LedgerResult | None = None
    won: tuple[ItemPair, ...] = ()
    lost: tuple[ItemPair, ...] = ()
    recounted: tuple[ItemPair, ...] = ()
    unlike: int = 0

    @property
    def unchanged(self) -> bool:
        """Whether every item was compared and has the recorded counts and error classes."""
        return self.result is not None and self.recorded is not None and not (self.won or self.lost or self.recounted or self.unlike)


@dataclass
class StoredReplies:
    """An engine without a model, which serves replies from the cache; a request without one fails.

    Attributes:
        name: Name of the model.
        identity: Identity of the model in the cache.
        cache: The reply cache.
    """

    name: str
    identity: str
    cache: ReplyCache = field(repr=False)

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Yield the cached replies to requests; a reply that is not cached ends as an error."""
        for request in requests:
            stored = self.cache.get(request_key(self.identity, request)) if self.identity else None
            if stored is None:
                yield Chunk(request.id, "", (), "error", 0)
            else:
                yield Chunk(request.id, stored.text, stored.token_ids, stored.finish_reason, stored.prompt_tokens)

    def close(self) -> None:
        """Nothing is open."""


def rescore_plan(
    plan: Plan,
    results: Sequence[LedgerResult],
    read_items: ReadItems,
    cache: ReplyCache,
    identify: Callable[[str], str],
    options: Mapping[str, Any],
) -> Iterator[Rescored]:
    """Score the replies of a plan's sources with the present scorer; without sources, those of all recorded results that fit the plan.

    Args:
        plan: Plan of one task, with the present scorer.
        results: Results of the ledger, the oldest first.
        read_items: Reads the items of a result.
        cache: The reply cache.
        identify: Returns the identity of a model in the cache, empty when unknown.
        options: Options of the engines.

    Raises:
        ModelError: When a MODEL cannot be found or read.
        PluginError: When the scorer breaks its contract.
    """
    for evalset in plan.evalsets:
        fitting = [result for result in results if _fits(result, plan, evalset, options)]
        if not plan.sources:
            latest = {(result.model, result.identity or result.weights, repr(result.sampling)): result for result in fitting}
            for recorded in sorted(latest.values(), key=lambda result: result.number):
                items = _items_of_recorded(plan, evalset, recorded, read_items(recorded), cache)
                yield _compare(recorded.model, plan, evalset, items, recorded, read_items)
            continue
        for source in plan.sources:
            if source.stored is not None:
                (items,) = score_stored(plan.task, evalset.examples, [source.stored], cluster=plan.cluster)
                same = [result for result in fitting if result.model == source.name]
            else:
                identity, weights = identify(source.name), weights_hash(source.name, options, cache.file_hash)
                same = [
                    result for result in fitting if result.sampling == _sampling(plan) and _is_of(result, source.name, identity, weights)
                ]
                items = _items_from_cache(plan, evalset, source.name, identity, plan.sampling, cache)
                if items.failures and same:  # such as replies of the same weights by an earlier version of sftchat
                    items = _items_of_recorded(plan, evalset, same[-1], read_items(same[-1]), cache)
            yield _compare(source.name, plan, evalset, items, same[-1] if same else None, read_items)


def _fits(result: LedgerResult, plan: Plan, evalset: Evalset, options: Mapping[str, Any]) -> bool:
    """Whether a recorded result is of the plan's task and evalset with the same settings, other than the scorer and the sampling."""
    if result.task != plan.task.name or result.evalset.sha256 != evalset.sha256 or not result.complete:
        return False
    settings = all_settings(plan, options, is_model="replies" not in result.settings)
    return _without_scorer(result.settings) == _without_scorer(settings)


def _without_scorer(settings: Mapping[str, Any]) -> dict[str, Any]:
    of_task = {name: value for name, value in settings.get("task", {}).items() if name != "scorer"}
    return {name: value for name, value in settings.items() if name not in ("task", "sampling")} | {"task": of_task}


def _is_of(result: LedgerResult, model: str, identity: str, weights: str) -> bool:
    """Whether a recorded result is of a model, as it is now."""
    if identity and result.identity == identity:
        return True
    is_known = bool(weights) or not (identity and result.identity)
    return is_known and (result.model, result.weights) == (model, weights)


def _sampling(plan: Plan) -> dict[str, Any]:
    return vars(plan.sampling) | {"stop": list(plan.sampling.stop)}


def _items_from_cache(plan: Plan, evalset: Evalset, model: str, identity: str, sampling: SamplingParams, cache: ReplyCache) -> ScoredItems:
    """Score the cached replies of a model; an item without one is a failure."""
    engine = StoredReplies(model, identity, cache)
    return collect_outcomes(generate_outcomes(engine, plan.task, evalset.examples, sampling=sampling), plan.cluster)


def _items_of_recorded(
    plan: Plan, evalset: Evalset, recorded: LedgerResult, recorded_items: Mapping[str, LedgerItem], cache: ReplyCache
) -> ScoredItems:
    """Score the replies of a recorded result: the cached ones, or those of the file that it was written to."""
    sampling = plan.sampling
    if recorded.sampling is not None:
        sampling = SamplingParams(**{**recorded.sampling, "stop": tuple(recorded.sampling.get("stop", ()))})
    items = _items_from_cache(plan, evalset, recorded.model, recorded.identity, sampling, cache)
    if not items.failures:
        return items
    stored = _items_from_file(plan, evalset, recorded, recorded_items)
    return items if stored is None else stored


def _items_from_file(plan: Plan, evalset: Evalset, recorded: LedgerResult, recorded_items: Mapping[str, LedgerItem]) -> ScoredItems | None:
    """Score the replies in the file that a result was written to, or was made of; None unless all its replies are in the file."""
    path = Path(recorded.replies or recorded.model)
    try:
        replies = read_replies(path) if path.is_file() else {}
    except SftchatError:  # no file of replies any more
        return None
    same = {
        item_id: reply
        for item_id, reply in replies.items()
        if isinstance(reply, Reply) and item_id in recorded_items and reply_hash(reply) == recorded_items[item_id].reply
    }
    if not same or len(same) < recorded.answered:
        return None
    (items,) = score_stored(plan.task, evalset.examples, [same], cluster=plan.cluster)
    return items


def _compare(
    model: str, plan: Plan, evalset: Evalset, items: ScoredItems, recorded: LedgerResult | None, read_items: ReadItems
) -> Rescored:
    """Compare the present scores with the recorded ones, of the items with the same content and reply."""
    size = len(evalset.examples)
    if items.failures or not items:
        return Rescored(model, plan.task.name, evalset.name, size, missing=size - len(items), recorded=recorded)
    result = summarise(model, plan.task, items, evalset.identity, seed=plan.seed)
    before = {} if recorded is None else read_items(recorded)
    now = {item.example.id: ledger_item(item, plan.task.metric) for item in items}
    pairs = [
        (before[item_id], item)
        for item_id, item in now.items()
        if item_id in before
        and before[item_id].right is not None
        and (before[item_id].reply, before[item_id].content) == (item.reply, item.content)
    ]
    return Rescored(
        model,
        plan.task.name,
        evalset.name,
        size,
        result=result,
        recorded=recorded,
        won=tuple(pair for pair in pairs if pair[1].right and not pair[0].right),
        lost=tuple(pair for pair in pairs if pair[0].right and not pair[1].right),
        recounted=tuple(pair for pair in pairs if pair[0].right == pair[1].right and _counts(pair[0]) != _counts(pair[1])),
        unlike=len(now) - len(pairs) if recorded is not None else 0,
    )


def _counts(item: LedgerItem) -> tuple[Any, ...]:
    return item.value, item.errors, dict(item.stats)
