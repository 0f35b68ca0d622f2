"""``sftchat merge``: an adapter into its base, as a model of its own."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.options import complete_model, device_option, rows_options, template_options, trust_remote_code_option
from sftchat.cli.session import Session
from sftchat.errors import UsageError

if TYPE_CHECKING:
    from sftchat.data.row_options import RowOptions
    from sftchat.models.manifest import Manifest

MAX_CONVERSATIONS = 8
"""Maximum number of conversations on which the logits are compared."""


@click.command()
@click.argument("adapter", metavar="ADAPTER", shell_complete=complete_model)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for the model; must not exist.")
@click.option("--base", metavar="MODEL", help="Base model of the adapter, instead of the one its config names.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the weights written; auto is the base's.",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), metavar="FILE", help="Rows to compare logits on.  [default: those it was trained on]"
)
@rows_options
@device_option()
@template_options("adapter")
@click.option("--force", is_flag=True, help="Write the model even when it loses the changes of the adapter.")
@trust_remote_code_option
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_obj
def command(
    session: Session, /, adapter: str, output: Path, base: str | None, dtype: str, prompts: Path | None, row_options: RowOptions,
    force: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Merge ADAPTER into its base.

    Weights are rounded to the nearest number or at random, whichever keeps more of what the adapter changes. The merged weights are read back and compared with the adapter on its base: logits and greedy replies on real conversations, and the
    parity proof. DIR is written only when the change is kept, or with --force. The manifest keeps the record of the adapter's training.

    \b
    sftchat merge runs/lora -o runs/merged
    """
    from sftchat._util.files import check_output_folder
    from sftchat.models.loading import require_local
    from sftchat.models.merge import merge
    from sftchat.models.reference import resolve

    check_output_folder(output, must_be_new=True)
    if prompts is None and row_options.non_default:
        raise UsageError("options that say how rows are read need the rows; give --prompts FILE as well")
    reference = resolve(adapter, base=base, schemes=session.engine_types)
    require_local("merging an adapter")
    from sftchat.models.manifest import find_manifest
    from sftchat.training.checkpoints import complete_checkpoint

    conversations, origin = _choose_conversations(session, find_manifest(reference.source), prompts, row_options)
    comparison = merge(reference, output, conversations, complete_checkpoint, dtype=dtype, force=force, **options)
    if not quiet:
        click.echo(
            f"compared on {comparison.conversations} conversations ({origin}): "
            f"{comparison.same_replies} of {comparison.replies} greedy replies are the same, "
            f"logits differ by {comparison.lost_share:.1%} of what the adapter changes, "
            f"the likeliest token is the same at {comparison.same_token_share:.1%} of the positions",
            err=True,
        )
        click.echo(f"saved to {output}", err=True)
        click.echo(f"next: sftchat eval {output} --baseline {adapter}   sftchat export {output} -o DIR --ollama", err=True)


def _choose_conversations(
    session: Session, manifest: Manifest | None, prompts: Path | None, row_options: RowOptions
) -> tuple[list[Any], str]:
    """Return conversations with replies, as pairs of turns and tools, and where they come from.

    They come from ``--prompts``, else from a file of the adapter's training, else from the generator of its task, else from the parity proof.

    Raises:
        DataError: When ``--prompts`` cannot be read, or has no row with a reply.
    """
    from sftchat.data.row_options import recorded_options
    from sftchat.data.turns import tools_of
    from sftchat.errors import DataError
    from sftchat.templates.parity import SAMPLES

    if prompts is not None:
        rows = _read_conversations(prompts, row_options)
        if not rows:
            raise DataError("no row has a reply to compare on", str(prompts))
        return rows, str(prompts)
    files = [(Path(source["file"]), recorded_options(source)) for source in (manifest.data if manifest else ()) if "file" in source]
    for path, options in files:
        if path.is_file() and (rows := _read_conversations(path, options)):
            return rows, str(path)
    task = session.registry.tasks.get(manifest.task) if manifest is not None else None
    if task is not None:
        from sftchat.data.generate import generate_examples

        generated = generate_examples(task, MAX_CONVERSATIONS, 0, {})
        return [(example.conversation, tools_of(example)) for example in generated], f"generated by task {task.name}"
    return [(sample.messages, sample.tools) for sample in SAMPLES[:1]], "of the parity proof"


def _read_conversations(path: Path, row_options: RowOptions) -> list[Any]:
    """Return turns and tools of the first conversations of a file that have a reply."""
    from sftchat.data.formats import read_examples
    from sftchat.data.turns import tools_of

    examples = read_examples(path, row_options)
    with_reply = (example for example in examples if any(turn["role"] == "assistant" for turn in example.conversation))
    return [(example.conversation, tools_of(example)) for example in islice(with_reply, MAX_CONVERSATIONS)]
