"""An interrupted evaluation of a model whose replies cannot be cached: no reply is requested twice, and none is lost."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sftchat import EngineError, Reply
from sftchat._util.files import open_locked
from sftchat.engine import Request
from sftchat.evaluation.replies import read_replies
from tests.cli.conftest import ROWS, Desk

PARTIAL = Path("out/replies.partial.jsonl")
IDS = [row["id"] for row in ROWS]


class Server:
    """Scripted model that ends the evaluation at chosen requests, and records answered ones.

    Attributes:
        answered: Ids, in the order of the answers.
        endings: For each coming run, how many requests it answers before it ends; None for all of them.
        error: What ends it.
    """

    def __init__(self, *endings: int | None, error: BaseException | None = None) -> None:
        self.answered: list[str] = []
        self.failing: set[str] = set()
        self.left = list(endings)
        self.error = error or KeyboardInterrupt()
        self._more = self.left[0] if self.left else None

    def __call__(self, request: Request) -> str | Reply | Exception:
        if self._more == 0:
            self.left.pop(0)
            self._more = self.left[0] if self.left else None
            if isinstance(self.error, Exception):
                return self.error
            raise self.error
        if self._more is not None:
            self._more -= 1
        if request.id in self.failing:
            return Reply("", "error")
        self.answered.append(request.id)
        return Reply("answer " + request.messages[-1]["content"].split()[1], "stop", 7, 3)


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def kept(path: Path = PARTIAL) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EngineError("server gone")])
def test_an_evaluation_continues_from_the_replies_of_two_interrupted_ones(desk: Desk, error: BaseException) -> None:
    desk.engines["s:model"] = Server()
    desk.run("s:model", "-o", "whole")
    desk.engines["s:model"] = server = Server(3, 2, None, error=error)

    first, second = desk.run("s:model", "-o", "out", "--quiet"), desk.run("s:model", "-o", "out", "--quiet")
    assert (first[0], second[0]) == (130 if isinstance(error, KeyboardInterrupt) else 3,) * 2
    assert f"3 replies kept in {PARTIAL}; the same command goes on from there\n" in first[2]
    assert second[2].startswith(
        f"sftchat: 3 replies kept in {PARTIAL} and not generated again; 's:model' may have changed since, --fresh asks everything again\n"
        f"5 replies kept in {PARTIAL}; the same command goes on from there\n"
    )
    third = desk.run("s:model", "-o", "out", "--quiet")

    assert third[0] == 0
    assert sorted(server.answered) == IDS
    assert files("out") == files("whole")


def test_every_item_is_requested_once_for_any_number_of_interruptions(desk: Desk) -> None:
    desk.engines["s:model"] = Server()
    desk.run("s:model", "-o", "whole")
    rng = random.Random(5)
    for number in range(20):
        folder, before = f"out{number}", 0
        desk.engines["s:model"] = server = Server(*(rng.randrange(4) for _ in range(rng.randrange(5))), None)
        while desk.run("s:model", "-o", folder, "--quiet")[0] == 130:
            there = kept(Path(folder, PARTIAL.name)) if Path(folder, PARTIAL.name).exists() else []
            assert len(there) == len(server.answered) >= before  # a partial file only ever grows
            before = len(there)
        assert (sorted(server.answered), files(folder)) == (IDS, files("whole"))


def test_failed_items_are_requested_again_and_the_others_are_not(desk: Desk) -> None:
    desk.engines["s:model"] = server = Server()
    server.failing = {"i2"}

    code, _, err = desk.run("s:model", "-o", "out", "--quiet")
    assert code == 3
    assert f"7 replies kept in {PARTIAL}; the same command with --overwrite asks only for the others\n" in err
    server.failing = set()

    assert desk.run("s:model", "-o", "out", "--overwrite", "--quiet")[0] == 0
    assert Counter(server.answered) == Counter(IDS)
    assert not PARTIAL.exists()


def test_the_first_of_two_models_is_not_requested_again_when_the_second_fails(desk: Desk) -> None:
    desk.engines |= {"s:first": (first := Server()), "s:second": (second := Server(4, None))}

    assert desk.run("s:first", "s:second", "-o", "out")[0] == 130
    assert desk.run("s:first", "s:second", "-o", "out")[0] == 0

    assert (Counter(first.answered), Counter(second.answered)) == (Counter(IDS), Counter(IDS))
    assert sorted(files("out")) == ["replies.1.jsonl", "replies.2.jsonl", "report.html", "report.json"]


def test_replies_to_other_requests_are_moved_aside_and_found_again_by_their_own(desk: Desk) -> None:
    other = Path("other.jsonl")
    other.write_text(
        "".join(json.dumps({**row, "messages": [{"role": "user", "content": f"other {n}"}]}) + "\n" for n, row in enumerate(ROWS))
    )
    desk.engines["s:model"] = server = Server(3, 2, None)
    desk.run("s:model", "-o", "out", "--quiet")

    code, _, err = desk.run("s:model", "--evalset", other, "-o", "out", "--quiet")
    assert code == 130
    assert err.startswith(f"sftchat: 3 replies to other requests in {PARTIAL} moved to out/replies.partial.1.jsonl\n")
    assert (kept(Path("out/replies.partial.1.jsonl")), kept()) == (["i0", "i1", "i2"], ["i0", "i1"])

    assert desk.run("s:model", "-o", "out", "--quiet")[0] == 0
    assert server.answered == ["i0", "i1", "i2", "i0", "i1", "i3", "i4", "i5", "i6", "i7"]
    assert sorted(files("out")) == [
        "replies.jsonl",
        "replies.partial.2.jsonl",
        "report.html",
        "report.json",
    ]  # replies to the other evalset

    assert desk.run("s:model", "--evalset", other, "-o", "out", "--quiet", "--overwrite")[0] == 0
    assert server.answered[10:] == ["i2", "i3", "i4", "i5", "i6", "i7"]
    assert sorted(files("out")) == ["replies.jsonl", "report.html", "report.json"]


@pytest.mark.parametrize("option", [("--template", "plain"), ("--seed", "3"), ("--dtype", "float32")])
def test_replies_of_other_settings_are_not_used(desk: Desk, option: tuple[str, str]) -> None:
    desk.engines["s:model"] = server = Server(3, None)
    desk.run("s:model", "-o", "out", "--quiet")

    assert desk.run("s:model", "-o", "out", "--quiet", *option)[0] == 0
    assert server.answered == ["i0", "i1", "i2", *IDS]
    assert kept(Path("out/replies.partial.1.jsonl")) == ["i0", "i1", "i2"]


def test_fresh_requests_everything_and_keeps_the_old_replies_until_the_new_ones_are_complete(desk: Desk) -> None:
    desk.engines["s:model"] = server = Server(5, 2, None)
    desk.run("s:model", "-o", "out", "--quiet")

    code, _, err = desk.run("s:model", "-o", "out", "--quiet", "--fresh")
    assert code == 130
    assert err.startswith(f"sftchat: 5 replies in {PARTIAL} moved to out/replies.partial.old-1.jsonl\n")
    assert f"2 replies kept in {PARTIAL}; the same command without --fresh goes on from there\n" in err
    assert (kept(), len(kept(Path("out/replies.partial.old-1.jsonl")))) == (["i0", "i1"], 5)

    assert desk.run("s:model", "-o", "out", "--quiet")[0] == 0
    assert server.answered == [*IDS[:5], *IDS]
    assert sorted(files("out")) == ["replies.jsonl", "report.html", "report.json"]


@pytest.mark.parametrize("tail", ['{"id": "i3", "rep', "no reply\n", '{"id": "i3", "reply": "without a key"}\n'])
def test_a_damaged_partial_file_keeps_all_readable_replies(desk: Desk, tail: str) -> None:
    desk.engines["s:model"] = server = Server(3, None)
    desk.run("s:model", "-o", "out", "--quiet")
    with PARTIAL.open("a", encoding="utf-8") as file:
        file.write(tail)

    assert desk.run("s:model", "-o", "out", "--quiet")[0] == 0
    assert server.answered == IDS
    aside = Path("out/replies.partial.1.jsonl")
    assert aside.exists() == tail.endswith("\n")  # an incomplete line is not a reply
    assert not aside.exists() or aside.read_text(encoding="utf-8").endswith(tail)


def test_two_evaluations_do_not_write_one_partial_file(desk: Desk) -> None:
    desk.engines["s:model"] = server = Server(3, None)
    desk.run("s:model", "-o", "out", "--quiet")
    held = open_locked(PARTIAL)
    assert held is not None

    code, _, err = desk.run("s:model", "-o", "out", "--quiet")
    held.close()

    assert (code, len(kept())) == (2, 3)
    assert err.endswith(f"another evaluation writes to {PARTIAL}; wait for it, or give another folder with -o\n")
    assert server.answered == IDS[:3]


def test_without_an_output_folder_lost_replies_are_reported(desk: Desk) -> None:
    desk.engines["s:model"] = Server(3)

    code, _, err = desk.run("s:model", "--quiet")

    assert code == 130
    assert err.startswith("3 replies lost: ")


def test_a_reply_is_saved_before_it_is_scored(desk: Desk) -> None:
    desk.engines["s:model"] = server = Server()
    task = desk.registry.tasks["quiz"]

    def broken(example: object, reply: Reply) -> object:
        raise RuntimeError("oops")

    desk.registry.tasks["quiz"] = replace(task, score=broken)  # type: ignore[index, arg-type]
    assert desk.run("s:model", "-o", "out", "--quiet")[0] == 3
    assert kept() == server.answered != []


# --- scoring partial replies


@pytest.fixture
def broken_off(desk: Desk) -> Desk:
    desk.engines["s:model"] = Server(3)
    desk.run("s:model", "-o", "out", "--quiet")
    return desk


def test_a_partial_file_is_refused_with_the_flag_that_allows_it(broken_off: Desk) -> None:
    code, out, err = broken_off.run("--replies", PARTIAL)

    assert (code, out) == (2, "")
    assert err == (
        f"sftchat: error: {PARTIAL}: no reply to 'i3', 'i4', 'i5', 'i6', 'i7' of the 8 items; --partial scores the items that have one\n"
    )


def test_partial_replies_are_scored_and_their_share_is_reported(broken_off: Desk) -> None:
    code, out, err = broken_off.run("--replies", PARTIAL, "--partial", "--json")

    assert (code, json.loads(out)["results"][0]["n"]) == (0, 3)
    assert err == f"3 of 8 items have a reply in '{PARTIAL}' and are scored; no gate passes on a part\n"
    assert json.loads(out)["remarks"] == [err.rstrip("\n")]


@pytest.mark.parametrize(
    "demand",
    [
        ("--baseline", "b.jsonl"),
        ("--baseline", "b.jsonl", "--strict"),
        ("--min", "accuracy=0.1"),
        ("--must-pass", "i7"),
        ("--must-pass", "i0"),
    ],
)
def test_no_gate_passes_on_a_part(broken_off: Desk, demand: tuple[str, ...]) -> None:
    broken_off.engines["s:good"] = Server()
    assert broken_off.run("s:good", "--update-baseline", "b.jsonl")[0] == 0

    code, _, err = broken_off.run("--replies", PARTIAL, "--partial", *demand)

    assert code == 4
    assert "3 of 8 items have a reply" in err
    assert err.endswith(("verdict: not comparable, because some items have no reply yet\n", "which --strict does not accept\n"))


def test_a_floor_that_the_part_misses_fails(broken_off: Desk) -> None:
    broken_off.engines["s:model"] = Server(3)

    assert broken_off.run("--replies", PARTIAL, "--partial", "--min", "accuracy=1")[0] == 4
    rows = [json.loads(line) | {"reply": "wrong"} for line in PARTIAL.read_text(encoding="utf-8").splitlines()]
    PARTIAL.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert broken_off.run("--replies", PARTIAL, "--partial", "--min", "accuracy=1")[0] == 1


def test_a_part_cannot_be_a_baseline_and_needs_a_file(broken_off: Desk) -> None:
    assert broken_off.run("--replies", PARTIAL, "--partial", "--update-baseline", "new.jsonl")[0] == 2
    assert broken_off.run("s:good", "--partial")[0] == 2
    assert not Path("new.jsonl").exists()


def test_with_the_flag_a_complete_file_gets_the_same_verdict(desk: Desk) -> None:
    desk.run("s:good", "-o", "out", "--quiet")

    assert len(read_replies(Path("out/replies.jsonl"))) == 8
    assert desk.run("--replies", "out/replies.jsonl", "--partial", "--min", "accuracy=1") == desk.run(
        "--replies", "out/replies.jsonl", "--min", "accuracy=1"
    )
