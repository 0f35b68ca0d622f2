"""The generator of general rows: its bytes, the separation of train and test split, and whether every gold answers its prompt."""

import hashlib
import itertools
import json
import re
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.types import Example
from sftchat_general import arithmetic, counting, identity, layout, ordering, reference, rewriting, words
from sftchat_general.checks import validate_row
from sftchat_general.constraints import violations
from sftchat_general.draft import PERSONA, PHRASINGS, is_held_out, values_of_split
from sftchat_general.generate import KINDS, generate
from sftchat_general.words import LANGUAGES, SPLITS

ROWS = {split: list(generate(3000, 5, split=split)) for split in SPLITS}
EVERY = [row for rows in ROWS.values() for row in rows]
FORMS = {
    "identity": identity.FORMS,
    "arithmetic": arithmetic.FORMS,
    "counting": counting.FORMS,
    "ordering": ordering.FORMS,
    "rewriting": rewriting.FORMS,
    "format": layout.FORMS,
    "reference": reference.FORMS,
}


def fingerprint(rows: list[Example]) -> str:
    return hashlib.sha256("\n".join(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) for row in rows).encode()).hexdigest()


def form(row: Example) -> str:
    return str(row.metadata["form"]).partition(":")[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "5a65d2b78ae232c674decffa2fd0b74e625ffb97c569394143f10624316d1cba"),
        ({"split": "test"}, "5e0823597664660d4dcaf1b38bb49192601ae8b34b71c42ee5417e0d12955b64"),
        (
            {"language": "zh", "kinds": ("arithmetic", "identity"), "largest": 100, "name": "小谈"},
            "2318affb81e5f23a8e2bf88a52867e0c2691dfa59d44282ada4f674b9ed726a7",
        ),
    ],
)
def test_the_same_seed_gives_the_same_bytes_everywhere(options: dict[str, object], expected: str) -> None:
    assert fingerprint(list(generate(200, 0, **options))) == expected  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25)
@given(st.integers(), st.integers(0, 15), st.sampled_from(SPLITS), st.sampled_from(["both", *LANGUAGES]), st.sampled_from(KINDS))
def test_a_row_does_not_depend_on_the_number_of_rows(seed: int, i: int, split: str, language: str, kind: str) -> None:
    rows = [list(generate(n, seed, split=split, language=language, kinds=(kind,))) for n in (i + 1, i + 7)]
    assert rows[0] == rows[1][: i + 1]


def test_rows_are_generated_lazily() -> None:
    assert next(generate(10**12, 1)).id == "general-train-train-1-000000"
    assert [row.id for row in generate(2, -3, split="test")] == ["general-test-test--3-000000", "general-test-test--3-000001"]


def test_thousands_of_rows_are_all_different() -> None:
    assert len({json.dumps(row.messages) for row in generate(10_000, 2)}) == 10_000
    assert len({json.dumps(row.messages) for row in ROWS["test"]}) == 3000


def test_a_kind_with_few_rows_repeats_itself_instead_of_ending() -> None:
    rows = list(generate(1500, 0, kinds=("identity",), language="en", split="test"))
    assert 100 < len({row.messages[0]["content"] for row in rows}) < 1500 == len(rows)


def test_no_prompt_of_the_test_split_is_a_prompt_of_the_training_split() -> None:
    prompts = {split: {json.dumps(row.messages) for row in rows} for split, rows in ROWS.items()}
    assert prompts["train"] & prompts["test"] == set()


