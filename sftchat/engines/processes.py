"""Several processes of one command, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from datetime import timedelta

PATIENCE = timedelta(days=7)
"""How long to wait for the slowest share: a process that dies takes the others with it, so that nobody waits for it."""


def take_accelerator() -> None:
    """Let ``cuda`` mean this process's own accelerator, where there are any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def wait_for_all() -> None:
    """Return when all processes have called this."""
    from torch import distributed

    distributed.init_process_group("gloo", timeout=PATIENCE)
    distributed.barrier()
    distributed.destroy_process_group()
