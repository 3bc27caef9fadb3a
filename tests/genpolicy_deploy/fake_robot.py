"""A robot that lives in the test: it goes where it is told at once, and fails when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from genpolicy_deploy.robots.base import Limits, RobotSpec, RobotState

from genpolicy.spec import TaskSpec

AXES = ("x", "y", "z", "rx", "ry", "rz", "gripper")


class FakeRobot:
    """``inject(robot, state, read_count)`` may damage every measurement before it is read."""

    def __init__(
        self,
        task: TaskSpec,
        inject: Callable | None = None,
        effort: bool = False,
        brakes_itself: bool = False,
    ):
        n = len(AXES)
        self.spec = RobotSpec(
            name="fake",
            control_mode=task.control_mode,
            action_names=task.action.names,
            observations=task.observations,
            axes=AXES,
            limits=Limits(
                low=(-1.0,) * n,
                high=(1.0,) * n,
                velocity=(4.0,) * n,
                acceleration=(100.0,) * n,
                jerk=(4000.0,) * n,
                first_step=(0.8,) * n,
                effort=(10.0,) * n if effort else (),
            ),
            rate_hz=200.0,
            on_silence="stays",
            silence_s=1.0,
            rotation=(3, 4, 5),
            brakes_itself=brakes_itself,
        )
        self.inject = inject or (lambda robot, state, count: None)
        self.commands: list[np.ndarray] = []
        self.calls: list[str] = []
        self.stops = 0
        self.reads = 0
        self._effort = np.zeros(n if effort else 0)
        self._task = task
        self.frozen = False

    def connect(self) -> None:
        self.reset(0)

    def reset(self, seed: int, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._rng = np.random.default_rng(seed)
        self._state = RobotState(np.zeros(len(AXES)), {}, self._effort, seq=0)
        self._measure()

    def _measure(self) -> None:
        state = self._state
        state.seq += 1
        state.t_ns = time.monotonic_ns()
        state.observation = {f.name: self._rng.normal(size=f.dim) for f in self._task.observations}
        if self.commands:
            state.position = self.commands[-1].copy()

    def read(self) -> RobotState:
        self.reads += 1
        if not self.frozen:
            self._measure()
        self.inject(self, self._state, self.reads)
        return self._state

    def write(self, command: np.ndarray) -> None:
        self.calls.append("write")
        self.commands.append(command.copy())

    def hold(self, command: np.ndarray) -> None:
        self.calls.append("hold")
        if not self.spec.brakes_itself:
            self.commands.append(command.copy())

    def stop(self) -> None:
        self.calls.append("stop")
        self.stops += 1

    def __enter__(self):
        self.connect()
        return self

    def __exit__(self, *args) -> None:
        self.stop()
