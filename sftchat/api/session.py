"""The plugins and models of one program or notebook: the registry, and how models are opened and identified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sftchat._util.notebook import import_tqdm

if TYPE_CHECKING:
    from sftchat.engine import Engine, EngineType
    from sftchat.inference.open import EnginePool
    from sftchat.models.reference import ModelReference
    from sftchat.plugins.manager import Registry

V = TypeVar("V")


class DeferredMapping(Mapping[str, V]):
    """Mapping that calls ``load`` for its content at every lookup."""

    def __init__(self, load: Callable[[], Mapping[str, V]]) -> None:
        self._load = load

    def __getitem__(self, key: str) -> V:
        return self._load()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


@dataclass
class Session:
    """State of one run of the program; tests pass their own registry and engines.

    Attributes:
        open_engine: Opens a model; None for ``sftchat.inference.open.load_engine``.
        given_registry: Registry to use instead of that of the installed plugins.
        identify_engine: Computes the hash of ``identify``; None for ``sftchat.inference.identity.identify`` or, if ``open_engine`` is given, for no
            hash.
        imports_in_parts: Whether model libraries are imported in parts, see ``sftchat.models.lazy_imports``: for a program that runs one command.
    """

    open_engine: Callable[..., Engine] | None = None
    given_registry: Registry | None = None
    identify_engine: Callable[..., str] | None = None
    imports_in_parts: bool = False

    @cached_property
    def registry(self) -> Registry:
        """Registry of plugins, loaded on first use."""
        if self.given_registry is not None:
            return self.given_registry
        from sftchat.plugins.manager import load_plugins

        return load_plugins()

    @property
    def engine_types(self) -> Mapping[str, EngineType]:
        """Engine types of plugins by scheme; the plugins are loaded only when a scheme is looked up, so not for a folder or a model of the Hub."""
        return DeferredMapping(lambda: self.registry.engines)

    def load_engine(self, model: str, **options: Any) -> Engine:
        """Open MODEL with the options of the command line.

        Raises:
            ModelError: When it cannot be found or loaded.
            MissingExtraError: When the extra ``local`` is not installed.
        """
        if self.open_engine is not None:
            return self.open_engine(model, **options)
        from sftchat.inference.open import load_engine

        if self.imports_in_parts:
            from sftchat.models.lazy_imports import deferred_imports

            return load_engine(model, self.engine_types, importing=deferred_imports, **options)
        import_tqdm()
        return load_engine(model, self.engine_types, **options)

    def engine_pool(self) -> EnginePool:
        """Return a pool that opens models, of which it keeps one open, and loads a base once for all its adapters."""
        from sftchat.inference.open import EnginePool

        return EnginePool(self.load_engine, self.engine_types, 1)

    def resolve(self, model: str, *, base: str | None = None, allow_pickle: bool = False, **options: Any) -> ModelReference:
        """Resolve MODEL from names and files only; with ``open_engine``, MODEL is taken as it is.

        Raises:
            UsageError: When MODEL is not a valid reference.
            ModelError: When the folder has no usable weights.
        """
        from sftchat.models.reference import ModelReference, resolve

        if self.open_engine is not None:
            return ModelReference(model, model)
        return resolve(model, base=base, schemes=self.engine_types, allow_pickle=allow_pickle)

    def check_model(self, model: str, *, base: str | None = None, allow_pickle: bool = False) -> None:
        """Check that MODEL can be resolved, from names and files only, also when ``open_engine`` opens it.

        Raises:
            UsageError: When MODEL is not a valid reference.
            ModelError: When the folder has no usable weights.
        """
        from sftchat.models.reference import resolve

        resolve(model, base=base, schemes=self.registry.engines, allow_pickle=allow_pickle)

    def identify(self, model: str, **options: Any) -> str:
        """Return the hash of everything except the request that affects the replies of MODEL, without opening it; empty when unknown.

        Args:
            model: MODEL as typed.
            options: Options of ``load_engine``, and ``hashed`` of ``sftchat.inference.identity.identify``.

        Raises:
            ModelError: When it cannot be found or read.
        """
        if self.identify_engine is not None:
            return self.identify_engine(model, **options)
        if self.open_engine is not None:
            return ""
        from sftchat.inference.identity import identify

        return identify(model, self.engine_types, **options)
