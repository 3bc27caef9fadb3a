"""Gymnasium's v5 locomotion tasks: hopper, walker2d, halfcheetah and ant, rule for rule."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from importlib.resources import files
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numba import njit

from genpolicy.spec import ActionSpec, Feature, TaskSpec
from genpolicy_sim.batch_env import BatchEnv
from genpolicy_sim.compiled_sim import (
    CompiledSim,
    CompiledTask,
    Initial,
    advance,
    nothing,
    to_ctrl,
)
from genpolicy_sim.episodes import Array


class Runner(NamedTuple):
    """Constants of a planar runner; healthy is strictly between the bounds."""

    dt: float  # s per control step
    ctrl_cost: float  # per square of control
    healthy_reward: float  # per step
    z_low: float  # m, height of the torso
    z_high: float
    angle_low: float  # rad, pitch of the torso
    angle_high: float
    state_limit: float  # on all other coordinates and all velocities
    velocity_limit: float  # observed velocities are clipped to it
    terminates: bool


@njit(cache=True, nogil=True)
def control_cost(action: Array, weight: float) -> float:
    """Weighted sum of squares, summed as NumPy does for so few numbers."""
    total = 0.0
    for j in range(action.shape[0]):
        total += action[j] * action[j]
    return weight * total


@njit(cache=True, nogil=True)
def observe(d: Any, c: Runner, memo: Array, out: Array) -> None:
    """Positions without the distance travelled, and velocities."""
    nq = d.qpos.shape[0]
    for j in range(1, nq):
        out[j - 1] = d.qpos[j]
    for j in range(d.qvel.shape[0]):
        out[nq - 1 + j] = min(max(d.qvel[j], -c.velocity_limit), c.velocity_limit)


@njit(cache=True, nogil=True)
def healthy(qpos: Array, qvel: Array, c: Runner) -> bool:
    """Whether torso and state are within the bounds."""
    ok = c.z_low < qpos[1] < c.z_high and c.angle_low < qpos[2] < c.angle_high
    for j in range(2, qpos.shape[0]):
        ok = ok and -c.state_limit < qpos[j] < c.state_limit
    for j in range(qvel.shape[0]):
        ok = ok and -c.state_limit < qvel[j] < c.state_limit
    return ok


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Runner, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Forward velocity and health less control; ``memo`` is the position before, m."""
    velocity = (d.qpos[0] - memo[0]) / c.dt
    memo[0] = d.qpos[0]
    ok = healthy(d.qpos, d.qvel, c)
    alive = c.healthy_reward if ok else 0.0
    reward = velocity + alive - control_cost(action, c.ctrl_cost)
    return reward, c.terminates and not ok, False


@njit(cache=True, nogil=True)
def run(desk: Any, thread: int, c: Runner) -> None:
    """The compiled loop of the planar runners."""
    advance(desk, thread, c, observe, outcome, to_ctrl, nothing)


def draw(rng: np.random.Generator, count: int) -> Array:
    return rng.uniform(-1, 1, (count, 12))


def hopper(num_envs, *, history=1, dtype=np.float32, max_episode_steps=1000, num_threads=None):
    path = files("gymnasium.envs.mujoco") / "assets" / "hopper.xml"
    model = mujoco.MjModel.from_xml_path(str(path))

    def initial(draws):
        q = model.qpos0 + 5e-3 * draws[:, :6]
        return Initial(q, 5e-3 * draws[:, 6:], q[:, :1])

    inf = np.inf
    c = Runner(0.008, 1e-3, 1.0, 0.7, inf, -0.2, 0.2, 100.0, 10.0, True)
    task = CompiledTask(model, 4, run, c, 11, 3, draw, 12, initial, 1)
    spec = TaskSpec(
        "hopper",
        "Hopper",
        (Feature("observation", (11,)),),
        ActionSpec(("a", "b", "c"), ("",) * 3, (-1.0,) * 3, (1.0,) * 3),
        "actuator",
        125.0,
        max_episode_steps,
        score="return",
    )
    return BatchEnv(CompiledSim(task, num_envs, num_threads), spec, history=history, dtype=dtype)
