"""The confusion table of a scorer with labels, in every format of a report."""

from __future__ import annotations

import io
import json
import re
from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from rich.console import Console

from sftchat import Example, Reply, Score, Task
from sftchat.evaluation.confusion import Confusion, count_confusion
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.evaluate import compare, score_stored, summarise
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.confusion import ConfusionCell, ConfusionRow, build_table
from sftchat.evaluation.report.html import to_html
from sftchat.evaluation.report.markdown import to_markdown
from sftchat.evaluation.report.terminal import ConfusionText, print_report
from sftchat.evaluation.report.view import Report
from sftchat.scorers import choice

LABELS = ("billing", "hardware", "other")
REPLIES = (
    ("billing", "billing"),
    ("billing", "Billing."),
    ("billing", "hardware"),
    ("hardware", "hardware"),
    ("hardware", "no idea"),
    ("billing", "other"),
)
SCORER = choice(labels=LABELS)
TASK = Task("tickets", "", lambda n, seed: (), SCORER.score, SCORER.metrics)


def report(*, baseline: bool = False) -> Report:
    examples = [Example(({"role": "user", "content": f"ticket {n}"},), gold, f"t{n}") for n, (gold, _) in enumerate(REPLIES)]
    evalset = EvalsetIdentity("gold.csv", "f00d", len(examples))
    replies = {f"t{n}": Reply(reply) for n, (_, reply) in enumerate(REPLIES)}
    gold = {example.id: Reply(example.gold or "") for example in examples}
    new, old = (summarise(name, TASK, score_stored(TASK, examples, [said])[0], evalset) for name, said in (("new", replies), ("old", gold)))
    return Report("tickets", (new,), (old,), (compare(old, new, TASK),)) if baseline else Report("tickets", (new,))


