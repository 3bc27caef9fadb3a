"""Any arm that LeRobot drives, through the four methods that its robots have.

LeRobot itself is never imported: it pins another torch. Its robot is built by a function of yours,
named ``module:function``, and is used as anything that has ``connect``, ``get_observation``,
``send_action`` and ``disconnect``, with ``action_features`` to tell its keys:

    # my_arm.py, on the PYTHONPATH
    from lerobot.robots.so101_follower import SO101Follower, SO101FollowerConfig
    def make(port): return SO101Follower(SO101FollowerConfig(port=port, id="black"))

Nothing bounds how long these methods take. One that hangs holds up this process only: the loop sees
that measurements grow old, and the process is killed when it does not end after a stop.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.device import DeviceSpec, DeviceState, Vector

MAX_RATE_HZ = 200.0
LOST_S = 0.5  # after so long without one command that was taken, the connection counts as lost


class LeRobotDevice:
    """Driver; see ``Device``. The arguments are the keys of its ``[driver]`` table.

    Args:
        joints: names; joint NAME is LeRobot's key ``NAME.pos``.
        stop: "hold" or "release": told to LeRobot's ``disable_torque_on_disconnect``, where the
            robot's config has that.
        factory: ``module:function`` that builds the robot.
        scale: per joint, rad (m where it slides) per unit of LeRobot's value: 0.01745329 for
            degrees. Negative turns the direction round.
        offset: per joint, LeRobot's value where the joint is at 0; 0 by default.
        arguments: of the function.

    Raises:
        GenpolicyError: a key with an impossible value.
    """

    def __init__(
        self,
        joints: Sequence[str],
        stop: str,
        factory: str,
        scale: Sequence[float],
        offset: Sequence[float] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec = DeviceSpec(
            "lerobot", tuple(joints), MAX_RATE_HZ, "what the robot behind LeRobot does by itself"
        )
        self._factory, self._arguments, self._stop = factory, dict(arguments or {}), stop
        self._keys = [f"{name}.pos" for name in joints]
        self._scale = _numbers("scale", scale, len(joints))
        self._offset = _numbers("offset", offset or [0.0] * len(joints), len(joints))
        if not all(self._scale):
            raise GenpolicyError("robot 'lerobot': driver.scale must not be zero")
        self._robot: Any = None
        self._values = np.zeros(len(joints))  # a measurement that lacks a joint changes nothing
        self._faults: list[str] = []  # of writing, told at the next read
        self._taken_ns = 0  # when a command was last taken

    def connect(self) -> None:
        """See ``Device``. Never calibrates, which LeRobot does at a keyboard."""
        robot = self._build()
        try:
            accepts = inspect.signature(robot.connect).parameters
            robot.connect(**({"calibrate": False} if "calibrate" in accepts else {}))
        except Exception as error:
            raise GenpolicyError(f"robot 'lerobot': does not connect, {_text(error)}") from error
        self._robot = robot
        if getattr(robot, "is_calibrated", True) is False:
            raise GenpolicyError("robot 'lerobot': is not calibrated; run lerobot-calibrate first")
        features = getattr(robot, "action_features", None)
        if features is not None and (missing := [k for k in self._keys if k not in features]):
            raise GenpolicyError(
                f"robot 'lerobot': has no '{missing[0]}'; its keys are "
                f"{', '.join(sorted(map(str, features)))}"
            )
        self._taken_ns = time.monotonic_ns()

    def _build(self) -> Any:
        module, _, name = self._factory.partition(":")
        try:
            make = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise GenpolicyError(
                f"robot 'lerobot': driver.factory = '{self._factory}' is not found ({error}); give "
                f"module:function, the module on the PYTHONPATH"
            ) from error
        try:
            robot = make(**self._arguments)
        except Exception as error:
            raise GenpolicyError(
                f"robot 'lerobot': '{self._factory}' fails, {_text(error)}"
            ) from error
        for method in ("connect", "get_observation", "send_action", "disconnect"):
            if not callable(getattr(robot, method, None)):
                raise GenpolicyError(
                    f"robot 'lerobot': what '{self._factory}' built has no {method}"
                )
        settings: Any = getattr(robot, "config", None)
        if hasattr(settings, "disable_torque_on_disconnect"):
            settings.disable_torque_on_disconnect = self._stop == "release"
        return robot

    def read(self, state: DeviceState) -> None:
        """See ``Device``. What LeRobot raises is a fault: its measurement was not had."""
        state.faults += self._faults
        self._faults.clear()
        asked_ns = time.monotonic_ns()
        try:
            values = self._robot.get_observation()
            for index, key in enumerate(self._keys):
                measured = _number(values, key)
                self._values[index] = (measured - self._offset[index]) * self._scale[index]
        except Exception as error:
            state.faults.append(f"lerobot: no measurement, {_text(error)}")
            return
        state.position[:] = self._values
        state.seq += 1
        state.t_ns = asked_ns

    def write(self, command: Vector) -> bool:
        """See ``Device``."""
        action = {
            key: value / scale + offset
            for key, value, scale, offset in zip(
                self._keys, command.tolist(), self._scale, self._offset, strict=True
            )
        }
        now = time.monotonic_ns()
        try:
            self._robot.send_action(action)
        except Exception as error:
            if now - self._taken_ns > LOST_S * 1e9:
                raise GenpolicyError(f"lerobot: takes no commands, {_text(error)}") from error
            self._faults.append(f"lerobot: a command was not taken, {_text(error)}")
            return False
        self._taken_ns = now
        return True

    def stop(self) -> None:
        """See ``Device``: what is left behind, ``disconnect`` does."""

    def close(self) -> None:
        """See ``Device``."""
        robot, self._robot = self._robot, None
        if robot is not None:
            try:
                robot.disconnect()
            except Exception as error:
                print(f"lerobot: does not disconnect, {_text(error)}")


def _number(values: Any, key: str) -> float:
    """A finite number of an observation: LeRobot's robots give floats, NumPy's or torch's."""
    value = values[key]
    if isinstance(value, bool | np.bool_ | str) or value is None:
        raise ValueError(f"'{key}' is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"'{key}' is {number}")
    return number


def _numbers(key: str, values: Sequence[float], count: int) -> list[float]:
    right = not isinstance(values, str) and len(values) == count
    if not right or not all(isinstance(v, Real) and math.isfinite(v) for v in values):
        raise GenpolicyError(f"robot 'lerobot': driver.{key} must be a list of {count} numbers")
    return [float(value) for value in values]


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
