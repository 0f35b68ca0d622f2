"""Commands killed at chosen moments and run again until they end: the results must equal those of an undisturbed run.

``scripts/kill_moments.py`` prints a table of many kills; ``tests/test_killing.py`` runs a few. The commands run in separate processes,
forked from one that has imported the libraries, each the leader of a process group that is killed with SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import repeat
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from sftchat._util.files import open_locked
from sftchat.chat.context import Settings
from sftchat.chat.conversation import Answer, Conversation
from sftchat.chat.sessions import Session, SessionStore
from sftchat.errors import SftchatError
from sftchat.training.checkpoints import check_not_in_use
from sftchat.types import Reply

MODEL = "sftchat:nano"
VOLATILE = ("command", "seconds", "created", "date", "tokens_per_second")
"""Keys of JSON files that hold times and speeds."""
PATIENCE = 240.0
"""Time limit of one step in seconds, on a busy machine."""
SLOW = (
    "rapidfuzz.distance",
    "scipy.stats",
    "transformers.models.qwen3.modeling_qwen3",
    "sftchat.inference.local",
    "sftchat.cli",
)
"""Modules that commands import late, which would take most of the time of a killed command."""


@dataclass(frozen=True)
class Place:
    """The place where a command runs.

    Attributes:
        root: Root of its working folder, cache and data folders, and temporary files.
    """

    root: Path

    @property
    def work(self) -> Path:
        """The working folder."""
        return self.root / "work"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that keep everything within the root."""
        folders = {"SFTCHAT_CACHE_DIR": "cache", "XDG_DATA_HOME": "data", "XDG_CACHE_HOME": "cache", "TMPDIR": "tmp", "HF_HOME": "hub"}
        return {**{name: str(self.root / folder) for name, folder in folders.items()}, "HF_HUB_OFFLINE": "1", "TERM": "xterm-256color"}

    @property
    def said(self) -> Path:
        """Standard output of the last command."""
        return self.root / "stdout"

    @property
    def complaints(self) -> Path:
        """Standard error of the last command."""
        return self.root / "stderr"

    def files(self) -> list[str]:
        """Every file and folder that commands have left, except captured output."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path not in (self.said, self.complaints, self.root / "stdin")
        )


@dataclass(frozen=True)
class Step:
    """A call of the program.

    Attributes:
        words: The command line without the program's name.
        typed: Text of standard input.
        terminal: Whether it runs in a terminal, where the text is typed at the first prompt.
    """

    words: Sequence[str]
    typed: str = ""
    terminal: bool = False


@dataclass(frozen=True)
class Command:
    """A command that may be killed.

    Attributes:
        name: Name in the table.
        first: The first step, from the files that exist when it begins.
        again: The step after a kill.
        progress: Its progress: a number that only grows while it runs.
        finished: The results that must be equal.
        locked: Whether a lock is left that no process holds.
        prepare: Writes its inputs into a new place.
        kept: Whether everything acknowledged before a kill still exists.
        whole: The undisturbed step; ``first`` by default.
        more: Additional files that killed steps may leave.
        code: Exit code at the end.
        jitter: Maximum seconds between the moment and the kill.
    """

    name: str
    first: Callable[[Place], Step]
    again: Callable[[Place], Step]
    progress: Callable[[Place], int]
    finished: Callable[[Place], Mapping[str, Any]]
    locked: Callable[[Place], bool]
    prepare: Callable[[Place], None] = lambda place: None
    kept: Callable[[Place], bool] = lambda place: True
    whole: Callable[[Place], Step] | None = None
    more: Sequence[str] = ()
    code: int = 0
    jitter: float = 0.03


@dataclass
class Tally:
    """Results of the kills of one command.

    Attributes:
        name: Of the command.
        kills: Processes that were killed while they ran.
        moments: Progress at each kill, in percent.
        results: Finished results.
        equal: Those equal to the undisturbed one.
        lost: Kills that lost something acknowledged.
        locked: Kills that left a lock.
        left: Files and folders at the end that the undisturbed command does not leave.
        wrong: Descriptions of failures.
    """

    name: str
    kills: int = 0
    moments: list[float] = field(default_factory=list)
    results: int = 0
    equal: int = 0
    lost: int = 0
    locked: int = 0
    left: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Whether nothing was lost, locked, left or different."""
        return self.equal == self.results > 0 and not (self.lost or self.locked or self.left or self.wrong)

    def row(self) -> str:
        """The row of the table."""
        tenths = [sum(1 for moment in self.moments if low <= moment < low + 25) for low in (0, 25, 50, 75)]
        tenths[-1] += sum(1 for moment in self.moments if moment >= 100)
        spread = " / ".join(map(str, tenths))
        left = ", ".join(sorted(set(self.left))) or "nothing"
        return f"| {self.name} | {self.kills} | {spread} | {self.equal} of {self.results} | {self.lost} | {self.locked} | {left} |"


