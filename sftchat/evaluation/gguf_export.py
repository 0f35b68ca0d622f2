"""GGUF files with a verdict: each is written, run by llama.cpp and compared with the model that it comes from, by the paired gate of ``eval``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import GateOutcome, MetricDifference
from sftchat.inference.llama_cpp import check_tokenizers
from sftchat.inference.llama_server import load_server
from sftchat.models.gguf import read_header
from sftchat.models.gguf_tokenizer import find_pre_tokenizer
from sftchat.models.gguf_types import FILE_TYPES
from sftchat.models.gguf_write import write_gguf
from sftchat.models.loading import Loaded

Judge = Callable[[Path], Report]
"""Evaluates a file against the model that it comes from."""


@dataclass(frozen=True)
class ExportedFile:
    """One file with its verdict.

    Attributes:
        file_type: Mixture of weight types, a key of ``FILE_TYPES``.
        path: The file.
        size: Its size in bytes.
        report: Comparison with the model that it comes from; None when it was not judged.
    """

    file_type: str
    path: Path
    size: int
    report: Report | None = None

    @property
    def outcome(self) -> GateOutcome | None:
        """Outcome of the gate for the primary metric; None when the file was not judged or an item was not answered."""
        return self.report.gates[0].outcome if self.report is not None and self.report.gates else None

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
    def tokens_per_second(self) -> float | None:
        """Speed of the evaluation in generated tokens; None when a reply was cached."""
        result = self.report.results[0] if self.report is not None else None
        return result.items.totals.completion_tokens / result.seconds if result is not None and result.seconds else None


def merge_in_memory(model: Any) -> Any:
    """Return a model without adapters: the same, or its base with the adapter added to the weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def export_gguf(
    loaded: Loaded, folder: Path, name: str, file_types: Sequence[str], judge: Judge | None, say: Callable[[str], None]
) -> Iterator[ExportedFile]:
    """Write a model as GGUF files, one after the other, and judge each.

    Every file is opened with llama.cpp, which must give the tokens of transformers to the conversations of the parity check. The caller decides
    whether to continue after a file.

    Args:
        loaded: The model; an adapter is merged into its base, in the precision in which it was loaded.
        folder: An existing folder for the files.
        name: Name of the model; the files are ``NAME-TYPE.gguf``.
        file_types: Keys of ``FILE_TYPES``, in the order of the files.
        judge: Evaluates a file; None for no verdict.
        say: Called before each step that takes long.

    Raises:
        ModelError: When the model cannot be written, or llama.cpp has no tokenizer that agrees with the model's.
        OSError: When a file cannot be written.
    """
    say("looking for the tokenizer rules of llama.cpp that agree with the model's")
    with tempfile.TemporaryDirectory(prefix="sftchat-export-") as temporary:
        pre_tokenizer = find_pre_tokenizer(loaded.renderer.tokenizer, Path(temporary), lambda path: load_server(path).tokenize)
    model = merge_in_memory(loaded.model)
    for file_type in file_types:
        path = folder / f"{name}-{file_type}.gguf"
        say(f"writing {path.name}")
        write_gguf(model, loaded.renderer, path, FILE_TYPES[file_type], name=name, pre_tokenizer=pre_tokenizer)
        report = None
        if judge is not None:
            say(f"comparing {path.name} with the model")
            report = judge(path)  # opens the file, which checks the tokenizers
        else:
            server = load_server(path)
            try:
                check_tokenizers(read_header(path), loaded.renderer, server.tokenize)
            finally:
                server.close()
        yield ExportedFile(file_type, path, path.stat().st_size, report)
