"""The files of a model folder that decide its replies: one list, which the loader is held to and the identity hashes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sftchat._util.parsing import keyed_texts, read_text
from sftchat.errors import ModelError, first_line

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors",)
PICKLED_ADAPTER_WEIGHTS = ("adapter_model.bin",)
SAFE = ".safetensors"
INDEX = ".index.json"

CONFIGS = (CONFIG, ADAPTER_CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
"""What transformers and peft read names of other files from."""
MORE_TEMPLATES = "additional_chat_templates"
"""The sub-folder in which transformers looks for chat templates beside the first one."""
NO_PART = (
    "sftchat.json", "report.json", "trainer_state.json", "*_results.json", "training_args.bin", "optimizer.bin", "scheduler.bin",
    "events.out.tfevents.*", "Modelfile", "LICENSE*", "*.pt", "*.pth", "*.md", "*.html", "*.jsonl", "*.log", "*.csv", "*.tsv", "*.png",
    "*.jpg", "*.svg", "*.pdf", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.lock", "*.partial",
)  # fmt: skip
"""Names of files beside weights that no loader opens: they may change while the model stays what it is. Every other file is taken for a part of it."""
ELSEWHERE = {"adapters": (None,), "shadow_model": (None, "mirror"), "prompt_tuning_init_state_dict_path": (None,)}
"""Keys of adapter_config.json by which peft loads further weights (X-LoRA, Shadow, multitask prompt tuning), and the values that load none."""
LONGEST_NAME = 4096
"""Characters of a path; a longer string in a config names no file."""


def files_of(folder: Path) -> tuple[str, ...]:
    """Every file of a model folder that may decide a reply, as sorted names relative to the folder.

    These are the files directly in the folder but for those of ``NO_PART`` and hidden ones; the weights, wherever in the folder the index
    names them; additional chat templates; and every file that a config names, which may lie elsewhere and is then named by its absolute path.

    Args:
        folder: A checkpoint or an adapter, as ``resolve`` finds it.

    Raises:
        ModelError: As of ``weights_of``.
        OSError: When the folder cannot be listed.
    """
    found = {path.name for path in folder.iterdir() if _has_part(path.name) and path.is_file()}
    found.update(f"{MORE_TEMPLATES}/{path.name}" for path in (folder / MORE_TEMPLATES).glob("*.jinja") if path.is_file())
    found.update(weights_of(folder, allow_pickle=True))
    found.update(_named(folder))
    return tuple(sorted(found))


def weights_of(folder: Path, *, allow_pickle: bool = False) -> tuple[str, ...]:
    """The files that the weights of a checkpoint or an adapter are read from, an index first, as names relative to the folder.

    Args:
        folder: A folder with config.json or adapter_config.json.
        allow_pickle: Whether weights that are not safetensors are acceptable.

    Raises:
        ModelError: When there are none, one is missing, pickled or outside the folder, or what names them cannot be read.
    """
    source, names = _checked(folder, allow_pickle)
    missing = [name for name in names if not (folder / name).is_file()]
    if not names:
        raise ModelError(_no_weights(folder))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(f"'{source}' names weights that are not there: {', '.join(missing[:3])}{more}")
    return names


def check_weights(folder: Path, *, allow_pickle: bool = False) -> None:
    """Refuse weights by the names that configs and an index give them, whether or not they are there yet.

    Args:
        folder: A folder with config.json or adapter_config.json.
        allow_pickle: Whether weights that are not safetensors are acceptable.

    Raises:
        ModelError: When one is pickled or outside the folder, or what names them cannot be read.
    """
    _checked(folder, allow_pickle)


def _checked(folder: Path, allow_pickle: bool) -> tuple[Path, tuple[str, ...]]:
    """What names the weights, and their names, none of which is refused."""
    _check_adapter(folder)
    source, names = _chosen(folder)
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"'{source}' names weights outside its folder: '{name}'; copy them into '{folder}' and name them there")
        if not allow_pickle and not name.endswith((SAFE, INDEX)):
            if name in PICKLED_WEIGHTS + PICKLED_ADAPTER_WEIGHTS and source.name == name:
                raise ModelError(_no_weights(folder))
            raise ModelError(
                f"'{source}' names pickled weights ('{name}'), which can run code; convert them to safetensors or add --allow-pickle"
            )
    return source, names


def _chosen(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """What names the weights that the libraries would load, and their names; no names when there are none."""
    if (folder / ADAPTER_CONFIG).is_file():
        first = _first(folder, ADAPTER_WEIGHTS + PICKLED_ADAPTER_WEIGHTS)
        return folder / first, (first,) if first else ()
    source, first = _configured(folder)
    if not first:
        first = _first(folder, WEIGHTS + PICKLED_WEIGHTS)
        source = folder / first
    if not first.endswith(INDEX):
        return source, (first,) if first else ()
    if not (folder / first).is_file() or Path(first).is_absolute():
        return source, (first,)  # which is then said to be missing or outside
    return folder / first, (Path(first).as_posix(), *_shards(folder / first))


def _configured(folder: Path) -> tuple[Path, str]:
    """The weights that config.json names instead of the usual ones, and the config that does; an empty name when it names none.

    transformers reads another config in its place where ``configuration_files`` has one for its version.
    """
    config = _object(folder / CONFIG)
    others = [folder / name for name in _texts(config.get("configuration_files")) if len(name) <= LONGEST_NAME]
    named = {folder / CONFIG: config.get("transformers_weights")}
    named |= {path: _object(path).get("transformers_weights") for path in others if path.is_file()}
    for path, name in named.items():
        if name is not None and not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME):
            raise ModelError(f"'{path}' has transformers_weights {name!r:.40}, must be the name of a file")
    if len(set(named.values())) > 1:
        raise ModelError(f"'{folder / CONFIG}' and the configs in its configuration_files name different weights; leave one of them")
    return folder / CONFIG, named[folder / CONFIG] or ""


def _shards(index: Path) -> tuple[str, ...]:
    """The weight files that an index names, sorted.

    Raises:
        ModelError: When it names none, or is no index.
    """
    content = _object(index)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"'{index}' names no weights: it must have a weight_map from tensors to files")
    if not isinstance(content.get("metadata"), dict):
        raise ModelError(f"'{index}' has no metadata, which transformers asks for; add \"metadata\": {{}}")
    wrong = next((name for name in names.values() if not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME)), None)
    if wrong is not None or None in names.values():
        raise ModelError(f"'{index}' names {wrong!r:.40} as weights, must be the name of a file")
    return tuple(sorted({Path(name).as_posix() for name in names.values()}))


def _check_adapter(folder: Path) -> None:
    """Refuse an adapter that would load other models than its base.

    Raises:
        ModelError: Naming the key.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        config = _object(folder / ADAPTER_CONFIG)
        for key, harmless in ELSEWHERE.items():
            if config.get(key) not in harmless:
                raise ModelError(
                    f"'{folder / ADAPTER_CONFIG}' names further weights by '{key}'; only adapters of their base alone are loaded"
                )


