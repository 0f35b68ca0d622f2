"""Imports transformers' models without the compiler and sharding modules that only compiled or sharded models need.

On a CPU, a command spends most of the time before its first token in ``import``. More than half of that is for modules that transformers 5.23 imports
and a single process without compilation never uses: ``torch._dynamo`` (compiler decorators), ``torch.distributed.tensor`` and accelerate (models on
several devices), sympy (symbolic shapes), ``scipy.optimize`` (losses of object detectors). transformers also works without accelerate and scipy, so its
checks whether they are installed return False here. The other modules are replaced by stand-ins, which load the real module on any access to what they
lack.

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

_RESULTS_FOR_INTEGERS: Mapping[str, Callable[..., int]] = {
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
"""torch's functions on symbolic sizes and conditions, as they are for integers."""


@contextmanager
def deferred_imports() -> Iterator[None]:
    """Import transformers within this block without compiler and sharding.

    Does nothing if the compiler is already loaded, or under a launcher of several processes.
    """
    if COMPILER in sys.modules or any(name in os.environ for name in LAUNCHER_VARIABLES):
        yield
        return
    import torch
    from transformers import utils
    from transformers.utils import import_utils

    with ExitStack() as stack:
        stack.callback(_import_on_access, torch.distributed, SHARDED)
        for module in (utils, import_utils):
            for name in HIDDEN_CHECKS:
                stack.enter_context(_replace_attribute(module, name, lambda: False))
        stack.enter_context(_replace_attribute(torch.compiler, "disable", _no_op_decorator))
        for stand_in in _create_stand_ins():
            stack.enter_context(stand_in.installed())
        yield


@contextmanager
def _replace_attribute(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute within the block; does nothing if the module, in another version of the library, has none of that name."""
    if not hasattr(module, name):
        yield
        return
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _import_on_access(package: ModuleType, submodule: str) -> None:
    """Make a package import a submodule on first access: peft uses ``torch.distributed.tensor`` without importing it."""

    def get_attribute(name: str) -> Any:
        if submodule == f"{package.__name__}.{name}":
            return importlib.import_module(submodule)
        raise AttributeError(f"module '{package.__name__}' has no attribute '{name}'")

    package.__dict__["__getattr__"] = get_attribute


def _no_op_decorator(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if function is not None else lambda decorated: decorated


class _StandIn(ModuleType):
    """A stand-in for a module; access to a submodule, or to an attribute not in ``attributes``, loads the real module."""

    def __init__(self, name: str, attributes: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # makes the import system use finders for submodules
        self.__dict__.update(attributes)
        self._finder = _Finder(self)
        self._package: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # looked up by the import system
            raise AttributeError(name)
        return getattr(self.load_real(), name)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the block, importing the module gives the stand-in."""
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

    def load_real(self) -> ModuleType:
        """Load the real module, and copy its attributes to the stand-in, to which other modules may hold references."""
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


class _SymbolicShapes(_StandIn):
    """Stand-in for ``torch.fx.experimental.symbolic_shapes``: its functions work for integers, and load the real module for other arguments."""

    def __getattr__(self, name: str) -> Any:
        if not name[0].islower():  # a class or a constant
            return super().__getattr__(name)

        def call(*arguments: Any) -> Any:
            numbers = (number for argument in arguments for number in (argument if isinstance(argument, tuple | list) else (argument,)))
            if name in _RESULTS_FOR_INTEGERS and all(isinstance(number, int) for number in numbers):
                return _RESULTS_FOR_INTEGERS[name](*arguments)
            return getattr(self.load_real(), name)(*arguments)

        return call


class _Finder(MetaPathFinder):
    """Loads the real module when a submodule of a stand-in is imported."""

    def __init__(self, stand_in: _StandIn) -> None:
        self._stand_in = stand_in

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Load the real module, then find the submodule."""
        if not fullname.startswith(f"{self._stand_in.__name__}."):
            return None
        self._stand_in.load_real()
        return find_spec(fullname)


def _create_stand_ins() -> tuple[_StandIn, ...]:
    """Return stand-ins for the compiler, its indexing of masks, symbolic shapes, sympy and sharded tensors."""
    decorators = dict.fromkeys(("disable", "allow_in_graph", "assume_constant_result"), _no_op_decorator)

    def create_index_transform() -> Any:
        compiler.load_real()
        return importlib.import_module(INDEXING).TransformGetItemToIndex()

    compiler = _StandIn(COMPILER, decorators)
    indexing = _StandIn(INDEXING, {"TransformGetItemToIndex": create_index_transform})
    # empty classes for isinstance checks: before the real module is loaded, no object is an expression or a sharded tensor
    algebra = _StandIn("sympy", {"Basic": type("Basic", (), {})})
    sharded = _StandIn(SHARDED, {"DTensor": type("DTensor", (), {})})
    return compiler, indexing, _SymbolicShapes(SHAPES, {}), algebra, sharded
