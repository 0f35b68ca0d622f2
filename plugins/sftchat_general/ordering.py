"""Order: of numbers, of words, of weekdays and months.

A row: ``Sort these numbers from smallest to largest: 12, 3, 8`` → ``3, 8, 12``
"""

from __future__ import annotations

from sftchat_general import words
from sftchat_general.draft import Draft, RowBuilder

CALENDARS = {"days": words.DAYS, "months": words.MONTHS}
STEPS = ("day_after", "day_before", "month_after", "month_before")
FORMS = ("ascending", "descending", "alphabetical", *CALENDARS, *STEPS)

_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six")


def compose(builder: RowBuilder) -> Draft:
    """Ask to sort items, or for the day or month that is n steps before or after another."""
    form = builder.rng.choice((*FORMS[: -len(STEPS)], "step"))
    if form in ("ascending", "descending"):
        numbers = builder.draw_in_split(lambda: tuple(sorted(builder.rng.sample(range(1, 100), builder.rng.randint(3, 5)))))
        return _compose_sorting(builder, form, [str(number) for number in (numbers if form == "ascending" else reversed(numbers))])
    if form == "alphabetical":
        word_by_initial = {
            word[0]: word for word in builder.pick_several(words.WORDS, 12)
        }  # different initials, so that the order is clear
        return _compose_sorting(builder, form, sorted(list(word_by_initial.values())[: builder.rng.randint(3, 4)]))
    if form in CALENDARS:
        calendar = CALENDARS[form][builder.language]
        indices = builder.draw_in_split(lambda: tuple(sorted(builder.rng.sample(range(len(calendar)), builder.rng.randint(3, 4)))))
        return _compose_sorting(builder, form, [calendar[index] for index in indices])
    return _compose_step(builder, builder.rng.choice(STEPS))


def _compose_sorting(builder: RowBuilder, form: str, ordered: list[str]) -> Draft:
    """Ask to sort the items, which are shuffled; ``ordered`` is the answer."""
    shuffled = list(ordered)
    while shuffled == ordered:
        builder.rng.shuffle(shuffled)
    question = builder.phrase(form, items=builder.join_items(shuffled))
    return Draft(
        (question.text,), builder.join_items(ordered), question.form, ({"check": "sequence", "items": ordered},), {"items": shuffled}
    )


def _compose_step(builder: RowBuilder, form: str) -> Draft:
    unit, direction = form.split("_")
    calendar = CALENDARS[unit + "s"][builder.language]
    _, start, n = builder.draw_in_split(lambda: (form, builder.rng.randrange(len(calendar)), builder.rng.randint(1, 6)))
    step = 1 if direction == "after" else -1
    *names_before, answer = (calendar[(start + step * k) % len(calendar)] for k in range(n + 1))
    distance = f"{_NUMERALS[n]} {unit}" + ("s" if n > 1 else "")
    question = builder.phrase(form, start=calendar[start], n=n, **{unit + "s": distance})
    wrong_names = [
        name for name in calendar if name not in (answer, *names_before)
    ]  # a reply may count through the names before the answer
    constraint = {"check": "mentions", "any": _all_spellings(answer), "none": wrong_names}
    return Draft((question.text,), answer, question.form, (constraint,), {"start": calendar[start], "n": n, "direction": direction})


def _all_spellings(name: str) -> list[str]:
    """Return all spellings of a name; Chinese weekdays have several."""
    if not name.startswith("星期"):
        return [name]
    numerals = "日天" if name.endswith("日") else name[-1]
    return [week + numeral for week in ("星期", "周", "礼拜") for numeral in numerals]
