"""The rules of Gymnasium's v5 locomotion tasks, compiled: observations, rewards, terminations.

Sums are taken in NumPy's order, so that results are Gymnasium's to the last bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from genpolicy_sim.compiled_sim import advance, contact_forces, nothing, to_ctrl
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit


class Runner(NamedTuple):
    """Constants of the planar runners. Healthy is strictly between the bounds."""

    dt: float  # s per control step
    ctrl_cost: float  # per squared unit of control
    healthy_reward: float  # per step
    height: tuple[float, float]  # m, of the torso
    pitch: tuple[float, float]  # rad, of the torso
    state_limit: float  # of all coordinates but the first two, and of all velocities
    velocity_limit: float  # observed velocities are clipped to it


class Ant(NamedTuple):
    """Constants of the ant. Healthy includes the bounds."""

    torso: int  # body
    dt: float  # s per control step
    ctrl_cost: float  # per squared unit of control
    contact_cost: float  # per squared unit of clipped contact force
    contact_limit: float  # N, N m: contact forces are clipped to it
    healthy_reward: float  # per step
    height: tuple[float, float]  # m, of the torso


@njit(cache=True, nogil=True)
def sum_of_squares(values: Array, limit: float) -> float:
    """Of a vector clipped to ``[-limit, limit]``, in the order in which NumPy adds up to 128.

    Eight partial sums in turn, added pairwise; then what is left over.
    """
    n = values.shape[0]
    part, whole = np.zeros(8), 0.0
    eights = n - n % 8
    for j in range(n):
        clipped = min(max(values[j], -limit), limit)
        if j < eights:
            part[j % 8] += clipped * clipped
        else:
            if j == eights and eights:
                whole = _pairwise(part)
            whole += clipped * clipped
    return _pairwise(part) if eights == n else whole


@njit(cache=True, nogil=True)
def _pairwise(p: Array) -> float:
    return ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]))


@njit(cache=True, nogil=True)
def runner_healthy(qpos: Array, qvel: Array, c: Runner) -> bool:
    """Whether height, pitch and state are within the bounds."""
    ok = c.height[0] < qpos[1] < c.height[1] and c.pitch[0] < qpos[2] < c.pitch[1]
    if c.state_limit < np.inf:
        for j in range(2, qpos.shape[0]):
            ok = ok and -c.state_limit < qpos[j] < c.state_limit
        for j in range(qvel.shape[0]):
            ok = ok and -c.state_limit < qvel[j] < c.state_limit
    return ok


@njit(cache=True, nogil=True)
def runner_reward(velocity: float, healthy: bool, action: Array, c: Runner) -> float:
    """Forward velocity, m/s, and health, less control."""
    alive = c.healthy_reward if healthy else 0.0
    return (velocity + alive) - c.ctrl_cost * sum_of_squares(action, np.inf)


@njit(cache=True, nogil=True)
def observe_runner(d: Any, c: Runner, memo: Array, out: Array) -> None:
    """Positions without the distance travelled, and velocities."""
    nq = d.qpos.shape[0]
    for j in range(1, nq):
        out[j - 1] = d.qpos[j]
    for j in range(d.qvel.shape[0]):
        out[nq - 1 + j] = min(max(d.qvel[j], -c.velocity_limit), c.velocity_limit)


@njit(cache=True, nogil=True)
def runner_outcome(d: Any, c: Runner, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the end when not healthy; never a success. ``memo`` is x before, m."""
    velocity = (d.qpos[0] - memo[0]) / c.dt
    memo[0] = d.qpos[0]
    healthy = runner_healthy(d.qpos, d.qvel, c)
    return runner_reward(velocity, healthy, action, c), not healthy, False


@njit(cache=True, nogil=True)
def run_runner(desk: Any, thread: int, c: Runner) -> None:
    """The loop of the planar runners."""
    advance(desk, thread, c, observe_runner, runner_outcome, to_ctrl, nothing)


@njit(cache=True, nogil=True)
def ant_healthy(qpos: Array, qvel: Array, c: Ant) -> bool:
    """Whether the torso's height is within the bounds and the state finite."""
    ok = c.height[0] <= qpos[2] <= c.height[1]
    return bool(ok and np.isfinite(qpos).all() and np.isfinite(qvel).all())


@njit(cache=True, nogil=True)
def ant_reward(velocity: float, healthy: bool, action: Array, forces: Array, c: Ant) -> float:
    """Forward velocity, m/s, and health, less control and contact ``forces`` (a flat vector)."""
    alive = c.healthy_reward if healthy else 0.0
    control = c.ctrl_cost * sum_of_squares(action, np.inf)
    contact = c.contact_cost * sum_of_squares(forces, c.contact_limit)
    return (velocity + alive) - (control + contact)


@njit(cache=True, nogil=True)
def observe_ant(d: Any, c: Ant, memo: Array, out: Array) -> None:
    """Positions without x and y, velocities, clipped contact forces on all bodies."""
    nq, nv = d.qpos.shape[0], d.qvel.shape[0]
    out[: nq - 2] = d.qpos[2:]
    out[nq - 2 : nq - 2 + nv] = d.qvel
    forces = d.cfrc_ext.reshape(-1)
    for j in range(6, forces.shape[0]):  # the world's are left out
        out[nq + nv - 8 + j] = min(max(forces[j], -c.contact_limit), c.contact_limit)


@njit(cache=True, nogil=True)
def ant_outcome(d: Any, c: Ant, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the end when not healthy; never a success.

    ``memo`` is the torso's x before, m, of the pose that the last substep began with: so does
    Gymnasium measure it.
    """
    velocity = (d.xpos[c.torso, 0] - memo[0]) / c.dt
    memo[0] = d.xpos[c.torso, 0]
    healthy = ant_healthy(d.qpos, d.qvel, c)
    reward = ant_reward(velocity, healthy, action, d.cfrc_ext.reshape(-1), c)
    return reward, not healthy, False


@njit(cache=True, nogil=True)
def run_ant(desk: Any, thread: int, c: Ant) -> None:
    """The loop of the ant."""
    advance(desk, thread, c, observe_ant, ant_outcome, to_ctrl, contact_forces)
