"""bfloat16 or float32: the faster of the two for one batch, chosen once and written into the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def has_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16; elsewhere it is emulated, and slower than float32."""
    import torch

    if device == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return device.startswith("cuda") and bool(torch.cuda.is_bf16_supported(including_emulation=False))


def choose_precision(wanted: str, device: str, step: Callable[[bool], Any], repeats: int = 3, processes: int = 1) -> str:
    """What to train in, unless the user chose.

    Args:
        wanted: ``auto``, ``float32`` or ``bfloat16``.
        device: ``cpu`` or an accelerator.
        step: One forward and backward pass of a batch, in bfloat16 or not; leaves no gradients behind.
        repeats: How often each is timed, after one pass that is not; the fastest counts.
        processes: How many train together. Several do not time, since each has a clock of its own and all must choose the same.
    """
    if wanted != "auto":
        return wanted
    if not has_bfloat16(device):
        return "float32"
    if processes > 1:
        return "bfloat16"

    def seconds(low: bool) -> float:
        step(low)
        found = []
        for _ in range(repeats):
            before = time.perf_counter()
            step(low)
            found.append(time.perf_counter() - before)
        return min(found)

    return "bfloat16" if seconds(True) < seconds(False) else "float32"
