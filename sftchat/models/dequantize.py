"""Makes checkpoint folders of GGUF files, and keeps those for training in the user's cache."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from sftchat._util.files import CACHE_VARIABLE, atomic_folder, cache_folder, create_folder, open_locked, write_error
from sftchat.errors import ModelError, first_line
from sftchat.models.fingerprint import file_hash
from sftchat.models.gguf import GgufHeader, load_gguf_tokenizer, read_header
from sftchat.models.gguf_config import ROPE_TENSORS, check_convertible, complete_config
from sftchat.models.hub import hub_access
from sftchat.models.model_files import CONFIG

BYTES_PER_WEIGHT = 2
"""Of bfloat16."""
VERSION = 1
"""Increased when the same file becomes another folder, so that earlier folders are not reused."""


def dequantize(header: GgufHeader, folder: Path) -> None:
    """Write the model of a GGUF file as a transformers checkpoint in bfloat16, with its tokenizer and chat template.

    Args:
        header: Header of the file.
        folder: An existing, empty folder.

    Raises:
        ModelError: When the file cannot be converted.
    """
    check_convertible(header)
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from sftchat.models.loading import LOADING

    tokenizer = load_gguf_tokenizer(header)
    ends = sorted({*header.end_tokens, tokenizer.eos_token_id} - {None})
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id}
    try:
        with LOADING, hub_access(local=True), redirect_stderr(StringIO()):  # progress bars
            config = complete_config(header, tokens | {"eos_token_id": tokenizer.eos_token_id})
            loaded = AutoModelForCausalLM.from_pretrained(
                header.path.parent, gguf_file=header.path.name, config=config, dtype=torch.bfloat16
            )
            plain = type(loaded.config).from_dict(
                {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
            )
            model = AutoModelForCausalLM.from_config(plain, dtype=torch.bfloat16)  # one that does not refuse to be saved
            model.load_state_dict(loaded.state_dict())
    except ModelError:
        raise
    except Exception as error:  # the file is untrusted, and the libraries raise any exception
        raise ModelError(f"'{header.path}' of architecture '{header.architecture}' cannot be converted: {first_line(error)}") from error
    _check_complete(header, model)
    model.generation_config = GenerationConfig(**tokens)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check_complete(header: GgufHeader, model: Any) -> None:
    """Refuse a conversion that left tensors of the file out, or made up others, which transformers does without an error."""
    in_file = sum(tensor.elements for tensor in header.tensors if not tensor.name.startswith(ROPE_TENSORS))
    converted = sum(parameter.numel() for parameter in model.parameters())
    if in_file != converted:
        raise ModelError(
            f"'{header.path}' of architecture '{header.architecture}' has {in_file:,} weights, "
            f"of which transformers makes a model of {converted:,}; train its original"
        )


@dataclass(frozen=True)
class Dequantized:
    """A checkpoint folder that was made of a GGUF file.

    Attributes:
        folder: The folder, in the user's cache.
        sha256: Hash of the file.
        file_type: Most frequent type of the file's weights, such as ``Q4_1``.
    """

    folder: Path
    sha256: str
    file_type: str


def dequantized_folder(path: Path, say: Callable[[str], None]) -> Dequantized:
    """Return the checkpoint folder of a GGUF file, which is made once and kept in the user's cache under the file's SHA-256.

    Args:
        path: The file.
        say: Called with a line before the file is converted, or when the kept folder is used.

    Raises:
        ModelError: When the file cannot be converted, or the disk has no room.
        SftchatError: When the folder cannot be written.
    """
    header = read_header(path)
    check_convertible(header)
    sha256, file_type = file_hash(path), header.file_type
    folder = cache_folder() / "models" / f"dequantized-{VERSION}-{sha256}"
    described = f"dequantized to bfloat16 for training (the rounding of {file_type} stays)"
    try:
        with _sole_writer(folder):
            if (folder / CONFIG).is_file():
                say(f"{path.name} has been {described}, in {folder}")
            else:
                _check_room(header, folder)
                say(f"{path.name} is {described}, in {folder}")
                with atomic_folder(folder) as draft:
                    dequantize(header, draft)
    except OSError as error:
        raise write_error(folder, error) from error
    return Dequantized(folder, sha256, file_type)


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process writes a folder, such as another process of the same training, and keep others waiting."""
    lock = folder.with_name(f".{folder.name}.lock")
    with create_folder(folder.parent):
        while (file := open_locked(lock)) is None:
            time.sleep(0.2)
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()  # before it is unlocked, so that no process waits for a file that is gone
            file.close()


def _check_room(header: GgufHeader, folder: Path) -> None:
    """Refuse a conversion that would fill the disk."""
    needed = header.parameters * BYTES_PER_WEIGHT
    free = shutil.disk_usage(folder.parent).free
    if free < needed * 1.05:  # the tokenizer, and what others write meanwhile
        raise ModelError(
            f"'{header.path}' needs {needed / 1e6:,.0f} MB as a checkpoint folder, and {folder.parent} has {free / 1e6:,.0f} MB free; "
            f"set {CACHE_VARIABLE} to a folder on another disk"
        )
