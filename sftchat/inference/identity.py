"""Hash of everything that affects a model's replies, computed without loading the model or importing torch and transformers."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sftchat._util.versions import installed_version
from sftchat.engine import EngineType
from sftchat.errors import ModelError
from sftchat.inference.guarded import identity_of
from sftchat.models.fingerprint import FileHasher, file_hash, reply_identity
from sftchat.models.local_files import fetched
from sftchat.models.manifest import read_manifest, resolve_template_options
from sftchat.models.reference import resolve
from sftchat.templates.named import template_file

OPTIONS_WITHOUT_EFFECT = ("concurrency", "request_timeout", "timeout")
"""Options that do not affect replies."""
VERSIONED_PACKAGES = ("bitsandbytes", "jinja2", "peft", "sftchat", "tokenizers", "torch", "transformers")
VERSIONED_GGUF_PACKAGES = ("jinja2", "sftchat", "tokenizers", "transformers", "xllamacpp")
SOURCES = (
    "engine.py",
    "likelihood.py",
    "thinking.py",
    "inference/*.py",
    "models/*.py",
    "templates/*.py",
    "templates/chat_templates/*.jinja",
)
"""The source files of sftchat that render prompts and sample tokens."""
DEVICE_FILES = ("nvidia[0-9]*", "kfd", "accel[0-9]*", "dri/renderD*", "davinci[0-9]*")
"""Device files of accelerators in ``/dev`` on Linux."""
DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Environment variables that hide accelerators."""


def identify(
    model: str, engine_types: Mapping[str, EngineType], *, hashed: FileHasher = file_hash, base: str | None = None, allow_pickle: bool = False,
    template: str | None = None, template_name: str | None = None, template_arguments: Mapping[str, Any] | None = None,
    extra_body: Mapping[str, Any] | None = None, interactive: bool = False, **options: Any,
) -> str:  # fmt: skip
    """Return a hash of everything besides the request that affects a model's replies.

    For a local model: the bytes of weights, adapter, configs, tokenizer and template; dtype, device type and all other options; the source of
    sftchat's engine and renderer, and the versions of the libraries that they use. ``sftchat.evaluation.cached_engine.request_key`` adds the messages
    and sampling parameters of a request. Equal files, code and messages render to equal token ids, so no tokenizer is needed, whose import takes
    longer than reading 200 cached replies.

    Args:
        model: MODEL argument, see ``sftchat.models.reference.resolve``.
        engine_types: Engine types of plugins, by scheme.
        hashed: Hashes a file; a caching function avoids rereading large weights.
        options: See ``sftchat.inference.open.load_engine``; likewise the other arguments.

    Returns:
        Empty string if unknown: a branch on the Hub may move, remote code may read anything, and an engine of a plugin may report no identity.

    Raises:
        UsageError: When MODEL is not a valid reference, or ``template`` is neither a name nor a file.
        ModelError: When the folder has no usable weights, or a file cannot be read.
    """
    reference = fetched(resolve(model, base=base, schemes=engine_types, allow_pickle=allow_pickle))
    if reference.scheme and not reference.is_gguf:
        engine_type = engine_types.get(reference.scheme)
        reported = identity_of(engine_type, reference.source, options) if engine_type else ""
        return hashlib.sha256(f"{reference.scheme}\0{reported}".encode()).hexdigest() if reported else ""
    try:
        files = "" if options.get("trust_remote_code") else reply_identity(reference, hashed)
    except OSError as error:
        raise ModelError(f"cannot read '{error.filename}' of model '{model}': {error.strerror}") from error
    if not files:
        return ""
    manifest = read_manifest(reference.folder) if reference.folder else None
    used = resolve_template_options(
        manifest, template=template or "", template_name=template_name or "", template_arguments=template_arguments
    )
    affecting = {
        **{name: value for name, value in options.items() if name not in OPTIONS_WITHOUT_EFFECT},
        "files": files,
        "allow_pickle": allow_pickle,
        "template": _template_identity(template or ""),
        "template_name": used["name"],
        "template_arguments": used["arguments"],
        "device": device_signature(str(options.get("device", "auto"))),
        "source": source_hash(),
        "versions": {name: installed_version(name) for name in (VERSIONED_GGUF_PACKAGES if reference.is_gguf else VERSIONED_PACKAGES)},
    }
    if interactive:
        affecting["keeps_bfloat16"] = _multiplies_bfloat16()
    return hashlib.sha256(json.dumps(affecting, sort_keys=True, default=str).encode()).hexdigest()


def _multiplies_bfloat16() -> bool:
    """Whether an interactive command keeps bfloat16 on this CPU; imports torch, which such a command has loaded."""
    import torch

    from sftchat.inference.linears import can_pack

    return can_pack(torch.bfloat16)


def _template_identity(template: str) -> str:
    """Return the name of a built-in template, or the hash of a template file; raises ``UsageError`` or ``ModelError``."""
    path = template_file(template)
    try:
        return template if path is None else f"file:{file_hash(path)}"
    except OSError as error:
        raise ModelError(f"cannot read chat template '{template}': {error.strerror}") from error


def device_signature(device: str) -> str:
    """Return the device type; for ``auto``, a text that changes when torch's choice may change: the platform and its accelerators."""
    if device != "auto":
        return device.partition(":")[0]
    device_files = [str(path) for pattern in DEVICE_FILES for path in sorted(Path("/dev").glob(pattern))]
    variables = [f"{name}={os.environ[name]}" for name in DEVICE_VARIABLES if name in os.environ]
    return " ".join(["auto", platform.system(), platform.machine(), *device_files, *variables])


@cache
def source_hash() -> str:
    """Hash sftchat's own code that renders prompts and samples tokens, so that no version must be increased by hand."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for path in (path for pattern in SOURCES for path in sorted(package.glob(pattern))):
        digest.update(f"{path.name}\0{file_hash(path)}\0".encode())
    return digest.hexdigest()
