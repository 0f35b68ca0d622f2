"""Scorer of the relation task: counts whose sums give every metric, and error classes.

Counts follow the relation-extraction literature (Taillé et al. 2020): triples are compared as sets, repeats count once, and an item
without relations adds nothing to the counts of triples; whether the reply is right is in ``exact``. An unreadable reply
is scored as one without triples.
"""

from __future__ import annotations

from collections.abc import Iterable

from sftchat import DataError, Example, Reply, Score
from sftchat.text import normalise
from sftchat_relation.error_classes import classify_errors, entails
from sftchat_relation.parser import NOTHING, ParsedReply, Triple, parse
from sftchat_relation.vocabulary import VOCABULARY

STATS = {
    "n": "1",
    "tp": "predicted triples that the gold has, labels folded",
    "pred": "predicted triples",
    "gold": "gold triples",
    "strict_tp": "triples that are in the gold letter for letter, of a reply that is exactly in the format",
    "strict_pred": "triples of a reply that is exactly in the format",
    "pair_tp": "predicted pairs that the gold has, relation and order ignored",
    "pair_pred": "predicted pairs",
    "pair_gold": "gold pairs",
    "relation_right": "right pairs with the right relation, in the right direction",
    "relation_total": "right pairs",
    "exact": "1 where the reply was read and its triples are the gold's",
    "parsed": "1 where the reply was read",
    "truncated": "1 where the token limit ended the reply",
}
"""Keys of ``Score.stats`` and their meaning."""

UNKNOWN = "unknown_relation"
"""Slice of all predicted labels outside the vocabulary."""


def score(example: Example, reply: Reply) -> Score:
    """Score one reply.

    Args:
        example: Its user turns are the text that the names must come from; its gold is one ``甲-乙:关系`` a line, or ``无``.
        reply: Any reply.

    Raises:
        DataError: When the gold is missing or malformed; never because of the reply.
    """
    source = "\n".join(message["content"] for message in example.messages if message["role"] == "user")
    gold_reading = _Interpretation(_gold(example, source))
    reply_reading = gold_reading if reply.text == example.gold else _Interpretation(parse(reply.text, source, VOCABULARY))
    parsed, gold, predicted = reply_reading.parsed, gold_reading.facts, reply_reading.facts
    matched = _match(gold, predicted)
    right_pairs = gold_reading.pairs & reply_reading.pairs
    truncated = reply.finish_reason == "length"
    is_exact = parsed.parsable and len(matched) == len(gold) == len(predicted)
    stats = {
        "n": 1,
        "tp": len(matched),
        "pred": len(predicted),
        "gold": len(gold),
        "strict_tp": len({fact for text, fact in reply_reading.written.items() if text in gold_reading.written}),
        "strict_pred": len(set(reply_reading.written.values())),
        "pair_tp": len(right_pairs),
        "pair_pred": len(reply_reading.pairs),
        "pair_gold": len(gold_reading.pairs),
        "relation_right": len(_pairs(matched)),
        "relation_total": len(right_pairs),
        "exact": int(is_exact),
        "parsed": int(parsed.parsable),
        "truncated": int(truncated),
    }
    matched_predicted = set(matched.values())
    unmatched_gold = [triple for fact, triple in gold.items() if fact not in matched]
    unmatched_predicted = [triple for fact, triple in predicted.items() if fact not in matched_predicted]
    errors = [
        *(
            classify_errors(unmatched_gold, unmatched_predicted, normalise(source), VOCABULARY)
            if unmatched_gold or unmatched_predicted
            else ()
        ),
        *(["duplicate"] if len(predicted) < len(parsed.lenient) else []),
        *(issue for issue in parsed.issues if issue != UNKNOWN),  # each such triple has an error class already
        *(["truncated"] if truncated else []),
    ]
    answer = "\n".join(map(str, predicted.values())) or (NOTHING if parsed.parsable else "")
    return Score(stats, answer, tuple(errors), _groups(gold, predicted, matched, stats["parsed"]))


