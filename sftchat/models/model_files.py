"""The files of a model folder: which affect its replies, and whether what they claim (weights elsewhere, sizes, layers) is plausible.

The same list is used to check what is loaded and to compute identities.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Any

from sftchat._util.parsing import MAX_BYTES, keyed_texts, load_json, read_text
from sftchat.errors import ModelError, first_line

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors",)
PICKLED_ADAPTER_WEIGHTS = ("adapter_model.bin",)
SAFE_SUFFIX = ".safetensors"
INDEX_SUFFIX = ".index.json"

CONFIGS = (CONFIG, ADAPTER_CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
"""Configs in which transformers and peft look up names of other files."""
MORE_TEMPLATES = "additional_chat_templates"
"""Subfolder for additional chat templates in transformers' layout."""
OTHER_FILES = (
    "sftchat.json", "report.json", "trainer_state.json", "*_results.json", "training_args.bin", "optimizer.bin", "scheduler.bin",
    "events.out.tfevents.*", "Modelfile", "LICENSE*", "*.pt", "*.pth", "*.md", "*.html", "*.jsonl", "*.log", "*.csv", "*.tsv", "*.png",
    "*.jpg", "*.svg", "*.pdf", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.lock", "*.partial", "*.part",
)  # fmt: skip
"""Files that no loader opens and that do not affect the model. Every other file counts as a part of it."""
MORE_WEIGHTS = {"adapters": (None,), "shadow_model": (None, "mirror"), "prompt_tuning_init_state_dict_path": (None,)}
"""Keys of adapter_config.json by which peft loads further weights (X-LoRA, Shadow, multitask prompt tuning), and values that load none."""
MAX_PATH_CHARACTERS = 4096
"""Maximum characters of a path; a longer string in a config is not a file name."""
MAX_JSON_BYTES = 8 << 20
"""Maximum size in bytes of a JSON file that is parsed; Python objects take ten times as much."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer.model", "merges.txt", "vocab.txt")
"""Files that grow with the vocabulary: up to 35 MB in large models."""
WHOLE_FILES = (".json", ".jinja", ".model", ".txt")
"""Suffixes of files that libraries read as a whole."""
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "num_hidden_groups")
"""Config keys for the number of layers."""
MAX_LAYERS = 4096
"""More than any model has; creating a layer takes a millisecond, whatever its size."""
EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Config keys for the number of experts per layer."""
LABEL_KEYS = ("num_labels", "n_labels")
"""Config keys for the number of generated label names."""
MAX_LABELS = 1_000_000
MAX_CLAIM_RATIO = 4
"""Maximum ratio of the numbers that a config requires to those in the files; large, because the former are estimated."""
WEIGHTS_PER_NUMBER = 8
"""Maximum number of weights per stored number in quantized models."""


def files_of(folder: Path) -> tuple[str, ...]:
    """Return every file of a model folder that may affect a reply, as sorted names relative to the folder.

    These are the files directly in the folder except hidden ones and those of ``OTHER_FILES``; the weights, also in subfolders; additional chat
    templates; and every file that a config refers to, by its absolute path if it is elsewhere.

    Args:
        folder: A checkpoint or an adapter, as returned by ``resolve``.

    Raises:
        ModelError: See ``weights_of``.
        OSError: When the folder cannot be listed.
    """
    own = (path.name for path in folder.iterdir() if _is_part(path.name) and path.is_file())
    templates = (f"{MORE_TEMPLATES}/{path.name}" for path in (folder / MORE_TEMPLATES).glob("*.jinja") if path.is_file())
    return tuple(sorted({*own, *templates, *weights_of(folder, allow_pickle=True), *_named_files(folder)}))


