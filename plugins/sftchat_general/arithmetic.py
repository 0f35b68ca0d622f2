"""Sums, differences and products, bare and in a story.

A row: ``7 + 5 = ？`` → ``12``
"""

from __future__ import annotations

from sftchat_general import words
from sftchat_general.draft import Draft, World

SIGNS = {"sum": "+", "difference": "-", "product": "×"}

FORMS = (*SIGNS, *(f"story_{operation}" for operation in SIGNS))


def compose(world: World) -> Draft:
    """Create a question about one operation; operands and result are at most ``world.largest``."""
    operation = world.rng.choice(tuple(SIGNS))
    story = world.rng.random() < 0.4
    sign = SIGNS[operation]
    smallest = 2 if story else 1  # a story needs plurals
    a, b = world.until_of_split(lambda: _operands(world, operation, smallest))[1:]
    if operation != "difference" and world.rng.random() < 0.5:
        a, b = b, a  # after the split: 3 + 4 and 4 + 3 are on one side
    value = {"+": a + b, "-": a - b, "×": a * b}[sign]
    facts = {"left": a, "sign": sign, "right": b}
    if not story:
        return world.ask_number(world.say(operation, a=a, b=b), value, facts)
    thing, measure = world.pick(words.COUNTABLE[world.language])
    name, other = world.some(words.NAMES[world.language], 2)
    question = world.say(f"story_{operation}", a=a, b=b, thing=thing, measure=measure, name=name, other=other)
    return world.ask_number(question, value, facts)


def _operands(world: World, operation: str, smallest: int) -> tuple[str, int, int]:
    """Draw two operands within the bounds; those of a sum or a product are sorted."""
    randint, largest = world.rng.randint, world.largest
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
