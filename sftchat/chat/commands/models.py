"""Commands that select models, adapters and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from sftchat._util.parsing import expand_user
from sftchat.chat.commands.arguments import complete_path_argument, whole_number
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.engine import OFF, Adapts
from sftchat.errors import UsageError, unknown_name_message

LOADED = "loaded"
"""Name that ``/adapter`` uses for the model as loaded."""


def _show_or_load_model(context: ChatContext, argument: str) -> None:
    """Show the models, or replace the model of the focused pane."""
    if not argument:
        lines = []
        for pane in context.panes:
            mark = "*" if pane is context.focus else " "
            adapter = f" with adapter {pane.adapter}" if pane.adapter else ""
            lines.append(f"{mark} {pane.name}{adapter}{f': {pane.summary}' if pane.summary else ''}")
        context.info("\n".join(lines))
        return

    def confirm() -> None:
        summary = f" ({context.focus.summary})" if context.focus.summary else ""
        context.info(f"{argument}{summary} answers from the next message on; /regen asks it the last one again")

    context.switch(argument, confirm)


def _complete_model(context: ChatContext, argument: str) -> Iterable[str]:
    from sftchat.models.reference import NANO
    from sftchat.models.runs import find_runs

    runs = [] if "/" in argument else [run.model for run in find_runs(Path())]
    return [NANO, *runs, *complete_path_argument(context, argument)]


def _choose_focus(context: ChatContext, argument: str) -> None:
    number = whole_number(argument, "N", context.conversation.pane + 1)
    if number > len(context.panes):
        raise UsageError(f"there is no model {number}: the conversation has {len(context.panes)}")
    context.conversation = context.conversation.seen_by(number - 1)
    context.info(f"model {number}: {context.focus.name}")


def _why_no_focus(context: ChatContext) -> str:
    return "" if len(context.panes) > 1 else "there is only one model; 'sftchat chat MODEL MODEL' chats with two"


def _complete_pane(context: ChatContext, argument: str) -> Iterable[str]:
    return [str(number) for number in range(1, len(context.panes) + 1)]


def _show_or_choose_adapter(context: ChatContext, argument: str) -> None:
    """Show the adapters, select or load one, or mix two."""
    pane, engine = context.focus, context.engine
    if not isinstance(engine, Adapts):
        raise UsageError(f"{pane.name} takes no adapters")
    if not argument:
        names = [LOADED, OFF, *(name for name in engine.adapters if name != OFF)]
        context.info("\n".join(f"{'*' if name == (pane.adapter or LOADED) else ' '} {name}" for name in names))
    elif argument in (LOADED, OFF, *engine.adapters):
        _select_adapter(context, "" if argument == LOADED else argument)
    elif "+" in argument:
        name, parts = _parse_sum(argument, engine.adapters)
        context.work(f"adding up {name}", lambda _, handle: _mix_adapters(engine, name, parts), lambda _: _select_adapter(context, name))
    elif expand_user(argument).is_dir():
        context.work(
            f"loading {argument}", lambda _, handle: engine.add_adapter(argument, argument), lambda _: _select_adapter(context, argument)
        )
    else:
        raise UsageError(unknown_name_message("adapter", argument, [LOADED, OFF, *engine.adapters]) + ", or the folder of one")


def _select_adapter(context: ChatContext, adapter: str) -> None:
    context.focus.adapter = adapter
    choice = f"adapter {adapter}" if adapter else "what was loaded"
    context.info(f"{context.focus.name} answers with {choice}; /regen asks the last message again")


def _mix_adapters(engine: Adapts, name: str, parts: dict[str, float]) -> None:
    """Create a weighted sum of adapters, unless it exists."""
    if name not in engine.adapters:
        engine.mix_adapters(name, parts)


def _parse_sum(argument: str, adapters: Iterable[str]) -> tuple[str, dict[str, float]]:
    """Parse a weighted sum: ``A+B 0.3`` is 0.7 of A and 0.3 of B.

    Returns:
        The name of the sum, and the weight of each adapter.

    Raises:
        UsageError: When an adapter is unknown or the weight is not a number from 0 to 1.
    """
    names, _, typed_weight = argument.partition(" ")
    first, _, second = names.partition("+")
    try:
        weight = float(typed_weight or 0.5)
    except ValueError:
        weight = -1.0  # not a number: refused below
    if not 0 <= weight <= 1:
        raise UsageError(f"weight is '{typed_weight}', must be from 0 (all {first}) to 1 (all {second})")
    for name in (first, second):
        if name not in adapters:
            raise UsageError(unknown_name_message("adapter", name, adapters))
    return f"{first}+{second} {weight:g}", {first: 1 - weight, second: weight}


def _complete_adapter(context: ChatContext, argument: str) -> Iterable[str]:
    engine = context.engine
    return [LOADED, OFF, *(engine.adapters if isinstance(engine, Adapts) else ()), *complete_path_argument(context, argument)]


def _list_or_load_checkpoint(context: ChatContext, argument: str) -> None:
    """List the checkpoints of the run, or generate a reply to the last message with another checkpoint."""
    from sftchat.models.reference import step_of
    from sftchat.models.runs import checkpoints_of_model, describe_checkpoint, find_current

    folders = checkpoints_of_model(context.focus.name)
    current_index = find_current(context.focus.name, folders)
    if not argument:
        lines = []
        for index, folder in enumerate(folders):
            lines.append(f"{'*' if index == current_index else ' '} {describe_checkpoint(folder)}  {folder}")
        context.info("\n".join(lines))
        return
    if argument in ("next", "prev"):
        start = -1 if current_index is None else current_index
        new_index = start + 1 if argument == "next" else start - 1
        if not 0 <= new_index < len(folders):
            raise UsageError(f"{context.focus.name} is the {'last' if argument == 'next' else 'first'} checkpoint of its run")
    else:
        step = whole_number(argument, "the step", minimum=0)
        steps = [step_of(folder) for folder in folders]
        if step not in steps:
            raise UsageError(f"the run has no checkpoint of step {step}; it has {', '.join(map(str, dict.fromkeys(steps)))}")
        new_index = steps.index(step)

    def generate_again() -> None:
        context.info(f"{folders[new_index]}: {describe_checkpoint(folders[new_index])}")
        if context.conversation.head:
            context.generate(context.conversation.unanswered())

    context.switch(folders[new_index], generate_again)


def _why_no_checkpoint(context: ChatContext) -> str:
    from sftchat.models.runs import checkpoints_of_model

    return "" if checkpoints_of_model(context.focus.name) else f"{context.focus.name} is no run with checkpoints"


def _complete_step(context: ChatContext, argument: str) -> Iterable[str]:
    from sftchat.models.reference import step_of
    from sftchat.models.runs import checkpoints_of_model

    return ["next", "prev", *(str(step_of(folder)) for folder in checkpoints_of_model(context.focus.name))]


_command = partial(ChatCommand, topic="models")
COMMANDS = (
    _command("model", "show the models, or replace the one in focus by MODEL", _show_or_load_model, "[MODEL]", _complete_model),
    _command(
        "focus", "choose the model that other commands apply to", _choose_focus, "[N]", _complete_pane, unavailable_reason=_why_no_focus
    ),
    _command("adapter", "show, choose, load or combine adapters", _show_or_choose_adapter, "[NAME|off|A+B W]", _complete_adapter),
    _command(
        "checkpoint",
        "load another checkpoint of the run",
        _list_or_load_checkpoint,
        "[next|prev|STEP]",
        _complete_step,
        unavailable_reason=_why_no_checkpoint,
        aliases=("ckpt",),
    ),
)
