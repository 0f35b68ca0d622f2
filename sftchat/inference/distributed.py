"""Several processes of one command, as ``torchrun`` and ``accelerate launch`` start them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

PATIENCE = timedelta(days=7)
"""How long to wait for the slowest share: a process that dies takes the others with it, so that nobody waits for it."""


@dataclass(frozen=True)
class ProcessInfo:
    """Which of several processes this is, as launchers number them.

    Attributes:
        rank: From 0; the first alone talks and writes.
        count: How many there are.
        local: Its number on its machine, from 0; None where no launcher says.
    """

    rank: int = 0
    count: int = 1
    local: int | None = None


def process_info(environment: Mapping[str, str] = os.environ) -> ProcessInfo:
    """Where a launcher says that this process is; alone where there is none.

    Args:
        environment: With ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``.
    """
    local = environment.get("LOCAL_RANK")
    return ProcessInfo(int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1")), None if local is None else int(local))


def is_main_process() -> bool:
    """Whether this process writes the files and the messages of a run of several."""
    return process_info().rank == 0


def take_accelerator() -> None:
    """Let ``cuda`` mean this process's own accelerator, where there are any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device((process_info().local or 0) % torch.cuda.device_count())


def wait_for_all() -> None:
    """Return when all processes have called this."""
    from torch import distributed

    distributed.init_process_group("gloo", timeout=PATIENCE)
    distributed.barrier()
    distributed.destroy_process_group()
