"""Imports transformers' models without the compiler and sharding modules that only compiled or sharded models need.

Most of the time between a command and its first token on a CPU is spent in ``import``; more than half of that on ``torch._dynamo``, which
transformers 5.23 imports for compiler decorators, ``torch.distributed.tensor`` and accelerate, for models on several devices, sympy, for the shapes
in these two, and ``scipy.optimize``, for losses of object detectors. transformers works without these libraries, so its checks report that they are not
installed; the compiler is replaced by a stand-in with no-op decorators, which loads the real module on any other access.

Modules imported in this way cannot shard or dispatch a model in the same process: use this for short-lived commands, not for notebooks.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
INDEXING = f"{COMPILER}._trace_wrapped_higher_order_op"
SHAPES = "torch.fx.experimental.symbolic_shapes"
SHARDED = "torch.distributed.tensor"
HIDDEN_CHECKS = ("is_torch_distributed_available", "is_torch_flex_attn_available", "is_accelerate_available", "is_scipy_available")
"""Functions of transformers that check whether an optional library is installed."""
LAUNCHER_VARIABLES = ("WORLD_SIZE", "RANK", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Environment variables of launchers, whose processes may shard a model and therefore import everything."""


_PLAIN_RESULTS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys(
        ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "guarding_hint_or_throw", "statically_known_true"),
        lambda value: value,
    ),
    "has_guarding_hint": lambda _: True,
    "is_nested_int": lambda _: False,
    "sym_eq": lambda first, second: first == second,
    "sym_and": lambda first, *rest: first and all(rest),
    "sym_or": lambda first, *rest: first or any(rest),
}
"""torch's functions on symbolic sizes and conditions, with their results for plain numbers."""


@contextmanager
def deferred_imports() -> Iterator[None]:
    """Import transformers within this block without what a single process without compilation never uses.

    Does nothing if the compiler is already loaded, or under a launcher of several processes.
    """
    if COMPILER in sys.modules or any(name in os.environ for name in LAUNCHER_VARIABLES):
        yield
        return
    import torch
    from transformers import utils
    from transformers.utils import import_utils

    with ExitStack() as stack:
        stack.callback(_on_demand, torch.distributed, SHARDED)
        for module in (utils, import_utils):
            for name in HIDDEN_CHECKS:
                stack.enter_context(_replaced(module, name, _is_unavailable))
        stack.enter_context(_replaced(torch.compiler, "disable", _no_op_decorator))
        for stand_in in _stand_ins():
            stack.enter_context(stand_in.installed())
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    if not hasattr(module, name):  # another version of the library
        yield
        return
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _on_demand(package: ModuleType, name: str) -> None:
    """Import a submodule on first access: peft uses that of sharded tensors without importing it."""

    def attribute(wanted: str) -> Any:
        if name == f"{package.__name__}.{wanted}":
            return importlib.import_module(name)
        raise AttributeError(f"module '{package.__name__}' has no attribute '{wanted}'")

    package.__dict__["__getattr__"] = attribute


def _is_unavailable() -> bool:
    return False


def _no_op_decorator(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if function is not None else lambda decorated: decorated


class _StandIn(ModuleType):
    """A stand-in for a module with some attributes; access to any other attribute or submodule loads the real module.

    Args:
        name: Name of the module.
        attributes: Available without loading it.
    """

    def __init__(self, name: str, attributes: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # makes the import system use finders for submodules
        self.__dict__.update(attributes)
        self._finder = _Finder(self)
        self._package: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # looked up by the import system
            raise AttributeError(name)
        return getattr(self.real(), name)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install the stand-in in place of the module."""
        sys.modules[self.__name__] = self
        sys.meta_path.insert(0, self._finder)
        package, _, name = self.__name__.rpartition(".")
        self._package = sys.modules.get(package)
        if self._package is not None:
            setattr(self._package, name, self)
        try:
            yield
        finally:
            self._remove()

    def real(self) -> ModuleType:
        """Load the real module; the stand-in gets its attributes too."""
        self._remove()
        module = importlib.import_module(self.__name__)
        self.__dict__.update(vars(module))
        return module

    def _remove(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        name = self.__name__.rpartition(".")[2]
        if self._package is not None and vars(self._package).get(name) is self:
            delattr(self._package, name)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)


class _Shapes(_StandIn):
    """Stand-in for ``torch.fx.experimental.symbolic_shapes`` with plain numbers; other arguments load the real module."""

    def __getattr__(self, name: str) -> Any:
        if not name[0].islower():
            return super().__getattr__(name)

        def evaluate(*values: Any) -> Any:
            numbers = (number for value in values for number in (value if isinstance(value, tuple | list) else (value,)))
            if name in _PLAIN_RESULTS and all(isinstance(number, int) for number in numbers):
                return _PLAIN_RESULTS[name](*values)
            return getattr(self.real(), name)(*values)

        return evaluate


class _Finder(MetaPathFinder):
    """Loads the real module when a submodule of a stand-in is imported."""

    def __init__(self, stand_in: _StandIn) -> None:
        self._stand_in = stand_in

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Load the real module, then find the submodule."""
        if not fullname.startswith(f"{self._stand_in.__name__}."):
            return None
        self._stand_in.real()
        return find_spec(fullname)


def _stand_ins() -> tuple[_StandIn, ...]:
    """Return stand-ins for the compiler, index-function masks, symbolic shapes, sympy and sharded tensors."""
    decorators = dict.fromkeys(("disable", "allow_in_graph", "assume_constant_result"), _no_op_decorator)

    def indexing() -> Any:
        compiler.real()
        return importlib.import_module(INDEXING).TransformGetItemToIndex()

    compiler = _StandIn(COMPILER, decorators)
    masks = _StandIn(INDEXING, {"TransformGetItemToIndex": indexing})
    # nothing is an expression or a sharded tensor before the real module is loaded
    algebra = _StandIn("sympy", {"Basic": type("Basic", (), {})})
    sharded = _StandIn(SHARDED, {"DTensor": type("DTensor", (), {})})
    return compiler, masks, _Shapes(SHAPES, {}), algebra, sharded
