"""Plugin manager: finds plugins by entry points, loads each separately, and collects the objects that they register.

``pluggy.PluginManager.load_setuptools_entrypoints`` is not used because it fails at the first broken plugin and silently skips a second plugin of
the same name.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from sftchat._util.plugin_calls import call_plugin
from sftchat.chat.context import ChatCommand
from sftchat.engine import EngineType
from sftchat.errors import NameTakenError, PluginError, SftchatWarning, UsageError, class_and_message, in_one_line, unknown_name_message
from sftchat.plugins import spec as hookspecs
from sftchat.task import Task
from sftchat.text import printable

if TYPE_CHECKING:
    from sftchat.evaluation.report.view import Report
    from sftchat.training.config import TrainingConfig


T = TypeVar("T")
SLOW_IMPORT_SECONDS = 5.0
"""Time in seconds after which a slow import is reported."""


class EntryPoint(Protocol):
    """The part of ``importlib.metadata.EntryPoint`` that is used here; tests pass other objects with it."""

    @property
    def name(self) -> str:
        """Name of the entry point."""

    @property
    def dist(self) -> Any:
        """Distribution that declares it, with ``name`` and ``version``; None when unknown."""

    def load(self) -> Any:
        """Import and return the object."""


@dataclass(frozen=True)
class PluginInfo:
    """A plugin, loaded or failed.

    Attributes:
        name: Name of the entry point.
        distribution: Its distribution with version, such as ``sftchat 0.1.0``.
        tasks: Names of its tasks.
        engines: Schemes of its engines.
        commands: Names of its chat commands.
        problem: Why it failed to load; empty when it is loaded.
    """

    name: str
    distribution: str
    tasks: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Registry:
    """Objects registered by all plugins.

    Attributes:
        manager: The pluggy manager, for event hooks.
        tasks: Tasks by name.
        engines: Engine types by scheme.
        commands: Chat commands by name.
        plugins: All plugins, including broken ones, sorted by name, built-in ones first.
        contested: For each task name that two plugins register, a warning to show when the task is used.
    """

    manager: pluggy.PluginManager
    tasks: Mapping[str, Task] = field(default_factory=dict)
    engines: Mapping[str, EngineType] = field(default_factory=dict)
    commands: Mapping[str, ChatCommand] = field(default_factory=dict)
    plugins: tuple[PluginInfo, ...] = ()
    contested: Mapping[str, str] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        """Return a task by name, or read it from a file whose name ends with ``.toml``.

        Raises:
            DataError: When the file cannot be read, or is no task.
            UsageError: When no loaded plugin has it; the message has the most similar name, and the plugins that failed to load.
        """
        if name.lower().endswith(".toml"):
            from sftchat.data.task_file import load_task_file  # here, because no installed task needs it

            return load_task_file(name)
        if name in self.tasks:
            if name in self.contested:
                warnings.warn(self.contested[name], SftchatWarning, stacklevel=2)
            return self.tasks[name]
        not_loaded = [plugin.name for plugin in self.plugins if plugin.problem]
        hint = f"; not loaded: {', '.join(not_loaded)}, see 'sftchat plugins'" if not_loaded else ""
        raise UsageError(unknown_name_message("task", name, self.tasks) + hint)

    def trainer_callbacks(self, task: Task, config: TrainingConfig) -> list[tuple[str, Any]]:
        """Return the trainer callbacks of plugins, each with the name of its plugin.

        Raises:
            PluginError: When a hook fails.
            SftchatError: When a hook raises it, for example for a setting that its callback does not support.
        """

        def callbacks_of(hook: Callable[..., Any]) -> list[Any]:
            return [callback for result in hook(task=replace(task), config=replace(config)) for callback in result]

        hooks = _hooks_by_plugin(self.manager, "sftchat_trainer_callbacks")
        return [
            (name, callback)
            for name, hook in hooks
            for callback in call_plugin(f"hook sftchat_trainer_callbacks of plugin '{name}'", callbacks_of, hook, may_refuse=True)
        ]

    def eval_finished(self, report: Report, output_dir: Path | None) -> list[PluginError]:
        """Call the evaluation hook of every plugin, even when others fail.

        Args:
            report: The report; each plugin gets a copy.
            output_dir: Folder of the results; None when there is none.

        Returns:
            Errors of the plugins that failed.
        """
        failed = []
        for name, hook in _hooks_by_plugin(self.manager, "sftchat_eval_finished"):
            notify = partial(hook, report=copy.deepcopy(report), output_dir=output_dir)
            try:
                call_plugin(f"hook sftchat_eval_finished of plugin '{name}'", notify)
            except PluginError as error:
                failed.append(error)
        return failed


def load_plugins(entry_points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load all plugins; a failing one is described in ``Registry.plugins`` and does not affect others.

    Args:
        entry_points: Entry points to load; the installed ones of the group ``sftchat`` by default.
    """
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    points = _installed_entry_points() if entry_points is None else list(entry_points)
    tasks: dict[str, Task] = {}
    engines: dict[str, EngineType] = {}
    commands: dict[str, ChatCommand] = {}
    owners: dict[tuple[str, str], str] = {}  # name of the plugin that registered an object, by the object's kind and name
    infos: list[PluginInfo] = []
    contested: dict[str, str] = {}
    with_distribution = [(_distribution_of(point), point) for point in points]  # once, because it parses the distribution's metadata
    for distribution, entry_point in sorted(with_distribution, key=lambda pair: (not _is_built_in(pair[0]), pair[1].name, pair[0])):
        try:
            with _stdout_to_stderr(), _report_slow_import(entry_point, distribution):
                objects = _load_plugin(manager, entry_point, distribution, owners)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # importing third-party code may raise anything, SystemExit included
            problem = in_one_line(error) if isinstance(error, PluginError) else class_and_message(error)
            infos.append(PluginInfo(entry_point.name, distribution, problem=problem))
            if isinstance(error, NameTakenError) and error.task:
                contested[error.task] = f"{error}, so the one that {distribution} brings is not loaded"
            continue
        tasks.update(objects.tasks)
        engines.update(objects.engines)
        commands.update(objects.commands)
        infos.append(PluginInfo(entry_point.name, distribution, tuple(objects.tasks), tuple(objects.engines), tuple(objects.commands)))
    return Registry(manager, tasks, engines, commands, tuple(infos), contested)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect standard output to standard error, for ``print`` and at file descriptor level, because standard output is for results."""
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as cleanup:
        with contextlib.suppress(OSError):  # when the process has no standard streams
            original_stdout = os.dup(1)
            cleanup.callback(os.close, original_stdout)
            os.dup2(2, 1)
            cleanup.callback(os.dup2, original_stdout, 1)
        yield


@contextlib.contextmanager
def _report_slow_import(entry_point: EntryPoint, distribution: str) -> Iterator[None]:
    """Report a plugin on standard error if its import takes longer than ``SLOW_IMPORT_SECONDS``."""

    def report() -> None:
        sys.stderr.write(f"sftchat: still importing plugin '{printable(entry_point.name)}' ({printable(distribution)}) …\n")
        sys.stderr.flush()

    timer = threading.Timer(SLOW_IMPORT_SECONDS, report)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True)
class _PluginObjects:
    """Objects registered by one plugin, by name."""

    tasks: dict[str, Task]
    engines: dict[str, EngineType]
    commands: dict[str, ChatCommand]


def _load_plugin(
    manager: pluggy.PluginManager, entry_point: EntryPoint, distribution: str, owners: dict[tuple[str, str], str]
) -> _PluginObjects:
    """Import and register one plugin and return its objects; on failure, leave the manager and ``owners`` unchanged."""
    if manager.has_plugin(entry_point.name):
        raise PluginError(f"another distribution already has a plugin named '{entry_point.name}'")
    plugin = entry_point.load()
    _check_version(plugin, distribution)
    manager.register(plugin, name=entry_point.name)
    try:
        manager.check_pending()  # raises for misspelt hook names
        objects = _PluginObjects(
            _collect_registered(manager, plugin, "sftchat_register_tasks", Task, "name"),
            _collect_registered(manager, plugin, "sftchat_register_engines", EngineType, "scheme"),
            _collect_registered(manager, plugin, "sftchat_register_chat_commands", ChatCommand, "name"),
        )
        kinds: dict[str, Mapping[str, object]] = {"task": objects.tasks, "engine": objects.engines, "command": objects.commands}
        keys = [(kind, name) for kind, by_name in kinds.items() for name in by_name]
        for kind, name in keys:
            if (kind, name) in owners:
                raise NameTakenError(
                    f"{kind} '{name}' is already registered by plugin '{owners[kind, name]}'", name if kind == "task" else ""
                )
        owners.update(dict.fromkeys(keys, entry_point.name))
    except BaseException:
        manager.unregister(plugin)
        raise
    return objects


def _check_version(plugin: Any, distribution: str) -> None:
    """Raise ``PluginError`` for a plugin that was written for another version of the interface."""
    current = hookspecs.PLUGIN_API
    needed = getattr(plugin, "sftchat_plugin_api", current)
    if needed == current:
        return
    if not isinstance(needed, int) or needed < 1:
        raise PluginError(f"sftchat_plugin_api is {needed!r}, must be a whole number such as {current}")
    if needed > current:
        raise PluginError(f"it needs plugin interface {needed} and this sftchat has {current}: pip install --upgrade sftchat")
    releases = hookspecs.RELEASES[needed]
    raise PluginError(
        f"it is for plugin interface {needed} and this sftchat has {current}: "
        f"pip install --upgrade {distribution.rpartition(' ')[0]}, or keep it and pip install 'sftchat{releases}'"
    )


def _collect_registered(manager: pluggy.PluginManager, plugin: Any, hook: str, kind: type[T], key: str) -> dict[str, T]:
    """Call a registering hook of one plugin; return its objects by the value of the attribute that ``key`` names, such as ``scheme``.

    Raises:
        PluginError: When an object is not of type ``kind``, or two objects have the same name.
    """
    by_name: dict[str, T] = {}
    for result in _hook_of_plugin(manager, plugin, hook)():
        for item in result:
            if not isinstance(item, kind):
                raise PluginError(f"{hook} must return {kind.__name__} objects, got {type(item).__name__}")
            name = getattr(item, key)
            if name in by_name:
                raise PluginError(f"{hook} returned '{name}' twice")
            by_name[name] = item
    return by_name


def _hook_of_plugin(manager: pluggy.PluginManager, plugin: Any, hook: str) -> Callable[..., Any]:
    """Return a function that calls the hook of one plugin only."""
    return manager.subset_hook_caller(hook, remove_plugins=[other for other in manager.get_plugins() if other is not plugin])


def _hooks_by_plugin(manager: pluggy.PluginManager, hook: str) -> list[tuple[str, Callable[..., Any]]]:
    """Return ``(plugin name, function that calls its hook)`` for each plugin that implements the hook."""
    implementing_plugins = [implementation.plugin for implementation in getattr(manager.hook, hook).get_hookimpls()]
    return [(manager.get_name(plugin) or "", _hook_of_plugin(manager, plugin, hook)) for plugin in implementing_plugins]


def _installed_entry_points() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # imported here because it takes 30 ms that `--help` does not need

    return list(entry_points(group=hookspecs.ENTRY_POINT_GROUP))


def _is_built_in(distribution: str) -> bool:
    """Return whether a distribution is sftchat itself; its plugins are loaded first, so that no other plugin can take their names."""
    return distribution.partition(" ")[0] == "sftchat"


def _distribution_of(entry_point: EntryPoint) -> str:
    """Return name and version of the entry point's distribution, such as ``sftchat 0.1.0``."""
    dist = entry_point.dist
    return f"{dist.name} {dist.version}" if dist is not None else "unknown distribution"
