"""Writes transformers tokenizers as metadata of a GGUF file, and finds llama.cpp's name of a tokenizer's splitting rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError
from sftchat.templates.named import DEFAULT
from sftchat.templates.renderer import Renderer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types of llama.cpp."""

PRE_TOKENIZERS = (
    "gpt-2", "llama-bpe", "qwen2", "smollm", "tekken", "gpt-4o", "qwen35", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "dbrx",
    "stablelm2", "olmo", "mpt", "viking", "chatglm-bpe", "jais", "bloom", "exaone4", "superbpe", "default",
)  # fmt: skip
"""llama.cpp's names of splitting rules before byte-level BPE, the most frequent first."""

PROBES = (
    "Hello world! It's 2024, isn't it? I'LL say we've 12345 and 1,234.56€.",
    "  two  spaces\n\n\tTabs \r\n\r\n  end  \n",
    "the other user and the assistant were there; reply here, please",
    "x=1+2*3;// c\nreturn 0x1F << 3 != y_z; \"quoted\" 'single' (a[0]) {b:c}",
    "你好，世界。甲-乙:师徒\n无 一二三123四五",
    "émigré naïve Ünïcödé ÀÉÎ ὠκεανός Привет مرحبا नमस्ते ไทย 日本語カタカナ 한국어",
    "😀👍🏽👨‍👩‍👧 ©™ → ∑ … — “q” ‘s’",
    "CamelCaseHTTPServer snake_case kebab-case 3rd 4GB v1.2.3 a1b2",
    "\n\n2\n 3\n\n\n\nA   B     C",
    "a  你   1  ， b    :  -   “c”\t\t9   é    ！",
)
"""Texts on which the rules differ."""


def tokenizer_metadata(renderer: Renderer, pre_tokenizer: str, size: int) -> dict[str, Any]:
    """Return tokenizer and chat template as metadata of a GGUF file.

    Args:
        renderer: Tokenizer and chat template.
        pre_tokenizer: llama.cpp's name of the splitting rules; ignored for a SentencePiece tokenizer.
        size: Number of rows of the embedding; ids without a token get a placeholder.

    Raises:
        ModelError: When llama.cpp has no tokenizer of this kind.
    """
    ends = dict.fromkeys(token for token in (renderer.tokenizer.eos_token_id, *renderer.stop_tokens) if token is not None)
    return {
        **vocabulary_metadata(renderer.tokenizer, pre_tokenizer, size),
        **{f"tokenizer.ggml.{name}_token_id": token for name, token in zip(("eos", "eot", "eom"), ends, strict=False)},
        **_template_metadata(renderer),
    }


def _template_metadata(renderer: Renderer) -> dict[str, Any]:
    """Return the chat templates as metadata; arguments of the template become its first statements, since other programs do not know them."""
    statements = "".join(f"{{%- set {name} = {_jinja_literal(value)} %}}" for name, value in renderer.arguments.items())
    named = {} if renderer.template_name else {name: source for name, source in renderer.named.items() if name != DEFAULT}
    return {
        "tokenizer.chat_template": statements + renderer.source,
        **{f"tokenizer.chat_template.{name}": statements + source for name, source in named.items()},
        **({"tokenizer.chat_templates": sorted(named)} if named else {}),
    }


def _jinja_literal(value: Any) -> str:
    """Return the Jinja source of a JSON value; its escape sequences in texts are those of Python."""
    return str(value).lower() if value is None or isinstance(value, bool) else ascii(value)


def vocabulary_metadata(tokenizer: Any, pre_tokenizer: str, size: int) -> dict[str, Any]:
    """Return a tokenizer as metadata of a GGUF file; arguments and errors as in ``tokenizer_metadata``."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError("a tokenizer written in Python cannot be written as GGUF; save it as tokenizer.json first")
    description = json.loads(backend.to_str())
    model = description["model"]
    is_byte_level = "ByteLevel" in json.dumps(description.get("pre_tokenizer")) + json.dumps(description.get("decoder"))
    if model["type"] != "BPE" or not (is_byte_level or model.get("byte_fallback")):
        raise ModelError(f"a tokenizer of type {model['type']} cannot be written as GGUF; byte-level and SentencePiece BPE can")
    vocabulary = tokenizer.get_vocab()
    texts = {index: text for text, index in vocabulary.items()}
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(max(size, max(texts) + 1))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    metadata = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": _token_types(description, texts, len(tokens)),
        **_special_ids(tokenizer),
        "tokenizer.ggml.add_bos_token": tokenizer.bos_token_id is not None and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id],
    }
    if is_byte_level:
        return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre_tokenizer, **metadata, "tokenizer.ggml.merges": merges}
    first = tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False)[0])
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        **metadata,
        "tokenizer.ggml.scores": _scores(tokens, merges),
        "tokenizer.ggml.add_space_prefix": first.startswith("\u2581"),
    }


def _token_types(description: Mapping[str, Any], texts: Mapping[int, str], size: int) -> list[int]:
    """Return llama.cpp's type of each token id."""
    types = [NORMAL if index in texts else UNUSED for index in range(size)]
    for index, text in texts.items():
        if text == description["model"].get("unk_token"):
            types[index] = UNKNOWN
        elif description["model"].get("byte_fallback") and len(text) == 6 and text.startswith("<0x"):
            types[index] = BYTE
    for token in description.get("added_tokens", ()):
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    return types


