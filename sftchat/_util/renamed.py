"""Former names of public fields and attributes: accepted with a deprecation warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


def former_names(**current: str) -> Callable[[C], C]:
    """Return a class decorator that accepts former names, as keyword arguments of the constructor and as attributes.

    Args:
        current: The present name for each former name, such as ``problems="validate_row"``.
    """

    def decorate(cls: C) -> C:
        if "__init__" in vars(cls):
            setattr(cls, "__init__", former_arguments(cls.__name__, **current)(vars(cls)["__init__"]))  # noqa: B010  # mypy refuses `cls.__init__ = …`
        for former, name in current.items():
            setattr(cls, former, property(functools.partial(_read_renamed, cls.__name__, former, name)))
        return cls

    return decorate


def former_arguments(function_name: str, **current: str) -> Callable[[F], F]:
    """Return a decorator that accepts former names of keyword arguments.

    Args:
        function_name: What the warning calls the function.
        current: The present name for each former name.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def accept_former_names(*args: Any, **arguments: Any) -> Any:
            for former in current.keys() & arguments.keys():
                warn_renamed(f"{function_name}({former}=…)", f"{current[former]}=…")
                arguments[current[former]] = arguments.pop(former)
            return function(*args, **arguments)

        return cast("F", accept_former_names)

    return decorate


def warn_renamed(old_name: str, new_name: str, *, stacklevel: int = 2) -> None:
    """Warn that a public name has changed.

    Args:
        old_name: Name that was used.
        new_name: Name to use instead.
        stacklevel: Position of the warning: 1 is the caller of this function, 2 is the caller of that function, and so on.
    """
    warnings.warn(f"{old_name} is deprecated, use {new_name}", DeprecationWarning, stacklevel=stacklevel + 1)


def _read_renamed(owner: str, former: str, name: str, instance: Any) -> Any:
    warn_renamed(f"{owner}.{former}", name, stacklevel=2)
    return getattr(instance, name)
