"""Processes of one command, as started by ``torchrun`` and ``accelerate launch``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

BARRIER_TIMEOUT = timedelta(days=7)
"""Maximum wait for the slowest process; never reached, because the launcher terminates all processes when one dies."""


@dataclass(frozen=True)
class ProcessInfo:
    """Rank of this process and number of processes, as set by the launcher.

    Attributes:
        rank: From 0; only process 0 prints and writes files.
        count: Number of processes.
        local_rank: Rank on this machine, from 0; None without a launcher.
    """

    rank: int = 0
    count: int = 1
    local_rank: int | None = None


def process_info(environment: Mapping[str, str] = os.environ) -> ProcessInfo:
    """Read the environment variables of the launcher; without them there is one process.

    Args:
        environment: Environment, possibly with ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``.
    """
    local_rank = int(environment["LOCAL_RANK"]) if "LOCAL_RANK" in environment else None
    return ProcessInfo(int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1")), local_rank)


def is_main_process() -> bool:
    """Whether this process writes the files and messages of a distributed run."""
    return process_info().rank == 0


def take_accelerator() -> None:
    """Select this process's own accelerator as ``cuda`` device, if there is any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device((process_info().local_rank or 0) % torch.cuda.device_count())


def wait_for_all() -> None:
    """Block until all processes have called this function."""
    from torch import distributed

    distributed.init_process_group("gloo", timeout=BARRIER_TIMEOUT)
    distributed.barrier()
    distributed.destroy_process_group()
