"""From goals to joint commands, once per exchange with an arm: the safety core of real arms.

    goal -> reference -> joint envelope -> workspace and collisions -> command

- Hand goals move a reference that follows them as softly as the impedance controller of training,
  and inverse kinematics gives the joints for it. Joint goals are passed through on straight lines.
- The envelope keeps every joint inside its limits of position, velocity, acceleration and jerk.
- A command is sent only if the hand stays in the workspace, and bodies stay apart, on the whole
  way on which the joints would come to rest from it. Otherwise the joints brake, which is clear.
- To hold or to stop brakes the joints themselves, at once, as quickly as their limits allow.

Nothing of this is a certified safety function (ISO 10218, ISO 13849).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.clearance import Clearance
from genpolicy_deploy.joint_envelope import JointEnvelope
from genpolicy_deploy.kinematics import Kinematics
from genpolicy_deploy.reference import GripperScale, HandReference, JointReference, Reference
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.rotations import nearest

Vector = NDArray[np.float64]

FARTHEST = 1e3  # m, rad: goals beyond are no goals
INSET = 5e-3  # m: goals keep so far from the walls; joints that lag let the hand deviate


class Servo:
    """Makes all joint commands of one arm.

    Args:
        config: of the arm.
        dt: s between steps.

    Attributes:
        axes: what goals are given in.
        command: ``[J]`` the present joint command, written in place.
        violations: how often a goal or command was altered, by kind and axis.

    Raises:
        GenpolicyError: the model cannot be read, or is not of this arm.
    """

    def __init__(self, config: ArmConfig, dt: float) -> None:
        self._config = config
        self.axes = config.axes
        self._kinematics = Kinematics(config) if config.model else None
        self._limits = self._kinematics.limits if self._kinematics else config.limits
        self._envelope = JointEnvelope(config.joints, self._limits, dt)
        self.command: Vector = self._envelope.command
        self.violations: dict[str, int] = self._envelope.violations
        self._reference = self._make_reference(dt)
        self._clearance: Clearance | None = None
        if self._kinematics and config.workspace:
            self._clearance = Clearance(self._kinematics, config.workspace)
        self._low, self._high = self._goal_bounds()
        self._gripper = GripperScale(config) if config.gripper else None
        self._rotation = np.zeros(3)  # of the hand, last measured
        self._braking = self._first = True
        self._blocked = False  # the goal cannot be pursued further
        self._stopped = False

    def start(self, position: Vector) -> None:
        """At rest at the measured joints ``[J]``; the next goal is the first one.

        Raises:
            GenpolicyError: stopped before (a stop is never cleared); or a joint is farther outside
                its limits than its ``first_step``.
        """
        if self._stopped:
            raise GenpolicyError("the arm's servo is stopped for good; make a new one")
        limits = self._limits
        entries = zip(
            self._config.joints,
            position.tolist(),
            limits.low,
            limits.high,
            limits.first_step,
            strict=True,
        )
        for name, value, low, high, slack in entries:
            if not low - slack <= value <= high + slack:  # NaN counts as outside
                raise GenpolicyError(
                    f"the arm starts outside its limits: joint '{name}' is at {value:.4g}, allowed "
                    f"are {low:g} to {high:g}"
                )
        self._envelope.start(np.clip(position, limits.low, limits.high))
        if self._clearance:
            self._clearance.start(self.command)
        self._reference.start(self.command, self._envelope.velocity)
        self._braking = self._first = True
        self._blocked = False

    def goal(self, goal: Vector) -> None:
        """Pursue ``goal [A]``: the hand's pose and the gripper, or joints. Not a number: brake.

        Raises:
            GenpolicyError: the first joint goal is too far from where the arm is.
        """
        if self._stopped:
            return
        if not self._well_formed(goal):
            self.hold()
            return
        if self._config.mode == "joints" and self._first:
            self._guard_first(goal)
        goal = self._inside(goal)
        if self._braking or (self._blocked and not np.array_equal(goal, self._reference.pursued())):
            self._reference.start(self.command, self._envelope.velocity)
            self._blocked = False
        self._braking = self._first = False
        self._reference.goal(goal)

    def hold(self) -> None:
        """Brake from the next step on, until the next goal."""
        self._braking = True

    def stop(self) -> None:
        """Brake from the next step on, for good."""
        self._braking = self._stopped = True

    def late(self, position: Vector | None = None) -> None:
        """Time has passed without steps: the arm rests at the present command.

        Args:
            position: ``[J]`` a command of before, where it rests instead.
        """
        self._envelope.start(self.command.copy() if position is None else position)
        self._restart()

    def step(self) -> Vector:
        """The next joint command ``[J]``, inside every limit."""
        if self._blocked and self.at_rest:
            self._restart()
        if self._braking or self._blocked:
            self._envelope.hold()
            return self.command
        if not self._reference.step():
            self._block("kinematics")
            self._envelope.hold()
            return self.command
        self._envelope.track(self._reference.wanted, self._reference.velocity)
        kind = self._clearance.blocks(self._envelope.path()) if self._clearance else None
        if kind is not None:
            self._block(kind)
            self._envelope.brake_instead()
        return self.command

    @property
    def at_rest(self) -> bool:
        """Whether the command does not move any more."""
        return self._envelope.at_rest

    def pose(self, position: Vector, out: Vector) -> None:
        """Of hand and gripper at measured joints ``position [J]``, into ``out``.

        As goals of the hand are given, in either mode; rotation vectors continue those of the call
        before.
        """
        assert self._kinematics is not None
        self._kinematics.place(position)
        self._kinematics.hand(out)
        self._rotation[:] = nearest(out[3:6].tolist(), self._rotation.tolist())
        out[3:6] = self._rotation
        if self._gripper:
            out[6] = self._gripper.grip(float(position[self._gripper.joint]))

    def _make_reference(self, dt: float) -> Reference:
        if self._config.mode == "joints":
            return JointReference(len(self._config.joints), dt)
        if self._kinematics is None or self._config.hand is None:
            raise GenpolicyError('mode = "hand" needs the keys model and hand')
        return HandReference(self._kinematics, self._config, dt)

    def _goal_bounds(self) -> tuple[Vector, Vector]:
        """Hand goals lie in their limits, and in the workspace: the hand glides along its walls."""
        low, high = np.full(len(self.axes), -FARTHEST), np.full(len(self.axes), FARTHEST)
        if self._config.mode == "joints":
            return low, high  # the envelope bounds joints
        limits, workspace = self._config.hand_limits, self._config.workspace
        if limits:
            low, high = np.array(limits.low), np.array(limits.high)
        if workspace:
            low[:3] = np.maximum(low[:3], np.array(workspace.low) + INSET)
            high[:3] = np.minimum(high[:3], np.array(workspace.high) - INSET)
        return low, high

    def _well_formed(self, goal: Vector) -> bool:
        if not isinstance(goal, np.ndarray) or goal.shape != self._low.shape:
            self._count("shape")
            return False
        if goal.dtype.kind != "f" or not (np.abs(goal) <= FARTHEST).all():  # NaN is not
            self._count("not_finite")
            return False
        return True

    def _guard_first(self, goal: Vector) -> None:
        entries = zip(
            self.axes, goal.tolist(), self.command.tolist(), self._limits.first_step, strict=True
        )
        for name, wanted, here, bound in entries:
            if abs(wanted - here) > bound:
                self._count(f"first_command {name}")
                raise GenpolicyError(
                    f"first command refused: joint '{name}' would jump from {here:.4g} to "
                    f"{wanted:.4g}, allowed is {bound:g}"
                )

    def _inside(self, goal: Vector) -> Vector:
        """The nearest goal that may be pursued."""
        clipped = np.clip(goal, self._low, self._high)
        for index in np.flatnonzero(clipped != goal).tolist():
            self._count("workspace" if index < 3 else f"position {self.axes[index]}")
        return clipped

    def _restart(self) -> None:
        """The reference begins again at the present command, with the same goal."""
        goal = self._reference.pursued()
        self._reference.start(self.command, self._envelope.velocity)
        self._reference.goal(goal)
        self._blocked = False

    def _block(self, kind: str) -> None:
        """Brake to rest, or until another goal comes; then try again."""
        self._count(kind)
        self._blocked = True

    def _count(self, kind: str) -> None:
        self.violations[kind] = self.violations.get(kind, 0) + 1
