"""What the files of a model folder claim, held against what they hold, before a library believes them: sizes, layers, ranks, expressions."""

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
"""Bytes of the largest JSON file that is read into Python's objects, which take ten times as much."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer.model", "merges.txt", "vocab.txt")
"""Files that grow with the vocabulary: up to 35 MB in large models."""
INDEX = ".index.json"
"""The end of the names of files that say which tensor is where: up to 20 MB in large models."""
READ = (".json", ".jinja", ".model", ".txt")
"""Files that libraries read as a whole."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "num_hidden_groups")
"""Keys of a config that say how many layers are made."""
MOST_LAYERS = 4096
"""More than any model has: each takes a millisecond to make, whatever its size."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Keys of a config that say how many experts a layer has."""
LABELS = ("num_labels", "n_labels")
"""Keys of a config that say how many names of labels are made up."""
MOST_LABELS = 1_000_000
TIMES = 4
"""How many times as many numbers a config may ask for as the files hold: an estimate is no count."""
PACKED = 8
"""Numbers in one that is stored, where weights are quantised."""
PATTERNS = ("target_modules", "exclude_modules", "feedforward_modules")
"""Keys of an adapter's config that may hold a regular expression."""
NAME = re.compile(r"[\w.-]*")
"""An expression that is only a name, and so matched at once."""
PATTERN_SECONDS = 5.0
"""How long the expressions of an adapter may take for all modules of its base."""
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
"""Run in a process of its own, because nothing else can stop an expression that goes back and forth for ever."""
TOKENIZER = "tokenizer.json"
TOKENIZER_SECONDS = 10.0
"""How long a tokenizer may take for the probes, a few thousand characters each; a usual one takes some milliseconds."""
TOKENIZER_MEMORY = 2 << 30
"""Bytes of address space for the probes."""
GROWTH = 64
"""How many times as long as a text its normal form, its pieces or its decoding may be: bytes written as tokens of their own make up to six."""
QUANTIFIERS = frozenset("*+{")
"""Characters without which a regular expression is matched at once."""
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
"""Run in a process of its own, because nothing else stops the library: it matches and replaces in native code."""


def check_sizes(folder: Path) -> None:
    """Refuse a model folder with files that are too large to be what they are called, or no files.

    Args:
        folder: A local model or adapter; nothing is read but the sizes.

    Raises:
        ModelError: Naming the file.
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
    """Refuse a config that claims more layers or labels than any model has: they are made when it is read.

    Args:
        folder: A local checkpoint.

    Raises:
        ModelError: Saying what is claimed and what is allowed.
    """
    for part in _parts(_object(folder / CONFIG)):
        _refuse_over(folder, part, LAYERS, MOST_LAYERS, f"at most {MOST_LAYERS} are allowed")
        _refuse_over(folder, part, LABELS, MOST_LABELS, f"at most {MOST_LABELS} are allowed")


def check_claims(folder: Path) -> None:
    """Refuse a config that claims far more layers or numbers than the safetensors files of its folder hold.

    Args:
        folder: A local checkpoint; of its weights only the headers are read.

    Raises:
        ModelError: Saying what is claimed and what is there.
    """
    config, shapes = _object(folder / CONFIG), list(_shapes(folder))
    if not shapes:
        return  # pickled weights, which the user trusts, or none, which is said when they are loaded
    held = sum(map(prod, shapes))
    largest = max(max(shape, default=1) for shape in shapes)
    packed = PACKED if "quantization_config" in config else 1
    for part in _parts(config):
        _refuse_over(folder, part, LAYERS, len(shapes), f"its files hold {len(shapes)} tensors")
        _refuse_over(folder, part, EXPERTS, max(len(shapes), largest), f"the largest tensor of its files has {largest} rows")
        if (claimed := _numbers(part)) > held * TIMES * packed:
            raise ModelError(f"'{folder / CONFIG}' claims about {claimed:.2g} numbers, and the files of the model hold {held:.2g}")


def _refuse_over(folder: Path, part: Mapping[str, Any], names: Iterable[str], most: int, why: str) -> None:
    """Refuse a part of a config one of whose numbers is too large."""
    for name in names:
        if isinstance(claimed := part.get(name), int) and claimed > most:
            raise ModelError(f"'{folder / CONFIG}' claims {name} {claimed}, and {why}")


def check_adapter(folder: Path, modules: Sequence[str]) -> None:
    """Refuse an adapter whose config asks for more than its file holds, or whose expressions take too long.

    Args:
        folder: A local adapter.
        modules: Names of the modules of its base.

    Raises:
        ModelError: Saying what is asked for and what is there.
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
    """Refuse a tokenizer whose expressions, replacements or padding take for ever or fill the memory, as far as probes show it.

    The parts around its vocabulary are tried in a process of their own on repetitions of the characters and texts that they name. Where no part
    can repeat or lengthen anything, nothing is run.

    Args:
        folder: A local model or adapter.

    Raises:
        ModelError: Saying what it does.
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
    """Run a program in a process of its own, JSON on its standard input; None when it was ended because it took too long."""
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
    """Match expressions in a process of its own, which is ended when it takes too long."""
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
    """Every expression of an adapter's config that is more than a name, as peft matches it."""
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
    """A JSON object of a folder."""
    try:
        found = load_json(read_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ModelError(f"'{path}' is not a JSON object")
    return found


def _shapes(folder: Path) -> Iterator[tuple[int, ...]]:
    """The shapes of all tensors in the safetensors files of a folder, from their headers; a damaged file is said when it is loaded."""
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
    """A config and those of the parts of its model."""
    yield config
    yield from (value for value in config.values() if isinstance(value, dict))


def _numbers(config: Mapping[str, Any]) -> int:
    """About how many numbers a model of this config has, rather too few: one product of attention and one of the rest a layer, and the embedding."""
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
