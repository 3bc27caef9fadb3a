"""Advantages and reward scaling, for any on-policy method."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.finetune.moments import RunningMoments

Array = NDArray[np.float32]


def gae(
    reward: Array,
    value: Array,
    final_value: Array,
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    gamma: float,
    lam: float,
) -> tuple[Array, Array]:
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16), all arguments ``[T, E]``.

    ``final_value`` is V of the observation each step led to *within its own episode*: a time
    limit bootstraps from where the episode really stopped, and the λ-trace never crosses into
    the next one.

    Returns:
        Advantages and value targets ``[T, E]``.
    """
    delta = reward + gamma * np.where(terminated, 0.0, final_value) - value
    trace = gamma * lam * ~(terminated | truncated)
    advantage = np.zeros_like(value)
    running = np.zeros_like(value[0])
    for t in reversed(range(len(reward))):
        running = delta[t] + trace[t] * running
        advantage[t] = running
    return advantage, advantage + value


class RewardScaler:
    """Divides rewards by the running std of the discounted return (no mean is subtracted).

    Value targets of order one make one critic learning rate fit all tasks. ``floor`` keeps a
    sparse reward that has hardly been seen yet from being blown up.
    """

    def __init__(self, num_envs: int, gamma: float, floor: float = 0.1, clip: float = 10.0) -> None:
        self.gamma, self.floor, self.clip = gamma, floor, clip
        self.returns = np.zeros(num_envs)
        self.moments = RunningMoments(1)

    def __call__(self, reward: NDArray[Any], done: NDArray[np.bool_]) -> Array:
        """Update with the rewards ``[T, E]`` of a rollout and return them scaled."""
        history = np.empty(reward.shape)
        for t in range(len(reward)):
            self.returns = self.returns * self.gamma + reward[t]
            history[t] = self.returns
            self.returns = np.where(done[t], 0.0, self.returns)
        self.moments.update(history[..., None])
        return np.clip(reward / self.std, -self.clip, self.clip).astype(np.float32)

    @property
    def std(self) -> float:
        """Running std of the discounted return, at least ``floor``."""
        return max(float(self.moments.std[0]) if self.moments.count else 1.0, self.floor)

    def state_dict(self) -> dict[str, Any]:
        """Counts included: a resumed run goes on with the same statistics."""
        return {"returns": self.returns, "moments": self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.returns = np.asarray(state["returns"])
        self.moments.load_state_dict(state["moments"])
