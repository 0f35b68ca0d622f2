"""The adapters of one base model: per-row selection, weighted sums, and each adapter's tokenizer, template and stop tokens.

Before each forward pass one hook per layer selects the adapters of the rows. A batch with one adapter uses peft's plain way; DoRA, which peft cannot
mix, is run one adapter at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sftchat._util.fallback import report_fallback
from sftchat.engine import OFF
from sftchat.errors import ModelError, UsageError, first_line, in_one_line, unknown_name_message
from sftchat.models.adapters import BASE, add_adapter
from sftchat.models.fingerprint import identity
from sftchat.models.loading import LOADING, Loaded, load_renderer, stop_ids, unwrapped
from sftchat.models.reference import ModelReference, cached_folder
from sftchat.templates.renderer import Renderer

DEFAULT_ADAPTER = "default"
"""peft's name for the adapter that a model was loaded with."""


@dataclass(frozen=True)
class AdapterProfile:
    """An adapter together with its renderer and stop tokens.

    Attributes:
        key: peft's name of the adapter; empty for a model without adapters.
        renderer: Tokenizer and template of the adapter, as when it is loaded alone.
        stop_ids: Tokens that end a reply.
    """

    key: str
    renderer: Renderer
    stop_ids: tuple[int, ...]


class Adapters:
    """The adapters of a loaded model.

    Args:
        name: Name of the model, as the user gave it; also the name of its adapter, if it was loaded with one.
        loaded: The loaded model.
    """

    def __init__(self, name: str, loaded: Loaded) -> None:
        self.model = loaded.model
        self._loaded = loaded
        self._name = name
        adapted = self.model is not unwrapped(self.model)
        self._own = AdapterProfile(DEFAULT_ADAPTER if adapted else "", loaded.renderer, loaded.stop_ids)
        self._profiles: dict[str, AdapterProfile] = {name: self._own} if adapted else {}
        self._base: AdapterProfile | None = None if adapted else self._own
        self._routed: tuple[str, ...] | None = None
        self._mixed: list[str] | None = None
        self._hooked: set[int] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters."""
        return tuple(self._profiles)

    @property
    def mixes(self) -> bool:
        """Whether rows of different adapters can share a batch; peft supports this for plain LoRA adapters."""
        if self.model is unwrapped(self.model):
            return True
        plain = all(str(config.peft_type.value) == "LORA" and not config.use_dora for config in self.model.peft_config.values())
        return plain and bool(adapted_layers())

    def profile(self, adapter: str) -> AdapterProfile:
        """Return the profile for a request.

        Args:
            adapter: See ``Request.adapter``.

        Raises:
            UsageError: When the adapter is unknown.
        """
        if not adapter:
            return self._own
        if adapter == OFF:
            if self._base is None:
                self._base = self._base_profile()
            return self._base
        if adapter not in self._profiles:
            raise UsageError(unknown_name_message("adapter", adapter, (*self.names, OFF)))
        return self._profiles[adapter]

    def add(self, name: str, reference: ModelReference) -> None:
        """Load another adapter of the same base model.

        Args:
            name: Name for requests.
            reference: Location of the adapter.

        Raises:
            UsageError: When the name is taken.
            ModelError: When it is not an adapter, has another base model, or cannot be loaded.
        """
        self._check_free(name)
        if reference.base is None:
            raise ModelError(f"'{reference.text}' is no adapter; the folder of one has adapter_config.json")
        own = self._loaded.reference
        base = own.base or own if own is not None else None
        if base is None or not same_weights(base, reference.base):
            raise ModelError(
                f"adapter '{reference.text}' was made for base '{reference.base.text}'; the base here is '{base.text if base else self._name}'"
            )
        renderer, _ = load_renderer(reference, **self._loaded.options)
        key = f"a{len(self._profiles)}"
        self._routed = None
        with LOADING:
            self.model, _ = add_adapter(self.model, reference.source, key, reference.text)
        self._profiles[name] = AdapterProfile(key, renderer, stop_ids(self.model, renderer))
        if self._base is not None:  # the base model was loaded without adapters and is still used as such
            self._own = replace(self._own, key=self._own.key or BASE)
            self._base = replace(self._base, key=BASE)

    def mix(self, name: str, parts: Mapping[str, float]) -> None:
        """Create an adapter that is the exact weighted sum of others; its rank is the sum of theirs.

        Args:
            name: Name for requests.
            parts: Weights by adapter name; the template of the first is used.

        Raises:
            UsageError: When the name is taken, or an adapter does not exist.
            ModelError: When the adapters cannot be mixed.
        """
        self._check_free(name)
        if not parts or not all(part in self._profiles for part in parts):
            raise UsageError(unknown_name_message("adapter", next((part for part in parts if part not in self._profiles), ""), self.names))
        if not self.mixes:
            raise ModelError(f"adapters {', '.join(parts)} cannot be mixed: only plain LoRA adapters can")
        key = f"a{len(self._profiles)}"
        keys = [self._profiles[part].key for part in parts]
        try:
            self.model.base_model.add_weighted_adapter(keys, list(parts.values()), key, combination_type="cat")
        except ValueError as error:
            raise ModelError(f"adapters {', '.join(parts)} cannot be mixed: {first_line(error)}") from error
        self.model.eval()
        self._routed = None
        self._profiles[name] = replace(self._profiles[next(iter(parts))], key=key)

    def route(self, keys: Sequence[str]) -> None:
        """Select the adapter of each row for the next forward pass; does nothing if the selection is unchanged."""
        wanted = tuple(keys) if len(set(keys)) > 1 else (keys[0],)
        if wanted == self._routed or self.model is unwrapped(self.model):
            return
        self._mixed = list(wanted) if len(wanted) > 1 else None
        if self._mixed is not None:
            self._add_hooks()
        if wanted == (BASE,):
            self.model.base_model.disable_adapter_layers()
        else:
            if self._routed in (None, (BASE,)):
                self.model.base_model.enable_adapter_layers()
            if len(wanted) == 1:
                self.model.set_adapter(wanted[0], inference_mode=True)
        self._routed = wanted

    def _add_hooks(self) -> None:
        """Pass the adapter names to each adapted layer by permanent hooks; peft registers and removes a hook per layer at every token."""

        def pass_names(module: Any, args: Any, kwargs: Any) -> Any:
            return None if self._mixed is None else (args, kwargs | {"adapter_names": self._mixed})

        for module in self.model.modules():
            if isinstance(module, adapted_layers()) and id(module) not in self._hooked:
                module.register_forward_pre_hook(pass_names, with_kwargs=True)
                self._hooked.add(id(module))

    def _base_profile(self) -> AdapterProfile:
        reference = self._loaded.reference
        if reference is None or reference.base is None:
            return replace(self._own, key=BASE)
        renderer, _ = load_renderer(reference.base, **self._loaded.options)
        return AdapterProfile(BASE, renderer, stop_ids(self.model, renderer))

    def _check_free(self, name: str) -> None:
        """Raise ``UsageError`` if the name is empty, reserved or taken."""
        if not name or name == OFF or name in self._profiles:
            raise UsageError(f"adapter name '{name}' is taken; give another")


@cache
def adapted_layers() -> tuple[Any, ...]:
    """Return the layer types that accept adapter names per row; empty if the installed peft has no such types."""
    try:
        from peft.tuners.lora import LoraLayer
        from peft.utils.other import AuxiliaryTrainingWrapper
    except ImportError as error:
        report_fallback("a batch of several adapters", in_one_line(error))
        return ()
    return LoraLayer, AuxiliaryTrainingWrapper


def same_weights(first: ModelReference, second: ModelReference) -> bool:
    """Whether two references have the same weights: by location, by cached Hub snapshot, or by file contents."""
    if first.source == second.source and first.revision == second.revision:
        return True
    folders = [reference.folder or cached_folder(reference.source, reference.revision) for reference in (first, second)]
    if folders[0] is None or folders[1] is None:
        return False
    return folders[0].resolve() == folders[1].resolve() or (
        None not in (first.folder, second.folder) and identity(first) == identity(second)
    )
