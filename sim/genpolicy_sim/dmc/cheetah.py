"""Cheetah: a planar runner with two legs (Cheetah-Run)."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, nothing, to_ctrl
from genpolicy_sim.dmc import Task, at_rest, load_model, make
from genpolicy_sim.dmc.rewards import LINEAR, tolerance
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit

FALL = 200  # timesteps in which the cheetah falls to the ground before an episode


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    levers: Array  # [7, 2], as ``levers`` returns them
    goal: float  # m/s


@njit(cache=True, nogil=True)
def run_reward(speed: float, c: Constants) -> float:
    """In [0, 1], proportional to the ``speed`` in m/s, full from the goal on."""
    return tolerance(speed, c.goal, np.inf, c.goal, LINEAR, 0.0)


@njit(cache=True, nogil=True)
def com_speed(qpos: Array, qvel: Array, levers: Array) -> float:
    """Forward velocity of the centre of mass in m/s."""
    speed = qvel[0] + _turning(qpos[2], qvel[2], levers[0])
    for leg in (3, 6):
        angle, rate = qpos[2], qvel[2]
        for joint in range(leg, leg + 3):
            angle += qpos[joint]
            rate += qvel[joint]
            speed += _turning(angle, rate, levers[joint - 2])
    return speed


@njit(cache=True, nogil=True)
def _turning(angle: float, rate: float, lever: Array) -> float:
    """Forward velocity of the end of a ``lever [2]`` (x, z) that turns about y."""
    return rate * (lever[1] * np.cos(angle) - lever[0] * np.sin(angle))


def levers(model: mujoco.MjModel) -> Array:
    """``[7, 2]`` (x, z) in m, fixed to each body: their sum, turned, places the centre of mass.

    A body carries its own mass and, at their joints, those of the bodies behind it.
    """
    moment = model.body_mass[:, None] * model.body_ipos
    for body in range(2, model.nbody):
        parent = model.body_parentid[body]
        moment[parent] += model.body_subtreemass[body] * model.body_pos[body]
    return np.ascontiguousarray(moment[1:, [0, 2]] / model.body_subtreemass[1])


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Positions without the distance travelled, velocities."""
    out[:8] = d.qpos[1:]
    out[8:] = d.qvel


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    return run_reward(com_speed(d.qpos, d.qvel, c.levers), c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, nothing)


def propose(model: mujoco.MjModel, rng: np.random.Generator, count: int) -> Array:
    """Positions ``[count, 9]`` before falling: uniform in the ranges of the joints that have one.

    Unlike elsewhere in the suite, the torso's angle, which has none, is not random.
    """
    limited = model.jnt_limited.astype(bool)
    qpos = np.zeros((count, model.nq))
    low, high = model.jnt_range[limited].T
    qpos[:, limited] = rng.uniform(low, high, (count, len(low)))
    return qpos


def fall(model: mujoco.MjModel, qpos: Array) -> tuple[Array, Array]:
    """Positions and velocities ``[n, 9]`` after falling from ``qpos [n, 9]``.

    As in the suite, the first timestep's forces are those of the model's default pose.
    """
    qvel = np.zeros_like(qpos)

    def fall_each(rows: NDArray[np.intp]) -> None:
        data = mujoco.MjData(model)
        for i in rows:
            mujoco.mj_resetData(model, data)
            mujoco.mj_forward(model, data)
            data.qpos[:] = qpos[i]
            mujoco.mj_step2(model, data)
            mujoco.mj_step(model, data, FALL - 1)
            qpos[i], qvel[i] = data.qpos, data.qvel

    qpos = qpos.copy()
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(fall_each, np.array_split(np.arange(len(qpos)), cores)))
    return qpos, qvel


@cache
def run_task() -> Task:
    """Cheetah-Run."""
    model = load_model("cheetah")
    return Task(
        name="cheetah_run",
        robot="cheetah",
        model=model,
        substeps=1,
        features=(Feature("position", (8,), "m, rad"), Feature("velocity", (9,), "m/s, rad/s")),
        loop=loop,
        constants=Constants(levers(model), goal=10.0),
        draw=lambda rng, count: at_rest(model, propose(model, rng, count)),
        camera="side",
        settle=partial(fall, model),
    )


def run(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``cheetah_run``; options as ``dmc.make``."""
    return make(run_task(), num_envs, **options)
