"""What a run folder holds, before, during and after training; nothing that was there is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sftchat.errors import UsageError
from sftchat.models.manifest import MANIFEST
from sftchat.models.references import last_checkpoint
from sftchat.models.templates import Renderer


def check_output(run: Path, resume: bool) -> None:
    """Refuse a folder that cannot take the run, before anything slow.

    Raises:
        UsageError: When it holds a run (and none is resumed), other files, or nothing to resume.
    """
    if run.exists() and not run.is_dir():
        raise UsageError(f"output '{run}' is a file; give a folder")
    holds_run = (run / MANIFEST).is_file() or last_checkpoint(run) is not None
    if resume:
        if last_checkpoint(run) is None:
            raise UsageError(f"'{run}' has no checkpoint to resume from; train without --resume")
        return
    if holds_run:
        finished = (run / "config.json").is_file() or (run / "adapter_config.json").is_file()
        way = "give another -o" if finished else "continue it with --resume, or give another -o"
        raise UsageError(f"output folder '{run}' already holds a run; {way}")
    if run.is_dir() and any(run.iterdir()):
        raise UsageError(f"output folder '{run}' is not empty; give another -o")
    parent = next(p for p in (run, *run.absolute().parents) if p.is_dir())
    if not os.access(parent, os.W_OK):
        raise UsageError(f"output folder '{run}' cannot be made: '{parent}' is not writable")


def complete_checkpoint(folder: Path, model: Any, renderer: Renderer) -> None:
    """Put beside weights what a loader needs to talk as training did: template, stop tokens, and the key-value cache on again.

    transformers writes no generation config beside an adapter, and leaves ``use_cache`` off in the config of a trained model.
    """
    from transformers import AutoConfig, GenerationConfig

    from sftchat.models.weights import stop_ids

    tokenizer = renderer.tokenizer
    tokenizer.chat_template = renderer.source
    tokenizer.save_pretrained(folder)
    stops = list(stop_ids(model, renderer))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    GenerationConfig(eos_token_id=stops, pad_token_id=pad).save_pretrained(folder)
    if (folder / "config.json").is_file():
        config = AutoConfig.from_pretrained(folder)
        config.use_cache = True
        config.save_pretrained(folder)
