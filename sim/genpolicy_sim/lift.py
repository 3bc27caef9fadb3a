"""Panda Lift: raise a cube from a table (robosuite's scene, controller, success and reset)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim import robosuite_task
from genpolicy_sim.osc import Array
from genpolicy_sim.quaternions import XYZW, yaw
from genpolicy_sim.rendering import View
from genpolicy_sim.robosuite_task import MODEL_SEED, SUBSTEPS, Scene, TaskSim, arms_at_rest, put

__all__ = ["MODEL_SEED", "SUBSTEPS", "LiftSim", "draw", "initial_qpos", "make", "scene"]

LIFT_HEIGHT = 0.04  # m above the table counts as lifted
TABLE_HEIGHT = 0.8  # m
DROP_HEIGHT = 0.01  # m between cube and table at the start
DRAW_DIM = 10  # random numbers in an initial state


@dataclass(frozen=True)
class LiftScene(Scene):
    """Lift's scene."""

    cube_half_size: Array  # [3] m


@cache
def scene() -> LiftScene:
    """Build the scene with robosuite (a second), once per process."""
    env = robosuite_env(seed=MODEL_SEED)
    return LiftScene(**vars(robosuite_task.scene_of(env)), cube_half_size=np.array(env.cube.size))


def draw(rng: np.random.Generator, count: int) -> Array:
    """Random numbers ``[count, DRAW_DIM]`` that encode initial states."""
    return np.hstack([rng.standard_normal((count, 7)), rng.uniform(-1.0, 1.0, (count, 3))])


def initial_qpos(draws: Array, cube_range: tuple[float, float]) -> Array:
    """Initial joint positions ``[n, nq]``, distributed as robosuite's.

    Gaussian noise on the posture; cube uniform on an area, with uniform yaw, just above the table.
    """
    qpos = arms_at_rest(scene(), draws[:, :7])
    height = TABLE_HEIGHT + DROP_HEIGHT + scene().cube_half_size[2]
    turn = yaw(0.5 * np.pi * (1.0 + draws[:, 9]))
    put(qpos, scene().model, "cube_joint0", cube_range * draws[:, 7:9], height, turn)
    return qpos


class LiftSim(TaskSim):
    """N Lift scenes without episodes.

    Args:
        num_envs: N.
        num_threads: physics threads; default all available cores.
        cube_range: half the extent in x and y, m, of the area where cubes start.
    """

    name = "lift"
    robosuite_name = "Lift"
    max_episode_steps = 100
    objects = Feature("object", (10,), "m, xyzw, m")
    camera = View((-0.2, 0.0, 0.97), distance=1.25, azimuth=145.0, elevation=-22.0)
    draw_dim = DRAW_DIM
    draw = staticmethod(draw)
    scene = staticmethod(scene)

    def __init__(
        self,
        num_envs: int,
        num_threads: int | None = None,
        cube_range: tuple[float, float] = (0.03, 0.03),
    ) -> None:
        super().__init__(num_envs, num_threads)
        self.cube_range = cube_range
        self._cube = self.model.body("cube_main").id

    def initial_qpos(self, draws: Array) -> Array:
        """Joint positions ``[n, nq]``."""
        return initial_qpos(draws, self.cube_range)

    def observe_objects(self, out: Array) -> None:
        """Pose of the cube and, in the world's frame, where it is from the gripper."""
        report = self.report
        cube = report.xpos[:, self._cube]
        out[:, 0:3] = cube
        out[:, 3:7] = report.xquat[:, self._cube][:, XYZW]
        out[:, 7:10] = cube - report.site_xpos[:, self.arms[0].site]

    def success(self) -> NDArray[np.bool_]:
        """``[N]`` whether the cube is lifted."""
        return self.report.xpos[:, self._cube, 2] > TABLE_HEIGHT + LIFT_HEIGHT


robosuite_env, task_spec = LiftSim.robosuite_env, LiftSim.task_spec


def make(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``lift``; options as ``robosuite_task.make`` and ``LiftSim``."""
    return robosuite_task.make(LiftSim, num_envs, **options)
