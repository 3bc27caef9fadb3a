"""Every joint inside its own limits, whatever is wanted of it; and where braking would lead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genpolicy_deploy.braking import Travel, axes_within
from genpolicy_deploy.robots.base import Limits

Vector = NDArray[np.float64]


class BrakingPath:
    """All joints from one command to rest, if they brake from there on.

    Attributes:
        steps: until the last joint rests.
        span: ``[J]`` how far each joint travels, back and forth counted.
    """

    def __init__(self, travels: list[Travel]) -> None:
        self._travels = travels
        self.steps = max(travel.steps for travel in travels)
        self.span: Vector = np.array([travel.span for travel in travels])

    def at(self, step: int) -> Vector:
        """The joints ``[J]`` after ``step`` steps of braking."""
        return np.array([travel.at(step) for travel in self._travels])


class JointEnvelope:
    """Makes joint commands. Limits hold for their finite differences at ``dt``, always.

    Args:
        joints: names.
        limits: one entry per joint.
        dt: s between commands.
    """

    def __init__(self, joints: tuple[str, ...], limits: Limits, dt: float) -> None:
        self._axes = axes_within(limits, dt)
        self._joints = joints
        self._before = [(0.0, 0.0, 0.0)] * len(joints)
        self.command: Vector = np.zeros(len(joints))  # written in place
        self.velocity: Vector = np.zeros(len(joints))  # of the command
        self.violations: dict[str, int] = {}  # "velocity elbow": how often it was held back

    def start(self, position: Vector) -> None:
        """At rest in ``position [J]``, which must lie within the limits."""
        for axis, value in zip(self._axes, position.tolist(), strict=True):
            axis.start(value)
        self._publish()

    def track(self, wanted: Vector, velocity: Vector) -> None:
        """One step: to ``wanted [J]``, which moves with ``velocity [J]``, or as near as can be."""
        self._before = [(axis.p, axis.v, axis.a) for axis in self._axes]
        goals = zip(self._joints, self._axes, wanted.tolist(), velocity.tolist(), strict=True)
        for name, axis, goal, rate in goals:
            kind = axis.track(goal, rate)
            if kind is not None:
                key = f"{kind} {name}"
                self.violations[key] = self.violations.get(key, 0) + 1
        self._publish()

    def brake_instead(self) -> None:
        """Take the last ``track`` back, and brake."""
        for axis, state in zip(self._axes, self._before, strict=True):
            axis.p, axis.v, axis.a = state
        self.hold()

    def hold(self) -> None:
        """One step of the way to rest, each joint as quickly as it may."""
        for axis in self._axes:
            axis.hold()
        self._publish()

    def path(self) -> BrakingPath:
        """What ``hold`` until rest would do from here."""
        return BrakingPath([axis.travel() for axis in self._axes])

    @property
    def at_rest(self) -> bool:
        """Whether no joint moves any more."""
        return all(axis.at_rest for axis in self._axes)

    def _publish(self) -> None:
        for index, axis in enumerate(self._axes):
            self.command[index], self.velocity[index] = axis.p, axis.v
