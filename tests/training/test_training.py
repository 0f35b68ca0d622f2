"""Training: rows, loss, the resulting folder, and refusals before slow steps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat import DataError, Example, Message, Metric, Score, Task, TrainingDefaults, UsageError
from sftchat._util.fallback import report_fallback
from sftchat.engine import Request, collect
from sftchat.errors import SftchatWarning
from sftchat.inference.open import load_engine
from sftchat.models.manifest import Manifest, read_manifest
from sftchat.templates.renderer import IGNORED, choose_renderer
from sftchat.training.checkpoints import UNFINISHED, check_output
from sftchat.training.config import TrainingConfig, configure
from sftchat.training.rows import render_rows
from sftchat.training.run import TrainingJob, train
from sftchat.training.trainer import Trainer
from sftchat.types import Reply, SamplingParams
from tests.conftest import make_checkpoint, make_tokenizer


def example(question: str, answer: str | None, source: str = "") -> Example:
    return Example((Message(role="user", content=question),), answer, source=source)


ROWS = [example(f"say {word}", word, f"rows.jsonl:{line}") for line, word in enumerate(["red", "blue", "green", "gold"] * 4, 1)]
TASK = Task("colours", "says colours", lambda n, seed: ROWS[:n], lambda e, r: Score({"n": 1}), (Metric("n", lambda sums: sums["n"]),))


def run(model: Path | str, output: Path, **given: Any) -> Manifest:
    options = {key: given.pop(key) for key in ("resume", "template", "template_arguments", "force") if key in given}
    job = TrainingJob(
        TASK,
        str(model),
        output,
        given.pop("examples", ROWS),
        ({"generator": "colours"},),
        {"max_steps": 4, "batch_size": 4, "precision": "float32", **given},
        **options,
    )
    return train(job)


def test_options_override_the_task_and_the_task_overrides_defaults() -> None:
    task = replace(TASK, training_defaults=lambda method, parameters: TrainingDefaults(learning_rate=0.5, max_length=99))

    config = configure(task, 1_000, {"method": "lora", "max_length": 77, "epochs": None})

    assert (config.method, config.learning_rate, config.max_length, config.epochs) == ("lora", 0.5, 77, TrainingConfig().epochs)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("learning_rate", 0.0, "--learning-rate is 0.0, must be above 0"),
        ("batch_size", 0, "--batch-size is 0, must be at least 1"),
        ("warmup", 1.0, "--warmup is 1.0, must be a share from 0 up to 1"),
        ("method", "magic", "--method is magic, must be one of full, lora, dora, qlora"),
    ],
)
def test_an_option_out_of_range_is_refused_with_the_allowed_values(name: str, value: Any, words: str) -> None:
    with pytest.raises(UsageError) as error:
        configure(TASK, 1_000, {name: value})

    assert str(error.value) == words


@pytest.mark.parametrize("lost", [("_save_checkpoint", "_get_output_dir"), ("_get_output_dir",)])
def test_a_checkpoint_that_a_newer_library_saves_in_its_own_way_is_complete(
    lost: tuple[str, ...], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_fallback.cache_clear()
    for name in lost:
        monkeypatch.delattr(Trainer, name)

    with pytest.warns(SftchatWarning, match="writing checkpoints aside does not work with the installed libraries"):
        run(tiny_checkpoint, tmp_path / "run", save_steps=2)

    saved = read_manifest(tmp_path / "run" / "checkpoint-2")
    assert saved is not None
    assert saved.steps == 2
    assert not (tmp_path / "run" / UNFINISHED).exists()


def test_rows_over_the_length_are_left_out_whole_and_reported() -> None:
    renderer = choose_renderer(make_tokenizer())
    rows = render_rows([example("q", "a", "f:1"), example("q" * 100, "a", "f:2"), example("q", None, "f:3")], renderer, 40)

    assert (len(rows.ids), rows.too_long, rows.without_reply) == (1, ("f:2",), ("f:3",))
    assert rows.labels[0][-1] == IGNORED  # the line break after the stop token
    assert rows.labels[0][-2] == renderer.stop_token


def test_when_no_row_fits_the_error_names_a_length_that_would() -> None:
    renderer = choose_renderer(make_tokenizer())

    with pytest.raises(DataError, match=r"^f:1: all 1 rows are longer than 10 tokens; raise --max-length to \d+ or more$"):
        render_rows([example("a question", "a", "f:1")], renderer, 10)


def test_plain_text_is_trained_on_whole() -> None:
    renderer = choose_renderer(make_tokenizer())

    rows = render_rows([Example((), "once upon a time")], renderer, 100)

    assert rows.ids == rows.labels
    assert rows.ids[0][-1] == renderer.tokenizer.eos_token_id


def test_the_hash_of_the_rows_covers_the_mask() -> None:
    renderer = choose_renderer(make_tokenizer())
    rows = render_rows(ROWS, renderer, 100)

    assert rows.hash == render_rows(ROWS, renderer, 100).hash
    assert rows.hash != replace(rows, labels=rows.ids).hash


def test_full_fine_tuning_learns_and_writes_a_folder_that_transformers_loads(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"

    manifest = run(tiny_checkpoint, output, max_steps=60, learning_rate=1e-2, logging_steps=5)

    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.config.use_cache
    assert GenerationConfig.from_pretrained(output).eos_token_id == [0, 2]
    assert "{% generation" not in (output / "chat_template.jinja").read_text()
    assert not (output / "training_args.bin").exists()
    assert read_manifest(output) == manifest
    assert (manifest.task, manifest.method, manifest.steps, manifest.rows) == ("colours", "full", 60, 16)
    replies = dict(collect(load_engine(str(output), {}), [Request("r", ROWS[1].messages, sampling=SamplingParams(max_new_tokens=8))]))
    reply = replies["r"]
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason) == ("blue", "stop")


def test_a_lora_run_is_an_adapter_with_its_base_and_stop_tokens(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"

    run(tiny_checkpoint, output, method="lora", lora_rank=16, max_steps=150, learning_rate=2e-2)

    assert json.loads((output / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_checkpoint)
    assert json.loads((output / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
    engine = load_engine(str(output), {})
    reply = dict(collect(engine, [Request("r", ROWS[2].messages, sampling=SamplingParams(max_new_tokens=8))]))["r"]
    assert isinstance(reply, Reply)
    assert reply.text == "green"


def test_the_loss_equals_that_of_transformers_on_the_same_rows(tiny_checkpoint: Path) -> None:
    """Computing the head only on labelled positions must not change the loss significantly."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sftchat.training.trainer import Trainer, collate, sft_config, to_dataset

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    rows = render_rows(ROWS, choose_renderer(tokenizer), 100)
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    trainer = Trainer(
        model=model, args=sft_config(TrainingConfig(batch_size=4), str(tiny_checkpoint / "unused"), "float32", "cpu"), data_collator=collate,
        train_dataset=to_dataset(rows), processing_class=tokenizer,
    )  # fmt: skip
    batch = collate([{"input_ids": list(rows.ids[i]), "labels": list(rows.labels[i])} for i in range(4)])

    ours = trainer.compute_loss(model, dict(batch))
    ours.backward()
    gradient = model.model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    theirs = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    theirs.backward()

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, model.model.embed_tokens.weight.grad, rtol=1e-4, atol=1e-6)


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run(tiny_checkpoint, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()

    with pytest.raises(UsageError, match="already holds a run; give another -o$"):
        run(tiny_checkpoint, tmp_path / "run")

    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_folder_with_other_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(UsageError, match="is not empty; give another -o$"):
        check_output(tmp_path, resume=False)


def test_resuming_without_a_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no run to resume; train without --resume$"):
        check_output(tmp_path, resume=True)


def test_a_resumed_run_ends_like_an_uninterrupted_one(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """An intermediate checkpoint, resumed, gives the same weights."""
    run(tiny_checkpoint, tmp_path / "whole", max_steps=6, save_steps=3)
    (tmp_path / "cut").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    shutil.copy(tmp_path / "cut" / "checkpoint-3" / "sftchat.json", tmp_path / "cut")

    run(tiny_checkpoint, tmp_path / "cut", max_steps=6, save_steps=3, resume=True)

    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def unfinished(model: Path, folder: Path) -> None:
    """Run that was killed after its second step."""
    run(model, folder, max_steps=4, save_steps=2)
    for path in (*folder.glob("*.*"), folder / "checkpoint-4"):
        if path.is_file():
            path.unlink()
        elif path.name == "checkpoint-4":
            shutil.rmtree(path)
    shutil.copy(folder / "checkpoint-2" / "sftchat.json", folder)


def test_a_run_is_not_resumed_on_other_rows(tiny_checkpoint: Path, tmp_path: Path) -> None:
    unfinished(tiny_checkpoint, tmp_path / "run")

    with pytest.raises(UsageError, match="tokens hash was .*, is now .*; undo that, or train into another folder$"):
        run(tiny_checkpoint, tmp_path / "run", max_steps=4, save_steps=2, resume=True, examples=ROWS[:8])


def test_an_intermediate_checkpoint_can_be_used_in_a_chat(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run(tiny_checkpoint, tmp_path / "run", max_steps=4, save_steps=2)

    engine = load_engine(str(tmp_path / "run" / "checkpoint-2"), {})

    assert engine.name == str(tmp_path / "run" / "checkpoint-2")
    assert read_manifest(tmp_path / "run" / "checkpoint-2").steps == 2  # type: ignore[union-attr]


def test_a_template_without_an_end_of_turn_is_trained_with_the_end_of_text_and_reported(tiny_checkpoint: Path, tmp_path: Path) -> None:
    endless = tmp_path / "endless.jinja"
    endless.write_text(
        "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
    )

    with pytest.warns(SftchatWarning, match="writes no token at the end of a reply; replies are trained to end with '<|endoftext|>'"):
        run(tiny_checkpoint, tmp_path / "run", template=str(endless), max_steps=1)

    assert read_manifest(tmp_path / "run") is not None


def test_training_on_an_adapter_requires_merging_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run(tiny_checkpoint, tmp_path / "adapter", method="lora")

    with pytest.raises(UsageError, match="is an adapter; merge it into its base before training on$"):
        run(tmp_path / "adapter", tmp_path / "more")


def test_weights_of_another_seed_have_another_identity(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from sftchat.models.fingerprint import identity
    from sftchat.models.reference import resolve

    other = make_checkpoint(tmp_path / "other", seed=1)
    copy = make_checkpoint(tmp_path / "copy")

    assert identity(resolve(str(copy))) == identity(resolve(str(tiny_checkpoint)))
    assert identity(resolve(str(other))) != identity(resolve(str(tiny_checkpoint)))


def test_cpu_attention_is_ours_where_it_is_equal_and_the_models_own_elsewhere(tiny_checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

    from sftchat.training.packing import Attention, choose_attention, restore_attention

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    ids = torch.arange(60).reshape(2, 30)
    before = model(input_ids=ids).logits

    assert choose_attention(model, 512, "off") == Attention("sftchat_causal", packed=False)
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)
    restore_attention(model)
    assert model.config._attn_implementation == "sdpa"
    assert choose_attention(model, 513, "off") == Attention("sdpa", packed=False)
    assert choose_attention(model, 513) == Attention("sftchat_causal", packed=True)
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16}
    windowed = Gemma2ForCausalLM(Gemma2Config(**shape, num_key_value_heads=1, sliding_window=8))
    own = windowed.config._attn_implementation
    assert choose_attention(windowed, 64) == Attention(own, packed=False)
