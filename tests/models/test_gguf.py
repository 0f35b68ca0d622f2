"""GGUF files: the header of a good file is read, and whatever is in a bad one, the error is one line."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftchat.errors import ModelError, UsageError
from sftchat.inference.llama_server import load_server
from sftchat.models.gguf import GgufTensor, load_gguf_tokenizer, read_header
from sftchat.models.gguf_tokenizer import find_pre_tokenizer, write_vocabulary
from sftchat.models.reference import ModelReference, resolve
from tests.conftest import make_tokenizer
from tests.inference.test_llama_cpp import sentencepiece_tokenizer


@pytest.fixture(scope="session")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small but complete GGUF file."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_vocabulary(make_tokenizer(), path, "gpt-2")
    return path


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(
    *, magic: bytes = b"GGUF", version: int = 3, tensors: bytes = b"", tensor_count: int = 0, entries: tuple[bytes, ...] = ()
) -> bytes:
    """The bytes of a GGUF file with the architecture ``llama`` and further metadata entries."""
    architecture = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head = magic + struct.pack("<IQQ", version, tensor_count, len(entries) + 1)
    return head + architecture + b"".join(entries) + tensors


def tensor(name: str, *shape: int, type: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", type, offset)


def test_the_header_of_a_file_is_read(vocabulary_file: Path) -> None:
    header = read_header(vocabulary_file)
    size = len(make_tokenizer())  # type: ignore[arg-type]

    assert (header.architecture, header.context_length, header.end_tokens) == ("llama", 2048, (0,))
    assert header.tensors[0] == GgufTensor("token_embd.weight", (32, size), 1, 0)
    assert header.parameters == 32 * size + 32 * 32 * 7 + 3 * 32
    assert header.file_type == "F16"
    assert header.metadata["tokenizer.ggml.tokens"] is None  # too long to be kept


def test_the_tokenizer_of_a_file_gives_the_ids_of_the_original(vocabulary_file: Path) -> None:
    original: Any = make_tokenizer()
    tokenizer = load_gguf_tokenizer(read_header(vocabulary_file))

    for words in ("the user 你好", "<|im_start|>user\n12 a", "\n\n2  x\t…"):
        assert tokenizer.encode(words, add_special_tokens=False) == original.encode(words, add_special_tokens=False)
    assert tokenizer.eos_token == original.eos_token


def test_llama_cpp_reads_a_sentencepiece_vocabulary_as_its_tokenizer_does(tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer()
    path = tmp_path / "model.gguf"

    assert find_pre_tokenizer(tokenizer, tmp_path, lambda path: load_server(path).tokenize) == "default"
    write_vocabulary(tokenizer, path, "default")
    of_file = load_gguf_tokenizer(read_header(path))
    for words in ("the user", "  the</s> user", "<|im_start|>user\n你 a<|im_end|>\n", ""):
        ids = tokenizer.encode(words, add_special_tokens=False)
        assert (of_file.encode(words, add_special_tokens=False), load_server(path).tokenize(words)) == (ids, ids)


BAD_FILES = {
    "empty": (b"", "is empty; a GGUF file begins with b'GGUF'"),
    "another format": (b"PK\x03\x04 and more", r"begins with b'PK\\x03\\x04'; a GGUF file begins with b'GGUF'"),
    "a future version": (gguf(version=9), "its version is 9, must be 2 or 3"),
    "only the magic": (b"GGUF", "it ends within the version"),
    "too many tensors": (gguf(tensor_count=1 << 40), r"it claims 1099511627776 tensors, at most 65536 are allowed"),
    "a text without end": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "it claims .* bytes of a metadata key, at most"),
    "a huge array": (gguf(entries=(text("x") + struct.pack("<IIQ", 9, 4, 1 << 50),)), "it claims .* elements of the metadata entry 'x'"),
    "an array beyond the end": (gguf(entries=(text("x") + struct.pack("<IIQ", 9, 4, 1000),)), "it ends within the metadata entry 'x'"),
    "an array of arrays": (gguf(entries=(text("x") + struct.pack("<IIQ", 9, 9, 1),)), "'x' is an array of arrays"),
    "an unknown type": (gguf(entries=(text("x") + struct.pack("<I", 77),)), "'x' has the unknown type 77"),
    "no architecture": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "it does not name its architecture"),
    "a missing tensor": (gguf(tensor_count=1, tensors=tensor("a", 1 << 30)), "it ends within tensor 'a'"),
    "too many dimensions": (gguf(tensor_count=1, tensors=tensor("a", *[1] * 9)), "tensor 'a' has 9 dimensions"),
    "an unknown tensor type": (gguf(tensor_count=1, tensors=tensor("a", 1, type=200)), "tensor 'a' has the type 200, which this version"),
    "an alignment of zero": (gguf(entries=(text("general.alignment") + struct.pack("<II", 4, 0),)), "its alignment is 0"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line_with_the_reason(name: str, tmp_path: Path) -> None:
    data, reason = BAD_FILES[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)

    with pytest.raises(ModelError, match=reason) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_refused_or_read_within_its_bounds(vocabulary_file: Path, tmp_path: Path, data: st.DataObject) -> None:
    original = vocabulary_file.read_bytes()
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(damaged), 4000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))]))

    try:
        offsets = [entry.offset for entry in read_header(path).tensors]
    except ModelError:
        offsets = []
    assert all(offset <= len(original) for offset in offsets)


def test_a_gguf_file_a_folder_with_one_and_a_file_on_the_hub_are_models(vocabulary_file: Path) -> None:
    path = str(vocabulary_file)
    assert resolve(path) == ModelReference(path, path, scheme="gguf")
    assert resolve(str(vocabulary_file.parent)) == ModelReference(str(vocabulary_file.parent), path, scheme="gguf")
    hub = "hf://org/name@main/quantized/model-Q4_K_M.gguf"
    assert resolve(hub) == ModelReference(hub, hub, scheme="gguf")


def test_a_folder_with_several_gguf_files_is_ambiguous(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()

    with pytest.raises(UsageError, match=r"has 2 GGUF files; give one of them, such as .*a\.gguf"):
        resolve(str(tmp_path))


def test_any_other_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()

    with pytest.raises(UsageError, match="is a file; give the folder that holds it, or a GGUF file"):
        resolve(str(tmp_path / "model.bin"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["export", "{file}", "-o", "out", "--ollama"], "export needs a checkpoint folder"),
        (["merge", "{file}", "-o", "out"], "is no adapter"),
    ],
)
def test_verbs_that_need_weights_refuse_a_gguf_file(
    words: list[str], reason: str, vocabulary_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from sftchat.cli import program

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(program, [word.format(file=vocabulary_file) for word in words])

    assert isinstance(result.exception, UsageError)
    assert reason in str(result.exception)
