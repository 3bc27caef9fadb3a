"""The emergency stop: a file, a signal or a key, each latched until a person takes it back.

It ends a run by the quickest stop inside the limits. Where a file is named, its being there is the
stop: any program may create it (``touch stop``), a stop by key or signal leaves it behind, and no
run begins until a person has removed it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from genpolicy.spec import GenpolicyError

SIGNAL = signal.SIGUSR1
KEYS = b" \x1b"  # space bar, escape


class EmergencyStop:
    """``poll`` once per tick. A context manager: inside it, the signal and the keys are heard.

    Args:
        file: whose existence is the stop; None for signal and keys alone.
        keyboard: file descriptor of the terminal where space and escape stop, if it is one.
        typed: hears all other keys.

    Raises:
        GenpolicyError: the file exists, or its folder does not.
    """

    def __init__(
        self,
        file: Path | None = None,
        keyboard: int | None = None,
        typed: Callable[[bytes], None] | None = None,
    ) -> None:
        self.reason: str | None = None  # once set, it stays
        self._file = os.fspath(file) if file is not None else None
        self._keyboard = keyboard if keyboard is not None and _is_ours(keyboard) else None
        self._typed = typed
        if file is not None and file.exists():
            raise GenpolicyError(
                f"{file}: the emergency stop is set; when the robot may move again, remove the file"
            )
        if file is not None and not file.parent.is_dir():
            raise GenpolicyError(f"{file}: its folder does not exist; choose another --estop file")

    @property
    def hears_keys(self) -> bool:
        """Whether there is a terminal."""
        return self._keyboard is not None

    def poll(self) -> str | None:
        """Why to stop, or None. Waits for nothing."""
        if self.reason is None and self._file is not None and os.path.exists(self._file):
            self.reason = f"file {self._file}"
        if self.reason is None and self._keyboard is not None and self._pressed(self._keyboard):
            self.reason = "key"
        return self.reason

    def _pressed(self, keyboard: int) -> bool:
        if not select.select([keyboard], [], [], 0.0)[0]:
            return False
        try:
            typed = os.read(keyboard, 64)
        except OSError:
            typed = b""
        if not typed:  # the terminal has gone
            self._keyboard = None
        stop = any(key in KEYS for key in typed)
        if self._typed is not None and not stop:
            self._typed(typed)
        return stop

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.reason is None:
            self.reason = f"signal {signal.Signals(number).name}"

    def __enter__(self) -> Self:
        self._handler = signal.signal(SIGNAL, self._heard)
        self._terminal = None
        if self._keyboard is not None:
            self._terminal = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The robot rests by now: time to touch the disk."""
        signal.signal(SIGNAL, self._handler)
        if self._keyboard is not None and self._terminal is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._terminal)
        if self.reason is None or self._file is None:
            return
        try:
            with open(self._file, "x", encoding="utf-8") as file:
                file.write(f"{self.reason}\n")
        except FileExistsError:
            pass
        except OSError as problem:
            print(f"{self._file}: cannot be written ({problem.strerror})", file=sys.stderr)


def _is_ours(terminal: int) -> bool:
    """Whether it is a terminal with us in its foreground: reading another one suspends us."""
    try:
        return os.isatty(terminal) and os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
