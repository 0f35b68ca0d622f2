"""The form of an answer: JSON with given keys, a list of so many lines, one word, something between tags.

A row: ``Write the word "honey" between <answer> and </answer>.`` → ``<answer>honey</answer>``
"""

from __future__ import annotations

import json
from typing import Any

from sftchat_general import words
from sftchat_general.draft import Draft, World, share

FORMS = ("json", "bullets", "numbered", "one_word", "tags")

_KEYS = {"zh": {"name": "姓名", "age": "年龄", "city": "城市"}, "en": {"name": "name", "age": "age", "city": "city"}}


def compose(world: World) -> Draft:
    """Ask for an answer of a certain form."""
    form = world.rng.choice(FORMS)
    if form == "json":
        return _json(world)
    if form == "one_word":
        return _one_word(world)
    if form == "tags":
        word = world.pick(words.WORDS) if world.language == "en" else world.rng.choice(world.nouns())
        tag = world.pick(words.TAGS)
        question = world.say(form, word=word, tag=tag)
        tags_constraint = {"check": "tags", "tag": tag, "accept": [word]}
        return Draft((question.text,), f"<{tag}>{word}</{tag}>", question.form, (tags_constraint,), {"word": word, "tag": tag})
    items = world.rng.sample(world.nouns(), world.rng.randint(2, 5))
    question = world.say(form, items=world.listed(items), n=len(items))
    marker = "-" if form == "bullets" else "1."
    lines = [f"- {item}" if form == "bullets" else f"{number}. {item}" for number, item in enumerate(items, 1)]
    constraint: dict[str, Any] = {"check": "list", "marker": marker, "count": len(items), "items": items}
    return Draft((question.text,), "\n".join(lines), question.form, (constraint,), {"items": items, "marker": marker})


def _json(world: World) -> Draft:
    """Facts about a person, two or three of them requested as JSON."""
    name, city = world.pick(words.NAMES[world.language]), world.pick(words.CITIES[world.language])
    facts: dict[str, str | int] = {"name": name, "age": world.rng.randint(5, 80), "city": city}
    requested = sorted(world.rng.sample(sorted(facts), world.rng.randint(2, 3)), key=list(facts).index)
    values = {_KEYS[world.language][key]: facts[key] for key in requested}
    question = world.say("json", keys=_enumerated(list(values), world.language), text=world.say("age_city", **facts).text)
    constraint = {"check": "json", "keys": list(values), "values": values}
    gold = json.dumps(values, ensure_ascii=False)
    return Draft((question.text,), gold, question.form, (constraint,), {**facts, "wanted": list(values)})


def _enumerated(keys: list[str], language: str) -> str:
    """Return the keys in quotes, joined as in a sentence."""
    if language == "zh":
        return "、".join(f"“{key}”" for key in keys)
    quoted = [f'"{key}"' for key in keys]
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def _one_word(world: World) -> Draft:
    """Find the word of a category among words of others."""
    categories = words.CATEGORIES[world.language]
    category, *other_categories = world.rng.sample(sorted(categories), world.rng.randint(3, 4))
    word = world.pick(categories[category])
    items = [word, *(world.rng.choice(share(categories[other], world.split)) for other in other_categories)]
    world.rng.shuffle(items)
    question = world.say("one_word", category=category, items=world.listed(items))
    constraint = {"check": "text", "accept": [word]}
    return Draft((question.text,), word, question.form, (constraint,), {"category": category, "items": items})
