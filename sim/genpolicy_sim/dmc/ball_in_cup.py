"""Ball in cup: swing a ball on a string into the cup that it hangs from (BallInCup-Catch)."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import mujoco
import numpy as np

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, kinematics, to_ctrl
from genpolicy_sim.dmc import Task, at_rest, collision_free, load_model, make
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit

BALL_X, BALL_Z = (-0.2, 0.2), (0.2, 0.5)  # m from the ball's place in the scene: where it starts


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    ball: int  # body
    target: int  # site in the cup
    room_x: float  # m, how far from the target's middle the ball's may be
    room_z: float  # m


@njit(cache=True, nogil=True)
def catch_reward(dx: float, dz: float, c: Constants) -> float:
    """1 while the ball is in the cup; ``dx``, ``dz`` in m from the target to the ball."""
    return 1.0 if abs(dx) < c.room_x and abs(dz) < c.room_z else 0.0


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Positions and velocities of cup and ball."""
    out[:4] = d.qpos
    out[4:] = d.qvel


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    target, ball = d.site_xpos[c.target], d.xpos[c.ball]
    return catch_reward(ball[0] - target[0], ball[2] - target[2], c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, kinematics)


def propose(rng: np.random.Generator, count: int) -> Array:
    """Positions ``[count, 4]``: the cup in its place, the ball anywhere around it."""
    qpos = np.zeros((count, 4))
    qpos[:, 2], qpos[:, 3] = rng.uniform(*BALL_X, count), rng.uniform(*BALL_Z, count)
    return qpos


def constants(model: mujoco.MjModel) -> Constants:
    """The task's constants, from its scene."""
    ball, target = model.geom("ball"), model.site("target")
    room_x, _, room_z = target.size - ball.size[0]
    return Constants(model.body("ball").id, target.id, room_x, room_z)


@cache
def catch_task() -> Task:
    """BallInCup-Catch."""
    model = load_model("ball_in_cup")
    return Task(
        name="ball_in_cup_catch",
        robot="ball_in_cup",
        model=model,
        substeps=10,
        features=(Feature("position", (4,), "m"), Feature("velocity", (4,), "m/s")),
        loop=loop,
        constants=constants(model),
        draw=lambda rng, count: at_rest(model, collision_free(model, propose, rng, count)),
        camera="cam0",
    )


def catch(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``ball_in_cup_catch``; options as ``dmc.make``."""
    return make(catch_task(), num_envs, **options)
