"""Scorer of the relation task: counts whose sums give every metric, and error classes.

Counts follow the relation-extraction literature (Taillé et al. 2020): triples are compared as sets, so repeats count once. An item whose gold
is ``无`` has no gold triples; ``exact`` counts whether its reply is right. An unreadable reply is scored as one without triples.
"""

from __future__ import annotations

from collections.abc import Iterable

from sftchat import DataError, Example, Reply, Score
from sftchat.text import normalise
from sftchat_relation.error_classes import classify_errors, entails
from sftchat_relation.language import Language, language_of
from sftchat_relation.parser import ParsedReply, Triple, parse_reply
from sftchat_relation.vocabulary import RelationVocabulary

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
    "exact": "1 if the reply is readable and its triples are the gold's",
    "parsed": "1 if the reply is readable",
    "truncated": "1 if the token limit ended the reply",
}
"""Keys of ``Score.stats`` and their meaning."""

UNKNOWN = "unknown_relation"
"""Slice of all predicted labels outside the vocabulary."""


def score(example: Example, reply: Reply) -> Score:
    """Score one reply.

    Args:
        example: Its user turns are the text that the names must come from; its gold is one ``甲-乙:关系`` a line, or ``无``;
            in English one ``A - B: relation`` a line, or ``none``.
        reply: Any reply.

    Raises:
        DataError: When the gold is missing or malformed; never because of the reply.
    """
    source = "\n".join(message["content"] for message in example.messages if message["role"] == "user")
    language = language_of(f"{source}\n{example.gold or ''}")
    vocabulary = language.vocabulary
    gold_triples = _ComparableTriples(_parse_gold(example, source, language), vocabulary)
    is_gold_text = reply.text == example.gold
    reply_triples = gold_triples if is_gold_text else _ComparableTriples(parse_reply(reply.text, source, language), vocabulary)
    parsed, gold, predicted = reply_triples.parsed, gold_triples.by_folded, reply_triples.by_folded
    predicted_by_gold = _match_triples(gold, predicted, vocabulary)
    right_pairs = gold_triples.pairs & reply_triples.pairs
    is_truncated = reply.finish_reason == "length"
    is_exact = parsed.parsable and len(predicted_by_gold) == len(gold) == len(predicted)
    stats = {
        "n": 1,
        "tp": len(predicted_by_gold),
        "pred": len(predicted),
        "gold": len(gold),
        "strict_tp": len({folded for literal, folded in reply_triples.by_literal.items() if literal in gold_triples.by_literal}),
        "strict_pred": len(set(reply_triples.by_literal.values())),
        "pair_tp": len(right_pairs),
        "pair_pred": len(reply_triples.pairs),
        "pair_gold": len(gold_triples.pairs),
        "relation_right": len(_pairs_of(predicted_by_gold)),
        "relation_total": len(right_pairs),
        "exact": int(is_exact),
        "parsed": int(parsed.parsable),
        "truncated": int(is_truncated),
    }
    matched_predicted = set(predicted_by_gold.values())
    unmatched_gold = [triple for folded, triple in gold.items() if folded not in predicted_by_gold]
    unmatched_predicted = [triple for folded, triple in predicted.items() if folded not in matched_predicted]
    errors: list[str] = []
    if unmatched_gold or unmatched_predicted:
        errors += classify_errors(unmatched_gold, unmatched_predicted, normalise(source), vocabulary)
    if len(predicted) < len(parsed.lenient):
        errors.append("duplicate")
    errors += (issue for issue in parsed.issues if issue != UNKNOWN)  # each triple with an unknown label has an error class already
    if is_truncated:
        errors.append("truncated")
    answer = "\n".join(language.format_line(*triple) for triple in predicted.values()) or (language.nothing if parsed.parsable else "")
    return Score(stats, answer, tuple(errors), _count_by_relation(gold, predicted, predicted_by_gold, stats["parsed"], vocabulary))


