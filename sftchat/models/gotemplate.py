"""Evaluates the subset of Go's text/template (pkg.go.dev/text/template) used in our Modelfiles, to verify the prompts of Ollama.

Supported: text, ``{{ value }}``, ``if``, ``else if``, ``else``, ``range``, ``end``, trim markers, fields of the dot and of variables, string and
integer literals, and the functions and, or, not, eq, ne, lt, le, gt, ge, len. Anything else raises an error.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ACTION = re.compile(r"(\s*\{\{- |\{\{)(.*?)( -\}\}\s*|\}\})", re.DOTALL)
"""An action ``{{ … }}``, with the whitespace that its trim markers remove."""
WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|-?\d+|\$?(?:\.?[A-Za-z_]\w*)+|\$|\.|[(),]|:=)')
"""A word of an action: string, integer, name or field, ``$``, ``.``, parenthesis, comma or ``:=``."""
Scope = Mapping[str, Any]


class GoTemplateError(ValueError):
    """A template outside the supported subset, or one that Go would refuse too."""


@dataclass(frozen=True)
class Node:
    """A node of a template.

    Attributes:
        kind: ``text``, ``output``, ``if`` or ``range``.
        value: The text, or the words of the expression.
        body: Content of an ``if`` or ``range``.
        otherwise: Content after ``else``.
    """

    kind: str
    value: Any
    body: tuple[Node, ...] = ()
    otherwise: tuple[Node, ...] = ()


def evaluate(source: str, data: Scope) -> str:
    """Run a template.

    Args:
        source: The template.
        data: Fields of the dot, such as ``{"System": "", "Messages": [{"Role": "user", "Content": "hi"}]}``.

    Raises:
        GoTemplateError: When it is malformed, or outside the supported subset.
    """
    try:
        pieces = list(_split_template(source))
        nodes, end = _parse(pieces, 0)
        if end < len(pieces):
            raise GoTemplateError(f"unexpected {{{{ {' '.join(pieces[end][1])} }}}}")
        return "".join(_render(nodes, data, {"$": data}))
    except GoTemplateError:
        raise
    except (TypeError, ValueError, LookupError, RecursionError) as error:  # wrong operands, or a string that is invalid in Go
        raise GoTemplateError(f"cannot be evaluated: {error}") from error


def literal(text: str) -> str:
    """Return template source that evaluates to a text, whatever follows it."""
    return re.sub(r"\{{2,}|\{$", lambda braces: f'{{{{ "{braces[0]}" }}}}', text)


def _split_template(source: str) -> Iterator[tuple[str, Any]]:
    """Yield ``("text", text)`` and ``("action", words)``, after trimming at ``{{- `` and `` -}}``."""
    last_end = 0
    for match in ACTION.finditer(source):
        if match.start() > last_end:
            yield "text", source[last_end : match.start()]
        yield "action", _split_action(match.group(2))
        last_end = match.end()
    if "{{" in source[last_end:]:
        raise GoTemplateError("an action is not closed")
    if source[last_end:]:
        yield "text", source[last_end:]


def _split_action(action: str) -> list[str]:
    words, position = [], 0
    while action[position:].strip():
        match = WORD.match(action, position)
        if match is None:
            raise GoTemplateError(f"cannot read {action[position:].strip()!r}")
        words.append(match.group(1))
        position = match.end()
    return words


def _parse(pieces: Sequence[tuple[str, Any]], index: int) -> tuple[tuple[Node, ...], int]:
    """Return the nodes before the next unmatched ``else`` or ``end``, and the index of that piece, or of the end of the template."""
    nodes: list[Node] = []
    while index < len(pieces):
        kind, value = pieces[index]
        if kind == "text":
            nodes.append(Node("text", value))
        elif value[:1] in (["else"], ["end"]):
            break
        elif value[:1] in (["if"], ["range"]):
            node, index = _parse_block(pieces, index, value[0], value[1:])
            nodes.append(node)
        elif value:
            nodes.append(Node("output", value))
        else:
            raise GoTemplateError("an action is empty")
        index += 1
    return tuple(nodes), index


def _parse_block(pieces: Sequence[tuple[str, Any]], index: int, kind: str, words: list[str]) -> tuple[Node, int]:
    """Return an ``if`` or ``range`` with its content, and the index of its ``end``."""
    body, index = _parse(pieces, index + 1)
    otherwise: tuple[Node, ...] = ()
    if index < len(pieces) and pieces[index][1][0] == "else":
        following = pieces[index][1][1:]
        if following[:1] == ["if"]:
            inner, index = _parse_block(pieces, index, "if", following[1:])
            return Node(kind, words, body, (inner,)), index
        otherwise, index = _parse(pieces, index + 1)
    if index >= len(pieces) or pieces[index][1] != ["end"]:
        raise GoTemplateError(f"{{{{ {kind} }}}} has no {{{{ end }}}}")
    return Node(kind, words, body, otherwise), index


def _render(nodes: Sequence[Node], dot: Any, variables: Scope) -> Iterator[str]:
    for node in nodes:
        if node.kind == "text":
            yield node.value
        elif node.kind == "output":
            value = _evaluate(node.value, dot, variables)
            yield str(value).lower() if isinstance(value, bool) else str(value)
        elif node.kind == "if":
            yield from _render(node.body if _evaluate(node.value, dot, variables) else node.otherwise, dot, variables)
        else:
            yield from _render_range(node, dot, variables)


def _render_range(node: Node, dot: Any, variables: Scope) -> Iterator[str]:
    """Render ``range LIST``, ``range $item := LIST`` or ``range $index, $item := LIST``."""
    names, expression = [], node.value
    if ":=" in expression:
        assignment = expression.index(":=")
        names, expression = [word for word in expression[:assignment] if word != ","], expression[assignment + 1 :]
    items = list(_evaluate(expression, dot, variables))
    for index, item in enumerate(items):
        assigned = dict(zip(names, (index, item), strict=True)) if len(names) == 2 else dict.fromkeys(names, item)
        yield from _render(node.body, item, {**variables, **assigned})
    if not items:
        yield from _render(node.otherwise, dot, variables)


def _evaluate(words: Sequence[str], dot: Any, variables: Scope) -> Any:
    """Evaluate an expression: a single operand, or a function and its operands."""
    operands: list[Any] = []
    function: Callable[..., Any] | None = None
    index = 0
    while index < len(words):
        word = words[index]
        if word == "(":
            depth, end = 1, index + 1
            while depth and end < len(words):
                depth += {"(": 1, ")": -1}.get(words[end], 0)
                end += 1
            operands.append(_evaluate(words[index + 1 : end - 1], dot, variables))
            index = end
            continue
        if index == 0 and word in FUNCTIONS:
            function = FUNCTIONS[word]
        else:
            operands.append(_evaluate_operand(word, dot, variables))
        index += 1
    if function is not None:
        return function(*operands)
    if len(operands) != 1:
        raise GoTemplateError(f"cannot evaluate {' '.join(words)!r}")
    return operands[0]


def _evaluate_operand(word: str, dot: Any, variables: Scope) -> Any:
    if word[0] == '"':
        return json.loads(word)
    if word.lstrip("-").isdigit():
        return int(word)
    if word == ".":
        return dot
    name, *fields = word.split(".")  # the name is empty for a field of the dot
    if name not in ("", *variables) or (not name and not fields):
        raise GoTemplateError(f"unknown name {word!r}")
    value = variables[name] if name else dot
    for field in fields:
        if not isinstance(value, Mapping) or field not in value:
            raise GoTemplateError(f"no field {field!r} in {word!r}")
        value = value[field]
    return value


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "not": operator.not_,
    "eq": lambda first, *others: first in others,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "len": len,
}
