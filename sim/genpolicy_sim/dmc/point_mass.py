"""Point mass: reach the middle of the plane and stay (PointMass-Easy)."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, nothing, to_ctrl
from genpolicy_sim.dmc import Task, at_rest, load_model, make, random_joints
from genpolicy_sim.dmc.rewards import small_control, tolerance
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    size: float  # m, the target's radius; it is where both slides are zero


@njit(cache=True, nogil=True)
def reach_reward(distance: float, control: Array, c: Constants) -> float:
    """In [0, 1]: at the target, with little control.

    Args:
        distance: m from the mass to the target's middle.
        control: ``[2]``.
        c: constants.
    """
    return tolerance(distance, 0.0, c.size, c.size) * small_control(control)


@njit(cache=True, nogil=True)
def observe(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Position and velocity."""
    out[:2] = d.qpos
    out[2:] = d.qvel


@njit(cache=True, nogil=True)
def outcome(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    return reach_reward(np.hypot(d.qpos[0], d.qpos[1]), action, c), False, False


@njit(cache=True, nogil=True)
def loop(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe, outcome, to_ctrl, nothing)


@cache
def easy_task() -> Task:
    """PointMass-Easy."""
    model = load_model("point_mass")
    return Task(
        name="point_mass_easy",
        robot="point_mass",
        model=model,
        substeps=1,
        features=(Feature("position", (2,), "m"), Feature("velocity", (2,), "m/s")),
        loop=loop,
        constants=Constants(model.geom("target").size[0]),
        draw=lambda rng, count: at_rest(model, random_joints(model, rng, count)),
        camera="fixed",
    )


def easy(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``point_mass_easy``; options as ``dmc.make``."""
    return make(easy_task(), num_envs, **options)
