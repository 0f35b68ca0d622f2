"""Every class of problems has a policy, which the user can set."""

from __future__ import annotations

import pytest

from sftchat import UsageError
from sftchat.data.check import PROBLEM_CLASSES, Problem, parse_policies


def test_everything_fails_by_default_except_what_may_be_intended() -> None:
    assert parse_policies([]) == {
        name: "keep" if name in ("unanswered", "template-token", "control-character", "near-duplicate") else "fail"
        for name in PROBLEM_CLASSES
    }
    chosen = parse_policies(["near-duplicate=drop", "conflict = keep", "malformed=drop"])
    assert {name: chosen[name] for name in ("near-duplicate", "conflict", "malformed", "task")} == {
        "near-duplicate": "drop",
        "conflict": "keep",
        "malformed": "drop",
        "task": "fail",
    }


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["conflict"], "policy 'conflict' must be CLASS=fail, CLASS=drop or CLASS=keep, such as near-duplicate=drop"),
        (
            ["conflicts=drop"],
            f"unknown class of problems 'conflicts'; did you mean 'conflict'? (available: {', '.join(sorted(PROBLEM_CLASSES))})",
        ),
        (["conflict=dorp"], "unknown policy 'dorp'; did you mean 'drop'? (available: drop, fail, keep)"),
        (["conflict=drop", "conflict=drop"], "policy of conflict is given twice; give it once"),
        (["invalid=keep"], "rows that are invalid cannot be read, so not kept; give invalid=fail or invalid=drop"),
    ],
)
def test_meaningless_policies_are_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_policies(pairs)
    assert str(caught.value) == message


def test_a_problem_is_printed_as_place_and_message() -> None:
    assert str(Problem("task", "f:3", "gold shouts")) == "f:3: gold shouts"
