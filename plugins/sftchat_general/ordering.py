"""Order: of numbers, of words, of weekdays and months.

A row: ``Sort these numbers from smallest to largest: 12, 3, 8`` → ``3, 8, 12``
"""

from __future__ import annotations

from sftchat_general import words
from sftchat_general.draft import Draft, World

CALENDARS = {"days": words.DAYS, "months": words.MONTHS}
STEPS = ("day_after", "day_before", "month_after", "month_before")
FORMS = ("ascending", "descending", "alphabetical", *CALENDARS, *STEPS)

_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six")


def compose(world: World) -> Draft:
    """Create a question about an order, or about a day or month at a distance."""
    form = world.rng.choice((*FORMS[: -len(STEPS)], "step"))
    if form in ("ascending", "descending"):
        numbers = world.until_of_split(lambda: tuple(sorted(world.rng.sample(range(1, 100), world.rng.randint(3, 5)))))
        return _sort(world, form, [str(number) for number in (numbers if form == "ascending" else reversed(numbers))])
    if form == "alphabetical":
        word_by_initial = {word[0]: word for word in world.some(words.WORDS, 12)}  # different initials, so that the order is clear
        return _sort(world, form, sorted(list(word_by_initial.values())[: world.rng.randint(3, 4)]))
    if form in CALENDARS:
        calendar = CALENDARS[form][world.language]
        indices = world.until_of_split(lambda: tuple(sorted(world.rng.sample(range(len(calendar)), world.rng.randint(3, 4)))))
        return _sort(world, form, [calendar[index] for index in indices])
    return _step(world, world.rng.choice(STEPS))


def _sort(world: World, form: str, ordered: list[str]) -> Draft:
    """Ask to sort shuffled items."""
    shuffled = list(ordered)
    while shuffled == ordered:
        world.rng.shuffle(shuffled)
    question = world.say(form, items=world.listed(shuffled))
    return Draft((question.text,), world.listed(ordered), question.form, ({"check": "sequence", "items": ordered},), {"items": shuffled})


def _step(world: World, form: str) -> Draft:
    """Ask for the day or month at a distance."""
    unit, direction = form.split("_")
    calendar = CALENDARS[unit + "s"][world.language]
    _, start, n = world.until_of_split(lambda: (form, world.rng.randrange(len(calendar)), world.rng.randint(1, 6)))
    step = 1 if direction == "after" else -1
    *passed, answer = (calendar[(start + step * k) % len(calendar)] for k in range(n + 1))
    question = world.say(form, start=calendar[start], n=n, **{unit + "s": f"{_NUMERALS[n]} {unit}" + ("s" if n > 1 else "")})
    wrong_names = [name for name in calendar if name not in (answer, *passed)]  # a reply may also name those in between
    constraint = {"check": "mentions", "any": _spellings(answer), "none": wrong_names}
    return Draft((question.text,), answer, question.form, (constraint,), {"start": calendar[start], "n": n, "direction": direction})


def _spellings(name: str) -> list[str]:
    """Return all spellings of a name; Chinese weekdays have several."""
    if not name.startswith("星期"):
        return [name]
    numerals = "日天" if name.endswith("日") else name[-1]
    return [week + numeral for week in ("星期", "周", "礼拜") for numeral in numerals]
