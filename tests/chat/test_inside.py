"""Commands that inspect a model: prompt, tokens, mask, probabilities, forks, likelihoods, samples; with and without a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat.chat.commands import BUILTINS, Commands
from sftchat.chat.commands.token_view import format_percent, format_table, join_partial_characters, one_line
from sftchat.chat.context import Settings
from sftchat.chat.controller import ChatController, ChatServices
from sftchat.chat.pane import Opening
from sftchat.chat.render.width import text_width
from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer
from sftchat.chat.ui.plain import Plain
from sftchat.engine import Engine, Inspects, Request
from sftchat.inference.local import TransformersEngine
from sftchat.task import Task, rate
from sftchat.testing import ScriptedEngine
from sftchat.types import Example, Reply, SamplingParams, Score, Token


def talked(engine: Any, *lines: str, others: Sequence[Engine] = (), **options: Any) -> tuple[str, str]:
    """Return stdout and stderr of a chat without a terminal for these input lines."""
    out, err = io.StringIO(), io.StringIO()
    openings = [Opening(lambda one=one: one, (one.name,)) for one in (engine, *others)]

    def make(view: Any) -> ChatController:
        return ChatController(
            openings, view, **({"commands": Commands(BUILTINS), "settings": Settings(SamplingParams(max_new_tokens=20))} | options)
        )

    Plain(make, stdin=io.StringIO("".join(f"{line}\n" for line in lines)), stdout=out, stderr=err).run()
    return out.getvalue(), err.getvalue()


def said(*lines: str, replies: Any = None, **options: Any) -> str:
    """Return what the last line adds to stderr."""
    likeliest = options.pop("likeliest", ())
    engine = ScriptedEngine(replies or {"hi": "abc"}, likeliest=likeliest)
    before = talked(ScriptedEngine(replies or {"hi": "abc"}, likeliest=likeliest), *lines[:-1], **options)[1]
    return talked(engine, *lines, **options)[1].removeprefix(before)


def test_the_prompt_is_shown_as_the_model_reads_it() -> None:
    assert said("hi", "/prompt") == "user: hi\nassistant: ▏20 tokens\n"
    assert said("hi", "/prompt and you?") == "user: hi\nassistant: abc\nuser: and you?\nassistant: ▏50 tokens\n"
    assert said("/prompt") == "sftchat: error: nothing was asked yet; give the message whose prompt you want to see\n"


def test_tokens_are_listed_with_their_ids_and_unprintable_text_as_symbols() -> None:
    shown = said("/tokens 你\x1b\t.").splitlines()

    assert [line[4:] for line in shown[6:9]] == ["20320  你", "   27  ␛", "    9  ⇥"]
    long = said("/tokens " + "x" * 100).splitlines()
    assert len(long) == 61
    assert long[0] == "… 58 tokens before; /tokens all lists them"


def test_the_mask_shows_what_training_would_learn() -> None:
    assert said("hi", "/mask") == "user: hi\nassistant: ⟦abc\n⟧\nlearns 4 of 24 tokens, those in ⟦⟧\n"
    assert said("hi", "/mask other") == "user: hi\nassistant: ⟦other\n⟧\nlearns 6 of 26 tokens, those in ⟦⟧\n"
    assert "nothing was answered yet" in said("/mask")


LIKELIEST = [{"a": 0.9, "x": 0.1}, {"y": 0.75, "b": 0.2, "\x1b": 0.01}, {"c": 0.999}]


def test_probabilities_are_shown_per_token_with_likelier_alternatives() -> None:
    assert said("hi", "/probs", likeliest=LIKELIEST).splitlines() == [
        "abc", "", "1   90.0%  a", "2   20.0%  b  rather y 75.0%", "3   99.9%  c", "4    0.1%  ⏎",
        "4 tokens, log-likelihood -8.62, -2.156 a token, perplexity 8.64",
    ]  # fmt: skip


def test_the_least_likely_of_a_long_reply_are_listed_first() -> None:
    likeliest = [{character: 0.001 * (1 + place)} for place, character in enumerate("abcdefghijkl")]

    shown = said("hi", "/probs", replies={"hi": "abcdefghijkl"}, likeliest=likeliest).splitlines()

    assert shown[2] == "the least likely tokens, '/probs all' lists all:"
    assert [line.split()[0] for line in shown[3:-1]] == ["1", "2", "3", "4", "5", "6", "7", "13"]
    assert len(said("hi", "/probs all", replies={"hi": "abcdefghijkl"}, likeliest=likeliest).splitlines()) == 2 + 13 + 1


def test_alternatives_at_a_token_are_listed_with_the_generated_one() -> None:
    assert said("hi", "/why 2", likeliest=LIKELIEST).splitlines() == [
        "token 2 of 4; '/fork 2 #K' goes on with another", "#1   75.0%  y", "#2   20.0%  b  ← said", "#3    1.0%  ␛",
    ]  # fmt: skip
    assert said("hi", "/why 4", likeliest=LIKELIEST).splitlines()[1:] == ["#1    0.1%  ⏎  ← said"]
    assert said("hi", "/why 9") == "sftchat: error: N is 9; the reply has 4 tokens\n"
    assert said("hi", "/why x") == "sftchat: error: N is 'x', must be a whole number from 1 on\n"
    assert said("/why 1").startswith("sftchat: error: ")


@pytest.mark.parametrize(("token", "begun"), [("#1", "ay"), ("Z", "aZ"), ("两 字", "a两 字")])
def test_a_fork_continues_from_another_token(token: str, begun: str) -> None:
    asked: list[Request] = []

    def reply(request: Request) -> str:
        asked.append(request)
        return "+" if request.reply_ids else "abc"

    engine = ScriptedEngine(reply, likeliest=LIKELIEST)
    out, _ = talked(engine, "hi", f"/fork 2 {token}", "/history")

    assert (asked[-1].reply_ids, asked[-1].reply_prefix) == (tuple(map(ord, begun)), "")
    assert asked[-1].messages == asked[0].messages
    assert out == f"abc\n{begun}+\n"


def test_a_fork_keeps_the_generated_tokens_and_does_not_tokenise_them_again() -> None:
    class Pairs(ScriptedEngine):
        """Model that generates ``ab`` as two tokens where its tokenizer gives one."""

        def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
            return "".join("ab" if token == 1000 else chr(token) for token in token_ids)

        def prompt_tokens(self, request: Request) -> tuple[Token, ...]:
            assert request.prompt is None or "ab" not in request.prompt
            return super().prompt_tokens(request)

    engine = Pairs(lambda request: "+" if request.reply_ids else "abc", likeliest=[{"a": 1.0}, {"b": 1.0}, {"c": 0.6, "x": 0.4}])
    talked(engine, "hi", "/fork 3 x", "/fork 3 #2")

    assert [request.reply_ids for request in engine.requests[1:]] == [tuple(map(ord, "abx"))] * 2


@pytest.mark.parametrize("told", ["a text without its tokens", "half a character\ufffd"])
def test_a_reply_whose_tokens_are_not_its_text_is_continued_by_its_text(told: str) -> None:
    engine = ScriptedEngine([Reply(told, "length"), "+"])
    engine.decode = lambda token_ids, adapter="": told if told.endswith("\ufffd") else "something else"  # type: ignore[method-assign]
    talked(engine, "hi", "/continue", settings=Settings(SamplingParams(max_new_tokens=100)))

    assert (engine.requests[-1].reply_prefix, engine.requests[-1].reply_ids) == (told, ())


def test_an_impossible_fork_is_refused() -> None:
    assert "TOKEN is missing" in said("hi", "/fork 2")
    assert "'/why 2' lists #1 to #3" in said("hi", "/fork 2 #9", likeliest=LIKELIEST)
    assert said("hi", "/fork 8 x") == "sftchat: error: N is 8; the reply has 4 tokens\n"


def test_a_given_answer_is_scored_by_every_model() -> None:
    engine = ScriptedEngine({"hi": "abc"}, name="tuned", likeliest=[{"g": 0.5}, {"\n": 0.5}])
    other = ScriptedEngine({"hi": "abd"}, name="基座", likeliest=[{"g": 0.25}, {"\n": 0.25}])

    _, err = talked(engine, "hi", "/likelihood g", "/likelihood", others=[other])

    assert err.splitlines()[-4:-2] == [
        "tuned  2 tokens, log-likelihood -1.39, -0.693 a token, perplexity 2",
        "基座   2 tokens, log-likelihood -2.77, -1.386 a token, perplexity 4",
    ]


def test_the_gold_answer_of_an_item_is_scored_without_typing_it(tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"id": "1", "messages": [{"role": "user", "content": "hi"}], "gold": "g"}\n', encoding="utf-8")
    task = Task("t", "", lambda n, seed: (), lambda example, reply: Score({"n": 1, "right": 0}), (rate("m", "right"),))
    likeliest = [{"g": 0.5}, {"\n": 0.5}]

    shown = said("hi", "/likelihood gold", likeliest=likeliest, services=ChatServices(scorer=GoldScorer(task, gold)))

    assert "2 tokens, log-likelihood -1.39" in shown
    assert "is no item of an evalset" in said("hi", "/likelihood gold", likeliest=likeliest)


def test_samples_are_counted_by_their_answers() -> None:
    task = Task(
        "t", "", lambda n, seed: (), lambda example, reply: Score({"n": 1, "right": 0}, reply.text.strip("。")), (rate("m", "right"),)
    )
    replies = ["x", "甲", "乙", "甲。", "甲"]

    shown = said("hi", "/samples 4", replies=replies, services=ChatServices(scorer=GoldScorer(task)))

    assert shown.splitlines() == ["4 samples at temperature 0.7, 2 different answers", "3×  甲", "1×  乙"]
    assert said("hi", "/samples 0") == "sftchat: error: K is '0', must be a whole number from 1 on\n"
    assert said("hi", "/samples 999") == "sftchat: error: K is 999, must be at most 256\n"


def test_samples_of_a_message_without_a_gold_reply_are_counted_under_a_task_that_needs_one() -> None:
    def score(example: Example, reply: Reply) -> Score:
        if example.gold is None:
            raise ValueError("no gold")
        return Score({"n": 1, "right": 0}, reply.text)

    task = Task("t", "", lambda n, seed: (), score, (rate("m", "right"),))

    shown = said("hi", "/samples 2", replies=["x", "甲", "甲"], services=ChatServices(scorer=GoldScorer(task)))

    assert shown.splitlines() == ["2 samples at temperature 0.7, 1 different answer", "2×  甲"]


def test_samples_are_one_batch_with_seeds_of_their_own() -> None:
    engine = ScriptedEngine(["x", "a", "b", "c"])

    talked(engine, "hi", "/samples 3")

    assert [(r.sampling.seed, r.sampling.temperature, r.messages) for r in engine.requests[1:]] == [
        (seed, 0.7, engine.requests[0].messages) for seed in range(3)
    ]


def test_a_text_is_continued_without_a_template() -> None:
    engine = ScriptedEngine({"从前": "有\x1b个人"})

    assert talked(engine, "/raw 从前")[1] == "从前有␛个人\n"
    assert engine.requests[0].prompt == "从前"
    assert "TEXT is missing" in said("/raw")
    assert said("/raw hi", replies={"hi": "y" * 30}).splitlines() == ["hi" + "y" * 20, "cut at 20 tokens"]


class Blind:
    """Engine without optional abilities."""

    name = "blind"

    def generate(self, requests: Any) -> Iterator[Any]:
        return ScriptedEngine({"hi": "abc"}).generate(requests)

    def close(self) -> None: ...


@pytest.mark.parametrize("line", ["/prompt", "/tokens", "/mask", "/probs", "/why 1", "/fork 1 x", "/likelihood g"])
def test_a_model_that_cannot_be_inspected_is_reported(line: str) -> None:
    _, err = talked(Blind(), "hi", line)

    assert err == "sftchat: error: model 'blind' cannot be looked into: only models that are loaded here can\n"


def test_a_real_model_can_be_inspected(tiny_checkpoint: Path) -> None:
    from sftchat.inference.open import load_engine

    engine = load_engine(str(tiny_checkpoint), {})
    assert isinstance(engine, Inspects)

    _, err = talked(engine, "你好 hi", "/prompt", "/mask", "/probs all", "/why 1", "/likelihood 你好", "/samples 3", "/raw hi")

    assert "<|im_start|>user\n你好 hi<|im_end|>\n<|im_start|>assistant\n▏" in err
    assert "error" not in err
    first = next(line for line in err.splitlines() if line.startswith("#1"))
    assert first.endswith("← said")  # greedy


@pytest.mark.parametrize("bos", [False, True])
def test_after_each_turn_the_prompt_is_a_prefix_of_the_training_row_with_one_system_prompt_and_ended_turns(
    view: Any, tiny_checkpoint: Path, tmp_path: Path, bos: bool
) -> None:
    from sftchat.inference.open import load_engine

    engine: Any = load_engine(str(tiny_checkpoint), {})
    if bos:
        engine.loaded = replace(
            engine.loaded, renderer=replace(engine.loaded.renderer, source="<|im_start|>" + engine.loaded.renderer.source)
        )
        engine = TransformersEngine("with bos", engine.loaded)
    log = view(engine, system="be brief", sampling=SamplingParams(max_new_tokens=4), services=ChatServices(rows=Rows(tmp_path)))
    log.type("one", "two", "/fix <think>想</think>\n好", "/regen", "/edit 2: zwei", "three")
    messages = log.chat.conversation.messages

    trained = engine.trained_tokens(messages)
    for turn in (2, 4, 6):
        asked = engine.prompt_tokens(Request("r", messages[:turn]))
        assert [token.id for token in asked] == [token.id for token in trained[: len(asked)]]
    text = "".join(token.text for token in trained)
    assert (text.count("be brief"), text.count("<|im_end|>"), text.startswith("<|im_start|><|im_start|>")) == (1, 7, bos)


def test_symbols_and_tables_are_aligned_for_any_width() -> None:
    shown = "".join(
        piece
        for _, piece in format_table([(("", "1"), ("", "甲"), ("", "x")), (("", "22"), ("", "ab"), ("", "y")), (("", "3"), ("", "e"))])
    )

    assert shown == " 1  甲  x\n22  ab  y\n 3  e"
    assert [one_line(Token(0, text)) for text in ("  a ", "\n\n", " ", "", "\x9b")] == ["␣␣a␣", "⏎⏎", "␣", "∅", "\\x9b"]
    assert {text_width(format_percent(p)) for p in (1.0, 0.5, 0.01, 1e-9)} == {6}


def test_parts_of_a_character_are_joined_and_single_parts_stay() -> None:
    class Bytes(ScriptedEngine):
        def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
            return bytes(token_ids).decode(errors="replace")

    def parts(data: bytes) -> list[Token]:
        return [Token(byte, bytes([byte]).decode(errors="replace")) for byte in data]

    engine = Bytes([])
    assert [token.text for token in join_partial_characters(engine, parts("a父🙂b".encode()))] == ["a", "父", "🙂", "b"]
    assert [token.text for token in join_partial_characters(engine, parts(b"\xe7a\xe7\x88"))] == ["\ufffd", "a", "\ufffd", "\ufffd"]


def test_on_a_narrow_terminal_notes_break_between_words_and_copyable_text_where_the_terminal_breaks(chat: Any) -> None:
    shown = chat(ScriptedEngine({"hi": "abcdefghijkl" * 4}), columns=30)
    shown.say("hi")
    shown.type("/probs\r")

    assert "abcdefghijklabcdefghijklabcdef\nghijklabcdefghijkl\n\nthe least likely tokens,\n'/probs all' lists all:\n" in (
        shown.screen.wait("perplexity")
    )
    assert "\n49 tokens, log-likelihood\n-338.48, -6.908 a token,\nperplexity 1e+03" in shown.leave()


def test_special_tokens_are_coloured_and_a_narrow_terminal_shows_everything(chat: Any) -> None:
    for columns in (24, 80):
        shown = chat(ScriptedEngine({"hi": "甲\x1b[2J乙"}), columns=columns)
        shown.say("hi")
        shown.type("/prompt\r")
        shown.screen.wait("tokens")
        shown.type("/probs\r")
        text = shown.screen.wait("perplexity" if columns > 60 else "plexity")
        assert "␛" in text
        assert "\x1b[2J乙" not in shown.screen.raw
