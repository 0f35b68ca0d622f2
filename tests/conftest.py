"""Shared fixtures: a tiny tokenizer, a tiny random model, a temporary home folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from sftchat.cli import GOMP_SPINCOUNT

settings.register_profile("sftchat", deadline=None)  # a busy machine is no failure
settings.load_profile("sftchat")

os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINCOUNT)  # like the program, before torch is imported


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate tests from the user's files and the network."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(home))
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "SFTCHAT_CACHE_DIR", "SFTCHAT_NO_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a random two-layer Qwen3 with a byte-level tokenizer that has ChatML's tokens."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def make_tokenizer() -> object:
    """A byte-level tokenizer: 256 bytes, a few merges, ChatML's tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the user and the assistant talk", "系统 用户 你好 你好"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write a tiny random checkpoint; different seeds give different weights."""
    import torch

    from sftchat.models.loading import quiet_libraries

    quiet_libraries()
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),  # type: ignore[arg-type]
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=True,
        max_position_embeddings=256,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
        initializer_range=0.3,  # so that replies of a random model vary
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder
