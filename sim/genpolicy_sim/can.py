"""Panda Can: carry a can from one bin to its compartment of another (robosuite's PickPlaceCan)."""

from __future__ import annotations

from dataclasses import dataclass
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
BIN = np.array([0.1, -0.25])  # m, middle of the bin where the can starts
BIN_HALF = np.array([0.145, 0.195])  # m, half the extent in x and y where objects may be
START_HEIGHT = 0.86  # m
GOAL_LOW = np.array([0.1, 0.28, 0.8])  # m, corners of the can's compartment
GOAL_HIGH = np.array([0.1 + 0.39 / 2, 0.28 + 0.49 / 2, 0.8 + 0.1])


@dataclass(frozen=True)
class CanScene(Scene):
    """Can's scene."""

    radii: Array  # [4] m, of milk, bread, cereal and can: no two circles may overlap


@cache
def scene() -> CanScene:
    """Build the scene with robosuite, once per process."""
    env = CanSim.robosuite_env(seed=MODEL_SEED)
    radii = np.array([thing.horizontal_radius for thing in env.objects])
    return CanScene(**vars(robosuite_task.scene_of(env)), radii=radii)


def draw(rng: np.random.Generator, count: int) -> Array:
    """Random numbers ``[count, DRAW_DIM]`` that encode initial states."""
    posture, turn = rng.standard_normal((count, 7)), rng.uniform(-1.0, 1.0, (count, 1))
    return np.hstack([posture, free_places(rng, count, scene().radii)[:, -1], turn])


def free_places(rng: np.random.Generator, count: int, radii: Array) -> Array:
    """Places ``[count, len(radii), 2]`` in the bin, m from its middle.

    Each is uniform on what those before it leave free. So robosuite places the can: after three
    objects that it then takes away, which keeps cans from the middle a little.
    """
    places = np.zeros((count, len(radii), 2))
    for k, radius in enumerate(radii):
        half, open_rows = BIN_HALF - radius, np.arange(count)
        while len(open_rows):
            places[open_rows, k] = rng.uniform(-half, half, (len(open_rows), 2))
            offset = places[open_rows, :k] - places[open_rows, k, None]
            near = np.linalg.norm(offset, axis=2) <= radii[:k] + radius
            open_rows = open_rows[near.any(axis=1)]
    return places


def initial_qpos(draws: Array) -> Array:
    """Initial joint positions ``[n, nq]``, distributed as robosuite's.

    Gaussian noise on the posture; the can in the bin, upright, with uniform yaw.
    """
    qpos, model = arms_at_rest(scene(), draws[:, :7]), scene().model
    for name in ("Milk", "Bread", "Cereal"):
        park(qpos, model, f"{name}_joint0")
    turn = yaw(0.5 * np.pi * (1.0 + draws[:, 9]))
    put(qpos, model, "Can_joint0", BIN + draws[:, 7:9], START_HEIGHT, turn)
    return qpos


class CanSim(PlaceSim):
    """N Can scenes without episodes."""

    name = "can"
    robosuite_name = "PickPlaceCan"
    max_episode_steps = 300
    camera = View((0.1, 0.0, 0.9), distance=1.4, azimuth=180.0, elevation=-35.0)
    object_name = "Can"
    draw_dim = DRAW_DIM
    draw = staticmethod(draw)
    scene = staticmethod(scene)

    def initial_qpos(self, draws: Array) -> Array:
        """Joint positions ``[n, nq]``."""
        return initial_qpos(draws)

    def success(self) -> NDArray[np.bool_]:
        """``[N]`` whether the can is in its compartment and let go of."""
        can = self.report.xpos[:, self._object]
        inside = ((can > GOAL_LOW) & (can < GOAL_HIGH)).all(axis=1)
        return inside & self.released()


def make(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``can``; options as ``robosuite_task.make``."""
    return robosuite_task.make(CanSim, num_envs, **options)
