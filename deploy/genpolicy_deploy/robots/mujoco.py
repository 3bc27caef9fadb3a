"""A simulated Panda as a real arm would appear: another process, in real time, over a socket.

The process is ``python -m genpolicy_sim.robot``, which documents the messages; nothing of the
simulator is imported here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from genpolicy.spec import Feature, GenpolicyError
from genpolicy_deploy.link import Link, LinkClosedError
from genpolicy_deploy.robots.base import Limits, RobotSpec, RobotState, Vector
from genpolicy_deploy.robots.config import override_limits

PROTOCOL = 1
CONNECT_TIMEOUT_S = 300.0  # the simulator compiles its scene, perhaps beside other work
RESET_TIMEOUT_S = 10.0
SILENCE_S = 0.1
TASKS = ("lift", "can", "square")  # with one arm
AXES = ("x", "y", "z", "rx", "ry", "rz", "gripper")

# The goals of an impedance controller, not the motion of the hand: a policy trained on 5 cm steps
# moves its goal by up to 15 cm from one control step to the next, and the hand follows softly.
# Wide enough that no action of the training range is altered inside the workspace. The table's
# surface is at z = 0.8 m; a goal may lie one step below it, as in training.
LIMITS = Limits(
    low=(-0.45, -0.60, 0.74, -3.2, -3.2, -3.2, -1.0),
    high=(0.45, 0.60, 1.60, 3.2, 3.2, 3.2, 1.0),
    velocity=(6.0,) * 3 + (80.0,) * 3 + (8.0,),
    acceleration=(240.0,) * 3 + (3200.0,) * 3 + (320.0,),
    jerk=(9600.0,) * 3 + (128000.0,) * 3 + (12800.0,),
    first_step=(0.06,) * 3 + (1.0,) * 3 + (0.25,),
)


class MujocoRobot:
    """Driver of the simulated robot.

    Args:
        limits: entries that replace those of ``LIMITS``.
        cube_range: Lift's: half the extent in x and y, m, of where the cube starts.
        lockstep: physics waits for commands, one control step each, instead of running in real
            time: exact, for tests.
        task: one of ``TASKS``: which scene.
        latency_s: from measuring to arriving here, in steps of 2 ms; time stamps tell the truth.
        jitter_s: what is added to it at random, at most.
        noise: standard deviation of what is added to every measured number, in its unit.
        loss: share of measurements that never arrive.

    Raises:
        GenpolicyError: limits that are none, or an option of another task.
    """

    def __init__(
        self,
        limits: Mapping[str, Any] | None = None,
        cube_range: tuple[float, float] | None = None,
        lockstep: bool = False,
        task: str = "lift",
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        noise: float = 0.0,
        loss: float = 0.0,
    ) -> None:
        args = ["--silence", str(SILENCE_S), "--task", task] + (["--lockstep"] if lockstep else [])
        if task not in TASKS:
            raise GenpolicyError(
                f"robot 'mujoco': task '{task}' is none of those with one arm: {', '.join(TASKS)}"
            )
        if cube_range is not None:
            if task != "lift":
                raise GenpolicyError(f"robot 'mujoco': cube_range is Lift's: remove it for {task}")
            args += ["--cube-range", *(str(float(half)) for half in cube_range)]
        args += _imperfections(lockstep, latency_s, jitter_s, noise, loss)
        self._limits = override_limits(LIMITS, limits, "robot 'mujoco'")
        self._link = Link("robot 'mujoco'", "genpolicy_sim.robot", args)
        self._episode = 0

    @property
    def pid(self) -> int | None:
        """Process id of the simulation while it runs."""
        return self._link.process.pid if self._link.process else None

    def connect(self) -> None:
        """See ``Robot``."""
        self._link.start()
        hello = json.loads(bytes(self._link.wait(CONNECT_TIMEOUT_S, "greeting")))
        if hello.get("protocol") != PROTOCOL:
            raise GenpolicyError(
                f"robot 'mujoco': its process speaks protocol {hello.get('protocol')}, this "
                f"driver {PROTOCOL}; install both from one version of genpolicy"
            )
        features = tuple(Feature(name, (dim,)) for name, dim in hello["observations"])
        self.spec = RobotSpec(
            name="mujoco",
            control_mode="osc_pose_delta",
            action_names=tuple(hello["action_names"]),
            observations=features,
            axes=AXES,
            limits=self._limits,
            rate_hz=float(hello["rate_hz"]),
            on_silence="holds its pose",
            silence_s=SILENCE_S,
            rotation=(3, 4, 5),
            workspace=(0, 1, 2),
        )
        self._prepare(features)

    def _prepare(self, features: tuple[Feature, ...]) -> None:
        size = sum(feature.dim for feature in features)
        axes = len(AXES)
        self._message = np.zeros(1, state_dtype(axes, size))
        self._message_bytes = self._message.view(np.uint8).data
        self._command = np.zeros(1, command_dtype(axes))
        self._command_bytes = self._command.view(np.uint8).data
        observation, start = {}, 0
        for feature in features:
            observation[feature.name] = self._message["obs"][0, start : start + feature.dim]
            start += feature.dim
        position = self._message["position"][0]
        self._state = RobotState(position, observation, effort=np.zeros(0))

    def reset(self, seed: int, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Put arm and cube where episode ``seed`` of the training environment starts."""
        self._episode += 1
        self._send(b"reset", seed)
        deadline = time.monotonic() + RESET_TIMEOUT_S
        while self._message["episode"][0] != self._episode:
            left = max(deadline - time.monotonic(), 0.0)
            self._take(self._link.wait(left, f"answer to reset within {RESET_TIMEOUT_S:g} s,"))

    def read(self) -> RobotState:
        """See ``Robot``."""
        message = self._link.receive_newest()
        if message is not None:
            self._take(message)
        return self._state

    def wait(self, timeout_s: float) -> RobotState:
        """The next measurement, waited for: for lockstep."""
        self._take(self._link.wait(timeout_s, "measurement"))
        return self._state

    def write(self, command: Vector) -> None:
        """See ``Robot``."""
        self._command["target"][0] = command
        self._send(b"target")

    def hold(self, command: Vector) -> None:
        """See ``Robot``: it is sent the braked goal."""
        self.write(command)

    def stop(self) -> None:
        """The simulated arm holds its pose."""
        if self.pid is not None and hasattr(self, "_command"):
            try:
                self._send(b"stop")
            except LinkClosedError:
                return  # nothing is left that could move

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self._link.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._link.close()

    def _send(self, kind: bytes, seed: int = 0) -> None:
        self._command["kind"], self._command["seed"] = kind, seed
        self._link.send(self._command_bytes)

    def _take(self, message: memoryview) -> None:
        self._message_bytes[:] = message
        state, got = self._state, self._message[0]
        state.seq, state.t_ns = int(got["seq"]), int(got["t_ns"])
        state.success = bool(got["success"])


