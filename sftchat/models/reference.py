"""What MODEL may be: resolves it from names and files only, without network access."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from sftchat._util.parsing import expand_user, load_json, read_text
from sftchat.errors import ModelError, UsageError, unknown_name_message
from sftchat.models.fetch import FETCHABLE, SCHEME
from sftchat.models.hubs import HUBS, HUGGING_FACE, MODELSCOPE
from sftchat.models.manifest import checkpoint_step, checkpoints_of, read_manifest
from sftchat.models.model_files import ADAPTER_CONFIG, CONFIG, check_sizes, weights_of
from sftchat.models.modelscope import require_modelscope

NANO = "sftchat:nano"
"""The embedded model."""

SERVER_SCHEMES = ("http", "https")
"""Schemes of OpenAI-compatible servers."""
GGUF = "gguf"
"""``ModelReference.scheme`` of a GGUF file, and the suffix of its name."""
HUB_FILE = re.compile(r"(?P<hub>hf|ms)://(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>[\w./-]+\.gguf)")
"""A GGUF file on a hub: ``hf://org/name[@revision]/FILE.gguf``, or with ``ms://``."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
MODELSCOPE_PREFIX = f"{MODELSCOPE}://"
"""Beginning of the ``source`` of a model on ModelScope, before ``org/name``."""
REVISION = re.compile(r"[\w./-]+")


@dataclass(frozen=True)
class ModelReference:
    """Location of a model.

    Attributes:
        text: The MODEL argument.
        source: A folder, a GGUF file, a Hub id, ``ms://org/name``, the address of a server, or the text for a plugin's engine type.
        revision: Branch, tag or commit on the hub; empty for the default.
        base: The base model if ``source`` is an adapter.
        scheme: Scheme of a server's address, ``GGUF`` for a GGUF file, or name of a plugin's engine type; empty for a folder, a Hub id
            or a model on ModelScope.
    """

    text: str
    source: str
    revision: str = ""
    base: ModelReference | None = None
    scheme: str = ""

    @property
    def served(self) -> bool:
        """Whether the model is on a server."""
        return self.scheme in SERVER_SCHEMES

    @property
    def is_gguf(self) -> bool:
        """Whether the model is a GGUF file, local or on the Hub."""
        return self.scheme == GGUF

    @property
    def hub(self) -> str:
        """Scheme of the hub, a key of ``HUBS``, for a model that is in no folder."""
        return MODELSCOPE if self.source.startswith(MODELSCOPE_PREFIX) else HUGGING_FACE

    @property
    def hub_id(self) -> str:
        """``org/name`` of a model on a hub."""
        return self.source.removeprefix(MODELSCOPE_PREFIX)

    @property
    def cached_folder(self) -> Path | None:
        """The local folder, or that in the cache of the model's hub, without network access; None if there is none."""
        return self.folder or HUBS[self.hub].cached_folder(self.hub_id, self.revision)

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a model on a hub, on a server or of a plugin's engine type."""
        path = Path(self.source)
        return path if not self.scheme and _false_if_invalid(path.is_dir) else None

    @property
    def argument(self) -> str:
        """A MODEL argument that opens this model again; for a Hub id that was resolved to a folder of the cache, that folder."""
        return self.source if self.folder is not None and HUB_ID.fullmatch(self.text) else self.text


def refuse_gguf(reference: ModelReference, what: str) -> None:
    """Refuse a GGUF file where the weights of a checkpoint folder are needed.

    Args:
        reference: Any model.
        what: What needs them, as the subject of a sentence.

    Raises:
        UsageError: When it is a GGUF file.
    """
    if reference.is_gguf:
        raise UsageError(f"model '{reference.text}' is a GGUF file, whose weights are rounded; {what} needs a checkpoint folder")


def embedded_folder() -> Path:
    """Return the folder of ``sftchat:nano`` in the package."""
    return Path(__file__).parent / "nano"


