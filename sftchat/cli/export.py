"""``sftchat export``: a model as other programs take it, with a proof or a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.options import complete_model, complete_task, tokenizer_options
from sftchat.cli.session import Session, stderr, stdout
from sftchat.errors import UsageError

if TYPE_CHECKING:
    from sftchat.evaluation.evaluate import OnOutcome
    from sftchat.evaluation.gguf_export import ExportedFile, Judge, Step
    from sftchat.evaluation.report.view import Report
    from sftchat.models.export import Modelfile
    from sftchat.models.reference import ModelReference
    from sftchat.task import Task

TYPES = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")
"""Keys of ``FILE_TYPES``, so that ``--help`` does not import them."""
MARGIN = 2.0
"""Margin of ``--smallest`` in points, unless ``--margin`` gives another."""


@click.command()
@click.argument("model", metavar="MODEL", shell_complete=complete_model)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for the files; must not exist.")
@click.option(
    "--ollama", is_flag=True, help="A Modelfile for 'ollama create', over the weights, or over the GGUF file of --gguf or --smallest."
)
@click.option("--create", "ollama_name", metavar="NAME", help="With --ollama: run 'ollama create NAME' on the Modelfile.")
@click.option(
    "--gguf", "file_type", type=click.Choice(TYPES, case_sensitive=False), metavar="TYPE", help=f"A GGUF file: {', '.join(TYPES)}."
)
@click.option("--smallest", is_flag=True, help="The smallest GGUF file that is proved not worse than MODEL by more than the margin.")
@click.option(
    "--margin", type=click.FloatRange(min=0, min_open=True), metavar="X", help="Exit 1 unless a drop of more than X points is excluded."
)
@click.option(
    "--task", "task_name", metavar="TASK", shell_complete=complete_task, help="Task that scores the files.  [default: that of the training]"
)
@click.option("--evalset", metavar="FILE|NAME", help="A file, or a NAME of the task's evalsets.  [default: its first]")
@tokenizer_options
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_obj
def command(
    session: Session, /, model: str, output: Path, ollama: bool, ollama_name: str | None, file_type: str | None, smallest: bool, margin: float | None,
    task_name: str | None, evalset: str | None, trust_remote_code: bool, quiet: bool, **template: Any,
) -> int:  # fmt: skip
    """Export MODEL for Ollama and llama.cpp.

    With --ollama: its weights, and a Modelfile whose template is verified to produce the prompts that the model was trained on. A template that
    cannot be expressed in Ollama's language is refused, with the first difference.

    With --gguf or --smallest: a GGUF file, which llama.cpp then runs. It must tokenize like MODEL, and its replies to the evalset are compared with
    MODEL's own by the gate of 'sftchat eval'. A file that fails is kept as *.failed.gguf, and the exit code is 1. With --ollama in addition, the
    Modelfile is over the file that is kept; there is none when it failed.

    \b
    sftchat export runs/full -o exported --ollama
    sftchat export runs/lora -o exported --gguf q8_0 --margin 2
    sftchat export runs/lora -o exported --smallest
    sftchat export runs/lora -o exported --gguf q8_0 --ollama --create relation
    """
    from sftchat._util.files import check_output_folder
    from sftchat.models.loading import require_local
    from sftchat.models.ollama import MODELFILE, create_command, create_in_ollama, find_ollama
    from sftchat.models.reference import refuse_gguf, resolve

    writes_gguf = file_type is not None or smallest
    if not (ollama or writes_gguf):
        raise UsageError("say what to export for: --ollama, --gguf TYPE or --smallest")
    if file_type is not None and smallest:
        raise UsageError(f"--smallest tries all types; leave out --gguf {file_type}")
    if not writes_gguf and (
        scoring := [name for name, value in (("--margin", margin), ("--task", task_name), ("--evalset", evalset)) if value is not None]
    ):
        raise UsageError(f"{' and '.join(scoring)} score a GGUF file; add --gguf TYPE or --smallest")
    if ollama_name is not None and not ollama:
        raise UsageError(f"--create {ollama_name} needs the Modelfile of --ollama")
    check_output_folder(output, must_be_new=True)
    reference = resolve(model, schemes=session.engine_types)
    refuse_gguf(reference, "export")
    if reference.scheme:
        raise UsageError(f"model '{model}' is served by engine '{reference.scheme}'; only local models can be exported")
    require_local("exporting a model")
    program = find_ollama(output, ollama_name) if ollama_name is not None else ""
    if writes_gguf:
        code = _export_gguf(
            session, reference, output, [file_type] if file_type else None, margin, ollama=ollama,
            task_name=task_name, evalset=evalset, quiet=quiet, trust_remote_code=trust_remote_code, **template,
        )  # fmt: skip
    else:
        code = _export_weights(reference, output, quiet, trust_remote_code=trust_remote_code, **template)
    if code or not ollama:
        return code
    if ollama_name is not None:
        create_in_ollama(program, output, ollama_name)
    elif not quiet:
        click.echo(f"saved {output / MODELFILE}; next: {create_command(output, output.name)}", err=True)
    return 0


def _export_weights(reference: ModelReference, output: Path, quiet: bool, **options: Any) -> int:
    """Write the weights with a Modelfile; returns the exit code."""
    if reference.base is not None:
        raise UsageError(
            f"model '{reference.text}' is an adapter; merge it first (sftchat merge {reference.text} -o DIR), or add --gguf TYPE, which merges it"
        )
    from sftchat.models.export import export_ollama

    modelfile, warning = export_ollama(reference, output, **options)
    if not quiet:
        _show_proof(modelfile, warning)
    return 0


def _show_proof(modelfile: Modelfile, warning: str = "") -> None:
    """Print on which conversations the template is proved, and what is known to differ."""
    click.echo(f"proved that Ollama writes the model's prompts: {', '.join(modelfile.verified)}", err=True)
    for note in (*modelfile.notes, *([warning] if warning else [])):
        click.echo(f"note: {note}", err=True)


def _export_gguf(
    session: Session, reference: ModelReference, output: Path, file_types: list[str] | None, margin: float | None, *, ollama: bool,
    task_name: str | None, evalset: str | None, quiet: bool, **options: Any,
) -> int:  # fmt: skip
    """Write and judge GGUF files; returns the exit code.

    Args:
        file_types: The types to write; None for a search for the smallest.
        ollama: Whether to write a Modelfile over the file that is kept; its template is verified before any file is written.
        options: Options of ``sftchat.models.loading.load`` on template and code.
    """
    from contextlib import nullcontext
    from functools import partial

    from sftchat._util.files import create_folder
    from sftchat.evaluation.gate import COULD_NOT_JUDGE, GATE_FAILED
    from sftchat.evaluation.gguf_export import export_gguf, keep_smallest
    from sftchat.evaluation.gguf_table import describe_failure, describe_file, table_of
    from sftchat.evaluation.progress import show_step
    from sftchat.models.export import write_modelfile
    from sftchat.models.gguf import require_gguf
    from sftchat.models.gguf_types import SMALLER_TYPES
    from sftchat.models.loading import load
    from sftchat.models.manifest import trained_tasks
    from sftchat.models.ollama import MODELFILE

    require_gguf("exporting a GGUF file")
    trained = trained_tasks([reference.text])
    task = session.registry.task(task_name or trained[reference.text]) if task_name or trained else None
    is_search = file_types is None
    if task is None and (margin is not None or is_search):
        raise UsageError(f"'{reference.text}' does not say which task it was trained on; name the task that scores with --task")

    def say(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    given = {name: value for name, value in options.items() if value}
    judge = _make_judge(session, reference.text, task, margin or MARGIN, evalset, given, quiet=quiet) if task is not None else None
    step: Step = (lambda _: nullcontext()) if quiet else partial(show_step, stderr())
    with step(f"loading {reference.text}"):
        loaded = load(reference, preferred=task.template if task is not None else "chatml", device="cpu", **given)
    modelfile = write_modelfile(loaded.renderer, loaded.stop_ids, f"{reference.text}, template {loaded.renderer.name}") if ollama else None
    if modelfile is not None and not quiet:
        _show_proof(modelfile)
    files: list[ExportedFile] = []
    with create_folder(output):
        types = SMALLER_TYPES if file_types is None else file_types
        for file in export_gguf(loaded, output, output.name, types, judge, step, needs_proof=is_search or margin is not None):
            files.append(file)
            say(describe_file(file))
            if file.report is not None and file.outcome in (
                "regressed",
                None,
            ):  # a smaller file does not get better, or cannot be judged either
                break
        kept = keep_smallest(files)
        if modelfile is not None and not kept.failed:
            (output / MODELFILE).write_text(modelfile.of_file(kept.path), encoding="utf-8")
    if judge is not None and not quiet:
        stdout().print(table_of(files, kept))
    if kept.failed:
        say(describe_failure(kept, margin or MARGIN))
        say(f"{'the largest' if len(files) > 1 else 'it'} is kept as {kept.path}")
        return GATE_FAILED if kept.outcome is not None else COULD_NOT_JUDGE
    say(f"saved {kept.path}; next: sftchat chat {kept.path}")
    return 0


def _make_judge(
    session: Session, model: str, task: Task, margin: float, evalset: str | None, options: Mapping[str, Any], *, quiet: bool
) -> Judge:
    """Return the function that compares a file with the model it comes from; raises ``UsageError`` or ``DataError`` for an unusable evalset."""
    from functools import partial

    from sftchat.evaluation.evalset import evalset_path
    from sftchat.evaluation.gate_options import GateOptions
    from sftchat.evaluation.pipeline import Evaluation, no_progress
    from sftchat.evaluation.plan import make_plan
    from sftchat.evaluation.progress import show_progress

    plan_for = partial(
        make_plan,
        task,
        baseline=model,
        evalset_sources=[evalset_path(task, evalset)] if evalset is not None else [],
        gate_options=GateOptions(gated=(f"{task.metrics[0].name}={margin:g}",), strict=True),
        tasks=session.registry.tasks,
    )
    plan_for(models=[model])  # checks the evalset before anything is written
    console = stderr()

    def judge(path: Path, title: str) -> Report:
        plan = plan_for(models=[str(path)])

        def watch(source: str, total: int, cached: Callable[[], int]) -> AbstractContextManager[OnOutcome]:
            if not console.is_terminal:  # one line per file is enough
                return no_progress(source, total, cached)
            return show_progress(console, source.replace(str(path), title), total, cached)

        engines = session.engine_pool()
        with closing(engines):
            report = Evaluation([plan], engines, session.identify, options, watch=None if quiet else watch).run()
        if report is None:
            raise UsageError("an export is judged in one process")
        return report

    return judge
