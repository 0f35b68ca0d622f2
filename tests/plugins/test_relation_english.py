"""The relation task in English: its generator, parser, scorer, row check and evalset."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import DataError, Example, Message, Reply
from sftchat.data.formats import read_examples
from sftchat_relation.checks import validate_row
from sftchat_relation.forms import Form
from sftchat_relation.generate import LANGUAGE_CODES, SPLITS, generate
from sftchat_relation.language import CHINESE, ENGLISH, LANGUAGES, language_of
from sftchat_relation.material_en import ENGLISH_MATERIAL
from sftchat_relation.names_en_words import FEMALE, FEMALE_PET_NAMES, MALE, MALE_PET_NAMES, SURNAMES
from sftchat_relation.parser import ParsedReply, Triple, parse_reply
from sftchat_relation.plugin import sftchat_register_tasks
from sftchat_relation.scorer import score
from sftchat_relation.vocabulary import NOVEL, SYMMETRIC
from sftchat_relation.vocabulary_en import LABELS, VOCABULARY

(TASK,) = sftchat_register_tasks()
EVALSET = tuple(read_examples(TASK.evalsets["relation-en"]))
ROWS = {split: list(generate(2000, 5, language="en", names=split, forms=split)) for split in SPLITS}
TABLES = (ENGLISH_MATERIAL.relation_forms, ENGLISH_MATERIAL.group_forms, ENGLISH_MATERIAL.distractor_forms)
FORMS = {form.id: form for table in TABLES for forms in table.values() for form in forms}
SENTENCE_END = re.compile(r"[.!?]”?$")
PASSAGE = "Mrs. Ada Kent met Jean-Paul Ross at the mill. Tom watched Dr. Lowe."
HEADS, TAILS = ("Mrs. Ada Kent", "Jean-Paul Ross"), ("Tom", "Dr. Lowe")


def passage(row: Example) -> str:
    return row.messages[0]["content"].removeprefix(ENGLISH.instruction)


def triples(row: Example) -> list[tuple[str, str, str]]:
    if row.gold in (None, ENGLISH.nothing):
        return []
    matches = [ENGLISH.gold_line.fullmatch(line) for line in row.gold.splitlines()]
    return [(match[1], match[2], match[3]) for match in matches if match]


def readings(form: Form) -> list[str]:
    parts = re.split(r"\[([^\]]*)\]", form.text)
    return ["".join(parts) for parts in itertools.product(*(part.split("|") if i % 2 else [part] for i, part in enumerate(parts)))]


def read(reply: str) -> ParsedReply:
    return parse_reply(reply, PASSAGE, ENGLISH)


def example(gold: str) -> Example:
    return Example((Message(role="user", content=ENGLISH.instruction + PASSAGE),), gold)


def test_the_same_seed_gives_the_same_english_rows_everywhere() -> None:
    rows = list(generate(200, 0, language="en"))
    text = "\n".join(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) for row in rows)
    assert hashlib.sha256(text.encode()).hexdigest() == "d35b2bda6d613cb00b3779c95c879e5a6ecaf31f4fe24b02caef4439f6faa8ea"
    assert (rows[3].id, rows[3].metadata["language"]) == ("novel-en-train-train-0-000003", "en")


@settings(deadline=None, max_examples=60)
@given(st.integers(), st.integers(0, 12), st.sampled_from(["en", "both"]), st.sampled_from(SPLITS), st.sampled_from(SPLITS))
def test_the_gold_of_every_row_scores_highest_and_is_read_back(seed: int, i: int, language: str, names: str, forms: str) -> None:
    row = list(generate(i + 1, seed, language=language, names=names, forms=forms))[i]
    result = TASK.score(row, Reply(row.gold or ""))
    parsed = parse_reply(row.gold or "", row.messages[0]["content"], language_of(row.messages[0]["content"]))
    assert validate_row(row) == ()
    assert (result.stats["exact"], result.stats["tp"], result.errors) == (1, result.stats["gold"], ())
    assert parsed.well_formed
    assert [tuple(triple) for triple in parsed.strict] == [tuple(triple) for triple in parsed.lenient]
    assert list(generate(i + 5, seed, language=language, names=names, forms=forms))[i] == row


def test_rows_of_both_languages_are_those_of_one_language() -> None:
    both = list(generate(100, 7, language="both"))
    single = {code: list(generate(100, 7, language=code)) for code in LANGUAGES}
    codes = [row.metadata.get("language", "zh") for row in both]
    assert [single[code][i] for i, code in enumerate(codes)] == both
    assert 30 < codes.count("en") < 70


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"language": "fr"}, "language is 'fr', must be zh or en or both"),
        ({"language": "en", "preset": "article"}, "language is 'en', must be zh with the preset article"),
    ],
)
def test_a_language_without_rows_is_refused(options: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        generate(1, 0, **options)


def test_every_relation_has_forms_in_both_splits_and_no_sentence_is_in_both() -> None:
    assert {kind for kind, _ in ENGLISH_MATERIAL.relation_forms} == set(NOVEL) == set(LABELS)
    assert min(len(forms) for forms in ENGLISH_MATERIAL.relation_forms.values()) >= 10
    assert len(FORMS) >= 120
    prose = {split: {reading for form in FORMS.values() if form.split == split for reading in readings(form)} for split in SPLITS}
    assert prose["train"] & prose["test"] == set()
    for split, rows in ROWS.items():
        assert {FORMS[form_id].split for row in rows for form_id in row.metadata["form_ids"]} == {split}


def test_every_slot_of_every_form_is_filled_and_every_sentence_is_whole() -> None:
    people = {prefix + slot for prefix in ("", *ENGLISH_MATERIAL.pronouns) for slot in "abc"}
    for form in FORMS.values():
        slots = set(re.findall(r"\{(\w*)\}", form.text))
        assert slots <= people | set(ENGLISH_MATERIAL.fillers), form.id
        assert {slot[-1] for slot in slots & people} == set(form.people), form.id
        assert {slot for head, tail, _ in form.relations for slot in (head, tail)} <= set(form.people), form.id
        assert [reading for reading in readings(form) if not SENTENCE_END.search(reading)] == [], form.id
    for rows in ROWS.values():
        assert [passage(row) for row in rows if re.search(r"[\[\]{}|<>_]|  |\ba [aeiou]|\.\.", passage(row))] == []
        starts = [start for row in rows for start in re.findall(r"(?:^|[.]”? |[?!] )(“?.)", passage(row))]
        assert {start for start in starts if start.removeprefix("“").islower()} == set()


@pytest.mark.parametrize("split", SPLITS)
def test_the_gold_names_people_of_the_passage_and_each_pair_once(split: str) -> None:
    for row in ROWS[split]:
        pairs = [frozenset(triple[:2]) for triple in triples(row)]
        assert len(set(pairs)) == len(pairs) == sum(len(FORMS[form_id].relations) for form_id in row.metadata["form_ids"])
        assert [label for _, _, label in triples(row)] == [
            LABELS[label] for form_id in row.metadata["form_ids"] for _, _, label in FORMS[form_id].relations
        ]
        names = {name for pair in pairs for name in pair}
        assert [(one, other) for one in names for other in names if one != other and one in other] == []


def test_the_distribution_is_that_of_the_chinese_rows() -> None:
    for split in SPLITS:
        counts = Counter(len(triples(row)) for row in ROWS[split])
        labels = Counter(label for row in ROWS[split] for _, _, label in triples(row))
        assert 0.10 < counts[0] / 2000 < 0.14
        assert 1.45 < sum(count * times for count, times in counts.items()) / 2000 < 1.75
        assert max(labels.values()) < 2.5 * min(labels[label] for label in LABELS.values())


def test_no_name_of_a_test_passage_is_in_training_passages() -> None:
    names = {split: {name for row in rows for head, tail, _ in triples(row) for name in (head, tail)} for split, rows in ROWS.items()}
    givens = {*MALE, *FEMALE, *MALE_PET_NAMES, *FEMALE_PET_NAMES}
    used = {split: {word for name in found for word in name.split() if word in givens} for split, found in names.items()}
    assert min(map(len, names.values())) > 1000
    assert names["train"] & names["test"] == used["train"] & used["test"] == set()


def test_the_evalset_shares_no_name_and_no_sentence_with_the_generator() -> None:
    words = {word for row in EVALSET for name in re.findall(r"[A-Z][a-z]+", passage(row)) for word in (name,)}
    assert words & {*MALE, *FEMALE, *MALE_PET_NAMES, *FEMALE_PET_NAMES, *SURNAMES} == set()

    def sentences(text: str) -> set[str]:
        return {sentence.strip("”“ ") for sentence in re.split(r"[.!?]", text) if len(sentence) > 20}

    printed = {sentence for rows in ROWS.values() for row in rows for sentence in sentences(passage(row))}
    assert [row.id for row in EVALSET if sentences(passage(row)) & printed] == []


@pytest.mark.parametrize("row", EVALSET, ids=lambda row: row.id)
def test_the_gold_of_the_evalset_scores_highest_and_wrong_replies_do_not(row: Example) -> None:
    best = score(row, Reply(row.gold or ""))
    assert (best.stats["exact"], best.stats["strict_tp"], best.errors) == (1, best.stats["gold"], ())
    assert validate_row(row) == ()
    for reply in ("", "I don't know.", passage(row), "Nobody - Nobody Else: friends"):
        assert score(row, Reply(reply)).stats["exact"] == 0


@pytest.mark.parametrize(
    "reply",
    [
        "Mrs. Ada Kent - Tom: mother and son\nTom - Dr. Lowe: friends",
        "Mrs. Ada Kent-Tom: mother and son\nTom-Dr. Lowe: friends",
        "Mrs. Ada Kent – Tom: Mother and son\nTom — Dr. Lowe: friends.",
        "1. Mrs. Ada Kent - Tom: mother-son\n2. Tom - Dr. Lowe: best friends",
        "- Mrs. Ada Kent - Tom: mother and son relationship\n- Tom and Dr. Lowe: friends (since school)",
        "Tom - Mrs. Ada Kent: son and mother; Tom - Dr. Lowe: friend",
        "Mrs. Ada Kent -> Tom: mother and son, Tom -> Dr. Lowe: friendship",
        "**Mrs. Ada Kent - Tom: mother and son**\n\n**Tom - Dr. Lowe: friends**",
        '[{"head": "Mrs. Ada Kent", "relation": "mother and son", "tail": "Tom"}, {"head": "Tom", "relation": "friends", "tail": "Dr. Lowe"}]',
        "(Mrs. Ada Kent, mother and son, Tom)\n(Tom, friends, Dr. Lowe)",
    ],
)
def test_usual_forms_of_a_reply_are_read(reply: str) -> None:
    assert read(reply).lenient == (Triple("Mrs. Ada Kent", "Tom", "mother and son"), Triple("Tom", "Dr. Lowe", "friends"))


def test_only_the_exact_form_is_well_formed() -> None:
    assert read("Mrs. Ada Kent - Tom: mother and son").well_formed
    assert read("Tom - Jean-Paul Ross: fellow pupils").strict == (Triple("Tom", "Jean-Paul Ross", "fellow pupils"),)
    assert not read("Mrs. Ada Kent-Tom: mother and son").well_formed
    assert not read("Mrs. Ada Kent - Tom: Mother and son").well_formed
    assert not read("mother and son: Mrs. Ada Kent - Tom").well_formed


@pytest.mark.parametrize("reply", ["none", "None.", "No relations found", "There are no relationships."])
def test_statements_that_there_is_no_relation_are_read(reply: str) -> None:
    parsed = read(reply)
    assert (parsed.parsable, parsed.lenient, parsed.well_formed) == (True, (), reply == "none")
    assert score(example("none"), Reply(reply)).stats["exact"] == 1


@pytest.mark.parametrize(
    "reply", ["They are friends.", "I'm sorry, I cannot do that.", "The passage tells of a mill and a doctor who watched."]
)
def test_prose_is_not_read(reply: str) -> None:
    assert not read(reply).parsable


@pytest.mark.parametrize(
    ("gold", "reply", "errors"),
    [
        ("Mrs. Ada Kent - Tom: mother and son", "Tom - Mrs. Ada Kent: mother and son", ("flipped_direction",)),
        ("Mrs. Ada Kent - Tom: parent and child", "Mrs. Ada Kent - Tom: mother and son", ()),
        ("Mrs. Ada Kent - Tom: mother and son", "Mrs. Ada Kent - Tom: friends", ("wrong_relation",)),
        ("Mrs. Ada Kent - Tom: spouses", "Tom - Mrs. Ada Kent: husband and wife", ()),
        ("Mrs. Ada Kent - Tom: spouses", "Ada Kent - Tom: spouses", ("boundary",)),
        ("Dr. Lowe - Tom: teacher and pupil", "Tom - Dr. Lowe: apprentice", ()),
        ("Dr. Lowe - Tom: teacher and pupil", "Dr. Lowe - Mary: teacher and pupil", ("hallucinated_entity",)),
        ("Dr. Lowe - Tom: teacher and pupil", "none", ("missing",)),
        ("none", "Dr. Lowe - Tom: friends", ("spurious",)),
        ("Dr. Lowe - Tom: friends", "Dr. Lowe - Tom: godfather", ("unknown_relation",)),
    ],
)
def test_errors_have_the_same_classes_as_in_chinese(gold: str, reply: str, errors: tuple[str, ...]) -> None:
    result = score(example(gold), Reply(reply))
    assert [error for error in result.errors if error != "format_drift"] == list(errors)
    assert result.stats["exact"] == int(not errors)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Mrs. Ada Kent", "Jean-Paul Ross"]),
            st.sampled_from(["Tom", "Dr. Lowe"]),
            st.sampled_from(VOCABULARY.relations),
        ),
        min_size=1,
    )
)
def test_formatted_english_triples_are_read_back(rows: list[tuple[str, str, str]]) -> None:
    parsed = read("\n".join(ENGLISH.format_line(*row) for row in rows))
    assert parsed.well_formed
    assert [tuple(triple) for triple in parsed.strict] == rows


def test_every_spelling_of_a_label_is_read_in_its_direction() -> None:
    for spelling, (label, swaps_people) in VOCABULARY.aliases.items():
        expected = Triple("Tom", "Dr. Lowe", label) if swaps_people else Triple("Dr. Lowe", "Tom", label)
        assert read(f"Dr. Lowe - Tom: {spelling}").lenient == (expected,), spelling


def test_the_english_vocabulary_is_closed_and_has_the_directions_of_the_chinese_one() -> None:
    relations = set(VOCABULARY.relations)
    assert len(relations) == len(VOCABULARY.relations)
    assert set(VOCABULARY.aliases) & relations == set()
    assert {label for label, _ in VOCABULARY.aliases.values()} | set(VOCABULARY.broader) <= relations
    assert [spelling for spelling in (*relations, *VOCABULARY.aliases) if len(spelling) > ENGLISH.max_label_length] == []
    assert [kind for kind, label in LABELS.items() if (kind in SYMMETRIC) != (label in VOCABULARY.symmetric)] == []
    assert [alias for alias, (label, inverted) in VOCABULARY.aliases.items() if inverted and label in VOCABULARY.symmetric] == []


def test_the_language_is_that_of_the_passage() -> None:
    assert tuple(LANGUAGES) == LANGUAGE_CODES
    assert language_of("Tom and Ada met.\nnone") is ENGLISH
    assert language_of("韩立与紫灵擦肩而过。\n无") is CHINESE
    assert (
        score(Example((Message(role="user", content="韩立是紫灵的师父。"),), "韩立-紫灵:师徒"), Reply("韩立 - 紫灵: 师徒")).stats["exact"]
        == 1
    )


@pytest.mark.parametrize(
    ("gold", "problems"),
    [
        ("Mrs. Ada Kent - Tom: spouses", ()),
        ("Mrs. Ada Kent-Tom: spouses", ("malformed gold line 'Mrs. Ada Kent-Tom: spouses'",)),
        ("Mrs. Ada Kent - Mary: spouses", ("name not in the text: Mary",)),
        ("Tom - Tom: friends", ("Tom is paired with itself",)),
        ("Tom - Dr. Lowe: friends\nDr. Lowe - Tom: enemies", ("duplicate pair Dr. Lowe-Tom",)),
        ("Tom - Dr. Lowe: godfather", ("unknown relation godfather",)),
    ],
)
def test_the_check_names_the_problem_of_an_english_row(gold: str, problems: tuple[str, ...]) -> None:
    assert validate_row(example(gold)) == problems


def test_a_malformed_english_gold_is_reported_with_the_english_form() -> None:
    with pytest.raises(DataError, match="must be A - B: relation with a known relation, or the whole gold none"):
        score(example("Mrs. Ada Kent and Tom are married"), Reply("none"))