class _Interpretation:
    """A parsed text, prepared for comparison.

    Args:
        parsed: The parsed text.

    Attributes:
        parsed: The same.
        facts: Its triples by folded form.
        written: Folded forms of its triples by their literal form; empty when it is not exactly in the format.
        pairs: Its pairs.
    """

    def __init__(self, parsed: ParsedReply) -> None:
        self.parsed = parsed
        self.facts = _facts(parsed.lenient)
        self.written = {_as_written(triple): _fold(_canonical(triple)) for triple in parsed.strict}
        self.pairs = _pairs(self.facts)


def _gold(example: Example, source: str) -> ParsedReply:
    """Parse the gold, which must be in the exact format, with any known spelling of a label."""
    source_name = example.source or example.id
    if example.gold is None:
        raise DataError("row has no gold to score against", source_name)
    parsed = parse(example.gold, source, VOCABULARY)
    if not parsed.well_formed:
        bad_line = next((line for line in example.gold.strip().split("\n") if not parse(line, source, VOCABULARY).well_formed), "")
        raise DataError(
            f"malformed gold line {bad_line!r}: must be 甲-乙:关系 with a known relation, or the whole gold {NOTHING}", source_name
        )
    return parsed


def _fold(triple: Triple) -> Triple:
    """Return a triple with head and tail sorted if its relation has no direction."""
    if triple.relation in VOCABULARY.symmetric and triple.tail < triple.head:
        return Triple(triple.tail, triple.head, triple.relation)
    return triple


def _facts(triples: Iterable[Triple]) -> dict[Triple, Triple]:
    """Return triples by folded form, without duplicates, each in its first form."""
    facts: dict[Triple, Triple] = {}
    for triple in triples:
        facts.setdefault(_fold(triple), triple)
    return facts


def _canonical(triple: Triple) -> Triple:
    relation, inverted = VOCABULARY.canonical(triple.relation) or (triple.relation, False)
    head, tail = (triple.tail, triple.head) if inverted else (triple.head, triple.tail)
    return Triple(normalise(head), normalise(tail), relation)


def _as_written(triple: Triple) -> Triple:
    """Return a triple with literal label and names, sorted if the label has no direction."""
    if _canonical(triple).relation in VOCABULARY.symmetric and triple.tail < triple.head:
        return Triple(triple.tail, triple.head, triple.relation)
    return triple


def _match(gold: Iterable[Triple], predicted: Iterable[Triple]) -> dict[Triple, Triple]:
    """Match each gold triple to at most one predicted triple: equal ones first, then predictions whose label is more specific than the gold's."""
    gold_triples, predicted_triples = set(gold), set(predicted)
    matched = {triple: triple for triple in gold_triples & predicted_triples}
    unmatched: dict[frozenset[str], list[Triple]] = {}  # by the pair of persons
    for triple in sorted(predicted_triples - gold_triples):  # sorted, so that the order of the lines cannot matter
        unmatched.setdefault(frozenset(triple[:2]), []).append(triple)
    for triple in sorted(gold_triples - predicted_triples):
        candidates = unmatched.get(frozenset(triple[:2]), [])
        more_specific = next((candidate for candidate in candidates if entails(candidate, triple, VOCABULARY)), None)
        if more_specific:
            matched[triple] = more_specific
            candidates.remove(more_specific)
    return matched


def _pairs(facts: Iterable[Triple]) -> set[frozenset[str]]:
    return {frozenset(fact[:2]) for fact in facts}


def _groups(gold: Iterable[Triple], predicted: Iterable[Triple], matched: dict[Triple, Triple], parsed: int) -> dict[str, dict[str, float]]:
    """Return the counts by relation; a correct finer label counts under the gold's."""
    groups: dict[str, dict[str, float]] = {}

    def count(relation: str, *keys: str) -> None:
        group = groups.setdefault(relation, {"n": 1, "parsed": parsed, "tp": 0, "pred": 0, "gold": 0})
        for key in keys:
            group[key] += 1

    for fact in gold:
        count(fact.relation, *(("tp", "pred", "gold") if fact in matched else ("gold",)))
    used = set(matched.values())
    for fact in predicted:
        if fact not in used:
            count(fact.relation if fact.relation in VOCABULARY.relations else UNKNOWN, "pred")
    return groups
