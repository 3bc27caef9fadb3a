"""Reacher: a two-link planar arm touches a target (Reacher-Easy, -Hard)."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import mujoco
import numpy as np

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, nothing, to_ctrl
from genpolicy_sim.dmc import Task, at_rest, load_model, make, random_joints
from genpolicy_sim.dmc.rewards import tolerance
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit

TARGET_SIZE = {"easy": 0.05, "hard": 0.015}  # m
DISTANCE = (0.05, 0.2)  # m from the shoulder to the target


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    upper: float  # m from the shoulder to the wrist
    lower: float  # m from the wrist to the finger
    reach: float  # m between the middles of finger and target that touch


@njit(cache=True, nogil=True)
def reach_reward(distance: float, c: Constants) -> float:
    """1 while the finger touches the target; ``distance`` in m between their middles."""
    return tolerance(distance, 0.0, c.reach)


@njit(cache=True, nogil=True)
def to_target(qpos: Array, c: Constants, target: Array) -> tuple[float, float]:
    """Vector (x, y) in m from the finger to the target."""
    first, second = qpos[0], qpos[0] + qpos[1]
    x = c.upper * np.cos(first) + c.lower * np.cos(second)
    y = c.upper * np.sin(first) + c.lower * np.sin(second)
    return target[0] - x, target[1] - y


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Joint angles, vector from the finger to the target, joint velocities."""
    out[:2] = d.qpos
    out[2], out[3] = to_target(d.qpos, c, memo)
    out[4:] = d.qvel


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    dx, dy = to_target(d.qpos, c, memo)
    return reach_reward(np.hypot(dx, dy), c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, nothing)


def draw(model: mujoco.MjModel, rng: np.random.Generator, count: int) -> Array:
    """Initial states: any posture; and the target (x, y), denser towards the shoulder."""
    angle = rng.uniform(0.0, 2.0 * np.pi, (count, 1))
    target = rng.uniform(*DISTANCE, (count, 1)) * np.hstack([np.sin(angle), np.cos(angle)])
    return at_rest(model, random_joints(model, rng, count), target)


def show(model: mujoco.MjModel, target: Array) -> None:
    """Put the scene's target there."""
    model.geom("target").pos[:2] = target


@cache
def reach_task(level: str) -> Task:
    """Reacher-Easy and Reacher-Hard."""
    model = load_model("reacher")
    model.geom("target").size[0] = TARGET_SIZE[level]  # touches nothing, is only seen
    upper, lower = model.body("hand").pos[0], model.body("finger").pos[0]
    reach = TARGET_SIZE[level] + model.geom("finger").size[0]
    return Task(
        name=f"reacher_{level}",
        robot="reacher",
        model=model,
        substeps=1,
        features=(
            Feature("position", (2,), "rad"),
            Feature("to_target", (2,), "m"),
            Feature("velocity", (2,), "rad/s"),
        ),
        loop=loop,
        constants=Constants(upper, lower, reach),
        draw=lambda rng, count: draw(model, rng, count),
        camera="fixed",
        target_dim=2,
        show=show,
    )


def easy(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``reacher_easy``; options as ``dmc.make``."""
    return make(reach_task("easy"), num_envs, **options)


def hard(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``reacher_hard``; options as ``dmc.make``."""
    return make(reach_task("hard"), num_envs, **options)
