"""SIGTERM and Ctrl-C during a training: they wait until the running step is done and saved."""

import logging
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 1.0  # seconds


class StopSignals:
    """A context in which SIGTERM and Ctrl-C raise an exception, but only where that does no harm.

    `hold` and `release` enclose what must not be interrupted. A second Ctrl-C after a second or
    more is not held; sooner it is the same one, which a launcher such as torchrun passes on.
    Ctrl-C raises KeyboardInterrupt and SIGTERM SystemExit with status 143, as a shell reports it.
    In a thread other than the main one, where Python takes no signals, it does nothing.

    Args:
        shared: with other processes, which stop together; see `release`.
    """

    def __init__(self, shared: bool = False) -> None:
        self._shared = shared
        self.received: signal.Signals | None = None
        self.is_between_steps = False
        """Whether the signal that was raised has interrupted nothing that was held."""
        self._held, self._first = False, 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.received, self._held, self.is_between_steps = None, self._shared, False
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # An ignored one, as under nohup, stays ignored.
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
        if self.received is not None and error is None:  # in the last moment
            self._raise()

    def hold(self) -> None:
        """From now on a signal waits for `release`."""
        self._held = True

    def release(self, agreed: bool = False) -> None:
        """Raises what has waited; from now on a signal raises at once.

        Args:
            agreed: of several processes, that one has received a signal: all of them raise here,
                and nowhere else.
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
        again = self.received is not None and now - self._first > PATIENCE
        if self.received is None:
            self.received, self._first = signal.Signals(number), now
            if number == signal.SIGTERM:
                self._ignore_workers()
            if self._held:
                logger.info(
                    "%s received: the run stops after the running step, and saves; a second Ctrl-C "
                    "stops it at once, without saving",
                    self.received.name,
                )
        if not self._held or (again and number == signal.SIGINT):
            self._raise()

    @staticmethod
    def _ignore_workers() -> None:
        """Let loaders' workers end: a scheduler sends SIGTERM to them too.

        torch would raise an error about them in the middle of the running step, or of the saving.
        """
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _raise(self) -> None:
        self.is_between_steps = not self._held
        raise KeyboardInterrupt if self.received == signal.SIGINT else SystemExit(143)
