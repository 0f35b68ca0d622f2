"""Options shared by several verbs, and their shell completion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from sftchat.data.row_options import RowOptions, parse_column_map
from sftchat.data.turns import ROLES
from sftchat.errors import UsageError, unknown_name_message

if TYPE_CHECKING:
    from sftchat.task import Task
    from sftchat.types import SamplingParams

F = TypeVar("F", bound=Callable[..., Any])


def add_options(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Return a decorator that adds options to a command, in the order in which its help lists them."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _parse_template_arguments(_ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    """Parse ``NAME=VALUE`` words; a value that is not valid JSON is text."""
    from sftchat._util.parsing import load_json

    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name.isidentifier()):
            raise click.BadParameter(f"'{word}' must be NAME=VALUE, such as enable_thinking=false")
        try:
            arguments[name] = load_json(value)
        except ValueError:
            arguments[name] = value
    return arguments


DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla", "meta")
"""Device names of torch; whether a device exists is checked later, by torch."""


def _check_device(_ctx: click.Context, _param: click.Parameter, device: str | None) -> str | None:
    """Raise ``UsageError`` for an invalid device name, before torch is imported."""
    name, colon, number = ("auto" if device is None else device).partition(":")
    if name not in DEVICES or (colon and not number.isdecimal()):
        raise UsageError(f"{unknown_name_message('device', str(device), DEVICES)}; one of several is written cuda:1")
    return device


def device_option(default: str | None = "auto") -> Callable[[F], F]:
    """Add ``--device``; with a ``default`` of None the command chooses the device."""
    description = "cpu, cuda, cuda:1, mps." + ("" if default else "  [default: auto]")
    return click.option(
        "--device", default=default, show_default=default is not None, callback=_check_device, metavar="DEVICE", help=description
    )


_template_argument_option = click.option(
    "--template-argument",
    "template_arguments",
    multiple=True,
    callback=_parse_template_arguments,
    metavar="NAME=VALUE",
    help="Argument of the chat template, also for servers, such as enable_thinking=false; a trained model keeps those of its training.",
)


def _expand_template_file(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Return a template's name, or its file with ``~`` expanded; raise ``UsageError`` for any other value, before anything is loaded."""
    if not value:
        return value
    from sftchat.templates.named import template_file

    path = template_file(value)
    return value if path is None else str(path)


