"""The command line: one module per verb, imported when the verb is used. Errors are caught here, once."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from contextlib import suppress
from typing import Any

import click

from sftchat._util.output import EXIT_INTERRUPTED, EXIT_PIPE_CLOSED, EXIT_USAGE, prepare_process, with_guarded_streams
from sftchat.errors import SftchatError, SftchatWarning, class_and_message, format_position, message_of, unknown_name_message

VERBS = {
    "demo": "train the embedded model, score it before and after; offline",
    "plugins": "list tasks, engines and commands with their distributions",
    "fetch": "fetch a small model for use without network",
    "data": "generate, check, convert, filter and synthesise rows",
    "train": "fine-tune a model on a task",
    "eval": "score checkpoints against gold replies; compare; gate",
    "judge-check": "measure how well a judge agrees with people",
    "chat": "chat with a model",
    "ask": "print replies to one prompt or to a file of prompts",
    "compare": "ask several models the same questions, side by side",
    "history": "list the results of evaluations over time",
    "cache": "list cached replies, or delete them",
    "inspect": "describe a model, and prove parity of training and inference",
    "diff": "list the differences between two trainings",
    "merge": "merge an adapter into its base and compare the logits",
    "export": "write weights with an Ollama Modelfile, its template verified",
    "new-task": "create a task file for your own evalset, without Python",
    "new-plugin": "create a project for your own task",
    "ci": "write the job of a gate for GitHub, GitLab or Jenkins",
}
"""Every verb with its help line, so that ``--help`` imports none of them."""


EXIT_FAILED, EXIT_NOT_COMPARABLE = 3, 4
ERROR_EXIT_CODES = (EXIT_USAGE, EXIT_FAILED, EXIT_NOT_COMPARABLE)
"""Exit codes of errors; 0 and 1 are only for commands that ended normally."""

GOMP_SPINCOUNT = "20000"
"""Number of rounds for which a thread of GNU OpenMP spins while it waits for the others. The default of 300,000 makes training 1.7 times slower when
other programs use the cores (``scripts/bench_busy.py``)."""


class LazyGroup(click.Group):
    """Click group that imports only the module of the command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of a typical workflow."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module, ``sftchat.cli.new_plugin`` for ``new-plugin``, and return its ``command``."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"sftchat.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a verb; raise a usage error with the most similar verb for an unknown one."""
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            raise click.UsageError(unknown_name_message("command", name, VERBS), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs from ``VERBS``."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _print_version(ctx: click.Context, _param: click.Parameter, requested: bool) -> None:
    if requested and not ctx.resilient_parsing:
        import sftchat

        click.echo(f"sftchat {sftchat.__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version.")
@click.option("--traceback", is_flag=True, help="Show the traceback of an error (also SFTCHAT_TRACEBACK=1).")
@click.pass_context
def program(ctx: click.Context, traceback: bool) -> None:
    """Chat with, score and gate fine-tuned language models.

    \b
    sftchat demo                         try everything with the embedded model
    sftchat train relation -o run        fine-tune on a task
    sftchat eval run                     score the result
    sftchat chat run                     chat with it
    """
    from sftchat.cli.session import Session

    if ctx.obj is None:
        ctx.obj = Session(imports_in_parts=True)
    ctx.meta["sftchat.traceback"] = traceback


@with_guarded_streams
def main(args: list[str] | None = None, *, obj: object | None = None) -> int:
    """Run the program and return its exit code: that of the command, or for an error one of ``ERROR_EXIT_CODES``, 130 (interrupted) or 141 (closed pipe).

    Args:
        args: Words after ``sftchat``; ``sys.argv`` by default.
        obj: A ``sftchat.cli.session.Session`` for tests; made on first use by default.
    """
    words = sys.argv[1:] if args is None else list(args)
    show_traceback = "--traceback" in words or os.environ.get("SFTCHAT_TRACEBACK") == "1"
    try:
        code = _run_command([word for word in words if word != "--traceback"], obj)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # if this fails, it must fail here: at exit Python would end with 120
    except BaseException as error:
        return _report_error(error, show_traceback)
    return code


def _run_command(words: list[str], obj: object | None) -> int:
    """Run a command and return its exit code."""
    if "_SFTCHAT_COMPLETE" in os.environ:
        try:
            program.main(words, prog_name="sftchat", obj=obj)
        except SystemExit as exit_request:  # raised by click after a completion
            return exit_request.code if isinstance(exit_request.code, int) else 0
    try:
        # not `program.main`, which exits with 1 for a broken pipe; here 1 means that the gate failed
        with program.make_context("sftchat", words, obj=obj) as context:
            result = program.invoke(context)
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    return result if isinstance(result, int) else 0


def _report_error(error: BaseException, show_traceback: bool) -> int:
    """Write the line for an error, or its traceback, to standard error, and return the exit code."""
    try:
        code, line = _exit_code_and_line(error)
        if show_traceback and not isinstance(error, (click.ClickException, BrokenPipeError)):
            line = "".join(traceback.format_exception(error))
    except BaseException as formatting_error:  # an exception that cannot be formatted, or out of memory
        code, line = EXIT_FAILED, _format_error(f"an error that cannot be put into words: {type(formatting_error).__name__}")
    _write_stderr(line)
    return code


def _exit_code_and_line(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an error and its line for standard error."""
    if isinstance(error, SftchatError):
        code: object = error.exit_code
        return code if isinstance(code, int) and code in ERROR_EXIT_CODES else EXIT_FAILED, _format_error(message_of(error))
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return EXIT_USAGE, f"{error.format_message()}\n"
    if isinstance(error, click.UsageError):
        return EXIT_USAGE, _format_error(_rephrase_usage_error(error))
    if isinstance(error, click.ClickException):
        return EXIT_FAILED, _format_error(error.format_message())
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return EXIT_INTERRUPTED, "\nsftchat: interrupted\n"
    if isinstance(error, BrokenPipeError):
        return EXIT_PIPE_CLOSED, ""  # the reader of the pipe has closed it
    if isinstance(error, OSError) and error.strerror is not None:  # such as a full disk
        file_name = f"'{os.fsdecode(error.filename)}': " if isinstance(error.filename, (str, bytes)) else ""
        return EXIT_FAILED, _format_error(f"{file_name}{error.strerror.lower()}; the system refused it, --traceback shows where")
    return EXIT_FAILED, _format_error(
        f"unexpected {class_and_message(error)}{format_position(error, include_sftchat=True)}; this is a bug, --traceback shows more"
    )


def _write_stderr(text: str) -> None:
    """Write to standard error; if this fails, only the exit code reports the error."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _rephrase_usage_error(error: click.UsageError) -> str:
    """Return click's message in lower case, followed by its suggestions or by the command for help."""
    message, question, suggestions = error.format_message().partition("Did you mean ")
    message = message[:1].lower() + message[1:].rstrip(" (.")
    if question:
        *names, last_name = suggestions.removeprefix("one of: ").rstrip("?)").split(", ")
        return f"{message}; did you mean {', '.join(names)}{' or ' if names else ''}{last_name}?"
    return message + (f"; see '{error.ctx.command_path} --help'" if error.ctx else "")


def _format_error(message: str) -> str:
    return f"sftchat: error: {' '.join(message.split())}\n"


def show_warning(message: Warning | str, category: type[Warning], *position: Any, **options: Any) -> None:
    """Print a warning of sftchat as one line, and any other as Python does."""
    if issubclass(category, SftchatWarning):
        sys.stderr.write(f"sftchat: warning: {' '.join(str(message).split())}\n")
    else:
        _default_showwarning(message, category, *position, **options)


_default_showwarning = warnings.showwarning


def console_script() -> None:
    """Entry point of the installed ``sftchat`` command."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINCOUNT)  # torch reads it at import
    prepare_process()
    warnings.showwarning = show_warning
    sys.exit(main())
