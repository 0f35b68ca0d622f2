"""GGUF files with a verdict: each is written, run by llama.cpp and compared with the model that it comes from, by the paired gate of ``eval``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError, TemplateError
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import GateOutcome, MetricDifference
from sftchat.inference.llama_cpp import check_tokenizers
from sftchat.inference.llama_server import load_server
from sftchat.models.gguf import GgufHeader, load_gguf_tokenizer, read_header
from sftchat.models.gguf_tokenizer import describe_difference, find_pre_tokenizer
from sftchat.models.gguf_types import FILE_TYPES
from sftchat.models.gguf_write import write_gguf
from sftchat.models.loading import Loaded
from sftchat.templates.parity import SAMPLES, Sample
from sftchat.templates.renderer import Renderer, choose_renderer

Judge = Callable[[Path, str], Report]
"""Evaluates a file against the model that it comes from; called with the file and the name under which progress is shown."""
Step = Callable[[str], AbstractContextManager[None]]
"""Shows what is being done while a block runs."""


@dataclass(frozen=True)
class ExportedFile:
    """One file with its verdict.

    Attributes:
        file_type: Mixture of weight types, a key of ``FILE_TYPES``.
        path: The file; its name ends with ``.failed.gguf`` when it failed.
        size: Its size in bytes.
        report: Comparison with the model that it comes from; None when it was not judged.
        needs_proof: Whether it fails unless a drop of more than the margin is excluded; else only a significant drop is a failure. An unanswered item
            always is one.
    """

    file_type: str
    path: Path
    size: int
    report: Report | None = None
    needs_proof: bool = False

    @property
    def outcome(self) -> GateOutcome | None:
        """Outcome of the gate for the primary metric; None when the file was not judged or an item was not answered."""
        is_judged = self.report is not None and self.report.gates and not self.report.failures
        return self.report.gates[0].outcome if self.report is not None and is_judged else None

    @property
    def difference(self) -> MetricDifference | None:
        """Difference in the primary metric from the model; None like ``outcome``."""
        compared = self.report is not None and self.report.comparisons and self.report.comparisons[0].metrics
        return compared[0] if compared else None

    @property
    def is_proved(self) -> bool:
        """Whether a drop of more than the margin is excluded."""
        return self.outcome == "fine" and self.report is not None and self.report.verdict is not None and self.report.verdict.exit_code == 0

    @property
    def failed(self) -> bool:
        """Whether the file must not be used."""
        if self.needs_proof:
            return not self.is_proved
        return self.report is not None and self.outcome in ("regressed", None)

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of the evaluation in generated tokens; None when a reply was cached."""
        result = self.report.results[0] if self.report is not None else None
        return result.items.totals.completion_tokens / result.seconds if result is not None and result.seconds else None


