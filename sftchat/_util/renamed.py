"""Former names of public fields and attributes: accepted with a deprecation warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def former_names(**current: str) -> Callable[[C], C]:
    """Return a class decorator that accepts former names, as keyword arguments of the constructor and as attributes.

    Args:
        current: The present name for each former name, such as ``problems="validate_row"``.
    """

    def decorate(cls: C) -> C:
        init: Callable[..., None] = vars(cls).get("__init__", object.__init__)

        @functools.wraps(init)
        def accept_former_names(self: Any, *args: Any, **arguments: Any) -> None:
            for former in current.keys() & arguments.keys():
                warn_renamed(f"{cls.__name__}({former}=…)", f"{current[former]}=…", stacklevel=3)
                arguments[current[former]] = arguments.pop(former)
            init(self, *args, **arguments)

        if "__init__" in vars(cls):
            setattr(cls, "__init__", accept_former_names)  # noqa: B010  # mypy refuses the plain assignment
        for former, name in current.items():
            setattr(cls, former, property(functools.partial(_read, cls.__name__, former, name)))
        return cls

    return decorate


def warn_renamed(old_name: str, new_name: str, *, stacklevel: int = 2) -> None:
    """Warn that a public name has changed.

    Args:
        old_name: Name that was used.
        new_name: Name to use instead.
        stacklevel: As for ``warnings.warn`` called by the caller of this function.
    """
    warnings.warn(f"{old_name} is deprecated, use {new_name}", DeprecationWarning, stacklevel=stacklevel + 1)


def _read(owner: str, former: str, name: str, instance: Any) -> Any:
    warn_renamed(f"{owner}.{former}", name, stacklevel=2)
    return getattr(instance, name)
