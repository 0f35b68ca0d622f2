"""Adapters of one base share it: the base is loaded once, whether its adapters answer one after the other or in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from sftchat.engines.base import OFF, Adapts, Chunk, Engine, Renders, Request
from sftchat.models.references import ModelReference, resolve
from sftchat.plugins import Registry
from sftchat.types import Message

Load = Callable[..., Engine]


class Shared:
    """One model of an engine that others may share: an ``Engine`` that asks for its own adapter.

    Args:
        name: What the user called the model.
        engine: Has the base.
        adapter: Name of the adapter, ``OFF`` for the base.

    Attributes:
        engine: The engine that is shared.
        adapter: What its requests ask for.
    """

    def __init__(self, name: str, engine: Engine, adapter: str) -> None:
        self.name = name
        self.engine = engine
        self.adapter = adapter

    @property
    def context_length(self) -> int:
        """The most tokens that prompt and reply may have together."""
        return cast(Renders, self.engine).context_length

    def render(self, messages: Sequence[Message]) -> str:
        """The templated text of a conversation, ready for the reply."""
        return cast(Renders, self.engine).render(messages)

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests with the model's adapter.

        Raises:
            EngineError: When nothing more can be generated.
        """
        return self.engine.generate(replace(request, adapter=self.adapter) for request in requests)

    def close(self) -> None:
        """Nothing: others may use the engine; who opened it closes it."""


class Sharing:
    """Opens models, and the base of several adapters once.

    Args:
        load: Opens one: ``Session.load_engine``.
        registry: The loaded plugins, for engines by scheme.
        most: Engines that are kept open; the next one closes the oldest before it is loaded.
    """

    def __init__(self, load: Load, registry: Registry, most: int = 1) -> None:
        self._load = load
        self._registry = registry
        self._most = most
        self._open: dict[tuple[Any, ...], Engine] = {}

    def __call__(self, model: str, *, base: str | None = None, **options: Any) -> Engine:
        """Open a model; options as of ``sftchat.engines.loading.load_engine``.

        Raises:
            UsageError: When MODEL cannot name a model.
            ModelError: When it cannot be loaded.
        """
        reference = resolve(model, base=base, schemes=self._registry.engines, allow_pickle=bool(options.get("allow_pickle")))
        if reference.scheme:
            return self._load(model, base=base, **options)
        ground = reference.base or reference
        key = _key(ground, options)
        if key not in self._open:
            while len(self._open) >= self._most:
                self._open.pop(next(iter(self._open))).close()
            self._open[key] = self._load(ground.argument, base=None, **options)
        engine = self._open[key]
        if not isinstance(engine, Adapts):  # an engine of a test
            del self._open[key]
            return engine
        if reference.base is None:
            return Shared(model, engine, OFF)
        if model not in engine.adapters:
            try:
                cast(Any, engine).add_adapter(model, reference)  # the reference, so that --base counts
            except BaseException:
                del self._open[key]  # whatever it was put on may be half changed
                raise
        return Shared(model, engine, model)

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            self._open.popitem()[1].close()


def _key(reference: ModelReference, options: dict[str, Any]) -> tuple[Any, ...]:
    """What two models must have in common to share an engine."""
    return (reference.source, reference.revision, *sorted((name, repr(value)) for name, value in options.items() if value is not None))
