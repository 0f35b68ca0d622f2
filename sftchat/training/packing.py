"""A batch as one long row without padding, each of its rows seeing only itself, what they all begin with computed once.

Linear layers, norms and activations then work on real tokens alone. Only the attention is computed row by row, on copies that are padded
(``spread``) and put back into the long row afterwards (``join``). A beginning that all rows share, such as the task's instruction, stands in the
long row once: a causal model's states there are the same for all, and the gradients of all rows add up in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sftchat.models.templates import IGNORED

MULTIPLE = 32
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
    filling = torch.zeros(-count % MULTIPLE, dtype=torch.long, device=ids.device)
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
