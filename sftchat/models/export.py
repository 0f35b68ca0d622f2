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
from sftchat.models.gguf_write import ARCHITECTURES
from sftchat.models.gotemplate import evaluate, literal
from sftchat.models.hub import hub_access
from sftchat.models.hubs import HUGGING_FACE, fetch_folder
from sftchat.models.loading import load_tokenizer, stop_ids
from sftchat.models.local_files import fetched
from sftchat.models.manifest import MANIFEST, find_manifest, resolve_template_options
from sftchat.models.model_files import MORE_TEMPLATES, files_of
from sftchat.models.ollama import MODELFILE
from sftchat.models.reference import ModelReference
from sftchat.templates.named import DEFAULT
from sftchat.templates.renderer import Renderer, check_arguments, choose_renderer
from sftchat.types import Message

SYSTEM, FIRST, REPLY, SECOND = (f"\u2063{word}\u2063" for word in ("system", "first", "reply", "second"))
"""Placeholders for contents, each within invisible characters that no template writes."""

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
"""Conversations on which the template is verified."""
FROM_FOLDER = "FROM ."
"""Line of a Modelfile that names the weights in its folder."""
REQUIRED_CONVERSATIONS = 4
"""The number of first conversations for which a difference is an error; for the others it is only reported."""


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

    def of_file(self, path: Path) -> str:
        """Return its content for a GGUF file in the same folder, instead of the weights in the folder."""
        return self.text.replace(FROM_FOLDER, f"FROM ./{path.name}", 1)


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
        difference = _find_difference(renderer, template, [Message(role=role, content=content) for role, content in turns])
        if difference is None:
            continue
        if not difference:
            verified.append(name)
        elif number < REQUIRED_CONVERSATIONS:
            raise TemplateError(f"chat template '{renderer.name}' cannot be written as a template for Ollama: with {name}, {difference}")
        else:
            notes.append(f"with {name}, {difference}")
    if '"""' in template:
        raise TemplateError(f"chat template '{renderer.name}' cannot be written into a Modelfile: it has three quotes in a row")
    stops = [str(renderer.tokenizer.convert_ids_to_tokens(token_id)) for token_id in sorted(set(stop_ids))]
    lines = [
        f"# {' '.join(model_name.split())}: the template is that of the model, proved by sftchat",
        FROM_FOLDER,
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
    opening, user_to_reply, reply_to_user, ending = _split_prompt(renderer, [("user", FIRST), ("assistant", REPLY), ("user", SECOND)])
    if _split_prompt(renderer, [("user", FIRST)]) != [opening, ending]:
        raise TemplateError(
            f"chat template '{renderer.name}' cannot be written as a template for Ollama: it opens or ends a conversation differently by its length"
        )
    opening = _without_bos(renderer, opening)  # removed first: the BOS token may also end the text before a later user turn
    user_header = os.path.commonprefix([opening[::-1], reply_to_user[::-1]])[::-1]  # noqa: RUF071 - of texts, not of paths
    user_footer = os.path.commonprefix([ending, user_to_reply])  # noqa: RUF071 - of texts, not of paths
    assistant_header, assistant_footer = user_to_reply.removeprefix(user_footer), reply_to_user.removesuffix(user_header)
    before_system: str | None = None
    after_system = user_header
    try:
        before_system, after_system, _ = _split_prompt(renderer, [("system", SYSTEM), ("user", FIRST)])
    except TemplateError:
        notes.append("the template has no place for a system prompt; Ollama would leave one out without a word")
    # a header that the first user turn does not have after a system prompt stands before the loop, and in the loop from the second user turn on
    is_constant = after_system.endswith(user_header)
    if is_constant:
        opening, after_system = opening.removesuffix(user_header), after_system.removesuffix(user_header)
    start = literal(opening)
    if before_system is not None:
        with_system = literal(_without_bos(renderer, before_system)) + _action(".System") + literal(after_system)
        start = _action("if .System") + with_system + (_action("else") + start if start else "") + _action("end")
    header = literal(user_header) if is_constant else _action("if gt $i 1") + literal(user_header) + _action("end")
    loop = (
        _action("range $i, $m := .Messages")
        + _action('if eq .Role "user"') + header + _action(".Content") + literal(user_footer)
        + _action('else if eq .Role "assistant"') + literal(assistant_header) + _action(".Content") + literal(assistant_footer)
        + _action("end") + _action("end")
    )  # fmt: skip
    notes.append("calls of tools are not written into it")
    if "strftime_now" in renderer.source:
        notes.append("the chat template writes today's date, where the Modelfile keeps that of the export")
    return start + loop + literal(ending.removeprefix(user_footer)), notes


def _action(words: str) -> str:
    return f"{{{{ {words} }}}}"


def _split_prompt(renderer: Renderer, turns: Sequence[tuple[str, str]]) -> list[str]:
    """Render a prompt, and return the texts before, between and after the contents of its turns."""
    text = renderer.prompt_text([Message(role=role, content=content) for role, content in turns])
    pieces = []
    for _, content in turns:
        piece, separator, text = text.partition(content)
        if not separator:
            raise TemplateError(f"chat template '{renderer.name}' cannot be written as a template for Ollama: it leaves a turn out")
        pieces.append(piece)
    return [*pieces, text]


def _without_bos(renderer: Renderer, text: str) -> str:
    """Remove the BOS token from the start of a prompt if the tokenizer adds one, because Ollama then adds it too."""
    tokenizer = renderer.tokenizer
    adds_bos = tokenizer.bos_token_id is not None and tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if adds_bos else text


def _find_difference(renderer: Renderer, template: str, messages: Sequence[Message]) -> str | None:
    """Describe the first difference between the model's prompt and Ollama's; empty if there is none, None if the chat template fails."""
    try:
        expected = _without_bos(renderer, renderer.prompt_text(messages))
    except TemplateError:
        return None
    ollama = evaluate(template, ollama_data(messages))
    if expected == ollama:
        return ""
    index = len(os.path.commonprefix([expected, ollama]))  # noqa: RUF071 - of texts, not of paths
    excerpt = slice(max(0, index - 12), index + 24)
    return f"the model was trained on {expected[excerpt]!r} where Ollama would write {ollama[excerpt]!r}"


def ollama_data(messages: Sequence[Message]) -> dict[str, Any]:
    """Return the data that Ollama passes to a template: all turns, and the joined system prompts."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    return {"System": system, "Messages": [{"Role": message["role"], "Content": message["content"]} for message in messages]}


CONVERTIBLE = frozenset(
    f"{name}ForCausalLM"
    for name in "Llama Ministral3 Mixtral Gemma Gemma2 Gemma3 Phi3 Qwen2 Olmo3 Cohere GptOss DeepseekV3 Glm4MoeLite Lfm2".split()
)
"""Text models whose safetensors ``ollama create`` converts (convert/convert.go in its repository); others need a GGUF file."""


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

    reference = fetched(reference)
    tokenizer = load_tokenizer(reference, trust_remote_code=trust_remote_code)
    manifest = find_manifest(reference.source)
    options = resolve_template_options(manifest, template=template, template_name=template_name, template_arguments=template_arguments)
    renderer = choose_renderer(tokenizer, **options)
    check_arguments(renderer, template_arguments or ())
    folder = reference.folder or fetch_folder(HUGGING_FACE, reference.text, reference.source, reference.revision)
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
        (partial / MODELFILE).write_text(modelfile.text, encoding="utf-8")
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


def _conversion_warning(config: Any) -> str:
    """Return advice if Ollama may not convert weights of this architecture; otherwise empty."""
    name = (config.architectures or [""])[0]
    if name in CONVERTIBLE:
        return ""
    remedy = "make a GGUF file with llama.cpp's convert_hf_to_gguf.py and name it in the line FROM of the Modelfile"
    if name in ARCHITECTURES:
        remedy = "add --gguf TYPE to --ollama"
    return f"Ollama is not known to convert safetensors of {json.dumps(name)}: if it refuses, {remedy}"
