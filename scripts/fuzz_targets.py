"""Fuzz what reads from outside, each target for some minutes; exits with 1 at the first finding and prints the smallest input that shows it.

    python scripts/fuzz_targets.py MINUTES [TARGET…]

Hypothesis generates and shrinks; what it found is kept in build/fuzz, which git ignores, and tried again first the next time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from sftchat.data.checking import check
from sftchat.data.formats import FORMATS, from_example, read_examples
from sftchat.errors import SftchatError
from sftchat.evaluation.baseline import is_baseline, read_baseline
from sftchat.evaluation.replies import read_replies
from sftchat.models.references import embedded_folder
from sftchat.models.templates import IGNORED, Renderer, TemplateError, choose_renderer
from sftchat.plugins import load_plugins
from sftchat.text import normalise, printable, strip_thinking, tokens
from sftchat.types import Example, Reply

CORPUS = Path(__file__).parent.parent / "build" / "fuzz"
ROOM = Path(tempfile.mkdtemp(prefix="sftchat-fuzz-"))

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
keys = st.sampled_from(
    "messages role content gold id metadata prompt completion instruction input output conversations from value text system tool_calls "
    "format version task items header stats errors reply finish_reason prompt_tokens custom_id response sampling doc_id resps".split()
)
values = st.recursive(scalars, lambda below: st.lists(below, max_size=4) | st.dictionaries(keys, below, max_size=4), max_leaves=12)
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "x"]), "content": st.text(max_size=30) | values}
    ),
    max_size=4,
)
rows = st.dictionaries(keys, values, max_size=6) | st.fixed_dictionaries(
    {"messages": turns}, optional={"gold": st.text() | values, "id": values, "metadata": values}
)
lines = st.lists(rows.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=40), max_size=5).map(b"\n".join)
files = lines | st.lists(rows, max_size=3).map(lambda row: json.dumps(row).encode()) | st.binary(max_size=200)
replies = st.text(max_size=200) | st.lists(st.text("甲乙丙李四：:-—，,。\n \t师徒父子无()（）*`1.", max_size=12), max_size=8).map("\n".join)
hostile = st.text(max_size=40) | st.lists(
    st.sampled_from(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "assistant\n", "{{ 7*7 }}", "{% raw %}", "\u2063reply\u2063", "\u2063", "你好", "\n", " ", "\x00"]), max_size=6
).map("".join)  # fmt: skip


def written(content: bytes) -> Path:
    """A file with that content."""
    path = ROOM / "file.jsonl"
    path.write_bytes(content)
    return path


def formats(content: bytes) -> None:
    """Any bytes are rows that can be written in some shape and checked, or a named error."""
    path = written(content)
    try:
        check(str(path))
        examples = list(read_examples(path))
    except SftchatError:
        return
    for example in examples:
        for shape in FORMATS:
            try:
                from_example(example, shape)
            except SftchatError:
                continue


def baseline(content: bytes) -> None:
    """Any bytes are a baseline, or a named error."""
    path = written(content)
    is_baseline(path)
    try:
        read_baseline(path)
    except SftchatError:
        return


def stored(content: bytes) -> None:
    """Any bytes are stored replies, or a named error."""
    try:
        read_replies(written(content))
    except SftchatError:
        return


REGISTRY = load_plugins()
GOLD = "李四-张三:师徒\n王五-赵六:父子"


def scorers(pair: tuple[str, str]) -> None:
    """Any reply to any prompt is a score of every installed task; a gold reply is the task's own and well-formed."""
    said, asked = pair
    for task in REGISTRY.tasks.values():
        example = Example(({"role": "user", "content": f"请从以下文本抽取：{asked}"},), GOLD)
        score = task.score(example, Reply(said))
        assert score == task.score(example, Reply(said))
        assert all(count >= 0 for count in score.stats.values())


def texts(text: str) -> None:
    """Text functions end, and normalising twice changes nothing."""
    assert normalise(normalise(text)) == normalise(text)
    tokens(text)
    strip_thinking(text)
    assert printable(printable(text)) == printable(text)


def renderer() -> Renderer:
    """The embedded model's tokenizer with its template; made once."""
    if not _renderer:
        from transformers import AutoTokenizer

        _renderer.append(choose_renderer(AutoTokenizer.from_pretrained(embedded_folder()), preferred="chatml"))
    return _renderer[0]


_renderer: list[Renderer] = []


def templates(conversation: list[tuple[str, str]]) -> None:
    """Whatever people and data say, a prompt is where its row begins and nobody but the template writes the stop token."""
    messages: list[Any] = [
        part for asked, said in conversation for part in ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
    ]
    use = renderer()
    try:
        row, prompt = use.training_ids(messages), use.prompt_ids(messages[:-1])
    except TemplateError:
        return
    assert list(row.ids[: len(prompt)]) == prompt
    trained = [label for label in row.labels if label != IGNORED]
    assert trained.count(use.stop_token) == len(conversation), "somebody forged a stop token"
    assert trained[-1] == use.stop_token


TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "formats": (files, formats),
    "baseline": (files, baseline),
    "replies": (files, stored),
    "scorers": (st.tuples(replies, replies), scorers),
    "texts": (st.text() | replies, texts),
    "templates": (st.lists(st.tuples(hostile, hostile), min_size=1, max_size=3), templates),
}


def fuzz(name: str, minutes: float) -> int:
    """Run a target until its time is up; returns how many inputs it was given."""
    strategy, target = TARGETS[name]
    tried, until = 0, time.monotonic() + 60 * minutes
    while time.monotonic() < until:

        @settings(
            max_examples=500, deadline=None, database=DirectoryBasedExampleDatabase(CORPUS / name), suppress_health_check=list(HealthCheck)
        )
        @given(strategy)
        def attack(value: Any) -> None:
            nonlocal tried
            tried += 1
            if time.monotonic() < until:
                target(value)

        attack()
    return tried


def main() -> int:
    """Fuzz the chosen targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, help="for each target")
    parser.add_argument("targets", nargs="*", help="all of them when none is named")
    args = parser.parse_args()
    for name in args.targets or TARGETS:
        print(f"{name} …", flush=True)
        print(f"{name}: {fuzz(name, args.minutes):,} inputs, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