def printed(content: Report | ConfusionText, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    if isinstance(content, Report):
        print_report(content, console)
    else:
        console.print(content)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


TABLE = """\
gold ↓ answer →  billing  hardware  other  no label
───────────────────────────────────────────────────
billing                2         1      1         ·
hardware               ·         1      ·         1
other                  ·         ·      0         ·"""


def test_scores_are_counted_by_gold_label_and_answer() -> None:
    scores = [Score({"n": 1}, answer, expected=gold) for gold, answer in (("b", "b"), ("b", "a"), ("b", ""), ("a", "c"))]

    assert count_confusion(scores) == Confusion(("b", "a", "c"), ((1, 1, 0), (0, 0, 1), (0, 0, 0)), (1, 0, 0))
    assert count_confusion([Score({"n": 1}, "text")]) is None


def test_the_terminal_shows_a_confusion_table_for_a_model_and_for_a_comparison() -> None:
    assert TABLE in printed(report())
    assert (
        "gold ↓ answer →  billing  hardware  other  no label  precision  recall\n"
        "──────────────────────────────────────────────────────────────────────\n"
        "billing                2         1      1         ·      1.000   0.500\n"
        "hardware               ·         1      ·         1      0.500   0.500\n"
        "other                  ·         ·      0         ·      0.000"
    ) in printed(report(baseline=True))


def test_the_terminal_shows_precision_and_recall_by_label() -> None:
    assert (
        "group      gold      f1   precision   recall\n"
        "────────────────────────────────────────────\n"
        "billing       4   0.667       1.000    0.500\n"
        "hardware      2   0.500       0.500    0.500\n"
        "other         0   0.000       0.000    0.000"
    ) in printed(report())


def test_markdown_has_the_table_with_right_answers_bold() -> None:
    text = (
        "<details><summary>confusion: gold labels in rows, answers in columns</summary>\n\n"
        "|  | billing | hardware | other | no label | precision | recall |\n"
        "|---|---:|---:|---:|---:|---:|---:|\n"
        "| billing | **2** | 1 | 1 | · | 1.000 | 0.500 |\n"
        "| hardware | · | **1** | · | 1 | 0.500 | 0.500 |\n"
        "| other | · | · | **0** | · | 0.000 |  |\n\n"
        "</details>"
    )

    assert text in to_markdown(report(), Verdict())
    assert text in to_markdown(report(baseline=True), Verdict())


def test_the_page_has_the_table_with_classes_by_share() -> None:
    (table,) = re.findall(r'<table class="confusion">.*?</table>', to_html(report(), Verdict()), flags=re.DOTALL)
    cells = re.findall(r'<td class="n ([^"]*)">(.*?)</td>', table)

    assert cells == [
        *(("right share-3", "2"), ("wrong share-2", "1"), ("wrong share-2", "1"), ("zero", "·"), ("faint", "1.000"), ("faint", "0.500")),
        *(("zero", "·"), ("right share-3", "1"), ("zero", "·"), ("wrong share-3", "1"), ("faint", "0.500"), ("faint", "0.500")),
        *(("zero", "·"), ("zero", "·"), ("zero", "0"), ("zero", "·"), ("faint", "0.000"), ("faint", "")),
    ]


def test_the_json_has_all_counts_and_is_valid() -> None:
    document = json.loads(report(baseline=True).to_json().replace("f00d", "f00d" * 16))
    schema = json.loads((files("sftchat.evaluation") / "report.schema.json").read_text(encoding="utf-8"))

    Draft202012Validator(schema).validate(document)
    assert document["results"][0]["confusion"] == {
        "labels": ["billing", "hardware", "other"],
        "counts": [[2, 1, 1], [0, 1, 0], [0, 0, 0]],
        "unlabelled": [0, 1, 0],
    }


def test_rare_labels_are_summed_when_there_are_too_many() -> None:
    confusion = Confusion(("a", "b", "c"), ((3, 1, 2), (0, 2, 0), (0, 0, 1)), (0, 1, 0))
    table = build_table(confusion, 2)

    assert (table.columns, table.note) == (("a", "b", "rarer", "no label"), "1 rarer label not shown, all in report.json")
    assert table.rows == (
        ConfusionRow(
            "a",
            (ConfusionCell(3, True, 0.5), ConfusionCell(1, False, 1 / 6), ConfusionCell(2, False, 1 / 3), ConfusionCell(0, False, 0)),
            1.0,
            0.5,
        ),
        ConfusionRow(
            "b",
            (ConfusionCell(0, False, 0), ConfusionCell(2, True, 2 / 3), ConfusionCell(0, False, 0), ConfusionCell(1, False, 1 / 3)),
            2 / 3,
            2 / 3,
        ),
    )


def test_columns_have_numbers_where_names_do_not_fit() -> None:
    confusion = Confusion(("account access", "billing question"), ((12, 1), (0, 2)), (0, 1))

    assert printed(ConfusionText(confusion), 60) == (
        "gold ↓ answer →   account access  billing question  no label\n"
        "────────────────────────────────────────────────────────────\n"
        "account access                12                 1         ·\n"
        "billing question               ·                 2         1"
    )
    assert printed(ConfusionText(confusion), 59) == (
        "gold ↓ answer →     1 2 no label\n"
        "────────────────────────────────\n"
        "1 account access   12 1        ·\n"
        "2 billing question  · 2        1"
    )


@given(
    labels=st.lists(st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=40), min_size=1, max_size=40, unique=True),
    count=st.integers(0, 99_999),
    width=st.integers(80, 200),
)
def test_no_line_is_wider_than_the_terminal(labels: list[str], count: int, width: int) -> None:
    size = len(labels)
    confusion = Confusion(tuple(labels), ((count,) * size,) * size, (0,) * size)

    lines = printed(ConfusionText(confusion), width).splitlines()

    assert max(map(cell_len, lines)) <= width
    assert len(lines) - 2 - lines[-1].endswith("report.json") <= min(20, size)


def test_hostile_labels_are_made_safe() -> None:
    confusion = Confusion(("a\x1b[2J", "[bold]b"), ((1, 0), (0, 1)), (0, 0))

    assert printed(ConfusionText(confusion)).splitlines()[2:] == [
        "a�[2J                1        ·         ·",
        "[bold]b              ·        1         ·",
    ]
