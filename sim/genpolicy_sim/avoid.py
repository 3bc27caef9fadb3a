"""Avoid: a point robot passes six cylinders in three rows, in any of 24 equally good ways.

The task of D3IL (Jia et al., "Towards Diverse Behaviors: A Benchmark for Imitation Learning with
Human Demonstrations", ICLR 2024) with its obstacles, moved to x = 0. The first row offers two gaps,
the second three, the third four; crossing the finish line behind them is success, touching a
cylinder ends the episode. The reward is 1 for success and nothing else.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from genpolicy.spec import ActionSpec, Feature, TaskSpec, VecEnv
from genpolicy_sim.compiled_sim import CompiledTask, Initial, advance, compiled_env, nothing
from genpolicy_sim.jit import njit
from genpolicy_sim.rendering import View

Array = NDArray[np.float64]

ROW_Y = (-0.1, 0.08, 0.26)  # m
ROW_X = ((0.0,), (-0.075, 0.075), (-0.15, 0.0, 0.15))  # m, cylinders of each row
RADII = (0.03, 0.025, 0.025)  # m, of the cylinders of each row
ROBOT_RADIUS = 0.01  # m
FINISH_Y = 0.35  # m
START = (0.0, -0.28)  # m
START_NOISE = 0.01  # m, half the extent of the area where episodes start
WORKSPACE = ((-0.25, -0.33), (0.25, 0.4))  # m, lower and upper limits of the target
POSITION_SCALE = 0.015  # m per unit action
SUBSTEPS = 5  # of 10 ms: 20 Hz
NUM_MODES = 24


class Constants(NamedTuple):
    """What the compiled functions must know."""

    obstacles: Array  # [6, 3] x, y and the distance at which the robot touches, m
    low: Array  # [2] m
    high: Array  # [2] m
    scale: float  # m per unit action
    finish: float  # m


def obstacles() -> Array:
    """The cylinders ``[6, 3]``: x, y and radius, m."""
    rows = zip(ROW_X, ROW_Y, RADII, strict=True)
    return np.array([(x, y, radius) for xs, y, radius in rows for x in xs])


def modes(paths: Sequence[ArrayLike]) -> NDArray[np.int64]:
    """Which of the 24 ways each path takes, ``mode`` for many of any lengths."""
    return np.array([mode(path) for path in paths], np.int64)


def mode(path: ArrayLike) -> int:
    """Which of the 24 ways a path ``[T, 2]`` (m) takes, -1 where it does not pass all rows.

    A row is passed where the path crosses its y for the last time on the way up. The gaps, counted
    from the left, g1 of 2, g2 of 3 and g3 of 4, make 12 g1 + 4 g2 + g3.
    """
    x, y = np.asarray(path, np.float64).T
    number = 0
    for row_y, row_x in zip(ROW_Y, ROW_X, strict=True):
        crossed = np.flatnonzero((y[:-1] < row_y) & (y[1:] >= row_y))
        if not len(crossed):
            return -1
        t = crossed[-1]
        at = x[t] + (row_y - y[t]) / (y[t + 1] - y[t]) * (x[t + 1] - x[t])
        number = number * (len(row_x) + 1) + int(np.sum(at > np.array(row_x)))
    return number


def gaps(number: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The gap of each row, ``[..., 3]``, that modes ``number [...]`` take."""
    number = np.asarray(number, np.int64)
    return np.stack([number // 12, number // 4 % 3, number % 4], axis=-1)


@njit(nogil=True, cache=True)
def distance_to_segment(x: float, y: float, ax: float, ay: float, bx: float, by: float) -> float:
    """From point (x, y) to the segment from a to b."""
    dx, dy = bx - ax, by - ay
    square = dx * dx + dy * dy
    along = ((x - ax) * dx + (y - ay) * dy) / square if square > 0.0 else 0.0
    along = min(max(along, 0.0), 1.0)
    return np.hypot(ax + along * dx - x, ay + along * dy - y)


# A simulation remembers where its target is and where its robot was: tx, ty, x, y.


@njit(nogil=True, cache=True)
def command(d: Any, c: Any, memo: Array, action: Array) -> None:
    """The target is that of the last control step, displaced by the action."""
    for j in range(2):
        d.ctrl[j] = min(max(memo[j] + c.scale * action[j], c.low[j]), c.high[j])


@njit(nogil=True, cache=True)
def observe(d: Any, c: Any, memo: Array, out: Array) -> None:
    """Position of the robot and of its target."""
    out[:2] = d.qpos
    out[2:] = memo[:2]


@njit(nogil=True, cache=True)
def outcome(d: Any, c: Any, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """A touch anywhere on the way of this control step is failure, else the line is success."""
    x, y = d.qpos[0], d.qpos[1]
    touched = False
    for k in range(c.obstacles.shape[0]):
        ox, oy, reach = c.obstacles[k]
        touched |= distance_to_segment(ox, oy, memo[2], memo[3], x, y) < reach
    memo[:2] = d.ctrl
    memo[2], memo[3] = x, y
    success = not touched and y >= c.finish
    return 1.0 if success else 0.0, touched or success, success


@njit(nogil=True, cache=True)
def run(desk: Any, thread: int, c: Any) -> None:
    """The task's loop, compiled and cached with it."""
    advance(desk, thread, c, observe, outcome, command, nothing)


def draw(rng: np.random.Generator, count: int) -> Array:
    """Start positions ``[count, 2]``, uniform on a small square, m."""
    return np.array(START) + rng.uniform(-START_NOISE, START_NOISE, (count, 2))


def initial(draws: Array) -> Initial:
    """At rest, the target where the robot is."""
    return Initial(draws, np.zeros_like(draws), np.hstack([draws, draws]))


@cache
def scene() -> mujoco.MjModel:
    """The compiled scene, once per process."""
    text = files("genpolicy_sim").joinpath("assets", "avoid.xml").read_text()
    return mujoco.MjModel.from_xml_string(text)


def compiled_task() -> CompiledTask:
    """The task for the compiled engine."""
    low, high = np.array(WORKSPACE)
    reach = obstacles() + np.array([0.0, 0.0, ROBOT_RADIUS])
    return CompiledTask(
        model=scene(),
        substeps=SUBSTEPS,
        run=run,
        constants=Constants(reach, low, high, POSITION_SCALE, FINISH_Y),
        obs_dim=4,
        action_dim=2,
        draw=draw,
        draw_dim=2,
        initial=initial,
        memo_dim=4,
        camera=View((0.0, 0.02, 0.0), distance=1.1, azimuth=90.0, elevation=-65.0),
    )


def task_spec() -> TaskSpec:
    """What avoid observes and commands."""
    return TaskSpec(
        task="avoid",
        robot="point",
        observations=(Feature("position", (2,), "m"), Feature("target", (2,), "m")),
        action=ActionSpec(("dx", "dy"), (f"{POSITION_SCALE} m",) * 2, (-1.0, -1.0), (1.0, 1.0)),
        control_mode="target_delta",
        control_hz=20.0,
        max_episode_steps=120,
        control={"position_scale": POSITION_SCALE},
        versions={"mujoco": version("mujoco")},
        score="success",
    )


def make(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``avoid``; options as in ``compiled_env``."""
    return compiled_env(compiled_task(), task_spec(), num_envs, **options)