def weights_of(folder: Path, *, allow_pickle: bool = False) -> tuple[str, ...]:
    """Return the weight files of a checkpoint or an adapter, an index first, as names relative to the folder.

    Args:
        folder: A folder with config.json or adapter_config.json.
        allow_pickle: Whether weights other than safetensors are allowed.

    Raises:
        ModelError: When there are none, one is missing, pickled or outside the folder, or an index or config cannot be read.
    """
    source, names = _checked_weights(folder, allow_pickle)
    missing = [name for name in names if not (folder / name).is_file()]
    if not names:
        raise ModelError(_no_weights(folder))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(f"'{source}' names weights that are not there: {', '.join(missing[:3])}{more}")
    return names


def check_weights(folder: Path, *, allow_pickle: bool = False) -> None:
    """Check the names of weight files in configs and an index, whether or not the files exist yet.

    Args:
        folder: A folder with config.json or adapter_config.json.
        allow_pickle: Whether weights other than safetensors are allowed.

    Raises:
        ModelError: When one is pickled or outside the folder, or an index or config cannot be read.
    """
    _checked_weights(folder, allow_pickle)


def _checked_weights(folder: Path, allow_pickle: bool) -> tuple[Path, tuple[str, ...]]:
    """Return the file that lists the weights, and their checked names."""
    _check_adapter(folder)
    source, names = _listed_weights(folder)
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"'{source}' names weights outside its folder: '{name}'; copy them into '{folder}' and name them there")
        if not allow_pickle and not name.endswith((SAFE_SUFFIX, INDEX_SUFFIX)):
            if name in PICKLED_WEIGHTS + PICKLED_ADAPTER_WEIGHTS and source.name == name:
                raise ModelError(_no_weights(folder))
            raise ModelError(
                f"'{source}' names pickled weights ('{name}'), which can run code; convert them to safetensors or add --allow-pickle"
            )
    return source, names


def _listed_weights(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the file that lists the weights that the libraries would load, and their names; no names if there are none."""
    if (folder / ADAPTER_CONFIG).is_file():
        first = _first(folder, ADAPTER_WEIGHTS + PICKLED_ADAPTER_WEIGHTS)
        return folder / first, (first,) if first else ()
    source, first = _configured_weights(folder)
    if not first:
        first = _first(folder, WEIGHTS + PICKLED_WEIGHTS)
        source = folder / first
    if not first.endswith(INDEX_SUFFIX):
        return source, (first,) if first else ()
    if not (folder / first).is_file() or Path(first).is_absolute():
        return source, (first,)  # then reported as missing or outside the folder
    return folder / first, (Path(first).as_posix(), *_shards(folder / first))


def _configured_weights(folder: Path) -> tuple[Path, str]:
    """Return the weight file named in config.json instead of the usual ones, and the config; an empty name if there is none.

    transformers reads another config instead if ``configuration_files`` has one for its version.
    """
    config = _read_leniently(folder / CONFIG)
    others = [folder / name for name in _texts(config.get("configuration_files")) if len(name) <= MAX_PATH_CHARACTERS]
    named = {folder / CONFIG: config.get("transformers_weights")}
    named |= {path: _read_leniently(path).get("transformers_weights") for path in others if path.is_file()}
    for path, name in named.items():
        if name is not None and not (isinstance(name, str) and 0 < len(name) <= MAX_PATH_CHARACTERS):
            raise ModelError(f"'{path}' has transformers_weights {name!r:.40}, must be the name of a file")
    if len(set(named.values())) > 1:
        raise ModelError(f"'{folder / CONFIG}' and the configs in its configuration_files name different weights; leave one of them")
    return folder / CONFIG, named[folder / CONFIG] or ""


def _shards(index: Path) -> tuple[str, ...]:
    """Return the weight files listed in an index, sorted; raises ``ModelError``."""
    content = _read_leniently(index)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"'{index}' names no weights: it must have a weight_map from tensors to files")
    if not isinstance(content.get("metadata"), dict):
        raise ModelError(f"'{index}' has no metadata, which transformers asks for; add \"metadata\": {{}}")
    wrong = next((name for name in names.values() if not (isinstance(name, str) and 0 < len(name) <= MAX_PATH_CHARACTERS)), None)
    if wrong is not None or None in names.values():
        raise ModelError(f"'{index}' names {wrong!r:.40} as weights, must be the name of a file")
    return tuple(sorted({Path(name).as_posix() for name in names.values()}))


def _check_adapter(folder: Path) -> None:
    """Check that an adapter loads no models other than its base model; raises ``ModelError``."""
    if (folder / ADAPTER_CONFIG).is_file():
        config = _read_leniently(folder / ADAPTER_CONFIG)
        for key, harmless in MORE_WEIGHTS.items():
            if config.get(key) not in harmless:
                raise ModelError(
                    f"'{folder / ADAPTER_CONFIG}' names further weights by '{key}'; only adapters of their base alone are loaded"
                )


def _named_files(folder: Path) -> Iterator[str]:
    """Yield every file that a config names, sought in the folder and in the working directory; absolute unless it is inside the folder."""
    configs = [folder / name for name in CONFIGS]
    configs += [
        folder / name for name in _texts(_read_leniently(folder / CONFIG).get("configuration_files")) if len(name) <= MAX_PATH_CHARACTERS
    ]
    for text in {
        text for path in configs for text in _texts(_read_leniently(path)) if 0 < len(text) <= MAX_PATH_CHARACTERS and "\0" not in text
    }:
        path = Path(text)
        if not path.is_absolute() and _is_file(folder / path):
            yield ((folder / path).absolute() if ".." in path.parts else path).as_posix()
        if _is_file(path):
            yield path.absolute().as_posix()


def _texts(value: Any) -> Iterator[str]:
    return (text for _, text in keyed_texts(value))


def _read_leniently(path: Path) -> dict[str, Any]:
    """Parse the JSON object in a file as leniently as the libraries do; empty if the file does not exist; raises ``ModelError``."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a JSON object: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object: it holds {value!r:.40}")
    return value


