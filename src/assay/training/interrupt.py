"""Ctrl-C while training: the step that it falls in is done and kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from assay.training.fit import Fit


@contextmanager
def between_steps(fit: Fit) -> Iterator[None]:
    """Let the first Ctrl-C end the step it falls in, so that all of it is kept; the second one ends at once.

    Of several processes, one that was asked to stop asks the others, so that all of them end after the same step.
    Whoever started them passes Ctrl-C on: there, a second one is the same one again.

    Args:
        fit: what is told to stop.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # started in the background by a shell
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return

    def pressed(number: int, frame: FrameType | None) -> None:
        if fit.asked_to_stop and fit.workers.world == 1:
            signal.default_int_handler(number, frame)
        fit.asked_to_stop = True

    before = signal.signal(signal.SIGINT, pressed)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
