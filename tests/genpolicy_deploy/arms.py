"""The Panda of assets/panda.xml as the tests of servo and kinematics configure it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from genpolicy_deploy.robots.arm_config import ArmConfig, Gripper, Workspace
from genpolicy_deploy.robots.base import Limits
from genpolicy_deploy.robots.mujoco import LIMITS as HAND_LIMITS

PANDA = Path(__file__).parents[2] / "assets" / "panda.xml"
JOINTS = (*(f"joint{i}" for i in range(1, 8)), "gripper")
HOME = np.array([0.0, 0.19634954, 0.0, -2.61799388, 0.0, 2.94159265, 0.78539816, 0.020833])
LIMITS = Limits(
    low=(-2.8, -1.7, -2.8, -3.0, -2.8, 0.0, -2.8, 0.0),
    high=(2.8, 1.7, 2.8, -0.1, 2.8, 3.7, 2.8, 0.04),
    velocity=(2.0,) * 7 + (0.2,),
    acceleration=(10.0,) * 7 + (4.0,),
    jerk=(500.0,) * 7 + (200.0,),
    first_step=(0.05,) * 7 + (0.005,),
)
WORKSPACE = Workspace((-0.3, -0.35, 0.817), (0.3, 0.35, 1.3), clearance=0.004)


def panda(**changes: Any) -> ArmConfig:
    entries = {
        "driver": "test",
        "options": {},
        "joints": JOINTS,
        "limits": LIMITS,
        "rate_hz": 100.0,
        "mode": "hand",
        "stop": "hold",
        "model": PANDA,
        "hand": "hand",
        "home": tuple(HOME),
        "hand_limits": HAND_LIMITS,
        "gripper": Gripper("gripper", 0.04, 0.0),
        "workspace": WORKSPACE,
        "observations": {},
    }
    return ArmConfig(**(entries | changes))
