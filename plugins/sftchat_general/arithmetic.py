"""Sums, differences and products, bare and in a story.

A row: ``7 + 5 = ？`` → ``12``
"""

from __future__ import annotations

from sftchat_general import words
from sftchat_general.draft import Draft, RowBuilder

SIGNS = {"sum": "+", "difference": "-", "product": "×"}

FORMS = (*SIGNS, *(f"story_{operation}" for operation in SIGNS))


def compose(builder: RowBuilder) -> Draft:
    """Create a question about one operation; operands and result are at most ``builder.largest``."""
    operation = builder.rng.choice(tuple(SIGNS))
    story = builder.rng.random() < 0.4
    sign = SIGNS[operation]
    smallest = 2 if story else 1  # a story needs plurals
    _, a, b = builder.draw_in_split(lambda: _draw_operands(builder, operation, smallest))
    if operation != "difference" and builder.rng.random() < 0.5:
        a, b = b, a  # after the draw in the split, so that 3 + 4 and 4 + 3 are in one split
    value = {"+": a + b, "-": a - b, "×": a * b}[sign]
    facts = {"left": a, "sign": sign, "right": b}
    if not story:
        return builder.draft_number_question(builder.phrase(operation, a=a, b=b), value, facts)
    thing, measure = builder.pick(words.COUNTABLE[builder.language])
    name, other = builder.pick_several(words.NAMES[builder.language], 2)
    question = builder.phrase(f"story_{operation}", a=a, b=b, thing=thing, measure=measure, name=name, other=other)
    return builder.draft_number_question(question, value, facts)


def _draw_operands(builder: RowBuilder, operation: str, smallest: int) -> tuple[str, int, int]:
    """Return the sign and two operands; those of a sum or a product are sorted."""
    randint, largest = builder.rng.randint, builder.largest
    if operation == "sum":
        a = randint(smallest, largest - smallest)
        return "+", *_sorted(a, randint(smallest, largest - a))
    if operation == "product":
        a = randint(2, largest // 2)
        return "×", *_sorted(a, randint(smallest, largest // a))
    a = randint(smallest + 1, largest)
    return "-", a, randint(smallest, a - 1)


def _sorted(a: int, b: int) -> tuple[int, int]:
    return min(a, b), max(a, b)
