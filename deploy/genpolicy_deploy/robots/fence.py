"""The last look at a joint command before it leaves: what the servo promises is not taken on trust.

It never alters a good command. After a bad one it is the fence that brings the joints to rest, as
quickly as their acceleration limits allow, because whatever made that command is broken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genpolicy_deploy.robots.base import Limits

Vector = NDArray[np.float64]
ROUNDING = 1e-6  # relative
SPARE = 1.01  # acceleration may be more by this: differences of differences keep fewer digits


class Fence:
    """Remembers what was sent last.

    It counts in commands, as the servo does: a late tick makes no command look wrong, and after a
    gap both start again from rest.

    Args:
        joints: names.
        limits: one entry per joint.
        dt: s between commands.
    """

    def __init__(self, joints: tuple[str, ...], limits: Limits, dt: float) -> None:
        self._joints = joints
        self._low, self._high = np.array(limits.low), np.array(limits.high)
        self._step = np.array(limits.velocity) * dt * (1.0 + ROUNDING)
        self._change = np.array(limits.acceleration) * dt * dt  # of the step, from one to the next
        self._slack = ROUNDING * (self._high - self._low)
        self.command: Vector = np.zeros(len(joints))  # sent last; written in place
        self._moved: Vector = np.zeros(len(joints))  # by the last command

    def start(self, position: Vector) -> None:
        """At rest in ``position [J]``: the next command is compared with it."""
        self.command[:] = position
        self._moved[:] = 0.0

    def refuses(self, command: Vector) -> str | None:
        """Why ``command [J]`` may not be sent, or None when it may: then it counts as sent."""
        if not isinstance(command, np.ndarray) or command.shape != self.command.shape:
            return "the joint command has another shape"
        if not np.isfinite(command).all():
            return "the joint command is not finite"
        outside = (command < self._low - self._slack) | (command > self._high + self._slack)
        if outside.any():
            return f"the command of joint '{self._name(outside)}' is outside its limits"
        moved = command - self.command
        fast = np.abs(moved) > self._step
        if fast.any():
            return f"the command of joint '{self._name(fast)}' is faster than its limit"
        sudden = np.abs(moved - self._moved) > SPARE * self._change
        if sudden.any():
            return f"the command of joint '{self._name(sudden)}' accelerates beyond its limit"
        self._moved[:] = moved
        self.command[:] = command
        return None

    def brake(self) -> Vector:
        """The next command ``[J]`` on the way to rest."""
        self._moved -= np.clip(self._moved, -self._change, self._change)
        np.clip(self.command + self._moved, self._low, self._high, out=self.command)
        return self.command

    @property
    def at_rest(self) -> bool:
        """Whether ``brake`` has nothing left to do."""
        return not self._moved.any()

    def _name(self, which: NDArray[np.bool_]) -> str:
        return self._joints[int(np.argmax(which))]
