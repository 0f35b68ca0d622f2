"""The adapters of one base model: per-row selection, weighted sums, and each adapter's tokenizer, template and stop tokens."""

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
from sftchat.models.reference import ModelReference
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
        has_adapter = self.model is not unwrapped(self.model)
        self._own_profile = AdapterProfile(DEFAULT_ADAPTER if has_adapter else "", loaded.renderer, loaded.stop_ids)
        self._profiles: dict[str, AdapterProfile] = {name: self._own_profile} if has_adapter else {}
        self._base_profile: AdapterProfile | None = None if has_adapter else self._own_profile
        self._selected: tuple[str, ...] | None = None  # key of each row, or a single key for all rows; None: not selected yet
        self._row_keys: list[str] | None = None  # the same for the hooks; None if all rows have the same adapter
        self._hooked_layers: set[int] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters."""
        return tuple(self._profiles)

    @property
    def mixes(self) -> bool:
        """Whether rows of different adapters can share a batch; peft supports this for plain LoRA adapters, but not for DoRA."""
        if self.model is unwrapped(self.model):
            return True
        plain_lora = all(str(config.peft_type.value) == "LORA" and not config.use_dora for config in self.model.peft_config.values())
        return plain_lora and bool(adapted_layer_types())

    def profile(self, adapter: str) -> AdapterProfile:
        """Return the profile for a request.

        Args:
            adapter: See ``Request.adapter``.

        Raises:
            UsageError: When the adapter is unknown.
        """
        if not adapter:
            return self._own_profile
        if adapter == OFF:
            if self._base_profile is None:
                self._base_profile = self._load_base_profile()
            return self._base_profile
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
        model_reference = self._loaded.reference
        base = None if model_reference is None else model_reference.base or model_reference
        if base is None or not same_weights(base, reference.base):
            raise ModelError(
                f"adapter '{reference.text}' was made for base '{reference.base.text}'; the base here is '{base.text if base else self._name}'"
            )
        renderer, _ = load_renderer(reference, **self._loaded.options)
        key = f"a{len(self._profiles)}"
        self._selected = None
        with LOADING:
            self.model, _ = add_adapter(self.model, reference.source, key, reference.text)
        self._profiles[name] = AdapterProfile(key, renderer, stop_ids(self.model, renderer))
        if self._base_profile is not None:  # a model without adapters had no key; now its requests must turn the adapters off
            self._own_profile = replace(self._own_profile, key=self._own_profile.key or BASE)
            self._base_profile = replace(self._base_profile, key=BASE)

    def mix(self, name: str, parts: Mapping[str, float]) -> None:
        """Create an adapter that is the exact weighted sum of others; its rank is the sum of theirs.

        Args:
            name: Name for requests.
            parts: Weight of each adapter, by its name; the new adapter has the template of the first.

        Raises:
            UsageError: When the name is taken, or an adapter does not exist.
            ModelError: When the adapters cannot be mixed.
        """
        self._check_free(name)
        missing = [adapter for adapter in parts if adapter not in self._profiles]
        if missing or not parts:
            raise UsageError(unknown_name_message("adapter", missing[0] if missing else "", self.names))
        if not self.mixes:
            raise ModelError(f"adapters {', '.join(parts)} cannot be mixed: only plain LoRA adapters can")
        key = f"a{len(self._profiles)}"
        keys = [self._profiles[adapter].key for adapter in parts]
        try:
            self.model.base_model.add_weighted_adapter(keys, list(parts.values()), key, combination_type="cat")
        except ValueError as error:
            raise ModelError(f"adapters {', '.join(parts)} cannot be mixed: {first_line(error)}") from error
        self.model.eval()
        self._selected = None
        self._profiles[name] = replace(self._profiles[next(iter(parts))], key=key)

    def select(self, keys: Sequence[str]) -> None:
        """Select the adapter of each row for the next forward pass; does nothing if the selection is unchanged.

        Args:
            keys: ``AdapterProfile.key`` of each row.
        """
        selection = tuple(keys) if len(set(keys)) > 1 else (keys[0],)
        if selection == self._selected or self.model is unwrapped(self.model):
            return
        self._row_keys = list(selection) if len(selection) > 1 else None
        if self._row_keys is not None:
            self._add_hooks()
        if selection == (BASE,):
            self.model.base_model.disable_adapter_layers()
        else:
            if self._selected in (None, (BASE,)):
                self.model.base_model.enable_adapter_layers()
            if len(selection) == 1:
                self.model.set_adapter(selection[0], inference_mode=True)
        self._selected = selection

    def _add_hooks(self) -> None:
        """Add a permanent hook to each adapted layer that passes the keys of the rows to it.

        peft's own way, the argument ``adapter_names``, is slower: it adds a hook to each layer before every forward pass and removes it afterwards.
        """

        def pass_row_keys(module: Any, args: Any, kwargs: Any) -> Any:
            return None if self._row_keys is None else (args, kwargs | {"adapter_names": self._row_keys})

        for module in self.model.modules():
            if isinstance(module, adapted_layer_types()) and id(module) not in self._hooked_layers:
                module.register_forward_pre_hook(pass_row_keys, with_kwargs=True)
                self._hooked_layers.add(id(module))

    def _load_base_profile(self) -> AdapterProfile:
        reference = self._loaded.reference
        if reference is None or reference.base is None:
            return replace(self._own_profile, key=BASE)
        renderer, _ = load_renderer(reference.base, **self._loaded.options)
        return AdapterProfile(BASE, renderer, stop_ids(self.model, renderer))

    def _check_free(self, name: str) -> None:
        """Raise ``UsageError`` if the name is empty, reserved or taken."""
        if not name or name == OFF or name in self._profiles:
            raise UsageError(f"adapter name '{name}' is taken; give another")


@cache
def adapted_layer_types() -> tuple[Any, ...]:
    """Return peft's layer types that accept the adapter of each row; empty if the installed peft has no such types."""
    try:
        from peft.tuners.lora import LoraLayer
        from peft.utils.other import AuxiliaryTrainingWrapper
    except ImportError as error:
        report_fallback("a batch of several adapters", in_one_line(error))
        return ()
    return LoraLayer, AuxiliaryTrainingWrapper


def same_weights(first: ModelReference, second: ModelReference) -> bool:
    """Whether two references have the same weights: by location, by cached Hub snapshot, or, for two folders, by file contents."""
    if first.source == second.source and first.revision == second.revision:
        return True
    first_folder, second_folder = (reference.cached_folder for reference in (first, second))
    if first_folder is None or second_folder is None:
        return False
    if first_folder.resolve() == second_folder.resolve():
        return True
    return first.folder is not None and second.folder is not None and identity(first) == identity(second)
