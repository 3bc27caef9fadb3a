"""Push-T: push a T-shaped block onto its goal with a round pusher.

The task of Diffusion Policy (Chi et al., arXiv 2303.04137), 1 px = 1 mm, with the origin in the
middle of the workspace: 10 Hz, absolute pusher targets, the same T, gains and initial states. An
episode's score is the best min(coverage / 0.95, 1) it reached, coverage being the share of the goal
that the block covers. The reward is what a step adds to that score, so the return is the score.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import ActionSpec, Feature, TaskSpec, VecEnv
from genpolicy_sim.compiled_sim import CompiledTask, Initial, advance, compiled_env, nothing
from genpolicy_sim.jit import njit
from genpolicy_sim.rendering import View

Array = NDArray[np.float64]

# Bar and stem in the frame of the T, whose origin is its centre of mass: x0, y0, x1, y1, m.
BAR = (-0.06, 0.075 / 7, 0.06, 0.285 / 7)
STEM = (-0.015, -0.555 / 7, 0.015, 0.075 / 7)
PUSHER_RADIUS = 0.015  # m
GOAL = (0.0, 0.0, np.pi / 4)  # m, m, rad
WORKSPACE = 0.256  # m, half the extent of where the pusher may be sent
PUSHER_START = 0.2  # m, half the extent of where the pusher starts
BLOCK_START = 0.15  # m, half the extent of where the block starts
CLEARANCE = 0.005  # m between pusher and block at the start
SOLVED = 0.95  # coverage
SUBSTEPS = 10  # of 10 ms: 10 Hz


class Constants(NamedTuple):
    """What the compiled functions must know."""

    parts: Array  # [2, 4] bar and stem
    goal: Array  # [3] x, y, yaw
    scale: float  # m per unit action


# ---------------------------------------------------------------- coverage


@njit(nogil=True, cache=True)
def _clip(polygon: Array, count: int, axis: int, sign: float, limit: float, out: Array) -> int:
    """Sutherland-Hodgman: the part of a convex polygon where sign · x[axis] <= sign · limit."""
    kept = 0
    for k in range(count):
        a, b = polygon[k], polygon[(k + 1) % count]
        inside_a, inside_b = sign * (a[axis] - limit), sign * (b[axis] - limit)
        if inside_a <= 0.0:
            out[kept] = a
            kept += 1
        if inside_a * inside_b < 0.0:
            share = inside_a / (inside_a - inside_b)
            out[kept] = a + share * (b - a)
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _area(polygon: Array, count: int) -> float:
    """Of a polygon ``[count, 2]``: half the sum of its edges' cross products."""
    total = 0.0
    for k in range(count):
        a, b = polygon[k], polygon[(k + 1) % count]
        total += a[0] * b[1] - a[1] * b[0]
    return 0.5 * abs(total)


@njit(nogil=True, cache=True)
def _overlap(a: Array, pose: Array, b: Array, work: Array) -> float:
    """Common area of rectangle ``a`` and of rectangle ``b`` moved by ``pose``."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    for k in range(4):
        x = b[0] if k == 0 or k == 3 else b[2]
        y = b[1] if k < 2 else b[3]
        work[0, k, 0], work[0, k, 1] = pose[0] + cos * x - sin * y, pose[1] + sin * x + cos * y
    count = _clip(work[0], 4, 0, -1.0, a[0], work[1])
    count = _clip(work[1], count, 1, -1.0, a[1], work[0])
    count = _clip(work[0], count, 0, 1.0, a[2], work[1])
    count = _clip(work[1], count, 1, 1.0, a[3], work[0])
    return _area(work[0], count)


@njit(nogil=True, cache=True)
def relative_pose(pose: Array, frame: Array) -> Array:
    """``pose`` (x, y, yaw) seen from ``frame``."""
    cos, sin = np.cos(frame[2]), np.sin(frame[2])
    dx, dy = pose[0] - frame[0], pose[1] - frame[1]
    return np.array([cos * dx + sin * dy, cos * dy - sin * dx, pose[2] - frame[2]])


@njit(nogil=True, cache=True)
def coverage(pose: Array, goal: Array, parts: Array) -> float:
    """Share of the T at ``goal`` that the T at ``pose`` covers, exact, in [0, 1].

    Args:
        pose: x, y, yaw of the block.
        goal: x, y, yaw of the goal.
        parts: ``[K, 4]`` rectangles (x0, y0, x1, y1) that make the shape, without overlap.
    """
    relative, work = relative_pose(pose, goal), np.empty((2, 8, 2))
    common = area = 0.0
    for a in parts:
        area += (a[2] - a[0]) * (a[3] - a[1])
        for b in parts:
            common += _overlap(a, relative, b, work)
    return min(common / area, 1.0)


# ---------------------------------------------------------------- the task's compiled functions
# qpos is block x, y, yaw and pusher x, y. A simulation remembers its best score so far.


@njit(nogil=True, cache=True)
def command(d: Any, c: Any, memo: Array, action: Array) -> None:
    """Send the pusher to an absolute position."""
    d.ctrl[0], d.ctrl[1] = c.scale * action[0], c.scale * action[1]


@njit(nogil=True, cache=True)
def observe(d: Any, c: Any, memo: Array, out: Array) -> None:
    """Position of the pusher, then position and heading of the block."""
    out[0], out[1], out[2], out[3] = d.qpos[3], d.qpos[4], d.qpos[0], d.qpos[1]
    out[4], out[5] = np.cos(d.qpos[2]), np.sin(d.qpos[2])


@njit(nogil=True, cache=True)
def outcome(d: Any, c: Any, memo: Array, action: Array) -> tuple[float, bool, bool]:
    """The reward is what this step adds to the best score."""
    covered = coverage(d.qpos[:3], c.goal, c.parts)
    score = max(memo[0], min(covered / SOLVED, 1.0))
    reward, memo[0] = score - memo[0], score
    solved = covered >= SOLVED
    return reward, solved, solved


@njit(nogil=True, cache=True)
def run(desk: Any, thread: int, c: Any) -> None:
    """The task's loop, compiled and cached with it."""
    advance(desk, thread, c, observe, outcome, command, nothing)


