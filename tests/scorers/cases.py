"""One scorer of each kind with rows that it can score, for the tests of what all scorers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sftchat import Example
from sftchat.scorers import NAMES, Scorer, make_scorer


@dataclass(frozen=True)
class Case:
    """A scorer by name and arguments, with gold replies and metadata.

    Attributes:
        name: Name of the scorer.
        golds: Gold replies, all different, so that none is right for the row of another.
        arguments: Arguments of the scorer.
        metadata: Metadata of every row.
    """

    name: str
    golds: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scorer(self) -> Scorer:
        return make_scorer(self.name, self.arguments)

    @property
    def examples(self) -> list[Example]:
        return [
            Example(({"role": "user", "content": f"question {number}"},), gold, f"i{number}", self.metadata)
            for number, gold in enumerate(self.golds)
        ]


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
)

UNTESTED = sorted({*NAMES} - {case.name for case in CASES})
