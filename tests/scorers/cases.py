"""One scorer of each kind with rows that it can score, for the tests of what all scorers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sftchat import Example
from sftchat.scorers import NAMES, Scorer, make_scorer
from sftchat.scorers.consent import code_allowed


@dataclass(frozen=True)
class Case:
    """A scorer by name and arguments, with gold replies and metadata.

    Attributes:
        name: Name of the scorer.
        golds: Gold replies, all different, so that none is right for the row of another.
        arguments: Arguments of the scorer.
        metadata: Metadata of every row.
        right_from: Value of the primary metric from which a reply is right, for scorers with a threshold; None for the best possible value.
    """

    name: str
    golds: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    right_from: float | None = None

    @property
    def scorer(self) -> Scorer:
        with code_allowed():
            return make_scorer(self.name, self.arguments)

    @property
    def examples(self) -> list[Example]:
        return [
            Example(({"role": "user", "content": f"question {number}"},), gold, f"i{number}", self.metadata)
            for number, gold in enumerate(self.golds)
        ]


EXACT = {"name": "exact", "extract": "whole", "ignore_case": True, "ignore_punctuation": True}
CONTAINS = {"name": "contains", "extract": "whole", "ignore_case": True, "alternatives": ""}
NUMERIC = {"name": "numeric", "extract": "whole", "absolute": 0.0, "relative": 0.0, "decimal": "."}
CHOICE = {"name": "choice", "labels": ["1 yes", "2 no"], "synonyms": {}, "extract": "whole", "ignore_case": True}

CASES = (
    Case("exact", ("Paris", "巴黎", "42")),
    Case("exact", ("#### 7", "#### 8"), {"extract": "after:####"}),
    Case("contains", ("Paris", "巴黎", "3.5 km")),
    Case("regex", (r"20\d\d-\d\d", "yes|no")),
    Case("numeric", ("1,250 km", "3/4", "三百二十元", "-12.5%")),
    Case("numeric", ("1.000,5", "#### 2"), {"extract": "after:####", "absolute": 0.1, "relative": 0.0, "decimal": ","}),
    Case("choice", ("billing", "not urgent", "urgent", "其他"), {"labels": ["billing", "not urgent", "urgent", "其他"]}),
    Case(
        "choice",
        ("Answer: A", "Answer: B"),
        {"labels": ["A", "B"], "synonyms": {"A": ["yes"]}, "extract": "after:Answer:", "ignore_case": False},
    ),
    Case("json_fields", ('{"name": "Anna", "tags": ["a", "b"]}', '{"name": "Ben", "age": 3}', '[{"x": 1}, {"x": null}]')),
    Case("json_fields", ('{"age": 30}', '{"age": 31}'), {"ignore_types": True}),
    Case("json_schema", ('{"city": "Rome"}', '{"city": "Paris"}'), {"schema": {"type": "object", "required": ["city"]}}),
    Case("tool_call", ('[{"name": "now", "arguments": {}}]', '{"name": "weather", "arguments": {"city": "Rome"}}', "[]")),
    Case("multiple_choice", ("Paris", "Lyon", "a town in the south"), metadata={"choices": ["Paris", "Lyon", "a town in the south"]}),
    Case("multiple_choice", ("yes", "no"), {"choices": ["yes", "no"], "normalise": "bytes"}),
    Case("perplexity", ("Paris", "巴黎", "a town in the south")),
    Case(
        "sql_result",
        ("SELECT 1", "SELECT name FROM staff ORDER BY name"),
        {},
        {"database": "CREATE TABLE staff (name TEXT); INSERT INTO staff VALUES ('Ben'), ('Anna');"},
    ),
    Case("set_f1", ("Paris\nRome", "- 巴黎\n- Oslo", "none")),
    Case(
        "set_f1",
        ("Items: a, b", "Items: c，d、e", "Items: nil"),
        {"extract": "after:Items:", "separator": ",", "empty": ["nil"], "ignore_case": False},
    ),
    Case("rouge_l", ("the cat sat on the mat", "猫坐在垫子上", "42"), right_from=0.5),
    Case("rouge_l", ("<a> the cat", "кот сидит"), {"extract": "after:<a>", "threshold": 1.0}),
    Case("chrf", ("the cat sat on the mat", "猫坐在垫子上", "42"), right_from=0.5),
    Case("chrf", ("The cat.", "(a dog)"), {"word_order": 2, "beta": 1, "ignore_case": True, "threshold": 0.2}, right_from=0.2),
    Case("bleu", ("The cat sat on the mat.", "No.", "4,200 dogs"), right_from=0.3),
    Case("bleu", ("猫坐在垫子上。", "我爱北京"), {"tokenize": "zh", "ignore_case": True, "threshold": 1.0}),
    Case("all_of", ("Paris", "巴黎"), {"parts": [EXACT, CONTAINS, EXACT]}),
    Case("all_of", ("1 yes", "2 no"), {"parts": [CHOICE, NUMERIC]}),
    Case("any_of", ("Paris", "42 km"), {"parts": [EXACT, NUMERIC]}),
    Case("weighted", ("1 yes", "2 no"), {"parts": [{**EXACT, "weight": 3}, {**CHOICE, "weight": 0.5}, {**NUMERIC, "weight": 1}]}),
    Case("weighted", ("Paris", "巴黎"), {"parts": [{"name": "all_of", "parts": [EXACT, CONTAINS], "weight": 1}, {**EXACT, "weight": 1}]}),
    Case("python_tests", ("def f():\n    return 7", "f = lambda: 7"), {"seconds": 2.0}, {"tests": "assert f() == 7"}),
)

UNTESTED = sorted({*NAMES} - {case.name for case in CASES})
