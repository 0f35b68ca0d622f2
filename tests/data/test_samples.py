"""Replies are saved as they arrive, generated once, and never used for other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat import DataError, EngineError, Example, Message, Reply, SamplingParams, SftchatError, UsageError
from sftchat.data.samples import SampleFile, SampleKey, generate_samples, missing_requests, prompt_key, settings_of
from sftchat.testing import ScriptedEngine

PROMPTS = [Example((Message(role="user", content=text),), "x", source=f"p:{n}") for n, text in enumerate(("一", "二", "一"), 1)]
SAMPLING = SamplingParams(temperature=0.8, seed=10)
SETTINGS = settings_of("m", "ab", SAMPLING)


def says(request: object) -> str:
    return f"{request.messages[-1]['content']}{request.sampling.seed}"  # type: ignore[attr-defined]


def ask(path: Path, k: int, engine: ScriptedEngine | None = None) -> tuple[list[str], SampleFile]:
    """Return the requests as prompt and seed."""
    engine = engine or ScriptedEngine(says)
    with SampleFile(path, SETTINGS) as samples:
        list(generate_samples(engine, missing_requests(PROMPTS, k, SAMPLING, samples), samples))
    return [says(request) for request in engine.requests], samples


def test_every_prompt_is_generated_k_times_with_a_seed_each_and_equal_prompts_once(tmp_path: Path) -> None:
    asked, samples = ask(tmp_path / "s", 2)
    assert asked == ["一10", "一11", "二10", "二11"]
    assert [reply.text for reply in samples.replies_to(PROMPTS[2].messages)] == ["一10", "一11"]
    assert len(samples) == 4


def test_saved_replies_are_not_generated_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    ask(path, 1)
    before = path.read_bytes()
    assert ask(path, 3)[0] == ["一11", "一12", "二11", "二12"]
    assert path.read_bytes().startswith(before)
    again, samples = ask(path, 3)
    assert again == []
    assert [reply.text for reply in samples.replies_to(PROMPTS[1].messages)] == ["二10", "二11", "二12"]


def test_the_incomplete_line_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    ask(path, 2)
    whole = path.read_bytes()
    lines = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (1, lines[0] - 1, lines[0], lines[0] + 9, lines[2] - 1, lines[2], lines[3] + 30):
        path.write_bytes(whole[:cut])
        ask(path, 2)
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_saved_reply_is_read_unchanged(tmp_path: Path) -> None:
    replies = [Reply("半\ud83d\u2028\n", "length", 3, 2), Reply("", "stop")]
    with SampleFile(tmp_path / "s", SETTINGS) as samples:
        for number, reply in enumerate(replies):
            samples.add(SampleKey(prompt_key(PROMPTS[0].messages), number), reply)
    assert SampleFile(tmp_path / "s").replies_to(PROMPTS[0].messages) == replies


def test_replies_made_with_other_settings_are_refused_and_fresh_ones_take_their_place(tmp_path: Path) -> None:
    path = tmp_path / "s"
    ask(path, 1)
    with pytest.raises(UsageError) as caught:
        SampleFile(path, settings_of("m", "ab", SamplingParams(temperature=1.0, seed=10)))
    assert str(caught.value) == (
        f"{path} holds replies made with temperature 0.8, not 1.0; give --fresh to make them again, or --samples another file"
    )
    with pytest.raises(UsageError) as caught:
        SampleFile(path, settings_of("m", "cd", SAMPLING))
    assert 'made with identity "ab", not "cd"' in str(caught.value)
    other = settings_of("other", "", SAMPLING)
    with SampleFile(path, other, fresh=True) as samples:
        samples.add(SampleKey("p", 0), Reply("x"))
    assert [json.loads(line).get("model", "") for line in path.read_text().splitlines()] == ["other", ""]


def test_two_runs_do_not_write_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with SampleFile(path, SETTINGS) as one, SampleFile(path, SETTINGS) as other:
        one.add(SampleKey("p", 0), Reply("x"))
        with pytest.raises(SftchatError) as caught:
            other.add(SampleKey("p", 0), Reply("y"))
    assert str(caught.value) == f"another run has added to {path}, or still does; run again when it is done, or give --samples another file"
    with pytest.raises(SftchatError):  # also after the first has ended: its replies were not read
        other.add(SampleKey("p", 0), Reply("y"))
    assert len(SampleFile(path, SETTINGS)) == 1


def test_a_run_that_read_all_replies_still_waits_for_the_one_that_adds_some(tmp_path: Path) -> None:
    path, key = tmp_path / "s", prompt_key(PROMPTS[0].messages)
    with SampleFile(path, SETTINGS) as first:
        first.add(SampleKey(key, 0), Reply("one"))
        with SampleFile(path, SETTINGS) as second, pytest.raises(SftchatError, match="another run has added to"):
            second.add(SampleKey(key, 1), Reply("two"))

    assert [reply.text for reply in SampleFile(path).replies_to(PROMPTS[0].messages)] == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n', "{path}: the file holds no samples; give --samples another name"),
        ("no\n", "{path}:1: the line is no sample; restore the file, or give --fresh to make all replies again"),
        (
            '{"sftchat_samples": 1}\n{"prompt": "p"}\n',
            "{path}:2: the line is no sample; restore the file, or give --fresh to make all replies again",
        ),
    ],
)
def test_files_without_samples_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "s"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        SampleFile(path)
    assert str(caught.value) == message.format(path=path)
    assert path.read_text() == content


def test_a_failed_request_is_reported_and_repeated_next_time(tmp_path: Path) -> None:
    path = tmp_path / "s"
    failing = ScriptedEngine(lambda request: Reply("", "error") if says(request) == "二10" else says(request))
    with SampleFile(path, SETTINGS) as samples:
        outcomes = list(generate_samples(failing, missing_requests(PROMPTS, 1, SAMPLING, samples), samples))
    assert [str(outcome) for outcome in outcomes] == ["None", "scripted"]
    assert ask(path, 1)[0] == ["二10"]


def test_an_engine_that_fails_leaves_earlier_replies(tmp_path: Path) -> None:
    def dying(request: object) -> str:
        if says(request) == "二10":
            raise EngineError("server gone")
        return says(request)

    with pytest.raises(EngineError):
        ask(tmp_path / "s", 2, ScriptedEngine(dying))
    assert ask(tmp_path / "s", 2)[0] == ["二10", "二11"]
