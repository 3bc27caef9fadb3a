"""What a robot is to the control loop: a description, and five calls that never wait long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Feature, GenpolicyError, TaskSpec

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """Per axis, in the order of ``RobotSpec.axes``. No command outside them is ever sent.

    ``first_step`` bounds the distance between the first command and the measured position;
    ``effort`` (empty: not watched) bounds what the robot reports, beyond it the loop stops.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    jerk: tuple[float, ...]
    first_step: tuple[float, ...]
    effort: tuple[float, ...] = ()

    def check(self, axes: int, source: str) -> None:
        """Refuse limits that are not positive, not ordered or not one per axis.

        Raises:
            GenpolicyError: names the entry.
        """
        for name, values in vars(self).items():
            if len(values) != axes and not (name == "effort" and not values):
                raise GenpolicyError(f"{source}: limits.{name} needs {axes} values")
            positive = name not in ("low", "high")
            if not all(np.isfinite(v) and (v > 0.0 or not positive) for v in values):
                raise GenpolicyError(f"{source}: limits.{name} must be finite and positive")
        if not all(lo < hi for lo, hi in zip(self.low, self.high, strict=True)):
            raise GenpolicyError(f"{source}: every limits.low must be below its limits.high")


@dataclass(frozen=True)
class RobotSpec:
    """Facts about a robot.

    ``axes`` are what it is commanded in: joints, or an end-effector pose. ``rotation`` tells
    which three of them, if any, form a rotation vector, ``workspace`` which three a position in
    space. ``rate_hz`` is the rate of commands; without one for ``silence_s`` the robot does by
    itself what ``on_silence`` says.
    """

    name: str
    control_mode: str
    action_names: tuple[str, ...]
    observations: tuple[Feature, ...]
    axes: tuple[str, ...]
    limits: Limits
    rate_hz: float
    on_silence: str
    silence_s: float
    rotation: tuple[int, ...] = ()
    workspace: tuple[int, ...] = ()
    grippers: tuple[int, ...] = ()  # axes that close on things, short of where they were told to be
    brakes_itself: bool = False  # ``hold`` and ``stop`` brake by the robot's own limits, at once


@dataclass
class RobotState:
    """The newest measurement; drivers overwrite one instance in place.

    ``seq`` grows with every measurement and ``t_ns`` is when it was taken, on this computer's
    monotonic clock: the age of a measurement is known even when a driver keeps returning it.
    """

    position: Vector  # [A]
    observation: dict[str, Vector]  # {key: [D]}
    effort: Vector  # [A], or empty when the robot does not report it
    seq: int = 0
    t_ns: int = 0
    success: bool = False  # of the task, where the robot (a simulated one) can tell
    joints: Vector = field(default_factory=lambda: np.zeros(0))  # [J] measured, if not the axes
    joint_command: Vector = field(default_factory=lambda: np.zeros(0))  # [J] sent to the driver
    blocked: int = 0  # joint commands that the robot's own envelope altered so far
    faults: list[str] = field(default_factory=list)  # by the driver, since the last read


class Robot(Protocol):
    """A context manager: entering connects, leaving always stops the robot."""

    spec: RobotSpec

    def connect(self) -> None:
        """Find the robot and wait for its first measurement.

        Raises:
            GenpolicyError: it is not there, or not the one described.
        """
        ...

    def reset(self, seed: int, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Go to where an episode starts, at rest. May take long; nothing else is running.

        Ends early, at rest, as soon as ``cancelled()``: asked again and again on the way.

        Raises:
            GenpolicyError: it did not get there.
        """
        ...

    def read(self) -> RobotState:
        """The newest measurement, without waiting for one.

        Raises:
            GenpolicyError: the connection is lost for good.
        """
        ...

    def write(self, command: Vector) -> None:
        """Send ``command [A]``, without waiting. Only ``Envelope`` makes commands.

        Raises:
            GenpolicyError: the connection is lost for good.
        """
        ...

    def hold(self, command: Vector) -> None:
        """Instead of ``write``: brake and stay until the next ``write``, without waiting.

        ``command [A]`` is the goal, braked by ``Envelope``: what robots are sent that do not
        brake by themselves (``RobotSpec.brakes_itself``).

        Raises:
            GenpolicyError: the connection is lost for good.
        """
        ...

    def stop(self) -> None:
        """Bring the robot to its safe state, whatever happened before. Raises nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_fits(task: TaskSpec, robot: RobotSpec) -> None:
    """Refuse to run a controller on a robot that it was not made for.

    Raises:
        GenpolicyError: names what differs.
    """
    for what, ours, theirs in (
        ("control mode", task.control_mode, robot.control_mode),
        ("action names", task.action.names, robot.action_names),
    ):
        if ours != theirs:
            raise GenpolicyError(
                f"the controller's {what} {_text(ours)} do not fit the robot '{robot.name}', "
                f"which has {_text(theirs)}"
            )
    offered = {f.name: f.dim for f in robot.observations}
    for feature in task.observations:
        if offered.get(feature.name) != feature.dim:
            raise GenpolicyError(
                f"the controller needs observation '{feature.name}' of size {feature.dim}; the "
                f"robot '{robot.name}' offers {offered}"
            )
    ticks = robot.rate_hz / task.control_hz
    if ticks < 1 or abs(ticks - round(ticks)) > 1e-9:
        raise GenpolicyError(
            f"the robot's rate {robot.rate_hz:g} Hz is not a multiple of the controller's "
            f"{task.control_hz:g} Hz"
        )


def _text(value: str | tuple[str, ...]) -> str:
    return f"'{value}'" if isinstance(value, str) else f"({', '.join(value)})"