def _named(folder: Path) -> Iterator[str]:
    """Every file that a config of the folder names: relative to the folder, or as it stands, which is then made absolute."""
    configs = [folder / name for name in CONFIGS]
    configs += [folder / name for name in _texts(_object(folder / CONFIG).get("configuration_files")) if len(name) <= LONGEST_NAME]
    for text in {text for path in configs for text in _texts(_object(path)) if 0 < len(text) <= LONGEST_NAME and "\0" not in text}:
        path = Path(text)
        if not path.is_absolute() and _is_file(folder / path):
            yield ((folder / path).absolute() if ".." in path.parts else path).as_posix()
        if _is_file(path):
            yield path.absolute().as_posix()


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys of objects aside."""
    return (text for _, text in keyed_texts(value))


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, read as leniently as the libraries do; empty when there is no such file.

    Raises:
        ModelError: When it is no JSON object.
    """
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
    """The first of some files that is there; empty when none is."""
    return next((name for name in names if (folder / name).is_file()), "")


def _has_part(name: str) -> bool:
    """Whether a file directly in the folder may decide a reply; a hidden one only as a vocabulary, which transformers looks for by suffix."""
    return not any(fnmatch(name, pattern) for pattern in NO_PART) and (name[0] != "." or name.endswith(".model"))


def _is_file(path: Path) -> bool:
    """Whether a file is there; not where the system takes no such name, which Python before 3.14 raises."""
    try:
        return path.is_file()
    except OSError:
        return False


def _no_weights(folder: Path) -> str:
    """What is missing, and that pickled weights can be allowed when that is all there is."""
    adapter = (folder / ADAPTER_CONFIG).is_file()
    what, wanted, pickled = ("adapter", ADAPTER_WEIGHTS, PICKLED_ADAPTER_WEIGHTS) if adapter else ("checkpoint", WEIGHTS, PICKLED_WEIGHTS)
    if _first(folder, pickled):
        return f"{what} '{folder}' has only pickled weights, which can run code; convert them to safetensors or add --allow-pickle"
    return f"{what} '{folder}' has no weights; expected {' or '.join(wanted)}"
