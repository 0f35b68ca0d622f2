"""The files of a model folder: which affect its replies, and whether the weights, sizes and layers that they name are plausible.

The same list of files is used to check what is loaded and to compute identities.
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
"""Keys of adapter_config.json by which peft loads further weights (X-LoRA, Shadow, multitask prompt tuning), each with the values that load none."""
MAX_PATH_CHARACTERS = 4096
"""Maximum characters of a path; a longer string in a config is not a file name."""
MAX_JSON_BYTES = 8 << 20
"""Maximum size in bytes of a JSON file that is parsed; Python objects take ten times as much."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer.model", "merges.txt", "vocab.txt")
"""Files that grow with the vocabulary: up to 35 MB in large models."""
SUFFIXES_READ_WHOLE = (".json", ".jinja", ".model", ".txt")
"""Suffixes of files that libraries read into memory as a whole."""
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "num_hidden_groups")
"""Config keys for the number of layers."""
MAX_LAYERS = 4096
"""Maximum number of layers, more than any model has; creating a layer takes a millisecond, whatever its size."""
EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Config keys for the number of experts per layer."""
LABEL_KEYS = ("num_labels", "n_labels")
"""Config keys for the number of generated label names."""
MAX_LABELS = 1_000_000
MAX_CLAIM_RATIO = 4
"""Maximum ratio of the number of weights that a config requires to the number in the files; large, because the former is estimated."""
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
    in_folder = (path.name for path in folder.iterdir() if _affects_replies(path.name) and path.is_file())
    templates = (f"{MORE_TEMPLATES}/{path.name}" for path in (folder / MORE_TEMPLATES).glob("*.jinja") if path.is_file())
    return tuple(sorted({*in_folder, *templates, *weights_of(folder, allow_pickle=True), *_files_in_configs(folder)}))


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
        raise ModelError(_no_weights_message(folder))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(f"'{source}' names weights that are not there: {', '.join(missing[:3])}{more}")
    return names


def check_weights(folder: Path, *, allow_pickle: bool = False) -> None:
    """Check the names of weight files in configs and an index; the files themselves may be missing, as before a download.

    Args:
        folder: A folder with config.json or adapter_config.json.
        allow_pickle: Whether weights other than safetensors are allowed.

    Raises:
        ModelError: When one is pickled or outside the folder, or an index or config cannot be read.
    """
    _checked_weights(folder, allow_pickle)


def _checked_weights(folder: Path, allow_pickle: bool) -> tuple[Path, tuple[str, ...]]:
    """Return the file that lists the weights, and their checked names."""
    _check_adapter_weights(folder)
    source, names = _listed_weights(folder)
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"'{source}' names weights outside its folder: '{name}'; copy them into '{folder}' and name them there")
        if not allow_pickle and not name.endswith((SAFE_SUFFIX, INDEX_SUFFIX)):
            if name in PICKLED_WEIGHTS + PICKLED_ADAPTER_WEIGHTS and source.name == name:
                raise ModelError(_no_weights_message(folder))
            raise ModelError(
                f"'{source}' names pickled weights ('{name}'), which can run code; convert them to safetensors or add --allow-pickle"
            )
    return source, names


def _listed_weights(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the file that lists the weights that the libraries would load, and their names; no names if there are none."""
    if (folder / ADAPTER_CONFIG).is_file():
        name = _first_existing(folder, ADAPTER_WEIGHTS + PICKLED_ADAPTER_WEIGHTS)
        return folder / name, (name,) if name else ()
    source, name = _configured_weights(folder)
    if not name:
        name = _first_existing(folder, WEIGHTS + PICKLED_WEIGHTS)
        source = folder / name
    if not name.endswith(INDEX_SUFFIX):
        return source, (name,) if name else ()
    if not (folder / name).is_file() or Path(name).is_absolute():
        return source, (name,)  # the caller reports it as missing or outside the folder
    return folder / name, (Path(name).as_posix(), *_read_index(folder / name))


