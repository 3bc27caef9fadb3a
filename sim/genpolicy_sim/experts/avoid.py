"""A scripted, noisy expert for avoid that takes all 24 ways equally often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Observation
from genpolicy_sim.avoid import (
    NUM_MODES,
    POSITION_SCALE,
    ROW_X,
    ROW_Y,
    START,
    gaps,
)

Array = NDArray[np.float64]

OUTER = 0.065  # m, middle of an outermost passage, beyond the cylinder's centre
STRAIGHT = 0.04  # m before and after a row without sideways motion
SPREAD = 0.012  # m, standard deviation of where a gap is passed
SPREAD_LIMIT = 0.02  # m
SPEED = 0.8  # of the fastest
GAIN = 0.5  # of the sideways error that one step corrects


class AvoidExpert:
    """Follows a smooth curve x(y) through one gap of each row, for N environments.

    Args:
        num_envs: N.
        rng: draws ways and noise.
        noise: standard deviation of the Gaussian noise on the action, action units.
    """

    def __init__(self, num_envs: int, rng: np.random.Generator, noise: float = 0.05) -> None:
        self.num_envs, self.rng, self.noise = num_envs, rng, noise
        self._through = np.zeros((num_envs, len(ROW_Y) + 1))  # x at the start and at each row
        self.reset()

    def reset(self, mask: NDArray[np.bool_] | None = None) -> None:
        """Draw a way for new episodes, in the environments of ``mask`` (default all)."""
        mask = np.ones(self.num_envs, np.bool_) if mask is None else mask
        chosen = gaps(self.rng.integers(NUM_MODES, size=self.num_envs))
        spread = SPREAD * self.rng.standard_normal((self.num_envs, len(ROW_Y)))
        spread = np.clip(spread, -SPREAD_LIMIT, SPREAD_LIMIT)
        for row in range(len(ROW_Y)):
            at = passages(row)[chosen[:, row]] + spread[:, row]
            self._through[mask, row + 1] = at[mask]
        self._through[mask, 0] = START[0]

    def act(self, obs: Observation) -> Array:
        """Actions ``[N, 1, 2]`` for observations ``{name: [N, To, D]}``."""
        x, y = obs["target"][:, -1].astype(np.float64).T
        at, slope = self._curve(y)
        along = np.stack([slope, np.ones_like(slope)]) / np.hypot(slope, 1.0)
        action = SPEED * along
        action[0] += GAIN * (at - x) / POSITION_SCALE
        action += self.noise * self.rng.standard_normal(action.shape)
        return np.clip(action.T, -1.0, 1.0)[:, None]

    def _curve(self, y: Array) -> tuple[Array, Array]:
        """Where the way is at heights ``y [N]``, and dx/dy: smooth steps, straight in the gaps."""
        at, slope = self._through[:, 0].copy(), np.zeros_like(y)
        begin = START[1]
        for row, row_y in enumerate(ROW_Y):
            span = row_y - STRAIGHT - begin
            t = np.clip((y - begin) / span, 0.0, 1.0)
            rise = self._through[:, row + 1] - self._through[:, row]
            at += rise * t * t * (3.0 - 2.0 * t)
            slope += rise * 6.0 * t * (1.0 - t) / span
            begin = row_y + STRAIGHT
        return at, slope


def passages(row: int) -> Array:
    """Middle of each gap of a row, x, m."""
    x = np.array(ROW_X[row])
    return np.concatenate([x[:1] - OUTER, 0.5 * (x[:-1] + x[1:]), x[-1:] + OUTER])
