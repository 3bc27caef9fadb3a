"""Walker: a planar biped (Walker-Walk)."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, sensors, to_ctrl
from genpolicy_sim.dmc import Task, at_rest, load_model, make, random_joints, sensor
from genpolicy_sim.dmc.rewards import LINEAR, tolerance
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    torso: int  # body
    velocity: int  # of the centre of mass, in the sensor data
    height: float  # m, of the torso when standing
    goal: float  # m/s


@njit(cache=True, nogil=True)
def walk_reward(height: float, upright: float, speed: float, c: Constants) -> float:
    """In [0, 1]: standing, times walking at the wanted speed, of which standing still has a part.

    Args:
        height: m, of the torso.
        upright: cosine of the torso's angle from the vertical.
        speed: m/s forward.
        c: constants.
    """
    standing = tolerance(height, c.height, np.inf, c.height / 2.0)
    stand = (3.0 * standing + (1.0 + upright) / 2.0) / 4.0
    move = tolerance(speed, c.goal, np.inf, c.goal / 2.0, LINEAR, 0.5)
    return stand * (5.0 * move + 1.0) / 6.0


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Directions of all bodies in the plane, torso height, velocities."""
    for body in range(1, 8):
        out[2 * body - 2], out[2 * body - 1] = d.xmat[body, 0, 0], d.xmat[body, 0, 2]
    out[14] = d.xpos[c.torso, 2]
    out[15:] = d.qvel


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    upright, speed = d.xmat[c.torso, 2, 2], d.sensordata[c.velocity]
    return walk_reward(d.xpos[c.torso, 2], upright, speed, c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, sensors)


@cache
def walk_task() -> Task:
    """Walker-Walk."""
    model = load_model("walker")
    places = model.body("torso").id, sensor(model, "torso_subtreelinvel")
    return Task(
        name="walker_walk",
        robot="walker",
        model=model,
        substeps=10,
        features=(
            Feature("orientations", (14,), "cos, sin"),
            Feature("height", (1,), "m"),
            Feature("velocity", (9,), "m/s, rad/s"),
        ),
        loop=loop,
        constants=Constants(*places, height=1.2, goal=1.0),
        draw=lambda rng, count: at_rest(model, random_joints(model, rng, count)),
        camera="side",
    )


def walk(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``walker_walk``; options as ``dmc.make``."""
    return make(walk_task(), num_envs, **options)