HEADER = (
    "| command | kills | by progress: 0–25 / 25–50 / 50–75 / 75–100 % | finished results equal | kills that lost something | kills that left a lock | left behind |\n"
    "|---|---|---|---|---|---|---|"
)


def processes() -> ForkServerContext:
    """Forks processes with imported libraries; one thread each, for busy machines."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.killing", "trl", "peft", "datasets", "httpx2", *SLOW])
    return context


def call(root: str, words: Sequence[str], terminal: str) -> None:
    """Run the program in this process, as a shell would in a new one."""
    place = Place(Path(root))
    if terminal:
        os.setsid()
        source = target = os.open(terminal, os.O_RDWR)  # the first terminal that a session leader opens is its controlling terminal
    else:
        os.setpgid(0, 0)
        source = os.open(place.root / "stdin", os.O_RDONLY)
        target = os.open(place.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    complaints = target if terminal else os.open(place.complaints, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, file in enumerate((source, target, complaints)):
        os.dup2(file, number)
    streams = [os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False) for number in range(3)]
    sys.stdin, sys.stdout, sys.stderr = streams
    # here and not in the fork server, which all tests share
    os.environ |= {**place.environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    torch.set_num_threads(1)
    tempfile.tempdir = None
    os.chdir(place.work)
    sys.argv = ["sftchat", *words]
    from sftchat.cli import main

    sys.exit(main(list(words)))


class Killing:
    """Run commands and kill them.

    Args:
        folder: Folder for the places of the commands.
        chance: Random number generator for the moments.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self._context = processes()
        self._count = 0

    def begin(self, place: Place, step: Step, terminal: str = "") -> ForkServerProcess:
        """Start a command."""
        (place.root / "stdin").write_text(step.typed, encoding="utf-8")
        process = self._context.Process(target=call, args=(str(place.root), list(step.words), terminal))
        process.start()
        return process

    def new(self, command: Command) -> Place:
        """Return a prepared place for a command."""
        self._count += 1
        place = Place(self.folder / f"{command.name.replace(' ', '-')}-{self._count}")
        for folder in ("work", "tmp", "cache", "data"):
            (place.root / folder).mkdir(parents=True)
        command.prepare(place)
        return place

    def end(self, command: Command, place: Place, step: Step) -> str:
        """Run a command to its end; returns a description of the failure, if any."""
        process = self.begin(place, step)
        process.join(PATIENCE)
        if process.exitcode is None:
            kill(process)
            return f"{command.name} did not end"
        if process.exitcode != command.code:
            return f"{command.name} ended with {process.exitcode}: {place.complaints.read_text(encoding='utf-8')[-400:]}"
        return ""

    def table(self, command: Command, kills: int, each: int) -> Tally:
        """Kill a command at moments spread over its progress, several times before each finished result.

        Args:
            command: Which.
            kills: Total number of kills.
            each: Kills before each finished result.
        """
        tally = Tally(command.name)
        whole = self.new(command)
        if wrong := self.end(command, whole, (command.whole or command.first)(whole)):
            tally.wrong.append(f"undisturbed: {wrong}")
            return tally
        expected, files, total = command.finished(whole), [*whole.files(), *command.more], command.progress(whole)
        for _ in range(3 * kills):
            if tally.kills >= kills:
                break
            now = min(each, kills - tally.kills)
            place = self.new(command)
            # one moment of each part of the progress
            moments = [int((number + self.chance.random()) / now * total) for number in range(now)]
            step = command.first(place)
            for moment in moments:
                if not self._kill(command, place, step, moment, tally, total):
                    break
                step = command.again(place)
            wrong = self.end(command, place, command.again(place))
            tally.results += 1
            found = command.finished(place) if not wrong else {}
            tally.equal += found == expected
            tally.wrong += [wrong] if wrong else [f"{key} differs" for key in expected if found.get(key) != expected[key]]
            tally.left += [name for name in place.files() if name not in files]
            shutil.rmtree(place.root)
        return tally

    def _kill(self, command: Command, place: Place, step: Step, moment: int, tally: Tally, total: int) -> bool:
        """Kill a command at a moment of its progress; returns False when it ended before."""
        with ExitStack() as stack:
            terminal = stack.enter_context(Terminal(step.typed)) if step.terminal else None
            process = self.begin(place, step, terminal.name if terminal else "")
            deadline = time.monotonic() + PATIENCE
            while process.is_alive() and command.progress(place) < moment and time.monotonic() < deadline:
                if terminal is not None:
                    terminal.turn()
                time.sleep(0.002)
            return self._end_here(command, place, process, moment, tally, total)

    def _end_here(self, command: Command, place: Place, process: ForkServerProcess, moment: int, tally: Tally, total: int) -> bool:
        """Kill a process now, and check what it left."""
        time.sleep(self.chance.uniform(0, command.jitter if moment else 1.0))
        if not kill(process):
            return False
        tally.kills += 1
        tally.moments.append(100 * command.progress(place) / max(total, 1))
        tally.locked += command.locked(place)
        tally.lost += not command.kept(place)
        return True


