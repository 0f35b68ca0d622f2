"""Processes of one command, as started by ``torchrun`` and ``accelerate launch``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

PATIENCE = timedelta(days=7)
"""Maximum wait for the slowest process; a process that dies terminates the others, so that this is never reached."""


@dataclass(frozen=True)
class ProcessInfo:
    """Rank of this process and number of processes, as set by the launcher.

    Attributes:
        rank: From 0; only process 0 prints and writes files.
        count: Number of processes.
        local: Rank on this machine, from 0; None without a launcher.
    """

    rank: int = 0
    count: int = 1
    local: int | None = None


def process_info(environment: Mapping[str, str] = os.environ) -> ProcessInfo:
    """Read the environment variables of the launcher; without them there is one process.

    Args:
        environment: With ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``.
    """
    local = environment.get("LOCAL_RANK")
    return ProcessInfo(int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1")), None if local is None else int(local))


def is_main_process() -> bool:
    """Whether this process writes the files and messages of a distributed run."""
    return process_info().rank == 0


def take_accelerator() -> None:
    """Select this process's own accelerator as ``cuda`` device, if there is any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device((process_info().local or 0) % torch.cuda.device_count())


def wait_for_all() -> None:
    """Block until all processes have called this."""
    from torch import distributed

    distributed.init_process_group("gloo", timeout=PATIENCE)
    distributed.barrier()
    distributed.destroy_process_group()
