"""Ctrl-C (or a scheduler's SIGTERM) ends a run between two iterations, never within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from genpolicy.runs.progress import say


class Interrupted(KeyboardInterrupt):
    """The run was asked to end; its files are whole."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number  # the shell's convention: 130 for Ctrl-C


class Interrupt:
    """While active, the first signal only sets ``requested``; the second ends at once."""

    def __init__(self) -> None:
        self._number = 0
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop after the running iteration."""
        return self._number != 0

    def __enter__(self) -> Interrupt:
        """Take over SIGINT and SIGTERM (possible in the main thread only)."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def raise_if_requested(self) -> None:
        """Tell the caller that the work ended early."""
        if self.requested:
            raise Interrupted(self._number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise Interrupted(number)
        self._number = number
        say("Ending after this iteration, with a checkpoint to resume from (again: end at once).")
