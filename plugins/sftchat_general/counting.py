"""Counts: letters of a word, items of a list, words of a sentence, characters of a phrase.

A row: ``“春暖花开”有几个字？`` → ``4``
"""

from __future__ import annotations

from sftchat_general import words
from sftchat_general.draft import Draft, World

FORMS = ("letters", "letter", "items", "characters")


def compose(world: World) -> Draft:
    """Create a question about one count."""
    form = world.rng.choice(FORMS)
    if form == "items":
        items = world.rng.sample(world.nouns(), world.rng.randint(2, 7))
        return world.ask_number(world.say(form, items=world.listed(items)), len(items), {"items": items})
    if form == "characters":
        phrase = world.sentence()[0] if world.language == "en" else world.pick(words.PHRASES)
        count = len(phrase.split()) if world.language == "en" else len(phrase)
        return world.ask_number(world.say(form, phrase=phrase), count, {"phrase": phrase})
    word = world.pick(words.WORDS)
    if form == "letters":
        return world.ask_number(world.say(form, word=word), len(word), {"word": word})
    letter = world.rng.choice(sorted(set(word)))
    return world.ask_number(world.say(form, word=word, letter=letter), word.count(letter), {"word": word, "letter": letter})