def _special_ids(tokenizer: Any) -> dict[str, int]:
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {name: getattr(tokenizer, f"{attribute}_token_id", None) for name, attribute in names.items()}
    return {f"tokenizer.ggml.{name}_token_id": index for name, index in ids.items() if index is not None}


def _scores(tokens: Sequence[str], merges: Iterable[str]) -> list[float]:
    """Return a score for each token of a SentencePiece vocabulary: llama.cpp merges the pair whose result has the highest score first."""
    rank: dict[str, int] = {}
    for number, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", ""), number)
    return [-float(rank.get(token, len(tokens) + index)) for index, token in enumerate(tokens)]


def find_pre_tokenizer(tokenizer: Any, folder: Path, open_vocabulary: Callable[[Path], Callable[[str], Sequence[int]]]) -> str:
    """Find splitting rules of llama.cpp that give the same ids as a tokenizer on all texts in ``PROBES``, by trying the rules one after the other.

    Args:
        tokenizer: A transformers tokenizer.
        folder: An existing folder for temporary files.
        open_vocabulary: Loads a GGUF file and returns a function that tokenizes with it.

    Returns:
        Name of the first rules that agree; for a SentencePiece tokenizer only ``default`` is tried.

    Raises:
        ModelError: When no rules agree; the message shows the first difference from those that differ on the fewest texts. Also when llama.cpp has no
            tokenizer of this kind; see ``vocabulary_metadata``.
    """
    expected = [tokenizer.encode(text, add_special_tokens=False) for text in PROBES]
    failures: list[tuple[int, str]] = []  # number of texts that differ, and a description of the first difference
    is_byte_level = vocabulary_metadata(tokenizer, "", 0)["tokenizer.ggml.model"] == "gpt2"
    for name in PRE_TOKENIZERS if is_byte_level else ("default",):
        path = folder / f"{name}.gguf"
        write_vocabulary(tokenizer, path, name)
        tokenize = open_vocabulary(path)
        actual = [list(tokenize(text)) for text in PROBES]
        path.unlink()
        differing = [(ours, theirs) for ours, theirs in zip(expected, actual, strict=True) if ours != theirs]
        if not differing:
            return name
        failures.append((len(differing), describe_difference(tokenizer, *differing[0])))
    raise ModelError(f"llama.cpp has no tokenizer that agrees with this model's: {min(failures)[1]}")


def describe_difference(
    tokenizer: Any, ours: Sequence[int], theirs: Sequence[int], sources: tuple[str, str] = ("transformers", "llama.cpp")
) -> str:
    """Describe the first difference between two lists of ids; ``sources`` says where they come from."""
    index = next((number for number, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    pieces = [" ".join(map(str, tokenizer.convert_ids_to_tokens(list(ids[index : index + 3])))) for ids in (ours, theirs)]
    return f"at token {index + 1} {sources[0]} gives '{pieces[0]}' and {sources[1]} '{pieces[1]}'"


def write_vocabulary(tokenizer: Any, path: Path, pre_tokenizer: str) -> None:
    """Write a GGUF file with a tokenizer and the smallest model that llama.cpp loads."""
    import numpy as np
    from gguf import GGUFWriter

    from sftchat.models.gguf_write import add_metadata

    width = 32
    vocabulary = vocabulary_metadata(tokenizer, pre_tokenizer, 0)
    size = len(vocabulary["tokenizer.ggml.tokens"])
    writer = GGUFWriter(path, "llama")
    shape = {
        "block_count": 1, "context_length": 2048, "embedding_length": width, "feed_forward_length": width, "vocab_size": size,
        "attention.head_count": 1, "attention.head_count_kv": 1, "attention.layer_norm_rms_epsilon": 1e-5, "rope.dimension_count": width,
    }  # fmt: skip
    for key, value in {**{f"llama.{key}": value for key, value in shape.items()}, **vocabulary}.items():
        add_metadata(writer, key, value)
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    writer.add_tensor("token_embd.weight", np.zeros((size, width), dtype=np.float16))
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(width, dtype=np.float32))
    for name in matrices:
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((width, width), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
