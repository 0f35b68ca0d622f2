"""The order of the rows: batches of similar lengths, in random order."""

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
from sftchat.inference.cpu import implementation
from sftchat.models.loading import unwrapped
from sftchat.templates.renderer import IGNORED

POOL_BATCHES = 50
"""Batches that are cut from one pool of rows: the more, the more alike the rows of a batch are, and the less random its company."""


class SimilarLengths(Sampler[int]):
    """Indices of rows such that every slice of a batch's size holds rows of similar lengths.

    transformers' own sampler for this (``group_by_length``) leaves the batches of each pool in descending order of length, so that training
    swings from long rows to short ones and back every fifty steps. Here the batches are shuffled.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a batch, at least 1.
        seed: The same seed and epoch give the same order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of another epoch; the training loop calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Every index once; a batch that is not full comes last."""
        rng = Random(f"{self.seed}-{self.epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        size, rest = self.batch_size, len(order) % self.batch_size
        full, left = order[: len(order) - rest], order[len(order) - rest :]
        pools = [
            sorted(full[at : at + POOL_BATCHES * size], key=lambda row: self.lengths[row])
            for at in range(0, len(full), POOL_BATCHES * size)
        ]
        batches = [pool[at : at + size] for pool in pools for at in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from (row for batch in batches for row in batch)
        yield from left


LENGTH_MULTIPLE = 32
"""The long row is filled up to a multiple of this: libraries for matrix products compile or tune for every new shape."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch stand in the long row.

    Attributes:
        ids: Token ids, shape ``(1, tokens)``.
        positions: Place of each token in its own row, shape ``(1, tokens)``.
        cells: For each cell of the padded batch the place of its token in the long row, shape ``(rows, width)``; 0 for padding.
        owners: For each token of the long row its cell, counted through the padded batch, shape ``(tokens,)``; tokens of the shared beginning
            belong to the first row, filling to cell 0.
        shared: Tokens of the shared beginning.
        count: Tokens of the long row that are not filling.
        rest: 1 for cells that own their token, 0 for padding and for other rows' shared beginnings, shape ``(rows, width, 1)``.
        labelled: Places in the long row that predict a labelled token; one of the shared beginning may come several times.
        targets: The tokens predicted there.
    """

    ids: Tensor
    positions: Tensor
    cells: Tensor
    owners: Tensor
    shared: int
    count: int
    rest: Tensor
    labelled: Tensor
    targets: Tensor


def pack(ids: Tensor, labels: Tensor, lengths: Tensor) -> Layout:
    """Lay a padded batch out as one row.

    Args:
        ids: Token ids padded on the right, shape ``(rows, width)``.
        labels: Labels, ``IGNORED`` where there is no loss; same shape.
        lengths: Tokens of each row, shape ``(rows,)``.
    """
    rows, width = int(ids.shape[0]), int(lengths.max())
    ids, labels = ids[:, :width], labels[:, :width]
    same = (ids == ids[:1]).all(0)[: int(lengths.min())]
    shared = int(same.long().cumprod(0).sum()) if rows > 1 else 0
    column = torch.arange(width, device=ids.device)
    real = column < lengths[:, None]
    own = real & ((column >= shared) | (torch.arange(rows, device=ids.device)[:, None] == 0))
    owners = own.flatten().nonzero().flatten()
    count = owners.numel()
    cells = torch.zeros(rows * width, dtype=torch.long, device=ids.device)
    cells[owners] = torch.arange(count, device=ids.device)
    cells = cells.view(rows, width)
    cells[:, :shared] = cells[0, :shared]
    filling = torch.zeros(-count % LENGTH_MULTIPLE, dtype=torch.long, device=ids.device)
    owners = torch.cat([owners, filling])
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    wanted = following != IGNORED
    return Layout(
        ids.flatten()[owners][None], (owners % width)[None], cells, owners, shared, count, own[..., None], cells[wanted], following[wanted],
    )  # fmt: skip


class _Spread(torch.autograd.Function):
    """From the long row to padded rows; the gradients of shared tokens are summed over the rows."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        rows, width = layout.cells.shape
        return states.index_select(0, layout.cells.flatten()).view(rows, width, states.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layout, gradient = ctx.layout, gradients[0]
        flat = gradient.flatten(0, 1).index_select(0, layout.owners)
        flat[layout.count :] = 0  # filling owns nothing
        flat[: layout.shared] += gradient[1:, : layout.shared].sum(0)
        return flat, None


class _Join(torch.autograd.Function):
    """From padded rows to the long row; what no token owns gets no gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return states.flatten(0, 1).index_select(0, layout.owners)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layout, gradient = ctx.layout, gradients[0]
        rows, width = layout.cells.shape
        padded = gradient.index_select(0, layout.cells.flatten()).view(rows, width, gradient.shape[1])
        return padded.mul_(layout.rest), None


def spread(states: Tensor, layout: Layout) -> Tensor:
    """Copy the tokens of the long row, shape ``(tokens, size)``, to padded rows, shape ``(rows, width, size)``."""
    result: Tensor = _Spread.apply(states, layout)
    return result


def join(states: Tensor, layout: Layout) -> Tensor:
    """Copy padded rows, shape ``(rows, width, size)``, back into the long row, shape ``(tokens, size)``."""
    result: Tensor = _Join.apply(states, layout)
    return result


NAME = "sftchat_causal"
MAX_MATRIX_TOKENS = 512
"""Tokens of the longest row up to which the two products are used: their memory grows with the square."""


@dataclass(frozen=True)
class Attention:
    """How a model attends while it is trained.

    Attributes:
        name: What transformers calls the implementation.
        packed: Whether batches are given to it as one row with a ``layout``.
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
    """Attend to everything before in the same row.

    Args:
        module: The attention layer; not used.
        query: Shape ``(batch, heads, tokens, size)``.
        key: Shape ``(batch, groups, tokens, size)``.
        value: As ``key``.
        attention_mask: Must be None: training pads on the right, where a causal model never looks.
        scaling: Factor of the scores; one over the root of the size by default.
        layout: Where the rows stand, when the batch is one long row.
    """
    if attention_mask is not None:
        raise ValueError("causal_attention takes no mask")
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout is None:
        return _attend(query, key, value, factor), None
    attended = _attend(_padded(query, layout), _padded(key, layout), _padded(value, layout), factor)
    return join(attended.flatten(2), layout).view(query.shape[2], *attended.shape[2:])[None], None


def _padded(states: Tensor, layout: Layout) -> Tensor:
    """From one row, shape ``(1, heads, tokens, size)``, to padded rows, shape ``(rows, heads, width, size)``."""
    _, heads, _, size = states.shape
    rows, width = layout.cells.shape
    return spread(states[0].transpose(0, 1).flatten(1), layout).view(rows, width, heads, size).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention within each row, the queries of a group folded into one product with their shared keys; returns ``(batch, tokens, heads, size)``."""
    batch, heads, tokens, size = query.shape
    groups = key.shape[1]
    if tokens > MAX_MATRIX_TOKENS or query.device.type != "cpu":
        attended = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=groups != heads
        )
        return attended.transpose(1, 2).contiguous()
    folded = query.reshape(batch, groups, -1, size)
    scores = torch.matmul(folded * scaling, key.transpose(-1, -2)).view(batch, heads, tokens, tokens)
    scores = scores + torch.full((tokens, tokens), -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    weights = scores.softmax(-1).to(value.dtype).view(batch, groups, -1, tokens)
    return torch.matmul(weights, value).view(batch, heads, tokens, size).transpose(1, 2).contiguous()


def choose_attention(model: Any, longest: int, packing: str = "auto") -> Attention:
    """Make a model train with ``causal_attention`` where that gives the same logits; returns what it uses now.

    Tried on a few tokens rather than decided from a list of architectures: one with sinks or capped scores fails the comparison and keeps its own.
    A sliding window does not show on a few tokens and is excluded by name. The choice never depends on a clock: a resumed run must make it again.

    Args:
        model: A causal language model, perhaps with an adapter.
        longest: Tokens of the longest row.
        packing: ``auto`` packs on a CPU, ``on`` anywhere, ``off`` nowhere.
    """
    inner = unwrapped(model)
    config = inner.config.get_text_config()
    own = implementation(inner)
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    cpu = inner.device.type == "cpu"
    pack_it = packing == "on" or (packing == "auto" and cpu)
    if own != "sdpa" or windowed or getattr(config, "attention_dropout", 0.0) or not (pack_it or (cpu and longest <= MAX_MATRIX_TOKENS)):
        return Attention(own, packed=False)
    try:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, causal_attention)
    except (ImportError, AttributeError, TypeError) as error:
        report_fallback("attention over a packed batch", in_one_line(error))
        return Attention(own, packed=False)
    ids, lengths = _sample(config.vocab_size, inner.device)
    before = _logits(inner, ids)
    inner.set_attn_implementation(NAME)
    if pack_it and _same(before, _packed_logits(inner, ids, lengths), lengths):
        return Attention(NAME, packed=True)
    if cpu and longest <= MAX_MATRIX_TOKENS and _same(before, _logits(inner, ids), lengths):
        return Attention(NAME, packed=False)
    inner.set_attn_implementation(own)
    return Attention(own, packed=False)


@contextmanager
def own_attention(model: Any) -> Iterator[None]:
    """Give a model its ordinary attention back for the block, for generating."""
    inner = unwrapped(model)
    ours = implementation(inner) == NAME
    if ours:
        inner.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if ours:
            inner.set_attn_implementation(NAME)


def restore_attention(model: Any) -> None:
    """Give a model its ordinary attention back for good."""
    if implementation(unwrapped(model)) == NAME:
        unwrapped(model).set_attn_implementation("sdpa")


def _sample(vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A few rows that begin alike, with padding, and their lengths."""
    ids = (torch.arange(72, device=device).reshape(3, 24) * 7 + 1) % vocabulary
    ids[:, :5] = ids[0, :5].clone()
    return ids, torch.tensor([24, 11, 17], device=device)


def _same(before: Tensor | None, after: Tensor | None, lengths: Tensor) -> bool:
    """Whether two sets of logits are the same for real tokens, as far as their precision goes."""
    if before is None or after is None:
        return False
    tolerance = 1e-3 if before.dtype == torch.float32 else 5e-2
    real = torch.arange(before.shape[1], device=before.device) < lengths[:, None]
    return torch.allclose(before[real].float(), after[real].float(), rtol=tolerance, atol=tolerance)


def _logits(model: Any, ids: Tensor, **more: Any) -> Tensor | None:
    """Logits of a batch; None when the model refuses."""
    training = model.training
    try:
        with torch.inference_mode():
            logits: Tensor = model.eval()(input_ids=ids, use_cache=False, **more).logits
    except (ValueError, TypeError, RuntimeError, IndexError):
        return None
    finally:
        model.train(training)
    return logits


def _packed_logits(model: Any, ids: Tensor, lengths: Tensor) -> Tensor | None:
    """Logits of the same batch given as one row."""
    layout = pack(ids, ids, lengths)
    logits = _logits(model, layout.ids, position_ids=layout.positions, layout=layout)
    return None if logits is None else logits[0][layout.cells]
