"""A judge: a model whose verdicts on replies are the scores of an evaluation.

Generating and judging are separate phases. A judged task has a score function that looks its verdicts up, and the pipeline fills the table between
the phases. A verdict is a function of the item and the reply's text, so equal replies of two models are judged once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sftchat.evaluation.baseline import Baseline
from sftchat.evaluation.judge_prompt import Verdict
from sftchat.evaluation.rubric import RecordedAgreement, Rubric
from sftchat.scorers.base import Scorer
from sftchat.task import NAME, Metric, Task, answer_of, no_problems, rate, ratio
from sftchat.text import pluralize
from sftchat.types import Example, Reply, Score

NOT_JUDGED = "not judged"
"""Beginning of the error message of an item that was answered and not judged."""
UNPARSABLE = "judge_unparsable"
"""Name of the bucket of verdicts that cannot be read."""
TOLERANCE = 1e-9
"""The weighted mean of a reply that just passes may be this much below the threshold, because of rounding."""
JudgedText = tuple[str, str]
"""Id of an item, and the text of a reply without thoughts."""


@dataclass(frozen=True)
class JudgeSummary:
    """What a report says of its judge.

    Attributes:
        model: Name of the judge as typed.
        identity: Hash of its weights and everything else that affects its verdicts; empty when unknown, as for a server.
        rubric: Name of the rubric.
        rubric_hash: Hash of its content.
        mode: ``scores`` or ``pairs``.
        verdicts: Number of different replies, or ordered pairs of replies, for which the judge was asked.
        unparsable: Number of verdicts that could not be read.
        unanswered: Number of verdicts that failed.
        pairs: Number of pairs with a verdict in both orders; 0 for scores.
        position_biased: Number of those pairs in which another reply won when the order was changed.
        first_preferred: Number of position-biased pairs in which the reply in the first place won both times.
        agreement: Recorded agreement with people; None without a record.
        judges_itself: Names of the judged models that are the judge itself.
    """

    model: str
    identity: str
    rubric: str
    rubric_hash: str
    mode: str
    verdicts: int = 0
    unparsable: int = 0
    unanswered: int = 0
    pairs: int = 0
    position_biased: int = 0
    first_preferred: int = 0
    agreement: RecordedAgreement | None = None
    judges_itself: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines for the user."""
        asked = f"{pluralize(self.verdicts, 'verdict')} asked for" if self.verdicts else "no verdict asked for"
        unparsable = f", {self.unparsable} could not be read ({UNPARSABLE})" if self.unparsable else ""
        unanswered = f", {self.unanswered} not answered" if self.unanswered else ""
        lines = [f"judge {self.model}, rubric '{self.rubric}' ({self.rubric_hash}): {asked}{unparsable}{unanswered}"]
        if self.pairs:
            share = self.position_biased / self.pairs
            first = f"; {self.first_preferred} of these preferred the first place" if self.position_biased else ""
            lines.append(
                f"position bias: {self.position_biased} of {pluralize(self.pairs, 'pair')} ({share:.0%}) had another winner in the other order and "
                f"count as ties{first}"
            )
        known = self.agreement.words if self.agreement is not None else "not recorded, see 'sftchat judge-check'"
        lines.append(f"agreement of the judge with people: {known}")
        lines += [
            f"warning: the judge is the judged model '{name}' itself, and models prefer their own replies" for name in self.judges_itself
        ]
        return tuple(lines)

    def as_json(self) -> dict[str, Any]:
        """The summary as stored in ``report.json``."""
        return asdict(self) | {"judges_itself": list(self.judges_itself)}


@dataclass
class VerdictTable:
    """Scores by item and reply text; the score function of a judged task reads it.

    Attributes:
        rubric: The rubric.
        scores: Scores of judged replies; for a reply without a verdict, the reason.
        verdicts: Verdicts of this evaluation, with their reasons.
    """

    rubric: Rubric
    scores: dict[JudgedText, Score | str] = field(default_factory=dict)
    verdicts: dict[JudgedText, Verdict] = field(default_factory=dict)

    def add(self, key: JudgedText, verdict: Verdict | str) -> None:
        """Add a verdict, or the reason why there is none."""
        if isinstance(verdict, str):
            self.scores[key] = f"{NOT_JUDGED}: {verdict}"
        else:
            self.verdicts[key] = verdict
            self.scores[key] = score_verdict(self.rubric, verdict)

    def score(self, example: Example, reply: Reply) -> Score:
        """Return the score of a judged reply; one without text has the lowest rating of every criterion.

        Raises:
            LookupError: When there is no verdict on the reply.
        """
        if not reply.text.strip():
            lowest = score_verdict(self.rubric, Verdict({item.name: 0.0 for item in self.rubric.criteria}))
            return replace(lowest, errors=("empty",) if lowest.errors else ())
        score = self.scores.get((example.id, reply.text), "the judge was not asked")
        if isinstance(score, str):
            raise LookupError(f"there is no verdict on the reply to item '{example.id}': {score}")
        return score

    def failure(self, task: Task, example: Example, reply: Reply) -> str:
        """Return why a reply, or one of its samples, has no verdict; empty when all have one."""
        scores = [self.scores.get((example.id, answer_of(task, sample).text)) for sample in reply.samples]
        return next((score for score in scores if isinstance(score, str)), "")

    def add_baseline(self, baseline: Baseline, task: Task) -> None:
        """Add the counts of a baseline's replies, made with the same judge and rubric, so that the judge is not asked for them."""
        if task.samples > 1:
            return  # the counts are those of all samples of an item together
        names = {item.name for item in self.rubric.criteria} | {"n", "score", "passed"}
        for item_id, item in baseline.items.items():
            if item.stats.keys() != names:
                continue  # then the judge is asked, and ``check_counts`` reports the difference
            errors = failed_criteria(self.rubric, item.stats)
            self.scores[item_id, answer_of(task, item.reply).text] = Score(item.stats, _outcome(errors), errors)


