"""How much memory is free, and how a library says that there is none left."""

from __future__ import annotations

import torch

OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch and its backends say when they raise a plain RuntimeError."""


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, what torch holds in reserve there included."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    free, _ = torch.accelerator.get_memory_info(device)
    return int(free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, of a backend or of Python means that memory has run out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error).lower() for words in OUT_OF_MEMORY_MESSAGES)
