"""``json_schema``: replies, rows and schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftchat import Example, Reply, Score
from sftchat.errors import UsageError
from sftchat.scorers import json_schema, make_scorer

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["city"],
    "properties": {"city": {"$ref": "#/$defs/name"}, "size": {"enum": ["small", "large"]}},
    "$defs": {"name": {"type": "string", "minLength": 1}},
}


@pytest.mark.parametrize(
    ("reply", "counts", "errors"),
    [
        ('```json\n{"city": "Rome"}\n```', (1, 1), ()),
        ("{}", (0, 1), ("invalid_required",)),
        ('{"city": 7}', (0, 1), ("invalid_type",)),
        ('{"city": "Rome", "size": "medium"}', (0, 1), ("invalid_enum",)),
        ("Rome", (0, 0), ("unparsable",)),
        ("", (0, 0), ("empty",)),
    ],
)
def test_a_reply_is_right_when_it_satisfies_the_schema(reply: str, counts: tuple[int, int], errors: tuple[str, ...]) -> None:
    score = json_schema(SCHEMA).score(Example(()), Reply(reply))

    assert score == Score({"n": 1, "correct": counts[0], "valid": counts[1]}, reply.strip(), errors)


def test_a_gold_reply_must_satisfy_the_schema_and_may_be_missing() -> None:
    scorer = json_schema(SCHEMA)

    assert [list(scorer.validate_row(Example((), gold))) for gold in (None, '{"city": "Rome"}', "{}", "x")] == [
        [],
        [],
        ["the gold reply does not satisfy the schema: required"],
        ["the gold reply is no JSON: there is no JSON"],
    ]


def test_a_schema_comes_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))

    assert make_scorer("json_schema", {"schema_file": str(path)}).settings == {"schema": SCHEMA}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "json_schema needs one of the arguments 'schema' and 'schema_file'"),
        ({"schema": {}, "schema_file": "x"}, "json_schema needs one of the arguments 'schema' and 'schema_file'"),
        ({"schema_file": "missing.json"}, "cannot read the schema 'missing.json': no such file or directory"),
        ({"schema": {"type": "objet"}}, "the schema is invalid at '$.type': 'objet' is not valid under any of the given schemas"),
        ({"schema": {"$ref": "https://example.org/x"}}, "the schema has a reference to 'https://example.org/x', which is not in it"),
        ({"schema": {"$schema": "https://example.org/x"}}, "the schema has the unknown $schema 'https://example.org/x'"),
        ({"schema": {"$ref": "#"}}, "the schema refers to itself without end"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_scorer("json_schema", arguments)

    assert str(caught.value) == message
