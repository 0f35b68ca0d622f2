"""``report.json`` is valid under its schema, and the schema describes every key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from sftchat import EngineError, SamplingParams
from sftchat.evaluation.report.view import Report

GOLD = {"a": "甲-乙:夫妻", "b": "丙-丁:师徒", "c": "无"}
SCHEMA = json.loads((files("sftchat.evaluation") / "report.schema.json").read_text(encoding="utf-8"))
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "report.md"


def closed(schema: Any) -> Any:
    """Return the schema without additional keys: readers must accept keys of later versions, but our tests must describe all."""
    if isinstance(schema, dict):
        inner = {key: closed(value) for key, value in schema.items()}
        return inner | {"additionalProperties": False} if "properties" in inner and "type" in inner else inner
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


def check(report: Report, sha256: str = "f00d" * 16) -> None:
    text = report.to_json().replace('"sha256": "f00d"', f'"sha256": "{sha256}"')
    Draft202012Validator(closed(SCHEMA)).validate(json.loads(text))


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_reports_of_every_shape_are_valid(make_report: Callable[..., Report]) -> None:
    plain = make_report(GOLD, {**GOLD, "a": "错"})

    check(plain)
    check(make_report(GOLD, {**GOLD, "a": "错"}, baseline={**GOLD, "b": ""}))
    check(make_report(GOLD, GOLD, GOLD, baseline=GOLD, names="one two"))
    check(make_report(GOLD, {**GOLD, "b": EngineError("gone")}, baseline={**GOLD, "a": EngineError("gone")}))
    check(make_report({"a": "无"}, {"a": EngineError("gone")}, baseline={"a": "无"}))
    check(make_report({"a": "无"}, {"a": "无"}), sha256="")
    check(replace(plain, sampling=SamplingParams(8, 0.7, stop=("\n",), seed=3), seed=3, versions={"numpy": "2", "sftchat": "0"}))
    check(replace(plain, results=(replace(plain.results[0], replies="replies.jsonl"),)))
    check(replace(plain, results=()))


def test_an_invalid_report_is_refused(make_report: Callable[..., Report]) -> None:
    report = json.loads(make_report(GOLD, GOLD).to_json())

    for broken in (report | {"schema_version": 2}, report | {"extra": 1}, {key: value for key, value in report.items() if key != "seed"}):
        with pytest.raises(ValidationError):
            Draft202012Validator(closed(SCHEMA)).validate(broken)


def test_the_example_in_the_documentation_is_valid() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), flags=re.DOTALL)

    Draft202012Validator(closed(SCHEMA)).validate(json.loads(example))
