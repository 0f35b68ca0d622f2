"""Names what is wrong: one class for every triple that the reply and the gold do not share.

A predicted and a gold triple that are nearly the same are one fault with a name, not one missing and one spurious triple; what has no
counterpart is missing or spurious. The classes follow the usual error analyses of relation extraction, as in Taillé et al. 2020.
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
"""Classes of triples; one an error."""

REPLY_ERRORS = {
    "duplicate": "the same triple more than once; counted once",
    "format_drift": "readable, but not exactly the format",
    "ambiguous_split": "a line that could be cut into two names in several ways",
    "extra_text": "something beside the triples",
    "empty": "no text at all",
    "refusal": "the model declines",
    "unparsable": "neither a triple nor a statement that there is none",
    "truncated": "ended by the token limit",
}
"""Classes of whole replies; each at most once a reply."""


def same_pair(one: Triple, other: Triple) -> bool:
    """Return whether two triples are about the same two people, in any order."""
    return one[:2] in (other[:2], (other.tail, other.head))


def entails(predicted: Triple, gold: Triple, vocabulary: RelationVocabulary) -> bool:
    """Return whether a predicted triple entails the gold: the same relation or a finer one.

    A finer label is right where the gold has one of its broader labels (父子 for 父母). The order must be that of the gold, unless the
    gold's label has no direction.
    """
    if gold.relation != predicted.relation and gold.relation not in vocabulary.broader.get(predicted.relation, ()):
        return False
    return predicted[:2] == gold[:2] or (gold.relation in vocabulary.symmetric and same_pair(predicted, gold))


def classify_errors(gold: Iterable[Triple], predicted: Iterable[Triple], source: str, vocabulary: RelationVocabulary) -> Iterator[str]:
    """Yield one error class for each unmatched triple, or pair of similar ones.

    Args:
        gold: The unmatched gold triples, names and labels in normal form.
        predicted: The unmatched predicted triples, likewise; the order is irrelevant.
        source: The text in normal form.
        vocabulary: The labels.
    """
    missing, spurious = sorted(gold), sorted(predicted)
    counterparts = sorted(
        (rank, i, j, fault)
        for (i, gold_triple), (j, predicted_triple) in product(enumerate(missing), enumerate(spurious))
        for rank, fault in _compare(gold_triple, predicted_triple, source, vocabulary)
    )
    paired_gold: set[int] = set()
    paired_predicted: set[int] = set()
    for _, i, j, fault in counterparts:  # the most similar pairs first
        if i not in paired_gold and j not in paired_predicted:
            paired_gold.add(i)
            paired_predicted.add(j)
            yield fault
    for j, predicted_triple in enumerate(spurious):
        if j not in paired_predicted:
            yield _classify_unpaired(predicted_triple, source, vocabulary)
    yield from ("missing" for i in range(len(missing)) if i not in paired_gold)


def _classify_unpaired(predicted: Triple, source: str, vocabulary: RelationVocabulary) -> str:
    if predicted.head not in source or predicted.tail not in source:
        return "hallucinated_entity"
    return "spurious" if predicted.relation in vocabulary.relations else "unknown_relation"


def _compare(gold: Triple, predicted: Triple, source: str, vocabulary: RelationVocabulary) -> Iterator[tuple[int, str]]:
    """Yield the error classes that fit a gold and a predicted triple, each with a distance (smaller is more similar)."""
    same_label = gold.relation == predicted.relation or gold.relation in vocabulary.broader.get(predicted.relation, ())
    if same_pair(gold, predicted):
        if same_label:
            yield 0, "flipped_direction"
        else:
            yield 1, "wrong_relation" if predicted.relation in vocabulary.relations else "unknown_relation"
    elif same_label:
        orders = [(predicted.head, predicted.tail)]
        if gold.relation in vocabulary.symmetric:
            orders.append((predicted.tail, predicted.head))
        for head, tail in orders:
            head_distance, tail_distance = _name_distance(gold.head, head, source), _name_distance(gold.tail, tail, source)
            if max(head_distance, tail_distance) <= 1:
                yield 2, "boundary"
            elif min(head_distance, tail_distance) == 0:
                wrong_name, fault = (tail, "wrong_tail") if head_distance == 0 else (head, "wrong_head")
                yield 3, fault if wrong_name in source else "hallucinated_entity"


def _name_distance(gold: str, predicted: str, source: str) -> int:
    """Return 0 for the same name, 1 for a part or a misspelling of it, 2 for another."""
    if gold == predicted:
        return 0
    if gold in predicted or predicted in gold:
        return 1
    # 李小芳 for 李小红 is a misspelling only when there is no 李小芳 in the text; with two characters this is undecidable.
    misspelt = max(len(gold), len(predicted)) > 2 and predicted not in source and _one_edit(gold, predicted)
    return 1 if misspelt else 2


def _one_edit(text: str, other: str) -> bool:
    """Return whether the edit distance of two texts is at most 1."""
    short, long = sorted((text, other), key=len)
    if len(long) - len(short) > 1:
        return False
    same = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return short[same + (len(short) == len(long)) :] == long[same + 1 :]
