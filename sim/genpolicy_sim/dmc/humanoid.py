"""Humanoid: get up and stand still (Humanoid-Stand)."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, sensors, to_ctrl
from genpolicy_sim.dmc import (
    Task,
    at_rest,
    collision_free,
    load_model,
    make,
    random_joints,
    sensor,
)
from genpolicy_sim.dmc.rewards import LINEAR, small_control, tolerance
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit

LIMBS = ("left_hand", "left_foot", "right_hand", "right_foot")


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    torso: int  # body
    head: int  # body
    limbs: NDArray[np.intp]  # [4] bodies
    velocity: int  # of the centre of mass, in the sensor data
    height: float  # m, of the head when standing
    upright: float  # cosine of the torso's angle from the vertical that is upright enough
    drift: float  # m/s where a tenth of the reward for staying in place is left


@njit(cache=True, nogil=True)
def stand_reward(
    height: float, upright: float, velocity: Array, control: Array, c: Constants
) -> float:
    """In [0, 1]: head high, torso upright, body in place, little control.

    Args:
        height: m, of the head.
        upright: cosine of the torso's angle from the vertical.
        velocity: ``[2 or 3]`` m/s, of the centre of mass; the two horizontal ones count.
        control: ``[21]``.
        c: constants.
    """
    standing = tolerance(height, c.height, np.inf, c.height / 4.0)
    straight = tolerance(upright, c.upright, np.inf, c.upright + 1.0, LINEAR, 0.0)
    still_x = tolerance(velocity[0], 0.0, 0.0, c.drift)
    still_y = tolerance(velocity[1], 0.0, 0.0, c.drift)
    return small_control(control) * (standing * straight) * ((still_x + still_y) / 2.0)


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Joint angles, head height, hands and feet, vertical and velocity, all seen from the torso.

    The velocities are the last features: of the centre of mass, in the world, and of all joints.
    """
    frame = d.xmat[c.torso]
    out[:21] = d.qpos[7:]
    out[21] = d.xpos[c.head, 2]
    for k in range(4):
        limb = d.xpos[c.limbs[k]] - d.xpos[c.torso]
        for j in range(3):
            out[22 + 3 * k + j] = (
                limb[0] * frame[0, j] + limb[1] * frame[1, j] + limb[2] * frame[2, j]
            )
    out[34:37] = frame[2]
    out[37:40] = d.sensordata[c.velocity : c.velocity + 3]
    out[40:] = d.qvel


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    velocity = d.sensordata[c.velocity : c.velocity + 3]
    upright = d.xmat[c.torso, 2, 2]
    return stand_reward(d.xpos[c.head, 2], upright, velocity, action, c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, sensors)


def constants(model: mujoco.MjModel) -> Constants:
    """The task's constants, from its scene."""
    return Constants(
        torso=model.body("torso").id,
        head=model.body("head").id,
        limbs=np.array([model.body(name).id for name in LIMBS]),
        velocity=sensor(model, "torso_subtreelinvel"),
        height=1.4,
        upright=0.9,
        drift=2.0,
    )


@cache
def stand_task() -> Task:
    """Humanoid-Stand."""
    model = load_model("humanoid")
    propose = partial(random_joints, model)
    return Task(
        name="humanoid_stand",
        robot="humanoid",
        model=model,
        substeps=5,
        features=(
            Feature("joint_angles", (21,), "rad"),
            Feature("head_height", (1,), "m"),
            Feature("extremities", (12,), "m"),
            Feature("torso_vertical", (3,), "cos"),
            Feature("com_velocity", (3,), "m/s"),
            Feature("velocity", (27,), "m/s, rad/s"),
        ),
        loop=loop,
        constants=constants(model),
        draw=lambda rng, count: at_rest(model, collision_free(model, propose, rng, count)),
        camera="side",
    )


def stand(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``humanoid_stand``; options as ``dmc.make``."""
    return make(stand_task(), num_envs, **options)
