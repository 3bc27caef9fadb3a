"""The rules of an arm's process in virtual time, on joints that live in the test."""

from __future__ import annotations

import os
import socket
import time

import numpy as np
from genpolicy_deploy.robots.arm_channel import Channel
from genpolicy_deploy.robots.arm_messages import (
    GOAL,
    STATE,
    goal_dtype,
    message_kind,
    message_text,
    state_dtype,
)
from genpolicy_deploy.robots.arm_toml import parse
from genpolicy_deploy.robots.device import DeviceSpec, DeviceState
from genpolicy_deploy.robots.supervisor import Supervisor

NAMES = ("shoulder", "elbow")
RATE_HZ = 100.0
DT = 1.0 / RATE_HZ
PERIOD_NS = int(1e9 * DT)


def document(**changes) -> dict:
    """An arm of two joints, without a model."""
    return {
        "rate_hz": RATE_HZ,
        "mode": "joints",
        "joints": {
            "names": list(NAMES),
            "low": [-1.0, -2.0],
            "high": [1.0, 2.0],
            "velocity": [1.0, 2.0],
            "acceleration": [5.0, 10.0],
            "jerk": [100.0, 200.0],
            "first_step": [0.2, 0.2],
        },
        "observations": {"q": "joints.position"},
    } | changes


class VirtualClock:
    """Ticks as fast as they are asked for; ``late_s`` is added before the next one."""

    def __init__(self) -> None:
        self.period_ns = PERIOD_NS
        self.now = time.monotonic_ns()
        self.late_s = 0.0

    def wait(self) -> int:
        self.now += self.period_ns + int(self.late_s * 1e9)
        self.late_s = 0.0
        return self.now


class TestDevice:
    """Joints that are where they are told to be, until a test breaks something."""

    __test__ = False
    spec = DeviceSpec("bench", NAMES, 1000.0, "stays", reports_effort=True)

    def __init__(self, clock: VirtualClock, position) -> None:
        self.clock = clock
        self.position = np.array(position, np.float64)
        self.effort = np.zeros(2)
        self.written: list[np.ndarray] = []
        self.reads = self.refused = 0
        self.silent = self.stuck = self.deaf = False
        self.read_error: Exception | None = None
        self.write_error: Exception | None = None
        self.faults: list[str] = []

    def read(self, state: DeviceState) -> None:
        self.reads += 1
        if self.read_error:
            raise self.read_error
        state.faults += self.faults
        self.faults = []
        if self.silent:
            return
        state.position[:], state.effort[:] = self.position, self.effort
        state.seq += 1
        state.t_ns = self.clock.now

    def write(self, command: np.ndarray) -> bool:
        if self.write_error:
            self.refused += 1
            raise self.write_error
        if self.deaf:
            return False
        self.written.append(command.copy())
        if not self.stuck:
            self.position[:] = command
        return True


class Bench:
    """Supervisor, device, and the loop's end of the connection."""

    def __init__(self, position=(0.0, 0.0), **changes) -> None:
        self.clock = VirtualClock()
        self.device = TestDevice(self.clock, position)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.connection, self._theirs = ours, theirs
        reading, self.stop_fd = os.pipe()
        channel = Channel(theirs, reading)
        channel.layout(2, 2, 2)
        state = DeviceState.of(self.device.spec)
        self.device.read(state)
        config = parse("lerobot", document(**changes))
        self.supervisor = Supervisor(config, self.device, channel, self.clock)
        self.supervisor.begin(state)
        self._order = np.zeros(1, goal_dtype(2))
        self.state = np.zeros(1, state_dtype(2, 2, 2))[0]
        self.faults: list[str] = []

    def order(self, kind: bytes, goal=(0.0, 0.0), episode: int = 1, age_s: float = 0.0) -> None:
        order = self._order[0]
        order["kind"], order["goal"], order["episode"] = kind, goal, episode
        order["seq"] += 1
        order["t_ns"] = self.clock.now - int(age_s * 1e9)
        self.connection.send(self._order.tobytes())

    def tick(self, ticks: int = 1, goal=None) -> None:
        """Some ticks; a goal is repeated before each, as the loop does. Ends where it stops."""
        for _ in range(ticks):
            if self.ended:
                return
            if goal is not None:
                self.order(GOAL, goal)
            self.supervisor.tick()
            self._drain()

    @property
    def ended(self) -> bool:
        return self.supervisor.ended

    def _drain(self) -> None:
        while True:
            try:
                message = memoryview(self.connection.recv(65536))
            except BlockingIOError:
                return
            if message_kind(message) == STATE:
                self.state = np.frombuffer(message, self.state.dtype)[0]
            else:
                self.faults.append(message_text(message))

    @property
    def path(self) -> np.ndarray:
        """Everything written, ``[n, 2]``."""
        return np.array(self.device.written).reshape(-1, 2)

    def check_limits(self, rest_last: bool = True) -> None:
        """What was written obeys velocity and acceleration, with rest before and after."""
        path = self.path
        assert len(path) > 2
        path = np.concatenate([path[:1]] * 2 + [path] + [path[-1:]] * (2 * rest_last))
        velocity = np.diff(path, axis=0) / DT
        assert (np.abs(velocity) <= np.array([1.0, 2.0]) * (1 + 1e-5)).all()
        acceleration = np.diff(velocity, axis=0) / DT
        assert (np.abs(acceleration) <= np.array([5.0, 10.0]) * (1 + 1e-5)).all()

    def close(self) -> None:
        self.connection.close()
        self._theirs.close()
