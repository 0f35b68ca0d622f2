"""The generator of relation rows: its bytes, the separation of train and test split, and whether the gold matches the text."""

import hashlib
import itertools
import json
import re
from collections import Counter
from dataclasses import asdict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.types import Example, Message
from sftchat_relation import article
from sftchat_relation.checks import PATTERNS, Statement, find_statements, validate_row
from sftchat_relation.fillers import FILLERS, OPENERS
from sftchat_relation.forms import DISTRACTOR_FORMS, ERAS, GROUP_FORMS, RELATION_FORMS, Form, parse_form
from sftchat_relation.generate import SPLITS, generate
from sftchat_relation.language import CHINESE
from sftchat_relation.names import CHARACTERS, COMPOUND_SURNAMES, SURNAMES, NameSource, split_of
from sftchat_relation.vocabulary import DIRECTED, NOVEL, SYMMETRIC, VOCABULARY

ROWS = {split: list(generate(2000, 5, names=split, forms=split)) for split in SPLITS}
FORMS = {form.id: form for table in (RELATION_FORMS, GROUP_FORMS, DISTRACTOR_FORMS) for forms in table.values() for form in forms}
ONE_EACH = [form for forms in RELATION_FORMS.values() for form in forms]

# The cue words of each relation. Every reading of every form has one; a test form has one that occurs in some training form.
CUES = {
    "师徒": "师父 师傅 恩师 为师 徒 门下 座下 老师 师门",
    "父子": "爹 父 爸 儿子 之子 吾儿 逆子 长子",
    "父女": "爹 父 女儿 爸 闺女 之女 掌上明珠 独生女",
    "母子": "娘 母 妈 儿子 我儿 儿啊",
    "母女": "娘 母 妈 女儿 闺女",
    "兄妹": "哥 妹 兄",
    "姐弟": "姐 弟",
    "祖孙": "爷 奶奶 祖 外公 外婆 孙",
    "主仆": "主 仆 下人 丫鬟 丫头 佣 老爷 少爷 公子 小姐 太太 奴 管家 伺候 东家 侍女",
    "夫妻": "妻 夫 嫁 娶 老婆 娘子 相公 官人 当家的 成亲 结婚 离婚 洞房 盖头 小两口 媳妇",
    "恋人": "恋 心上人 爱 吻 情郎 两情 女朋友 怀里 许 相会 私奔 相思 私订终身 相拥 青梅竹马 非她不娶 定情 一缕头发",
    "好友": "友 知己 交情",
    "敌对": "仇 敌 对头 势不两立 恨 水火不容 你死 分个生死 血债 不共戴天 不死不休",
    "情敌": "情敌 情场 同一个 争风吃醋 女子 追求 提亲 求亲 倾心 想娶 各凭本事 喜欢 爱 同一位 情书 心上人 心仪",
    "战友": "战友 同袍 并肩 阵地 打仗 战壕 敌军 部队 同在一个连 同营 军中 入伍 投军 当兵 仗",
    "同门": "同门 师兄 师弟 师姐 师妹 师父 一师 师傅",
    "兄弟": "兄 弟 哥",
    "姐妹": "姐 妹 姊",
}

# Words that state the sex of head and tail of a kinship, so that the label does not depend on a name.
SEXES = {
    "父子": ("爹|父|爸|丧妻", "儿|逆子|之子|长子|父子|子承|他|小子"),
    "父女": ("爹|父|爸", "女|闺|她|掌上明珠"),
    "母子": ("娘|母|妈|生下|守寡|掉下来", "儿|母子|长子|独子|男孩|他|状元"),
    "母女": ("娘|母|妈|怀胎|生{b}", "女|闺|她|小姐|坐月子"),
    "兄妹": ("哥|兄|他", "妹|她|出嫁"),
    "姐弟": ("姐|她", "弟|他"),
    "兄弟": ("哥|兄|二弟|长子|入赘", "弟"),
    "姐妹": ("姐|姊|大小姐", "妹|二小姐"),
}


