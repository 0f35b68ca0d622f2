"""bfloat16 or float32, decided by what the processor can multiply and how wide the model is: the same machine and model give the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WIDE = 512
"""Hidden width from which bfloat16 pays on a CPU. At the 256 of ``sftchat:nano`` the two take equal time on a processor with AMX, so the digits
are kept; a wider model spends its time in the matrix products that AMX and AVX512_BF16 make faster."""
INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512_BF16"}
"""Capabilities of a CPU that multiply bfloat16, as ``torch.cpu.get_capabilities`` names them, and how people do."""


@dataclass(frozen=True)
class Precision:
    """What a training computes in.

    Attributes:
        name: ``float32``, or ``bfloat16`` for mixed precision.
        reason: Why, in a few words.
    """

    name: str
    reason: str


def choose_precision(wanted: str, device: str, multiplies: str, width: int) -> Precision:
    """What to train in; a function of its arguments alone.

    Args:
        wanted: ``auto``, ``float32`` or ``bfloat16``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, …
        multiplies: What multiplies bfloat16 there, as of ``bfloat16_unit``; empty for nothing.
        width: Hidden width of the model.
    """
    if wanted != "auto":
        return Precision(wanted, f"--precision {wanted}")
    if not multiplies:
        return Precision("float32", f"the {device.partition(':')[0]} device does not multiply bfloat16")
    if device == "cpu" and width < WIDE:
        return Precision("float32", f"a model of width {width} is below {WIDE}, from which {multiplies} gains by bfloat16")
    return Precision("bfloat16", f"{multiplies} multiplies bfloat16")


def bfloat16_unit(device: str) -> str:
    """What multiplies bfloat16 on a device, in words; empty where it would be emulated, which is slower than float32.

    Args:
        device: ``cpu`` or an accelerator.
    """
    import torch

    if device == "cpu":
        return cpu_unit(getattr(torch.cpu, "get_capabilities", dict)())
    if device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False):
        return "the accelerator"
    return ""


def cpu_unit(capabilities: dict[str, Any]) -> str:
    """What multiplies bfloat16 on a CPU with these capabilities, in words; empty for nothing."""
    return next((words for name, words in INSTRUCTIONS.items() if capabilities.get(name)), "")
