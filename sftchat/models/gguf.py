"""GGUF files, the model files of llama.cpp: the header, read within limits and checked against the file's size; tokenizer and chat template."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sftchat._util.fallback import report_fallback
from sftchat.errors import MissingExtraError, ModelError, first_line
from sftchat.models.hub import hub_access

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ENTRIES = 65_536
"""Maximum number of metadata entries, and of tensors; published models have fewer than 100 and 2,000."""
MAX_ELEMENTS = 4_000_000
"""Maximum number of elements of one array; the largest published vocabulary has 262,144 tokens."""
MAX_TEXT = 16 << 20
"""Maximum length of a text in bytes."""
MAX_KEPT_ELEMENTS = 64
"""Arrays with more elements, such as the vocabulary, are checked and skipped."""
MAX_DIMENSIONS = 4

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""``struct`` format of each scalar type, by the number of the type in the file."""
TEXT, ARRAY = 8, 9


SINGLE_DIGIT_PRE_TOKENIZERS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""Pre-tokenizers that split off every digit before GPT-2's rules apply; transformers 5.23 converts them as GPT-2's."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a file.

    Attributes:
        name: Its name, such as ``blk.0.attn_q.weight``.
        shape: Its dimensions, innermost first.
        type: Its ``ggml`` type, such as 0 for F32.
        offset: Position of its data after the header, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """Everything in a GGUF file but the weights.

    Attributes:
        path: The file.
        metadata: Values by key; an array with more than ``MAX_KEPT_ELEMENTS`` elements is None.
        tensors: The tensors, in the order of the file.
        data_start: Position in the file from which the offsets of the tensors count, in bytes.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]
    data_start: int = 0

    @property
    def architecture(self) -> str:
        """Architecture, such as ``llama``."""
        return str(self.metadata["general.architecture"])

    @property
    def context_length(self) -> int:
        """Maximum number of tokens in training, prompt and reply together; 2048 if the file does not give it."""
        length = self.metadata.get(f"{self.architecture}.context_length")
        return length if type(length) is int and length > 0 else 2048

    @property
    def file_type(self) -> str:
        """Most frequent type of the weights, such as ``Q4_1``."""
        from gguf.constants import GGMLQuantizationType

        counts: dict[int, int] = {}
        for tensor in self.tensors:
            counts[tensor.type] = counts.get(tensor.type, 0) + tensor.elements
        return str(GGMLQuantizationType(max(counts, key=counts.__getitem__)).name)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Token ids that end a text or a turn, according to the metadata."""
        ids = (self.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
        return tuple(token for token in ids if type(token) is int)


def require_gguf(what: str) -> None:
    """Raise an error with the install command if the packages for GGUF files are not installed.

    Raises:
        MissingExtraError: When the extra ``gguf`` or ``local`` is missing.
    """
    if find_spec("transformers") is None:
        raise MissingExtraError(what, "local,gguf")
    if any(find_spec(name) is None for name in ("gguf", "xllamacpp")):
        raise MissingExtraError(what, "gguf")


class _Malformed(Exception):
    """The file is not what its header claims."""


@dataclass
class _Reader:
    """Reads values from a file, each within the bounds of the file.

    Attributes:
        data: The whole file.
        position: Where the next value begins.
    """

    data: mmap.mmap
    position: int = len(MAGIC)

    def skip(self, length: int, what: str) -> int:
        """Move on by a number of bytes and return the position before them."""
        start = self.position
        if length > len(self.data) - start:
            raise _Malformed(f"it ends within {what}")
        self.position += length
        return start

    def scalar(self, form: str, what: str) -> Any:
        """Read a little-endian scalar in a format of ``struct``."""
        start = self.skip(struct.calcsize(f"<{form}"), what)
        return struct.unpack_from(f"<{form}", self.data, start)[0]

    def count(self, limit: int, what: str) -> int:
        """Read a count of things that may not exceed a limit."""
        number: int = self.scalar("Q", what)
        if number > limit:
            raise _Malformed(f"it claims {number} {what}, at most {limit} are allowed")
        return number

    def text(self, what: str) -> str:
        """Read a text; invalid UTF-8 becomes U+FFFD."""
        length = self.count(MAX_TEXT, f"bytes of {what}")
        start = self.skip(length, what)
        return bytes(self.data[start : start + length]).decode("utf-8", "replace")

    def value(self, what: str) -> Any:
        """Read a value of any type; an array with many elements is skipped and returned as None."""
        kind = self.scalar("I", what)
        return self._array(what) if kind == ARRAY else self._single(kind, what)

    def _single(self, kind: int, what: str) -> Any:
        if kind == TEXT:
            return self.text(what)
        if kind not in SCALARS:
            raise _Malformed(f"{what} has the unknown type {kind}")
        return self.scalar(SCALARS[kind], what)

    def _array(self, what: str) -> list[Any] | None:
        kind, count = self.scalar("I", what), self.count(MAX_ELEMENTS, f"elements of {what}")
        if kind == ARRAY:
            raise _Malformed(f"{what} is an array of arrays")
        if count <= MAX_KEPT_ELEMENTS:
            return [self._single(kind, what) for _ in range(count)]
        if kind in SCALARS:
            self.skip(count * struct.calcsize(f"<{SCALARS[kind]}"), what)
            return None
        for _ in range(count):
            self.skip(self.count(MAX_TEXT, f"bytes of {what}"), what)
        return None


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file and check that the file holds the tensors that it lists.

    The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

    Args:
        path: A file.

    Raises:
        ModelError: When the file cannot be read, is not a GGUF file of a supported version, ends early, or claims an impossible size.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
            if magic != MAGIC:
                begins = f"begins with {magic!r}" if magic else "is empty"
                raise ModelError(f"'{path}' {begins}; a GGUF file begins with {MAGIC!r}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, _Reader(data))
    except OSError as error:
        raise ModelError(f"cannot read '{path}': {error.strerror}") from error
    except _Malformed as error:
        raise ModelError(f"'{path}' is no usable GGUF file: {error}; copy or download it again") from error


def _parse(path: Path, reader: _Reader) -> GgufHeader:
    version = reader.scalar("I", "the version")
    if version not in VERSIONS:
        raise _Malformed(f"its version is {version}, must be {' or '.join(map(str, VERSIONS))}")
    tensor_count = reader.count(MAX_ENTRIES, "tensors")
    entry_count = reader.count(MAX_ENTRIES, "metadata entries")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = reader.text("a metadata key")
        metadata[key] = reader.value(f"the metadata entry '{key}'")
    if not isinstance(metadata.get("general.architecture"), str):
        raise _Malformed("it does not name its architecture")
    tensors = tuple(_tensor(reader) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1:
        raise _Malformed(f"its alignment is {alignment!r}")
    start = -(-reader.position // alignment) * alignment
    for tensor in tensors:
        if start + tensor.offset + size_in_bytes(tensor) > len(reader.data):
            raise _Malformed(f"it ends within tensor '{tensor.name}'")
    return GgufHeader(path, metadata, tensors, start)


def _tensor(reader: _Reader) -> GgufTensor:
    name = reader.text("a tensor's name")
    dimensions = reader.scalar("I", f"tensor '{name}'")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise _Malformed(f"tensor '{name}' has {dimensions} dimensions, must have 1 to {MAX_DIMENSIONS}")
    shape = tuple(reader.scalar("Q", f"tensor '{name}'") for _ in range(dimensions))
    return GgufTensor(name, shape, reader.scalar("I", f"tensor '{name}'"), reader.scalar("Q", f"tensor '{name}'"))


def size_in_bytes(tensor: GgufTensor) -> int:
    """Return the number of bytes of a tensor's data."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block_elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
    except (ValueError, KeyError):
        raise _Malformed(
            f"tensor '{tensor.name}' has the type {tensor.type}, which this version of the package gguf does not know"
        ) from None
    return int(-(-tensor.shape[0] // block_elements) * math.prod(tensor.shape[1:]) * block_bytes)


def load_gguf_tokenizer(header: GgufHeader) -> Any:
    """Load the tokenizer of a GGUF file as a transformers tokenizer, with the chat templates of the file.

    Raises:
        ModelError: When transformers cannot convert it.
    """
    from sftchat.models.loading import quiet_libraries

    quiet_libraries()
    try:
        with hub_access(local=True):
            tokenizer = _convert_tokenizer(header.path)
    except Exception as error:  # the file is untrusted, and the libraries raise any exception
        kind = header.metadata.get("tokenizer.ggml.model")
        raise ModelError(
            f"'{header.path}' has a tokenizer of type {kind!r} that transformers cannot convert: {first_line(error)}"
        ) from error
    if header.metadata.get("tokenizer.ggml.pre") in SINGLE_DIGIT_PRE_TOKENIZERS:
        from tokenizers import pre_tokenizers

        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    if header.metadata.get("tokenizer.ggml.model") == "llama" and header.metadata.get("tokenizer.ggml.add_space_prefix", True):
        from tokenizers import normalizers

        # llama.cpp puts a space before the text after every special token; transformers 5.23 only before the whole text
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.backend_tokenizer.pre_tokenizer = None
    tokenizer.chat_template = _templates(header)
    return tokenizer


def _convert_tokenizer(path: Path) -> Any:
    """Convert the tokenizer without the model's config, which ``AutoTokenizer`` reads first, in a time that grows with the vocabulary."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer
    except ImportError as error:
        report_fallback("converting the tokenizer of a GGUF file alone", first_line(error))
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    architecture, vocabulary, config = get_gguf_tokenizer(str(path))
    backend, arguments = convert_gguf_tokenizer(architecture, vocabulary)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**config, **arguments})


def _templates(header: GgufHeader) -> str | dict[str, str] | None:
    """Return the chat template of a file; several templates by name."""
    key = "tokenizer.chat_template"
    default = header.metadata.get(key)
    named = {name.removeprefix(f"{key}."): source for name, source in header.metadata.items() if name.startswith(f"{key}.")}
    texts = {name: source for name, source in {"default": default, **named}.items() if isinstance(source, str)}
    return texts if set(texts) - {"default"} else texts.get("default")
