"""Panda Square: put a square nut over its peg (robosuite's NutAssemblySquare)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import VecEnv
from genpolicy_sim import robosuite_task
from genpolicy_sim.osc import Array
from genpolicy_sim.placing import PlaceSim, park
from genpolicy_sim.quaternions import yaw
from genpolicy_sim.rendering import View
from genpolicy_sim.robosuite_task import MODEL_SEED, Scene, arms_at_rest, put

DRAW_DIM = 10  # random numbers in an initial state
START_MIDDLE = np.array([-0.1125, 0.1675])  # m, of the area where nuts start
START_HALF = np.array([0.0025, 0.0575])  # m, half its extent in x and y
START_HEIGHT = 0.89  # m
PEG_REACH = 0.03  # m in x and y from the peg's axis to the nut's middle
PEG_HEIGHT = 0.82 + 0.05  # m, below which a nut is on the peg


@cache
def scene() -> Scene:
    """Build the scene with robosuite, once per process."""
    return robosuite_task.scene_of(SquareSim.robosuite_env(seed=MODEL_SEED))


def draw(rng: np.random.Generator, count: int) -> Array:
    """Random numbers ``[count, DRAW_DIM]`` that encode initial states."""
    return np.hstack([rng.standard_normal((count, 7)), rng.uniform(-1.0, 1.0, (count, 3))])


def initial_qpos(draws: Array) -> Array:
    """Initial joint positions ``[n, nq]``, distributed as robosuite's.

    Gaussian noise on the posture; the nut flat above the table, with uniform yaw.
    """
    qpos, model = arms_at_rest(scene(), draws[:, :7]), scene().model
    park(qpos, model, "RoundNut_joint0")
    place, turn = START_MIDDLE + START_HALF * draws[:, 7:9], yaw(0.5 * np.pi * (1.0 + draws[:, 9]))
    put(qpos, model, "SquareNut_joint0", place, START_HEIGHT, turn)
    return qpos


class SquareSim(PlaceSim):
    """N Square scenes without episodes."""

    name = "square"
    robosuite_name = "NutAssemblySquare"
    max_episode_steps = 400
    camera = View((0.0, 0.0, 0.95), distance=1.35, azimuth=145.0, elevation=-25.0)
    object_name = "SquareNut"
    draw_dim = DRAW_DIM
    draw = staticmethod(draw)
    scene = staticmethod(scene)

    def __init__(self, num_envs: int, num_threads: int | None = None) -> None:
        super().__init__(num_envs, num_threads)
        self._peg = self.model.body("peg1").pos.copy()

    def initial_qpos(self, draws: Array) -> Array:
        """Joint positions ``[n, nq]``."""
        return initial_qpos(draws)

    def success(self) -> NDArray[np.bool_]:
        """``[N]`` whether the nut is on its peg and let go of."""
        nut = self.report.xpos[:, self._object]
        around = (np.abs(nut[:, :2] - self._peg[:2]) < PEG_REACH).all(axis=1)
        return around & (nut[:, 2] < PEG_HEIGHT) & self.released()


def make(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``square``; options as ``robosuite_task.make``."""
    return robosuite_task.make(SquareSim, num_envs, **options)
