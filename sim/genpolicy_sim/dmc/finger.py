"""Finger: a two-link finger turns a body on a hinge (Finger-Spin, -TurnEasy, -TurnHard)."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import mujoco
import numpy as np

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim.compiled_sim import advance, nothing, to_ctrl
from genpolicy_sim.dmc import (
    Task,
    at_rest,
    collision_free,
    load_model,
    make,
    random_joints,
    sensor,
)
from genpolicy_sim.episodes import Array
from genpolicy_sim.jit import njit

SPIN_DAMPING = 0.03  # N m s/rad of the hinge when the task is to spin
TARGET_SIZE = {"easy": 0.07, "hard": 0.03}  # m
POSITION, VELOCITY, TOUCH, TARGET, DISTANCE = (
    Feature("position", (4,), "rad, m"),
    Feature("velocity", (3,), "rad/s"),
    Feature("touch", (2,), "log(1 + N)"),
    Feature("target_position", (2,), "m"),
    Feature("dist_to_target", (1,), "m"),
)


class Constants(NamedTuple):
    """What the compiled functions know of the task."""

    hinge_x: float  # m
    hinge_z: float  # m
    radius: float  # m from the hinge of the body that turns to its tip
    touch: int  # top, bottom: in the sensor data
    spin: float  # rad/s backwards from which the body spins
    size: float  # m, the target's radius


@njit(cache=True, nogil=True)
def spin_reward(rate: float, c: Constants) -> float:
    """1 while the body turns backwards fast enough; ``rate`` in rad/s."""
    return 1.0 if rate <= -c.spin else 0.0


@njit(cache=True, nogil=True)
def turn_reward(distance: float, c: Constants) -> float:
    """1 while the tip is in the target; ``distance`` in m from its middle."""
    return 1.0 if distance - c.size <= 0.0 else 0.0


@njit(cache=True, nogil=True)
def tip(d: Any, c: Constants) -> tuple[float, float]:
    """Vector (x, z) in m from the hinge to the tip of the body that turns."""
    return -c.radius * np.sin(d.qpos[2]), c.radius * np.cos(d.qpos[2])


@njit(cache=True, nogil=True)
def tip_to_target(d: Any, c: Constants, memo: Array) -> float:
    """Distance in m from the tip to the middle of the target, which ``memo`` places (x, z)."""
    x, z = tip(d, c)
    return np.hypot(memo[0] - c.hinge_x - x, memo[1] - c.hinge_z - z)


@njit(cache=True, nogil=True)
def observe_spin(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """Finger angles, tip relative to the hinge, velocities, log-scaled touch."""
    out[:2] = d.qpos[:2]
    out[2], out[3] = tip(d, c)
    out[4:7] = d.qvel
    out[7:9] = np.log1p(d.sensordata[c.touch : c.touch + 2])


@njit(cache=True, nogil=True)
def observe_turn(d: Any, c: Constants, memo: Array, out: Array) -> None:
    """The same, the target relative to the hinge, and how far the tip is from its surface."""
    observe_spin(d, c, memo, out)
    out[9], out[10] = memo[0] - c.hinge_x, memo[1] - c.hinge_z
    out[11] = tip_to_target(d, c, memo) - c.size


@njit(cache=True, nogil=True)
def outcome_spin(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    return spin_reward(d.qvel[2], c), False, False


@njit(cache=True, nogil=True)
def outcome_turn(d: Any, c: Constants, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """Reward; the suite's tasks neither end nor are achieved."""
    return turn_reward(tip_to_target(d, c, memo), c), False, False


@njit(cache=True, nogil=True)
def loop_spin(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe_spin, outcome_spin, to_ctrl, nothing)


@njit(cache=True, nogil=True)
def loop_turn(desk: Any, thread: int, c: Constants) -> None:
    """The task's compiled loop."""
    advance(desk, thread, c, observe_turn, outcome_turn, to_ctrl, nothing)


def constants(model: mujoco.MjModel, target_size: float) -> Constants:
    """The tasks' constants, from their scene."""
    x, _, z = model.body("spinner").pos
    touch = sensor(model, "touchtop")
    return Constants(x, z, model.site("tip").pos[2], touch, spin=15.0, size=target_size)


def draw_targets(model: mujoco.MjModel, rng: np.random.Generator, count: int) -> Array:
    """Targets ``[count, 2]`` (x, z): anywhere on the circle around the hinge through the tip."""
    angle = rng.uniform(-np.pi, np.pi, (count, 1))
    radius = model.geom("cap1").size.sum()
    hinge = model.body("spinner").pos[[0, 2]]
    return hinge + radius * np.hstack([np.sin(angle), np.cos(angle)])


def show(model: mujoco.MjModel, target: Array) -> None:
    """Put the scene's target there."""
    model.site("target").pos[[0, 2]] = target


def draw_joints(model: mujoco.MjModel, rng: np.random.Generator, count: int) -> Array:
    """Positions ``[count, 3]`` in which the finger does not touch the body."""
    return collision_free(model, partial(random_joints, model), rng, count)


@cache
def spin_task() -> Task:
    """Finger-Spin."""
    model = load_model("finger")
    model.dof_damping[model.joint("hinge").dofadr] = SPIN_DAMPING
    for site in ("target", "tip"):
        model.site(site).rgba[3] = 0.0  # nothing of this task
    return Task(
        name="finger_spin",
        robot="finger",
        model=model,
        substeps=2,
        features=(POSITION, VELOCITY, TOUCH),
        loop=loop_spin,
        constants=constants(model, 0.0),
        draw=lambda rng, count: at_rest(model, draw_joints(model, rng, count)),
        camera="cam0",
    )


@cache
def turn_task(level: str) -> Task:
    """Finger-TurnEasy and Finger-TurnHard."""
    model = load_model("finger")
    model.site("target").size[0] = TARGET_SIZE[level]  # touches nothing, is only seen

    def draw(rng: np.random.Generator, count: int) -> Array:
        targets = draw_targets(model, rng, count)
        return at_rest(model, draw_joints(model, rng, count), targets)

    return Task(
        name=f"finger_turn_{level}",
        robot="finger",
        model=model,
        substeps=2,
        features=(POSITION, VELOCITY, TOUCH, TARGET, DISTANCE),
        loop=loop_turn,
        constants=constants(model, TARGET_SIZE[level]),
        draw=draw,
        camera="cam0",
        target_dim=2,
        show=show,
    )


def spin(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``finger_spin``; options as ``dmc.make``."""
    return make(spin_task(), num_envs, **options)


def turn_easy(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``finger_turn_easy``; options as ``dmc.make``."""
    return make(turn_task("easy"), num_envs, **options)


def turn_hard(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``finger_turn_hard``; options as ``dmc.make``."""
    return make(turn_task("hard"), num_envs, **options)
