"""Every example of docs/replies.md runs, on small files in the real formats of the tools."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftchat.cli import main
from sftchat.evaluation.replies import convert_row

PAGE = (Path(__file__).parents[2] / "docs" / "replies.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
PROMPT = "从以下小说内容中提取人物关系:\n"
GOLD = {"a": "罗松年-卫小满:师徒", "b": "闻人朔-柳如絮:夫妻", "c": "无"}
TEXTS = {"a": "罗松年收卫小满为徒。", "b": "闻人朔娶了柳如絮。", "c": "雨下了一个时辰。"}
SAID = {"a": "罗松年-卫小满:师徒", "b": "闻人朔-柳如絮:朋友", "c": "无"}


def lines(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def lm_eval() -> dict[str, Any]:
    rows = [
        {
            "doc_id": number,
            "doc": {"id": name, "text": TEXTS[name], "gold": GOLD[name]},
            "target": GOLD[name],
            "arguments": {"gen_args_0": {"arg_0": PROMPT + TEXTS[name], "arg_1": {"until": ["\n\n"], "do_sample": False}}},
            "resps": [[SAID[name]]],
            "filtered_resps": [SAID[name].split("-")[0]],
            "filter": "none",
            "metrics": ["exact_match"],
            "doc_hash": "0",
            "prompt_hash": "0",
            "target_hash": "0",
            "exact_match": 0.0,
        }
        for number, name in enumerate(GOLD)
    ]
    lines("samples_relation_2026-01-01T00-00-00.jsonl", rows)
    return {}


def vllm() -> dict[str, Any]:
    rows = [
        {
            "id": f"vllm-{name}",
            "custom_id": name,
            "response": {
                "status_code": 200,
                "request_id": f"vllm-batch-{name}",
                "body": {
                    "id": f"chatcmpl-{name}",
                    "object": "chat.completion",
                    "model": "MODEL",
                    "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "logprobs": None, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 30, "total_tokens": 40, "completion_tokens": 10},
                },
            },
            "error": None,
        }
        for name, said in reversed(SAID.items())
    ]
    lines("responses.jsonl", rows)
    return {"outputs": [SimpleNamespace(outputs=[SimpleNamespace(text=said, finish_reason="stop")]) for said in SAID.values()]}


def unsloth() -> dict[str, Any]:
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>{}"
    return {"decoded": [asked.format(PROMPT + TEXTS[name], said, "<|endoftext|>" * n) for n, (name, said) in enumerate(SAID.items())]}


def axolotl() -> dict[str, Any]:
    columns = [
        "id",
        "Prompt",
        "Correct Completion",
        "Predicted Completion (model.generate)",
        "Predicted Completion (trainer.prediction_step)",
    ]
    data = [[n, PROMPT + TEXTS[name], GOLD[name], said + "<|im_end|>", "x"] for n, (name, said) in enumerate(SAID.items())]
    Path("eval_table.json").write_text(json.dumps({"columns": columns, "data": data}), encoding="utf-8")
    return {}


def llama_factory() -> dict[str, Any]:
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    rows = [{"prompt": asked.format(PROMPT + TEXTS[name]), "predict": said, "label": GOLD[name] + "\n"} for name, said in SAID.items()]
    lines("generated_predictions.jsonl", rows)
    return {}


SAMPLES: dict[str, Callable[[], dict[str, Any]]] = {
    "lm-evaluation-harness": lm_eval,
    "vLLM": vllm,
    "Unsloth": unsloth,
    "axolotl": axolotl,
    "LLaMA-Factory": llama_factory,
}


def test_every_tool_of_the_page_has_a_sample_here() -> None:
    assert list(SECTIONS) == list(SAMPLES)


@pytest.mark.parametrize("tool", SAMPLES)
def test_every_example_of_the_page_runs(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(
        "gold.jsonl",
        [{"id": name, "messages": [{"role": "user", "content": PROMPT + TEXTS[name]}], "gold": gold} for name, gold in GOLD.items()],
    )
    names = SAMPLES[tool]()
    found = []
    for block in re.findall(r"```python\n(.*?)```", SECTIONS[tool], flags=re.DOTALL):
        exec(compile(block, tool, "exec"), dict(names))
    for command in re.findall(r"^sftchat (.+)$", SECTIONS[tool], flags=re.MULTILINE):
        found.append((main([*shlex.split(command), "--json"]), capsys.readouterr().out))
    if Path("replies.jsonl").exists() and tool == "vLLM":
        found.append(
            (
                main(["eval", "--task", "relation", "--evalset", "gold.jsonl", "--replies", "replies.jsonl", "--json"]),
                capsys.readouterr().out,
            )
        )

    assert found
    for code, out in found:
        result = json.loads(out)["results"][0]
        assert (code, result["n"], result["right"]) == (0, 3, 2)
    if tool == "vLLM":
        requests = [json.loads(line) for line in Path("requests.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [request["custom_id"] for request in requests] == list(GOLD)


def test_a_failed_batch_request_is_a_failure_and_not_a_bad_reply() -> None:
    error = {"custom_id": "a", "response": {"status_code": 500, "body": None}, "error": None}

    assert convert_row(error) == {"id": "a", "reply": "", "finish_reason": "error", "error": "HTTP 500"}


def test_a_row_that_only_looks_like_another_tools_is_left_alone() -> None:
    row = {"custom_id": "a", "response": {"status_code": 200, "body": {}}}

    assert convert_row(row) == row
    assert convert_row({"id": "a", "reply": "x", "custom_id": "b", "response": 1})["id"] == "a"
