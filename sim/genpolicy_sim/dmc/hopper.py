"""Hopper: a planar one-legged robot (Hopper-Stand)."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, kinematics, to_ctrl
from genpolicy_sim.dmc import Task, at_rest, load_model, make, random_joints, sensor
from genpolicy_sim.dmc.rewards import small_control, tolerance
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit

MAX_HEIGHT = 2.0  # m, as for standing: beyond the hopper's reach


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    torso: int  # body
    foot: int  # body
    touch: int  # toe, heel: in the sensor data
    height: float  # m of the torso above the foot from which the hopper stands


@njit(cache=True, nogil=True)
def stand_reward(height: float, control: Array, c: Constants) -> float:
    """In [0, 1]: 0.8 for standing, the rest for doing so without control.

    Args:
        height: m, of the torso's centre of mass above the foot's.
        control: ``[4]``.
        c: constants.
    """
    return tolerance(height, c.height, MAX_HEIGHT) * small_control(control)


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Positions without the distance travelled, velocities, log-scaled touch."""
    out[:6] = d.qpos[1:]
    out[6:13] = d.qvel
    out[13], out[14] = np.log1p(d.sensordata[c.touch]), np.log1p(d.sensordata[c.touch + 1])


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    height = d.xipos[c.torso, 2] - d.xipos[c.foot, 2]
    return stand_reward(height, action, c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, kinematics)


@cache
def stand_task() -> Task:
    """Hopper-Stand."""
    model = load_model("hopper")
    bodies = model.body("torso").id, model.body("foot").id
    return Task(
        name="hopper_stand",
        robot="hopper",
        model=model,
        substeps=4,
        features=(
            Feature("position", (6,), "m, rad"),
            Feature("velocity", (7,), "m/s, rad/s"),
            Feature("touch", (2,), "log(1 + N)"),
        ),
        loop=loop,
        constants=Constants(*bodies, sensor(model, "touch_toe"), height=0.6),
        draw=lambda rng, count: at_rest(model, random_joints(model, rng, count)),
        camera="cam0",
    )


def stand(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``hopper_stand``; options as ``dmc.make``."""
    return make(stand_task(), num_envs, **options)
