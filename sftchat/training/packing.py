"""Batches of similar lengths in random order, and sequence packing: the rows of a batch as one long row, with causal attention within each.

Linear layers, norms and activations process the long row, i.e. no padding, and a prefix that all rows share only once. Attention works on the padded
rows, which are copied from the long row and back by selecting indices (``_Unpack``, ``_Repack``); this is also how their gradients are computed,
without slow scattering. The layout reaches the attention as a keyword that transformers passes through; before the first step, a trial tests whether
the model passes it on and gives the same logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from sftchat._util.fallback import report_fallback
from sftchat.errors import in_one_line
from sftchat.inference.cpu import attention_implementation
from sftchat.models.loading import unwrapped
from sftchat.templates.renderer import IGNORED

POOL_BATCHES = 50
"""Number of batches cut from one pool of rows: a larger pool gives more similar lengths within a batch and less random batches."""


class SimilarLengths(Sampler[int]):
    """Yields row indices such that each batch holds rows of similar lengths.

    transformers' own sampler for this (``group_by_length``) leaves the batches of each pool in descending order of length, so that row length
    falls and jumps back every fifty steps. This sampler shuffles the batches.

    Args:
        lengths: Length of each row in tokens.
        batch_size: Rows per batch, at least 1.
        seed: The same seed and epoch give the same order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order; called by the training loop."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield every index once; an incomplete batch comes last."""
        rng = Random(f"{self.seed}-{self.epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        size, pool_size = self.batch_size, POOL_BATCHES * self.batch_size
        in_full_batches = len(order) - len(order) % size
        batches = []
        for pool_start in range(0, in_full_batches, pool_size):
            pool = sorted(order[pool_start : min(pool_start + pool_size, in_full_batches)], key=lambda row: self.lengths[row])
            batches += [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from (row for batch in batches for row in batch)
        yield from order[in_full_batches:]


LENGTH_MULTIPLE = 32
"""The long row is padded to a multiple of this, because matrix libraries compile or tune for every new shape."""


@dataclass(frozen=True)
class Layout:
    """A batch as one long row, and the positions of its tokens in the long row and in the padded batch.

    Attributes:
        ids: Token ids, shape ``(1, tokens)``.
        positions: Position of each token in its own row, shape ``(1, tokens)``.
        packed_positions: Index into the long row for each cell of the padded batch, shape ``(rows, width)``; 0 for padding.
        padded_positions: Index into the flattened padded batch for each token of the long row, shape ``(tokens,)``; tokens of the shared prefix belong
            to the first row, padding of the long row to cell 0.
        shared: Length of the prefix that all rows share.
        count: Number of tokens in the long row without its padding.
        owns_token: Whether a cell of the padded batch has its own token in the long row; False for padding, and for the shared prefix in all rows but
            the first, shape ``(rows, width, 1)``.
        labelled: Positions in the long row that predict a labelled token; those of the shared prefix may occur several times.
        targets: The labelled tokens predicted there.
    """

    ids: Tensor
    positions: Tensor
    packed_positions: Tensor
    padded_positions: Tensor
    shared: int
    count: int
    owns_token: Tensor
    labelled: Tensor
    targets: Tensor


def pack_batch(ids: Tensor, labels: Tensor, lengths: Tensor) -> Layout:
    """Convert a padded batch to one long row, with the shared prefix stored once.

    Args:
        ids: Token ids padded on the right, shape ``(rows, width)``.
        labels: Labels, ``IGNORED`` for tokens without a loss; same shape.
        lengths: Length of each row in tokens, shape ``(rows,)``.
    """
    rows, width = int(ids.shape[0]), int(lengths.max())
    ids, labels = ids[:, :width], labels[:, :width]
    is_same_in_all_rows = (ids == ids[:1]).all(0)[: int(lengths.min())]
    shared = int(is_same_in_all_rows.long().cumprod(0).sum()) if rows > 1 else 0  # up to the first difference
    position = torch.arange(width, device=ids.device)
    is_real = position < lengths[:, None]
    is_first_row = torch.arange(rows, device=ids.device)[:, None] == 0
    owns_token = is_real & ((position >= shared) | is_first_row)
    padded_positions = owns_token.flatten().nonzero().flatten()
    count = padded_positions.numel()
    packed_positions = torch.zeros(rows * width, dtype=torch.long, device=ids.device)
    packed_positions[padded_positions] = torch.arange(count, device=ids.device)
    packed_positions = packed_positions.view(rows, width)
    packed_positions[:, :shared] = packed_positions[0, :shared]
    padding = torch.zeros(-count % LENGTH_MULTIPLE, dtype=torch.long, device=ids.device)
    padded_positions = torch.cat([padded_positions, padding])
    next_labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    has_label = next_labels != IGNORED
    return Layout(
        ids=ids.flatten()[padded_positions][None],
        positions=(padded_positions % width)[None],
        packed_positions=packed_positions,
        padded_positions=padded_positions,
        shared=shared,
        count=count,
        owns_token=owns_token[..., None],
        labelled=packed_positions[has_label],
        targets=next_labels[has_label],
    )


class _Unpack(torch.autograd.Function):
    """Long row to padded rows; gradients of the shared prefix are summed over the rows."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        rows, width = layout.packed_positions.shape
        return states.index_select(0, layout.packed_positions.flatten()).view(rows, width, states.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layout, gradient = ctx.layout, gradients[0]
        packed = gradient.flatten(0, 1).index_select(0, layout.padded_positions)
        packed[layout.count :] = 0  # padding has no gradient
        packed[: layout.shared] += gradient[1:, : layout.shared].sum(0)
        return packed, None


class _Repack(torch.autograd.Function):
    """Padded rows to long row; cells that do not own their token get no gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return states.flatten(0, 1).index_select(0, layout.padded_positions)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layout, gradient = ctx.layout, gradients[0]
        rows, width = layout.packed_positions.shape
        padded = gradient.index_select(0, layout.packed_positions.flatten()).view(rows, width, gradient.shape[1])
        return padded.mul_(layout.owns_token), None


def unpack(states: Tensor, layout: Layout) -> Tensor:
    """Copy the tokens of the long row, shape ``(tokens, size)``, to padded rows, shape ``(rows, width, size)``."""
    result: Tensor = _Unpack.apply(states, layout)
    return result


def repack(states: Tensor, layout: Layout) -> Tensor:
    """Copy padded rows, shape ``(rows, width, size)``, back to the long row, shape ``(tokens, size)``."""
    result: Tensor = _Repack.apply(states, layout)
    return result


ATTENTION_NAME = "sftchat_causal"
MAX_MATRIX_TOKENS = 512
"""Maximum row length for attention by two explicit matrix products, whose memory grows with the square of the length."""


@dataclass(frozen=True)
class Attention:
    """Attention implementation used in training.

    Attributes:
        name: Its transformers name.
        packed: Whether batches are passed as one long row with a ``layout``.
    """

    name: str
    packed: bool


def causal_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row, as a transformers attention function.

    Args:
        module: Attention layer; not used.
        query: Shape ``(batch, heads, tokens, size)``.
        key: Shape ``(batch, groups, tokens, size)``.
        value: Same shape as ``key``.
        attention_mask: Must be None: training pads on the right, where causal attention never looks.
        scaling: Factor of the scores; ``size ** -0.5`` by default.
        layout: Layout of the batch when it is one long row.
    """
    if attention_mask is not None:
        raise ValueError("causal_attention takes no mask")
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout is None:
        return _attend(query, key, value, factor), None
    attended = _attend(_unpack_heads(query, layout), _unpack_heads(key, layout), _unpack_heads(value, layout), factor)
    return repack(attended.flatten(2), layout).view(query.shape[2], *attended.shape[2:])[None], None


def _unpack_heads(states: Tensor, layout: Layout) -> Tensor:
    """Convert the long row, shape ``(1, heads, tokens, size)``, to padded rows, shape ``(rows, heads, width, size)``."""
    _, heads, _, size = states.shape
    rows, width = layout.packed_positions.shape
    return unpack(states[0].transpose(0, 1).flatten(1), layout).view(rows, width, heads, size).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Compute causal attention; queries of a group share one product with their keys. Returns shape ``(batch, tokens, heads, size)``."""
    batch, heads, tokens, size = query.shape
    groups = key.shape[1]
    if tokens > MAX_MATRIX_TOKENS or query.device.type != "cpu":
        attended = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=groups != heads
        )
        return attended.transpose(1, 2).contiguous()
    grouped_query = query.reshape(batch, groups, -1, size)
    scores = torch.matmul(grouped_query * scaling, key.transpose(-1, -2)).view(batch, heads, tokens, tokens)
    scores = scores + torch.full((tokens, tokens), -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    weights = scores.softmax(-1).to(value.dtype).view(batch, groups, -1, tokens)
    return torch.matmul(weights, value).view(batch, heads, tokens, size).transpose(1, 2).contiguous()


def choose_attention(model: Any, longest: int, packing: str = "auto") -> Attention:
    """Switch a model to ``causal_attention`` if the model then gives the same logits; return the attention in use.

    A trial on a few tokens decides, not a list of architectures: a model with attention sinks or capped scores gives other logits and keeps its
    own attention. A sliding window has no effect on a few tokens, so models with one are recognised by their config. The choice does not depend on
    timing, because a resumed run must repeat it.

    Args:
        model: A causal language model, possibly with an adapter.
        longest: Length of the longest row in tokens.
        packing: ``auto`` packs on a CPU, ``on`` on any device, ``off`` never.
    """
    inner = unwrapped(model)
    config = inner.config.get_text_config()
    original = attention_implementation(inner)
    has_window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    is_supported = original == "sdpa" and not has_window and not getattr(config, "attention_dropout", 0.0)
    on_cpu = inner.device.type == "cpu"
    may_pack = packing == "on" or (packing == "auto" and on_cpu)
    faster_unpacked = on_cpu and longest <= MAX_MATRIX_TOKENS
    if not is_supported or not (may_pack or faster_unpacked):
        return Attention(original, packed=False)
    try:
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION_NAME, causal_attention)
    except (ImportError, AttributeError, TypeError) as error:
        report_fallback("attention over a packed batch", in_one_line(error))
        return Attention(original, packed=False)
    ids, lengths = _trial_batch(config.vocab_size, inner.device)
    original_logits = _compute_logits(inner, ids)
    inner.set_attn_implementation(ATTENTION_NAME)
    if may_pack and _logits_agree(original_logits, _compute_packed_logits(inner, ids, lengths), lengths):
        return Attention(ATTENTION_NAME, packed=True)
    if faster_unpacked and _logits_agree(original_logits, _compute_logits(inner, ids), lengths):
        return Attention(ATTENTION_NAME, packed=False)
    inner.set_attn_implementation(original)
    return Attention(original, packed=False)


@contextmanager
def original_attention(model: Any) -> Iterator[None]:
    """Restore the model's own attention within the block, for generation."""
    inner = unwrapped(model)
    was_replaced = attention_implementation(inner) == ATTENTION_NAME
    restore_attention(model)
    try:
        yield
    finally:
        if was_replaced:
            inner.set_attn_implementation(ATTENTION_NAME)


def restore_attention(model: Any) -> None:
    """Restore the model's own attention permanently."""
    if attention_implementation(unwrapped(model)) == ATTENTION_NAME:
        unwrapped(model).set_attn_implementation("sdpa")


def _trial_batch(vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a padded batch of rows with a shared prefix, and their lengths."""
    ids = (torch.arange(72, device=device).reshape(3, 24) * 7 + 1) % vocabulary
    ids[:, :5] = ids[0, :5].clone()
    return ids, torch.tensor([24, 11, 17], device=device)


def _logits_agree(expected: Tensor | None, actual: Tensor | None, lengths: Tensor) -> bool:
    """Return whether two sets of logits agree on real tokens within their precision."""
    if expected is None or actual is None:
        return False
    tolerance = 1e-3 if expected.dtype == torch.float32 else 5e-2
    is_real = torch.arange(expected.shape[1], device=expected.device) < lengths[:, None]
    return torch.allclose(expected[is_real].float(), actual[is_real].float(), rtol=tolerance, atol=tolerance)


def _compute_logits(model: Any, ids: Tensor, **arguments: Any) -> Tensor | None:
    """Return the logits of a batch; None when the model raises."""
    was_training = model.training
    try:
        with torch.inference_mode():
            logits: Tensor = model.eval()(input_ids=ids, use_cache=False, **arguments).logits
    except (ValueError, TypeError, RuntimeError, IndexError):
        return None
    finally:
        model.train(was_training)
    return logits


def _compute_packed_logits(model: Any, ids: Tensor, lengths: Tensor) -> Tensor | None:
    """Return the logits of a batch that is passed as one long row, in the shape of the padded batch."""
    layout = pack_batch(ids, ids, lengths)
    logits = _compute_logits(model, layout.ids, position_ids=layout.positions, layout=layout)
    return None if logits is None else logits[0][layout.packed_positions]
