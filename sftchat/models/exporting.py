"""A model as Ollama takes it: its files, and a proved Modelfile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sftchat.errors import ModelError, first_line
from sftchat.folders import whole_folder
from sftchat.models.hub import reach
from sftchat.models.manifest import MANIFEST, as_trained, find_manifest
from sftchat.models.model_files import files_of
from sftchat.models.modelfile import Modelfile, write_modelfile
from sftchat.models.named import write_templates
from sftchat.models.references import ModelReference
from sftchat.models.templates import check_arguments, choose_renderer
from sftchat.models.weights import load_tokenizer, stop_ids

CONVERTED = frozenset(
    f"{name}ForCausalLM"
    for name in "Llama Ministral3 Mixtral Gemma Gemma2 Gemma3 Phi3 Qwen2 Olmo3 Cohere GptOss DeepseekV3 Glm4MoeLite Lfm2".split()
)
"""Text models whose safetensors ``ollama create`` converts (convert/convert.go in its repository); others need a GGUF file made by llama.cpp."""


def export_ollama(
    reference: ModelReference,
    output: Path,
    *,
    template: str = "",
    template_name: str = "",
    template_arguments: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> tuple[Modelfile, str]:
    """Copy a model's files and write its Modelfile beside them; the folder appears only when the template is proved.

    Args:
        reference: A local model or one on the Hub, no adapter.
        output: A folder that is not there yet.
        template: Template name or file, instead of the model's own.
        template_name: Which of the model's own templates writes every conversation.
        template_arguments: Arguments of the template, before those of the manifest.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The Modelfile, and a warning when Ollama may not know the architecture.

    Raises:
        ModelError: When the model cannot be read, or its template cannot be expressed.
    """
    from transformers import AutoConfig, GenerationConfig

    tokenizer = load_tokenizer(reference, trust_remote_code=trust_remote_code)
    manifest, given = find_manifest(reference.source), dict(template_arguments or {})
    options = as_trained(manifest, template=template, template_name=template_name, template_arguments=given)
    renderer = choose_renderer(tokenizer, **options)
    check_arguments(renderer, given)
    folder = reference.folder or _fetched(reference)
    try:
        with reach(local=True):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            generation = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
        settings = generation or GenerationConfig.from_model_config(config)
    except Exception as error:  # its files are from outside, and the libraries raise whatever they run into
        raise ModelError(f"config of '{reference.text}' could not be read: {first_line(error)}") from error
    stops = stop_ids(SimpleNamespace(generation_config=settings), renderer)
    modelfile = write_modelfile(renderer, stops, f"{reference.text}, template {renderer.name}")
    with whole_folder(output) as partial:
        for name in (*files_of(folder), *([MANIFEST] if (folder / MANIFEST).is_file() else [])):
            if not Path(name).is_absolute():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / name, partial / name)
        write_templates(partial, renderer.saved)
        (partial / "Modelfile").write_text(modelfile.text, encoding="utf-8")
    return modelfile, _warning(config)


def _fetched(reference: ModelReference) -> Path:
    """The folder in the Hub's cache that holds a model, fetched if need be."""
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
    return Path(snapshot_download(reference.source, revision=reference.revision or None, allow_patterns=patterns))


def _warning(config: Any) -> str:
    """What to do when Ollama may not convert weights of this architecture; empty when it does."""
    name = (config.architectures or [""])[0]
    if name in CONVERTED:
        return ""
    return (
        f"Ollama is not known to convert safetensors of {json.dumps(name)}: if it refuses, make a GGUF file with llama.cpp's "
        "convert_hf_to_gguf.py and name it in the line FROM of the Modelfile"
    )
