"""Model folders of every layout, each with unrelated files, and observations of what is read when one is opened.

Run as a program, it opens each layout unchanged, without the files that the identity leaves out, and with these files damaged, and prints its observations as
JSON. Audit hooks cannot be removed, so they need a separate process.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftchat.engine import Request
from sftchat.errors import SftchatError
from sftchat.inference.identity import identify
from sftchat.models.model_files import files_of
from sftchat.models.reference import ModelReference, resolve
from sftchat.types import SamplingParams
from tests.conftest import make_checkpoint
from tests.inference.adapters_kit import make_adapter

MANIFEST = {
    "task": "t", "base": "", "base_identity": "", "method": "full", "config": {}, "data": [], "rows": 1, "tokens_hash": "", "template": "",
    "template_hash": "",
}  # fmt: skip
OTHER_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Layout:
    """A model folder and how it is opened.

    Attributes:
        model: The MODEL argument.
        options: As of ``load_engine``.
        cache: The Hub's cache on this machine, where the layout brings one.
    """

    model: Path
    options: dict[str, Any] = field(default_factory=dict)
    cache: Path | None = None

    @contextmanager
    def there(self) -> Iterator[None]:
        """Use the layout's cache as that of this machine."""
        from huggingface_hub import constants

        before = constants.HF_HUB_CACHE
        constants.HF_HUB_CACHE = str(self.cache or before)
        try:
            yield
        finally:
            constants.HF_HUB_CACHE = before


Build = Callable[[Path, "Parts"], Layout]


@dataclass(frozen=True)
class Parts:
    """Checkpoints that layouts are built from, written once.

    Attributes:
        one: A checkpoint with its weights in one file.
        other: A checkpoint with other weights.
    """

    one: Path
    other: Path


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def changed(path: Path, **values: Any) -> None:
    """Add keys to a JSON file."""
    write(path, json.loads(path.read_text(encoding="utf-8")) | values)


def single(folder: Path, parts: Parts) -> Layout:
    return Layout(Path(shutil.copytree(parts.one, folder)))


