"""A report as JUnit XML, so that a CI server lists the items that a checkpoint newly broke, not those that were wrong before.

There is one suite per model and evalset, and one case per item. A newly broken item is a failure, an item that was wrong before is skipped, and an
item that was not answered is an error. Without a baseline it is unknown which errors are new, so wrong items are skipped. The suite ``gate`` has
one case, the verdict, with its numbers as properties; with a policy file it also has a case per rule.

GitHub Actions, GitLab and Jenkins read this format; it is valid against ``junit-10.xsd`` of Jenkins' xunit-plugin. It has no times: the same
replies give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from sftchat.evaluation.gate import Verdict, VerdictOutcome
from sftchat.evaluation.report.view import ItemHistory, Report, comparison_of, error_classes, item_histories, reply_text
from sftchat.evaluation.scored import Failure
from sftchat.text import sanitize_lines

CaseOutcome = Literal["failure", "error", "skipped"]
_CASE_OUTCOMES: dict[VerdictOutcome, CaseOutcome] = {
    "fail": "failure",
    "inconclusive": "skipped",
    "not comparable": "error",
    "could not judge": "error",
}


@dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        name: Name in the list of cases.
        outcome: None for a case that passed.
        message: One line that explains the outcome.
        details: Further text, shown when the case is opened.
    """

    name: str
    outcome: CaseOutcome | None = None
    message: str = ""
    details: str = ""


def to_junit(report: Report, verdict: Verdict) -> str:
    """Return the report as JUnit XML; control characters and characters that reorder or hide text become ``\N{REPLACEMENT CHARACTER}``.

    Args:
        report: Measurements.
        verdict: Verdict on them; it makes no case when nothing was required.
    """
    suites: list[tuple[str, Mapping[str, str], list[Case]]] = []  # name, properties and cases of each
    if verdict.headline:
        suites.append(("gate", _verdict_properties(verdict), [_verdict_case(verdict), *_rule_cases(verdict)]))
    for result in report.results:
        cases = [_item_case(item) for item in item_histories(result, comparison_of(report, result))]
        suites.append((f"{result.model} on {result.evalset.name}", {}, cases))
    all_cases = [case for *_, cases in suites for case in cases]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<testsuites name={_quote_attribute(f'sftchat eval {report.task}')} {_count_attributes(all_cases)}>",
    ]
    for name, properties, cases in suites:
        skipped = sum(case.outcome == "skipped" for case in cases)
        lines.append(f'  <testsuite name={_quote_attribute(name)} {_count_attributes(cases)} skipped="{skipped}">')
        lines.extend(_property_lines(properties))
        lines.extend(_case_lines(cases, name))
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _item_case(item: ItemHistory) -> Case:
    name, errors = item.example.id, ", ".join(error_classes(item.new))
    if item.change == "failed":
        return Case(name, "error", item.new.lack if isinstance(item.new, Failure) else "not answered", reply_text(item.new))
    if item.change == "broken":
        return Case(name, "failure", f"newly broken: {errors}", _item_details(item))
    if item.change == "wrong":
        change = "broken as before" if error_classes(item.old) else "not right, and no baseline says whether that is new"
        return Case(name, "skipped", f"{change}: {errors}")
    return Case(name)


def _item_details(item: ItemHistory) -> str:
    texts = (("gold", item.example.gold or ""), ("baseline", reply_text(item.old)), ("model", reply_text(item.new)))
    return "\n\n".join(f"{title}:\n{text}" for title, text in texts)


def _verdict_case(verdict: Verdict) -> Case:
    if verdict.outcome == "pass":
        return Case("verdict")
    outcome = _CASE_OUTCOMES[verdict.outcome]
    if verdict.outcome == "inconclusive" and verdict.exit_code:
        outcome = "error"
    return Case("verdict", outcome, verdict.headline, "\n".join(verdict.reasons))


def _rule_cases(verdict: Verdict) -> Iterator[Case]:
    """Yield a case per rule of a policy file: a failure for a rule of ``block``, skipped for one of ``warn`` that is not met."""
    for rule in verdict.rules if verdict.policy else ():
        outcome: CaseOutcome | None = None if rule.outcome == "met" else "skipped"
        if (rule.tier, rule.outcome) == ("block", "failed"):
            outcome = "failure"
        message = "" if outcome is None else f"{rule.tier}: {rule.line}"
        yield Case(f"{rule.tier}: {rule.rule}: {rule.task}, {rule.model} on {rule.evalset}", outcome, message)


def _verdict_properties(verdict: Verdict) -> dict[str, str]:
    """Return the verdict, and what is unsettled about it, as properties; unknown values are left out."""
    values: dict[str, object] = {"verdict": verdict.outcome, "exit_code": verdict.exit_code}
    if verdict.unsettled is not None:
        values |= {name: value for name, value in vars(verdict.unsettled).items() if value is not None}
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def _property_lines(properties: Mapping[str, str]) -> Iterator[str]:
    if properties:
        yield "    <properties>"
        yield from (
            f"      <property name={_quote_attribute(name)} value={_quote_attribute(value)}/>" for name, value in properties.items()
        )
        yield "    </properties>"


def _case_lines(cases: Iterable[Case], suite: str) -> Iterator[str]:
    for case in cases:
        head = f"    <testcase classname={_quote_attribute(suite)} name={_quote_attribute(case.name)}"
        if case.outcome is None:
            yield f"{head}/>"
        elif not case.details:
            yield f"{head}><{case.outcome} message={_quote_attribute(case.message)}/></testcase>"
        else:
            error_type = re.split("[:;]", case.message)[0]
            opening = f"<{case.outcome} type={_quote_attribute(error_type)} message={_quote_attribute(case.message)}>"
            yield f"{head}>{opening}{_escape_text(case.details)}</{case.outcome}></testcase>"


def _count_attributes(cases: Sequence[Case]) -> str:
    failures, errors = (sum(case.outcome == outcome for case in cases) for outcome in ("failure", "error"))
    return f'tests="{len(cases)}" failures="{failures}" errors="{errors}"'


def _replace_illegal(text: str) -> str:
    """Replace what XML 1.0 cannot contain (https://www.w3.org/TR/xml/#charsets) and what could control or reorder the display."""
    return sanitize_lines(text, allowed="\t\r")


def _escape_text(text: str) -> str:
    """Escape text between tags; a carriage return too, which a parser would read as a newline."""
    return escape(_replace_illegal(text), {"\r": "&#13;"})


def _quote_attribute(text: str) -> str:
    return quoteattr(_replace_illegal(text))
