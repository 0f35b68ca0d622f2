"""Workflow commands: no more than GitHub shows, and no text that ends them early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.github import annotate
from sftchat.evaluation.report.view import Report


def test_a_failed_gate_has_one_error_for_the_verdict_and_nine_for_items(make_report: Callable[..., Report]) -> None:
    gold = {str(line): "甲-乙:夫妻" for line in range(1, 21)}
    report = make_report(gold, dict.fromkeys(gold, "错"), baseline=gold)

    lines = annotate(report, Verdict("fail", ("model is worse",)))

    assert lines[0] == "::error title=sftchat eval triples::fail%0Amodel is worse"
    assert lines[1:] == tuple(
        f"::error file=gold.jsonl,line={n},title=newly broken%3A {n}::model on gold.jsonl: missing, spurious" for n in range(1, 10)
    )


def test_a_gate_that_passed_writes_no_annotation(make_report: Callable[..., Report]) -> None:
    report = make_report({"a": "甲-乙:夫妻"}, {"a": ""}, baseline={"a": "甲-乙:夫妻"})

    assert annotate(report, Verdict("pass")) == ()


def test_no_name_ends_the_workflow_command(make_report: Callable[..., Report]) -> None:
    report = replace(make_report({"a": "无"}, {"a": "无"}), task="50%,a:b\r\n::error::x")

    assert annotate(report, Verdict("fail", ("100%\r\n::warning::y",))) == (
        "::error title=sftchat eval 50%25%2Ca%3Ab%0D%0A%3A%3Aerror%3A%3Ax::fail%0A100%25%0D%0A::warning::y",
    )
