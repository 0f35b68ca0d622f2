"""One training a folder: the system's lock on the run's folder itself, which ends with its process, however that ends."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from sftchat._util.files import made_folder, take_lock
from sftchat._util.parsing import MAX_BYTES, load_json, read_text
from sftchat.errors import SftchatError, UsageError, first_line
from sftchat.models.hub import reach
from sftchat.models.manifest import MANIFEST, Manifest, as_read, read_manifest
from sftchat.models.model_files import ADAPTER_CONFIG, MORE_TEMPLATES, WEIGHTS
from sftchat.templates.renderer import Renderer
from sftchat.training.config import TrainingConfig

LOCKS = Path("/proc/locks")
"""Where Linux lists the locks that are held."""


def refuse_running(run: Path) -> None:
    """Stop when another process is training into a folder.

    Raises:
        UsageError: Naming the process where the system says which it is.
    """
    with suppress(OSError):
        folder = os.open(run, os.O_RDONLY)
        try:
            if not take_lock(folder):
                raise _running(run, folder)
        finally:
            os.close(folder)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run while the block runs.

    The folder is made when it is missing, and removed when nothing was put into it; so are those above it. No file is written for the lock, so
    that a killed training leaves none behind. Where the system has no locks for folders, as on NFS, nothing is refused.

    Raises:
        UsageError: When another process holds it.
        SftchatError: When the folder of the run cannot be made.
    """
    real = Path(os.path.realpath(run))
    with ExitStack() as stack:
        try:
            stack.enter_context(made_folder(real))
            folder = _opened(real)
        except OSError as error:
            raise SftchatError(f"output folder '{run}' cannot be written: {(error.strerror or str(error)).lower()}") from error
        if folder is not None:
            stack.callback(os.close, folder)
            if not take_lock(folder):
                raise _running(run, folder)
        yield


def _opened(folder: Path) -> int | None:
    """The folder opened, made again where another process has removed it meanwhile; None on Windows, which opens no folders."""
    if os.name == "nt":
        return None
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY)
        if not take_lock(opened):
            return opened  # held by another
        with suppress(OSError):
            if os.path.samestat(os.fstat(opened), folder.stat()):
                return opened
        os.close(opened)


def _running(run: Path, folder: int) -> UsageError:
    """The error for a folder that another process is training into."""
    return UsageError(f"{_holder(folder)} is training into '{run}'; wait for it, or give another -o")


def _holder(folder: int) -> str:
    """The process that holds the lock of an open folder, as far as the system says."""
    facts = os.fstat(folder)
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    with suppress(OSError):
        for line in LOCKS.read_text(encoding="utf-8").splitlines():
            words = line.split()  # "28: FLOCK ADVISORY WRITE 21811 fe:00:2663578 0 EOF"
            if len(words) > 5 and words[1] == "FLOCK" and words[5] == place and words[4] > "0":
                return f"process {words[4]}"
    return "another process"


