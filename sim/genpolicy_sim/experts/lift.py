"""A scripted, noisy and bimodal expert for Panda Lift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Observation
from genpolicy_sim.experts.scripted import POSITION_SCALE, ROTATION_NOISE, ROTATION_SCALE, Array

VIA, HOVER, DESCEND, GRASP, LIFT = range(5)
SIDE_OFFSET = 0.08  # m to the left or right of the cube on the way to it
HOVER_HEIGHT = 0.08  # m above the cube before descending
REACHED = 0.02  # m
GRASP_STEPS = 8  # control steps that the fingers need to close


class LiftExpert:
    """Proportional control through via-point, hover, descent, grasp and lift, for N environments.

    Args:
        num_envs: N.
        rng: draws sides and noise.
        noise: standard deviation of the Gaussian noise on the translation, action units.
        bimodal: go round by the left or the right (a fair coin per episode), so that the same
            state has two good actions; otherwise straight to the cube.
    """

    def __init__(
        self,
        num_envs: int,
        rng: np.random.Generator,
        noise: float = 0.3,
        bimodal: bool = True,
    ) -> None:
        self.num_envs, self.rng, self.noise, self.bimodal = num_envs, rng, noise, bimodal
        self._phase = np.zeros(num_envs, np.int64)
        self._side = np.ones(num_envs)
        self._closing = np.zeros(num_envs, np.int64)
        self.reset()

    def reset(self, mask: NDArray[np.bool_] | None = None) -> None:
        """Begin new episodes, in the environments of ``mask`` (default all)."""
        mask = np.ones(self.num_envs, np.bool_) if mask is None else mask
        self._phase[mask] = VIA if self.bimodal else HOVER
        self._side[mask] = self.rng.choice([-1.0, 1.0], self.num_envs)[mask]
        self._closing[mask] = 0

    def act(self, obs: Observation) -> Array:
        """Actions ``[N, 1, 7]`` for observations ``{name: [N, To, D]}``."""
        eef = obs["robot0_eef_pos"][:, -1].astype(np.float64)
        cube = obs["object"][:, -1, :3].astype(np.float64)
        self._advance(eef, cube)
        action = np.zeros((self.num_envs, 1, 7))
        action[:, 0, :3] = (self._target(eef, cube) - eef) / POSITION_SCALE
        action[:, 0, 3:6] = tilt(obs["robot0_eef_quat"][:, -1]) / ROTATION_SCALE
        noise = self.noise * self.rng.standard_normal((self.num_envs, 6))
        noise[:, 3:] *= ROTATION_NOISE
        action[:, 0, :6] += noise
        action[:, 0, 6] = np.where(self._phase >= GRASP, 1.0, -1.0)
        return np.clip(action, -1.0, 1.0)

    def _target(self, eef: Array, cube: Array) -> Array:
        """Where the end effector goes in its present phase, ``[N, 3]``."""
        phase, target = self._phase, cube.copy()
        target[phase == VIA, 1] += SIDE_OFFSET * self._side[phase == VIA]
        target[phase <= HOVER, 2] += HOVER_HEIGHT
        lifting = phase == LIFT
        target[lifting] = eef[lifting] + [0.0, 0.0, POSITION_SCALE]
        return target

    def _advance(self, eef: Array, cube: Array) -> None:
        """Enter the next phase where the present one's goal is reached."""
        distance = np.linalg.norm(self._target(eef, cube) - eef, axis=1)
        limit = np.where(self._phase == DESCEND, 0.5 * REACHED, REACHED)
        self._closing += self._phase == GRASP
        moved = (self._phase < GRASP) & (distance < limit)
        closed = (self._phase == GRASP) & (self._closing >= GRASP_STEPS)
        self._phase += moved | closed


def tilt(quat: NDArray[np.floating]) -> Array:
    """Rotation vector ``[N, 3]``, rad, from orientations xyzw to "gripper straight down".

    Straight down is (1, 0, 0, 0); this is twice the vector part of its product with the conjugate,
    right for small angles and zero at the goal.
    """
    x, y, z, w = quat.T.astype(np.float64)
    return 2.0 * (np.sign(x) * np.stack([w, z, -y])).T
