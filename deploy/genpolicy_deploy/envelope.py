"""The safety envelope: the only place where commands for a robot are made.

Checks run in a fixed order: finite, shape, first command, position, velocity, acceleration, jerk
(and workspace, the position of an end effector). What breaks one is recorded by kind and replaced
by the nearest command that breaks none; what is not a number at all is replaced by braking. A
stop is latched: it brakes to rest inside the limits and no later target moves the robot again.

This is software good practice, not a certified safety function (ISO 10218, ISO 13849).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.braking import axes_within
from genpolicy_deploy.robots.base import RobotSpec
from genpolicy_deploy.rotations import nearest

Vector = NDArray[np.float64]


class FirstCommandError(GenpolicyError):
    """The first target is too far from where the robot is."""


class Envelope:
    """Turns targets into commands, one per control step.

    Args:
        spec: the robot, with its limits.
        dt: s between targets. The limits hold for the sequence of targets at this rate; between
            them the driver serves the last command.
        on_violation: hears "kind axis" when an axis begins to break a limit of one kind.
    """

    def __init__(
        self, spec: RobotSpec, dt: float, on_violation: Callable[[str], None] = lambda text: None
    ) -> None:
        limits = spec.limits
        limits.check(len(spec.axes), spec.name)
        self.spec = spec
        self._axes = axes_within(limits, dt)
        self.command: Vector = np.zeros(len(self._axes))  # what to send; written in place
        self.violations: dict[str, int] = {}
        self.blocked = 0  # targets that were not sent as they came
        self.stopped = False
        self._first = True
        self._on_violation = on_violation
        self._held: tuple[int, ...] = ()  # axes that need no guard: their command was kept
        # Which limit each axis broke at the last target.
        self._broken: list[str | None] = [None] * len(self._axes)

    def start(self, measured: Vector) -> None:
        """Begin at rest where the robot is.

        A robot that a sensor puts a hair outside its limits begins on them: no further away than
        ``first_step`` allows.

        Raises:
            GenpolicyError: stopped before (a stop is never cleared), or outside the limits.
        """
        if self.stopped:
            raise GenpolicyError("the envelope is stopped for good; make a new one")
        for name, axis, position, slack in zip(
            self.spec.axes, self._axes, measured.tolist(), self.spec.limits.first_step, strict=True
        ):
            limits = axis.limits
            inside = min(max(position, limits.low), limits.high)
            if not abs(position - inside) <= slack:
                raise GenpolicyError(
                    f"robot '{self.spec.name}' starts outside its limits: axis '{name}' is at "
                    f"{position:.4g}, allowed are {limits.low:g} to {limits.high:g}"
                )
            axis.start(inside)
        self._publish()
        self._first, self._held = True, ()
        self._broken = [None] * len(self._axes)

    def resume(self, measured: Vector) -> None:
        """Begin again at rest where the robot is; what its grippers hold, they go on holding.

        Raises:
            GenpolicyError: as ``start``.
        """
        resting = measured.copy()
        for index in self.spec.grippers:
            resting[index] = self.command[index]
        self.start(resting)
        self._held = self.spec.grippers

    def apply(self, target: Any, measured: Vector) -> Vector:
        """The command for ``target [A]``: the same numbers where no limit is touched.

        Args:
            target: anything; what is not ``A`` finite numbers brakes the robot.
            measured: ``[A]`` where the robot is, for the guard of the first command.

        Raises:
            FirstCommandError: nothing was commanded before and the robot would jump.
        """
        if self.stopped:
            return self.hold()
        kind = self._malformed(target)
        if kind is not None:
            self._block(kind)
            return self.hold()
        wanted: list[float] = target.tolist()
        if self.spec.rotation:
            first, last = self.spec.rotation[0], self.spec.rotation[-1] + 1
            wanted[first:last] = nearest(wanted[first:last], self.command[first:last].tolist())
        if self._first:
            self._guard_first(wanted, measured)
        self._step(wanted)
        return self._publish()

    def hold(self) -> Vector:
        """Brake to rest inside the limits, one step per call."""
        for axis in self._axes:
            axis.hold()
        return self._publish()

    def stop(self) -> None:
        """From now on, brake and stay: for good."""
        self.stopped = True

    @property
    def at_rest(self) -> bool:
        """Whether the command does not move any more."""
        return all(axis.at_rest for axis in self._axes)

    def effort_exceeded(self, effort: Vector) -> str | None:
        """Name of the first axis whose reported effort is beyond its limit, recorded."""
        for name, value, limit in zip(
            self.spec.axes, effort, self.spec.limits.effort, strict=False
        ):
            if not abs(value) <= limit:  # NaN counts as exceeded
                self._count("effort", name)
                return name
        return None

    def _malformed(self, target: Any) -> str | None:
        if not isinstance(target, np.ndarray) or target.shape != self.command.shape:
            return "shape"
        if target.dtype.kind != "f" or not np.isfinite(target).all():
            return "not_finite"
        return None

    def _guard_first(self, wanted: list[float], measured: Vector) -> None:
        entries = zip(self.spec.axes, wanted, measured, self.spec.limits.first_step, strict=True)
        for index, (name, goal, here, bound) in enumerate(entries):
            if index not in self._held and not abs(goal - here) <= bound:
                self._block("first_command", name)
                raise FirstCommandError(
                    f"first command refused: axis '{name}' would jump from {here:.4g} to "
                    f"{goal:.4g}, allowed is {bound:g}"
                )
        self._first = False

    def _step(self, wanted: list[float]) -> None:
        clean = True
        for index, (axis, goal) in enumerate(zip(self._axes, wanted, strict=True)):
            kind = axis.violation(goal)
            if kind == "position" and index in self.spec.workspace:
                kind = "workspace"
            if kind is None:
                axis.go(goal)
            else:
                self._count(kind, self.spec.axes[index] if kind != self._broken[index] else "")
                axis.approach(goal)
                clean = False
            self._broken[index] = kind
        self.blocked += not clean

    def _block(self, kind: str, axis: str = "target") -> None:
        self._count(kind, axis)
        self.blocked += 1

    def _count(self, kind: str, axis: str) -> None:
        """One more of ``kind``; told by ``axis``, unless that is empty: it goes on."""
        self.violations[kind] = self.violations.get(kind, 0) + 1
        if axis:
            self._on_violation(f"{kind} {axis}")

    def _publish(self) -> Vector:
        for index, axis in enumerate(self._axes):
            self.command[index] = axis.p
        return self.command