STATE_FILE = "trainer_state.json"
NEEDED_FILES = (MANIFEST, STATE_FILE, "scheduler.pt")
"""What a checkpoint must have to be continued from, beside its weights and the state of the optimizer."""
STATE = (
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
"""What names begin with that belong to the training and not to the model, and the libraries' model card, which says less than the manifest."""
TORCH_WRITES = ("PytorchStreamWriter", "inline_container.cc")
"""What stands in torch's errors about files that it writes."""
UNFINISHED = ".unfinished"
"""Folder of a run in which weights are written before they get their name."""


def checkpoints(run: Path) -> tuple[list[Path], list[Path]]:
    """The checkpoints of a run that can be continued from, the earliest first, and those that cannot: what a kill left half-written or half-deleted."""
    found = [path for path in run.glob("checkpoint-*") if path.is_dir() and path.name.rpartition("-")[2].isdecimal()]
    found.sort(key=lambda path: int(path.name.rpartition("-")[2]))
    broken = [path for path in found if not _whole(path)]
    begun = sorted((run / UNFINISHED).glob("checkpoint-*")) if (run / UNFINISHED).is_dir() else []
    return [path for path in found if path not in broken], broken + begun


def _whole(checkpoint: Path) -> bool:
    """Whether nothing is missing; the manifest is written last and deleted first."""
    names = {path.name for path in checkpoint.iterdir()}
    weights = any(name.endswith(".safetensors") for name in names) or any(
        name.startswith(("global_step", "pytorch_model_fsdp")) for name in names
    )
    optimizer = any(name.startswith(("optimizer", "global_step")) for name in names)
    return set(NEEDED_FILES) <= names and weights and optimizer and all(map(_to_its_end, checkpoint.iterdir()))


def _to_its_end(path: Path) -> bool:
    """Whether a file was written to its end, as far as it says where that is: a power cut may leave names and lose what they name."""
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            try:
                header = load_json(file.read(min(length, MAX_BYTES)))
                ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
                return bool(path.stat().st_size == 8 + length + max(ends, default=0))
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
    """Delete the oldest checkpoints until ``keep`` are left; the last and the best never go.

    Args:
        run: The run's folder.
        keep: The most checkpoints, at least 1; two are kept at 1 where the last is not the best.
        best: Step of the best one.
    """
    whole, _ = checkpoints(run)
    protected = {whole[-1].name, f"checkpoint-{best}"} if whole else set()
    loose = [path for path in whole if path.name not in protected]
    for path in loose[: max(0, len(whole) - max(keep, len(whole) - len(loose)))]:
        delete_checkpoint(path)


def delete_checkpoint(path: Path) -> None:
    """Delete a checkpoint, its manifest first, so that one which is half gone is known for what it is."""
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def publish(source: Path, run: Path, only_move: bool = False) -> None:
    """Put the model of a folder into the run's own: weights first, then configs, so that what is there never names weights that are not.

    Args:
        source: A checkpoint, or a folder that was written to be published.
        run: The run's folder.
        only_move: Whether the source is not needed afterwards.
    """
    files = [path for path in source.iterdir() if path.is_file() and not path.name.startswith(STATE) and path.name != MANIFEST]
    files += (source / MORE_TEMPLATES).glob("*.jinja")
    for path in sorted(files, key=lambda path: (path.suffix != ".safetensors", path.name in ("config.json", ADAPTER_CONFIG), path.name)):
        target = run / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        if only_move:
            path.replace(target)
            continue
        temporary = target.with_name(f".{path.name}.partial")
        try:
            shutil.copyfile(path, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def cleanup_on_write_error(run: Path) -> Iterator[None]:
    """Say in one line what the system refused to write while the block runs, and take away what is half-written.

    Raises:
        SftchatError: A full disk, a folder that went away or may not be written to.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = os_write_error(error)
        if not reason:
            raise
        clear_unfinished(run)
        with suppress(OSError):  # it holds what was saved before
            run.rmdir()
        again = "; --resume goes on once there is room" if run.is_dir() else ""
        raise SftchatError(f"run folder '{run}' cannot be written: {reason}{again}") from error


def os_write_error(error: BaseException) -> str:
    """Why the system would not write, in its words; empty when the error is of another kind."""
    if isinstance(error, OSError):
        return (error.strerror or first_line(error)).lower()
    if isinstance(error, (RuntimeError, MemoryError)):  # what torch says of a file that it writes
        return "a file could not be written to its end; is the disk full?" if any(words in str(error) for words in TORCH_WRITES) else ""
    found = re.search(r"I/O error: (.*?)(?: \(os error \d+\))?$", str(error))
    return (found[1] if found else first_line(error)).lower()


def clear_unfinished(run: Path, broken: Iterable[Path] = ()) -> None:
    """Take away what a killed run left half-written."""
    for path in (*broken, run / UNFINISHED):
        shutil.rmtree(path, ignore_errors=True)


def check_output(run: Path, resume: bool) -> None:
    """Refuse a folder that cannot take the run, before anything slow.

    Raises:
        UsageError: When it holds a run (and none is resumed), other files, or nothing to resume, or can be no folder.
    """
    if run.is_symlink() and not run.exists():
        raise UsageError(f"output '{run}' is a link that leads nowhere; make the folder that it names, or give another -o")
    if run.exists() and not run.is_dir():
        raise UsageError(f"output '{run}' is a file; give a folder")
    holds_run = (run / MANIFEST).is_file() or any(run.glob("checkpoint-*"))
    if resume:
        manifest = read_manifest(run)
        if manifest is not None and manifest.seconds:
            raise UsageError(f"the run in '{run}' ended at step {manifest.steps}: there is nothing to resume; train into another folder")
        if not holds_run:
            raise UsageError(f"'{run}' has no run to resume; train without --resume")
        return
    if holds_run:
        finished = (run / ADAPTER_CONFIG).is_file() or any((run / name).is_file() for name in WEIGHTS)
        way = "give another -o" if finished else "continue it with --resume, or give another -o"
        raise UsageError(f"output folder '{run}' already holds a run; {way}")
    if run.is_dir() and any(run.iterdir()):
        raise UsageError(f"output folder '{run}' is not empty; give another -o")
    parent = next(p for p in (run, *run.absolute().parents) if p.exists())
    if not parent.is_dir():
        raise UsageError(f"output folder '{run}' cannot be made: '{parent}' is a file")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"output folder '{run}' cannot be made: '{parent}' is not writable")


def complete_checkpoint(folder: Path, model: Any, renderer: Renderer) -> None:
    """Put beside weights what a loader needs to talk as training did: template, stop tokens, and the key-value cache on again.

    transformers writes no generation config beside an adapter, and leaves ``use_cache`` off in the config of a trained model.
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
        with reach(local=True):
            config = AutoConfig.from_pretrained(folder)
        config.use_cache = True
        config.save_pretrained(folder)


RESUMABLE_CHANGES = ("save_steps", "save_limit", "report_to", "device", "logging_steps")
"""Hyper-parameters that may change between two parts of a run: no weight depends on them."""


def earlier(run: Path) -> Manifest:
    """The manifest of the run to be continued.

    Raises:
        UsageError: When there is none.
        ModelError: When it cannot be read.
    """
    manifest = read_manifest(run)
    if manifest is None:
        raise UsageError(f"'{run}' has no manifest; it cannot be resumed")
    return manifest


def refuse_changed(run: Path, before: Manifest, now: Manifest) -> None:
    """Stop a resumption that would continue something else.

    Raises:
        UsageError: Naming everything that changed.
    """
    changes = list(_changes(before, as_read(now)))
    if changes:
        raise UsageError(f"cannot resume '{run}': {'; '.join(changes)}; undo that, or train into another folder")


def _changes(before: Manifest, now: Manifest) -> Iterator[str]:
    """What is not as it was, in words."""
    for name, words in (("task", "the task"), ("method", "the method")):
        if getattr(before, name) != getattr(now, name):
            yield f"{words} was {getattr(before, name)}, is now {getattr(now, name)}"
    if before.base_identity != now.base_identity:
        yield f"the base model has other weights ({before.base}, now {now.base})"
    if before.template_hash != now.template_hash:
        yield f"the chat template changed ({before.template}, now {now.template})"
    data = list(_data_changes(before.data, now.data))
    yield from data
    if before.tokens_hash != now.tokens_hash and not data and before.template_hash == now.template_hash:
        yield f"the rows render to other tokens (tokens hash was {before.tokens_hash[:12]}, is now {now.tokens_hash[:12]})"
    if before.validation != now.validation:
        yield "the validation items changed"
    for name in sorted({*before.config, *now.config} - {*RESUMABLE_CHANGES, "method"}):
        # what an earlier version did not know had its default
        old, new = (manifest.config.get(name, getattr(TrainingConfig(), name, None)) for manifest in (before, now))
        if old != new:
            yield f"--{name.replace('_', '-')} was {old}, is now {new}"


def _data_changes(before: tuple[Mapping[str, Any], ...], now: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    """Files with other bytes, and other sources."""
    old = {str(entry.get("file")): entry for entry in before}
    for entry in now:
        name = str(entry.get("file"))
        if "file" in entry and name in old and old[name].get("sha256") != entry.get("sha256"):
            yield f"{name} changed (sha256 was {str(old[name].get('sha256'))[:12]}, is now {str(entry.get('sha256'))[:12]})"
    places = [[entry.get("file") or dict(entry) for entry in data] for data in (before, now)]
    if places[0] != places[1]:
        yield f"the rows come from {_shown(places[1])}, came from {_shown(places[0])}"


def _shown(places: list[Any]) -> str:
    """Sources of rows in a few words."""
    words = [
        place if isinstance(place, str) else ", ".join(f"{key} {value}" for key, value in place.items() if value not in ({}, None))
        for place in places
    ]
    return " and ".join(words) or "nowhere"
