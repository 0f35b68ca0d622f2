"""Trainer callbacks: progress with loss and remaining time, periodic scoring, graceful stop, and guarded callbacks of plugins."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl

from sftchat._util.plugin_calls import Malformed, call_plugin
from sftchat.errors import PluginError


@dataclass(frozen=True)
class TrainingStatus:
    """Progress of a training.

    Attributes:
        step: Optimiser steps done.
        steps: Total number of optimiser steps.
        loss: Mean loss since the last report, None before the first.
        learning_rate: Current learning rate.
        seconds_left: Estimated remaining time in seconds.
    """

    step: int
    steps: int
    loss: float | None
    learning_rate: float
    seconds_left: float


class ProgressReporter(TrainerCallback):  # type: ignore[misc]
    """Reports progress to the front end.

    Args:
        on_progress: Called at every logging step.
    """

    def __init__(self, on_progress: Callable[[TrainingStatus], None]) -> None:
        self._on_progress = on_progress
        self._started_at = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the start time, and the first step, which is not 0 in a resumed run."""
        self._started_at, self._first_step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Report loss and remaining time."""
        if not logs or "loss" not in logs:
            return
        steps_done = max(1, state.global_step - self._first_step)
        seconds_left = (time.monotonic() - self._started_at) / steps_done * (state.max_steps - state.global_step)
        self._on_progress(
            TrainingStatus(state.global_step, state.max_steps, float(logs["loss"]), float(logs.get("learning_rate", 0.0)), seconds_left)
        )


@dataclass(frozen=True)
class ScoringResult:
    """Result of one scoring during training.

    Attributes:
        step: Optimiser steps done; 0 is the base model.
        metric: Name of the task's primary metric.
        value: Value of the metric.
        low: Lower bound of its 95 % interval; None without one.
        high: Upper bound; None with ``low``.
        items: Number of scored items.
        best: Best step so far; 0 while only the base model was scored.
        best_value: Metric at the best step.
        seconds: Duration of the scoring in seconds.
    """

    step: int
    metric: str
    value: float
    low: float | None
    high: float | None
    items: int
    best: int
    best_value: float
    seconds: float


class PeriodicScoring(TrainerCallback):  # type: ignore[misc]
    """Requests a scoring at regular steps and at the last, and ends training when the scores stop improving.

    A loss is also logged at the last step and at every step that scores or saves. So the mean loss of the next report starts at the same step whether
    or not the run was resumed there.

    Args:
        interval: Steps between scorings; 0 never scores.
        has_stalled: Returns whether to end training.
    """

    def __init__(self, interval: int, has_stalled: Callable[[], bool]) -> None:
        self._interval, self._has_stalled = interval, has_stalled

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request a scoring when one is due."""
        is_last = state.global_step >= state.max_steps
        if self._interval and (state.global_step % self._interval == 0 or is_last):
            control.should_evaluate = True
        control.should_log |= control.should_evaluate or control.should_save or is_last

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End training when the scores stop improving."""
        if state.global_step and self._has_stalled():
            control.should_training_stop = True


def guard_callback(plugin: str, callback: Any) -> TrainerCallback:
    """Wrap a plugin's callback so that each event is called through ``call_plugin``.

    The object stays the same but gets a class derived from its own: transformers decides by the class which callbacks have a state to save.

    Args:
        plugin: Name of the plugin.
        callback: Return value of its hook: an instance or a subclass of ``TrainerCallback``.

    Raises:
        PluginError: When the callback is neither, or no class can be derived from its class.
    """
    description = f"trainer callback {getattr(callback, '__name__', type(callback).__name__)} of plugin '{plugin}'"
    if isinstance(callback, type) and issubclass(callback, TrainerCallback):
        callback = call_plugin(description, callback)
    if not isinstance(callback, TrainerCallback):
        raise PluginError(f"{description} is no transformers TrainerCallback")
    original_class = type(callback)
    guarded_events = {
        name: _guard_event(description, getattr(original_class, name), name) for name in dir(TrainerCallback) if name.startswith("on_")
    }

    def replace_class() -> TrainerCallback:
        callback.__class__ = type(original_class.__name__, (original_class,), guarded_events)
        return callback

    return call_plugin(description, replace_class)


def _guard_event(description: str, function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(self: TrainerCallback, *args: Any, **kwargs: Any) -> Any:
        def call_event() -> Any:
            control = function(self, *args, **kwargs)
            if control is not None and not isinstance(control, TrainerControl):
                raise Malformed(f"returns {type(control).__name__} from {name}, must return the control or None")
            return control

        return call_plugin(description, call_event, doing=f"in {name}", may_refuse=True)

    return call


class GracefulStop(TrainerCallback):  # type: ignore[misc]
    """Ends training after the current step, with a checkpoint, once ``requested`` is set."""

    def __init__(self) -> None:
        self.requested = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save a checkpoint and end training."""
        if self.requested and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    @contextmanager
    def on_interrupt(self, on_stopping: Callable[[], None]) -> Iterator[None]:
        """Handle Ctrl-C in the block: the first requests a stop and calls ``on_stopping``, the second raises KeyboardInterrupt."""
        import threading

        if threading.current_thread() is not threading.main_thread():  # other threads receive no signals
            yield
            return
        previous_handler = signal.getsignal(signal.SIGINT)

        def handle(_number: int, _frame: Any) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            on_stopping()

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous_handler)