def text(row: Example) -> str:
    return row.messages[0]["content"].removeprefix(CHINESE.instruction)


def triples(row: Example) -> list[tuple[str, str, str]]:
    if row.gold in (None, CHINESE.nothing):
        return []
    return [(*line.partition(":")[0].split("-"), line.partition(":")[2]) for line in row.gold.splitlines()]  # type: ignore[misc]


def readings(form: Form) -> list[str]:
    parts = re.split(r"\[([^\]]*)\]", form.text)
    return ["".join(parts) for parts in itertools.product(*(part.split("|") if i % 2 else [part] for i, part in enumerate(parts)))]


def fingerprint(rows: list[Example]) -> str:
    return hashlib.sha256("\n".join(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) for row in rows).encode()).hexdigest()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"preset": "novel"}, "1aa659fb7d19ea8acaf3af5cf8a53913a119e388d2d6ef9cac23f5ef814158e3"),
        ({"preset": "novel", "names": "test", "forms": "test"}, "6762b9a30daecad01098460d1407832a8e6d094182c9b89057aa5be43d10b1ff"),
        ({"preset": "article"}, "abb3cc7df49149fdd35ce94ac8fed0b27d3fb0c9a2db7a9df948f9f408378af6"),
    ],
)
def test_the_same_seed_gives_the_same_bytes_everywhere(options: dict[str, str], expected: str) -> None:
    assert fingerprint(list(generate(200, 0, **options))) == expected


@settings(deadline=None, max_examples=25)
@given(st.integers(), st.integers(0, 15), st.sampled_from(["novel", "article"]), st.sampled_from(SPLITS), st.sampled_from(SPLITS))
def test_a_row_does_not_depend_on_the_number_of_rows(seed: int, i: int, preset: str, names: str, forms: str) -> None:
    rows = [list(generate(n, seed, preset=preset, names=names, forms=forms)) for n in (i + 1, i + 7)]
    assert rows[0] == rows[1][: i + 1]


def test_rows_are_generated_lazily() -> None:
    assert next(generate(10**12, 1)).id == "novel-train-train-1-000000"
    assert [row.id for row in generate(2, -3, preset="article")] == ["article--3-000000", "article--3-000001"]
    assert next(generate(1, 4, names="test")).id == "novel-test-train-4-000000"


