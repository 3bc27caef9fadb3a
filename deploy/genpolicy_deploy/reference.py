"""How the joints shall move between goals: after the hand, or through joint goals that come slowly.

Both kinds give, once per step, joints and the velocity with which these move on. They make motion
that joints can follow; that no limit is broken is the envelope's business.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genpolicy_deploy.kinematics import Kinematics
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.rotations import compose

Vector = NDArray[np.float64]

# As robosuite's OSC_POSE, with which policies are trained: kp = 150, critically damped.
NATURAL_FREQUENCY = math.sqrt(150.0)  # rad/s
POSTURE_RATE = 1.5  # 1/s with which redundant joints go to their rest
FIRST_INTERVAL_S = 0.05  # between joint goals, until it is known
LONGEST_INTERVAL_S = 0.5  # a goal that stood longer was an end


class Reference(Protocol):
    """What the envelope follows."""

    wanted: Vector  # [J] where the joints should be after this step
    velocity: Vector  # [J] with which that moves on

    def start(self, position: Vector, velocity: Vector) -> None:
        """From joints ``[J]`` that move with ``velocity [J]``, with no goal but to stay there."""
        ...

    def goal(self, goal: Vector) -> None:
        """A new goal ``[A]``."""
        ...

    def pursued(self) -> Vector:
        """The goal ``[A]`` that it has."""
        ...

    def step(self) -> bool:
        """Move on; whether that was possible."""
        ...


class HandReference:
    """The hand follows its goal as a critically damped spring, and the joints follow the hand.

    Args:
        kinematics: the arm's model.
        config: of the arm.
        dt: s per step.
    """

    def __init__(self, kinematics: Kinematics, config: ArmConfig, dt: float) -> None:
        self._kinematics, self._dt = kinematics, dt
        self._gripper = GripperScale(config) if config.gripper else None
        joints = len(config.joints)
        self.wanted: Vector = np.zeros(joints)
        self.velocity: Vector = np.zeros(joints)
        self._has_rest = config.home is not None
        self._rest: Vector = np.zeros(joints) if config.home is None else np.array(config.home)
        self._max_speed = np.array(config.limits.velocity)
        self._max_change = np.array(config.limits.acceleration) * dt
        self._speed: Vector = np.zeros(joints)  # of the joints that move the hand
        self._pose: Vector = np.zeros(6)
        self._twist: Vector = np.zeros(6)
        self._goal: Vector = np.zeros(len(config.axes))
        self._opening = np.zeros(2)  # of the gripper: its joint's position and velocity
        w = NATURAL_FREQUENCY
        decay = math.exp(-w * dt)
        # Exact solution of e'' = -2w e' - w² e after dt, from (e, e').
        self._spring = decay * np.array([[1.0 + w * dt, dt], [-w * w * dt, 1.0 - w * dt]])

    def start(self, position: Vector, velocity: Vector) -> None:
        """See ``Reference``. Redundant joints drift to ``home``, or to the first start."""
        if not self._has_rest:
            self._rest[:], self._has_rest = position, True
        self.wanted[:], self.velocity[:] = position, velocity
        self._speed[:] = 0.0
        self._speed[self._kinematics.chain] = velocity[self._kinematics.chain]
        self._kinematics.place(position)
        self._kinematics.hand(self._pose)
        self._twist[:] = self._kinematics.jacobian() @ velocity[self._kinematics.chain]
        self._goal[:6] = self._pose
        if self._gripper:
            joint = self._gripper.joint
            self._goal[6] = self._gripper.grip(float(position[joint]))
            self._opening[:] = position[joint], velocity[joint]

    def goal(self, goal: Vector) -> None:
        """Pose of the hand, and of the gripper from -1, open, to 1, closed."""
        self._goal[:] = goal

    def pursued(self) -> Vector:
        """See ``Reference``."""
        return self._goal.copy()

    def step(self) -> bool:
        """See ``Reference``."""
        kinematics, dt = self._kinematics, self._dt
        kinematics.place(self.wanted)
        kinematics.hand(self._pose)
        motion = self._spring_back()
        drift = POSTURE_RATE * dt * (self._rest - self.wanted)
        change = kinematics.solve(motion, self.wanted, drift)
        if change is None:
            return False
        if self._slow_down(change / dt):  # the hand goes on from what it does
            self._twist[:] = kinematics.jacobian() @ self._speed[kinematics.chain]
        self.velocity[:] = self._speed
        self.wanted += self._speed * dt
        if self._gripper:
            self._move_gripper(self._gripper)
        return True

    def _spring_back(self) -> Vector:
        """Motion of the hand in this step, ``[6]``; its twist becomes that at the step's end."""
        goal, pose = self._goal, self._pose
        error = np.empty((2, 6))
        error[0, :3] = pose[:3] - goal[:3]
        error[0, 3:] = compose(pose[3:].tolist(), (-goal[3:6]).tolist())
        error[1] = self._twist
        after = self._spring @ error
        self._twist[:] = after[1]
        motion = after[0] - error[0]
        turned = compose(after[0, 3:].tolist(), goal[3:6].tolist())
        motion[3:] = compose(turned, (-pose[3:]).tolist())
        return motion

    def _slow_down(self, wanted: Vector) -> bool:
        """Come as near to joint velocities ``wanted [J]`` as their limits allow; whether they did.

        All joints are slowed alike, so that the hand stays on its straight way.
        """
        share = 1.0 / max(1.0, float((np.abs(wanted) / self._max_speed).max()))
        change = share * wanted - self._speed
        gain = 1.0 / max(1.0, float((np.abs(change) / self._max_change).max()))
        self._speed += gain * change
        return share < 1.0 or gain < 1.0

    def _move_gripper(self, gripper: GripperScale) -> None:
        goal = gripper.opening(float(self._goal[6]))
        self._opening[0] -= goal
        self._opening[:] = self._spring @ self._opening
        self._opening[0] += goal
        self.wanted[gripper.joint], self.velocity[gripper.joint] = self._opening


