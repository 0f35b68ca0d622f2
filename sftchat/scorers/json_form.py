"""The scorer ``json_schema``, which checks the form of a reply in JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sftchat._util.parsing import expand_user, load_json, read_text
from sftchat.errors import MissingExtraError, UsageError, os_reason
from sftchat.scorers.base import ACCURACY, Scorer, with_reply_errors
from sftchat.scorers.json_text import find_json
from sftchat.scorers.json_values import VALID, json_problems
from sftchat.types import Example, Reply, Score


def json_schema(schema: Mapping[str, Any] | None = None, *, schema_file: str = "") -> Scorer:
    """Score whether a reply is JSON that satisfies a JSON Schema.

    With ``{"type": "object", "required": ["city"]}``, the reply ``{"city": "Rome"}`` is right, and ``{}`` is wrong (``invalid_required``). The error
    class names the keyword of the schema that the reply violates.

    Args:
        schema: The schema; its references must be within it.
        schema_file: Path of a JSON file with the schema, instead of ``schema``.

    Raises:
        UsageError: When not exactly one of them is given, or it is no valid schema.
        MissingExtraError: When the package ``jsonschema`` is not installed.
    """
    if (schema is None) == (not schema_file):
        raise UsageError("json_schema needs one of the arguments 'schema' and 'schema_file'")
    definition = schema if schema is not None else _read_schema(expand_user(schema_file))
    validator = _make_validator(definition)

    def violation(text: str) -> str:
        """Return the error class of a text; empty when it satisfies the schema."""
        from jsonschema.exceptions import best_match

        try:
            value = find_json(text)
        except ValueError:
            return "unparsable"
        error = best_match(validator.iter_errors(value))
        return f"invalid_{error.validator or 'value'}" if error is not None else ""

    def score(example: Example, reply: Reply) -> Score:
        error = violation(reply.text)
        counts = {"n": 1, "correct": int(not error), "valid": int(error != "unparsable")}
        return with_reply_errors(Score(counts, reply.text.strip(), (error,) if error else ()), reply)

    def validate_row(example: Example) -> Iterable[str]:
        problems = list(json_problems(example)) if example.gold else []
        if example.gold and not problems and (error := violation(example.gold)):
            problems.append(f"the gold reply does not satisfy the schema: {error.removeprefix('invalid_')}")
        return problems

    return Scorer("json_schema", score, (ACCURACY, VALID), validate_row, {"schema": definition})


def _read_schema(path: Path) -> Mapping[str, Any]:
    try:
        schema = load_json(read_text(path))
    except OSError as error:
        raise UsageError(f"cannot read the schema '{path}': {os_reason(error)}") from error
    except ValueError as error:
        raise UsageError(f"the schema '{path}' is no JSON: {error}") from error
    if not isinstance(schema, dict):
        raise UsageError(f"the schema '{path}' is no JSON object")
    return schema


def _make_validator(schema: Mapping[str, Any]) -> Any:
    """Return the validator of a schema, after a check of the schema and of its references."""
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012, UnknownDialect, specification_with
    except ImportError as error:
        raise MissingExtraError("the scorer json_schema", "schema") from error
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
        dialect = specification_with(str(schema["$schema"])) if "$schema" in schema else DRAFT202012
        identifier = str(schema.get("$id", ""))
        resolver = Registry().with_resource(identifier, dialect.create_resource(schema)).resolver(identifier)
        for reference in _references(schema):
            resolver.lookup(reference)
    except SchemaError as error:
        raise UsageError(f"the schema is invalid at '{error.json_path}': {error.message}") from error
    except Unresolvable as error:
        raise UsageError(f"the schema has a reference to '{error.ref}', which is not in it") from error
    except UnknownDialect as error:
        raise UsageError(f"the schema has the unknown $schema '{error.uri}'") from error
    validator = kind(schema, registry=Registry())  # an own registry, because the default one fetches references from the network
    try:
        validator.is_valid({})
    except RecursionError as error:
        raise UsageError("the schema refers to itself without end") from error
    return validator


def _references(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)
