"""An arm as the control loop sees it: a ``Robot`` whose driver lives in a process of its own.

Goals go to that process and its newest measurement comes back (``arm_process``); numbers of other
programs come by UDP (``sensors``). The time of a measurement is that of its oldest part, so that
whichever source falls silent, the loop's watchdog sees it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from genpolicy.spec import Feature, GenpolicyError
from genpolicy_deploy.link import Link, LinkClosedError
from genpolicy_deploy.robots.arm_messages import (
    FAULT,
    GOAL,
    HOLD,
    START,
    STATE,
    STOP,
    STOPPED,
    goal_dtype,
    message_kind,
    message_text,
    state_dtype,
)
from genpolicy_deploy.robots.arm_observations import Observations, features
from genpolicy_deploy.robots.arm_toml import parse
from genpolicy_deploy.robots.base import Limits, RobotSpec, RobotState, Vector

CONNECT_TIMEOUT_S = 30.0
START_TIMEOUT_S = 60.0  # homing included; the arm's process gives up earlier
SENSOR_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 2.0  # beyond the time that braking takes
_POLL_S = 0.005
ACTION_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")  # of osc_pose_delta


class ArmRobot:
    """A real arm, or its simulated peer: the driver cannot tell and neither can the loop.

    Args:
        driver: a name of ``drivers.DRIVERS``.
        options: the arm's TOML document, without ``robot``.
        source: its file.

    Raises:
        GenpolicyError: a document that does not describe an arm.
    """

    def __init__(self, driver: str, options: Mapping[str, Any], source: Path | None = None) -> None:
        self.config = parse(driver, options, source)
        try:
            self._document = json.dumps(
                {"driver": driver, "options": dict(options), "source": str(source or "")}
            ).encode()
        except TypeError as error:
            raise GenpolicyError(
                f"{source or driver}: a value of no known type, {error}"
            ) from error
        self._link = Link(f"robot '{driver}'", "genpolicy_deploy.robots.arm_process")
        self._observations = Observations(self.config)
        self._stop_fd: int | None = None  # the writing end of the pipe that says stop
        self._stopped: str | None = None  # why the arm's process ended, if it has said so
        self._episode = 0
        self._faults: list[str] = []
        self._got_bytes = memoryview(b"")  # no measurement is understood before the greeting
        self._sent = np.zeros(1, goal_dtype(len(self.config.axes)))
        self._sent_bytes = self._sent.view(np.uint8).data

    @property
    def pid(self) -> int | None:
        """Process id of the arm's process while it runs."""
        return self._link.process.pid if self._link.process else None

    def connect(self) -> None:
        """See ``Robot``."""
        self._observations.open()
        theirs, self._stop_fd = os.pipe()
        try:
            self._link.start(["--stop-fd", str(theirs)], [theirs])
        finally:
            os.close(theirs)
        self._stopped = None
        self._link.send(self._document)
        hello = json.loads(bytes(self._link.wait(CONNECT_TIMEOUT_S, "greeting")))
        if "error" in hello:
            raise GenpolicyError(hello["error"])
        self._prepare(hello["effort"])
        self.spec = self._describe(hello["on_silence"])

    def _describe(self, on_silence: str) -> RobotSpec:
        config = self.config
        hand = config.mode == "hand"
        limits = config.hand_limits if hand and config.hand_limits else config.limits
        return RobotSpec(
            name=config.driver,
            control_mode="osc_pose_delta" if hand else "joint_position",
            action_names=ACTION_NAMES[: len(config.axes)] if hand else config.joints,
            observations=tuple(Feature(name, (dim,)) for name, dim in features(config).items()),
            axes=config.axes,
            # The arm's process watches the effort, which is of joints, in every exchange.
            limits=Limits(**(vars(limits) | {"effort": ()})),
            rate_hz=config.rate_hz,
            on_silence=on_silence,
            silence_s=config.silence_s,
            rotation=(3, 4, 5) if hand else (),
            workspace=(0, 1, 2) if hand else (),
            grippers=self._grippers(),
            brakes_itself=True,
        )

    def _grippers(self) -> tuple[int, ...]:
        if self.config.gripper is None:
            return ()
        hand = self.config.mode == "hand"
        return (6,) if hand else (self.config.joints.index(self.config.gripper.joint),)

    def _prepare(self, effort: int) -> None:
        axes, joints = len(self.config.axes), len(self.config.joints)
        self._got = np.zeros(1, state_dtype(axes, joints, effort))
        self._got_bytes = self._got.view(np.uint8).data
        got = self._got[0]
        self._observations.attach(got)
        self._state = RobotState(
            got["position"],
            self._observations.values,
            got["effort"] if self.config.mode == "joints" else np.zeros(0),
            joints=got["joints"],
            joint_command=got["command"],
            faults=self._faults,
        )

    def reset(self, seed: int, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Rest, at home where the arm has one, with measurements that are newer than that.

        Ends early, the arm braking, as soon as ``cancelled()``.

        Raises:
            GenpolicyError: the arm did not get there, or a sensor is silent.
        """
        self._episode += 1
        self._sent["episode"] = self._episode
        self._insist(START)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not cancelled():
            self._receive()
            if self._got["episode"][0] == self._episode:
                break
            if time.monotonic() > deadline:
                raise GenpolicyError(
                    f"{self._link.name}: the arm did not come to rest within {START_TIMEOUT_S:g} s"
                )
            time.sleep(_POLL_S)
        else:
            self._insist(HOLD)
            return
        self._await_sensors(cancelled)
        self._receive()

    def _await_sensors(self, cancelled: Callable[[], bool]) -> None:
        self._observations.drain()
        deadline = time.monotonic() + SENSOR_TIMEOUT_S
        while (silent := self._observations.silent(self._faults)) and not cancelled():
            if time.monotonic() > deadline:
                raise GenpolicyError(
                    f"observation '{silent.name}': nothing came on UDP port {silent.port} for "
                    f"{SENSOR_TIMEOUT_S:g} s; does the program that sends it run?"
                )
            self._receive()
            time.sleep(_POLL_S)

    def read(self) -> RobotState:
        """See ``Robot``."""
        self._receive()
        state, got = self._state, self._got[0]
        sensors, oldest_ns = self._observations.update(state.faults)
        state.seq = int(got["seq"]) + sensors  # grows with every source
        state.t_ns = min(int(got["t_ns"]), oldest_ns)
        state.blocked = int(got["blocked"])
        return state

    def write(self, command: Vector) -> None:
        """See ``Robot``."""
        self._sent["goal"][0] = command
        self._send(GOAL)

    def hold(self, command: Vector) -> None:
        """See ``Robot``: the joints brake, ``command`` is not needed."""
        self._send(HOLD)

    def stop(self) -> None:
        """Brake, the driver's own stop, and the end of its process; waits for it, some seconds.

        A process that does not end by then hangs in its driver and is killed: what the arm does
        then is what ``RobotSpec.on_silence`` says.
        """
        if self.pid is not None:
            with contextlib.suppress(GenpolicyError):
                self._send(STOP)
            self._pull()
            deadline = time.monotonic() + self.config.braking_s() + STOP_TIMEOUT_S
            with contextlib.suppress(GenpolicyError):
                while self._stopped is None and time.monotonic() < deadline:
                    self._receive()
                    time.sleep(_POLL_S)
        self._pull()
        self._link.close(STOP_TIMEOUT_S)
        self._observations.close()

    def _pull(self) -> None:
        """Say stop by the pipe, which no queue can hold up."""
        if self._stop_fd is not None:
            os.close(self._stop_fd)
            self._stop_fd = None

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _insist(self, kind: bytes) -> None:
        """Send what may not get lost in a queue that is full: outside the loop only."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not self._send(kind):
            if time.monotonic() > deadline:
                raise GenpolicyError(f"{self._link.name}: its process takes no orders")
            time.sleep(_POLL_S)

    def _send(self, kind: bytes) -> bool:
        if self._stopped is not None:
            return True  # the arm rests for good; ``read`` says why
        sent = self._sent[0]
        sent["kind"], sent["t_ns"] = kind, time.monotonic_ns()
        sent["seq"] += 1
        try:
            return self._link.send(self._sent_bytes)
        except LinkClosedError:
            self._receive()  # it may have said why
            raise

    def _receive(self) -> None:
        """Take everything that waits: every sentence, and the newest measurement."""
        if self._stopped is not None:
            raise GenpolicyError(f"{self._link.name}: {self._stopped}")
        while (message := self._link.receive()) is not None:
            kind = message_kind(message)
            if kind == STATE and len(message) == len(self._got_bytes):
                self._got_bytes[:] = message
            elif kind == FAULT:
                self._faults.append(message_text(message))
            elif kind == STOPPED:
                self._stopped = message_text(message)
                raise GenpolicyError(f"{self._link.name}: {self._stopped}")