class GripperScale:
    """Between a policy's gripper, -1 open to 1 closed, and the joint that is the gripper."""

    def __init__(self, config: ArmConfig) -> None:
        assert config.gripper is not None
        self.joint = config.joints.index(config.gripper.joint)
        self._middle = 0.5 * (config.gripper.open + config.gripper.closed)
        self._half = 0.5 * (config.gripper.closed - config.gripper.open)

    def opening(self, grip: float) -> float:
        """The joint for a policy's number."""
        return self._middle + min(max(grip, -1.0), 1.0) * self._half

    def grip(self, opening: float) -> float:
        """The policy's number for the joint."""
        return (opening - self._middle) / self._half


class JointReference:
    """On straight lines from goal to goal, as long as goals take to come.

    A goal that comes every tenth step is reached in the tenth step and a little later, so that the
    next one is there in time and the joints do not stop in between. A repeated goal is none.

    Args:
        joints: how many.
        dt: s per step.
    """

    def __init__(self, joints: int, dt: float) -> None:
        self._dt = dt
        self._longest = max(round(LONGEST_INTERVAL_S / dt), 1)
        self._intervals = [max(round(FIRST_INTERVAL_S / dt), 1)] * 5  # the last, in steps
        self.wanted: Vector = np.zeros(joints)
        self.velocity: Vector = np.zeros(joints)
        self._goal: Vector = np.zeros(joints)
        self._since = self._longest + 1  # steps, since the goal changed
        self._left = 0  # steps until it is reached

    def start(self, position: Vector, velocity: Vector) -> None:
        """See ``Reference``."""
        self.wanted[:] = self._goal[:] = position
        self.velocity[:] = 0.0
        self._left, self._since = 0, self._longest + 1

    def goal(self, goal: Vector) -> None:
        """Where the joints shall be, rad (m)."""
        if np.array_equal(goal, self._goal):
            return
        if 0 < self._since <= self._longest:
            self._intervals = [*self._intervals[1:], self._since]
        interval = sorted(self._intervals)[2]  # what is usual, whatever the clocks do
        self._left = interval + 1 + interval // 8
        self._goal[:] = goal
        self.velocity[:] = (goal - self.wanted) / (self._left * self._dt)
        self._since = 0

    def pursued(self) -> Vector:
        """See ``Reference``."""
        return self._goal.copy()

    def step(self) -> bool:
        """See ``Reference``."""
        self._since += 1
        if self._left > 0:
            self._left -= 1
            self.wanted += self.velocity * self._dt
        if self._left == 0:
            self.wanted[:] = self._goal
            self.velocity[:] = 0.0
        return True
