"""A batch as one sequence: the same loss and gradients as rows computed one by one, for any lengths and common beginnings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sftchat.templates.renderer import IGNORED
from sftchat.training.packing import Attention, choose_attention, pack_batch, repack, unpack
from sftchat.training.trainer import collate

rows_of_ids = st.integers(0, 6).flatmap(
    lambda shared: st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=5).map(
        lambda rows: [[3] * shared + row for row in rows]
    )
)


def batch_of(rows: list[list[int]]) -> dict[str, Tensor]:
    return collate([{"input_ids": row, "labels": [IGNORED if at % 3 == 0 else token for at, token in enumerate(row)]} for row in rows])


@given(rows_of_ids)
@settings(deadline=None, max_examples=30)
def test_every_token_is_at_its_cell_and_is_joined_back(rows: list[list[int]]) -> None:
    batch = batch_of(rows)
    layout = pack_batch(batch["input_ids"], batch["labels"], batch["lengths"])

    padded = unpack(layout.ids[0][:, None].float(), layout)

    for number, row in enumerate(rows):
        assert padded[number, : len(row), 0].tolist() == row
        assert layout.positions[0][layout.packed_positions[number, : len(row)]].tolist() == list(range(len(row)))
    assert repack(padded, layout)[:, 0].tolist() == layout.ids[0].tolist()
    predicted = [token for row in rows for at, token in enumerate(row) if at and at % 3]
    assert layout.targets.tolist() == predicted


@given(rows_of_ids)
@settings(deadline=None, max_examples=30)
def test_gradients_of_spreading_and_joining_are_those_of_plain_indexing(rows: list[list[int]]) -> None:
    batch = batch_of(rows)
    layout = pack_batch(batch["input_ids"], batch["labels"], batch["lengths"])
    count = layout.ids.shape[1]
    real = torch.arange(layout.packed_positions.shape[1]) < batch["lengths"][:, None]
    weight = torch.randn(*layout.packed_positions.shape, 2) * real[..., None]
    ours, plain = (torch.randn(count, 2, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))

    (unpack(ours, layout) * weight).sum().backward()
    (plain[layout.packed_positions] * weight).sum().backward()

    torch.testing.assert_close(ours.grad, plain.grad)


@pytest.mark.parametrize("lengths", [[5], [30, 7, 19, 30]])
def test_a_packed_batch_has_the_loss_and_the_gradients_of_its_rows_one_by_one(tiny_checkpoint: Path, lengths: list[int]) -> None:
    from transformers import AutoModelForCausalLM

    packed, plain = (AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32) for _ in range(2))
    rows = [[1, 9, 9, 4] + [(7 * at + length) % 300 for at in range(length)] for length in lengths]
    batch = batch_of(rows)

    assert choose_attention(packed, max(lengths)) == Attention("sftchat_causal", packed=True)
    layout = pack_batch(batch["input_ids"], batch["labels"], batch["lengths"])
    logits = packed(input_ids=layout.ids, position_ids=layout.positions, layout=layout, use_cache=False).logits[0]
    ours = torch.nn.functional.cross_entropy(logits[layout.labelled], layout.targets, reduction="sum")
    ours.backward()
    theirs = torch.zeros(())
    for row, labels in zip(rows, batch["labels"], strict=True):
        output = plain(input_ids=torch.tensor([row]), use_cache=False).logits[0, :-1]
        theirs = theirs + torch.nn.functional.cross_entropy(output, labels[1 : len(row)], reduction="sum")
    theirs.backward()

    assert layout.ids.shape[1] < sum(map(len, rows)) + 32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for (name, mine), (_, other) in zip(packed.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_a_model_that_ignores_the_layout_is_not_packed() -> None:
    """Its rows would attend to each other."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    model = GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=64, hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global"], 2]], max_position_embeddings=64
        )
    )

    assert not choose_attention(model, 30, "on").packed


def test_the_last_mlp_runs_only_at_used_positions_with_the_same_loss_and_gradients(tiny_checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    from sftchat.training.trainer import SkipLastMlp

    trimmed, plain = (AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32) for _ in range(2))
    trimming = SkipLastMlp(trimmed)
    seen: list[int] = []
    trimmed.model.layers[-1].mlp.gate_proj.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    ids, positions = torch.arange(40).reshape(2, 20), torch.tensor([3, 3, 17, 39])

    assert trimming.is_active
    with trimming.only_at(positions):
        ours = trimmed(input_ids=ids, use_cache=False).logits.flatten(0, 1)[positions].logsumexp(-1).sum()
    ours.backward()
    theirs = plain(input_ids=ids, use_cache=False).logits.flatten(0, 1)[positions].logsumexp(-1).sum()
    theirs.backward()

    assert seen == [3]
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(trimmed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)
    assert trimmed(input_ids=ids, use_cache=False).logits.equal(trimmed(input_ids=ids, use_cache=False).logits)
    assert seen[1:] == [20, 20]


def test_a_model_whose_last_mlp_needs_all_positions_is_not_trimmed(tiny_checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    from sftchat.training.trainer import SkipLastMlp

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    network = model.model.layers[-1].mlp
    alone = network.forward
    network.forward = lambda states: alone(states + states.mean(1, keepdim=True))

    assert not SkipLastMlp(model).is_active
    assert len(network._forward_hooks) == 0
