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

COMMAND_LINE_ONLY = ("allow-code", "config", "help")
MAX_JSON_PARTS = 10_000
"""Maximum number of parts in which the JSON of a value is generated; YAML aliases can expand a few lines to billions of them."""


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
        content = yaml.load(text, _yaml_loader())
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # ValueError: an invalid date; TypeError: a list as a key
        raise DataError(f"is not YAML: {' '.join(str(error).split())}", str(path)) from error
    if not isinstance(content, dict):
        raise DataError("is no table of keys and values", str(path))
    return content


def _yaml_loader() -> Any:
    """Return PyYAML's safe loader, changed to the booleans of YAML 1.2: in YAML 1.1, ``packing: on`` would be a boolean."""
    import yaml

    boolean = "tag:yaml.org,2002:bool"

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Reads ``on``, ``off``, ``yes`` and ``no`` as text."""

    # by the first character of a scalar, pairs of a tag and a pattern for scalars with this tag
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in pairs if tag != boolean] for first, pairs in resolvers.items()
    }
    Loader.add_implicit_resolver(boolean, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
    return Loader


def apply_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Use the values of a file as defaults of a command's options; callback of the eager ``--config``.

    Raises:
        UsageError: For an unknown key, or a file name without the suffix of TOML or YAML.
        DataError: When the file cannot be read, is malformed or is not a table; for a list or a table as the value of an option that takes one
            value, and for a value that cannot be written as option text.
        MissingExtraError: For YAML, when PyYAML is not installed.
    """
    if path is None:
        return None
    parameters = {_config_key(parameter): parameter for parameter in context.command.params}
    allowed = {key: parameter for key, parameter in parameters.items() if key not in COMMAND_LINE_ONLY}
    defaults: dict[str, Any] = {}
    for key, value in read_config(path).items():
        name = str(key).replace("_", "-")
        if name not in allowed:
            raise UsageError(f"{path}: {unknown_name_message('key', str(key), allowed)}")
        parameter = allowed[name]
        assert parameter.name is not None
        defaults[parameter.name] = _to_option_value(path, name, value, parameter)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _config_key(parameter: click.Parameter) -> str:
    """Return the key of a parameter in a file: its long flag without the dashes, else its name."""
    flag = next((name[2:] for name in parameter.opts if name.startswith("--")), None)
    return flag or str(parameter.metavar or parameter.name).strip("[]").lower()


def _to_option_value(path: Path, name: str, value: Any, parameter: click.Parameter) -> Any:
    """Return a value of the file as the default of a parameter; a repeatable option takes one value, a list, or a table for ``NAME=VALUE``."""
    if isinstance(parameter, click.Option) and parameter.multiple:
        if isinstance(value, dict):
            return [f"{key}={_to_option_text(path, name, member)}" for key, member in value.items()]
        return [_to_option_text(path, name, member) for member in (value if isinstance(value, list) else [value])]
    if isinstance(value, (dict, list)):
        raise DataError(f"key '{name}' must have one value, not a {'table' if isinstance(value, dict) else 'list'}", str(path))
    return None if value is None else _to_option_text(path, name, value)


def _to_option_text(path: Path, name: str, value: Any) -> str:
    """Return a value as it would be typed on the command line: text and dates as they are, anything else as JSON."""
    if isinstance(value, (str, date, time)):
        return str(value)
    try:
        json_parts = json.JSONEncoder(default=str).iterencode(value)
        text = "".join(islice(json_parts, MAX_JSON_PARTS))
        if next(json_parts, None) is None:
            return text
        reason = "too large"
    except (ValueError, TypeError, RecursionError) as error:  # a recursive YAML alias, a date as a key
        reason = str(error)
    raise DataError(f"the value of key '{name}' cannot be an option: {reason}", str(path))
