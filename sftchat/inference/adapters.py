"""The adapters of one base: which row is answered with which, their sums, and what belongs to each beside its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sftchat._util.fallback import report_fallback
from sftchat.engine import OFF
from sftchat.errors import ModelError, UsageError, first_line, in_one_line, unknown
from sftchat.models.adapters import BASE, add_adapter
from sftchat.models.fingerprint import identity
from sftchat.models.hub import cached_folder
from sftchat.models.loading import LOADING, Loaded, load_renderer, stop_ids, unwrapped
from sftchat.models.reference import ModelReference
from sftchat.templates.renderer import Renderer

DEFAULT_ADAPTER = "default"
"""What peft calls the adapter that a model was loaded with."""


@dataclass(frozen=True)
class AdapterProfile:
    """What answers a request beside the base's weights.

    Attributes:
        key: What peft calls the adapter; empty for a model without any.
        renderer: Tokenizer and template of the adapter, as it has them when it is loaded alone.
        stop_ids: Tokens that end its replies.
    """

    key: str
    renderer: Renderer
    stop_ids: tuple[int, ...]


class Adapters:
    """The adapters that a model has.

    Args:
        name: What the user called the model; the name of its adapter, if it was loaded with one.
        loaded: The model as it was loaded.
    """

    def __init__(self, name: str, loaded: Loaded) -> None:
        self.model = loaded.model
        self._loaded = loaded
        self._name = name
        adapted = self.model is not unwrapped(self.model)
        self._own = AdapterProfile(DEFAULT_ADAPTER if adapted else "", loaded.renderer, loaded.stop_ids)
        self._voices: dict[str, AdapterProfile] = {name: self._own} if adapted else {}
        self._base: AdapterProfile | None = None if adapted else self._own
        self._routed: tuple[str, ...] | None = None
        self._mixed: list[str] | None = None
        self._watched: set[int] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may ask for by name."""
        return tuple(self._voices)

    @property
    def mixes(self) -> bool:
        """Whether rows of different adapters can run together: peft can do it with plain low-rank adapters."""
        if self.model is unwrapped(self.model):
            return True
        plain = all(str(config.peft_type.value) == "LORA" and not config.use_dora for config in self.model.peft_config.values())
        return plain and bool(adapted_layers())

    def voice(self, adapter: str) -> AdapterProfile:
        """What a request asks for.

        Args:
            adapter: As of ``Request.adapter``.

        Raises:
            UsageError: When it is unknown or cannot be made.
        """
        if not adapter:
            return self._own
        if adapter == OFF:
            if self._base is None:
                self._base = self._bare()
            return self._base
        if adapter not in self._voices:
            raise UsageError(unknown("adapter", adapter, (*self.names, OFF)))
        return self._voices[adapter]

    def add(self, name: str, reference: ModelReference) -> None:
        """Load another adapter of the same base.

        Args:
            name: What requests are to call it.
            reference: Where it is.

        Raises:
            UsageError: When the name is taken.
            ModelError: When it is no adapter, its base is another, or it cannot be loaded.
        """
        self._check_free(name)
        if reference.base is None:
            raise ModelError(f"'{reference.text}' is no adapter; the folder of one has adapter_config.json")
        mine = self._loaded.reference
        base = mine.base or mine if mine is not None else None
        if base is None or not same_weights(base, reference.base):
            raise ModelError(
                f"adapter '{reference.text}' was made for base '{reference.base.text}'; the base here is '{base.text if base else self._name}'"
            )
        renderer, _ = load_renderer(reference, **self._loaded.options)
        key = f"a{len(self._voices)}"
        self._routed = None
        with LOADING:
            self.model, _ = add_adapter(self.model, reference.source, key, reference.text)
        self._voices[name] = AdapterProfile(key, renderer, stop_ids(self.model, renderer))
        if self._base is not None:  # the base was loaded without adapters: it is that base still
            self._own = replace(self._own, key=self._own.key or BASE)
            self._base = replace(self._base, key=BASE)

    def mix(self, name: str, parts: Mapping[str, float]) -> None:
        """Make an adapter that changes the weights by the weighted sum of what others change, exactly: ranks add up.

        Args:
            name: What requests are to call it.
            parts: Weights by name; the template is that of the first.

        Raises:
            UsageError: When the name is taken, or a part is not there.
            ModelError: When the adapters cannot be mixed.
        """
        self._check_free(name)
        if not parts or not all(part in self._voices for part in parts):
            raise UsageError(unknown("adapter", next((part for part in parts if part not in self._voices), ""), self.names))
        if not self.mixes:
            raise ModelError(f"adapters {', '.join(parts)} cannot be mixed: only plain LoRA adapters can")
        key = f"a{len(self._voices)}"
        keys = [self._voices[part].key for part in parts]
        try:
            self.model.base_model.add_weighted_adapter(keys, list(parts.values()), key, combination_type="cat")
        except ValueError as error:
            raise ModelError(f"adapters {', '.join(parts)} cannot be mixed: {first_line(error)}") from error
        self.model.eval()
        self._routed = None
        self._voices[name] = replace(self._voices[next(iter(parts))], key=key)

    def route(self, keys: Sequence[str]) -> None:
        """Let each row of the next forward pass be answered with its adapter; does nothing where nothing changes."""
        wanted = tuple(keys) if len(set(keys)) > 1 else (keys[0],)
        if wanted == self._routed or self.model is unwrapped(self.model):
            return
        self._mixed = list(wanted) if len(wanted) > 1 else None
        if self._mixed is not None:
            self._watch()
        if wanted == (BASE,):
            self.model.base_model.disable_adapter_layers()
        else:
            if self._routed in (None, (BASE,)):
                self.model.base_model.enable_adapter_layers()
            if len(wanted) == 1:
                self.model.set_adapter(wanted[0], inference_mode=True)
        self._routed = wanted

    def _watch(self) -> None:
        """Have each adapted layer told the rows' adapters; peft's own way registers and removes a hook of every layer at every token."""

        def tell(module: Any, args: Any, kwargs: Any) -> Any:
            return None if self._mixed is None else (args, kwargs | {"adapter_names": self._mixed})

        for module in self.model.modules():
            if isinstance(module, adapted_layers()) and id(module) not in self._watched:
                module.register_forward_pre_hook(tell, with_kwargs=True)
                self._watched.add(id(module))

    def _bare(self) -> AdapterProfile:
        """The base as it is when it is loaded alone."""
        reference = self._loaded.reference
        if reference is None or reference.base is None:
            return replace(self._own, key=BASE)
        renderer, _ = load_renderer(reference.base, **self._loaded.options)
        return AdapterProfile(BASE, renderer, stop_ids(self.model, renderer))

    def _check_free(self, name: str) -> None:
        """Refuse a name that a request could not mean."""
        if not name or name == OFF or name in self._voices:
            raise UsageError(f"adapter name '{name}' is taken; give another")


@cache
def adapted_layers() -> tuple[Any, ...]:
    """The types of layers that peft tells which adapter each row has; none where the installed peft has other ones."""
    try:
        from peft.tuners.lora import LoraLayer
        from peft.utils.other import AuxiliaryTrainingWrapper
    except ImportError as error:
        report_fallback("a batch of several adapters", in_one_line(error))
        return ()
    return LoraLayer, AuxiliaryTrainingWrapper


def same_weights(one: ModelReference, other: ModelReference) -> bool:
    """Whether two references are the same weights: by place, by what the local cache has of a Hub id, or by their bytes."""
    if one.source == other.source and one.revision == other.revision:
        return True
    folders = [found.folder or cached_folder(found.source, found.revision) for found in (one, other)]
    if folders[0] is None or folders[1] is None:
        return False
    return folders[0].resolve() == folders[1].resolve() or (None not in (one.folder, other.folder) and identity(one) == identity(other))
