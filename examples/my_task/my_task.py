"""A task of one's own: push a point on a line to a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from genpolicy.spec import ActionSpec, Feature, Observation, StepResult, TaskSpec

DT = 0.1  # s
STATE = ("_seen", "_time", "_seed", "_episode")


class Reach1D:
    """N points with velocity as action; the reward is minus the distance to the target."""

    def __init__(self, num_envs: int, history: int, dtype: Any, max_episode_steps: int) -> None:
        self.spec = TaskSpec(
            task="reach_1d",
            robot="point",
            observations=(Feature("position", (1,), "m"), Feature("target", (1,), "m")),
            action=ActionSpec(("velocity",), ("m/s",), (-1.0,), (1.0,)),
            control_mode="velocity",
            control_hz=1 / DT,
            max_episode_steps=max_episode_steps,
            score="return",  # or "success"
        )
        self.num_envs, self._dtype = num_envs, dtype
        self._seen = np.zeros((num_envs, history, 2))  # position and target, oldest first
        self._time, self._seed, self._episode = np.zeros((3, num_envs), np.int64)
        self.reset(0)

    def reset(self, seed: int | None = None) -> Observation:
        """Start N episodes; environment i depends on ``seed + i`` alone."""
        if seed is not None:
            self._seed, self._episode[:] = seed + np.arange(self.num_envs), 0
        return self._restart(np.arange(self.num_envs))

    def step(self, actions: np.ndarray, active: np.ndarray | None = None) -> StepResult:
        """Execute ``actions [N, Ta, 1]``; episodes that end are followed by new ones at once."""
        count, chunk = actions.shape[:2]
        running = np.ones(count, bool) if active is None else active.copy()
        rewards, steps = np.zeros((count, chunk)), np.zeros(count, np.int64)
        terminated, truncated, success = np.zeros((3, count), np.bool_)
        for t in range(chunk):
            move = DT * np.clip(actions[:, t], -1, 1)
            latest = self._seen[:, -1] + np.pad(move, ((0, 0), (0, 1)))  # the target stays
            self._seen[running] = np.append(self._seen[:, 1:], latest[:, None], axis=1)[running]
            distance = abs(latest[:, 0] - latest[:, 1])
            rewards[:, t] = -distance * running
            success |= (distance < 0.05) & running
            steps += running
            self._time += running
            truncated |= running & (self._time >= self.spec.max_episode_steps)
            running &= ~truncated
        last = self._observation()
        obs = self._restart(np.flatnonzero(truncated))
        total = rewards.sum(axis=1)
        return StepResult(obs, total, rewards, terminated, truncated, last, success, steps, {})

    def _restart(self, ids: np.ndarray) -> Observation:
        for i in ids:
            rng = np.random.default_rng([self._seed[i], self._episode[i]])
            self._seen[i], self._time[i] = rng.uniform(-1, 1, 2), 0
            self._episode[i] += 1
        return self._observation()

    def _observation(self) -> Observation:
        seen = self._seen.astype(self._dtype)
        return {"position": seen[..., :1], "target": seen[..., 1:]}

    def get_state(self) -> dict[str, np.ndarray]:
        """Everything that decides the future."""
        return {name: getattr(self, name).copy() for name in STATE}

    def set_state(self, state: Mapping[str, np.ndarray]) -> Observation:
        """Go on from there."""
        for name in STATE:
            getattr(self, name)[:] = state[name]
        return self._observation()

    def close(self) -> None:
        """Nothing to release."""


def make(
    num_envs: int, *, history: int = 1, dtype: Any = np.float32, max_episode_steps: int = 40
) -> Reach1D:
    """The factory that the entry point names; further keywords are ``task.options``."""
    return Reach1D(num_envs, history, dtype, max_episode_steps)
