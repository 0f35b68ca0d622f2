"""Plugin registry for tests, without an installed distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sftchat.errors import PluginError
from sftchat.plugins.manager import Registry, load_plugins


@dataclass(frozen=True)
class _InMemoryEntryPoint:
    """Entry point whose object is not imported but given."""

    name: str
    plugin: Any
    dist: Any = None

    def load(self) -> Any:
        return self.plugin


def plugin_manager_with(*plugins: Any) -> Registry:
    """Return a registry with the given plugins only, loaded and checked like installed ones.

        registry = plugin_manager_with(my_plugin)
        check_task(registry.task("mine"))

    Args:
        plugins: Modules or objects with functions marked ``@hookimpl``.

    Raises:
        PluginError: When a plugin is invalid.
    """
    points = []
    for index, plugin in enumerate(plugins):
        name = getattr(plugin, "__name__", type(plugin).__name__)
        points.append(_InMemoryEntryPoint(f"{index}-{name}", plugin))
    registry = load_plugins(points)
    for info in registry.plugins:
        if info.problem:
            raise PluginError(f"plugin {info.name.partition('-')[2]}: {info.problem}")
    return registry