def _imperfections(
    lockstep: bool, latency_s: float, jitter_s: float, noise: float, loss: float
) -> list[str]:
    """Arguments of the process for measurements that are late, noisy or lost."""
    given = {"latency_s": latency_s, "jitter_s": jitter_s, "noise": noise, "loss": loss}
    for name, value in given.items():
        if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
            raise GenpolicyError(
                f"robot 'mujoco': {name} = {value!r} must be a number from 0 to below 1"
            )
        if value and lockstep:
            raise GenpolicyError(f"robot 'mujoco': lockstep is exact: remove {name}")
    return [
        argument
        for name, value in given.items()
        for argument in (f"--{name.removesuffix('_s')}", str(float(value)))
    ]


def state_dtype(axes: int, obs: int) -> np.dtype:
    """What the robot sends every 2 ms (and after a reset)."""
    return np.dtype(
        [
            ("seq", "<i8"),
            ("t_ns", "<i8"),  # CLOCK_MONOTONIC
            ("episode", "<i8"),  # resets so far
            ("success", "<i8"),
            ("holding", "<i8"),  # 1 while it ignores goals: stopped, or no command for too long
            ("sim_time", "<f8"),
            ("position", "<f8", (axes,)),
            ("obs", "<f8", (obs,)),
        ]
    )


def command_dtype(axes: int) -> np.dtype:
    """What the robot takes: ``target``, ``reset`` or ``stop``."""
    return np.dtype([("kind", "S8"), ("seed", "<i8"), ("target", "<f8", (axes,))])
