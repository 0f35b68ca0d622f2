"""The scorer ``tool_call``, which compares the tools that a reply calls, and their arguments, with those of the gold reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from json import dumps

from sftchat.scorers.base import Scorer, gold_required, with_reply_errors
from sftchat.scorers.json_values import Comparison
from sftchat.scorers.tool_formats import Calls, parse_calls, parse_gold_calls
from sftchat.task import Metric, rate, ratio
from sftchat.types import Example, Reply, Score

# where neither reply nor gold have calls, nothing is wrong, so 0/0 is 1
F1 = Metric(
    "f1",
    lambda sums: ratio(2 * sums["tp"], sums["pred"] + sums["gold"], empty=1.0),
    "micro F1 over calls with all their arguments",
    stats=("tp", "pred", "gold"),
)
EXACT = rate("exact", "exact", "share of replies with exactly the wanted calls")
NAME_F1 = Metric(
    "name_f1",
    lambda sums: ratio(2 * sums["name_tp"], sums["pred"] + sums["gold"], empty=1.0),
    "micro F1 over the names of the called tools",
    stats=("name_tp", "pred", "gold"),
)


def tool_call(*, ignore_types: bool = False, exact_text: bool = False) -> Scorer:
    """Score the tool calls of a reply: a call is right when its name and all its arguments are; the order of calls does not matter.

    The gold reply is a JSON list of ``{"name", "arguments"}``, one such object, or a text in any format of ``parse_calls``; without a call in it, no
    call is wanted. To ``[{"name": "weather", "arguments": {"city": "Rome"}}]``, the reply
    ``<tool_call>{"name": "weather", "arguments": {"city": "rome"}}</tool_call>`` is right; with ``Paris`` it is wrong (``wrong_arguments``).

    Args:
        ignore_types: Whether the argument ``"3"`` equals ``3``, and ``"true"`` equals ``true``.
        exact_text: Whether strings in arguments are compared character by character, and not in ``answer_form``.
    """
    comparison = Comparison(ignore_types, exact_text, ordered=True)

    def count(calls: Calls) -> Counter[tuple[str, object]]:
        return Counter((call.name, comparison.key(dict(call.arguments))) for call in calls.calls)

    def score(example: Example, reply: Reply) -> Score:
        gold, given = parse_gold_calls(example.gold or ""), parse_calls(reply.text)
        wanted, found = count(gold), count(given)
        right = (wanted & found).total()
        names_right = (_names(wanted) & _names(found)).total()
        predicted, total = found.total() + given.unparsable, wanted.total() + gold.unparsable
        exact = right == predicted == total
        counts = {"n": 1, "tp": right, "pred": predicted, "gold": total, "name_tp": names_right, "exact": int(exact)}
        answer = sorted(dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False, sort_keys=True) for call in given.calls)
        errors = () if exact else tuple(_errors(wanted - found, found - wanted, gold.unparsable, given.unparsable))
        return with_reply_errors(Score(counts, "\n".join(answer), errors), reply)

    settings = {"ignore_types": ignore_types, "exact_text": exact_text}
    return Scorer("tool_call", score, (F1, EXACT, NAME_F1), _problems, settings)


def _names(calls: Counter[tuple[str, object]]) -> Counter[str]:
    names: Counter[str] = Counter()
    for (name, _), number in calls.items():
        names[name] += number
    return names


def _errors(
    missing: Counter[tuple[str, object]], extra: Counter[tuple[str, object]], unparsable_gold: int, unparsable: int
) -> Iterable[str]:
    """Yield the error classes of the calls that only the gold reply has, and that only the reply has."""
    missing_names, extra_names = _names(missing), _names(extra)
    if missing_names & extra_names:
        yield "wrong_arguments"
    missing_number = (missing_names - extra_names).total() + unparsable_gold
    extra_number = (extra_names - missing_names).total()
    if unparsable:
        yield "unparsable"
    if missing_number and extra_number:
        yield "wrong_name"
    if missing_number > extra_number + unparsable:
        yield "missing_call"
    if extra_number > missing_number:
        yield "extra_call"


def _problems(example: Example) -> Iterable[str]:
    if not example.gold:
        return gold_required(example)
    if parse_gold_calls(example.gold).unparsable:
        return ("the gold reply has a tool call that cannot be read",)
    return ()
