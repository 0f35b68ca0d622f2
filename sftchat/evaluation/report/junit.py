"""A report as JUnit XML, so that a CI server lists what a checkpoint broke and not the errors it always had.

One suite for each model and gold set, one case an item. Beside a baseline a newly broken item is a failure, an item broken as before is
skipped. Without a baseline nobody can say which faults are new, so items that are not right are skipped as well, and the gate's own case
carries the floors. An item that was not answered is an error. The suite ``gate`` has one case, the verdict, and what it rests on as
properties.

The format is what GitHub actions, GitLab and Jenkins read, and valid against ``junit-10.xsd`` of Jenkins' xunit-plugin. It has no times: the
same replies give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from sftchat.evaluation.gate import Ruling, Verdict
from sftchat.evaluation.report import Report
from sftchat.evaluation.report.view import ItemHistory, comparison_of, faults, item_histories, said
from sftchat.text import printable_lines

Outcome = Literal["failure", "error", "skipped"]
_VERDICTS: dict[Ruling, Outcome] = {"fail": "failure", "inconclusive": "skipped", "not comparable": "error", "could not judge": "error"}


@dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        name: Shown in the list.
        outcome: None for a case that passed.
        message: One line.
        details: What is shown when the case is opened.
    """

    name: str
    outcome: Outcome | None = None
    message: str = ""
    details: str = ""


def to_junit(report: Report, verdict: Verdict) -> str:
    """The report as JUnit XML; control characters and marks that reorder or hide text become ``\N{REPLACEMENT CHARACTER}``.

    Args:
        report: What was measured.
        verdict: What it means; it makes no case when nothing was asked of the models.
    """
    suites: list[tuple[str, Mapping[str, str], list[Case]]] = [
        (f"{result.model} on {result.evalset.name}", {}, _cases(report, number)) for number, result in enumerate(report.results)
    ]
    if verdict.headline:
        suites.insert(0, ("gate", _facts(verdict), [_verdict_case(verdict)]))
    every = [case for *_, cases in suites for case in cases]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites name={_quoted(f'sftchat eval {report.task}')} {_counts(every)}>"]
    for name, found, cases in suites:
        skipped = sum(case.outcome == "skipped" for case in cases)
        lines.append(f'  <testsuite name={_quoted(name)} {_counts(cases)} skipped="{skipped}">')
        lines.extend(_properties(found))
        lines.extend(_elements(cases, name))
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _cases(report: Report, number: int) -> list[Case]:
    """One result as cases."""
    result = report.results[number]
    return [_case(item) for item in item_histories(result, comparison_of(report, result))]


def _case(item: ItemHistory) -> Case:
    """One item as a case."""
    name, wrong = item.example.id, ", ".join(faults(item.new))
    if item.change == "failed":
        return Case(name, "error", "not answered", said(item.new))
    if item.change == "broken":
        return Case(name, "failure", f"newly broken: {wrong}", _details(item))
    if item.change == "wrong":
        known = "broken as before" if faults(item.old) else "not right, and no baseline says whether that is new"
        return Case(name, "skipped", f"{known}: {wrong}")
    return Case(name)


def _details(item: ItemHistory) -> str:
    """Gold, old and new reply, one after the other."""
    texts = (("gold", item.example.gold or ""), ("baseline", said(item.old)), ("model", said(item.new)))
    return "\n\n".join(f"{title}:\n{text}" for title, text in texts)


def _verdict_case(verdict: Verdict) -> Case:
    """The gate as a case: it fails for a regression or a missed floor, is skipped where nothing is proven and that is accepted, and else an error."""
    if verdict.outcome == "pass":
        return Case("verdict")
    outcome = "error" if verdict.outcome == "inconclusive" and verdict.exit_code else _VERDICTS[verdict.outcome]
    return Case("verdict", outcome, verdict.headline, "\n".join(verdict.reasons))


def _facts(verdict: Verdict) -> dict[str, str]:
    """The verdict and what it leaves open, as properties of its suite; what is not known is left out."""
    found: dict[str, object] = {"verdict": verdict.outcome, "exit_code": verdict.exit_code}
    if verdict.unsettled is not None:
        found |= {name: value for name, value in vars(verdict.unsettled).items() if value is not None}
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in found.items()}


def _properties(found: Mapping[str, str]) -> Iterator[str]:
    """The properties of a suite as XML; nothing where there are none."""
    if found:
        yield "    <properties>"
        yield from (f"      <property name={_quoted(name)} value={_quoted(value)}/>" for name, value in found.items())
        yield "    </properties>"


def _elements(cases: Iterable[Case], suite: str) -> Iterator[str]:
    """The cases of a suite as XML."""
    for case in cases:
        head = f"    <testcase classname={_quoted(suite)} name={_quoted(case.name)}"
        if case.outcome is None:
            yield f"{head}/>"
        elif not case.details:
            yield f"{head}><{case.outcome} message={_quoted(case.message)}/></testcase>"
        else:
            kind = re.split("[:;]", case.message)[0]
            opening = f"<{case.outcome} type={_quoted(kind)} message={_quoted(case.message)}>"
            yield f"{head}>{opening}{_text(case.details)}</{case.outcome}></testcase>"


def _counts(cases: Sequence[Case]) -> str:
    """How many cases there are, and how many of them failed."""
    failures, errors = (sum(case.outcome == outcome for case in cases) for outcome in ("failure", "error"))
    return f'tests="{len(cases)}" failures="{failures}" errors="{errors}"'


def _legal(text: str) -> str:
    """A text that XML 1.0 can hold (https://www.w3.org/TR/xml/#charsets), without what commands or reorders where it is shown."""
    return printable_lines(text, kept="\t\r")


def _text(text: str) -> str:
    """A text between tags; a carriage return is escaped, because a parser reads a bare one as a newline."""
    return escape(_legal(text), {"\r": "&#13;"})


def _quoted(text: str) -> str:
    """A text as the value of an attribute, in its quotes."""
    return quoteattr(_legal(text))
