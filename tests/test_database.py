"""The databases of the data and cache folders, opened by several programs at the same time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

PROCESSES = 8
ROUNDS = 12
PROGRAMS = {
    "sessions": """
from sftchat.chat.conversation import Node
from sftchat.chat.sessions import SessionStore
def use(folder):
    sessions = SessionStore(folder / "sessions.sqlite", complaints.append)
    sessions.add_node(sessions.create(), Node(1, 0, question="hello"))
    sessions.close()
""",
    "replies": """
from sftchat.evaluation.reply_cache import ReplyCache, CachedReply
def use(folder):
    store = ReplyCache(folder / "replies.sqlite", complaints.append)
    store.put(bytes([me]) * 32, "ab" * 32, CachedReply("hello", (1,), "stop", 1))
    store.close()
""",
}
TOGETHER = """
import sys, time
from pathlib import Path
me, rounds, root = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
complaints = []
{use}
for number in range(rounds):
    sys.stdout.write("ready\\n"); sys.stdout.flush()
    sys.stdin.readline()
    use(root / str(number))
sys.stdout.write(f"complaints: {{complaints}}\\n")
"""
COUNT = {"sessions": "SELECT count(*) FROM nodes", "replies": "SELECT count(*) FROM replies"}


@pytest.mark.parametrize("kind", sorted(PROGRAMS))
def test_programs_that_create_a_database_at_the_same_time_lose_no_writes(kind: str, tmp_path: Path) -> None:
    program = TOGETHER.format(use=PROGRAMS[kind])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number), str(ROUNDS), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for number in range(PROCESSES)
    ]
    for _ in range(ROUNDS):
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in processes]

    assert said == ["complaints: []\n"] * PROCESSES
    assert [rows(tmp_path / str(number) / f"{kind}.sqlite", COUNT[kind]) for number in range(ROUNDS)] == [PROCESSES] * ROUNDS


def rows(path: Path, statement: str) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(statement).fetchone()[0])
    finally:
        connection.close()
