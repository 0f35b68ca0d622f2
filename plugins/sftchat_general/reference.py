"""References to earlier turns: a name, a number, a colour; two or three turns of the user.

A row: ``我叫小明。`` – ``你好，小明！`` – ``我叫什么名字？`` → ``你叫小明。``
"""

from __future__ import annotations

from typing import Any

from sftchat_general import words
from sftchat_general.draft import Draft, RowBuilder

FORMS = ("ask_name", "ask_number", "ask_colour", "ask_two")

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


def compose(builder: RowBuilder) -> Draft:
    """Create turns that state one or two facts, and a question about one of them."""
    topics = builder.rng.sample(tuple(_GOLDS["zh"]), builder.rng.randint(1, 2))
    asked_topic = builder.rng.choice(topics)
    facts = _draw_facts(builder)
    turns: list[str] = []
    for topic in topics:
        turns += [builder.phrase(f"tell_{topic}", **facts).text, builder.phrase(f"answer_{topic}", **facts).text]
    if len(topics) == 1 and builder.rng.random() < 0.5:
        turns += [builder.phrase("filler").text, builder.phrase("answer_filler").text]
    facts["thing"] = facts[builder.rng.choice(("first", "second"))]
    facts["answer"] = facts["colour" if facts["thing"] == facts["first"] else "another"]
    question = builder.phrase(f"ask_{asked_topic}", **facts)
    gold = _GOLDS[builder.language][asked_topic].format(**facts)
    constraint = _make_constraint(asked_topic, facts, builder)
    return Draft((*turns, question.text), gold, question.form, (constraint,), {"topic": asked_topic, "told": topics, **facts})


def _draw_facts(builder: RowBuilder) -> dict[str, Any]:
    """Draw the facts of all topics; the first thing has the favourite colour, so that two topics do not contradict each other."""
    first, second = builder.pick_several(words.BELONGINGS[builder.language], 2)
    colour, other_colour = builder.pick_several(words.COLOURS[builder.language], 2)
    number = builder.draw_in_split(lambda: builder.rng.randint(10, 99))
    return {
        "name": builder.pick(words.NAMES[builder.language]),
        "number": number,
        "colour": colour,
        "another": other_colour,
        "first": first,
        "second": second,
    }


def _make_constraint(topic: str, facts: dict[str, Any], builder: RowBuilder) -> dict[str, Any]:
    if topic == "number":
        return {"check": "number", "value": facts["number"]}
    if topic == "name":
        return {"check": "mentions", "any": [facts["name"]], "none": []}
    answer = facts["colour"] if topic == "colour" else facts["answer"]
    wrong_colours = [colour for colour in words.COLOURS[builder.language] if colour != answer]
    accepted = [answer, answer[0]] if builder.language == "zh" else [answer]  # a reply may shorten 红色 to 红
    return {"check": "mentions", "any": accepted, "none": wrong_colours}