def sharded(folder: Path, parts: Parts, name: str = "model-{}.safetensors", pickled: bool = False) -> Layout:
    """Weights in two files that an index names."""
    import torch
    from safetensors.torch import load_file, save_file

    single(folder, parts)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {key: name.format(place > len(names) // 2) for place, key in enumerate(names)}
    for shard in set(places.values()):
        (folder / shard).parent.mkdir(parents=True, exist_ok=True)
        held = {key: tensors[key].clone() for key in names if places[key] == shard}
        if pickled:
            torch.save(held, folder / shard)
        else:
            save_file(held, folder / shard, metadata={"format": "pt"})
    write(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return Layout(folder, {"allow_pickle": True} if pickled else {})


def outside(folder: Path, parts: Parts) -> Layout:
    return sharded(folder, parts, "../outside/model-{}.safetensors")


def named_by_config(folder: Path, parts: Parts) -> Layout:
    single(folder, parts)
    (folder / "sub").mkdir()
    (folder / "model.safetensors").rename(folder / "sub" / "w.safetensors")
    shutil.copy(parts.other / "model.safetensors", folder / "unused-model.safetensors")
    changed(folder / "config.json", transformers_weights="sub/w.safetensors")
    return Layout(folder)


def pickled(folder: Path, parts: Parts) -> Layout:
    import torch
    from safetensors.torch import load_file

    single(folder, parts)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return Layout(folder, {"allow_pickle": True})


def adapter(folder: Path, parts: Parts) -> Layout:
    base = single(folder / "base", parts).model
    made = make_adapter(folder / "adapter", base, 1)
    for path in [*made.glob("tokenizer*"), *made.glob("chat_template*")]:
        path.unlink()
    return Layout(made)


def adapter_with_tokenizer(folder: Path, parts: Parts) -> Layout:
    made = make_adapter(folder / "adapter", single(folder / "base", parts).model, 1)
    write(made / "chat_template.jinja", OTHER_TEMPLATE)
    return Layout(made)


def adapter_of_an_adapter(folder: Path, parts: Parts) -> Layout:
    inner = adapter(folder, parts).model
    outer = Path(shutil.copytree(inner, folder / "outer"))
    changed(outer / "adapter_config.json", base_model_name_or_path=str(inner))
    return Layout(outer)


def adapter_on_a_cached_base(folder: Path, parts: Parts) -> Layout:
    """The base is a Hub id, of which the local cache has a snapshot: a folder of links."""
    made = adapter(folder, parts).model
    home = folder / "hub" / "models--org--base"
    shutil.move(folder / "base", home / "blobs")
    linked(home / "blobs", home / "snapshots" / COMMIT)
    write(home / "refs" / "main", COMMIT)
    changed(made / "adapter_config.json", base_model_name_or_path="org/base")
    return Layout(made, cache=folder / "hub")


def linked(blobs: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def snapshot(folder: Path, parts: Parts) -> Layout:
    return Layout(linked(sharded(folder / "blobs", parts).model, folder / "snapshot"))


def own_template_file(folder: Path, parts: Parts) -> Layout:
    single(folder / "model", parts)
    return Layout(folder / "model", {"template": str(write(folder / "mine.jinja", OTHER_TEMPLATE))})


def several_templates(folder: Path, parts: Parts) -> Layout:
    single(folder, parts)
    write(folder / "chat_template.jinja", "{{ raise_exception('not this one') }}")
    write(folder / "additional_chat_templates" / "default.jinja", OTHER_TEMPLATE)
    write(folder / "additional_chat_templates" / "tool_use.jinja", "{{ tools }}")
    write(folder / "additional_chat_templates" / "notes.txt", "no template")
    return Layout(folder)


def processor(folder: Path, parts: Parts) -> Layout:
    single(folder, parts)
    write(folder / "processor_config.json", {"processor_class": "LlavaProcessor"})
    write(folder / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"})
    write(folder / "chat_template.json", {"chat_template": OTHER_TEMPLATE})
    return Layout(folder)


def generation_config(folder: Path, parts: Parts) -> Layout:
    single(folder, parts)
    write(folder / "generation_config.json", {"eos_token_id": [0, 5, 7]})
    return Layout(folder)


def versioned_tokenizer(folder: Path, parts: Parts) -> Layout:
    single(folder, parts)
    (folder / ".in").mkdir()
    (folder / "tokenizer.json").rename(folder / ".in" / "tokenizer.4.0.0.json")
    changed(folder / "tokenizer_config.json", fast_tokenizer_files=[".in/tokenizer.4.0.0.json"])
    return Layout(folder)


def run(folder: Path, parts: Parts) -> Layout:
    for step, source in ((1, parts.one), (2, parts.other)):
        shutil.copytree(source, folder / f"checkpoint-{step}")
        write(folder / f"checkpoint-{step}" / "trainer_state.json", {"step": step})
    write(folder / "sftchat.json", MANIFEST | {"best_checkpoint": "checkpoint-1"})
    return Layout(folder)


def checkpoint(folder: Path, parts: Parts) -> Layout:
    return Layout(run(folder, parts).model / "checkpoint-2")


def merged(folder: Path, parts: Parts) -> Layout:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = adapter(folder, parts).model
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    shutil.copytree(parts.one, folder / "merged", ignore=shutil.ignore_patterns("*.safetensors"))
    PeftModel.from_pretrained(base, made).merge_and_unload().save_pretrained(folder / "merged")
    write(folder / "merged" / "sftchat.json", MANIFEST | {"merged": {"adapter": str(made)}})
    return Layout(folder / "merged")


def names_of_the_hub(folder: Path, parts: Parts) -> Layout:
    """Files of a folder that name something on the Hub, in every possible place."""
    single(folder, parts)
    changed(folder / "config.json", _name_or_path="org/model", base_model="org/model", auto_map={"AutoModel": "org/model--modeling.M"})
    named = {
        "name_or_path": "org/model",
        "tokenizer_file": "org/model/tokenizer.json",
        "processor_class": "org/model",
        "gguf_file": "org/m.gguf",
    }
    changed(folder / "tokenizer_config.json", **named, vocab_file="org/model/vocab.json", chat_template_file="org/model")
    write(folder / "generation_config.json", {"eos_token_id": 0, "custom_generate": "org/generate", "assistant": "org/assistant"})
    return Layout(folder)


LAYOUTS: dict[str, Build] = {
    "a single file": single,
    "shards": sharded,
    "shards in a sub-folder": lambda folder, parts: sharded(folder, parts, "sub/model-{}.safetensors"),
    "hidden shards": lambda folder, parts: sharded(folder, parts, ".model-{}.safetensors"),
    "pickled shards behind the index of safetensors": lambda folder, parts: sharded(folder, parts, "model-{}.bin", pickled=True),
    "pickled weights": pickled,
    "weights that the config names": named_by_config,
    "weights outside": outside,
    "an adapter": adapter,
    "an adapter with its own tokenizer": adapter_with_tokenizer,
    "an adapter on a cached base": adapter_on_a_cached_base,
    "an adapter of an adapter": adapter_of_an_adapter,
    "links": snapshot,
    "a template file of the user": own_template_file,
    "several templates": several_templates,
    "processor files": processor,
    "a generation config": generation_config,
    "a tokenizer of another version": versioned_tokenizer,
    "a run": run,
    "a checkpoint of a run": checkpoint,
    "a merged model": merged,
    "names of the Hub": names_of_the_hub,
}
REFUSED = {"weights outside", "an adapter of an adapter"}


def decoys(folder: Path, parts: Parts) -> None:
    """Add files to a model folder that are not part of the model."""
    for name in ("README.md", ".hidden.json", "trainer_state.json", "optimizer.pt", "events.out.tfevents.1", "notes/config.json"):
        write(folder / name, "{}")
    for name in ("logs/model.safetensors", ".stray.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(parts.other / "model.safetensors", folder / name)


def build(name: str, root: Path, parts: Parts) -> Layout:
    """Write a layout with unrelated files into a new folder."""
    layout = LAYOUTS[name](root / "m", parts)
    decoys(layout.model, parts)
    return layout


def references(layout: Layout) -> list[ModelReference]:
    """The model and its base."""
    with layout.there():
        found = resolve(str(layout.model), allow_pickle=bool(layout.options.get("allow_pickle")))
    return [found, *([found.base] if found.base is not None else [])]


def listed(layout: Layout) -> set[Path]:
    """Return the files that the identity covers, including the user's template and the files that select a folder (manifests, branches)."""
    folders = [Path(reference.source) for reference in references(layout)]
    found = {folder / name for folder in folders for name in files_of(folder)}
    found |= {place / "sftchat.json" for place in (layout.model, *folders) if (place / "sftchat.json").is_file()}
    found |= set(layout.cache.glob("*/refs/main")) if layout.cache else set()
    return found | ({Path(layout.options["template"])} if "template" in layout.options else set())


def opened(layout: Layout) -> list[object]:
    """Return the prompt, logits, stop tokens and first token of an opened layout, or the error."""
    import torch

    from sftchat.inference.open import load_engine

    try:
        with layout.there():
            engine = load_engine(str(layout.model), {}, dtype="float32", device="cpu", **layout.options)
    except SftchatError as error:
        return ["refused", str(error).replace(str(layout.model), "")]
    with closing(engine):
        request = Request("r", ({"role": "user", "content": "why?"},), sampling=SamplingParams(max_new_tokens=1))
        chunks = [(chunk.text, *chunk.token_ids, chunk.finish_reason) for chunk in engine.generate([request])]
        loaded = engine.loaded  # type: ignore[attr-defined]
        ids = loaded.renderer.prompt_ids(request.messages)
        with torch.inference_mode():
            logits = loaded.model(input_ids=torch.tensor([ids])).logits
        return [ids, hashlib.sha256(logits.numpy().tobytes()).hexdigest(), list(loaded.stop_ids), chunks]


def identity(layout: Layout) -> str:
    with layout.there():
        return identify(str(layout.model), {}, **layout.options)


def observe(name: str, folder: Path, parts: Parts, watched: set[str] | None = None) -> dict[str, Any]:
    """Open a layout unchanged, without the files that the identity leaves out, and with these damaged.

    Args:
        name: Of ``LAYOUTS``.
        folder: Where to build.
        parts: Its checkpoints.
        watched: Set to which an audit hook adds opened files.

    Returns:
        ``whole``, ``bare`` and ``spoilt``: as of ``opened``. ``unlisted``: files that were opened and are not in the identity's list.
        ``unnoticed``: files of the list whose bytes do not change the identity.
    """
    layout = build(name, folder / "whole", parts)
    if watched is not None:
        watched.clear()
    found: dict[str, Any] = {"whole": opened(layout)}
    if found["whole"][0] == "refused":
        return found
    known, root = listed(layout), folder / "whole"
    seen = {Path(path) for path in watched or () if Path(path).is_file()}
    found["opened"] = sorted(str(path.relative_to(root)) for path in seen if path.is_relative_to(root))
    real = {path.resolve() for path in known}
    found["unlisted"] = sorted(str(path) for path in seen if path.is_relative_to(root) and path.resolve() not in real)
    for how, spoil in {"bare": Path.unlink, "spoilt": lambda path: path.write_bytes(b"\0spoilt")}.items():
        other = build(name, folder / how, parts)
        kept = {path.resolve() for path in listed(other)}
        for path in [path for path in (folder / how).rglob("*") if path.is_file() and path.resolve() not in kept]:
            spoil(path)
        found[how] = opened(other)
    before, found["unnoticed"] = identity(layout), []
    for path in sorted(known):
        if path.name not in ("sftchat.json", "main"):
            content = path.read_bytes()
            path.write_bytes(content + b" ")
            if identity(layout) == before:
                found["unnoticed"].append(str(path))
            path.write_bytes(content)
    found["same again"] = identity(layout) == before
    return found


def parts(folder: Path) -> Parts:
    one = make_checkpoint(folder / "one")
    return Parts(one, make_checkpoint(folder / "other", 1))


def main(folder: Path) -> None:
    """Observe every layout, with a hook that notes files and refuses connections."""
    from huggingface_hub import HfApi

    made = parts(folder / "parts")
    observe("an adapter", folder / "first", made)  # late imports
    files: set[str] = set()
    asked: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode("utf-8", "surrogateescape")
            files.add(str(Path(path).absolute()))
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            asked.append(f"{event} {arguments!r}")
            raise ConnectionError("no network here")

    sys.addaudithook(hook)
    found: dict[str, Any] = {}
    for place, name in enumerate(LAYOUTS):
        asked.clear()
        found[name] = observe(name, folder / str(place), made, files) | {"asked": list(asked)}
    asked.clear()
    with suppress(Exception):
        HfApi().model_info("org/name")  # a connection attempt
    sys.stdout.write(json.dumps({"seen": found, "attempt": asked}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
