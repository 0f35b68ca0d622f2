"""Validates what the files of a model folder claim (sizes, layers, ranks, regular expressions) before a library uses them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Any

from sftchat._util.parsing import MAX_BYTES, keyed_texts, load_json, read_text
from sftchat.errors import ModelError, first_line

CONFIG = "config.json"
SMALL = 8 << 20
"""Maximum size in bytes of a JSON file that is parsed; Python objects take ten times as much."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer.model", "merges.txt", "vocab.txt")
"""Files that grow with the vocabulary: up to 35 MB in large models."""
INDEX = ".index.json"
"""Suffix of files that map tensors to weight files: up to 20 MB in large models."""
READ = (".json", ".jinja", ".model", ".txt")
"""Suffixes of files that libraries read as a whole."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "num_hidden_groups")
"""Config keys for the number of layers."""
MOST_LAYERS = 4096
"""More than any model has; creating a layer takes a millisecond, whatever its size."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Config keys for the number of experts per layer."""
LABELS = ("num_labels", "n_labels")
"""Config keys for the number of generated label names."""
MOST_LABELS = 1_000_000
TIMES = 4
"""Maximum ratio of the numbers that a config requires to those in the files; large, because the former are estimated."""
PACKED = 8
"""Maximum number of weights per stored number in quantized models."""
PATTERNS = ("target_modules", "exclude_modules", "feedforward_modules")
"""Keys of an adapter's config that may contain a regular expression."""
NAME = re.compile(r"[\w.-]*")
"""Matches an expression that is only a name, which is safe."""
PATTERN_SECONDS = 5.0
"""Maximum seconds to match an adapter's expressions against all modules of its base model."""
MATCHING = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        pattern = re.compile(pattern)
    except re.error as error:
        sys.exit(f"{pattern!r} is no regular expression: {error}")
    for name in names:
        pattern.fullmatch(name)
"""
"""Runs in a subprocess, because catastrophic backtracking cannot be interrupted otherwise."""
TOKENIZER = "tokenizer.json"
TOKENIZER_SECONDS = 10.0
"""Maximum seconds for the tokenizer probes, of a few thousand characters each; normally they take milliseconds."""
TOKENIZER_MEMORY = 2 << 30
"""Maximum address space for the probes, in bytes."""
GROWTH = 64
"""Maximum ratio of a text's normalized, split or decoded length to its own; text in byte tokens reaches six."""
QUANTIFIERS = frozenset("*+{")
"""Quantifier characters; a regular expression without them is matched in linear time."""
TRYING = """
import json, sys
most, growth = map(int, sys.argv[1:])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
except ImportError:
    pass  # Windows: the time alone is bounded
from tokenizers import Tokenizer
parts, probes = json.load(sys.stdin)
try:
    tokenizer = Tokenizer.from_str(json.dumps(parts))
except Exception:
    sys.exit()  # said where it is loaded
for probe in probes:
    made = [probe]
    if tokenizer.normalizer is not None:
        made.append(tokenizer.normalizer.normalize_str(probe))
    if tokenizer.pre_tokenizer is not None and len(made[-1]) <= growth * len(probe):
        made.append("".join(piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(probe)))
    if tokenizer.decoder is not None:
        made.append(tokenizer.decoder.decode([probe]))
    made.append(tokenizer.encode(probe).ids)
    if max(map(len, made)) > growth * len(probe):
        sys.exit(f"makes more than {growth} times as much of a text as it is long")
"""
"""Runs in a subprocess, because the library's native code cannot be interrupted otherwise."""


