"""Fish: swim to a target with tail and fins (Fish-Swim)."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import mujoco
import numpy as np

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, kinematics, to_ctrl
from genpolicy_sim.dmc import Task, at_rest, load_model, make, unit
from genpolicy_sim.dmc.rewards import tolerance
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit

JOINTS = 0.2  # rad: the initial angles of tail and fins are uniform within this
TARGETS = (-0.4, -0.4, 0.1), (0.4, 0.4, 0.3)  # m: corners of the box where targets are


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    torso: int  # body
    mouth: int  # geom
    reach: float  # m between the middles of mouth and target that touch


@njit(cache=True, nogil=True)
def swim_reward(distance: float, upright: float, c: Constants) -> float:
    """In [0, 1]: 7/8 for the mouth at the target, the rest for being upright.

    Args:
        distance: m from mouth to target.
        upright: cosine of the torso's angle from the vertical.
        c: constants.
    """
    at_target = tolerance(distance, 0.0, c.reach, 2.0 * c.reach)
    return (7.0 * at_target + 0.5 * (upright + 1.0)) / 8.0


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Angles of tail and fins, uprightness, target seen from the mouth, velocities."""
    out[:7] = d.qpos[7:]
    out[7] = d.xmat[c.torso, 2, 2]
    to_target, frame = memo - d.geom_xpos[c.mouth], d.geom_xmat[c.mouth]
    for j in range(3):
        out[8 + j] = (
            to_target[0] * frame[0, j] + to_target[1] * frame[1, j] + to_target[2] * frame[2, j]
        )
    out[11:] = d.qvel


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    distance = np.sqrt(np.sum((memo - d.geom_xpos[c.mouth]) ** 2))
    return swim_reward(distance, d.xmat[c.torso, 2, 2], c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, kinematics)


def draw(model: mujoco.MjModel, rng: np.random.Generator, count: int) -> Array:
    """Initial states: any rotation, bent a little; and the target (x, y, z)."""
    qpos = np.tile(model.qpos0, (count, 1))
    qpos[:, 3:7] = unit(rng.standard_normal((count, 4)))
    qpos[:, 7:] = rng.uniform(-JOINTS, JOINTS, (count, 7))
    return at_rest(model, qpos, rng.uniform(*TARGETS, (count, 3)))


def show(model: mujoco.MjModel, target: Array) -> None:
    """Put the scene's target there."""
    model.geom("target").pos[:] = target


@cache
def swim_task() -> Task:
    """Fish-Swim."""
    model = load_model("fish")
    mouth, target = model.geom("mouth"), model.geom("target")
    return Task(
        name="fish_swim",
        robot="fish",
        model=model,
        substeps=10,
        features=(
            Feature("joint_angles", (7,), "rad"),
            Feature("upright", (1,), "cos"),
            Feature("target", (3,), "m"),
            Feature("velocity", (13,), "m/s, rad/s"),
        ),
        loop=loop,
        constants=Constants(model.body("torso").id, mouth.id, mouth.size[0] + target.size[0]),
        draw=lambda rng, count: draw(model, rng, count),
        camera="tracking_x",
        target_dim=3,
        show=show,
    )


def swim(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``fish_swim``; options as ``dmc.make``."""
    return make(swim_task(), num_envs, **options)
