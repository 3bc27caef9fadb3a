"""A control loop to be killed: connects, moves joint 0 to and fro, and says so."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from genpolicy_deploy.robots.arm import ArmRobot


def main() -> None:
    given = json.loads(sys.stdin.readline())
    with ArmRobot(given["driver"], given["document"]) as robot:
        robot.reset(0)
        start = robot.read().position.copy()
        goal, said = start.copy(), False
        begin = time.monotonic()
        while True:
            elapsed = time.monotonic() - begin
            goal[0] = start[0] + 0.5 * np.sin(1.5 * elapsed)
            robot.write(goal)
            state = robot.read()
            state.faults.clear()
            if not said and state.position[0] > start[0] + 0.1:
                said = True
                print(robot.pid, flush=True)
            time.sleep(0.01)


if __name__ == "__main__":
    main()