def check_sizes(folder: Path) -> None:
    """Check that a model folder has files and that none is larger than its type allows.

    Args:
        folder: A local model or adapter; only file sizes are read.

    Raises:
        ModelError: Names the file.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in READ or path.is_dir():
            continue
        try:
            found = path.stat()
        except OSError as error:
            raise ModelError(f"'{path}' cannot be read: {first_line(error)}") from error
        most = MAX_BYTES if path.name in VOCABULARIES or path.name.endswith(INDEX) or path.suffix != ".json" else SMALL
        if not S_ISREG(found.st_mode):
            raise ModelError(f"'{path}' is no file: it is a pipe or a device")
        if found.st_size > most:
            raise ModelError(f"'{path}' has {found.st_size:,} bytes, more than the {most:,} that are read of such a file")


def check_config(folder: Path) -> None:
    """Check that a config claims no more layers or labels than any model has; they are created when it is loaded.

    Args:
        folder: A local checkpoint.

    Raises:
        ModelError: Reports the claim and the limit.
    """
    for part in _parts(_object(folder / CONFIG)):
        _refuse_over(folder, part, LAYERS, MOST_LAYERS, f"at most {MOST_LAYERS} are allowed")
        _refuse_over(folder, part, LABELS, MOST_LABELS, f"at most {MOST_LABELS} are allowed")


def check_claims(folder: Path) -> None:
    """Check that a config does not claim far more layers or weights than the folder's safetensors files contain.

    Args:
        folder: A local checkpoint; only the headers of its weights are read.

    Raises:
        ModelError: Reports the claim and the actual size.
    """
    config, shapes = _object(folder / CONFIG), list(_shapes(folder))
    if not shapes:
        return  # pickled weights, which the user trusts, or none, which loading reports
    held = sum(map(prod, shapes))
    largest = max(max(shape, default=1) for shape in shapes)
    packed = PACKED if "quantization_config" in config else 1
    for part in _parts(config):
        _refuse_over(folder, part, LAYERS, len(shapes), f"its files hold {len(shapes)} tensors")
        _refuse_over(folder, part, EXPERTS, max(len(shapes), largest), f"the largest tensor of its files has {largest} rows")
        if (claimed := _numbers(part)) > held * TIMES * packed:
            raise ModelError(f"'{folder / CONFIG}' claims about {claimed:.2g} numbers, and the files of the model hold {held:.2g}")


def _refuse_over(folder: Path, part: Mapping[str, Any], names: Iterable[str], most: int, why: str) -> None:
    """Raise ModelError if a number in a part of a config exceeds the limit."""
    for name in names:
        if isinstance(claimed := part.get(name), int) and claimed > most:
            raise ModelError(f"'{folder / CONFIG}' claims {name} {claimed}, and {why}")


def check_adapter(folder: Path, modules: Sequence[str]) -> None:
    """Check that an adapter's config requires no more than its file contains, and that its expressions match fast.

    Args:
        folder: A local adapter.
        modules: Names of the modules of its base model.

    Raises:
        ModelError: Reports the requirement and the actual size.
    """
    path = folder / "adapter_config.json"
    config, shapes = _object(path), list(_shapes(folder))
    largest = max((max(shape, default=1) for shape in shapes), default=1)
    ranks = [config.get("r"), *(config["rank_pattern"].values() if isinstance(config.get("rank_pattern"), dict) else ())]
    for rank in ranks:
        if shapes and isinstance(rank, int) and rank > largest:
            raise ModelError(f"'{path}' claims rank {rank}, and the largest tensor of its file has {largest} rows")
    replicated = config.get("layer_replication")
    if replicated:
        pairs = replicated if isinstance(replicated, list) else [replicated]
        if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, int) for end in pair) for pair in pairs):
            raise ModelError(f"'{path}' has a layer_replication that is no list of pairs of whole numbers")
        layers = sum(max(0, end - start) for start, end in pairs)
        if layers > min(MOST_LAYERS, max(len(shapes), 1)):
            raise ModelError(f"'{path}' claims {layers} layers by layer_replication, and its file holds {len(shapes)} tensors")
    _check_patterns(path, list(_patterns(config)), modules)


def check_tokenizer(folder: Path) -> None:
    """Probe a tokenizer for regular expressions, replacements or padding that run without end or fill the memory.

    The tokenizer without its vocabulary runs in a subprocess on repetitions of the characters and texts that it names. If no part can repeat or
    lengthen text, nothing is run.

    Args:
        folder: A local model or adapter.

    Raises:
        ModelError: Reports the effect.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return
    parts = _object(path)
    parts |= {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}
    named = list(keyed_texts(parts))
    if not (any(key == "Regex" and QUANTIFIERS & set(text) for key, text in named) or any(key in ("String", "content") for key, text in named)
            or parts.get("padding")):  # fmt: skip
        return
    texts = {text[:100] for _, text in named}
    probes = sorted({(text * (2000 // len(text))) + end for text in {*texts, *"".join(texts), *"a 1.\n"} if text for end in ("", "!\0")})[
        :400
    ]
    arguments = (str(TOKENIZER_MEMORY), str(GROWTH))
    done = _apart(TRYING, [parts, probes], TOKENIZER_SECONDS, *arguments)
    if done is None:
        raise ModelError(f"'{path}' takes more than {TOKENIZER_SECONDS:g} seconds for a text of 2,000 characters")
    if done.returncode < 0 or "MemoryError" in done.stderr:
        raise ModelError(f"'{path}' takes more than {TOKENIZER_MEMORY >> 30} GiB for a text of 2,000 characters")
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise ModelError(
            f"'{path}' {said}" if said.startswith("makes more") else f"'{path}' cannot be used for a text of 2,000 characters: {said}"
        )


def _apart(program: str, given: Any, seconds: float, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Run a program in a subprocess with JSON on its standard input; None if it was stopped after ``seconds``."""
    try:
        return subprocess.run(
            [sys.executable, "-I", "-c", program, *arguments],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def _check_patterns(path: Path, patterns: list[str], modules: Sequence[str]) -> None:
    """Match expressions in a subprocess with a time limit."""
    if not patterns:
        return
    done = _apart(MATCHING, [patterns, list(modules)], PATTERN_SECONDS)
    if done is None:
        raise ModelError(
            f"'{path}' names its layers by a regular expression that takes more than {PATTERN_SECONDS:g} seconds: {patterns[0]!r:.80}"
        )
    if done.returncode:
        raise ModelError(f"'{path}' names its layers by an expression that cannot be used: {first_line(ValueError(done.stderr))}")


def _patterns(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the expressions of an adapter's config that are more than names, as peft matches them."""
    for name in PATTERNS:
        if isinstance(value := config.get(name), str) and not NAME.fullmatch(value):
            yield value
    for name in ("rank_pattern", "alpha_pattern"):
        if isinstance(value := config.get(name), dict):
            yield from (rf"(.*\.)?({key})" for key in value if not NAME.fullmatch(key))
    for name in ("modules_to_save", "layers_pattern"):
        value = config.get(name)
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str) and not NAME.fullmatch(entry):
                yield rf"(^|.*\.){entry}($|\..*)"


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    try:
        found = load_json(read_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ModelError(f"'{path}' is not a JSON object")
    return found


def _shapes(folder: Path) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of all tensors in a folder's safetensors headers; damaged files are reported when they are loaded."""
    from safetensors import SafetensorError, safe_open

    files = set(folder.glob("*.safetensors"))
    for index in folder.glob("*.safetensors.index.json"):
        names = _object(index).get("weight_map")
        files |= {folder / name for name in set(names.values()) if isinstance(name, str)} if isinstance(names, dict) else set()
    for path in sorted(files):
        try:
            with safe_open(path, "pt") as file:
                yield from (tuple(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            continue


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a config and those of its sub-models."""
    yield config
    yield from (value for value in config.values() if isinstance(value, dict))


def _numbers(config: Mapping[str, Any]) -> int:
    """Estimate, rather low, the number of weights for a config: one attention and one other matrix per layer, and the embedding."""
    layers, width, inner, vocabulary, heads, size, experts, expert, positions = (
        max((value for name in names if isinstance(value := config.get(name), int)), default=0)
        for names in (
            LAYERS,
            ("hidden_size", "n_embd", "d_model"),
            ("intermediate_size", "n_inner", "ffn_dim", "d_ff"),
            ("vocab_size",),
            ("num_attention_heads", "n_head", "num_key_value_heads"),
            ("head_dim",),
            EXPERTS,
            ("moe_intermediate_size",),
            ("n_positions",),
        )
    )
    return layers * width * (max(width, heads * size) + inner + experts * expert) + (vocabulary + positions) * width