@dataclass(frozen=True)
class Judge:
    """A judge of an evaluation.

    Attributes:
        model: MODEL as typed.
        rubric: The rubric.
        identity: Hash of everything that affects its verdicts; empty when unknown.
        pairwise: Whether it compares pairs of replies instead of scoring each.
        agreement: Recorded agreement with people; None without a record.
        table: Verdicts, filled while the evaluation runs.
    """

    model: str
    rubric: Rubric
    identity: str = ""
    pairwise: bool = False
    agreement: RecordedAgreement | None = None
    table: VerdictTable = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Make an empty table of verdicts."""
        object.__setattr__(self, "table", VerdictTable(self.rubric))

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a judged task that must be equal for a comparison with a baseline file; a judge without an identity is known by its name."""
        return {"judge": self.identity[:16] or self.model, "rubric": self.rubric.hash}

    @property
    def scorer(self) -> Scorer:
        """The judge as a scorer, for an evalset without a task; its name is that of the rubric in the form of a task's name."""
        name = re.sub(r"[^a-z0-9_-]+", "-", self.rubric.name.casefold()).strip("-_")
        return Scorer(name if NAME.fullmatch(name) else "judged", self.table.score, judged_metrics(self.rubric))

    def apply(self, task: Task, baseline: str | None = None) -> Task:
        """Return a task whose scorer is the judge; for pairs of replies, with the metrics of pairs and the name of the baseline in its settings."""
        settings = {key: value for key, value in task.settings.items() if key != "scorer"} | self.settings
        settings |= {"against": baseline} if self.pairwise else {}
        changes: dict[str, Any] = {"validate_row": no_problems, "needs_gold": False, "continuations": None, "settings": settings}
        metrics = PAIR_METRICS if self.pairwise else judged_metrics(self.rubric)
        return replace(task, score=self.table.score, metrics=metrics, **changes)

    def summary(self, **counts: Any) -> JudgeSummary:
        """Return the summary of a finished evaluation; ``counts`` are attributes of ``JudgeSummary``."""
        return JudgeSummary(
            model=self.model,
            identity=self.identity,
            rubric=self.rubric.name,
            rubric_hash=self.rubric.hash,
            mode="pairs" if self.pairwise else "scores",
            agreement=self.agreement,
            **counts,
        )


WIN_RATE = Metric(
    "win_rate", lambda sums: ratio(sums["points"], sums["n"]), "share of pairs won, ties half", stats=("points", "n"), per_item_rate=True
)
"""An item adds 0, ½ or 1, so that Wilson's interval is at least as wide as needed, and McNemar's exact test is the exact sign test of wins and losses."""
PAIR_METRICS = (
    WIN_RATE,
    rate("wins", "won", "share of pairs that the model wins"),
    replace(rate("losses", "lost", "share of pairs that the model loses"), higher_is_better=False),
    rate("ties", "tied", "share of pairs without a winner, or with another winner in the other order"),
)
"""Metrics of pairs of replies."""


MODEL_OPTIONS = ("base", "extra_body", "template", "template_arguments", "template_name")
"""Options of a model that are not used for its judge."""


def judge_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with which a judge is opened: those of the models, without what belongs to one model only."""
    return {name: value for name, value in options.items() if name not in MODEL_OPTIONS}


def judged_metrics(rubric: Rubric) -> tuple[Metric, ...]:
    """Return the metrics of scored replies: mean score, share that passes, and the mean of each criterion, all from 0 to 1."""
    score = Metric(
        "score", lambda sums: ratio(sums["score"], sums["n"]), "mean of the weighted criteria, from 0 to 1", stats=("score", "n")
    )
    passed = rate("pass_rate", "passed", f"share of replies with a score of at least {rubric.pass_threshold:g}")
    return (score, passed, *(_criterion_metric(item.name, item.description) for item in rubric.criteria))


def _criterion_metric(name: str, description: str) -> Metric:
    return Metric(name, lambda sums: ratio(sums[name], sums["n"]), description, stats=(name, "n"))


def score_verdict(rubric: Rubric, verdict: Verdict) -> Score:
    """Return the counts of a verdict; a reply that does not pass has an error class for each criterion below the threshold."""
    score = rubric.weighted(verdict.shares)
    stats = {"n": 1, "score": score, "passed": int(score >= rubric.pass_threshold - TOLERANCE), **verdict.shares}
    errors = failed_criteria(rubric, stats)
    return Score(stats, _outcome(errors), errors)


def failed_criteria(rubric: Rubric, stats: Mapping[str, float]) -> tuple[str, ...]:
    """Return the error classes of a reply: none when it passes, else one for each criterion below the threshold, of which there is at least one."""
    if stats["passed"]:
        return ()
    return tuple(f"low_{item.name}" for item in rubric.criteria if stats[item.name] < rubric.pass_threshold)


def _outcome(errors: Sequence[str]) -> str:
    return "fail" if errors else "pass"
