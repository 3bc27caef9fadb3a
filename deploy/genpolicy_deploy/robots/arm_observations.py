"""What a controller observes of an arm, put together from measurements and from UDP sensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.arm_toml import JOINT_SOURCES, SOURCES, udp_source
from genpolicy_deploy.robots.base import Vector
from genpolicy_deploy.robots.sensors import UdpSensor
from genpolicy_deploy.rotations import quaternion

NEVER_NS = 1 << 62


def features(config: ArmConfig) -> dict[str, int]:
    """Sizes of the observations, ``{name: D}``."""
    sizes = SOURCES | dict.fromkeys(JOINT_SOURCES, len(config.joints))
    found = {name: udp_source(origin) for name, origin in config.observations.items()}
    return {
        name: udp[1] if udp else sizes[config.observations[name]] for name, udp in found.items()
    }


class Observations:
    """``values`` are written in place.

    - ``hand.position``: of the hand's site in the model's world, m.
    - ``hand.quaternion``: xyzw as robosuite's ``eef_quat``: of the flange, a quarter turn about
      its axis from the site; (1, 0, 0, 0) when the gripper points straight down.
    - ``gripper.position``: of robosuite's two fingers, ``q`` and ``-q`` of the gripper's joint.
    - ``joints.position``, ``joints.velocity``.
    """

    def __init__(self, config: ArmConfig) -> None:
        self.values: dict[str, Vector] = {
            name: np.zeros(dim) for name, dim in features(config).items()
        }
        self._gripper = config.joints.index(config.gripper.joint) if config.gripper else -1
        self._sensors: list[UdpSensor] = []
        self._measured: list[tuple[str, Vector]] = []  # (source, where it goes)
        for name, origin in config.observations.items():
            udp = udp_source(origin)
            if udp is None:
                self._measured.append((origin, self.values[name]))
            else:
                sensor = UdpSensor(name, *udp)
                self.values[name] = sensor.value
                self._sensors.append(sensor)

    def open(self) -> None:
        """Begin to listen to the sensors.

        Raises:
            GenpolicyError: a port is taken.
        """
        for sensor in self._sensors:
            sensor.open()

    def close(self) -> None:
        """Let go of the ports."""
        for sensor in self._sensors:
            sensor.close()

    def attach(self, record: Any) -> None:
        """Take measurements from ``record`` of ``state_dtype``, which is written in place."""
        self._hand, self._joints, self._velocity = (
            record[name] for name in ("hand", "joints", "velocity")
        )

    def drain(self) -> None:
        """Forget what the sensors sent so far."""
        for sensor in self._sensors:
            sensor.drain()

    def silent(self, faults: list[str]) -> UdpSensor | None:
        """A sensor from which nothing has come since ``drain``."""
        for sensor in self._sensors:
            sensor.poll(faults)
        return next((sensor for sensor in self._sensors if sensor.seq == 0), None)

    def update(self, faults: list[str]) -> tuple[int, int]:
        """Bring ``values`` up to date; (packets so far, monotonic ns of the oldest sensor's)."""
        for origin, value in self._measured:
            if origin == "hand.position":
                value[:] = self._hand[:3]
            elif origin == "hand.quaternion":
                w, x, y, z = quaternion(self._hand[3:].tolist())
                value[:] = w, z, -y, -x
            elif origin == "gripper.position":
                value[0] = self._joints[self._gripper]
                value[1] = -value[0]
            else:
                value[:] = self._joints if origin == "joints.position" else self._velocity
        packets, oldest_ns = 0, NEVER_NS
        for sensor in self._sensors:
            sensor.poll(faults)
            packets += sensor.seq
            oldest_ns = min(oldest_ns, sensor.t_ns)
        return packets, oldest_ns
