"""A gamepad through Linux' joystick interface, ``/dev/input/js0``: no library between.

The kernel sends 8 bytes per event (linux/joystick.h): time in ms, value, type, number. The numbers
below are those of the ``xpad`` driver (Xbox pads and most that imitate them).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from genpolicy.spec import GenpolicyError, TaskSpec
from genpolicy_deploy.leaders.base import KEYS, HandLeader

EVENT = struct.Struct("<IhBB")
BUTTON, AXIS, INITIAL = 1, 2, 0x80  # INITIAL marks the state at opening: nobody pressed anything
FULL = 32767.0
DEAD_ZONE = 0.15  # sticks do not return to zero exactly
# Stick axis: (what it pushes, sign). Up and left are negative on a pad, forward and left positive
# for the hand. Triggers are left out: they rest at one end.
STICKS = {0: (1, -1.0), 1: (0, -1.0), 3: (5, -1.0), 4: (2, -1.0), 6: (3, 1.0), 7: (4, 1.0)}
A, B, X, Y = range(4)


class Gamepad(HandLeader):
    """Args: see ``HandLeader``; ``path`` of the device."""

    help = (
        "left stick: forward, back, left, right; right stick: up, down, turn about z; cross: turn "
        f"about x, y; A: gripper; B: let go; X: success; Y: failure. In the terminal, {KEYS}"
    )

    def __init__(self, task: TaskSpec, path: Path = Path("/dev/input/js0")) -> None:
        super().__init__(task)
        self._path = path
        self._descriptor = -1
        self._pending = b""

    def connect(self) -> None:
        """See ``Leader``."""
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise GenpolicyError(
                f"{self._path}: no gamepad can be read there ({error.strerror}); name another by "
                "--leader gamepad:FILE"
            ) from error

    def poll(self, now_ns: int) -> None:
        """See ``Leader``."""
        try:
            received = os.read(self._descriptor, 64 * EVENT.size)
        except BlockingIOError:
            return
        except OSError as error:
            raise GenpolicyError(f"{self._path}: the gamepad is gone ({error.strerror})") from error
        if not received:
            raise GenpolicyError(f"{self._path}: the gamepad is gone")
        self._pending += received
        whole = len(self._pending) // EVENT.size * EVENT.size
        for _, value, kind, number in EVENT.iter_unpack(self._pending[:whole]):
            if kind == AXIS and number in STICKS:
                self._moved(number, value / FULL)
            elif kind == BUTTON and value:
                self._button(number)
        self._pending = self._pending[whole:]

    def _moved(self, number: int, value: float) -> None:
        axis, sign = STICKS[number]
        beyond = max(abs(value) - DEAD_ZONE, 0.0) / (1.0 - DEAD_ZONE)
        self._push[axis] = sign * np.copysign(beyond, value)
        if beyond:
            self.steers = True

    def _button(self, number: int) -> None:
        if number == A:
            self.toggle_gripper()
        elif number == B:
            self.let_go()
        elif number in (X, Y):
            self.verdict = number == X

    def close(self) -> None:
        """See ``Leader``."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
