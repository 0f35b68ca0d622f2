"""Free memory, and detection of out-of-memory errors."""

from __future__ import annotations

import torch

OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
"""Parts of the messages when torch and its backends raise a plain RuntimeError."""


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes, including what torch has reserved but not allocated."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    free, _ = torch.accelerator.get_memory_info(device)
    return int(free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, a backend or Python means that memory ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error).lower() for words in OUT_OF_MEMORY_MESSAGES)
