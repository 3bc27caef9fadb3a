"""What servos on a bus have in common: ids, and where in their ticks the joints are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.base import Limits
from genpolicy_deploy.robots.device import Vector


class ServoJoints:
    """Calibration of an arm of servos, each of which counts ``turn`` ticks per turn.

    Args:
        driver: name for messages.
        joints: names.
        limits: of the joints, rad (m where the joint slides).
        ids: of the servos, in the order of ``joints``.
        zero: position, in ticks, where each joint is at zero.
        scale: rad (m where the joint slides) per turn of the servo; negative turns the other way.
            Not given: one turn is one turn.
        turn: ticks per turn.
        reach: first and last tick that a goal can have.

    Raises:
        GenpolicyError: wrong numbers, or limits that the servos cannot reach.
    """

    def __init__(
        self,
        driver: str,
        joints: Sequence[str],
        limits: Limits,
        ids: Sequence[int],
        zero: Sequence[int],
        scale: Sequence[float] | None,
        turn: int,
        reach: tuple[int, int],
    ) -> None:
        count, where = len(joints), f"robot '{driver}'"
        self.ids = tuple(ids)
        scales = [2.0 * np.pi] * count if scale is None else list(scale)
        if not len(self.ids) == len(zero) == len(scales) == count:
            raise GenpolicyError(f"{where}: ids, zero and scale need {count} values each")
        if len(set(self.ids)) != count or not all(0 <= servo <= 252 for servo in self.ids):
            raise GenpolicyError(f"{where}: ids must differ, and lie in 0 to 252")
        if not all(np.isfinite(value) and value for value in scales):
            raise GenpolicyError(f"{where}: scale must hold numbers other than 0")
        self.names = {
            servo: f"servo {servo} ({joint})" for servo, joint in zip(ids, joints, strict=True)
        }
        self._zero = np.array(zero, np.float64)
        self._per_tick = np.array(scales, np.float64) / turn
        self._reach = reach
        self.signs = np.sign(self._per_tick)  # of effort, from the servo's to the joint's
        self.ends = self._ends(where, limits)

    def _ends(self, where: str, limits: Limits) -> tuple[tuple[int, int], ...]:
        """First and last tick that each joint's limits need."""
        ticks = self._ticks(np.array([limits.low, limits.high])).astype(int)
        ends = []
        first, last = self._reach
        for (a, b), name in zip(ticks.T.tolist(), self.names.values(), strict=True):
            ends.append((min(a, b), max(a, b)))
            if ends[-1][0] < first or ends[-1][1] > last:
                raise GenpolicyError(
                    f"{where}: the limits of {name} reach from {ends[-1][0]} to {ends[-1][1]} "
                    f"ticks, its goals from {first} to {last}: narrow joints.low and joints.high, "
                    "or turn the servo's horn and change zero"
                )
        return tuple(ends)

    def to_ticks(self, position: Vector) -> list[int]:
        """Goals ``[J]`` of the servos for joint positions ``[J]``."""
        return np.clip(self._ticks(position), *self._reach).astype(int).tolist()

    def to_position(self, ticks: NDArray[np.integer] | Vector, out: Vector) -> None:
        """Joint positions ``out [J]`` of the servos' ``ticks [J]``."""
        np.subtract(ticks, self._zero, out=out)
        out *= self._per_tick

    def _ticks(self, position: Vector) -> Vector:
        return np.rint(position / self._per_tick + self._zero)
