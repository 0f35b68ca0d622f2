"""``--config FILE``: the options of a command from TOML or YAML, by the names of its flags; flags that are typed win."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, time
from itertools import islice
from pathlib import Path
from typing import Any

import click

from sftchat._util.parsing import read_text
from sftchat.errors import DataError, MissingExtraError, UsageError, unknown

NOT_IN_FILES = ("config", "help")
MOST_PIECES = 10_000
"""Numbers, texts and brackets of a value; aliases of YAML can make a few lines billions of them."""


def read_config(path: Path) -> Mapping[str, Any]:
    """The keys and values of a file.

    Raises:
        UsageError: When it is neither TOML nor YAML by its name.
        DataError: When it cannot be read, or holds no table of keys.
        MissingExtraError: For YAML, when no reader of it is installed.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}", str(path)) from error
    if path.suffix == ".toml":
        import tomllib

        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"is not TOML: {error}", str(path)) from error
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"config '{path}' must end in .toml, .yaml or .yml")
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("a config in YAML") from error
    try:
        found = yaml.load(text, _loader())
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # a date that no calendar has, a key that is a list
        raise DataError(f"is not YAML: {' '.join(str(error).split())}", str(path)) from error
    if not isinstance(found, dict):
        raise DataError("is no table of keys and values", str(path))
    return found


def _loader() -> Any:
    """PyYAML's safe loader with the booleans of YAML 1.2, ``true`` and ``false`` alone: in 1.1 ``packing: on`` would be a boolean and no word."""
    import yaml

    tag = "tag:yaml.org,2002:bool"

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Reads ``on``, ``off``, ``yes`` and ``no`` as text."""

    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    Loader.yaml_implicit_resolvers = {first: [one for one in known if one[0] != tag] for first, known in resolvers.items()}
    Loader.add_implicit_resolver(tag, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
    return Loader


def apply_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Make the values of a file the defaults of a command's options: the callback of an eager ``--config``.

    Raises:
        UsageError: For a key that is no option, naming the nearest.
        DataError: For a value that is a table where none belongs.
    """
    if path is None:
        return None
    parameters = {_key(parameter): parameter for parameter in context.command.params}
    known = {key: parameter for key, parameter in parameters.items() if key not in NOT_IN_FILES}
    defaults: dict[str, Any] = {}
    for key, value in read_config(path).items():
        name = str(key).replace("_", "-")
        if name not in known:
            raise UsageError(f"{path}: {unknown('key', str(key), known)}")
        parameter = known[name]
        assert parameter.name is not None
        defaults[parameter.name] = _value(path, name, value, parameter)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _key(parameter: click.Parameter) -> str:
    """What a parameter is called in a file: its long flag without the dashes, or an argument's name."""
    flag = next((name[2:] for name in parameter.opts if name.startswith("--")), None)
    return flag or str(parameter.metavar or parameter.name).strip("[]").lower()


def _value(path: Path, name: str, value: Any, parameter: click.Parameter) -> Any:
    """A value as the flag would have it; what may be given several times is a list, or a table of ``NAME=VALUE``."""
    if parameter.multiple if isinstance(parameter, click.Option) else False:
        if isinstance(value, dict):
            return [f"{key}={_text(path, name, one)}" for key, one in value.items()]
        return [_text(path, name, one) for one in (value if isinstance(value, list) else [value])]
    if isinstance(value, (dict, list)):
        raise DataError(f"key '{name}' must have one value, not a {'table' if isinstance(value, dict) else 'list'}", str(path))
    return None if value is None else _text(path, name, value)


def _text(path: Path, name: str, value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, (str, date, time)):
        return str(value)
    try:
        pieces = json.JSONEncoder(default=str).iterencode(value)
        text = "".join(islice(pieces, MOST_PIECES))
        if next(pieces, None) is None:
            return text
        reason = "too large"
    except (ValueError, TypeError, RecursionError) as error:  # an alias of YAML that leads to itself, a key that is a date
        reason = str(error)
    raise DataError(f"the value of key '{name}' cannot be an option: {reason}", str(path))
