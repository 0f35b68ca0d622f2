"""Make the judge of an evaluation from its options, before any model is opened."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftchat.api.session import Session
from sftchat.errors import UsageError
from sftchat.evaluation.baseline import is_missing_file, similar_file_hint
from sftchat.evaluation.judge import Judge, judge_options
from sftchat.evaluation.reply_cache import ReplyCache, default_path
from sftchat.evaluation.rubric import Rubric, read_agreement, read_rubric, require_criteria

PLAIN_RUBRIC = Rubric("pairs")
"""Rubric of pairs without a file."""


def read_judge(model: str, rubric: Path | None, against: str | None = None) -> Judge:
    """Read the rubric of a judge and the recorded agreement with people.

    Args:
        model: MODEL of the judge.
        rubric: File of the rubric; None only for pairs.
        against: The model or file of replies to compare with; None to score single replies.

    Raises:
        UsageError: When there is no rubric to score by, or the file of ``against`` does not exist.
        DataError: When a file is missing or malformed.
    """
    if against is not None and is_missing_file(against):
        raise UsageError(f"--against '{against}': no such file{similar_file_hint(against)}")
    if rubric is None and against is None:
        raise UsageError("--judge scores by a rubric: add --rubric FILE, or compare with another model's replies by --against MODEL|FILE")
    content = PLAIN_RUBRIC if rubric is None else read_rubric(rubric)
    if against is None:
        require_criteria(content)
    agreement = read_agreement(Path(content.agreement)) if content.agreement else None
    return Judge(model, content, pairwise=against is not None, agreement=agreement)


def identify_judge(session: Session, judge: Judge, template: str, engine: Mapping[str, Any]) -> Judge:
    """Return a judge with the hash of everything that affects its verdicts, if it is known.

    Args:
        session: Finds and identifies models.
        judge: The judge.
        template: Name of the chat template for models without their own.
        engine: Options of the models.

    Raises:
        UsageError: When its MODEL is not valid.
        ModelError: When it cannot be found or read.
    """
    options = judge_options(engine)
    session.check_model(judge.model, allow_pickle=options.get("allow_pickle", False))
    with closing(ReplyCache(default_path(), lambda line: None)) as cache:
        return replace(judge, identity=session.identify(judge.model, hashed=cache.file_hash, preferred=template, **options))
