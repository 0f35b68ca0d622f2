"""Fuzz targets: weights, tokenizers and configs of a checkpoint; chat templates of Jinja and Go; conversations that imitate special tokens."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hypothesis import strategies as st

from sftchat.models.export import export_ollama, write_modelfile
from sftchat.models.gotemplate import GoTemplateError, evaluate, literal
from sftchat.models.loading import load, load_model, load_renderer, load_tokenizer
from sftchat.models.reference import embedded_folder, resolve
from sftchat.templates.parity import check_parity
from sftchat.templates.renderer import IGNORED, Renderer, argument_names, choose_renderer
from tests.conftest import make_checkpoint
from tests.fuzz.inputs import DEEP, like, words_of, written
from tests.fuzz.target import Room, Target, refused, text_of

DATA = {"System": "s", "Messages": [{"Role": "user", "Content": "a"}, {"Role": "assistant", "Content": "b"}]}


@cache
def tokenizer() -> Any:
    """The embedded model's tokenizer."""
    return load_tokenizer(resolve("sftchat:nano"))


@cache
def checkpoint() -> Path:
    """A tiny complete checkpoint."""
    return make_checkpoint(Path(mkdtemp(prefix="sftchat-fuzz-")) / "tiny")


def damaged(room: Room, name: str, content: bytes) -> str:
    """A checkpoint with one changed file."""
    for path in checkpoint().iterdir():
        room.file(content if path.name == name else path.read_bytes(), f"model/{path.name}")
    room.file(content, f"model/{name}")
    return str(room.folder / "model")


def weights(content: bytes, room: Room) -> None:
    """Any bytes are weights that load, or a named error."""
    load_model(resolve(damaged(room, "model.safetensors", content)))


FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


def checkpoints(content: bytes, room: Room) -> None:
    """Any bytes in any file of a checkpoint are a model that loads, or a named error; the first byte selects the file."""
    model = damaged(room, FILES[content[0] % len(FILES)] if content else FILES[0], content[1:])
    with refused():
        renderer, _ = load_renderer(resolve(model))
        renderer.prompt_ids([{"role": "user", "content": "a"}])
    load(resolve(model))
    with refused():
        export_ollama(resolve(model), room.folder / "scratch" / "exported")


def jinja(content: bytes, room: Room) -> None:
    """Any bytes are a chat template that is proved and rendered, or a named error; none reaches beyond the sandbox."""
    renderer = choose_renderer(tokenizer(), str(room.file(content, "template.jinja")))
    with refused():
        argument_names(renderer)
    with refused():
        renderer.prompt_ids([{"role": "user", "content": "a"}])
    with refused():
        check_parity(renderer, (0,))
    write_modelfile(renderer, (0,), "fuzzed")


def go(content: bytes, room: Room) -> None:
    """Any text is a Go template or is refused; as a literal it is unchanged."""
    text = text_of(content)
    assert evaluate(literal(text), DATA) == text or "{{" in text
    try:
        evaluate(text, DATA)
    except GoTemplateError:
        return


@cache
def chatml() -> Renderer:
    """The embedded model's tokenizer with a template whose stop token is known."""
    return choose_renderer(tokenizer(), preferred="chatml")


def forged(content: bytes, room: Room) -> None:
    """For any texts, a prompt is a prefix of its row and only the template writes the stop token; turns are separated by ``\x1e``."""
    said = text_of(content).encode("utf-8", "replace").decode().split("\x1e")[:6]
    said = said if len(said) % 2 == 0 else [*said, "b"]
    messages: list[Any] = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(said)]
    use = chatml()
    row, prompt = use.training_ids(messages), use.prompt_ids(messages[:-1])
    assert list(row.ids[: len(prompt)]) == prompt
    trained = [label for label in row.labels if label != IGNORED]
    assert trained.count(use.stop_token) == len(messages) // 2, "somebody forged a stop token"
    assert trained[-1] == use.stop_token


def _safetensors(header: bytes, data: bytes = b"\0" * 8) -> bytes:
    """A file with that header."""
    return struct.pack("<Q", len(header)) + header + data


def _of_checkpoint(name: str) -> st.SearchStrategy[bytes]:
    """A file of the embedded model with occasional changes."""
    found = json.loads((embedded_folder() / name).read_text(encoding="utf-8"))
    return like(found).map(written) | DEEP


TENSOR = {"w": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}
JINJA = (
    "{% for m in messages %}", "{% endfor %}", "{{ m['role'] }}", "{{ m.content }}", "<|im_start|>", "<|im_end|>", "{% if add_generation_prompt %}", "{% endif %}",
    "{{ raise_exception('x') }}", "{{ messages.__class__.__mro__ }}", "{{ ''.__class__ }}", "{% set x = namespace(a=1) %}", "{{ 1 // 0 }}", "{{ 10 ** 400 * 1.0 }}",
    "{% include 'x' %}", "{{ range(100001) }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ strftime_now('%Y') }}", "{{ tools }}", "{{ x|tojson }}", "{{",
    "{{ messages.append(1) }}", "assistant\n", "user\n", "{{ '%c' % 1114112 }}", "{% generation %}", "{{ lipsum() }}", "{{ cycler }}", "{{ messages[0].pop('role') }}",
    "{{ '%s'.format }}", "{{ m|attr('__class__') }}", "{{ bos_token }}",
)  # fmt: skip
GO = ("{{ ", " }}", "{{- ", " -}}", "if ", "else", "else if ", "range ", "end", ".System", ".Messages", "$i, $m := ", "eq ", "gt ", "len ", "(", ")", '"a"', "1", ".", "$", "and ", "or ", "not ", "-1", '"\\x"')  # fmt: skip
FORGED = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "assistant\n",
    "{{ 7*7 }}",
    "{% raw %}",
    "\u2063reply\u2063",
    "\u2063",
    "你好",
    "\n",
    " ",
    "\x00",
    "\x1e",
)

TARGETS = {
    "weights": Target(weights, like(TENSOR).map(written).map(_safetensors) | st.binary(max_size=80) | DEEP.map(_safetensors)),
    "checkpoints": Target(
        checkpoints,
        st.one_of(
            _of_checkpoint("config.json").map(lambda text: b"\0" + text),
            _of_checkpoint("tokenizer_config.json").map(lambda text: b"\2" + text),
        )
        | st.tuples(st.integers(0, 4), DEEP | st.binary(max_size=60) | words_of(*JINJA)).map(lambda two: bytes([two[0]]) + two[1]),
    ),
    "jinja": Target(jinja, words_of(*JINJA), JINJA),
    "go": Target(go, words_of(*GO), GO),
    "forged": Target(forged, words_of(*FORGED), FORGED),
}