def _first(folder: Path, names: Iterable[str]) -> str:
    return next((name for name in names if (folder / name).is_file()), "")


def _is_part(name: str) -> bool:
    """Whether a file directly in the folder may affect replies; a hidden one only as a vocabulary, which transformers finds by suffix."""
    return not any(fnmatch(name, pattern) for pattern in OTHER_FILES) and (name[0] != "." or name.endswith(".model"))


def _is_file(path: Path) -> bool:
    """Whether a file exists; False for invalid names, for which Python before 3.14 raises."""
    try:
        return path.is_file()
    except OSError:
        return False


def _no_weights(folder: Path) -> str:
    """Return an error message for missing weights, with advice if there are only pickled ones."""
    adapter = (folder / ADAPTER_CONFIG).is_file()
    what, wanted, pickled = ("adapter", ADAPTER_WEIGHTS, PICKLED_ADAPTER_WEIGHTS) if adapter else ("checkpoint", WEIGHTS, PICKLED_WEIGHTS)
    if _first(folder, pickled):
        return f"{what} '{folder}' has only pickled weights, which can run code; convert them to safetensors or add --allow-pickle"
    return f"{what} '{folder}' has no weights; expected {' or '.join(wanted)}"


def check_sizes(folder: Path) -> None:
    """Check that a model folder has files and that none is larger than its type allows.

    Args:
        folder: A local model or adapter; only file sizes are read.

    Raises:
        ModelError: Names the file.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in WHOLE_FILES or path.is_dir():
            continue
        try:
            status = path.stat()
        except OSError as error:
            raise ModelError(f"'{path}' cannot be read: {first_line(error)}") from error
        is_large = path.name in VOCABULARIES or path.name.endswith(INDEX_SUFFIX) or path.suffix != ".json"
        limit = MAX_BYTES if is_large else MAX_JSON_BYTES
        if not S_ISREG(status.st_mode):
            raise ModelError(f"'{path}' is no file: it is a pipe or a device")
        if status.st_size > limit:
            raise ModelError(f"'{path}' has {status.st_size:,} bytes, more than the {limit:,} that are read of such a file")


def check_config(folder: Path) -> None:
    """Check that a config claims no more layers or labels than any model has; they are created when it is loaded.

    Args:
        folder: A local checkpoint.

    Raises:
        ModelError: Reports the claim and the limit.
    """
    for part in _parts(read_object(folder / CONFIG)):
        _check_limit(folder, part, LAYER_KEYS, MAX_LAYERS, f"at most {MAX_LAYERS} are allowed")
        _check_limit(folder, part, LABEL_KEYS, MAX_LABELS, f"at most {MAX_LABELS} are allowed")


def check_claims(folder: Path) -> None:
    """Check that a config does not claim far more layers or weights than the folder's safetensors files contain.

    Args:
        folder: A local checkpoint; only the headers of its weights are read.

    Raises:
        ModelError: Reports the claim and the actual size.
    """
    config, shapes = read_object(folder / CONFIG), tensor_shapes(folder)
    if not shapes:
        return  # pickled weights, which the user trusts, or none, which loading reports
    stored = sum(map(prod, shapes))
    largest = max(max(shape, default=1) for shape in shapes)
    per_number = WEIGHTS_PER_NUMBER if "quantization_config" in config else 1
    for part in _parts(config):
        _check_limit(folder, part, LAYER_KEYS, len(shapes), f"its files hold {len(shapes)} tensors")
        _check_limit(folder, part, EXPERT_KEYS, max(len(shapes), largest), f"the largest tensor of its files has {largest} rows")
        if (claimed := _numbers(part)) > stored * MAX_CLAIM_RATIO * per_number:
            raise ModelError(f"'{folder / CONFIG}' claims about {claimed:.2g} numbers, and the files of the model hold {stored:.2g}")


def _check_limit(folder: Path, part: Mapping[str, Any], names: Iterable[str], limit: int, reason: str) -> None:
    for name in names:
        if isinstance(claimed := part.get(name), int) and claimed > limit:
            raise ModelError(f"'{folder / CONFIG}' claims {name} {claimed}, and {reason}")


def tensor_shapes(folder: Path) -> list[tuple[int, ...]]:
    """Return the shapes of all tensors in a folder's safetensors headers; damaged files are reported when they are loaded."""
    from safetensors import SafetensorError, safe_open

    files = set(folder.glob("*.safetensors"))
    for index in folder.glob("*.safetensors.index.json"):
        names = read_object(index).get("weight_map")
        files |= {folder / name for name in set(names.values()) if isinstance(name, str)} if isinstance(names, dict) else set()
    shapes: list[tuple[int, ...]] = []
    for path in sorted(files):
        try:
            with safe_open(path, "pt") as file:
                shapes += [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            continue
    return shapes


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config
    yield from (value for value in config.values() if isinstance(value, dict))


def _numbers(config: Mapping[str, Any]) -> int:
    """Estimate, rather low, the number of weights for a config: one attention and one other matrix per layer, and the embedding."""
    layers, width, inner, vocabulary, heads, size, experts, expert, positions = (
        max((value for name in names if isinstance(value := config.get(name), int)), default=0)
        for names in (
            LAYER_KEYS, ("hidden_size", "n_embd", "d_model"), ("intermediate_size", "n_inner", "ffn_dim", "d_ff"), ("vocab_size",),
            ("num_attention_heads", "n_head", "num_key_value_heads"), ("head_dim",), EXPERT_KEYS, ("moe_intermediate_size",), ("n_positions",),
        )
    )  # fmt: skip
    return layers * width * (max(width, heads * size) + inner + experts * expert) + (vocabulary + positions) * width


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ModelError: When the file cannot be read, or is not a JSON object.
    """
    try:
        value = load_json(read_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"'{path}' is not a JSON object")
    return value
