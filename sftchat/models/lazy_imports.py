"""Import transformers' models without the compiler and the sharding that they import for models that are compiled or sharded.

Of the seconds between a command and its first token on a CPU most go into ``import``. More than half of those are ``torch._dynamo``, which transformers
5.23 loads for decorators that tell a compiler what to do, ``torch.distributed.tensor`` and accelerate, which it uses for models on several devices,
sympy, which the shapes of these two are written in, and ``scipy.optimize``, for the losses of object detectors. transformers runs where the libraries are
missing, so it is told that they are; the compiler is replaced by a stand-in whose decorators change nothing, until somebody asks it for anything else
and gets the real one.

What was imported so cannot shard or dispatch a model in this process any more: this is for programs that answer and leave, not for a notebook.
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
HIDDEN = ("is_torch_distributed_available", "is_torch_flex_attn_available", "is_accelerate_available", "is_scipy_available")
"""What transformers asks before it imports a library that it can do without."""
SEVERAL_PROCESSES = ("WORLD_SIZE", "RANK", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Variables of launchers; the processes they start may shard a model and get everything."""


_ANSWERS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys(
        ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "guarding_hint_or_throw", "statically_known_true"),
        lambda value: value,
    ),
    "has_guarding_hint": lambda _: True,
    "is_nested_int": lambda _: False,
    "sym_eq": lambda one, other: one == other,
    "sym_and": lambda first, *rest: first and all(rest),
    "sym_or": lambda first, *rest: first or any(rest),
}
"""What torch asks about sizes and conditions, and the answer for plain numbers."""


@contextmanager
def deferred_imports() -> Iterator[None]:
    """Whatever is imported from transformers in this block leaves out what a single process that compiles nothing never calls.

    Does nothing where the compiler is loaded already, or under a launcher of several processes.
    """
    if COMPILER in sys.modules or any(name in os.environ for name in SEVERAL_PROCESSES):
        yield
        return
    import torch
    from transformers import utils
    from transformers.utils import import_utils

    with ExitStack() as stack:
        stack.callback(_on_demand, torch.distributed, SHARDED)
        for module in (utils, import_utils):
            for name in HIDDEN:
                stack.enter_context(_replaced(module, name, _unavailable))
        stack.enter_context(_replaced(torch.compiler, "disable", _unchanged))
        for stand_in in _stand_ins():
            stack.enter_context(stand_in.standing())
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Another attribute of a module for a while."""
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
    """Import a submodule when somebody takes it for granted: peft asks for that of sharded tensors without an import of its own."""

    def attribute(wanted: str) -> Any:
        if name == f"{package.__name__}.{wanted}":
            return importlib.import_module(name)
        raise AttributeError(f"module '{package.__name__}' has no attribute '{wanted}'")

    package.__dict__["__getattr__"] = attribute


def _unavailable() -> bool:
    """What transformers is told of a library that it can do without."""
    return False


def _unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator that leaves a function as it is, with arguments or without."""
    return function if function is not None else lambda decorated: decorated


class _StandIn(ModuleType):
    """A module of which only what is given is there; any other attribute or submodule brings in the real one.

    Args:
        name: The module's.
        given: Attributes that can be had without it.
    """

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # so that finders are asked for submodules
        self.__dict__.update(given)
        self._finder = _Finder(self)
        self._package: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system looks for
            raise AttributeError(name)
        return getattr(self.real(), name)

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Stand where the module would."""
        sys.modules[self.__name__] = self
        sys.meta_path.insert(0, self._finder)
        package, _, name = self.__name__.rpartition(".")
        self._package = sys.modules.get(package)
        if self._package is not None:
            setattr(self._package, name, self)
        try:
            yield
        finally:
            self._leave()

    def real(self) -> ModuleType:
        """The module itself; whoever holds the stand-in has it too from now on."""
        self._leave()
        module = importlib.import_module(self.__name__)
        self.__dict__.update(vars(module))
        return module

    def _leave(self) -> None:
        """Leave no trace."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        name = self.__name__.rpartition(".")[2]
        if self._package is not None and vars(self._package).get(name) is self:
            delattr(self._package, name)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)


class _Shapes(_StandIn):
    """``torch.fx.experimental.symbolic_shapes`` for shapes made of plain numbers; functions ask the real one about others, and only when called."""

    def __getattr__(self, name: str) -> Any:
        if not name[0].islower():
            return super().__getattr__(name)

        def ask(*values: Any) -> Any:
            numbers = (number for value in values for number in (value if isinstance(value, tuple | list) else (value,)))
            if name in _ANSWERS and all(isinstance(number, int) for number in numbers):
                return _ANSWERS[name](*values)
            return getattr(self.real(), name)(*values)

        return ask


class _Finder(MetaPathFinder):
    """Notices that somebody imports a submodule of what a stand-in stands for."""

    def __init__(self, stand_in: _StandIn) -> None:
        self._stand_in = stand_in

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Bring in the real module, then say where the submodule is."""
        if not fullname.startswith(f"{self._stand_in.__name__}."):
            return None
        self._stand_in.real()
        return find_spec(fullname)


def _stand_ins() -> tuple[_StandIn, ...]:
    """Those of the compiler, of its masks written as functions of an index, of unknown shapes, of their algebra, of tensors on several devices."""
    decorators = dict.fromkeys(("disable", "allow_in_graph", "assume_constant_result"), _unchanged)

    def indexing() -> Any:
        compiler.real()
        return importlib.import_module(INDEXING).TransformGetItemToIndex()

    compiler = _StandIn(COMPILER, decorators)
    masks = _StandIn(INDEXING, {"TransformGetItemToIndex": indexing})
    # no expression and no sharded tensor exists as long as nobody has made one
    algebra = _StandIn("sympy", {"Basic": type("Basic", (), {})})
    sharded = _StandIn(SHARDED, {"DTensor": type("DTensor", (), {})})
    return compiler, masks, _Shapes(SHAPES, {}), algebra, sharded