def resolve(text: str, *, base: str | None = None, schemes: Iterable[str] = (), allow_pickle: bool = False) -> ModelReference:
    """Resolve a MODEL argument.

    Args:
        text: ``sftchat:nano``, ``sftchat:NAME`` of a fetched model, a Hub id ``org/name[@revision]``, a checkpoint, adapter or run folder, a GGUF
            file or a folder with one, ``hf://org/name/FILE.gguf``, ``ms://org/name[@revision]``, ``ms://org/name/FILE.gguf``, ``http://HOST:PORT/v1#MODEL``, or ``scheme:rest`` of a registered engine.
        base: Base model of an adapter, instead of the one in its config.
        schemes: Schemes of the registered engine types.
        allow_pickle: Whether pickled weights are allowed.

    Raises:
        UsageError: When the text is not a valid reference.
        ModelError: When the folder has no usable weights.
    """
    if text == NANO:
        return ModelReference(text, str(embedded_folder()))
    if text.startswith(f"{SCHEME}:"):
        return _resolve_fetched(text)
    if HUB_FILE.fullmatch(text):
        if text.startswith(MODELSCOPE_PREFIX):
            require_modelscope(f"model '{text}'")
        return ModelReference(text, text, scheme=GGUF)
    if text.startswith(MODELSCOPE_PREFIX):
        name, _, revision = text.removeprefix(MODELSCOPE_PREFIX).partition("@")
        if not HUB_ID.fullmatch(text.removeprefix(MODELSCOPE_PREFIX)):
            raise UsageError(
                f"model '{text}' is malformed; write {MODELSCOPE_PREFIX}org/name[@revision], or {MODELSCOPE_PREFIX}org/name/FILE.gguf"
            )
        require_modelscope(f"model '{text}'")
        return ModelReference(text, MODELSCOPE_PREFIX + name, revision)
    if text.lower().startswith(tuple(f"{scheme}://" for scheme in SERVER_SCHEMES)):
        return _resolve_server(text)
    path = expand_user(text)
    if _false_if_invalid(path.is_dir):
        return _resolve_folder(text, path, base, schemes, allow_pickle)
    if _false_if_invalid(path.is_file):
        if path.suffix.lower() == f".{GGUF}":
            return ModelReference(text, str(path), scheme=GGUF)
        raise UsageError(f"model '{text}' is a file; give the folder that holds it, or a GGUF file")
    scheme, colon, rest = text.partition(":")
    if colon:
        if scheme in set(schemes):
            return ModelReference(text, rest, scheme=scheme)
        raise UsageError(unknown_name_message("model", text, [NANO, *(f"{name}:…" for name in schemes)]))
    if HUB_ID.fullmatch(text):
        name, _, revision = text.partition("@")
        if path.parent != Path() and _false_if_invalid(path.parent.is_dir):  # more likely a mistyped folder, because its parent exists
            raise UsageError(f"no folder '{text}'{_suggest_folder(path)}")
        return ModelReference(text, name, revision)
    raise UsageError(
        f"no folder '{text}'{_suggest_folder(path)}; the embedded model is {NANO}, a Hub model is written org/name, a server http://HOST:PORT/v1#MODEL"
    )


def _resolve_fetched(text: str) -> ModelReference:
    """Resolve ``sftchat:NAME`` of a model that ``sftchat fetch`` brings."""
    models = {model.argument: model for model in FETCHABLE}
    if text not in models:
        raise UsageError(unknown_name_message("model", text, [NANO, *models]))
    if not models[text].is_here:
        raise UsageError(f"model '{text}' has not been fetched yet; type: sftchat fetch {models[text].name}")
    return ModelReference(text, str(models[text].folder))