# ---------------------------------------------------------------- episodes


def distance_to_block(points: Array, poses: Array) -> Array:
    """Distances ``[n]`` from ``points [n, 2]`` to Ts at ``poses [n, 3]``; 0 inside."""
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    dx, dy = (points - poses[:, :2]).T
    own = np.stack([cos * dx + sin * dy, cos * dy - sin * dx], axis=1)
    parts = []
    for part in (BAR, STEM):
        outside = np.maximum(np.maximum(np.array(part[:2]) - own, own - np.array(part[2:])), 0.0)
        parts.append(np.linalg.norm(outside, axis=1))
    return np.minimum(*parts)


def draw(rng: np.random.Generator, count: int) -> Array:
    """Initial positions ``[count, 5]``: block x, y, yaw, pusher x, y, uniform where both fit."""
    block = rng.uniform(-1.0, 1.0, (count, 3)) * [BLOCK_START, BLOCK_START, np.pi]
    pusher = rng.uniform(-PUSHER_START, PUSHER_START, (count, 2))
    while (overlap := distance_to_block(pusher, block) < PUSHER_RADIUS + CLEARANCE).any():
        pusher[overlap] = rng.uniform(-PUSHER_START, PUSHER_START, (int(overlap.sum()), 2))
    return np.hstack([block, pusher])


def initial(draws: Array) -> Initial:
    """At rest, with no score yet."""
    return Initial(draws, np.zeros_like(draws))


@cache
def scene() -> mujoco.MjModel:
    """The compiled scene, once per process."""
    text = files("genpolicy_sim").joinpath("assets", "push_t.xml").read_text()
    return mujoco.MjModel.from_xml_string(text)


def compiled_task() -> CompiledTask:
    """The task for the compiled engine."""
    return CompiledTask(
        model=scene(),
        substeps=SUBSTEPS,
        run=run,
        constants=Constants(np.array([BAR, STEM]), np.array(GOAL), WORKSPACE),
        obs_dim=6,
        action_dim=2,
        draw=draw,
        draw_dim=5,
        initial=initial,
        memo_dim=1,
        camera=View((0.0, 0.0, 0.0), distance=0.75, azimuth=90.0, elevation=-80.0),
    )


def task_spec() -> TaskSpec:
    """What push-T observes and commands."""
    return TaskSpec(
        task="push_t",
        robot="disk",
        observations=(
            Feature("pusher", (2,), "m"),
            Feature("block", (4,), "m, m, cos yaw, sin yaw"),
        ),
        action=ActionSpec(("x", "y"), (f"{WORKSPACE} m",) * 2, (-1.0, -1.0), (1.0, 1.0)),
        control_mode="target_position",
        control_hz=10.0,
        max_episode_steps=300,
        control={"position_scale": WORKSPACE},
        versions={"mujoco": version("mujoco")},
        score="return",
    )


def make(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``push_t``; options as in ``compiled_env``."""
    return compiled_env(compiled_task(), task_spec(), num_envs, **options)
