"""What may be wrong with a row, by class, and what is done about each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from sftchat.errors import UsageError, unknown

Policy = Literal["fail", "drop", "keep"]
"""``fail`` makes a check fail, ``drop`` leaves the row out of the cleaned file, ``keep`` only reports it."""

POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True)
class Kind:
    """A class of problems.

    Attributes:
        description: One line.
        policy: What is done unless the user says otherwise.
        keepable: The row can be read, so that it can be kept.
    """

    description: str
    policy: Policy = "fail"
    keepable: bool = True


KINDS: Mapping[str, Kind] = {
    "malformed": Kind("no JSON object in UTF-8, or a file that breaks off", keepable=False),
    "invalid": Kind("a shape that is not known, or turns that are empty, out of order or of unknown roles", keepable=False),
    "unwanted": Kind("a reply that its author marks as one to avoid, such as label: false", keepable=False),
    "no-reply": Kind("no assistant turn, so nothing to learn from"),
    "unanswered": Kind("a last turn without a reply after earlier replies", policy="keep"),
    "cut-off": Kind("a reply that hit the token limit of who generated it, so that its end is no end"),
    "special-token": Kind("a template's marker as text in a turn: the row was rendered before, or the reply quotes one"),
    "template-token": Kind("a template's token in a text row, which is learned as it stands", policy="keep"),
    "control-character": Kind("a control character such as ESC or NUL", policy="keep"),
    "duplicate-id": Kind("an id that stands twice"),
    "duplicate": Kind("the same row again"),
    "near-duplicate": Kind("nearly the same row again", policy="keep"),
    "conflict": Kind("the same prompt again with another reply"),
    "length": Kind("more tokens than the longest row may have"),
    "template": Kind("turns that the model's chat template refuses, or cannot be trained on"),
    "leak": Kind("a prompt that stands, or nearly, in a file to be checked against"),
    "task": Kind("what the task finds wrong"),
}
"""Every class by name."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: A key of ``KINDS``.
        source: Where: ``file:line``, or ``file`` where the whole of it is meant.
        message: What, in one line.
    """

    kind: str
    source: str
    message: str

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.source}: {self.message}"


def parse_policies(pairs: Iterable[str]) -> dict[str, Policy]:
    """The policy of every class: the user's ``CLASS=POLICY`` over the defaults.

    Raises:
        UsageError: For a pair without ``=``, a class or policy that does not exist, a class given twice, or one whose rows cannot be kept.
    """
    policies = {name: kind.policy for name, kind in KINDS.items()}
    given: set[str] = set()
    for pair in pairs:
        name, equals, word = (part.strip() for part in pair.partition("="))
        if not equals:
            raise UsageError(f"policy '{pair}' must be CLASS=fail, CLASS=drop or CLASS=keep, such as near-duplicate=drop")
        if name not in KINDS:
            raise UsageError(unknown("class of problems", name, KINDS))
        policy = next((policy for policy in POLICIES if policy == word), None)
        if policy is None:
            raise UsageError(unknown("policy", word, POLICIES))
        if name in given:
            raise UsageError(f"policy of {name} is given twice; give it once")
        if policy == "keep" and not KINDS[name].keepable:
            raise UsageError(f"rows that are {name} cannot be read, so not kept; give {name}=fail or {name}=drop")
        given.add(name)
        policies[name] = policy
    return policies