class Terminal:
    """A terminal in which a text is typed at the first prompt; a context manager.

    Args:
        typed: The text.

    Attributes:
        name: Of the device that a program opens.
    """

    def __init__(self, typed: str) -> None:
        self._master, self._slave = os.openpty()
        self.name = os.ttyname(self._slave)
        self._typed = typed.encode()
        self._shown = b""
        os.set_blocking(self._master, False)

    def __enter__(self) -> Terminal:
        """Opened already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both ends."""
        os.close(self._master)
        os.close(self._slave)

    def turn(self) -> None:
        """Read the output, and type at the first prompt."""
        with suppress(BlockingIOError):
            self._shown += os.read(self._master, 65536)
        if self._typed and b">" in self._shown:
            os.write(self._master, self._typed)
            self._typed = b""


def kill(process: ForkServerProcess) -> bool:
    """Kill a process and its children; returns False when it had ended by itself."""
    if process.is_alive():
        assert process.pid is not None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it is not yet the leader of a process group
            os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


# --- shared by commands


def database_locked(path: Path) -> bool:
    """Return whether a database cannot be written to at once."""
    if not path.is_file():
        return False
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
    return False


def rows(path: Path, statement: str) -> int:
    """Read a number from a database that another process writes; 0 while the file is missing."""
    if not path.is_file():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as connection:
            return int(connection.execute(statement).fetchone()[0] or 0)
    except sqlite3.OperationalError:
        return 0


def lines(path: Path) -> int:
    """Return the number of complete lines of a file; 0 while it is missing."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def file_locked(path: Path) -> bool:
    """Return whether a file is locked."""
    if not path.is_file():
        return False
    file = open_locked(path)
    if file is None:
        return True
    file.close()
    return False


def steady(value: Any) -> Any:
    """Return JSON without times and speeds."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value


