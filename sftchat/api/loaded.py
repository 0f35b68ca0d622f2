"""Models of an evaluation that are loaded already: their names, and a session that serves them from memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftchat.api.model import Model
from sftchat.api.session import Session
from sftchat.engine import Engine
from sftchat.errors import EngineError, UsageError
from sftchat.inference.open import AdapterEngine

_ONE_NAME = (
    "two different models are named '{name}'; evaluate the first one alone with update_baseline=FILE, and the second one with baseline=FILE"
)


@dataclass
class LoadedModels:
    """Names the models of an evaluation, and serves those that are loaded already from memory.

    Attributes:
        given: Session that opens the others.
        loaded: Loaded models by name.
        unloaded: Names of models that are not loaded.
    """

    given: Session
    loaded: dict[str, Model] = field(default_factory=dict)
    unloaded: set[str] = field(default_factory=set)

    def name(self, model: Any) -> str:
        """Return the name of a model for the report, and remember it if it is loaded.

        Raises:
            UsageError: When it is no model, is closed, or another model with other options has its name.
        """
        if isinstance(model, (str, os.PathLike)):
            name = os.fspath(model)
            self.unloaded.add(name)
        elif isinstance(model, (Model, Engine)):
            name = model.name
            given = model if isinstance(model, Model) else Model(name, model, {})
            known = self.loaded.setdefault(name, given)
            if known.engine is not given.engine:
                raise UsageError(_ONE_NAME.format(name=name))
        else:
            raise UsageError(f"model is {type(model).__name__}, must be a MODEL, a run, a loaded model or an engine")
        if name in self.unloaded and name in self.loaded and self.loaded[name].options:
            raise UsageError(_ONE_NAME.format(name=name))
        return name

    def serves(self, names: Collection[str]) -> bool:
        """Whether all of these models are loaded."""
        return all(name in self.loaded for name in names)

    @property
    def session(self) -> Session:
        """The session, or one that serves the loaded models from memory."""
        return _SessionWithLoaded(self.given, self.loaded) if self.loaded else self.given


class _SessionWithLoaded(Session):
    """A session in which some models are loaded already; they stay open.

    Args:
        given: Session for the other models.
        loaded: Loaded models by name.
    """

    def __init__(self, given: Session, loaded: Mapping[str, Model]) -> None:
        super().__init__(given.open_engine, given.registry, given.identify_engine, given.imports_in_parts)
        self._given = given
        self._loaded = loaded

    def engine_pool(self) -> Any:
        """Return a pool that serves the loaded models, and opens the others."""
        return _PoolWithLoaded(self._given.engine_pool(), self._loaded)

    def check_model(self, model: str, **options: Any) -> None:
        """Check models that are not loaded."""
        if model not in self._loaded:
            self._given.check_model(model, **options)

    def identify(self, model: str, **options: Any) -> str:
        """Identify a loaded model by the options with which it was opened; an engine without a MODEL has no identity."""
        loaded = self._loaded.get(model)
        if loaded is None:
            return self._given.identify(model, **options)
        kept = {name: options[name] for name in ("hashed", "preferred") if name in options}
        try:
            self._given.check_model(model)
        except Exception as error:
            if not isinstance(error, (UsageError, EngineError)):
                raise
            return ""
        return self._given.identify(model, **kept, **loaded.options)


@dataclass
class _PoolWithLoaded:
    pool: Any
    loaded: Mapping[str, Model]

    def __call__(self, model: str, **options: Any) -> Engine:
        loaded = self.loaded.get(model)
        return AdapterEngine(model, loaded.engine, "") if loaded is not None else self.pool(model, **options)

    def close(self) -> None:
        self.pool.close()
