"""On-policy rollouts in chunk steps: preallocated storage and the loop that fills it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genpolicy.data.normalizer import Normalizer
from genpolicy.finetune.moments import RunningMoments
from genpolicy.interfaces import Metrics
from genpolicy.runs import distributed
from genpolicy.spec import GenpolicyError, Observation, VecEnv

# (chunk step, normalised observations [E, C]) -> actions [E, Ta, Da] in task units
Act = Callable[[int, Tensor], NDArray[Any]]
# Smallest std that an observation is divided by: one that never moves must not become noise.
MIN_STD = 1e-2


def at_least_one(config: Any, *names: str) -> None:
    """Refuse hyperparameters below 1.

    Raises:
        GenpolicyError: the first of ``names`` that is.
    """
    for name in names:
        if getattr(config, name) < 1:
            raise GenpolicyError(f"algo.{name}={getattr(config, name)} must be at least 1")


@dataclass(frozen=True)
class RolloutConfig:
    """How experience is gathered.

    Attributes:
        rollout_steps: Chunk steps per environment and iteration.
        normalize_obs: Normalise observations by running statistics instead of the policy's own;
            null: only from scratch, where a policy has none.
        stagger: Let the first episodes end one after the other, where the environments can.
            Otherwise all environments of a task without early ends stay in step, and a rollout
            shows one phase of the episode only. null: only from scratch.
    """

    rollout_steps: int = 16
    normalize_obs: bool | None = None
    stagger: bool | None = None

    def __post_init__(self) -> None:
        """Refuse an empty rollout."""
        at_least_one(self, "rollout_steps")


class Rollout:
    """T chunk steps of E environments; episodes run on across rollouts.

    Observations are stored normalised, so acting and learning see the same numbers and the first
    PPO ratio is 1. The statistics are the pretrained policy's; from scratch (``adaptive``) they
    are running ones, which move in ``adapt`` only: after the update, before the next rollout.
    """

    def __init__(
        self, env: VecEnv, normalizer: Normalizer, steps: int, obs_dim: int, adaptive: bool = False
    ) -> None:
        shape = (steps, env.num_envs)
        device = normalizer.obs_mid.device
        self.env, self.normalizer, self.steps = env, normalizer, steps
        self.obs = torch.zeros(*shape, obs_dim, device=device)
        self.final_obs = torch.zeros_like(self.obs)
        self.reward = np.zeros(shape, dtype=np.float32)
        self.terminated = np.zeros(shape, dtype=bool)
        self.truncated = np.zeros(shape, dtype=bool)
        self.env_steps = 0
        self.moments = RunningMoments(env.spec.obs_dim) if adaptive else None
        self._seen = torch.zeros(*shape, env.spec.obs_dim) if adaptive else None  # task units
        self._next: Observation | None = None
        self._return, self._length = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
        self._ended: list[NDArray[Any]] = []

    def reset(self, seed: int, stagger: bool = False) -> None:
        """Start new episodes.

        Args:
            seed: of their initial states.
            stagger: let their time limits come one after the other, evenly spread over an
                episode, where the environments' state tells their time (``elapsed``). Episodes
                that are cut short by this are not counted in the metrics.
        """
        self._next = self.env.reset(seed)
        self._return[:], self._length[:] = 0, 0
        if stagger and "elapsed" in (state := self.env.get_state()):
            envs = np.arange(self.env.num_envs)
            elapsed = envs * self.env.spec.max_episode_steps // self.env.num_envs
            self._next = self.env.set_state(state | {"elapsed": elapsed})
            self._return[elapsed > 0] = np.nan

    def collect(self, act: Act) -> None:
        """Fill the storage; ``act`` may store whatever else its method needs per step."""
        assert self._next is not None, "reset before collect"
        self._ended, steps = [], 0
        obs = self._normalize(self._next)
        for t in range(self.steps):
            self.obs[t] = obs
            if self._seen is not None:
                self._seen[t] = self.normalizer.flatten(self._tensors(self._next))[:, -1]
            result = self.env.step(act(t, obs))
            self._next, obs = result.obs, self._normalize(result.obs)
            self.final_obs[t] = self._normalize(result.final_obs) if result.done.any() else obs
            self.reward[t] = result.reward
            self.terminated[t], self.truncated[t] = result.terminated, result.truncated
            steps += int(result.steps.sum())
            self._count_episodes(result.reward, result.steps, result.done, result.success)
        ranks = distributed.world_size()
        self.env_steps += round(float(distributed.mean(torch.tensor(float(steps)))) * ranks)

    def adapt(self) -> None:
        """Fold the observations of this rollout into the statistics (adaptive ones only)."""
        if self.moments is None or self._seen is None:
            return
        self.moments.update(self._seen.numpy())
        self.normalizer.set_obs(self.moments.mean, np.maximum(self.moments.std, MIN_STD))

    def _tensors(self, obs: Observation) -> dict[str, Tensor]:
        return {key: torch.from_numpy(value).to(self.obs.device) for key, value in obs.items()}

    def _normalize(self, obs: Observation) -> Tensor:
        return self.normalizer.obs(self._tensors(obs))

    def _count_episodes(
        self, reward: NDArray[Any], steps: NDArray[Any], done: NDArray[Any], success: NDArray[Any]
    ) -> None:
        self._return += reward
        self._length += steps
        if done.any():
            whole = done & ~np.isnan(self._return)
            self._ended.append(np.stack([self._return[whole], self._length[whole], success[whole]]))
            self._return[done], self._length[done] = 0, 0

    def returns(self) -> list[float]:
        """Of the episodes that ended in this rollout."""
        return self._finished()[0].tolist()

    def _finished(self) -> NDArray[Any]:
        """Return, length and success of each of them, ``[3, K]``."""
        return np.concatenate([np.zeros((3, 0)), *self._ended], axis=1)

    def metrics(self) -> Metrics:
        """Means over the episodes that ended in this rollout (none: no entries)."""
        returns, lengths, success = self._finished()
        if not returns.size:
            return {}
        metrics = {
            "rollout/return_mean": float(returns.mean()),
            "rollout/episode_len": float(lengths.mean()),
            "rollout/episodes": float(returns.size),
        }
        if self.env.spec.score == "success":  # others may never succeed
            metrics["rollout/success_rate"] = float(success.mean())
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Simulator state and the running episode counts."""
        return {
            "env": self.env.get_state(),
            "obs": dict(self._next or {}),
            "return": self._return,
            "length": self._length,
            "env_steps": self.env_steps,
            "moments": self.moments.state_dict() if self.moments else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue in the middle of the episodes that ``state_dict`` saw.

        Environments that cannot (other people's, in Gymnasium) start new ones: they show another
        observation than was saved, and what their old episodes had earned is forgotten.
        """
        env_state = {name: np.asarray(value) for name, value in state["env"].items()}
        self._next = self.env.set_state(env_state)
        goes_on = np.ones(self.env.num_envs, dtype=bool)
        for name, value in self._next.items():
            same = value == np.asarray(state["obs"][name])
            goes_on &= same.reshape(len(same), -1).all(axis=1)
        self._return = np.where(goes_on, np.asarray(state["return"]), 0.0)
        self._length = np.where(goes_on, np.asarray(state["length"]), 0)
        self.env_steps = int(state["env_steps"])
        if self.moments is not None:
            self.moments.load_state_dict(state["moments"])