def test_different_seeds_and_options_give_different_rows() -> None:
    rows = [next(generate(1, seed, names=names, forms=forms)).messages for seed in (0, 1) for names in SPLITS for forms in SPLITS]
    assert len({json.dumps(row) for row in rows}) == 8


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"n": -1}, "n is -1, must be 0 or more"),
        ({"preset": "poem"}, "preset is 'poem', must be novel or article"),
        ({"names": "dev"}, "names is 'dev', must be train or test"),
        ({"forms": ""}, "forms is '', must be train or test"),
    ],
)
def test_an_option_without_meaning_is_refused_at_once(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        generate(**{"n": 1, "seed": 0, **options})  # type: ignore[arg-type]
    assert str(caught.value) == complaint


def test_there_are_enough_names() -> None:
    characters = "".join(CHARACTERS.values())
    assert len(set(SURNAMES)) == len(SURNAMES) >= 120
    assert len(set(COMPOUND_SURNAMES)) == len(COMPOUND_SURNAMES) >= 15
    assert len(set(characters)) == len(characters) >= 300


@settings(deadline=None)
@given(st.integers(), st.sampled_from(SPLITS))
def test_people_of_a_passage_are_distinct_of_one_split_and_no_name_holds_another(seed: int, split: str) -> None:
    source = NameSource(Random(seed), split)
    father = source.person("m", shows_gender=True)
    daughter = source.person("f", surname=father.surname, shows_gender=True)
    people = [father, daughter, source.titled("m", "old"), source.ordained("f"), source.servant("m"), source.titled("f", "new")]
    people += [source.person(gender) for gender in "mfmf"]
    assert daughter.surname == father.surname
    assert set(father.given) & set(CHARACTERS["m"])
    assert set(daughter.given) & set(CHARACTERS["f"])
    assert {split_of(person.given) for person in people} == {split}
    assert [(a.name, b.name) for a, b in itertools.permutations(people, 2) if a.name in b.name or a.given == b.given] == []
    assert all(person.name.startswith(person.surname) and person.name.endswith(person.given) for person in people)


def test_no_name_of_a_test_passage_is_in_training_passages() -> None:
    names = {split: {name for row in rows for head, tail, _ in triples(row) for name in (head, tail)} for split, rows in ROWS.items()}
    assert min(map(len, names.values())) > 3000
    assert names["train"] & names["test"] == set()
    mixed = {name for row in generate(500, 5, names="test", forms="train") for *pair, _ in triples(row) for name in pair}
    assert mixed & names["train"] == set()
    # What follows a surname is a given name; without one, or with a title, the whole name stands for it.
    surnames = (*SURNAMES, *COMPOUND_SURNAMES)
    for split in SPLITS:
        givens = {name: {name} | {name.removeprefix(surname) for surname in surnames} for name in names[split]}
        assert [name for name, readings in givens.items() if split not in map(split_of, readings)] == []


def test_the_metadata_describe_how_a_row_was_generated() -> None:
    row = ROWS["test"][0]
    assert row.id == "novel-test-test-5-000000"
    assert {**row.metadata, "form_ids": []} == {"preset": "novel", "names": "test", "forms": "test", "form_ids": []}
    assert set(row.metadata["form_ids"]) <= set(FORMS)
    assert set(next(generate(1, 0, preset="article")).metadata) == {"preset", "form_ids"}


def test_no_sentence_is_in_both_splits() -> None:
    prose = {split: {form.text for form in FORMS.values() if form.split == split} for split in SPLITS}
    assert prose["train"] & prose["test"] == set()
    for split, rows in ROWS.items():
        assert {FORMS[form_id].split for row in rows for form_id in row.metadata["form_ids"]} == {split}


def test_every_relation_has_sixteen_forms_half_of_them_for_each_split() -> None:
    assert {label for label, _ in RELATION_FORMS} == set(NOVEL)
    assert len(NOVEL) == 18
    counts = {label: tuple(len(RELATION_FORMS[label, split]) for split in SPLITS) for label in NOVEL}
    assert {label: count for label, count in counts.items() if sum(count) < 16 or abs(count[0] - count[1]) > 1} == {}
    assert {split: len(forms) for split, forms in DISTRACTOR_FORMS.items()} == {"train": 66, "test": 66}
    assert {split: len(forms) for split, forms in GROUP_FORMS.items()} == {"train": 17, "test": 17}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_relation_has_forms_for_both_ages_and_texts_that_start_with_either_person(split: str, era: str) -> None:
    for label in NOVEL:
        forms = [form for form in RELATION_FORMS[label, split] if era in form.eras]
        assert len(forms) >= 6, label
        if label in DIRECTED:
            assert {form.people[0] for form in forms} == {"a", "b"}, label


@pytest.mark.parametrize("form", ONE_EACH, ids=lambda form: form.id)
def test_every_reading_of_a_form_has_a_cue_that_training_has(form: Form) -> None:
    ((head, tail, label),) = form.relations
    train = "\n".join(other.text for other in RELATION_FORMS[label, "train"])
    cues = [cue for cue in CUES[label].split() if cue in train]
    assert (head, tail) == ("a", "b")
    assert {"a", "b"} <= set(form.people)
    assert [reading for reading in readings(form) if not any(cue in reading for cue in cues)] == []


@pytest.mark.parametrize("label", SEXES)
def test_every_reading_of_a_kinship_states_both_sexes_in_words(label: str) -> None:
    for form in RELATION_FORMS[label, "train"] + RELATION_FORMS[label, "test"]:
        assert [reading for reading in readings(form) for sex in SEXES[label] if not re.search(sex, reading)] == []


def test_every_slot_of_every_form_fills() -> None:
    assert min(len(values) for table in FILLERS.values() for values in table.values()) >= 12
    people = {*"abc", "pa", "pb", "pc", "ga", "gb", "gc"}
    for form in FORMS.values():
        slots = set(re.findall(r"\{(\w*)\}", form.text))
        assert slots <= people | set(FILLERS), form.id
        assert {slot[-1] for slot in slots & people} == set(form.people), form.id
        assert {slot for head, tail, _ in form.relations for slot in (head, tail)} <= set(form.people), form.id
        assert all(reading.endswith(("。", "！", "？", "”")) for reading in readings(form)), form.id
    for openers in itertools.chain.from_iterable(table.values() for table in OPENERS.values()):
        assert set(re.findall(r"\{(\w+)\}", "".join(openers))) <= set(FILLERS)
    assert [text(row) for rows in ROWS.values() for row in rows if re.search(r"[\[\]{}|<>!?,a-zA-Z0-9\s]", text(row))] == []


def test_a_form_is_read_with_its_tag() -> None:
    assert parse_form("!mfo ab夫妻 bc好友>{a}[和|与]{b}、{c}。", "x:1", "train") == Form(
        "x:1", "train", "{a}[和|与]{b}、{c}。", "mf-", ("old",), (("a", "b", "夫妻"), ("b", "c", "好友")), True
    )
    assert parse_form("“爹！”{b}看着{a}。", "x:2", "test", "父子") == Form(
        "x:2", "test", "“爹！”{b}看着{a}。", "mm-", ERAS, (("a", "b", "父子"),), False
    )


@pytest.mark.parametrize("split", SPLITS)
def test_the_gold_names_people_of_the_text_and_each_pair_once(split: str) -> None:
    assert [(row.id, validate_row(row)) for row in ROWS[split] if validate_row(row)] == []
    for row in ROWS[split]:
        pairs = [frozenset((head, tail)) for head, tail, _ in triples(row)]
        assert len(set(pairs)) == len(pairs) == sum(len(FORMS[form_id].relations) for form_id in row.metadata["form_ids"])
        assert {label for _, _, label in triples(row)} <= set(NOVEL)


@pytest.mark.parametrize("split", SPLITS)
def test_symmetric_relations_list_first_whom_the_text_names_first(split: str) -> None:
    for row in ROWS[split]:
        for head, tail, label in triples(row):
            assert label not in SYMMETRIC or text(row).index(head) < text(row).index(tail)


@pytest.mark.parametrize("split", SPLITS)
def test_the_gold_stands_in_the_order_in_which_the_text_states_it(split: str) -> None:
    for row in ROWS[split]:
        labels = [label for form_id in row.metadata["form_ids"] for _, _, label in FORMS[form_id].relations]
        assert [label for _, _, label in triples(row)] == labels


@pytest.mark.parametrize("split", SPLITS)
def test_sharing_a_person_never_implies_a_relation_that_the_gold_lacks(split: str) -> None:
    kin = {"父子", "父女", "母子", "母女", "兄妹", "姐弟", "兄弟", "姐妹", "祖孙"}
    shared = 0
    for row in ROWS[split]:
        if any(form_id.startswith("group") for form_id in row.metadata["form_ids"]):
            continue
        roles: dict[str, list[str]] = {}
        for head, tail, label in triples(row):
            roles.setdefault(head, []).append(label)
            roles.setdefault(tail, []).append(label)
        shared += max(map(len, roles.values()), default=0) > 1
        for labels in roles.values():
            assert len(labels) <= 2
            for implied in (kin, {"师徒", "同门"}, {"夫妻", "恋人", "情敌"}, {"战友"}):
                assert len([label for label in labels if label in implied]) <= 1, row
        parents = {head for head, _, label in triples(row) if label in {"父子", "父女", "母子", "母女", "祖孙"}}
        spouses = {name for *pair, label in triples(row) if label in {"夫妻", "恋人", "情敌"} for name in pair}
        assert parents & spouses == set()
    assert shared > 120


@pytest.mark.parametrize("split", SPLITS)
def test_the_distribution_has_the_intended_figures(split: str) -> None:
    counts = Counter(len(triples(row)) for row in ROWS[split])
    labels = Counter(label for row in ROWS[split] for _, _, label in triples(row))
    lengths = [len(text(row)) for row in ROWS[split]]
    mean = sum(count * times for count, times in counts.items()) / len(ROWS[split])
    assert set(counts) == {0, 1, 2, 3, 4, 5}
    assert 0.10 < counts[0] / len(ROWS[split]) < 0.14
    assert 1.45 < mean < 1.75
    assert 50 < sum(lengths) / len(lengths) < 70
    assert min(lengths) >= 10
    assert max(lengths) <= 260
    assert max(labels.values()) < 2.5 * min(labels[label] for label in NOVEL)


def test_children_have_the_surname_of_their_father_and_siblings_one_surname() -> None:
    surnames = sorted((*COMPOUND_SURNAMES, *SURNAMES), key=len, reverse=True)
    for row in ROWS["train"]:
        for head, tail, label in triples(row):
            if label in {"父子", "父女", "兄弟", "姐妹", "兄妹", "姐弟"}:
                assert next(name for name in surnames if head.startswith(name)) == next(name for name in surnames if tail.startswith(name))


def test_an_article_row_is_exactly_of_the_published_recipe() -> None:
    seen: Counter[int] = Counter()
    for row in generate(1000, 2, preset="article"):
        prompt = row.messages[0]["content"]
        assert prompt.startswith(article.PROMPT)
        assert "\n" not in prompt
        sentences = prompt.removeprefix(article.PROMPT).split(" ")
        read = list(find_statements(prompt))
        assert [statement.number for statement in read] == row.metadata["form_ids"]
        assert len(sentences) == len(read) == len(triples(row)) <= 3
        for sentence, statement, (head, tail, label) in zip(sentences, read, triples(row), strict=True):
            assert sentence == article.FORMS[statement.number - 1].format(a=head, b=tail, r=label)
            assert (statement.a, statement.b) == (head, tail)
            assert statement.label == (None if statement.number == 5 else label)
        people = [name for head, tail, _ in triples(row) for name in (head, tail)]
        assert len(set(people)) == len(people)
        assert set(people) <= set(article.CHARACTERS)
        labels = [label for _, _, label in triples(row)]
        assert len(set(labels)) == len(labels)
        assert set(labels) <= set(article.RELATIONS)
        seen.update(row.metadata["form_ids"])
    assert set(seen) == set(range(1, 9)) == set(range(1, len(PATTERNS) + 1))
    assert (len(article.CHARACTERS), len(article.RELATIONS)) == (20, 23)


@pytest.mark.parametrize(
    ("passage", "gold", "expected"),
    [
        ("韩立与紫灵是好友关系。", "韩立-紫灵:好友", ()),
        ("韩立是紫灵的徒弟。", "韩立-紫灵:徒弟", ()),
        ("韩立是紫灵的徒弟。", "紫灵-韩立:师徒", ()),
        ("韩立是紫灵的徒弟。", "紫灵-韩立:师生", ()),
        ("韩立是紫灵的徒弟。", "韩立-紫灵:师徒", ("the text says 徒弟, the gold 师徒: 韩立, 紫灵",)),
        ("韩立是紫灵的表弟。", "韩立-紫灵:亲戚", ()),
        ("韩立是紫灵的朋友。", "韩立-紫灵:好友", ()),
        ("韩立与紫灵是好友关系。", "韩立-紫灵:敌对", ("the text says 好友, the gold 敌对: 韩立, 紫灵",)),
        ("韩立收紫灵为徒弟,师徒关系牢固。", "韩立-紫灵:师徒", ()),
        ("韩立收紫灵为徒弟,师徒关系牢固。", "韩立-紫灵:师尊", ()),
        ("韩立收紫灵为徒弟,师徒关系牢固。", "韩立-紫灵:徒弟", ("徒弟 contradicts its sentence (pattern 5): 韩立, 紫灵",)),
        ("韩立收紫灵为徒弟,师徒关系牢固。", "韩立-紫灵:父女", ("父女 contradicts its sentence (pattern 5): 韩立, 紫灵",)),
        ("紫灵一直深爱着韩立,两人是师叔。", "韩立-紫灵:师叔", ("师叔 contradicts its sentence (pattern 3): 韩立, 紫灵",)),
        ("韩立深爱着紫灵，两人结为夫妻。", "韩立-紫灵:夫妻", ()),
        ("韩立深爱着紫灵,两人结为敌对。", "韩立-紫灵:敌对", ("敌对 contradicts its sentence (pattern 7): 韩立, 紫灵",)),
        ("韩立与紫灵情同手足,是师兄弟。", "韩立-紫灵:师兄弟", ()),
        ("韩立与紫灵情同手足,是情敌。", "韩立-紫灵:情敌", ("情敌 contradicts its sentence (pattern 6): 韩立, 紫灵",)),
        ("韩立与紫灵擦肩而过。", "无", ()),
        ("韩立与紫灵擦肩而过。", "韩立和紫灵", ("malformed gold line '韩立和紫灵'",)),
        ("韩立与紫灵擦肩而过。", "", ()),
        ("韩立与紫灵成亲。", "韩立-紫灵:冤家", ("unknown relation 冤家",)),
        ("韩立与紫灵成亲。", "韩立-李四:夫妻", ("name not in the text: 李四",)),
        ("韩立与紫灵成亲。", "韩立-韩立:夫妻", ("韩立 is paired with itself",)),
        ("韩立与紫灵成亲。", "韩立-紫灵:夫妻\n紫灵-韩立:夫妻", ("duplicate pair 紫灵-韩立",)),
    ],
)
def test_a_check_names_the_problem_of_a_row(passage: str, gold: str, expected: tuple[str, ...]) -> None:
    assert validate_row(Example((Message(role="user", content=article.PROMPT + passage),), gold)) == expected


def test_a_row_without_a_gold_has_a_problem_and_no_pattern_reads_prose() -> None:
    assert validate_row(Example((Message(role="user", content=CHINESE.instruction + "天黑了。"),))) == ("no gold",)
    assert list(find_statements(CHINESE.instruction + "韩立望着紫灵,没有说话。 韩立和紫灵曾是战友。")) == [
        Statement(8, "韩立", "紫灵", "战友")
    ]


def test_the_check_finds_most_of_the_noise_of_the_recipe_and_none_in_novels() -> None:
    noisy = [row for row in generate(1000, 0, preset="article") if validate_row(row)]
    for row in generate(1000, 0, preset="article"):
        labels = [VOCABULARY.canonical(label) for _, _, label in triples(row)]
        wrong = [n for n, known in zip(row.metadata["form_ids"], labels, strict=True) if n == 5 and known != ("师徒", False)]
        assert len([problem for problem in validate_row(row) if "pattern 5" in problem]) == len(wrong)
    assert 550 < len(noisy) < 700


def test_the_vocabulary_is_closed() -> None:
    relations = set(VOCABULARY.relations)
    assert len(relations) == len(VOCABULARY.relations)
    assert set(VOCABULARY.aliases) & relations == set()
    assert {label for label, _ in VOCABULARY.aliases.values()} <= relations
    assert VOCABULARY.symmetric <= relations
    assert set(VOCABULARY.broader) | {label for row in VOCABULARY.broader.values() for label in row} <= relations
    assert [alias for alias, (label, inverted) in VOCABULARY.aliases.items() if inverted and label in VOCABULARY.symmetric] == []
    assert [label for label in article.RELATIONS if VOCABULARY.canonical(label) is None] == []
    assert [VOCABULARY.canonical(label) for label in ("师徒", "徒弟", "朋友", "路人")] == [
        ("师徒", False),
        ("师徒", True),
        ("好友", False),
        None,
    ]