def test_options_choose_language_kinds_persona_and_phrasings() -> None:
    assert {row.metadata["language"] for row in generate(50, 0, language="zh")} == {"zh"}
    assert {row.metadata["kind"] for row in generate(50, 0, kinds=("counting", "format"))} == {"counting", "format"}
    assert {row.metadata["form"].split(":")[2] for row in generate(50, 0, split="test", phrasings="train")} == {"train"}
    golds = {row.gold for row in generate(300, 0, kinds=("identity",), name="Nova", maker="Acme")}
    assert golds == {
        "我是 Nova。",
        "开发我的是 Acme。",
        "我不是人，我是 Nova，一个 AI 程序。",
        "I am Nova.",
        "I was made by Acme.",
        "I am not a human. I am Nova, an AI program.",
    }
    large = [row.metadata["facts"] for row in generate(400, 0, kinds=("arithmetic",), largest=1000)]
    assert max(facts["left"] for facts in large) > 900


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"n": -1}, "n is -1, must be 0 or more"),
        ({"language": "fr"}, "language is 'fr', must be both or zh or en"),
        ({"split": "dev"}, "split is 'dev', must be train or test"),
        ({"phrasings": "dev"}, "phrasings is 'dev', must be train or test"),
        ({"kinds": ("poem",)}, f"kinds has poem, must be some of {', '.join(KINDS)}"),
        ({"kinds": ()}, f"kinds has nothing, must be some of {', '.join(KINDS)}"),
        ({"largest": 9}, "largest is 9, must be from 10 to 1000"),
    ],
)
def test_an_option_without_meaning_is_refused_at_once(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        generate(**{"n": 1, "seed": 0, **options})  # type: ignore[arg-type]
    assert str(caught.value) == complaint


def test_every_form_has_phrasings_in_both_languages_for_both_splits() -> None:
    assert set(PHRASINGS["zh"]) == set(PHRASINGS["en"])
    counts = {(language, name): tuple(map(len, splits)) for language in LANGUAGES for name, splits in PHRASINGS[language].items()}
    assert {key: count for key, count in counts.items() if count[0] < 3 or count[1] < 1} == {}
    asked = {name for names in FORMS.values() for name in names}
    assert {key: count for key, count in counts.items() if key[1] in asked and count[1] < 2} == {}
    assert {kind: {form(row) for row in EVERY if row.metadata["kind"] == kind} for kind in KINDS} == {
        kind: set(forms) for kind, forms in FORMS.items()
    }


def readings(phrasing: str) -> list[str]:
    parts = re.split(r"\[([^\]]*)\]", phrasing)
    return ["".join(parts) for parts in itertools.product(*(part.split("|") if i % 2 else [part] for i, part in enumerate(parts)))]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_phrasing_is_in_both_splits_and_its_slots_are_the_same_in_both(language: str) -> None:
    for name, (train, test) in PHRASINGS[language].items():
        read = [[reading for phrasing in phrasings for reading in readings(phrasing)] for phrasings in (train, test)]
        assert set(read[0]) & set(read[1]) - {""} == set(), name
        assert all(len(set(one)) == len(one) for one in read), name
        if language == "zh":
            assert not re.search(r"[,;?!]", "".join(map("".join, read))), name
    text = [message["content"] for row in EVERY for message in row.messages if row.metadata["language"] == language]
    assert [one for one in text if re.search(r"[\[\]|]|(?<!JSON )\{\w*\}|  |。。|\.\.|？。", one.replace("……", ""))] == []


TABLES = [
    *words.NAMES.values(),
    *words.COLOURS.values(),
    *words.BELONGINGS.values(),
    *words.CITIES.values(),
    *words.LABELS.values(),
    *(group for groups in words.CATEGORIES.values() for group in groups.values()),
    *(tuple(word for word, _ in table) for table in (*words.COUNTABLE.values(), *words.THINGS.values())),
    words.WORDS,
    words.PHRASES,
    words.TAGS,
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table[0])
def test_every_table_has_words_for_both_splits_and_none_twice(table: tuple[str, ...]) -> None:
    train, test = values_of_split(table, "train"), values_of_split(table, "test")
    assert len(set(table)) == len(table)
    assert sorted(train + test) == sorted(table)
    assert 2 <= len(test) <= len(train)


def test_categories_share_no_word() -> None:
    for groups in words.CATEGORIES.values():
        everything = [word for group in groups.values() for word in group]
        assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("split", SPLITS)
def test_words_and_numbers_are_those_of_the_split(split: str) -> None:
    wanted = split == "test"
    for row in ROWS[split]:
        facts = row.metadata["facts"]
        used = [
            facts[key] for key in ("word", "phrase", "label", "old", "new", "city", "number", "another", "first", "second") if key in facts
        ]
        if form(row) == "characters" and row.metadata["language"] == "en":
            used.remove(facts["phrase"])
        if row.metadata["kind"] in ("format", "reference") and "name" in facts:
            used.append(facts["name"])
        if form(row) in ("items", "reverse", "alphabetical", "bullets", "numbered", "one_word"):
            used += facts["items"]
        assert [value for value in used if is_held_out(value) != wanted] == [], row


def test_operands_of_the_splits_are_disjoint_in_any_order() -> None:
    pairs = {
        split: {
            (facts["sign"], *(sorted((facts["left"], facts["right"])) if facts["sign"] != "-" else (facts["left"], facts["right"])))
            for facts in (row.metadata["facts"] for row in generate(3000, 1, kinds=("arithmetic",), split=split))
        }
        for split in SPLITS
    }
    assert pairs["train"] & pairs["test"] == set()
    assert min(map(len, pairs.values())) > 60


def test_sets_and_steps_of_the_splits_are_disjoint() -> None:
    seen: dict[str, set[object]] = {split: set() for split in SPLITS}
    for split, rows in ROWS.items():
        for row in rows:
            facts = row.metadata["facts"]
            if form(row) in ("ascending", "descending"):
                seen[split].add(tuple(sorted(facts["items"])))
            elif form(row) in ("days", "months"):
                seen[split].add((row.metadata["language"], *sorted(facts["items"])))
            elif form(row) in ordering.STEPS:
                seen[split].add((form(row), facts["start"], facts["n"]))
    assert seen["train"] & seen["test"] == set()
    assert min(map(len, seen.values())) > 150


SIGNS = {"+": int.__add__, "-": int.__sub__, "×": int.__mul__}
ENGLISH_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ENGLISH_MONTHS = "January February March April May June July August September October November December".split()
CHINESE_DAYS = [f"星期{numeral}" for numeral in "一二三四五六日"]
CHINESE_MONTHS = [f"{numeral}月" for numeral in "一 二 三 四 五 六 七 八 九 十 十一 十二".split()]
CALENDARS = (ENGLISH_DAYS, ENGLISH_MONTHS, CHINESE_DAYS, CHINESE_MONTHS)


def calendar(name: str) -> list[str]:
    return next(names for names in CALENDARS if name in names)


def expected(row: Example) -> str:
    """Compute the gold from the facts, independently of the generator."""
    facts, zh = row.metadata["facts"], row.metadata["language"] == "zh"
    name, comma = form(row), "、" if zh else ", "
    if row.metadata["kind"] == "identity":
        who, maker = PERSONA.name["zh" if zh else "en"], PERSONA.maker["zh" if zh else "en"]
        nature = f"我不是人，我是 {who}，一个 AI 程序。" if zh else f"I am not a human. I am {who}, an AI program."
        made = f"开发我的是 {maker}。" if zh else f"I was made by {maker}."
        return {"maker": made, "nature": nature}.get(name, f"我是 {who}。" if zh else f"I am {who}.")
    if row.metadata["kind"] == "arithmetic":
        return str(SIGNS[facts["sign"]](facts["left"], facts["right"]))
    if row.metadata["kind"] == "reference":
        told = {"ask_name": "name", "ask_number": "number", "ask_colour": "colour"}.get(name)
        value = facts[told] if told else facts["colour"] if facts["thing"] == facts["first"] else facts["another"]
        thing = facts["thing"]
        return {
            "ask_name": f"你叫{value}。" if zh else f"Your name is {value}.",
            "ask_number": f"那个数字是 {value}。" if zh else f"The number is {value}.",
            "ask_colour": f"你最喜欢的颜色是{value}。" if zh else f"Your favourite colour is {value}.",
            "ask_two": f"你的{thing}是{value}的。" if zh else f"Your {thing} is {value}.",
        }[name]
    if name in ordering.STEPS:
        names = calendar(facts["start"])
        step = facts["n"] if facts["direction"] == "after" else -facts["n"]
        return names[(names.index(facts["start"]) + step) % len(names)]
    compute = {
        "letters": lambda: str(sum(character.isalpha() for character in facts["word"])),
        "letter": lambda: str(len(re.findall(facts["letter"], facts["word"]))),
        "items": lambda: str(len(facts["items"])),
        "characters": lambda: str(len(re.findall(r"[一-鿿]" if zh else r"\w+", facts["phrase"]))),
        "ascending": lambda: comma.join(sorted(facts["items"], key=int)),
        "descending": lambda: comma.join(sorted(facts["items"], key=int, reverse=True)),
        "alphabetical": lambda: comma.join(sorted(facts["items"])),
        "days": lambda: comma.join(sorted(facts["items"], key=calendar(facts["items"][0]).index)),
        "months": lambda: comma.join(sorted(facts["items"], key=calendar(facts["items"][0]).index)),
        "upper": lambda: facts["text"].upper(),
        "lower": lambda: facts["text"].lower(),
        "reverse": lambda: comma.join(reversed(facts["items"])),
        "replace": lambda: re.sub(facts["old"], facts["new"], facts["text"]),
        "first": lambda: facts["text"][: facts["n"]] if zh else " ".join(facts["text"].split(" ")[: facts["n"]]),
        "prefix": lambda: facts["label"] + facts["text"],
        "json": lambda: json.dumps(
            {key: facts[{"姓名": "name", "年龄": "age", "城市": "city"}.get(key, key)] for key in facts["wanted"]}, ensure_ascii=False
        ),
        "bullets": lambda: "- " + "\n- ".join(facts["items"]),
        "numbered": lambda: "\n".join(f"{i + 1}. {item}" for i, item in enumerate(facts["items"])),
        "one_word": lambda: next(item for item in facts["items"] if item in words.CATEGORIES[row.metadata["language"]][facts["category"]]),
        "tags": lambda: f"<{facts['tag']}>{facts['word']}</{facts['tag']}>",
    }
    return compute[name]()


@pytest.mark.parametrize("kind", KINDS)
def test_every_gold_follows_from_the_facts_and_the_facts_stand_in_the_prompt(kind: str) -> None:
    rows = [row for row in EVERY if row.metadata["kind"] == kind]
    assert len(rows) > 200
    assert [(row.id, row.gold) for row in rows if row.gold != expected(row)] == []
    hidden = {"topic", "told", "sign", "direction", "name", "maker", "category", "wanted", "answer", "marker", "label"}
    for row in rows:
        text = " ".join(message["content"] for message in row.messages)
        facts = {key: value for key, value in row.metadata["facts"].items() if key not in hidden}
        if kind == "reference":
            told = {"name": ("name",), "number": ("number",), "colour": ("colour",), "two": ("first", "second", "colour", "another")}
            facts = {key: row.metadata["facts"][key] for topic in row.metadata["facts"]["told"] for key in told[topic]}
        if form(row) == "json":
            facts = {key: row.metadata["facts"][key] for key in ("name", "age", "city")} | {"items": row.metadata["facts"]["wanted"]}
        if form(row) in ordering.STEPS and row.metadata["language"] == "en":
            facts["n"] = ("one", "two", "three", "four", "five", "six")[facts["n"] - 1]
        if form(row) in ("bullets", "numbered"):
            facts.pop("n", None)
        values = [one for value in facts.values() for one in (value if isinstance(value, list) else [value])]
        assert [value for value in values if str(value) not in text] == [], row


def test_arithmetic_stays_in_bounds_and_stories_have_plurals() -> None:
    for row in EVERY:
        if row.metadata["kind"] == "arithmetic":
            facts = row.metadata["facts"]
            least = 2 if form(row).startswith("story") else 1
            assert all(least <= facts[side] <= 20 for side in ("left", "right")), row
            assert 1 <= int(row.gold or "") <= 20, row


def test_every_gold_keeps_its_constraints_and_no_prompt_answers_itself() -> None:
    assert [(row.id, validate_row(row)) for row in EVERY if validate_row(row)] == []
    asked = [
        (row, row.messages[-1]["content"]) for row in EVERY if row.metadata["kind"] not in ("arithmetic", "counting")
    ]  # 2 - 1 ends in a 1
    assert [question for row, question in asked if not violations(row.metadata["constraints"], question, question)] == []


def test_a_conversation_has_two_or_three_user_turns_and_every_other_row_has_one() -> None:
    turns = {kind: Counter(len(row.messages) for row in EVERY if row.metadata["kind"] == kind) for kind in KINDS}
    assert {kind: set(counts) for kind, counts in turns.items()} == {kind: {1} for kind in KINDS} | {"reference": {3, 5}}
    assert {tuple(message["role"] for message in row.messages[:3]) for row in EVERY if len(row.messages) > 1} == {
        ("user", "assistant", "user")
    }


def test_kinds_and_languages_are_balanced_where_there_are_enough_rows() -> None:
    kinds = Counter(row.metadata["kind"] for row in ROWS["train"])
    languages = Counter(row.metadata["language"] for row in ROWS["train"])
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) > 350
    assert min(languages.values()) > 1400


def test_the_metadata_describe_how_a_row_was_generated() -> None:
    assert next(row for row in ROWS["train"] if form(row) == "letters").metadata == {
        "kind": "counting",
        "language": "en",
        "form": "letters:en:train:2",
        "constraints": [{"check": "number", "value": 5}],
        "facts": {"word": "camel"},
    }


@pytest.mark.parametrize("name", ["Nova", "小K", "GPT-5", "Claude", "the Helper", "C-3PO!", "李 明", "Dr. No {x}", "百晓生"])
def test_any_persona_keeps_its_own_constraints(name: str) -> None:
    rows = list(generate(60, 3, kinds=("identity",), name=name, maker=name))
    assert [(row.gold, validate_row(row)) for row in rows if validate_row(row)] == []
    other = [row for row in generate(60, 3, kinds=("identity",), name="Zed", maker="Zed") if row.metadata["facts"]["topic"] != "nature"]
    mine = {row.id: row for row in rows}
    assert [row.gold for row in other if not violations(mine[row.id].metadata["constraints"], row.gold or "", "")] == []
