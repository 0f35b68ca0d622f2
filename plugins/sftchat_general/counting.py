"""Counts: letters of a word, items of a list, words of a sentence, characters of a phrase.

A row: ``“春暖花开”有几个字？`` → ``4``
"""

from __future__ import annotations

from sftchat_general import words
from sftchat_general.draft import Draft, RowBuilder

FORMS = ("letters", "letter", "items", "characters")


def compose(builder: RowBuilder) -> Draft:
    """Create a question about one count."""
    form = builder.rng.choice(FORMS)
    if form == "items":
        items = builder.rng.sample(builder.nouns(), builder.rng.randint(2, 7))
        return builder.draft_number_question(builder.phrase(form, items=builder.join_items(items)), len(items), {"items": items})
    if form == "characters":
        if builder.language == "en":
            phrase, _ = builder.make_sentence()
            count = len(phrase.split())
        else:
            phrase = builder.pick(words.PHRASES)
            count = len(phrase)
        return builder.draft_number_question(builder.phrase(form, phrase=phrase), count, {"phrase": phrase})
    word = builder.pick(words.WORDS)
    if form == "letters":
        return builder.draft_number_question(builder.phrase(form, word=word), len(word), {"word": word})
    letter = builder.rng.choice(sorted(set(word)))
    return builder.draft_number_question(
        builder.phrase(form, word=word, letter=letter), word.count(letter), {"word": word, "letter": letter}
    )