def merge_in_memory(model: Any) -> Any:
    """Return a model without adapters: the same, or its base with the adapter added to the weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def export_gguf(
    loaded: Loaded,
    folder: Path,
    name: str,
    file_types: Sequence[str],
    judge: Judge | None,
    step: Step,
    *,
    needs_proof: bool = False,
) -> Iterator[ExportedFile]:
    """Write a model as GGUF files, one after the other, and judge each.

    Every file must render the model's prompts, and is opened with llama.cpp, which must give the tokens of transformers to the conversations of the
    parity check. The caller decides whether to continue after a file. A file is ``NAME-TYPE.partial.gguf`` until it is judged; an error or an
    interrupt before then removes it.

    Args:
        loaded: The model; an adapter is merged into its base, in the precision in which it was loaded.
        folder: An existing folder for the files.
        name: Name of the model; the files are ``NAME-TYPE.gguf``, or ``NAME-TYPE.failed.gguf``.
        file_types: Keys of ``FILE_TYPES``, in the order of the files.
        judge: Evaluates a file; None for no verdict.
        step: Shows what is being done.
        needs_proof: See ``ExportedFile``.

    Raises:
        ModelError: When the model cannot be written, llama.cpp has no tokenizer that agrees with the model's, or a file would get other prompts or
            end replies differently.
        OSError: When a file cannot be written.
    """
    with step("finding the tokenizer rules of llama.cpp"), tempfile.TemporaryDirectory(prefix="sftchat-export-") as temporary:
        pre_tokenizer = find_pre_tokenizer(loaded.renderer.tokenizer, Path(temporary), lambda path: load_server(path).tokenize)
    model = merge_in_memory(loaded.model)
    earlier: list[Path] = []
    for file_type in file_types:
        title = f"{name}-{file_type}.gguf"
        with _removed_on_error(folder / f"{name}-{file_type}.partial.gguf") as path:
            with step(f"{title}: writing"):
                write_gguf(model, loaded.renderer, path, FILE_TYPES[file_type], name=name, pre_tokenizer=pre_tokenizer, earlier=earlier)
                check_conversations(read_header(path), loaded.renderer, loaded.stop_ids)
                if judge is None:
                    _check_with_llama_cpp(path, loaded.renderer)
            report = judge(path, title) if judge is not None else None  # opens the file, which checks the tokenizers
            file = ExportedFile(file_type, path, path.stat().st_size, report, needs_proof)
            final = path.rename(folder / (f"{name}-{file_type}.failed.gguf" if file.failed else title))
        earlier.append(final)
        yield ExportedFile(file_type, final, file.size, report, needs_proof)


def keep_smallest(files: Sequence[ExportedFile]) -> ExportedFile:
    """Delete all files but one, and return it: the smallest that did not fail, or the first when all failed.

    Args:
        files: At least one file.
    """
    kept = min((file for file in files if not file.failed), key=lambda file: file.size, default=files[0])
    for file in files:
        if file is not kept:
            file.path.unlink()
    return kept


@contextmanager
def _removed_on_error(path: Path) -> Iterator[Path]:
    """Yield a path; remove its file after an error or an interrupt."""
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _check_with_llama_cpp(path: Path, renderer: Renderer) -> None:
    """Load a file with llama.cpp and compare the tokenizers; raises ``ModelError``."""
    server = load_server(path)
    try:
        check_tokenizers(read_header(path), renderer, server.tokenize)
    finally:
        server.close()


def check_conversations(header: GgufHeader, renderer: Renderer, stop_ids: Collection[int]) -> None:
    """Check that a file alone, without options, renders the prompts of a model and ends replies like it.

    The prompts are those of the conversations of the parity check. Both may refuse a conversation.

    Args:
        header: Header of the file.
        renderer: Tokenizer and template of the model.
        stop_ids: Token ids that end a reply of the model.

    Raises:
        ModelError: When something differs, with the first difference.
    """
    of_file = choose_renderer(load_gguf_tokenizer(header))
    for sample in SAMPLES:
        expected, actual = _prompt_ids(renderer, sample), _prompt_ids(of_file, sample)
        if isinstance(expected, TemplateError) and isinstance(actual, TemplateError):
            continue
        if isinstance(actual, TemplateError):
            raise ModelError(f"the chat template in '{header.path}' refuses the conversation '{sample.name}': {actual}")
        if isinstance(expected, TemplateError):
            raise ModelError(f"the chat template in '{header.path}' renders the conversation '{sample.name}', which the model's refuses")
        if expected != actual:
            difference = describe_difference(renderer.tokenizer, expected, actual, ("the model's template", "the file's"))
            raise ModelError(
                f"the prompts of '{header.path}' differ from the model's, first in the conversation '{sample.name}': {difference}"
            )
    name_of = renderer.tokenizer.convert_ids_to_tokens
    if renderer.stop_token not in header.end_tokens:
        ends = ", ".join(f"'{name_of(token)}'" for token in header.end_tokens) or "none"
        raise ModelError(
            f"'{header.path}' would not stop: the model ends a reply with '{name_of(renderer.stop_token)}', and the file's end tokens are {ends}"
        )
    if too_early := [token for token in header.end_tokens if token not in stop_ids]:
        raise ModelError(
            f"'{header.path}' would stop too early: '{name_of(too_early[0])}' is one of its end tokens, and none of the model's"
        )


def _prompt_ids(renderer: Renderer, sample: Sample) -> list[int] | TemplateError:
    """Return the ids of a conversation's prompt, or why the template refuses it."""
    try:
        return renderer.prompt_ids(sample.messages[:-1], tools=sample.tools)
    except TemplateError as error:
        return error
