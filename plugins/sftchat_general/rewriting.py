"""Rewriting under a constraint: case, reverse order, one word for another, a shorter text, a prefix.

A row: ``Replace "Anna" with "Tom": Anna washed the old lamp at school.`` → ``Tom washed the old lamp at school.``
"""

from __future__ import annotations

from sftchat_general import words
from sftchat_general.draft import Draft, Phrase, World

FORMS = ("upper", "lower", "reverse", "replace", "first", "prefix")


def compose(world: World) -> Draft:
    """Create a text and an instruction to change it."""
    form = world.rng.choice(FORMS)
    if form in ("upper", "lower"):
        return _case(world, form)
    if form == "reverse":
        items = world.rng.sample(world.nouns(), world.rng.randint(3, 5))
        reversed_items = items[::-1]
        question = world.say(form, items=world.listed(items))
        return Draft(
            (question.text,),
            world.listed(reversed_items),
            question.form,
            ({"check": "sequence", "items": reversed_items},),
            {"items": items},
        )
    text, parts = world.sentence()
    if form == "replace":
        old = parts["name"]
        new = world.pick([name for name in words.NAMES[world.language] if name != old])
        return _draft(world.say(form, old=old, new=new, text=text), text.replace(old, new), {"text": text, "old": old, "new": new})
    if form == "prefix":
        label = world.pick(words.LABELS[world.language])
        return _draft(world.say(form, label=label.strip(), text=text), label + text, {"text": text, "label": label})
    if world.language == "en":
        n = world.rng.randint(2, 5)
        return _draft(world.say(form, n=n, text=text), " ".join(text.split()[:n]), {"text": text, "n": n})
    n = world.rng.randint(3, 8)
    return _draft(world.say(form, n=n, text=text), text[:n], {"text": text, "n": n})


def _case(world: World, form: str) -> Draft:
    """Upper or lower case; the text is English even when the instruction is Chinese."""
    text = (
        world.sentence()[0]
        if world.language == "en" and world.rng.random() < 0.5
        else " ".join(world.some(words.WORDS, world.rng.randint(1, 3)))
    )
    prompt_text, gold = (text, text.upper()) if form == "upper" else (text.upper(), text.lower())
    return _draft(world.say(form, text=prompt_text), gold, {"text": prompt_text}, case=True)


def _draft(question: Phrase, gold: str, facts: dict[str, object], *, case: bool = False) -> Draft:
    """Create a row with one exact answer."""
    constraint = {"check": "text", "accept": [gold]} | ({"case": True} if case else {})
    return Draft((question.text,), gold, question.form, (constraint,), facts)
