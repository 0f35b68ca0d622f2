"""Export to Ollama: a Go template derived from the output of the chat template, and verified by evaluating it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sftchat._util.files import atomic_folder
from sftchat.errors import ModelError, TemplateError, first_line
from sftchat.models.gotemplate import evaluate, literal
from sftchat.models.loading import load_tokenizer, stop_ids
from sftchat.models.manifest import MANIFEST, as_trained, find_manifest
from sftchat.models.model_files import MORE_TEMPLATES, files_of
from sftchat.models.reference import ModelReference, hub_access
from sftchat.templates.named import DEFAULT
from sftchat.templates.renderer import Renderer, check_arguments, choose_renderer
from sftchat.types import Message

SYSTEM, FIRST, REPLY, SECOND = (f"\u2063{word}\u2063" for word in ("system", "first", "reply", "second"))

CONVERSATIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "one turn": (("user", "你好，world"),),
    "a system turn": (("system", "Be brief.\nAlways."), ("user", "1 + 1?")),
    "several turns": (
        ("user", "问\n题"), ("assistant", "答"), ("user", "again"), ("assistant", "甲-乙:师徒\n无"), ("user", "{{ .System }} 再"),
    ),
    "a system turn and several turns": (
        ("system", "简短"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e"),
    ),
    "white space around what is said": (("user", " a \n"), ("assistant", " b "), ("user", "c")),
    "a thought in the history": (("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c")),
}  # fmt: skip
"""Conversations on which the template is verified; for the last two, a difference is reported but is not an error."""
REQUIRED_CONVERSATIONS = 4


@dataclass(frozen=True)
class Modelfile:
    """A Modelfile with the results of its verification.

    Attributes:
        text: Its content.
        verified: Conversations for which Ollama's prompt is the same.
        notes: Known differences, in sentences.
    """

    text: str
    verified: tuple[str, ...]
    notes: tuple[str, ...]


def write_modelfile(renderer: Renderer, stop_ids: Iterable[int], model_name: str) -> Modelfile:
    """Create and verify a Modelfile for a folder of weights.

    Args:
        renderer: Tokenizer and template.
        stop_ids: Token ids that stop generation.
        model_name: Name of the model for the comment in the file.

    Raises:
        TemplateError: When the template cannot be expressed; names the conversation and the difference.
    """
    template, notes = go_template(renderer)
    verified = []
    for number, (name, turns) in enumerate(CONVERSATIONS.items()):
        problem = _difference(renderer, template, [Message(role=role, content=content) for role, content in turns])
        if problem is None:
            continue
        if not problem:
            verified.append(name)
        elif number < REQUIRED_CONVERSATIONS:
            raise TemplateError(f"chat template '{renderer.name}' cannot be written as a template for Ollama: with {name}, {problem}")
        else:
            notes.append(f"with {name}, {problem}")
    if '"""' in template:
        raise TemplateError(f"chat template '{renderer.name}' cannot be written into a Modelfile: it has three quotes in a row")
    stops = [str(renderer.tokenizer.convert_ids_to_tokens(identity)) for identity in sorted(set(stop_ids))]
    lines = [
        f"# {' '.join(model_name.split())}: the template is that of the model, proved by sftchat",
        "FROM .",
        f'TEMPLATE """{template}"""',
        *(f'PARAMETER stop "{stop}"' for stop in stops),
    ]
    return Modelfile("\n".join(lines) + "\n", tuple(verified), tuple(notes))


def go_template(renderer: Renderer) -> tuple[str, list[str]]:
    """Derive a Go template from prompts that the chat template renders for known texts; not verified.

    Returns:
        The template, and notes on what it omits.

    Raises:
        TemplateError: When turns are not rendered one after the other in the same way.
    """
    notes: list[str] = []
    opening, between, after, end = _split_prompt(renderer, [("user", FIRST), ("assistant", REPLY), ("user", SECOND)])
    alone, last = _split_prompt(renderer, [("user", FIRST)])
    if alone != opening or last != end:
        raise TemplateError(
            f"chat template '{renderer.name}' cannot be written as a template for Ollama: it opens or ends a conversation differently by its length"
        )
    # before the comparison of ends, because the BOS token, which Ollama adds itself, may also end the text before a later turn
    head = _without_bos(renderer, opening)
    user_opens = _common_end(head, after)
    user_closes = os.path.commonprefix([end, between])  # noqa: RUF071 - of texts, not of paths
    try:
        before, inside, _ = _split_prompt(renderer, [("system", SYSTEM), ("user", FIRST)])
    except TemplateError:
        system = None
        notes.append("the template has no place for a system prompt; Ollama would leave one out without a word")
    else:
        system = (_without_bos(renderer, before), inside)
    simple = system is None or system[1].endswith(user_opens)
    cut = len(user_opens) if simple else 0
    start = literal(head[: len(head) - cut])
    if system is not None:
        with_system = f"{literal(system[0])}{{{{ .System }}}}{literal(system[1][: len(system[1]) - cut])}"
        without = f"{{{{ else }}}}{start}" if start else ""
        start = f"{{{{ if .System }}}}{with_system}{without}{{{{ end }}}}"
    opens = literal(user_opens) if simple else f"{{{{ if gt $i 1 }}}}{literal(user_opens)}{{{{ end }}}}"
    user = f"{opens}{{{{ .Content }}}}{literal(user_closes)}"
    assistant = f"{literal(between[len(user_closes) :])}{{{{ .Content }}}}{literal(after[: len(after) - len(user_opens)])}"
    loop = f'{{{{ range $i, $m := .Messages }}}}{{{{ if eq .Role "user" }}}}{user}{{{{ else if eq .Role "assistant" }}}}{assistant}{{{{ end }}}}{{{{ end }}}}'
    notes.append("calls of tools are not written into it")
    if "strftime_now" in renderer.source:
        notes.append("the chat template writes today's date, where the Modelfile keeps that of the export")
    return start + loop + literal(end[len(user_closes) :]), notes


