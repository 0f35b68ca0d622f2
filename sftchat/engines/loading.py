"""From a MODEL argument to a ready engine: cheap checks first, weights last."""

from __future__ import annotations

from typing import Any

from sftchat.engines.base import Engine
from sftchat.models.references import resolve
from sftchat.plugins import Registry


def load_engine(
    model: str, registry: Registry, *, base: str | None = None, allow_pickle: bool = False, template: str | None = None, **options: Any
) -> Engine:
    """Open what MODEL names.

    Args:
        model: As of ``sftchat.models.references.resolve``.
        registry: The loaded plugins, for engines by scheme.
        base: Base model of an adapter.
        allow_pickle: Whether pickled weights may be loaded.
        template: Chat template name or file, instead of the model's own.
        options: ``dtype``, ``device``, ``trust_remote_code``, ``preferred`` (template of the task).

    Raises:
        UsageError: When MODEL cannot name a model.
        ModelError: When it cannot be loaded.
        MissingExtraError: When torch and its friends are not installed.
    """
    reference = resolve(model, base=base, schemes=registry.engines, allow_pickle=allow_pickle)
    if reference.scheme:
        return registry.engines[reference.scheme].open(reference.source, options)
    from sftchat.models.weights import load, require_local

    require_local(f"model '{model}'")
    from sftchat.engines.packing import pack_linear
    from sftchat.engines.transformers import TransformersEngine

    loaded = load(reference, template=template or "", allow_pickle=allow_pickle, **options)
    pack_linear(loaded.model)
    return TransformersEngine(model, loaded)
