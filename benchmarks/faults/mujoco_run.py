"""``genpolicy-deploy run`` on the simulated robot, which has no peer that could be asked.

    python mujoco_run.py GOALS PORT CONTROLLER --robot mujoco ...

Every goal that leaves for the simulation is written to the file GOALS (its time and seven axes, as
float64), and the observation ``object`` comes by UDP, as it does on the other arms.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from genpolicy_deploy import cli, robots
from genpolicy_deploy.robots.base import RobotState, Vector
from genpolicy_deploy.robots.mujoco import MujocoRobot
from genpolicy_deploy.robots.sensors import UdpSensor


class WatchedRobot(MujocoRobot):
    """The simulated robot, its goals written down and its object replaced."""

    def connect(self) -> None:
        """See ``Robot``."""
        self._goals = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._sensor = UdpSensor("object", int(sys.argv[2]), 10)
        self._sensor.open()
        super().connect()

    def reset(self, seed: int, cancelled: Callable[[], bool] = lambda: False) -> None:
        """See ``Robot``: with a packet of the sensor that is new."""
        super().reset(seed, cancelled)
        self._sensor.drain()
        while self._sensor.seq == 0 and not cancelled():
            time.sleep(0.005)
            self._sensor.poll([])

    def read(self) -> RobotState:
        """See ``Robot``: as old as the older of arm and sensor."""
        state = super().read()
        self._sensor.poll(state.faults)
        state.observation["object"][:] = self._sensor.value
        arm = self._message[0]
        state.seq = int(arm["seq"]) + self._sensor.seq
        state.t_ns = min(int(arm["t_ns"]), self._sensor.t_ns)
        return state

    def write(self, command: Vector) -> None:
        """See ``Robot``."""
        os.write(self._goals, np.array([time.monotonic(), *command]).tobytes())
        super().write(command)

    def hold(self, command: Vector) -> None:
        """See ``Robot``."""
        self.write(command)


def main() -> int:
    """Run."""
    known: dict[str, Any] = vars(robots)["_BUILT_IN"]
    known["mujoco"] = WatchedRobot
    return cli.main(["run", *sys.argv[3:]])


if __name__ == "__main__":
    sys.exit(main())
