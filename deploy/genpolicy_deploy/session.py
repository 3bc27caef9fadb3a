"""What runs under a policy and teleoperation share: faults, signals, the log, the end."""

from __future__ import annotations

import abc
import contextlib
import os
import platform
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy_deploy import robots
from genpolicy_deploy.link import LinkClosedError
from genpolicy_deploy.loop import ControlLoop, Episode, FaultError
from genpolicy_deploy.recorder import Recorder
from genpolicy_deploy.robots import mujoco
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.base import Robot
from genpolicy_deploy.watchdog import Watchdog

OK, FAULT, INTERRUPTED = 0, 3, 130


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What ``genpolicy-deploy run`` and ``teleop`` both take."""

    robot: str = "mujoco"
    robot_config: Path | None = None
    episodes: int | None = None
    seed: int = 0
    realtime: bool = True
    estop: Path | None = None

    def __post_init__(self) -> None:
        if self.seed < 0 or (self.episodes is not None and self.episodes < 1):
            raise GenpolicyError("seed must not be negative and episodes must be at least 1")


class Session(abc.ABC):
    """One session on one robot. A fault or Ctrl-C ends it, and ``exit_code`` says which.

    Args:
        robot: not connected.
        watchdog: instead of the default thresholds.
        on_progress: hears a line of text now and then, never while the robot moves.
    """

    def __init__(
        self, robot: Robot, watchdog: Watchdog | None, on_progress: Callable[[str], None]
    ) -> None:
        self.robot = robot
        self.episodes: list[Episode] = []
        self.fault: str | None = None
        self.interrupted = False
        self.loop: ControlLoop | None = None
        self._watchdog, self._on_progress = watchdog, on_progress
        self._log: Recorder | None = None

    def execute(self) -> None:
        """Go to the end; a fault or Ctrl-C stops the robot and is kept for ``result``.

        Raises:
            GenpolicyError: it could not begin.
        """
        try:
            with contextlib.ExitStack() as stack:
                self._execute(stack)
        except FaultError as error:
            self.fault = str(error)
        except LinkClosedError as error:  # between episodes
            self.fault = f"stopped: {error}"
        except KeyboardInterrupt:
            self.interrupted = True

    @abc.abstractmethod
    def _execute(self, stack: contextlib.ExitStack) -> None:
        """Connect, run the episodes; what is entered in ``stack`` is closed whatever happens."""

    @abc.abstractmethod
    def result(self) -> dict[str, Any]:
        """The JSON document of the session, whole whatever happened."""

    @property
    def exit_code(self) -> int:
        """0, 3 after a fault, 130 after Ctrl-C."""
        if self.fault is not None:
            return FAULT
        return INTERRUPTED if self.interrupted else OK

    def _ended(self, episode: Episode) -> None:
        self.episodes.append(episode)
        outcome = "success" if episode.success else "no success"
        self._on_progress(f"episode {episode.seed}: {outcome}, {episode.steps} steps")

    def _record(
        self, stack: contextlib.ExitStack, path: Path, spec: PolicySpec, info: Mapping[str, Any]
    ) -> None:
        """Begin the flight log. ``info`` is said beside what is known of the robot."""
        robot = self.robot
        info = {
            **info,
            "spec": spec.to_dict(),
            "robot": robot.spec.name,
            "rate_hz": robot.spec.rate_hz,
            "axes": robot.spec.axes,
            "limits": asdict(robot.spec.limits),
            "versions": versions(),
        }
        if isinstance(arm := getattr(robot, "config", None), ArmConfig):
            info |= {"joints": arm.joints, "joint_limits": asdict(arm.limits)}
        axes, joints = len(robot.spec.axes), len(robot.read().joints)
        self._log = stack.enter_context(Recorder(path, spec, axes, info, joints))


def open_robot(options: SessionOptions, task: str) -> Robot:
    """The robot that ``options`` name; the simulated one in the scene of ``task``."""
    scene = {}
    if options.robot == "mujoco" and task in mujoco.TASKS:
        scene = {"task": task}  # others do not fit the arm, which ``check_fits`` says
    return robots.make(options.robot, options.robot_config, **scene)


@contextlib.contextmanager
def cancel_on_signals(loop: ControlLoop) -> Iterator[None]:
    """While the loop runs, Ctrl-C, SIGTERM and SIGHUP ask it to stop, and do not tear it apart."""

    def cancel(number: int, frame: FrameType | None) -> None:
        loop.cancelled = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, cancel) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def versions() -> dict[str, str]:
    """What the session was made with."""
    packages = {name: version(name) for name in ("genpolicy", "numpy", "onnxruntime")}
    kernel = os.uname()
    return packages | {
        "python": platform.python_version(),
        "system": f"{kernel.sysname} {kernel.release} {kernel.machine}",
    }