def _resolve_server(text: str) -> ModelReference:
    """Resolve a server's address; error messages do not repeat an address that may contain a key."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError:
        raise UsageError("the address of the model is malformed; write http://HOST:PORT/v1#MODEL") from None
    if "@" in parts.netloc or parts.query:
        raise UsageError(
            "the address of a model has no place for keys; put the key into the environment as SFTCHAT_API_KEY or OPENAI_API_KEY"
        )
    if not parts.hostname:
        raise UsageError(f"model '{text}' names no host; write http://HOST:PORT/v1#MODEL")
    return ModelReference(text, text, scheme=parts.scheme)


def _resolve_folder(
    text: str, path: Path, base: str | None, schemes: Iterable[str], allow_pickle: bool, adapter: Path | None = None
) -> ModelReference:
    """Resolve a checkpoint, an adapter, or a run that contains them; ``adapter`` is given when the folder is the base of this adapter."""
    check_sizes(path)
    if (path / ADAPTER_CONFIG).is_file():
        if adapter is not None:
            raise ModelError(_stacked_adapters_message(adapter, path))
        weights_of(path, allow_pickle=allow_pickle)
        return ModelReference(text, str(path), base=_resolve_base(path, base, schemes, allow_pickle))
    if (path / CONFIG).is_file():
        weights_of(path, allow_pickle=allow_pickle)
        return ModelReference(text, str(path))
    checkpoint = _checkpoint_of_run(path)
    if checkpoint is None:
        gguf_files = sorted(path.glob(f"*.{GGUF}"))
        if len(gguf_files) == 1:
            return ModelReference(text, str(gguf_files[0]), scheme=GGUF)
        if gguf_files:
            raise UsageError(f"folder '{path}' has {len(gguf_files)} GGUF files; give one of them, such as {gguf_files[0]}")
        raise ModelError(
            f"folder '{path}' is no model: it has neither config.json nor adapter_config.json nor checkpoint-* folders nor a GGUF file"
        )
    return _resolve_folder(text, checkpoint, base, schemes, allow_pickle, adapter)


def _resolve_base(adapter: Path, requested: str | None, schemes: Iterable[str], allow_pickle: bool) -> ModelReference:
    """Return the base model of an adapter: the requested one, else the one in its manifest or config, which must be local.

    Raises:
        UsageError: When the requested base is not a valid reference, or needs an engine.
        ModelError: When the base is itself an adapter, or the one in the config is not local.
    """
    name = requested or _read_base_name(adapter)
    folder = expand_user(name)
    if name != NANO and _false_if_invalid(folder.is_dir):
        return _resolve_folder(name, folder, None, schemes, allow_pickle, adapter)
    try:
        reference = resolve(name, schemes=schemes, allow_pickle=allow_pickle)
    except UsageError as error:
        if requested:
            raise
        manifest = read_manifest(adapter)
        remedy = "give it with --base MODEL"
        if manifest is not None and (file := manifest.base_file.get("file")):
            remedy = f"make it again from its GGUF file: sftchat train {manifest.task} --model {file} -o DIR --dry-run"
        raise ModelError(f"adapter '{adapter}' needs its base '{name}', which is not on this machine; {remedy}") from error
    refuse_gguf(reference, f"the base of adapter '{adapter}'")
    if reference.scheme:
        raise UsageError(
            f"adapter '{adapter}' needs the weights of its base, and '{name}' is behind an engine; let that engine load the adapter"
        )
    if requested or reference.folder is not None:
        return reference
    cached = reference.cached_folder
    title = HUBS[reference.hub].title
    if cached is None:
        raise ModelError(
            f"adapter '{adapter}' needs its base '{name}', which is not on this machine; give a folder with --base FOLDER, "
            f"or fetch it from {title} with --base {name}"
        )
    try:
        return _resolve_folder(name, cached, None, schemes, allow_pickle, adapter)
    except ModelError as error:
        raise ModelError(
            f"base '{name}' of adapter '{adapter}' cannot be used as it lies in the cache of {title}: {error}; fetch it again with --base {name}"
        ) from error


def _stacked_adapters_message(adapter: Path, base: Path) -> str:
    """Return an error message for an adapter whose base is an adapter, possibly itself."""
    if _false_if_invalid(lambda: adapter.samefile(base)):
        return f"adapter '{adapter}' names itself as its base; give its base with --base MODEL"
    return f"adapter '{adapter}' has an adapter as its base, '{base}'; merge that one first (sftchat merge {base} -o FOLDER) and give --base FOLDER"


def step_of(text: str) -> int | None:
    """Return the optimizer step of a MODEL argument: from ``checkpoint-N``, or from the manifest of a finished run; None for others."""
    path = expand_user(text)
    if (step := checkpoint_step(path)) is not None:
        return step
    manifest = read_manifest(path) if path.is_dir() else None
    if manifest is None:
        return None
    return manifest.chosen_step or manifest.steps or None


def expand_patterns(texts: Iterable[str]) -> tuple[str, ...]:
    """Expand patterns such as ``RUN/checkpoint-*``, which some shells do not expand, to the existing folders in order of steps.

    Args:
        texts: MODEL arguments; those without a pattern are returned unchanged.

    Raises:
        UsageError: When a pattern matches nothing.
    """
    models: list[str] = []
    for text in texts:
        folder, slash, name = text.rpartition("/")
        is_pattern = slash and any(character in name for character in "*?[")
        has_scheme = ":" in text.partition("/")[0]
        if not is_pattern or has_scheme:
            models.append(text)
            continue
        matches = [path for path in expand_user(folder or "/").glob(name) if path.is_dir()]
        if not matches:
            raise UsageError(f"no folder matches '{text}'; checkpoints of a run are written RUN/checkpoint-*")
        models += [str(path) for path in sorted(matches, key=lambda path: (step_of(str(path)) or 0, path.name))]
    return tuple(models)


def group_by_base(references: Sequence[ModelReference]) -> list[list[int]]:
    """Return the indices of the references, one group for each base model; a model without a base is its own base."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, reference in enumerate(references):
        base = reference.base or reference
        groups.setdefault((base.scheme, base.source, base.revision), []).append(index)
    return list(groups.values())


