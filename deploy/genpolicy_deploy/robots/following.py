"""Whether the joints are where they were told to be, or an arm is stuck, pushed or has let go.

A joint follows its commands some time later, by how much depends on the driver. So it is compared
with all commands of the last half second: outside their range by more than ``first_step`` it does
not follow, whatever its lag.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genpolicy_deploy.robots.arm_config import ArmConfig

Vector = NDArray[np.float64]
WINDOW_S = 0.5


class Following:
    """Remembers the last commands. The gripper is left out: it closes on things.

    Args:
        config: of the arm.
    """

    def __init__(self, config: ArmConfig) -> None:
        self._joints = config.joints
        self._slack = np.array(config.limits.first_step)
        if config.gripper:
            self._slack[config.joints.index(config.gripper.joint)] = np.inf
        self._commands = np.zeros((max(round(WINDOW_S * config.rate_hz), 1), len(config.joints)))
        self._next = 0

    def start(self, command: Vector) -> None:
        """Commands begin at ``command [J]``."""
        self._commands[:] = command

    def add(self, command: Vector) -> None:
        """What was sent in this tick, ``[J]``."""
        self._commands[self._next] = command
        self._next = (self._next + 1) % len(self._commands)

    def astray(self, measured: Vector) -> str | None:
        """A sentence on the joint that does not follow, at ``measured [J]``, or None."""
        low, high = self._commands.min(0) - self._slack, self._commands.max(0) + self._slack
        outside = (measured < low) | (measured > high)
        if not outside.any():
            return None
        joint = int(np.argmax(outside))
        last = self._commands[self._next - 1, joint]
        return (
            f"joint '{self._joints[joint]}' does not follow: it is at {measured[joint]:.4g}, told "
            f"{last:.4g}"
        )