def _check_template_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Raise ``UsageError`` for an invalid template name; whether the model has the template is checked when it is loaded."""
    from sftchat.templates.named import TEMPLATE_NAME

    if value and not TEMPLATE_NAME.fullmatch(value):
        raise UsageError(f"--template-name '{value}' must be a name such as tool_use; give a file with --template")
    return value


def template_options(owner: str = "model", default: str | None = "") -> Callable[[F], F]:
    """Add the options for a chat template; the command gets them as ``template``, ``template_name`` and ``template_arguments``.

    Args:
        owner: Noun for the help texts: whose template is replaced.
        default: Default of ``template`` and ``template_name``.
    """
    return add_options(
        click.option(
            "--template",
            default=default,
            callback=_expand_template_file,
            metavar="NAME|FILE",
            help=f"Chat template instead of the {owner}'s own.",
        ),
        click.option(
            "--template-name",
            default=default,
            callback=_check_template_name,
            metavar="NAME",
            help=f"Which of the {owner}'s own chat templates to use.  [default: tool_use with tools, else default]",
        ),
        _template_argument_option,
    )


trust_remote_code_option = click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
tokenizer_options = add_options(template_options(), trust_remote_code_option)
"""The options for loading the tokenizer and the chat template of a model."""

engine_options = add_options(
    click.option("--base", metavar="MODEL", help="Base model of an adapter, instead of the one its config names."),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="Precision of the weights; auto is the checkpoint's own, but on a CPU float32 if it fits. chat and ask PROMPT keep bfloat16 on a CPU that multiplies it.",
    ),
    device_option(),
    template_options(default=None),
    trust_remote_code_option,
    click.option("--allow-pickle", is_flag=True, help="Load weights that are not safetensors; they can run code."),
)
"""The options for opening a model: base, dtype, device, template, trust."""

quantize_option = click.option(
    "--quantize",
    type=click.Choice(["int8", "nf4"]),
    help="Round the weights: int8 decodes faster on a CPU; nf4 takes a quarter of the memory (extra quant).",
)
RESERVED_MEMBERS = ("model", "messages", "prompt", "stream")
"""Members of a request that ``--extra-body`` may not set."""


def _parse_extra_body(_ctx: click.Context, _param: click.Parameter, text: str | None) -> dict[str, Any]:
    """Parse ``--extra-body``: a JSON object with further members of a request."""
    from sftchat._util.parsing import load_json

    if text is None:
        return {}
    try:
        body = load_json(text)
    except ValueError as error:
        raise click.BadParameter(f"is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise click.BadParameter('must be a JSON object, such as \'{"chat_template_kwargs": {"enable_thinking": false}}\'')
    if reserved := sorted(body.keys() & set(RESERVED_MEMBERS)):
        raise click.BadParameter(f"'{reserved[0]}' is set by the program; leave it out")
    return body


SECONDS = click.FloatRange(min=0, max=1e6, min_open=True)
timeout_options = add_options(
    click.option(
        "--timeout", type=SECONDS, default=120.0, show_default=True, metavar="SECONDS", help="Maximum time without data from a server."
    ),
    click.option(
        "--request-timeout",
        type=SECONDS,
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="Maximum time for one reply of a server.",
    ),
    click.option(
        "--extra-body",
        callback=_parse_extra_body,
        metavar="JSON",
        help="Further parameters of every request to a server, as a JSON object.",
    ),
)
"""``--timeout``, ``--request-timeout`` and ``--extra-body``, for models behind a server."""
concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Number of simultaneous requests to a server.",
)
answering_options = add_options(engine_options, quantize_option, concurrency_option, timeout_options)
"""``engine_options`` and the options for many prompts, for local models and servers."""


def _allow_code(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from sftchat.scorers.consent import code_allowed

        ctx.with_resource(code_allowed())


allow_code_option = click.option(
    "--allow-code", is_flag=True, expose_value=False, callback=_allow_code, help="Let scorers such as python_tests run code of replies."
)
"""Consent to run code that a model wrote, for commands that score."""

sampling_options = add_options(
    click.option("--max-new-tokens", type=int, metavar="N", help="Maximum number of tokens of a reply."),
    click.option("--temperature", type=float, metavar="X", help="Sampling temperature, from 0 (greedy) to 2."),
    click.option("--top-p", type=float, metavar="X", help="Sample from the likeliest tokens that together reach this probability."),
    click.option("--top-k", type=int, metavar="N", help="Sample from the N likeliest tokens; 0: from all."),
    click.option("--seed", type=int, metavar="S", help="Seed of the samples."),
)
"""``--max-new-tokens``, ``--temperature``, ``--top-p``, ``--top-k`` and ``--seed``."""


def take_sampling(task: Task | None, options: dict[str, Any], default: SamplingParams | None = None) -> SamplingParams:
    """Remove the sampling options from a command's options, and return the sampling parameters.

    Args:
        task: Task whose sampling parameters apply where no option is given; None for those of ``SamplingParams``.
        options: Keyword arguments of the command; the sampling options are removed.
        default: Parameters to use instead of the task's, such as those of a conversation that is continued.

    Raises:
        UsageError: When a value is out of its range.
    """
    from sftchat.types import SamplingParams

    names = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
    values = {name: options.pop(name) for name in names}
    given_values = {name: value for name, value in values.items() if value is not None}
    if default is None:
        default = task.sampling if task is not None else SamplingParams()
    try:
        return replace(default, **given_values)
    except ValueError as error:
        raise UsageError(str(error)) from None


def rows_options(command: F) -> F:
    """Add the options for reading rows; the command gets them as one argument ``row_options``, a ``RowOptions``."""

    @wraps(command)
    def with_row_options(*args: Any, roles: tuple[str, ...], columns: tuple[str, ...], **options: Any) -> Any:
        others = {name: options.pop(name) for name in ("label_column", "label_instruction", "merge_turns", "leading_assistant")}
        return command(*args, row_options=RowOptions(parse_role_map(roles), parse_column_map(columns), **others), **options)

    return cast(F, add_options(*_ROW_OPTIONS)(with_row_options))


_ROW_OPTIONS = (
    click.option(
        "--map",
        "columns",
        multiple=True,
        metavar="NAME=COLUMN",
        help="Read COLUMN under NAME: prompt, completion, messages, text, instruction, input, output, system, tools, …. Repeatable.",
    ),
    click.option("--label-column", default="", metavar="COLUMN", help="Learn the value of COLUMN as the reply to the row's text."),
    click.option("--label-instruction", default="", metavar="TEXT", help="Instruction to put before that text."),
    click.option(
        "--role-map", "roles", multiple=True, metavar="NAME=ROLE", help=f"Read the role NAME as ROLE: {', '.join(ROLES)}. Repeatable."
    ),
    click.option("--merge-turns", is_flag=True, help="Join consecutive turns of one role."),
    click.option(
        "--leading-assistant",
        type=click.Choice(["refuse", "drop"]),
        default="refuse",
        show_default=True,
        help="How to handle assistant turns before the first user turn.",
    ),
)


def parse_role_map(pairs: tuple[str, ...]) -> dict[str, str]:
    """Parse ``--role-map NAME=ROLE``.

    Raises:
        UsageError: When a pair has no ``=``, or a role does not exist.
    """
    roles = {}
    for pair in pairs:
        name, equals, role = pair.rpartition("=")
        if not equals or not name:
            raise UsageError(f"role map '{pair}' must be NAME=ROLE, such as narrator=user")
        if role not in ROLES:
            raise UsageError(unknown_name_message("role", role, ROLES))
        roles[name] = role
    return roles


def complete_task(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of installed tasks."""
    from sftchat.plugins.manager import load_plugins

    tasks = load_plugins().tasks
    return [CompletionItem(name, help=task.description) for name, task in tasks.items() if name.startswith(incomplete)]


def complete_model(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of the embedded model and of runs below the current folder; if none matches, let the shell complete folders."""
    from sftchat.models.reference import NANO
    from sftchat.models.runs import find_runs

    models = [(NANO, "embedded"), *((run.model, run.description) for run in find_runs(Path()))]
    completions = [CompletionItem(name, help=description) for name, description in models if name.startswith(incomplete)]
    return completions or [CompletionItem(incomplete, type="dir")]


def complete_file(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete files."""
    return [CompletionItem(incomplete, type="file")]
