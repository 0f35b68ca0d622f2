"""What happens while training runs: progress with loss and time left, checkpoints that can be loaded, a polite stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: Optimiser steps done.
        steps: Optimiser steps in all.
        loss: Mean loss since the last report, None before the first.
        learning_rate: The current one.
        seconds_left: Estimate from the speed so far.
    """

    step: int
    steps: int
    loss: float | None
    learning_rate: float
    seconds_left: float


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells the front end how far it is.

    Args:
        tell: Called at every logging step.
    """

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._started = 0.0
        self._first = 0
        self.losses: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._started, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Pass the loss on."""
        if not logs or "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        done = max(1, state.global_step - self._first)
        left = (time.monotonic() - self._started) / done * (state.max_steps - state.global_step)
        self._tell(Progress(state.global_step, state.max_steps, self.losses[-1], float(logs.get("learning_rate", 0.0)), left))


class CompleteCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Puts beside every saved checkpoint what is needed to talk to it.

    Args:
        complete: Writes template, generation settings and manifest into a folder.
    """

    def __init__(self, complete: Callable[[Path, int], None]) -> None:
        self._complete = complete

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Complete the checkpoint that was just written."""
        self._complete(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)


class StopWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Ends training after the current step, with a checkpoint, once ``asked`` is set."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop."""
        if self.asked and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    @contextmanager
    def listening(self, announce: Callable[[], None]) -> Iterator[None]:
        """Let the first Ctrl-C ask for a stop and the second interrupt; only the main thread gets signals."""
        import threading

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def handle(_number: int, _frame: Any) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            announce()

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
