"""What an arm's TOML file says: driver, joints and their limits, what it is commanded in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpolicy_deploy.robots.base import Limits

HAND_AXES = ("x", "y", "z", "rx", "ry", "rz")


@dataclass(frozen=True)
class Gripper:
    """The joint that is the gripper: a policy's -1 and 1 are ``open`` and ``closed``."""

    joint: str
    open: float
    closed: float


@dataclass(frozen=True)
class Workspace:
    """Where the hand may be, m in the model's world; ``clearance`` m keeps bodies apart."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    clearance: float = 0.02


@dataclass(frozen=True)
class ArmConfig:
    """One arm. Vectors over joints are in the order of ``joints``.

    ``mode`` is what the arm is commanded in: ``hand`` (goals of the hand's pose, and of the gripper
    where there is one) or ``joints`` (goals of all joints). ``hand`` limits bound the goals that a
    policy may set for the hand, as ``RobotSpec.limits`` does; ``joints`` limits bound every command
    that reaches the driver, at the driver's rate.
    """

    driver: str
    options: dict[str, Any]  # of the driver
    joints: tuple[str, ...]
    limits: Limits  # of the joints
    rate_hz: float  # of the driver's exchanges
    mode: str
    stop: str  # "hold" or "release": what the driver's stop leaves behind
    model: Path | None  # MJCF; joints of the same names; needed for hand, workspace, collisions
    hand: str | None  # a site of the model
    home: tuple[float, ...] | None  # joint pose where episodes start; None: where the arm is
    hand_limits: Limits | None
    gripper: Gripper | None
    workspace: Workspace | None
    observations: dict[str, str]  # {name: source}
    silence_s: float = 0.1

    @property
    def axes(self) -> tuple[str, ...]:
        """What goals are given in."""
        if self.mode == "joints":
            return self.joints
        return HAND_AXES + (("gripper",) if self.gripper else ())

    def braking_s(self) -> float:
        """No joint needs longer than this to come to rest by its own limits, s."""
        limits = zip(self.limits.velocity, self.limits.acceleration, self.limits.jerk, strict=True)
        return max(v / a + 2.0 * a / j + 2.0 * math.sqrt(v / j) for v, a, j in limits)
