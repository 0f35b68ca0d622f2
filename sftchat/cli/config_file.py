"""``--config FILE``: read a command's options from TOML or YAML, by flag name; typed flags take precedence."""

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
from sftchat.errors import DataError, MissingExtraError, UsageError, unknown_name_message

NOT_IN_FILES = ("config", "help")
MOST_PIECES = 10_000
"""Maximum number of scalars and containers in a value; YAML aliases can expand a few lines to billions of them."""


def read_config(path: Path) -> Mapping[str, Any]:
    """Read the keys and values of a config file.

    Raises:
        UsageError: When the suffix is neither TOML's nor YAML's.
        DataError: When it cannot be read or is not a table of keys.
        MissingExtraError: For YAML, when PyYAML is not installed.
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
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # an impossible date, a list as a key
        raise DataError(f"is not YAML: {' '.join(str(error).split())}", str(path)) from error
    if not isinstance(found, dict):
        raise DataError("is no table of keys and values", str(path))
    return found


def _loader() -> Any:
    """Return PyYAML's safe loader with the booleans of YAML 1.2: in YAML 1.1, ``packing: on`` would be a boolean."""
    import yaml

    tag = "tag:yaml.org,2002:bool"

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Reads ``on``, ``off``, ``yes`` and ``no`` as text."""

    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    Loader.yaml_implicit_resolvers = {first: [one for one in known if one[0] != tag] for first, known in resolvers.items()}
    Loader.add_implicit_resolver(tag, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
    return Loader


def apply_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Use the values of a file as defaults of a command's options; callback of the eager ``--config``.

    Raises:
        UsageError: For an unknown key, with the nearest option.
        DataError: For a table where none is allowed.
    """
    if path is None:
        return None
    parameters = {_key(parameter): parameter for parameter in context.command.params}
    known = {key: parameter for key, parameter in parameters.items() if key not in NOT_IN_FILES}
    defaults: dict[str, Any] = {}
    for key, value in read_config(path).items():
        name = str(key).replace("_", "-")
        if name not in known:
            raise UsageError(f"{path}: {unknown_name_message('key', str(key), known)}")
        parameter = known[name]
        assert parameter.name is not None
        defaults[parameter.name] = _value(path, name, value, parameter)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _key(parameter: click.Parameter) -> str:
    """Return a parameter's key in a file: its long flag without the dashes, or the argument's name."""
    flag = next((name[2:] for name in parameter.opts if name.startswith("--")), None)
    return flag or str(parameter.metavar or parameter.name).strip("[]").lower()


def _value(path: Path, name: str, value: Any, parameter: click.Parameter) -> Any:
    """Convert a value to that of the flag; a repeatable option takes a list, or a table for ``NAME=VALUE``."""
    if parameter.multiple if isinstance(parameter, click.Option) else False:
        if isinstance(value, dict):
            return [f"{key}={_text(path, name, one)}" for key, one in value.items()]
        return [_text(path, name, one) for one in (value if isinstance(value, list) else [value])]
    if isinstance(value, (dict, list)):
        raise DataError(f"key '{name}' must have one value, not a {'table' if isinstance(value, dict) else 'list'}", str(path))
    return None if value is None else _text(path, name, value)


def _text(path: Path, name: str, value: Any) -> str:
    """Return a value as typed on the command line."""
    if isinstance(value, (str, date, time)):
        return str(value)
    try:
        pieces = json.JSONEncoder(default=str).iterencode(value)
        text = "".join(islice(pieces, MOST_PIECES))
        if next(pieces, None) is None:
            return text
        reason = "too large"
    except (ValueError, TypeError, RecursionError) as error:  # a recursive YAML alias, a date as a key
        reason = str(error)
    raise DataError(f"the value of key '{name}' cannot be an option: {reason}", str(path))