def _checkpoint_of_run(run: Path) -> Path | None:
    """Return the best checkpoint of an unfinished run according to its manifest, else the last."""
    manifest, checkpoints = read_manifest(run), checkpoints_of(run)
    for path in checkpoints:
        if manifest is not None and path.name == manifest.best_checkpoint:
            return path
    return checkpoints[-1] if checkpoints else None


def _read_base_name(adapter: Path) -> str:
    """Return the base model named by an adapter: a Hub id with its revision, or a path, resolved against the adapter's folder if it exists only there."""
    try:
        config = load_json(read_text(adapter / ADAPTER_CONFIG))
        name, revision = config.get("base_model_name_or_path"), config.get("revision")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{adapter / ADAPTER_CONFIG} is not a JSON object: {error}") from error
    manifest = read_manifest(adapter)
    if manifest is not None and manifest.base:
        name, revision = manifest.base, None
    if not isinstance(name, str) or not name:
        raise ModelError(f"adapter '{adapter}' does not name its base model; give it with --base MODEL")
    relative_to_adapter = adapter / name
    if _false_if_invalid(relative_to_adapter.is_dir) and not _false_if_invalid(Path(name).is_dir):
        return str(relative_to_adapter)
    has_revision = isinstance(revision, str) and REVISION.fullmatch(revision) and HUB_ID.fullmatch(name) and "@" not in name
    return f"{name}@{revision}" if has_revision else name


def _false_if_invalid(predicate: Callable[[], bool]) -> bool:
    """Call a test of a path, such as ``path.is_dir``; False for an invalid path, for which Python before 3.14 raises an exception."""
    try:
        return predicate()
    except OSError:
        return False


def _suggest_folder(path: Path) -> str:
    """Return the end of an error message that suggests a folder with a similar name; empty if there is none."""
    parent = path.parent
    if not _false_if_invalid(parent.is_dir):
        return ""
    similar_names = get_close_matches(path.name, [sibling.name for sibling in parent.iterdir() if sibling.is_dir()], n=1)
    return f"; did you mean '{parent / similar_names[0]}'?" if similar_names else ""


def context_length(reference: ModelReference) -> int | None:
    """Return the maximum number of tokens, prompt and reply together; None if no local config specifies it.

    Args:
        reference: A model; for an adapter, its base model is used.
    """
    if reference.base is not None:
        return context_length(reference.base)
    if reference.folder is None:
        return None
    try:
        config = load_json(read_text(reference.folder / CONFIG))
    except (OSError, ValueError):  # loading the model reports the problem
        return None
    parts = [config, config.get("text_config")] if isinstance(config, dict) else []
    lengths = [part.get(key) for part in parts if isinstance(part, dict) for key in ("max_position_embeddings", "n_positions")]
    return next((length for length in lengths if type(length) is int and length > 0), None)
