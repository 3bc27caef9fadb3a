"""The way to the pose where episodes start: all joints together, slowly, in a straight line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genpolicy_deploy.robots.arm_config import ArmConfig

Vector = NDArray[np.float64]
SHARE = 0.3  # of what the joints' limits allow
MIN_DURATION_S = 0.5
EXTRA_S = 5.0  # to come to rest and arrive, beyond the duration of the motion
ARRIVED = 1e-3  # of the command, rad or m


class Homing:
    """Goals of one motion from ``start [J]`` to ``config.home``, one per tick.

    The share of the way is the polynomial of fifth order that begins and ends at rest.

    Args:
        config: of the arm, with a home.
        start: the joints' command where the motion begins.
        dt: s between goals.
    """

    def __init__(self, config: ArmConfig, start: Vector, dt: float) -> None:
        assert config.home is not None
        self.home = np.array(config.home)
        self._start = start.copy()
        self._way = self.home - self._start
        limits = config.limits
        # Peaks of the polynomial's derivatives: 15/8, 10/sqrt(3) and 60, per duration to the power.
        peaks = ((1.875, limits.velocity), (5.774, limits.acceleration), (60.0, limits.jerk))
        self.duration_s = max(
            MIN_DURATION_S,
            *(
                float((np.abs(self._way) * peak / (SHARE * np.array(limit))).max()) ** (1.0 / power)
                for power, (peak, limit) in enumerate(peaks, start=1)
            ),
        )
        self._dt = dt
        self._elapsed = self._total = 0.0

    def goal(self) -> Vector:
        """The next goal ``[J]``; at the end, home."""
        self._elapsed += self._dt
        share = min(self._elapsed / self.duration_s, 1.0)
        return self._start + self._way * share**3 * (10.0 + share * (6.0 * share - 15.0))

    def arrived(self, command: Vector, measured: Vector, slack: Vector) -> bool:
        """Whether command and joints are home; ``slack [J]`` is what the joints may be off."""
        there = np.abs(command - self.home).max() <= ARRIVED
        return bool(there and (np.abs(measured - self.home) <= slack).all())

    def overdue(self) -> bool:
        """Whether it has taken too long; called once per tick, also while the arm holds."""
        self._total += self._dt
        return self._total > self.duration_s + EXTRA_S
