"""Folders of a run: exclusive lock, atomic checkpoints, publishing and pruning of weights, and the conditions for resuming.

The lock is the operating system's lock on the run folder, which is released when the process ends for any reason.

A checkpoint is written below ``.unfinished``, its manifest last, and then renamed; when a checkpoint is deleted, its manifest is deleted first. So a
folder with a manifest is complete. Whether the weights of a complete one are usable is checked by ``sftchat.models.load_checks.check_saved``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from sftchat._util.files import atomic_file, check_output_folder, create_folder, try_lock
from sftchat._util.parsing import MAX_BYTES, load_json, read_text
from sftchat.errors import SftchatError, UsageError, first_line, os_reason
from sftchat.models.hub import hub_access
from sftchat.models.manifest import MANIFEST, Manifest, after_round_trip, checkpoints_of, read_manifest
from sftchat.models.model_files import ADAPTER_CONFIG, MORE_TEMPLATES, WEIGHTS
from sftchat.templates.renderer import Renderer
from sftchat.training.config import TrainingConfig

HELD_LOCKS = Path("/proc/locks")
"""Linux's list of held locks."""


def check_not_in_use(run: Path) -> None:
    """Refuse a folder that another process is training into.

    Raises:
        UsageError: When it is locked; names the process if the system reports it.
    """
    with suppress(OSError):
        descriptor = os.open(run, os.O_RDONLY)
        try:
            if not try_lock(descriptor):
                raise _in_use_error(run, descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Hold the lock of a run folder while the block runs.

    The folder is created when missing; created folders that are still empty at the end are removed. The lock is not a file, so a killed training
    leaves no lock file. File systems without folder locks, such as NFS, never refuse a lock.

    Raises:
        UsageError: When another process holds the lock.
        SftchatError: When the run folder cannot be created.
    """
    real = Path(os.path.realpath(run))
    with ExitStack() as stack:
        try:
            stack.enter_context(create_folder(real))
            folder = _open_folder(real)
        except OSError as error:
            raise SftchatError(f"output folder '{run}' cannot be written: {os_reason(error)}") from error
        if folder is not None:
            stack.callback(os.close, folder)
            if not try_lock(folder):
                raise _in_use_error(run, folder)
        yield


def _open_folder(folder: Path) -> int | None:
    """Open the folder, creating it again if another process has removed it; return None on Windows, which cannot open folders."""
    if os.name == "nt":
        return None
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        if not try_lock(descriptor):
            return descriptor  # locked by another process
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        os.close(descriptor)


def _in_use_error(run: Path, descriptor: int) -> UsageError:
    return UsageError(f"{_lock_holder(descriptor)} is training into '{run}'; wait for it, or give another -o")


def _lock_holder(descriptor: int) -> str:
    """Return the process that holds the lock of an open folder, such as ``process 21811``; ``another process`` when unknown."""
    status = os.fstat(descriptor)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in HELD_LOCKS.read_text(encoding="utf-8").splitlines():
            fields = line.split()  # such as "28: FLOCK ADVISORY WRITE 21811 fe:00:2663578 0 EOF"
            if len(fields) > 5:
                _, lock_type, _, _, process, locked_inode, *_ = fields
                if lock_type == "FLOCK" and locked_inode == inode and process > "0":  # 0 for a process in another container
                    return f"process {process}"
    return "another process"


STATE_FILE = "trainer_state.json"
NEEDED_FILES = (MANIFEST, STATE_FILE, "scheduler.pt")
"""Files required to resume from a checkpoint, in addition to weights and optimizer state."""
TRAINING_FILE_PREFIXES = (
    "optimizer",
    "scheduler",
    "scaler",
    "rng_state",
    "trainer_state",
    "training_args",
    "global_step",
    "latest",
    "zero_to_fp32",
    "README",
)
"""Name prefixes of files that belong to the training and not to the model, and of the libraries' model card, which the manifest replaces."""
TORCH_WRITE_ERRORS = ("PytorchStreamWriter", "inline_container.cc")
"""Texts by which torch's errors about writing a file are recognised."""
UNFINISHED = ".unfinished"
"""Folder of a run for files that are not yet complete."""


def list_checkpoints(run: Path) -> tuple[list[Path], list[Path]]:
    """Return the complete checkpoints of a run, the earliest first, and the incomplete ones that a killed process left."""
    folders = checkpoints_of(run)
    complete = [path for path in folders if _is_complete(path)]
    incomplete = [path for path in folders if path not in complete]
    return complete, [*incomplete, *sorted((run / UNFINISHED).glob("checkpoint-*"))]


def _is_complete(checkpoint: Path) -> bool:
    names = {path.name for path in checkpoint.iterdir()}
    has_weights = any(name.endswith(".safetensors") or name.startswith(("global_step", "pytorch_model_fsdp")) for name in names)
    has_optimizer = any(name.startswith(("optimizer", "global_step")) for name in names)
    return set(NEEDED_FILES) <= names and has_weights and has_optimizer and all(map(_has_full_length, checkpoint.iterdir()))


def _has_full_length(path: Path) -> bool:
    """Whether a file has the length that its format states; True for other formats. A power failure may keep file names and lose their content."""
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            header_length = int.from_bytes(file.read(8), "little")
            try:
                header = load_json(file.read(min(header_length, MAX_BYTES)))
                tensor_ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
                return bool(path.stat().st_size == 8 + header_length + max(tensor_ends, default=0))
            except (ValueError, TypeError, KeyError, AttributeError, IndexError):
                return False
    if path.suffix in (".pt", ".pth"):
        return is_zipfile(path)
    if path.name == STATE_FILE:
        try:
            state = load_json(read_text(path))
            return isinstance(state["global_step"] + state["max_steps"], int) and isinstance(state["log_history"], list)
        except (ValueError, TypeError, KeyError):
            return False
    return True


def prune(run: Path, keep: int, best: int | None) -> None:
    """Delete the oldest checkpoints until ``keep`` are left; the last and the best are never deleted.

    Args:
        run: Run folder.
        keep: Maximum number of checkpoints, at least 1; with 1, two are kept when the last is not the best.
        best: Step of the best one.
    """
    complete, _ = list_checkpoints(run)
    protected = {complete[-1].name, f"checkpoint-{best}"} if complete else set()
    deletable = [path for path in complete if path.name not in protected]
    for path in deletable[: max(0, len(complete) - keep)]:
        (path / MANIFEST).unlink(missing_ok=True)  # first, so that a half-deleted checkpoint is recognised as incomplete
        shutil.rmtree(path, ignore_errors=True)


def publish(source: Path, run: Path, move: bool = False) -> None:
    """Publish the model of a folder as the run's own: weights first and the config last, so that no config refers to missing weights.

    Args:
        source: A checkpoint, or a folder written for publishing.
        run: Run folder.
        move: Whether to move the files instead of copying them.
    """
    files = [
        path for path in source.iterdir() if path.is_file() and not path.name.startswith(TRAINING_FILE_PREFIXES) and path.name != MANIFEST
    ]
    files += (source / MORE_TEMPLATES).glob("*.jinja")
    for path in sorted(files, key=lambda path: (path.suffix != ".safetensors", path.name in ("config.json", ADAPTER_CONFIG), path.name)):
        target = run / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        if move:
            path.replace(target)
            continue
        with path.open("rb") as content, atomic_file(target) as stream:
            shutil.copyfileobj(content, stream, 1 << 20)


@contextmanager
def cleanup_on_write_error(run: Path) -> Iterator[None]:
    """Turn write errors in the block into a one-line message, and delete incomplete files.

    Raises:
        SftchatError: When the disk is full, or the folder was removed or is not writable.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = write_error_reason(error)
        if not reason:
            raise
        clear_unfinished(run)
        with suppress(OSError):  # not empty: it holds earlier checkpoints
            run.rmdir()
        advice = "; --resume goes on once there is room" if run.is_dir() else ""
        raise SftchatError(f"run folder '{run}' cannot be written: {reason}{advice}") from error


def write_error_reason(error: BaseException) -> str:
    """Return why a file could not be written; empty for errors that are not about writing.

    Args:
        error: An OSError, or an error of safetensors or torch.
    """
    if isinstance(error, OSError):
        return (error.strerror or first_line(error)).lower()
    if isinstance(error, (RuntimeError, MemoryError)):  # of torch
        is_write_error = any(text in str(error) for text in TORCH_WRITE_ERRORS)
        return "a file could not be written to its end; is the disk full?" if is_write_error else ""
    match = re.search(r"I/O error: (.*?)(?: \(os error \d+\))?$", str(error))  # of safetensors
    return (match[1] if match else first_line(error)).lower()


def clear_unfinished(run: Path, incomplete: Iterable[Path] = ()) -> None:
    """Delete the run's folder for checkpoints that are being written, and the given incomplete checkpoints."""
    for path in (*incomplete, run / UNFINISHED):
        shutil.rmtree(path, ignore_errors=True)


def check_output(run: Path, resume: bool) -> None:
    """Refuse an unsuitable run folder, before any slow work.

    Raises:
        UsageError: When a run is to be resumed and the folder has none, or a finished one; otherwise when the folder has any files, or cannot be a
            folder.
    """
    check_output_folder(run)
    holds_run = (run / MANIFEST).is_file() or any(run.glob("checkpoint-*"))
    if resume:
        manifest = read_manifest(run)
        if manifest is not None and manifest.seconds:  # written at the end of training
            raise UsageError(f"the run in '{run}' ended at step {manifest.steps}: there is nothing to resume; train into another folder")
        if not holds_run:
            raise UsageError(f"'{run}' has no run to resume; train without --resume")
        return
    if holds_run:
        finished = (run / ADAPTER_CONFIG).is_file() or any((run / name).is_file() for name in WEIGHTS)
        remedy = "give another -o" if finished else "continue it with --resume, or give another -o"
        raise UsageError(f"output folder '{run}' already holds a run; {remedy}")
    if run.is_dir() and any(run.iterdir()):
        raise UsageError(f"output folder '{run}' is not empty; give another -o")


def complete_checkpoint(folder: Path, model: Any, renderer: Renderer) -> None:
    """Add what inference needs to a folder of weights: chat template, stop tokens, and ``use_cache`` switched on again.

    transformers writes no generation config for an adapter, and leaves ``use_cache`` off in the config of a trained model.
    """
    from transformers import AutoConfig, GenerationConfig

    from sftchat.models.loading import stop_ids

    tokenizer = renderer.tokenizer
    tokenizer.chat_template = renderer.saved
    tokenizer.save_pretrained(folder)
    stops = list(stop_ids(model, renderer))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    GenerationConfig(eos_token_id=stops, pad_token_id=pad).save_pretrained(folder)
    if (folder / "config.json").is_file():
        with hub_access(local=True):
            config = AutoConfig.from_pretrained(folder)
        config.use_cache = True
        config.save_pretrained(folder)


RESUMABLE_CHANGES = ("save_steps", "save_limit", "report_to", "device", "logging_steps")
"""Hyper-parameters that may change when a run is resumed: they do not affect the weights."""


def read_run_manifest(run: Path) -> Manifest:
    """Return the manifest of the run to resume.

    Raises:
        UsageError: When there is none.
        ModelError: When it cannot be read.
    """
    manifest = read_manifest(run)
    if manifest is None:
        raise UsageError(f"'{run}' has no manifest; it cannot be resumed")
    return manifest


def check_unchanged(run: Path, earlier: Manifest, current: Manifest) -> None:
    """Refuse to resume a run under other conditions.

    Raises:
        UsageError: When something changed; names everything that did.
    """
    changes = list(_describe_changes(earlier, after_round_trip(current)))
    if changes:
        raise UsageError(f"cannot resume '{run}': {'; '.join(changes)}; undo that, or train into another folder")


def _describe_changes(earlier: Manifest, current: Manifest) -> Iterator[str]:
    for name, label in (("task", "the task"), ("method", "the method")):
        if getattr(earlier, name) != getattr(current, name):
            yield f"{label} was {getattr(earlier, name)}, is now {getattr(current, name)}"
    if earlier.base_identity != current.base_identity:
        yield f"the base model has other weights ({earlier.base}, now {current.base})"
    if earlier.template_hash != current.template_hash:
        yield f"the chat template changed ({earlier.template}, now {current.template})"
    data_changes = list(_describe_data_changes(earlier.data, current.data))
    yield from data_changes
    if earlier.tokens_hash != current.tokens_hash and not data_changes and earlier.template_hash == current.template_hash:
        yield f"the rows render to other tokens (tokens hash was {earlier.tokens_hash[:12]}, is now {current.tokens_hash[:12]})"
    if earlier.validation != current.validation:
        yield "the validation items changed"
    for name in sorted({*earlier.config, *current.config} - {*RESUMABLE_CHANGES, "method"}):
        # a parameter that an earlier version lacked had its default
        old, new = (manifest.config.get(name, getattr(TrainingConfig(), name, None)) for manifest in (earlier, current))
        if old != new:
            yield f"--{name.replace('_', '-')} was {old}, is now {new}"


def _describe_data_changes(earlier: tuple[Mapping[str, Any], ...], current: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    """Yield descriptions of changed files, and of other files or generators than before."""
    earlier_hashes = {str(entry["file"]): entry.get("sha256") for entry in earlier if "file" in entry}
    for entry in current:
        name, new_hash = str(entry.get("file")), entry.get("sha256")
        if "file" in entry and name in earlier_hashes and earlier_hashes[name] != new_hash:
            yield f"{name} changed (sha256 was {str(earlier_hashes[name])[:12]}, is now {str(new_hash)[:12]})"
    earlier_sources, current_sources = ([entry.get("file") or dict(entry) for entry in data] for data in (earlier, current))
    if earlier_sources != current_sources:
        yield f"the rows come from {_describe_sources(current_sources)}, came from {_describe_sources(earlier_sources)}"


def _describe_sources(sources: list[Any]) -> str:
    """Join the sources of rows: names of files, and the options of generators."""
    descriptions = [
        source if isinstance(source, str) else ", ".join(f"{key} {value}" for key, value in source.items() if value not in ({}, None))
        for source in sources
    ]
    return " and ".join(descriptions) or "nowhere"
