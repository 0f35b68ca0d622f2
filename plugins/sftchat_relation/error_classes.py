"""Error classes: one for every triple that only the reply or only the gold has.

A gold and a predicted triple that are similar are one error, such as ``wrong_head``; triples without a similar one are missing or spurious. The
classes follow the usual error analyses of relation extraction, as in Taillé et al. 2020.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from sftchat_relation.lines import Triple
from sftchat_relation.vocabulary import RelationVocabulary

ERROR_CLASSES = {
    "missing": "a gold triple without a counterpart",
    "spurious": "a predicted triple without a counterpart",
    "wrong_relation": "the right pair under another label",
    "flipped_direction": "the right pair and label with head and tail exchanged",
    "wrong_head": "the right label and tail with another person of the text as head",
    "wrong_tail": "the right label and head with another person of the text as tail",
    "boundary": "the right label with a name that is a part or an extension of the right one, or one character off",
    "hallucinated_entity": "a name that the text does not have",
    "unknown_relation": "a label that the vocabulary does not have",
}
"""Error classes of triples."""

REPLY_ERRORS = {
    "duplicate": "the same triple more than once; counted once",
    "format_drift": "readable, but not exactly the format",
    "ambiguous_split": "a line that could be cut into two names in several ways",
    "extra_text": "text beside the triples",
    "empty": "no text at all",
    "refusal": "the model declines",
    "unparsable": "neither a triple nor a statement that there is none",
    "truncated": "ended by the token limit",
}
"""Error classes of whole replies; each at most once per reply."""


def _is_same_pair(first: Triple, second: Triple) -> bool:
    return {first.head, first.tail} == {second.head, second.tail}


def _label_entails(predicted: Triple, gold: Triple, vocabulary: RelationVocabulary) -> bool:
    return gold.relation == predicted.relation or gold.relation in vocabulary.broader.get(predicted.relation, ())


def entails(predicted: Triple, gold: Triple, vocabulary: RelationVocabulary) -> bool:
    """Return whether a gold triple follows from a predicted one, which has the same label or a more specific one (父子 for 父母).

    The order of the people must be that of the gold, unless the gold's label has no direction.
    """
    is_same_order = predicted[:2] == gold[:2] or (gold.relation in vocabulary.symmetric and _is_same_pair(predicted, gold))
    return is_same_order and _label_entails(predicted, gold, vocabulary)


def classify_errors(gold: Iterable[Triple], predicted: Iterable[Triple], source: str, vocabulary: RelationVocabulary) -> Iterator[str]:
    """Yield one error class for each unmatched triple, or for two similar ones.

    Args:
        gold: The unmatched gold triples, names and labels in normal form.
        predicted: The unmatched predicted triples, likewise; the order is irrelevant.
        source: The text in normal form.
        vocabulary: The labels.
    """
    unpaired_gold, unpaired_predicted = set(gold), set(predicted)
    similar_triples = sorted(
        (distance, gold_triple, predicted_triple, error)
        for gold_triple, predicted_triple in product(unpaired_gold, unpaired_predicted)
        for distance, error in _find_error_classes(gold_triple, predicted_triple, source, vocabulary)
    )
    for _, gold_triple, predicted_triple, error in similar_triples:  # the most similar first
        if gold_triple in unpaired_gold and predicted_triple in unpaired_predicted:
            unpaired_gold.remove(gold_triple)
            unpaired_predicted.remove(predicted_triple)
            yield error
    for triple in sorted(unpaired_predicted):
        yield _classify_unpaired(triple, source, vocabulary)
    yield from ["missing"] * len(unpaired_gold)


def _classify_unpaired(predicted: Triple, source: str, vocabulary: RelationVocabulary) -> str:
    if predicted.head not in source or predicted.tail not in source:
        return "hallucinated_entity"
    return "spurious" if predicted.relation in vocabulary.relations else "unknown_relation"


def _find_error_classes(gold: Triple, predicted: Triple, source: str, vocabulary: RelationVocabulary) -> Iterator[tuple[int, str]]:
    """Yield the error classes that fit a gold and a predicted triple, each with a distance (smaller is more similar)."""
    is_right_label = _label_entails(predicted, gold, vocabulary)
    if _is_same_pair(gold, predicted):
        if is_right_label:
            yield 0, "flipped_direction"
        else:
            yield 1, "wrong_relation" if predicted.relation in vocabulary.relations else "unknown_relation"
    elif is_right_label:
        orders = [(predicted.head, predicted.tail)]
        if gold.relation in vocabulary.symmetric:
            orders.append((predicted.tail, predicted.head))
        for head, tail in orders:
            head_distance, tail_distance = _name_distance(gold.head, head, source), _name_distance(gold.tail, tail, source)
            if max(head_distance, tail_distance) <= 1:
                yield 2, "boundary"
            elif min(head_distance, tail_distance) == 0:
                wrong_name, error = (tail, "wrong_tail") if head_distance == 0 else (head, "wrong_head")
                yield 3, error if wrong_name in source else "hallucinated_entity"


def _name_distance(gold: str, predicted: str, source: str) -> int:
    """Return 0 for the same name, 1 for a part or a misspelling of it, 2 for another."""
    if gold == predicted:
        return 0
    if gold in predicted or predicted in gold:
        return 1
    # 李小芳 for 李小红 is a misspelling unless the text has a 李小芳; names of two characters are too short to tell
    is_misspelt = max(len(gold), len(predicted)) > 2 and predicted not in source and _has_one_edit(gold, predicted)
    return 1 if is_misspelt else 2


def _has_one_edit(first: str, second: str) -> bool:
    """Return whether the edit distance of two texts is at most 1."""
    short, long = sorted((first, second), key=len)
    prefix_length = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    after_insertion = short[prefix_length:] == long[prefix_length + 1 :]
    after_substitution = short[prefix_length + 1 :] == long[prefix_length + 1 :]
    return after_substitution if len(short) == len(long) else after_insertion
