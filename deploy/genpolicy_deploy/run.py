"""One run on one robot, from opening the file to the result that is written as JSON."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genpolicy.spec import GenpolicyError
from genpolicy_deploy import leaders
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.estop import EmergencyStop
from genpolicy_deploy.handover import check_handover
from genpolicy_deploy.inference import Inference
from genpolicy_deploy.leaders.base import Leader
from genpolicy_deploy.loop import ControlLoop, Policy
from genpolicy_deploy.realtime import soft_realtime
from genpolicy_deploy.robots.base import Robot
from genpolicy_deploy.session import (
    Session,
    SessionOptions,
    cancel_on_signals,
    open_robot,
    versions,
)
from genpolicy_deploy.watchdog import Watchdog


@dataclass(frozen=True)
class RunOptions(SessionOptions):
    """What ``genpolicy-deploy run`` takes. Either ``episodes`` or ``seconds`` ends the run."""

    path: Path
    seconds: float = 20.0
    num_samples: int | None = None
    temperature: float | None = None
    handover: str = "sync"
    log: Path | None = None
    leader: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.seconds < math.inf:
            raise GenpolicyError("seconds must be positive")


class Run(Session):
    """Executes ``options`` on ``robot``, or else on the one that they name."""

    def __init__(
        self,
        options: RunOptions,
        robot: Robot | None = None,
        watchdog: Watchdog | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        # Everything that bad input can break, before anything moves:
        controller = Controller(options.path, options.num_samples, options.temperature)
        self.options, self.contract = options, controller.contract
        self.num_samples, self.temperature = controller.num_samples, controller.temperature
        check_handover(options.handover, self.contract)
        robot = robot or open_robot(options, self.contract.spec.task.task)
        super().__init__(robot, watchdog, on_progress)
        self.inference = Inference(
            options.path, self.contract, options.num_samples, options.temperature
        )
        self.leader: Leader | None = None
        if options.leader is not None:
            self.leader = leaders.make(options.leader, self.contract.spec.task)
        typed = self.leader.typed if self.leader else None
        self.estop = EmergencyStop(options.estop, keyboard=0, typed=typed)
        self.granted: dict[str, str] = {}

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
        if self.options.log is not None:
            self._record(stack, self.options.log, self.contract.spec, self._log_info())
        loop = self.loop = ControlLoop(
            self.contract.spec,
            robot,
            Policy(self.contract, self.inference, self.options.handover),
            self._log,
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
                    self._ended(episode)
                seed += 1
                if options.episodes and seed - options.seed >= options.episodes:
                    break
                if self.leader is not None and self.leader.quits:
                    break
        self.interrupted = loop.cancelled

    def _log_info(self) -> dict[str, Any]:
        return {
            "controller": str(self.options.path.resolve()),
            "controller_sha256": sha256(self.options.path),
            "num_samples": self.num_samples,
            "temperature": self.temperature,
            "handover": self.options.handover,
        }

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
            "events": loop.events if loop else {},
        }


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
