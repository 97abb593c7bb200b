"""Delay SIGTERM and Ctrl-C during training until the current step is done and saved."""

import logging
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPEAT_SECONDS = 1.0  # repetitions within this time count as the same signal


class StopSignals:
    """A context in which SIGTERM and Ctrl-C raise exceptions only where that is safe.

    Code between `hold` and `release` is not interrupted, except by a second Ctrl-C after
    `REPEAT_SECONDS`; an earlier one is the same Ctrl-C, forwarded by a launcher such as torchrun.
    Ctrl-C raises KeyboardInterrupt; SIGTERM raises SystemExit with status 143, as shells report it.
    The context does nothing outside the main thread, where Python cannot handle signals.

    Args:
        shared: whether several processes share the run and stop together; see `release`.
    """

    def __init__(self, shared: bool = False) -> None:
        self._shared = shared
        self.received: signal.Signals | None = None
        self.is_between_steps = False
        """Whether the exception was raised while signals were not held."""
        self._held, self._first = False, 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.received, self._held, self.is_between_steps = None, self._shared, False
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # A signal that is ignored, as under nohup, stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if self.received is not None and error is None:  # a signal that was still held
            self._raise()

    def hold(self) -> None:
        """From now on, signals wait for `release`."""
        self._held = True

    def release(self, agreed: bool = False) -> None:
        """Raise the exception of a held signal; from now on, signals raise at once.

        Args:
            agreed: whether any of several processes has received a signal. They raise only here,
                and all together.
        """
        if self._shared and not agreed:
            return
        self._held = False
        if agreed:
            self.received = self.received or signal.SIGTERM
        if self.received is not None:
            self._raise()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self.received is not None and now - self._first > REPEAT_SECONDS
        if self.received is None:
            self.received, self._first = signal.Signals(number), now
            if self._held:
                logger.info(
                    "%s received: the run stops after the %s step, and saves; a second Ctrl-C "
                    "stops it at once, without saving",
                    self.received.name,
                    "next" if self._shared else "current",
                )
        if not self._held or (again and number == signal.SIGINT):
            self._raise()

    def _raise(self) -> None:
        self.is_between_steps = not self._held
        raise KeyboardInterrupt if self.received == signal.SIGINT else SystemExit(143)
