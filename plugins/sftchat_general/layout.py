"""The format of an answer: JSON with given keys, a list, one word, or a word between tags.

A row: ``Write the word "honey" between <answer> and </answer>.`` → ``<answer>honey</answer>``
"""

from __future__ import annotations

import json
from typing import Any

from sftchat_general import words
from sftchat_general.draft import Draft, RowBuilder, values_of_split

FORMS = ("json", "bullets", "numbered", "one_word", "tags")

_KEYS = {"zh": {"name": "姓名", "age": "年龄", "city": "城市"}, "en": {"name": "name", "age": "age", "city": "city"}}


def compose(builder: RowBuilder) -> Draft:
    """Ask for an answer in a certain format."""
    form = builder.rng.choice(FORMS)
    if form == "json":
        return _compose_json(builder)
    if form == "one_word":
        return _compose_one_word(builder)
    if form == "tags":
        word = builder.pick(words.WORDS) if builder.language == "en" else builder.rng.choice(builder.nouns())
        tag = builder.pick(words.TAGS)
        question = builder.phrase(form, word=word, tag=tag)
        tags_constraint = {"check": "tags", "tag": tag, "accept": [word]}
        return Draft((question.text,), f"<{tag}>{word}</{tag}>", question.form, (tags_constraint,), {"word": word, "tag": tag})
    items = builder.rng.sample(builder.nouns(), builder.rng.randint(2, 5))
    question = builder.phrase(form, items=builder.join_items(items), n=len(items))
    marker = "-" if form == "bullets" else "1."
    lines = [f"- {item}" if form == "bullets" else f"{number}. {item}" for number, item in enumerate(items, 1)]
    constraint: dict[str, Any] = {"check": "list", "marker": marker, "count": len(items), "items": items}
    return Draft((question.text,), "\n".join(lines), question.form, (constraint,), {"items": items, "marker": marker})


def _compose_json(builder: RowBuilder) -> Draft:
    """State facts about a person, and ask for two or three of them as JSON."""
    name, city = builder.pick(words.NAMES[builder.language]), builder.pick(words.CITIES[builder.language])
    facts: dict[str, str | int] = {"name": name, "age": builder.rng.randint(5, 80), "city": city}
    requested = sorted(builder.rng.sample(sorted(facts), builder.rng.randint(2, 3)), key=list(facts).index)
    values = {_KEYS[builder.language][key]: facts[key] for key in requested}
    question = builder.phrase("json", keys=_join_keys(list(values), builder.language), text=builder.phrase("age_city", **facts).text)
    constraint = {"check": "json", "keys": list(values), "values": values}
    gold = json.dumps(values, ensure_ascii=False)
    return Draft((question.text,), gold, question.form, (constraint,), {**facts, "wanted": list(values)})


def _join_keys(keys: list[str], language: str) -> str:
    if language == "zh":
        return "、".join(f"“{key}”" for key in keys)
    quoted = [f'"{key}"' for key in keys]
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def _compose_one_word(builder: RowBuilder) -> Draft:
    """Ask for the word of a category among words of other categories."""
    categories = words.CATEGORIES[builder.language]
    category, *other_categories = builder.rng.sample(sorted(categories), builder.rng.randint(3, 4))
    word = builder.pick(categories[category])
    items = [word, *(builder.rng.choice(values_of_split(categories[other], builder.split)) for other in other_categories)]
    builder.rng.shuffle(items)
    question = builder.phrase("one_word", category=category, items=builder.join_items(items))
    constraint = {"check": "text", "accept": [word]}
    return Draft((question.text,), word, question.form, (constraint,), {"category": category, "items": items})
