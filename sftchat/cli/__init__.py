"""The command line: one module a verb, imported when that verb is typed; the only place that joins the rooms, and the one ``except``."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from typing import Any

import click

from sftchat.errors import SftchatError, SftchatWarning, unknown
from sftchat.text import printable

VERBS = {
    "demo": "the whole story on the embedded model, offline, in minutes",
    "plugins": "tasks, engines and commands, and which distribution brought each",
    "data": "generate, check, convert, filter and synthesise rows",
    "train": "fine-tune a model on a task",
    "eval": "score checkpoints against gold replies; compare; gate",
    "chat": "talk to a model",
    "ask": "replies on stdout, one or a file of them",
    "compare": "the same questions to several models, side by side",
    "cache": "what models have answered before: show it, prune it",
    "inspect": "what a model is, and the proof that training and chatting see the same tokens",
    "diff": "what differed between two trainings",
    "merge": "an adapter into its base, checked by logits",
    "export": "weights with a Modelfile for Ollama whose template is proved",
    "new-plugin": "a project for a task of your own",
}
"""Every verb with its one line of help, so that ``--help`` imports none of them."""


BROKEN_PIPE = 141
"""Exit code when the reader of a pipe leaves: 128 + SIGPIPE, as a shell reports it."""

SPINS = "20000"
"""How long threads of a computation wait for each other by spinning, in the rounds of GNU OpenMP, whose own default of 300,000 makes a training 1.7 times
slower where other programs use the cores too (``scripts/bench_busy.py``)."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the module of the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which a newcomer needs them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module, ``sftchat.cli.new_plugin`` for ``new-plugin``, and return its ``command``."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"sftchat.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest verb for one that does not exist."""
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            raise click.UsageError(unknown("command", name, VERBS), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    """Print the installed version; looked up late because importlib.metadata is slow to import."""
    if wanted and not ctx.resilient_parsing:
        import sftchat

        click.echo(f"sftchat {sftchat.__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version.")
@click.option("--traceback", is_flag=True, help="Show the traceback of an error (also SFTCHAT_TRACEBACK=1).")
@click.pass_context
def program(ctx: click.Context, traceback: bool) -> None:
    """Talk to, score and gate fine-tuned language models.

    \b
    sftchat demo                         see it all on the embedded model
    sftchat train relation -o run        fine-tune on a task
    sftchat eval run                     score what came out
    sftchat chat run                     talk to it
    """
    from sftchat.cli.shared import Session

    if ctx.obj is None:
        ctx.obj = Session()
    ctx.meta["sftchat.traceback"] = traceback


def main(args: list[str] | None = None, *, obj: object | None = None) -> int:
    """Run the program and return its exit code; the one place where errors become words.

    Args:
        args: The words after ``sftchat``; ``sys.argv`` by default.
        obj: A ``sftchat.cli.shared.Session`` for tests; made on first use by default.
    """
    words = sys.argv[1:] if args is None else list(args)
    show_traceback = "--traceback" in words or os.environ.get("SFTCHAT_TRACEBACK") == "1"
    words = [word for word in words if word != "--traceback"]
    try:
        if "_SFTCHAT_COMPLETE" in os.environ:
            program.main(words, prog_name="sftchat", obj=obj)
        # not `program.main`: it would turn a broken pipe into exit code 1, which here means that the gate failed
        with program.make_context("sftchat", words, obj=obj) as context:
            result = program.invoke(context)
    except click.exceptions.Exit as request:
        return request.exit_code
    except SftchatError as error:
        if show_traceback:
            raise
        _complain(str(error))
        return error.exit_code
    except click.UsageError as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            return 2
        _complain(_in_our_words(error))
        return 2
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        if show_traceback:
            raise
        sys.stderr.write("\nsftchat: interrupted\n")
        return 130
    except BrokenPipeError:
        # the reader of a pipe left; a second error while Python flushes stdout would be noise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        # a full disk or a folder that went away may show wherever something is written
        if show_traceback or error.strerror is None:
            raise
        where = f"'{os.fsdecode(error.filename)}': " if isinstance(error.filename, (str, bytes)) else ""
        _complain(f"{where}{error.strerror.lower()}; the system refused it, --traceback shows where")
        return 3
    return result if isinstance(result, int) else 0


def _in_our_words(error: click.UsageError) -> str:
    """What click says of a word that it does not know, as the rest of the program would say it."""
    message, asked, near = error.format_message().partition("Did you mean ")
    message = message[:1].lower() + message[1:].rstrip(" (.")
    if asked:
        names = near.removeprefix("one of: ").rstrip("?)").split(", ")
        return f"{message}; did you mean {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}?"
    return message + (f"; see '{error.ctx.command_path} --help'" if error.ctx else "")


def _complain(message: str) -> None:
    """Print an error as the one line the user sees; names, rows and servers that it quotes may hold anything."""
    sys.stderr.write(f"sftchat: error: {printable(' '.join(message.split()))}\n")


def show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Print a warning of ours as one line, and any other as Python does."""
    if issubclass(category, SftchatWarning):
        sys.stderr.write(f"sftchat: warning: {printable(' '.join(str(message).split()))}\n")
    else:
        _python_shows(message, category, *place, **more)


_python_shows = warnings.showwarning


def console_script() -> None:
    """The entry point that the installed ``sftchat`` command runs."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is imported
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # half a surrogate pair, or Chinese where the encoding has none, ends no evaluation
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = show_warning
    sys.exit(main())