class _ComparableTriples:
    """The triples of a parsed text, in the forms in which they are compared.

    Args:
        parsed: The parsed text.
        vocabulary: The labels.

    Attributes:
        parsed: The same.
        by_folded: The triples by their folded form (see ``_fold_direction``), without duplicates.
        by_literal: The folded forms by the triples' literal form; empty when the text is not exactly in the format.
        pairs: The pairs of people.
    """

    def __init__(self, parsed: ParsedReply, vocabulary: RelationVocabulary) -> None:
        self.parsed = parsed
        self.by_folded: dict[Triple, Triple] = {}
        for triple in parsed.lenient:
            self.by_folded.setdefault(_fold_direction(triple, vocabulary), triple)
        self.by_literal = {
            _sort_literal(triple, vocabulary): _fold_direction(_to_canonical(triple, vocabulary), vocabulary) for triple in parsed.strict
        }
        self.pairs = _pairs_of(self.by_folded)


def _parse_gold(example: Example, source: str, language: Language) -> ParsedReply:
    """Parse the gold, which must be in the exact format, with any known spelling of a label."""
    source_name = example.source or example.id
    if example.gold is None:
        raise DataError("row has no gold to score against", source_name)
    parsed = parse_reply(example.gold, source, language)
    if not parsed.well_formed:
        bad_line = next((line for line in example.gold.strip().split("\n") if not parse_reply(line, source, language).well_formed), "")
        raise DataError(
            f"malformed gold line {bad_line!r}: must be {language.line_form} with a known relation, or the whole gold {language.nothing}",
            source_name,
        )
    return parsed


def _fold_direction(triple: Triple, vocabulary: RelationVocabulary) -> Triple:
    """Return a canonical triple with head and tail sorted if its relation has no direction."""
    if triple.relation in vocabulary.symmetric and triple.tail < triple.head:
        return Triple(triple.tail, triple.head, triple.relation)
    return triple


def _to_canonical(triple: Triple, vocabulary: RelationVocabulary) -> Triple:
    """Return a triple with normalised names, canonical label and its direction."""
    relation, inverted = vocabulary.canonical(triple.relation) or (triple.relation, False)
    head, tail = (triple.tail, triple.head) if inverted else (triple.head, triple.tail)
    return Triple(normalise(head), normalise(tail), relation)


def _sort_literal(triple: Triple, vocabulary: RelationVocabulary) -> Triple:
    """Return a triple as written, except that head and tail are sorted if its relation has no direction."""
    if _to_canonical(triple, vocabulary).relation in vocabulary.symmetric and triple.tail < triple.head:
        return Triple(triple.tail, triple.head, triple.relation)
    return triple


def _match_triples(gold: Iterable[Triple], predicted: Iterable[Triple], vocabulary: RelationVocabulary) -> dict[Triple, Triple]:
    """Return the predicted triple of each gold triple that has one: an equal one, or else one with a more specific label than the gold's."""
    gold_triples, predicted_triples = set(gold), set(predicted)
    matched = {triple: triple for triple in gold_triples & predicted_triples}
    unmatched: dict[frozenset[str], list[Triple]] = {}  # by the pair of people
    for triple in sorted(predicted_triples - gold_triples):  # sorted, so that the order of the lines cannot matter
        unmatched.setdefault(frozenset(triple[:2]), []).append(triple)
    for triple in sorted(gold_triples - predicted_triples):
        candidates = unmatched.get(frozenset(triple[:2]), [])
        more_specific = next((candidate for candidate in candidates if entails(candidate, triple, vocabulary)), None)
        if more_specific:
            matched[triple] = more_specific
            candidates.remove(more_specific)
    return matched


def _pairs_of(triples: Iterable[Triple]) -> set[frozenset[str]]:
    return {frozenset((triple.head, triple.tail)) for triple in triples}


def _count_by_relation(
    gold: Iterable[Triple],
    predicted: Iterable[Triple],
    predicted_by_gold: dict[Triple, Triple],
    parsed: int,
    vocabulary: RelationVocabulary,
) -> dict[str, dict[str, float]]:
    """Return the counts by relation; a right label that is more specific than the gold's counts under the gold's."""
    groups: dict[str, dict[str, float]] = {}

    def count(relation: str, *keys: str) -> None:
        group = groups.setdefault(relation, {"n": 1, "parsed": parsed, "tp": 0, "pred": 0, "gold": 0})
        for key in keys:
            group[key] += 1

    for triple in gold:
        count(triple.relation, *(("tp", "pred", "gold") if triple in predicted_by_gold else ("gold",)))
    matched_predicted = set(predicted_by_gold.values())
    for triple in predicted:
        if triple not in matched_predicted:
            count(triple.relation if triple.relation in vocabulary.relations else UNKNOWN, "pred")
    return groups
