"""One run on one robot, from opening the file to the result that is written as JSON."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy_deploy import leaders, robots
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.estop import EmergencyStop
from genpolicy_deploy.handover import check_handover
from genpolicy_deploy.inference import Inference
from genpolicy_deploy.leaders.base import Leader
from genpolicy_deploy.link import LinkClosedError
from genpolicy_deploy.loop import ControlLoop, Episode, FaultError, Policy
from genpolicy_deploy.realtime import soft_realtime
from genpolicy_deploy.recorder import Recorder
from genpolicy_deploy.robots import mujoco
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.base import Robot
from genpolicy_deploy.watchdog import Watchdog

OK, FAULT, INTERRUPTED = 0, 3, 130


@dataclass(frozen=True)
class RunOptions:
    """What ``genpolicy-deploy run`` takes. Either ``episodes`` or ``seconds`` ends the run."""

    path: Path
    robot: str = "mujoco"
    robot_config: Path | None = None
    seconds: float = 20.0
    episodes: int | None = None
    seed: int = 0
    num_samples: int | None = None
    temperature: float | None = None
    handover: str = "sync"
    log: Path | None = None
    realtime: bool = True
    estop: Path | None = None
    leader: str | None = None


class Run:
    """Executes ``options``; ``result`` is whole whatever happens, ``exit_code`` says what did.

    Args:
        options: see ``RunOptions``.
        robot: instead of the one that ``options`` names (not connected).
        watchdog: instead of the default thresholds.
        on_progress: hears a line of text now and then, never while the robot moves.
    """

    def __init__(
        self,
        options: RunOptions,
        robot: Robot | None = None,
        watchdog: Watchdog | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.options = options
        self._on_progress = on_progress
        # Everything that bad input can break, before anything moves:
        controller = Controller(options.path, options.num_samples, options.temperature)
        self.contract = controller.contract
        self.num_samples, self.temperature = controller.num_samples, controller.temperature
        check_handover(options.handover, self.contract)
        if options.seed < 0 or (options.episodes is not None and options.episodes < 1):
            raise GenpolicyError("seed must not be negative and episodes must be at least 1")
        if not 0.0 < options.seconds < math.inf:
            raise GenpolicyError("seconds must be positive")
        task, scene = self.contract.spec.task.task, {}
        if options.robot == "mujoco" and task in mujoco.TASKS:
            scene = {"task": task}  # others do not fit the arm, which ``check_fits`` says
        self.robot = robot or robots.make(options.robot, options.robot_config, **scene)
        self.inference = Inference(
            options.path, self.contract, options.num_samples, options.temperature
        )
        self.leader: Leader | None = None
        if options.leader is not None:
            self.leader = leaders.make(options.leader, self.contract.spec.task)
        typed = self.leader.typed if self.leader else None
        self.estop = EmergencyStop(options.estop, keyboard=0, typed=typed)
        self.episodes: list[Episode] = []
        self.fault: str | None = None
        self.interrupted = False
        self.granted: dict[str, str] = {}
        self.loop: ControlLoop | None = None
        self._watchdog = watchdog
        self._log: Recorder | None = None

    def execute(self) -> None:
        """Run to the end; a fault or Ctrl-C stops the robot and is kept for ``result``.

        Raises:
            GenpolicyError: the run could not begin.
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

    def _execute(self, stack: contextlib.ExitStack) -> None:
        stack.callback(self.inference.close)
        self._on_progress(f"connecting to robot '{self.options.robot}'")
        self.inference.start()  # loads while the robot connects
        robot = stack.enter_context(self.robot)
        if self.leader is not None:
            stack.enter_context(self.leader)
        stack.enter_context(self.estop)
        if self.leader is not None:
            self.leader.check_terminal(self.estop.hears_keys)
            self._on_progress(self.leader.help)
        recorder = self._log = self._recorder(stack, robot)
        loop = self.loop = ControlLoop(
            self.contract.spec,
            robot,
            Policy(self.contract, self.inference, self.options.handover),
            recorder,
            self._watchdog,
            self.estop,
            self.leader,
        )
        stack.callback(lambda: loop.halt("end of run"))
        loop.warm_up()
        if self.options.realtime:
            self.granted = stack.enter_context(soft_realtime())
        self._run_episodes(loop)

    def _run_episodes(self, loop: ControlLoop) -> None:
        options = self.options
        steps = self.contract.spec.task.max_episode_steps
        until = math.inf if options.episodes else time.monotonic_ns() + options.seconds * 1e9
        seed = options.seed
        with cancel_on_signals(loop):
            while not loop.cancelled and time.monotonic_ns() < until:
                episode = loop.run_episode(seed, steps, until)
                if episode.complete:
                    self.episodes.append(episode)
                    outcome = "success" if episode.success else "no success"
                    self._on_progress(f"episode {seed}: {outcome}, {episode.steps} steps")
                seed += 1
                if options.episodes and seed - options.seed >= options.episodes:
                    break
                if self.leader is not None and self.leader.quits:
                    break
        self.interrupted = loop.cancelled

    def _recorder(self, stack: contextlib.ExitStack, robot: Robot) -> Recorder | None:
        if self.options.log is None:
            return None
        info = {
            "controller": str(self.options.path.resolve()),
            "controller_sha256": sha256(self.options.path),
            "num_samples": self.num_samples,
            "temperature": self.temperature,
            "handover": self.options.handover,
            **log_info(robot, self.contract.spec),
        }
        axes, joints = len(robot.spec.axes), len(robot.read().joints)
        recorder = Recorder(self.options.log, self.contract.spec, axes, info, joints)
        return stack.enter_context(recorder)

    @property
    def exit_code(self) -> int:
        """0, 3 after a fault, 130 after Ctrl-C."""
        if self.fault is not None:
            return FAULT
        return INTERRUPTED if self.interrupted else OK

    def result(self) -> dict[str, Any]:
        """The JSON document of the run; ``deploy`` and ``stage`` are parts of report.json."""
        successes = sum(episode.success for episode in self.episodes)
        low, high = wilson(successes, len(self.episodes))
        stage = {
            "name": "deployed",
            "success_rate": successes / len(self.episodes) if self.episodes else None,
            "success_lo": low,
            "success_hi": high,
            "episodes": len(self.episodes),
            "seed0": self.options.seed,
        }
        return {
            "task": self.contract.spec.task.task,
            "robot": self.options.robot,
            "controller": str(self.options.path),
            "num_samples": self.num_samples,
            "temperature": self.temperature,
            "handover": self.options.handover,
            "deploy": self._deploy(),
            "stage": stage,
            "episodes": [asdict(episode) for episode in self.episodes],
            "fault": self.fault,
            "interrupted": self.interrupted,
            "log": str(self.options.log) if self.options.log else None,
            "log_frames_dropped": self._log.dropped if self._log else 0,
            "realtime": self.granted,
            "versions": versions(),
        } | self._details()

    def _deploy(self) -> dict[str, Any]:
        """The ``deploy`` object of report.json."""
        loop, compute = self.loop, self.inference.compute
        lateness = loop.ticker.lateness.summary() if loop else None
        return {
            "control_hz": self.contract.spec.task.control_hz,
            "ticks": loop.ticker.ticks if loop else 0,
            "missed_deadlines": loop.ticker.missed if loop else 0,
            "lateness_us": lateness or dict.fromkeys(("p50", "p99", "p999", "max"), 0.0),
            "inference_ms": {
                "p50": round(compute.percentile(50.0) / 1e3, 3),
                "p99": round(compute.percentile(99.0) / 1e3, 3),
            },
            "envelope_violations_blocked": loop.blocked if loop else 0,
        }

    def _details(self) -> dict[str, Any]:
        loop, response = self.loop, self.inference.response
        return {
            "state": loop.machine.state.name if loop else "INIT",
            "tick_hz": self.robot.spec.rate_hz if loop else None,
            "response_ms": {
                "p50": round(response.percentile(50.0) / 1e3, 3),
                "p99": round(response.percentile(99.0) / 1e3, 3),
            },
            "violations": loop.envelope.violations if loop else {},
            "events": loop.faults if loop else {},
        }


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


def log_info(robot: Robot, spec: PolicySpec) -> dict[str, Any]:
    """What a flight log says about the robot, whoever drives it."""
    info = {
        "spec": spec.to_dict(),
        "robot": robot.spec.name,
        "rate_hz": robot.spec.rate_hz,
        "axes": robot.spec.axes,
        "limits": asdict(robot.spec.limits),
        "versions": versions(),
    }
    if isinstance(arm := getattr(robot, "config", None), ArmConfig):
        info |= {"joints": arm.joints, "joint_limits": asdict(arm.limits)}
    return info


def wilson(successes: int, episodes: int, z: float = 1.959964) -> tuple[float | None, float | None]:
    """Wilson's 95 % interval of a success rate; (None, None) without episodes."""
    if episodes == 0:
        return None, None
    rate, n = successes / episodes, float(episodes)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """What the run was made with."""
    packages = {name: version(name) for name in ("genpolicy", "numpy", "onnxruntime")}
    kernel = os.uname()
    return packages | {
        "python": platform.python_version(),
        "system": f"{kernel.sysname} {kernel.release} {kernel.machine}",
    }