def _configured_weights(folder: Path) -> tuple[Path, str]:
    """Return config.json, and the weight file that it names instead of the usual ones; an empty name if it names none.

    transformers reads another config instead if ``configuration_files`` has one for its version, so all of them must name the same weights.
    """
    main_config = folder / CONFIG
    weights = {path: _read_leniently(path).get("transformers_weights") for path in _list_configs(folder) if path.is_file()}
    for path, name in weights.items():
        if name is not None and not _may_be_path(name):
            raise ModelError(f"'{path}' has transformers_weights {name!r:.40}, must be the name of a file")
    if len(set(weights.values())) > 1:
        raise ModelError(f"'{main_config}' and the configs in its configuration_files name different weights; leave one of them")
    return main_config, weights.get(main_config) or ""


def _list_configs(folder: Path) -> list[Path]:
    """Return config.json and the files in its ``configuration_files``, existing or not."""
    names = _strings(_read_leniently(folder / CONFIG).get("configuration_files"))
    return [folder / CONFIG, *(folder / name for name in names if len(name) <= MAX_PATH_CHARACTERS)]


def _may_be_path(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_PATH_CHARACTERS


def _read_index(index: Path) -> tuple[str, ...]:
    """Return the weight files listed in an index, sorted; raises ``ModelError``."""
    content = _read_leniently(index)
    file_by_tensor = content.get("weight_map")
    if not isinstance(file_by_tensor, dict) or not file_by_tensor:
        raise ModelError(f"'{index}' names no weights: it must have a weight_map from tensors to files")
    if not isinstance(content.get("metadata"), dict):
        raise ModelError(f"'{index}' has no metadata, which transformers asks for; add \"metadata\": {{}}")
    for name in file_by_tensor.values():
        if not _may_be_path(name):
            raise ModelError(f"'{index}' names {name!r:.40} as weights, must be the name of a file")
    return tuple(sorted({Path(name).as_posix() for name in file_by_tensor.values()}))


def _check_adapter_weights(folder: Path) -> None:
    """Check that an adapter, if the folder has one, loads no weights other than its own and its base model's; raises ``ModelError``."""
    if (folder / ADAPTER_CONFIG).is_file():
        config = _read_leniently(folder / ADAPTER_CONFIG)
        for key, harmless_values in MORE_WEIGHTS.items():
            if config.get(key) not in harmless_values:
                raise ModelError(
                    f"'{folder / ADAPTER_CONFIG}' names further weights by '{key}'; only adapters of their base alone are loaded"
                )


def _files_in_configs(folder: Path) -> Iterator[str]:
    """Yield every existing file that a config names, relative to the folder or to the working directory; absolute unless it is inside the folder."""
    configs = {*(folder / name for name in CONFIGS), *_list_configs(folder)}
    strings = {text for config in configs for text in _strings(_read_leniently(config))}
    for text in strings:
        if not _may_be_path(text) or "\0" in text:
            continue
        path = Path(text)
        if not path.is_absolute() and _is_file(folder / path):
            yield ((folder / path).absolute() if ".." in path.parts else path).as_posix()
        if _is_file(path):
            yield path.absolute().as_posix()


def _strings(value: Any) -> Iterator[str]:
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


def _first_existing(folder: Path, names: Iterable[str]) -> str:
    return next((name for name in names if (folder / name).is_file()), "")


def _affects_replies(name: str) -> bool:
    """Whether a file directly in the folder may affect replies. A hidden file may only if it ends in .model: transformers finds vocabularies so."""
    return not any(fnmatch(name, pattern) for pattern in OTHER_FILES) and (name[0] != "." or name.endswith(".model"))


def _is_file(path: Path) -> bool:
    """Whether a file exists; False for invalid names, for which Python before 3.14 raises."""
    try:
        return path.is_file()
    except OSError:
        return False


def _no_weights_message(folder: Path) -> str:
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    model = f"{'adapter' if is_adapter else 'checkpoint'} '{folder}'"
    if _first_existing(folder, PICKLED_ADAPTER_WEIGHTS if is_adapter else PICKLED_WEIGHTS):
        return f"{model} has only pickled weights, which can run code; convert them to safetensors or add --allow-pickle"
    return f"{model} has no weights; expected {' or '.join(ADAPTER_WEIGHTS if is_adapter else WEIGHTS)}"


def check_sizes(folder: Path) -> None:
    """Check that a model folder has files and that none is larger than its type allows.

    Args:
        folder: A local model or adapter; only file sizes are read.

    Raises:
        ModelError: Names the file.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in SUFFIXES_READ_WHOLE or path.is_dir():
            continue
        try:
            status = path.stat()
        except OSError as error:
            raise ModelError(f"'{path}' cannot be read: {first_line(error)}") from error
        may_be_large = path.name in VOCABULARIES or path.name.endswith(INDEX_SUFFIX) or path.suffix != ".json"
        limit = MAX_BYTES if may_be_large else MAX_JSON_BYTES
        if not S_ISREG(status.st_mode):
            raise ModelError(f"'{path}' is no file: it is a pipe or a device")
        if status.st_size > limit:
            raise ModelError(f"'{path}' has {status.st_size:,} bytes, more than the {limit:,} that are read of such a file")


def check_config(folder: Path) -> None:
    """Check that a config claims no more layers or labels than any model has; loading would create them before any check of the weights.

    Args:
        folder: A local checkpoint.

    Raises:
        ModelError: Reports the claim and the limit.
    """
    for part in _config_parts(read_object(folder / CONFIG)):
        _check_limit(folder, part, LAYER_KEYS, MAX_LAYERS, f"at most {MAX_LAYERS} are allowed")
        _check_limit(folder, part, LABEL_KEYS, MAX_LABELS, f"at most {MAX_LABELS} are allowed")


def stored_dtype(folder: Path) -> str:
    """Return the dtype that the config of a checkpoint names, such as ``bfloat16``; empty when it names none.

    Raises:
        ModelError: When the config cannot be read.
    """
    parts = _config_parts(read_object(folder / CONFIG))
    names = (part.get(key) for part in parts for key in ("dtype", "torch_dtype"))
    return next((name.removeprefix("torch.") for name in names if isinstance(name, str)), "")


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
    largest_size = max(max(shape, default=1) for shape in shapes)
    weights_per_number = WEIGHTS_PER_NUMBER if "quantization_config" in config else 1
    for part in _config_parts(config):
        _check_limit(folder, part, LAYER_KEYS, len(shapes), f"its files hold {len(shapes)} tensors")
        _check_limit(folder, part, EXPERT_KEYS, max(len(shapes), largest_size), f"the largest tensor of its files has {largest_size} rows")
        claimed = _estimate_weights(part)
        if claimed > stored * MAX_CLAIM_RATIO * weights_per_number:
            raise ModelError(f"'{folder / CONFIG}' claims about {claimed:.2g} numbers, and the files of the model hold {stored:.2g}")


def _check_limit(folder: Path, part: Mapping[str, Any], keys: Iterable[str], limit: int, reason: str) -> None:
    for key in keys:
        claimed = part.get(key)
        if isinstance(claimed, int) and claimed > limit:
            raise ModelError(f"'{folder / CONFIG}' claims {key} {claimed}, and {reason}")


def tensor_shapes(folder: Path) -> list[tuple[int, ...]]:
    """Return the shapes of all tensors in a folder's safetensors headers; damaged files are reported when they are loaded."""
    from safetensors import SafetensorError, safe_open

    files = set(folder.glob("*.safetensors"))
    for index in folder.glob("*.safetensors.index.json"):
        file_by_tensor = read_object(index).get("weight_map")
        if isinstance(file_by_tensor, dict):
            files |= {folder / name for name in file_by_tensor.values() if isinstance(name, str)}
    shapes: list[tuple[int, ...]] = []
    for path in sorted(files):
        try:
            with safe_open(path, "pt") as file:
                shapes += [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            continue
    return shapes


def _config_parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a config and its inner configs, such as ``text_config``."""
    yield config
    yield from (value for value in config.values() if isinstance(value, dict))


def _estimate_weights(config: Mapping[str, Any]) -> int:
    """Estimate the least number of weights for a config: per layer one matrix each for attention, feed-forward and every expert, and the embeddings."""

    def largest(*keys: str) -> int:
        return max((value for value in map(config.get, keys) if isinstance(value, int)), default=0)

    width = largest("hidden_size", "n_embd", "d_model")
    attention_width = max(width, largest("num_attention_heads", "n_head", "num_key_value_heads") * largest("head_dim"))
    feed_forward_width = largest("intermediate_size", "n_inner", "ffn_dim", "d_ff")
    experts_width = largest(*EXPERT_KEYS) * largest("moe_intermediate_size")
    layer_weights = width * (attention_width + feed_forward_width + experts_width)
    return largest(*LAYER_KEYS) * layer_weights + width * (largest("vocab_size") + largest("n_positions"))


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