def _split_prompt(renderer: Renderer, turns: Sequence[tuple[str, str]]) -> list[str]:
    text = renderer.prompt_text([Message(role=role, content=content) for role, content in turns])
    pieces = []
    for _, content in turns:
        piece, separator, text = text.partition(content)
        if not separator:
            raise TemplateError(f"chat template '{renderer.name}' cannot be written as a template for Ollama: it leaves a turn out")
        pieces.append(piece)
    return [*pieces, text]


def _without_bos(renderer: Renderer, text: str) -> str:
    """Remove the BOS token from the start of a prompt: Ollama adds it."""
    tokenizer = renderer.tokenizer
    begins = tokenizer.bos_token_id is not None and tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if begins else text


def _common_end(first: str, second: str) -> str:
    return os.path.commonprefix([first[::-1], second[::-1]])[::-1]  # noqa: RUF071 - of texts, not of paths


def _difference(renderer: Renderer, template: str, messages: Sequence[Message]) -> str | None:
    """Describe the first difference of Ollama's prompt; empty if there is none, None if the chat template fails."""
    try:
        trained = _without_bos(renderer, renderer.prompt_text(messages))
    except TemplateError:
        return None
    ollama = evaluate(template, ollama_data(messages))
    if trained == ollama:
        return ""
    index = len(os.path.commonprefix([trained, ollama]))  # noqa: RUF071 - of texts, not of paths
    return f"the model was trained on {trained[max(0, index - 12) : index + 24]!r} where Ollama would write {ollama[max(0, index - 12) : index + 24]!r}"


def ollama_data(messages: Sequence[Message]) -> dict[str, Any]:
    """Return what Ollama passes to a template: all turns, and the joined system prompts."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    return {"System": system, "Messages": [{"Role": message["role"], "Content": message["content"]} for message in messages]}


CONVERTIBLE = frozenset(
    f"{name}ForCausalLM"
    for name in "Llama Ministral3 Mixtral Gemma Gemma2 Gemma3 Phi3 Qwen2 Olmo3 Cohere GptOss DeepseekV3 Glm4MoeLite Lfm2".split()
)
"""Text models whose safetensors ``ollama create`` converts (convert/convert.go in its repository); others need a GGUF file from llama.cpp."""


def export_ollama(
    reference: ModelReference,
    output: Path,
    *,
    template: str = "",
    template_name: str = "",
    template_arguments: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> tuple[Modelfile, str]:
    """Copy a model's files together with a Modelfile; the output folder is created only if the template is verified.

    Args:
        reference: A model, local or on the Hub, but not an adapter.
        output: A folder that does not exist yet.
        template: Template name or file, instead of the model's own.
        template_name: Name of the model's own template to use for every conversation.
        template_arguments: Arguments of the template, overriding those of the manifest.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The Modelfile, and a warning if Ollama may not support the architecture.

    Raises:
        ModelError: When the model cannot be read, or its template cannot be expressed.
    """
    from transformers import AutoConfig, GenerationConfig

    tokenizer = load_tokenizer(reference, trust_remote_code=trust_remote_code)
    manifest = find_manifest(reference.source)
    options = as_trained(manifest, template=template, template_name=template_name, template_arguments=template_arguments)
    renderer = choose_renderer(tokenizer, **options)
    check_arguments(renderer, template_arguments or ())
    folder = reference.folder or _download(reference)
    try:
        with hub_access(local=True):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            generation = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
        settings = generation or GenerationConfig.from_model_config(config)
    except Exception as error:  # the files are untrusted, and the libraries raise any exception
        raise ModelError(f"config of '{reference.text}' could not be read: {first_line(error)}") from error
    stops = stop_ids(SimpleNamespace(generation_config=settings), renderer)
    modelfile = write_modelfile(renderer, stops, f"{reference.text}, template {renderer.name}")
    with atomic_folder(output) as partial:
        for name in (*files_of(folder), *([MANIFEST] if (folder / MANIFEST).is_file() else [])):
            if not Path(name).is_absolute():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / name, partial / name)
        write_templates(partial, renderer.saved)
        (partial / "Modelfile").write_text(modelfile.text, encoding="utf-8")
    return modelfile, _conversion_warning(config)


def write_templates(folder: Path, saved: str | Mapping[str, str]) -> None:
    """Write a model's chat templates into its folder in transformers' layout, replacing existing ones.

    Args:
        folder: The folder of the model.
        saved: A single template, or several by name.
    """
    default = folder / "chat_template.jinja"
    for old in (default, *(folder / MORE_TEMPLATES).glob("*.jinja")):
        old.unlink(missing_ok=True)
    for name, source in ({DEFAULT: saved} if isinstance(saved, str) else saved).items():
        path = default if name == DEFAULT else folder / MORE_TEMPLATES / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")


def _download(reference: ModelReference) -> Path:
    """Return the model's folder in the Hub cache, after download if needed."""
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
    return Path(snapshot_download(reference.source, revision=reference.revision or None, allow_patterns=patterns))


def _conversion_warning(config: Any) -> str:
    """Return advice if Ollama may not convert weights of this architecture; otherwise empty."""
    name = (config.architectures or [""])[0]
    if name in CONVERTIBLE:
        return ""
    return (
        f"Ollama is not known to convert safetensors of {json.dumps(name)}: if it refuses, make a GGUF file with llama.cpp's "
        "convert_hf_to_gguf.py and name it in the line FROM of the Modelfile"
    )
