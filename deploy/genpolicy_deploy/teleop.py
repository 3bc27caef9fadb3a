"""Teleoperation: a person drives the robot, and the flight log holds their demonstrations.

The same loop, limits, emergency stop and arm process as under a policy. An episode begins with the
person's first motion and ends with their verdict; ``genpolicy convert`` makes demonstrations of
the log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genpolicy.spec import ActionSpec, GenpolicyError, PolicySpec, TaskSpec
from genpolicy_deploy import leaders
from genpolicy_deploy.estop import EmergencyStop
from genpolicy_deploy.loop import ControlLoop
from genpolicy_deploy.realtime import soft_realtime
from genpolicy_deploy.robots.base import RobotSpec
from genpolicy_deploy.session import (
    Session,
    SessionOptions,
    cancel_on_signals,
    open_robot,
    versions,
)
from genpolicy_deploy.watchdog import Watchdog

OSC = {"position_scale": 0.05, "rotation_scale": 0.5, "gripper_speed": 0.2}  # robosuite's


@dataclass(frozen=True)
class TeleopOptions(SessionOptions):
    """What ``genpolicy-deploy teleop`` takes. Without ``episodes`` the person quits."""

    leader: str
    log: Path
    task: str = "lift"
    control_hz: float = 20.0
    max_steps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_steps < 1 or not 1.0 <= self.control_hz <= 1000.0:
            raise GenpolicyError("teleop needs --max-steps of 1 or more and --hz from 1 to 1000")
        if self.log.exists():
            raise GenpolicyError(f"{self.log}: exists already; choose another --log file")


class Teleop(Session):
    """Executes ``options``: see ``TeleopOptions``."""

    def __init__(
        self,
        options: TeleopOptions,
        watchdog: Watchdog | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(open_robot(options, options.task), watchdog, on_progress)
        self.options = options

    def _execute(self, stack: contextlib.ExitStack) -> None:
        options = self.options
        self._on_progress(f"connecting to robot '{options.robot}'")
        robot = stack.enter_context(self.robot)
        task = task_of(robot.spec, options)
        leader = stack.enter_context(leaders.make(options.leader, task))
        estop = stack.enter_context(EmergencyStop(options.estop, keyboard=0, typed=leader.typed))
        leader.check_terminal(estop.hears_keys)
        self._on_progress(leader.help)
        spec = PolicySpec(task, obs_steps=1, chunk=1, exec_steps=1)
        self._record(stack, options.log, spec, {"leader": options.leader})
        loop = self.loop = ControlLoop(spec, robot, None, self._log, self._watchdog, estop, leader)
        stack.callback(lambda: loop.halt("end of teleoperation"))
        loop.warm_up()
        if options.realtime:
            stack.enter_context(soft_realtime())
        with cancel_on_signals(loop):
            self._run_episodes(loop, leader)
        self.interrupted = loop.cancelled

    def _run_episodes(self, loop: ControlLoop, leader: leaders.Leader) -> None:
        options = self.options
        while not (loop.cancelled or leader.quits):
            episode = loop.run_episode(options.seed + len(self.episodes), options.max_steps)
            if leader.quits and episode.steps == 0:
                break  # between two episodes
            self._ended(episode)
            if len(self.episodes) == options.episodes:
                break

    def result(self) -> dict[str, Any]:
        """The JSON document of the session."""
        return {
            "task": self.options.task,
            "robot": self.options.robot,
            "leader": self.options.leader,
            "episodes": [asdict(episode) for episode in self.episodes],
            "successes": sum(episode.success for episode in self.episodes),
            "fault": self.fault,
            "interrupted": self.interrupted,
            "log": str(self.options.log),
            "log_frames_dropped": self._log.dropped if self._log else 0,
            "violations": self.loop.envelope.violations if self.loop else {},
            "events": self.loop.events if self.loop else {},
            "versions": versions(),
        }


def task_of(robot: RobotSpec, options: TeleopOptions) -> TaskSpec:
    """The task that demonstrations on this robot are of: its observations, its actions.

    Raises:
        GenpolicyError: a rate that the robot's is no multiple of.
    """
    ticks = robot.rate_hz / options.control_hz
    if ticks < 1 or abs(ticks - round(ticks)) > 1e-9:
        raise GenpolicyError(
            f"--hz {options.control_hz:g}: the robot's rate {robot.rate_hz:g} Hz is not a multiple"
        )
    joints = robot.control_mode == "joint_position"
    count = len(robot.action_names)
    low = robot.limits.low if joints else (-1.0,) * count
    high = robot.limits.high if joints else (1.0,) * count
    return TaskSpec(
        task=options.task,
        robot=robot.name,
        observations=robot.observations,
        action=ActionSpec(robot.action_names, ("",) * count, low, high),
        control_mode=robot.control_mode,
        control_hz=options.control_hz,
        max_episode_steps=options.max_steps,
        control={} if joints else dict(OSC),
    )