def contents(folder: Path, pattern: str = "*") -> dict[str, Any]:
    """Return the files of a folder: JSON without volatile keys, others as bytes."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob(pattern)):
        if path.is_file():
            name = str(path.relative_to(folder))
            found[name] = steady(json.loads(path.read_text(encoding="utf-8"))) if path.suffix == ".json" else path.read_bytes()
    return found


def rows_of(place: Place, count: int) -> None:
    """Write the items into the working folder."""
    words = ["red", "blue", "green", "gold", "black", "white"]
    items = [
        {
            "id": f"i{n:03}",
            "messages": [{"role": "user", "content": f"say {words[n % 6]} {'and then ' + words[n % 5] if n % 3 else ''} {n}"}],
            "gold": words[n % 6],
        }
        for n in range(count)
    ]
    (place.work / "gold.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")


# --- eval


def evaluation(items: int = 60) -> Command:
    """``eval`` of a local model: replies go into the reply cache."""
    store = "cache/replies.sqlite"
    words = ("eval", MODEL, "--task", "general", "--evalset", "gold.jsonl", "-o", "out", "--overwrite", "--quiet")
    return Command(
        "eval",
        lambda place: Step(words),
        lambda place: Step(words),
        lambda place: rows(place.root / store, "SELECT count(*) FROM replies"),
        lambda place: contents(place.work / "out"),
        lambda place: database_locked(place.root / store),
        lambda place: rows_of(place, items),
    )


@contextmanager
def served(items: int = 60, seconds: float = 0.02) -> Iterator[tuple[Command, list[str]]]:
    """``eval`` of a model behind a slow server; yields the command and the answered requests."""
    from tests.inference.endpoint_kit import answer, loopback

    answered: list[str] = []

    def script(handler: BaseHTTPRequestHandler) -> None:
        question = server.asked[-1]["messages"][-1]["content"]
        time.sleep(seconds)
        answered.append(question)
        events = [
            {"choices": [{"index": 0, "delta": {"content": question[::-1]}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        answer(200, "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n", "text/event-stream")(handler)

    with loopback(repeat(script), quiet=True) as server:
        words = (
            "eval", f"{server.url}#small", "--concurrency", "1", "--task", "general", "--evalset", "gold.jsonl", "-o", "out", "--overwrite", "--quiet",
        )  # fmt: skip
        partial = "out/replies.partial.jsonl"

        def progress(place: Place) -> int:
            return items if (place.work / "out/report.json").is_file() else lines(place.work / partial)

        yield (
            Command(
                "eval of a server",
                lambda place: Step(words),
                lambda place: Step(words),
                progress,
                lambda place: contents(place.work / "out"),
                lambda place: file_locked(place.work / partial) or database_locked(place.root / "cache/replies.sqlite"),
                lambda place: rows_of(place, items),
            ),
            answered,
        )


# train


def training(steps: int = 12) -> Command:
    """``train`` of an adapter, with a checkpoint every step and a score every four."""
    words = (
        "train", "general", "--model", MODEL, "--data", "train.jsonl", "--method", "lora", "--max-steps", str(steps), "--batch-size", "2",
        "--save-steps", "2", "--save-limit", "9", "--eval-steps", "4", "--validation-items", "4", "--precision", "float32", "--seed", "1", "-q", "-o", "run",
    )  # fmt: skip

    def prepare(place: Place) -> None:
        items = [{"prompt": f"say {n % 7}", "completion": str(n % 7)} for n in range(24)]
        (place.work / "train.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")

    def begun(place: Place) -> bool:
        return (place.work / "run/sftchat.json").is_file() or any((place.work / "run").glob("checkpoint-*"))

    def ended(place: Place) -> bool:
        manifest = place.work / "run/sftchat.json"
        return manifest.is_file() and bool(json.loads(manifest.read_text(encoding="utf-8")).get("seconds"))

    def progress(place: Place) -> int:
        run = place.work / "run"
        if ended(place):
            return 2 * steps + 4
        whole = max((int(path.name.rpartition("-")[2]) for path in run.glob("checkpoint-*")), default=0)
        unfinished = False
        with suppress(FileNotFoundError):  # it is renamed meanwhile
            unfinished = any(True for _ in (run / ".unfinished").iterdir())
        return 2 * whole + (2 if begun(place) else 0) + int(unfinished)

    def locked(place: Place) -> bool:
        try:
            check_not_in_use(place.work / "run")
        except SftchatError:
            return True
        return False

    def again(place: Place) -> Step:
        if ended(place):
            return Step(("inspect", "run"))
        return Step((*words, "--resume") if begun(place) else words)

    def finished(place: Place) -> dict[str, Any]:
        run = place.work / "run"
        weights = {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}
        return contents(run) | weights

    return Command("train", lambda place: Step(words), again, progress, finished, locked, prepare, jitter=0.15)


# data


def best_of(items: int = 12, k: int = 3) -> Command:
    """``data best-of``: samples go into a file."""
    words = (
        "data", "best-of", "general", MODEL, "--prompts", "gold.jsonl", "-k", str(k), "--min-score", "0", "--temperature", "0.8", "--max-new-tokens", "24",
        "-o", "best.jsonl", "--overwrite", "--quiet",
    )  # fmt: skip
    return _synthesis("data best-of", words, "best.jsonl", items)


def distill(items: int = 36) -> Command:
    """``data distill``: replies go into a file."""
    words = (
        "data", "distill", MODEL, "--prompts", "gold.jsonl", "--max-new-tokens", "24", "-o", "taught.jsonl", "--overwrite", "--quiet"
    )  # fmt: skip
    return _synthesis("data distill", words, "taught.jsonl", items)


def _synthesis(name: str, words: Sequence[str], output: str, items: int) -> Command:
    """A command that generates replies to the prompts of a file, in any order."""
    samples = f"{output}.samples.jsonl"

    def finished(place: Place) -> dict[str, Any]:
        found = contents(place.work, f"{output}*")
        found[samples] = sorted(found[samples].splitlines())
        provenance = f"{output}.provenance.json"
        for source in found[provenance].get("inputs", []):
            if isinstance(source, dict) and samples in json.dumps(source):
                source.clear()  # the hash of the file of samples, which depends on their order
        return found

    return Command(
        name,
        lambda place: Step(words),
        lambda place: Step(words),
        lambda place: lines(place.work / samples),
        finished,
        lambda place: file_locked(place.work / samples),
        lambda place: rows_of(place, items),
    )


# chat

QUESTION = "嘻" * 60  # the embedded model repeats this for 224 tokens, long enough to be killed during the reply
BEFORE = Conversation().ask("hello").answer(Answer(Reply("hi"), model=MODEL))


def sessions_of(place: Place) -> Path:
    """The file of the conversations."""
    return place.root / "data/sftchat/sessions.sqlite"


def told(place: Place) -> list[tuple[str, str, str]]:
    """Return the last conversation: each question with its reply and finish reason."""
    sessions = SessionStore(sessions_of(place), lambda words: None)
    try:
        found = sessions.find("")
        turns = sessions.load_conversation(found).turns if found is not None else ()
        return [(turn.question, turn.reply.text if turn.reply else "", turn.reply.finish_reason if turn.reply else "") for turn in turns]
    finally:
        sessions.close()


def said_tokens(place: Place) -> int:
    """Return the number of saved tokens of the last reply."""
    sessions = SessionStore(sessions_of(place), lambda words: None)
    try:
        found = sessions.find("")
        turn = sessions.load_conversation(found).turns[-1] if found is not None else None
        return turn.reply.completion_tokens if turn is not None and turn.reply is not None else 0
    finally:
        sessions.close()


def chat(tokens: int = 320) -> Command:
    """``chat`` that resumes a conversation: every printed piece is saved, and the reply continues from there."""
    # in bfloat16, which a chat keeps where the CPU multiplies it, a reply that continues is rounded otherwise than one in one piece
    words = ("chat", "--continue", "--template", "plain", "--dtype", "float32", "--max-new-tokens", str(tokens))

    def prepare(place: Place) -> None:
        sessions = SessionStore(sessions_of(place), lambda words: None)
        Session(sessions).save(BEFORE, Settings(), (MODEL,))
        sessions.close()

    def again(place: Place) -> Step:
        last = told(place)[-1]
        if last[0] == "hello":  # it was killed before it read the question
            return Step(words, f"{QUESTION}\n")
        return Step(words, "/continue\n" if last[2] == "cancelled" else "")

    def kept(place: Place) -> bool:
        printed = place.said.read_text(encoding="utf-8", errors="ignore").rstrip("\n\ufffd") if place.said.is_file() else ""
        return not printed or any(printed in reply for _, reply, _ in told(place))

    return Command(
        "chat",
        lambda place: Step(words, f"{QUESTION}\n"),
        again,
        said_tokens,
        lambda place: {"talk": told(place)},
        lambda place: database_locked(sessions_of(place)),
        prepare,
        kept,
    )


def chat_that_loads() -> Command:
    """``chat`` in a terminal, killed after a message typed during loading was saved."""
    options = ("--template", "plain", "--max-new-tokens", "12")
    question = "say red"

    def progress(place: Place) -> int:
        return 10 * min(1, rows(sessions_of(place), f"SELECT count(*) FROM sessions WHERE facts LIKE '%{question}%'"))

    def type_it(place: Place) -> Step:
        return Step(("chat", MODEL, *options), f"{question}\r", terminal=True)

    def go_on(place: Place) -> Step:
        return Step(("chat", "--continue", *options))

    def whole(place: Place) -> Step:
        sessions = SessionStore(sessions_of(place), lambda words: None)
        Session(sessions).save(Conversation(), Settings(), (MODEL,), (question,))
        sessions.close()
        return go_on(place)

    return Command(
        "chat that loads",
        type_it,
        lambda place: go_on(place) if progress(place) else type_it(place),
        progress,
        lambda place: {"talk": told(place)},
        lambda place: database_locked(sessions_of(place)),
        whole=whole,
        more=("data/sftchat/history",),
    )
