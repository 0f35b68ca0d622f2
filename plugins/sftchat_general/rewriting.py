"""Rewriting under a constraint: case, reverse order, one word for another, a shorter text, a prefix.

A row: ``Replace "Anna" with "Tom": Anna washed the old lamp at school.`` → ``Tom washed the old lamp at school.``
"""

from __future__ import annotations

from sftchat_general import words
from sftchat_general.draft import Draft, Phrase, RowBuilder

FORMS = ("upper", "lower", "reverse", "replace", "first", "prefix")


def compose(builder: RowBuilder) -> Draft:
    """Create a text and an instruction to change it."""
    form = builder.rng.choice(FORMS)
    if form in ("upper", "lower"):
        return _compose_case_change(builder, form)
    if form == "reverse":
        items = builder.rng.sample(builder.nouns(), builder.rng.randint(3, 5))
        gold_items = items[::-1]
        question = builder.phrase(form, items=builder.join_items(items))
        constraint = {"check": "sequence", "items": gold_items}
        return Draft((question.text,), builder.join_items(gold_items), question.form, (constraint,), {"items": items})
    text, old = builder.make_sentence()
    if form == "replace":
        new = builder.pick([name for name in words.NAMES[builder.language] if name != old])
        return _draft_exact_answer(
            builder.phrase(form, old=old, new=new, text=text), text.replace(old, new), {"text": text, "old": old, "new": new}
        )
    if form == "prefix":
        label = builder.pick(words.LABELS[builder.language])
        return _draft_exact_answer(builder.phrase(form, label=label.strip(), text=text), label + text, {"text": text, "label": label})
    if builder.language == "en":  # the first n words
        n = builder.rng.randint(2, 5)
        gold = " ".join(text.split()[:n])
    else:  # the first n characters
        n = builder.rng.randint(3, 8)
        gold = text[:n]
    return _draft_exact_answer(builder.phrase(form, n=n, text=text), gold, {"text": text, "n": n})


def _compose_case_change(builder: RowBuilder, form: str) -> Draft:
    """Ask for upper or lower case; the text is English even when the instruction is Chinese."""
    if builder.language == "en" and builder.rng.random() < 0.5:
        text, _ = builder.make_sentence()
    else:
        text = " ".join(builder.pick_several(words.WORDS, builder.rng.randint(1, 3)))
    prompt_text, gold = (text, text.upper()) if form == "upper" else (text.upper(), text.lower())
    return _draft_exact_answer(builder.phrase(form, text=prompt_text), gold, {"text": prompt_text}, case=True)


def _draft_exact_answer(question: Phrase, gold: str, facts: dict[str, object], *, case: bool = False) -> Draft:
    """Create a row with one exact answer; ``case`` is whether its capitals count."""
    constraint = {"check": "text", "accept": [gold]} | ({"case": True} if case else {})
    return Draft((question.text,), gold, question.form, (constraint,), facts)
