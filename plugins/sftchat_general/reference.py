"""References to earlier turns: a name, a number, a colour; two or three turns of the user.

A row: ``我叫小明。`` – ``你好，小明！`` – ``我叫什么名字？`` → ``你叫小明。``
"""

from __future__ import annotations

from typing import Any

from sftchat_general import words
from sftchat_general.draft import Draft, World

FORMS = ("ask_name", "ask_number", "ask_colour", "ask_two")

_TOPICS = ("name", "number", "colour", "two")

_GOLDS = {
    "zh": {
        "name": "你叫{name}。",
        "number": "那个数字是 {number}。",
        "colour": "你最喜欢的颜色是{colour}。",
        "two": "你的{thing}是{answer}的。",
    },
    "en": {
        "name": "Your name is {name}.",
        "number": "The number is {number}.",
        "colour": "Your favourite colour is {colour}.",
        "two": "Your {thing} is {answer}.",
    },
}


def compose(world: World) -> Draft:
    """Create turns that state one or two facts, and a question about one of them."""
    topics = world.rng.sample(_TOPICS, world.rng.randint(1, 2))
    topic = world.rng.choice(topics)
    facts = _facts(world)
    turns: list[str] = []
    for told_topic in topics:
        turns += [world.say(f"tell_{told_topic}", **facts).text, world.say(f"answer_{told_topic}", **facts).text]
    if len(topics) == 1 and world.rng.random() < 0.5:
        turns += [world.say("filler").text, world.say("answer_filler").text]
    facts["thing"] = facts[world.rng.choice(("first", "second"))]
    facts["answer"] = facts["colour" if facts["thing"] == facts["first"] else "another"]
    question = world.say(f"ask_{topic}", **facts)
    gold = _GOLDS[world.language][topic].format(**facts)
    return Draft(
        (*turns, question.text), gold, question.form, (_constraint(topic, facts, world),), {"topic": topic, "told": topics, **facts}
    )


def _facts(world: World) -> dict[str, Any]:
    """Draw all facts; the favourite colour is that of the first thing, to avoid ambiguity."""
    first, second = world.some(words.BELONGINGS[world.language], 2)
    colour, other_colour = world.some(words.COLOURS[world.language], 2)
    number = world.until_of_split(lambda: world.rng.randint(10, 99))
    return {
        "name": world.pick(words.NAMES[world.language]),
        "number": number,
        "colour": colour,
        "another": other_colour,
        "first": first,
        "second": second,
    }


def _constraint(topic: str, facts: dict[str, Any], world: World) -> dict[str, Any]:
    if topic == "number":
        return {"check": "number", "value": facts["number"]}
    if topic == "name":
        return {"check": "mentions", "any": [facts["name"]], "none": []}
    answer = facts["colour"] if topic == "colour" else facts["answer"]
    wrong_colours = [colour for colour in words.COLOURS[world.language] if colour != answer]
    # 红色 may be said as 红
    return {"check": "mentions", "any": [answer, answer[0]] if world.language == "zh" else [answer], "none": wrong_colours}
