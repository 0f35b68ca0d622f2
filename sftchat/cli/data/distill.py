"""``sftchat data distill``: a stronger model's replies as rows to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.data.options import json_option, overwrite_option, quiet_option
from sftchat.cli.data.provenance import write_provenance
from sftchat.cli.data.synthesis import SynthesisRun, no_rows_error, read_prompts, report_outcome, synthesis_options
from sftchat.cli.options import complete_model, complete_task, take_sampling
from sftchat.cli.session import Session
from sftchat.data.formats import FORMATS, to_rows
from sftchat.data.write import write_rows
from sftchat.errors import DataError
from sftchat.text import strip_thinking
from sftchat.types import Message

if TYPE_CHECKING:
    from sftchat.data.row_options import RowOptions
    from sftchat.data.samples import SampleFile
    from sftchat.types import Example

DEFAULT_MAX_NEW_TOKENS = 1024
"""Default maximum length of a reply in tokens; teachers write longer replies than tasks need."""


@click.command("distill", short_help="write a stronger model's replies as rows")
@click.argument("model", shell_complete=complete_model)
@synthesis_options
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="Generate with the template and sampling of this task.")
@click.option("--system", default="", metavar="TEXT", help="System prompt for MODEL only; not part of the rows.")
@click.option("--strip-thinking", is_flag=True, help="Remove the thoughts of MODEL, which are otherwise in <think>…</think>.")
@click.option("--format", "row_format", type=click.Choice(FORMATS), default="messages", show_default=True, help="Shape of the rows.")
@json_option
@overwrite_option
@quiet_option
@click.pass_context
def distill(
    ctx: click.Context, /, model: str, prompts: str, output: str, limit: int | None, row_options: RowOptions, samples: str | None,
    fresh: bool, task: str | None, system: str, strip_thinking: bool, row_format: str, as_json: bool, overwrite: bool, quiet: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Generate replies of MODEL to the prompts of FILE and write them as rows for training another model.

    MODEL is any model, or a server, which gets --concurrency requests at once. Replies are saved in OUT.samples.jsonl as they arrive: after an
    interruption the same command generates only the missing ones. Replies that hit the token limit, and empty ones, are left out.

    \b
    sftchat data distill http://localhost:8000/v1#teacher --prompts train.jsonl -o taught.jsonl
    sftchat data distill run --prompts train.jsonl -o taught.jsonl --system "Answer in one line." --limit 100
    """
    from sftchat.data.row_options import options_for_task

    session: Session = ctx.obj
    chosen_task = session.registry.task(task) if task else None
    if options["max_new_tokens"] is None and chosen_task is None:
        options["max_new_tokens"] = DEFAULT_MAX_NEW_TOKENS
    sampling = take_sampling(chosen_task, options)
    engine_options = {**options, "preferred": chosen_task.template} if chosen_task is not None else options
    run = SynthesisRun(
        session=session,
        model=model,
        engine_options=engine_options,
        output=output,
        samples_file=Path(samples or f"{output}.samples.jsonl"),
        fresh=fresh,
        overwrite=overwrite,
        quiet=quiet,
    )
    run.check()
    examples = read_prompts(prompts, limit, _require_prompts, options_for_task(chosen_task, row_options))
    task_system = chosen_task.system if chosen_task is not None else ""
    requests = [_with_system_prompt(example, system) if system else example.with_system(task_system) for example in examples]
    sample_file, failures = run.generate(requests, 1, sampling)
    outcome_counts: Counter[str] = Counter()
    rows = list(_distilled_rows(examples, requests, sample_file, strip_thinking, outcome_counts))
    counts = {"prompts": len(examples), **{outcome: outcome_counts[outcome] for outcome in ("kept", "cut-off", "empty", "unanswered")}}
    summary = ", ".join(f"{count} {outcome}" for outcome, count in outcome_counts.items())
    if not rows:
        raise no_rows_error(run, prompts, len(examples), summary, failures)
    write_rows(output, to_rows(rows, row_format), overwrite=overwrite)
    settings = {**(sample_file.settings or {}), "task": task, "system": system, "strip_thinking": strip_thinking, "limit": limit}
    write_provenance(output, "data distill", [prompts, str(run.samples_file)], settings, counts)
    ctx.exit(report_outcome(counts, summary, output, failures, as_json=as_json, quiet=quiet))


def _require_prompts(examples: Iterable[Example]) -> Iterator[Example]:
    """Yield the examples; raise ``DataError`` for a text row without a prompt."""
    for example in examples:
        if not example.messages:
            raise DataError("the row is a text without a prompt to be answered", example.source)
        yield example


def _with_system_prompt(example: Example, system: str) -> Example:
    """Return the prompt with the system prompt; raise ``DataError`` if the row has one of its own."""
    if not system:
        return example
    if example.messages[0]["role"] == "system":
        raise DataError("the row has a system prompt of its own; leave --system out, or the row's", example.source)
    return replace(example, messages=(Message(role="system", content=system), *example.messages))


def _distilled_rows(
    examples: list[Example], requests: list[Example], sample_file: SampleFile, strip: bool, outcome_counts: Counter[str]
) -> Iterator[Example]:
    """Yield each prompt with the teacher's reply as gold, and add the outcomes to ``outcome_counts``."""
    for example, request in zip(examples, requests, strict=True):
        replies = sample_file.replies_to(request.messages)
        if not replies:
            outcome_counts["unanswered"] += 1
            continue
        reply = replies[0]
        text = strip_thinking(reply.text).strip() if strip else reply.text
        if reply.finish_reason != "stop":
            outcome_counts["cut-off"] += 1
        elif not text.strip():
            outcome_counts["empty"] += 1
        else:
            outcome_counts["kept"] += 1
            if reply.thoughts and not strip:  # a server returns thoughts separately, other models in tags
                text = f"<think>\n{reply.thoughts}\n</think>\n\n{text}"
            yield replace(example, gold=text)
