"""What the scripted experts of arms share: randomness per episode, phases, ways to point."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Observation
from genpolicy_sim.quaternions import conjugate, multiply, upper

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

POSITION_SCALE = 0.05  # m per unit action
ROTATION_SCALE = 0.5  # rad per unit action
# Friction in the joints stops an arm 2 cm short of a goal that is 2 cm away: so goals lie beyond.
POSITION_GAIN = 3.0
ROTATION_GAIN = 2.0
ROTATION_NOISE = 0.5  # of the noise on translation
NOISE_STEPS = 256  # drawn per episode; a longer one meets the same noise again
LEAN_FROM, LEAN_RATE, MOST_LEAN = 0.65, 2.5, 0.4  # m, rad/m, rad
WXYZ = [3, 0, 1, 2]  # columns of a quaternion xyzw in MuJoCo's order


class ScriptedExpert(ABC):
    """An expert for N environments: actions of a plan that sees observations only, and noise.

    All random numbers of an episode are drawn when it begins, one environment after the other: the
    k-th episode gets the same ones whatever N is.

    Args:
        num_envs: N.
        rng: draws sides and noise.
        noise: standard deviation of the Gaussian noise on the translation, action units.
        bimodal: go round by the left or the right (a fair coin per episode), so that the same
            state has two good actions; otherwise straight.
    """

    num_arms = 1  # A

    def __init__(
        self,
        num_envs: int,
        rng: np.random.Generator,
        noise: float = 0.3,
        bimodal: bool = True,
    ) -> None:
        self.num_envs, self.rng, self.noise, self.bimodal = num_envs, rng, noise, bimodal
        self._new = np.ones(num_envs, np.bool_)  # whether the next observation begins an episode
        self._step = np.zeros(num_envs, np.int64)
        self._side = np.ones(num_envs)
        self._noise = np.zeros((num_envs, NOISE_STEPS, self.num_arms, 7), np.float32)
        self._set_up()

    @abstractmethod
    def _set_up(self) -> None:
        """Make what the plan remembers of N environments."""

    def reset(self, mask: Mask | None = None) -> None:
        """Begin new episodes, in the environments of ``mask`` (default all)."""
        self._new[slice(None) if mask is None else mask] = True

    def act(self, obs: Observation) -> Array:
        """Actions ``[N, 1, 7 A]`` for observations ``{name: [N, To, D]}``."""
        if self._new.any():
            self._draw(np.flatnonzero(self._new))
            self._begin(self._new)
            self._new[:] = False
        noise = self._noise[np.arange(self.num_envs), self._step % NOISE_STEPS]
        now = {name: value[:, -1].astype(np.float64) for name, value in obs.items()}
        action = self._plan(now) + noise.reshape(self.num_envs, -1)
        self._step += 1
        return np.clip(action, -1.0, 1.0)[:, None]

    def _draw(self, rows: NDArray[np.intp]) -> None:
        """Random numbers for the episodes that begin in environments ``rows``."""
        drawn = self.rng.standard_normal((len(rows), 1 + NOISE_STEPS * self.num_arms * 6))
        self._side[rows] = np.where(drawn[:, 0] < 0.0, -1.0, 1.0)
        noise = self.noise * drawn[:, 1:].reshape(-1, NOISE_STEPS, self.num_arms, 6)
        self._noise[rows, :, :, :3] = noise[..., :3]
        self._noise[rows, :, :, 3:6] = ROTATION_NOISE * noise[..., 3:]
        self._step[rows] = 0

    @abstractmethod
    def _begin(self, mask: Mask) -> None:
        """Forget what was planned in the environments of ``mask``: an episode begins."""

    @abstractmethod
    def _plan(self, obs: dict[str, Array]) -> Array:
        """Actions ``[N, 7 A]`` without noise for observations ``{name: [N, D]}``."""


class Phases:
    """Which of a plan's phases, numbered from 0, each of N environments is in, and how long."""

    def __init__(self, num_envs: int) -> None:
        self.now = np.zeros(num_envs, np.int64)
        self.steps = np.zeros(num_envs, np.int64)

    def enter(self, mask: Mask, phase: NDArray[np.int64] | int) -> None:
        """Go to ``phase`` in the environments of ``mask``."""
        self.now = np.where(mask, phase, self.now)
        self.steps[mask] = 0

    def of(self, choices: list[Array]) -> Array:
        """The present phase's entry of ``choices``, one ``[N, ...]`` per phase."""
        return np.stack(choices)[self.now, np.arange(len(self.now))]


def move(eef: Array, quat: Array, target: Array, aim: Array, gripper: Array) -> Array:
    """Proportional control ``[N, 7]`` of an arm.

    Args:
        eef: ``[N, 3]`` m, where it is.
        quat: ``[N, 4]`` xyzw, how it is turned.
        target: ``[N, 3]`` m, where it shall be.
        aim: ``[N, 4]`` wxyz, how it shall be turned.
        gripper: ``[N]`` -1 opens, 1 closes.
    """
    go = POSITION_GAIN / POSITION_SCALE * (target - eef)
    turn = ROTATION_GAIN / ROTATION_SCALE * turn_to(quat[:, WXYZ], aim)
    return np.clip(np.concatenate([go, turn, gripper[:, None]], axis=1), -1.0, 1.0)


def turn_to(quat: Array, aim: Array) -> Array:
    """Rotation vector ``[N, 3]``, rad, from orientations wxyz to ``aim``, if the angle is small."""
    return 2.0 * upper(multiply(aim, conjugate(quat)))[:, 1:]


def pointing_down(angle: Array) -> Array:
    """Orientations wxyz ``[N, 4]`` of a hand that points straight down, turned by ``angle [N]``.

    rad about the world's z; at 0 the fingers close along its y.
    """
    zero = np.zeros_like(angle)
    return np.stack([zero, np.cos(0.5 * angle), np.sin(0.5 * angle), zero], axis=-1)


def leaning(aim: Array, out: Array) -> Array:
    """Orientations wxyz that lean out, the more the farther the hand is from its arm's base.

    Pointing straight down there, the arm would be stretched and lock.

    Args:
        aim: ``[N, 4]`` wxyz, of hands that point down.
        out: ``[N, 2]`` m, from the base to the hand.
    """
    distance = np.maximum(np.linalg.norm(out, axis=1), 1e-9)
    half = 0.5 * np.clip(LEAN_RATE * (distance - LEAN_FROM), 0.0, MOST_LEAN)
    x, y = out.T / distance
    lean = [np.cos(half), np.sin(half) * y, -np.sin(half) * x, np.zeros_like(half)]
    return multiply(np.stack(lean, axis=1), aim)
