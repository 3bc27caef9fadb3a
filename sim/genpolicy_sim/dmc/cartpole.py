"""Cartpole: keep a pole upright on a cart (Cartpole-Balance)."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, nothing, to_ctrl
from genpolicy_sim.dmc import Task, load_model, make
from genpolicy_sim.dmc.rewards import small_control, tolerance
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit

CART, POLE = 0.1, 0.034  # m, rad: the initial state is uniform within these of upright
SPEED = 0.01  # m/s, rad/s: standard deviation of the initial velocities


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    far: float  # m from the middle where a tenth of the centring reward is left
    fast: float  # rad/s where a tenth of the reward for not swinging is left


@njit(cache=True, nogil=True)
def balance_reward(x: float, cosine: float, rate: float, control: Array, c: Constants) -> float:
    """In [0, 1]: pole upright and at rest, cart in the middle, little control.

    Args:
        x: m, of the cart.
        cosine: of the pole's angle from the vertical.
        rate: rad/s, of the pole.
        control: ``[1]``.
        c: constants.
    """
    upright = (cosine + 1.0) / 2.0
    centered = (1.0 + tolerance(x, 0.0, 0.0, c.far)) / 2.0
    still = (1.0 + tolerance(rate, 0.0, 0.0, c.fast)) / 2.0
    return upright * small_control(control) * still * centered


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Position of the cart, cosine and sine of the pole's angle, velocities."""
    out[0] = d.qpos[0]
    out[1], out[2] = np.cos(d.qpos[1]), np.sin(d.qpos[1])
    out[3:] = d.qvel


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    return balance_reward(d.qpos[0], np.cos(d.qpos[1]), d.qvel[1], action, c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, nothing)


def draw(rng: np.random.Generator, count: int) -> Array:
    """Initial states ``[count, 4]``: almost upright, almost at rest."""
    qpos = rng.uniform((-CART, -POLE), (CART, POLE), (count, 2))
    return np.hstack([qpos, SPEED * rng.standard_normal((count, 2))])


@cache
def balance_task() -> Task:
    """Cartpole-Balance."""
    model = load_model("cartpole")
    return Task(
        name="cartpole_balance",
        robot="cartpole",
        model=model,
        substeps=1,
        features=(
            Feature("position", (3,), "m, cos, sin"),
            Feature("velocity", (2,), "m/s, rad/s"),
        ),
        loop=loop,
        constants=Constants(far=2.0, fast=5.0),
        draw=draw,
        camera="fixed",
    )


def balance(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``cartpole_balance``; options as ``dmc.make``."""
    return make(balance_task(), num_envs, **options)
