"""Errors for Python users: messages that name an option of the command line name the argument of the function instead.

The functions of ``sftchat`` and the commands share their checks, whose messages are written for the command line. ``--strict needs --baseline FILE``
becomes ``strict=True needs baseline=FILE``. Text in quotes, such as a command, a file name or a user's value, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from sftchat.errors import DataError, SftchatError

P = ParamSpec("P")
T = TypeVar("T")

FLAGS = frozenset("strict overwrite fresh self_check force resume trust_remote_code allow_pickle allow_code gradient_checkpointing".split())
"""Arguments that are True or False."""
MAPPINGS = {"--min": "floors", "--min-lower": "lower_floors", "--map": "columns", "--replay": "replay", "--option": "options"}
"""Options whose values ``NAME=VALUE`` are entries of a dict in Python."""
RENAMED = {"-o": "output", "-k": "samples", "--evalset": "evalset", "--data": "data"}
"""Options whose argument has another name."""
SAME_NAME = frozenset(
    "--against --allow-code --allow-pickle --base --baseline --batch-size --cluster --device --dtype --eval-steps --extra-body --force --fresh "
    "--few-shot --gate --gradient-checkpointing --judge --limit --max-length --max-new-tokens --method --min-drop --must-pass --neftune-alpha "
    "--optimizer --overwrite --patience --precision --quantize --replies --request-timeout --resume --rows --rubric --samples --self-check --seed "
    "--strict --system --task --temperature --template --template-argument --template-name --timeout --trust-remote-code --update-baseline "
    "--accumulation --validation --validation-items".split()
)
"""Options whose argument has the same name, with ``_`` for ``-``."""
_SINGULAR = {"template_argument": "template_arguments"}
_QUOTED = r"(?<!\w)'[^']*'(?!\w)"
_VALUE = r"[A-Z][A-Z|…,]*(?![\w=])|\d+(?:\.\d+)?(?![\w,])|(?:cpu|float32|bfloat16|int8|nf4|qlora|lora)\b"
_OPTION = re.compile(rf"({_QUOTED})|(?<![\w-])(--[a-z][a-z0-9-]*[a-z0-9]|-[ok]\b)(?: (\w+)=((?:'[^']*'|[^\s,;)])+)|[ ]({_VALUE}))?")


def in_python(message: str) -> str:
    """Return a message with the arguments of the Python functions in place of options of the command line."""
    return _OPTION.sub(_replace, message)


def _replace(match: re.Match[str]) -> str:
    quoted, option, key, entry, value = match.groups()
    if quoted or not (option in SAME_NAME or option in MAPPINGS or option in RENAMED):
        return match[0]
    name = MAPPINGS.get(option) or RENAMED.get(option) or option[2:].replace("-", "_")
    name = _SINGULAR.get(name, name)
    if key is not None:
        literal = entry.capitalize() if entry in ("true", "false") else entry
        shown = literal if option in ("--min", "--min-lower", "--replay") or literal != entry else f'"{entry}"'
        return f'{name}={{"{key}": {shown}}}'
    if name in FLAGS and value is None:
        return f"{name}=True"
    if value is None:
        return name
    return f"{name}={value if value[0].isdigit() or value[0].isupper() else repr(value)}"


@contextmanager
def python_messages() -> Iterator[None]:
    """Reword the message and the notes of an ``SftchatError`` that leaves the block."""
    try:
        yield
    except SftchatError as error:
        if isinstance(error, DataError):
            error.message = in_python(error.message)
        error.args = tuple(in_python(part) if isinstance(part, str) else part for part in error.args)
        raise


def for_python(call: Callable[P, T]) -> Callable[P, T]:
    """Decorate a public function: its errors name arguments, not options."""

    @wraps(call)
    def reworded(*args: P.args, **kwargs: P.kwargs) -> T:
        with python_messages():
            return call(*args, **kwargs)

    return reworded
