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


def positive(config: Any, *names: str) -> None:
    """Refuse hyperparameters that are not above 0.

    Raises:
        GenpolicyError: the first of ``names`` that is not.
    """
    for name in names:
        if not getattr(config, name) > 0:
            raise GenpolicyError(f"algo.{name}={getattr(config, name)} must be positive")


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

    Observations are stored in task units (``seen``, ``seen_final``, ``[T, E, To, D]``) and as they
    were normalised when they were acted on, so acting and learning see the same numbers and the
    first PPO ratio is 1. The statistics are the pretrained policy's; from scratch (``adaptive``)
    they are running ones, which move in ``adapt`` only: after the update, before the next rollout.
    """

    def __init__(
        self, env: VecEnv, normalizer: Normalizer, steps: int, obs_dim: int, adaptive: bool = False
    ) -> None:
        shape = (steps, env.num_envs)
        device = normalizer.obs_mid.device
        self.env, self.normalizer, self.steps = env, normalizer, steps
        self.obs = torch.zeros(*shape, obs_dim, device=device)
        history = (obs_dim // env.spec.obs_dim, env.spec.obs_dim)
        self.seen = torch.zeros(*shape, *history, device=device)
        self.seen_final = torch.zeros_like(self.seen)
        self.final_obs = torch.zeros_like(self.obs)
        self.reward = np.zeros(shape, dtype=np.float32)  # sum over the chunk
        self.rewards: NDArray[np.float32] = np.zeros((*shape, 0), np.float32)  # [T, E, Ta]
        self.lengths = np.zeros(shape, dtype=np.int64)  # control steps that a chunk took
        self.terminated = np.zeros(shape, dtype=bool)
        self.truncated = np.zeros(shape, dtype=bool)
        self.success = np.zeros(shape, dtype=bool)  # so far in the episode
        self.env_steps = 0
        self.moments = RunningMoments(env.spec.obs_dim) if adaptive else None
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
        seen = self._flatten(self._next)
        for t in range(self.steps):
            self.seen[t], self.obs[t] = seen, self.normalizer.rows(seen)
            result = self.env.step(act(t, self.obs[t]))
            self._next, seen = result.obs, self._flatten(result.obs)
            self.seen_final[t] = self._flatten(result.final_obs) if result.done.any() else seen
            if self.rewards.shape[2] != result.rewards.shape[1]:  # Ta is known from here on
                self.rewards = np.zeros((*self.reward.shape, result.rewards.shape[1]), np.float32)
            self.rewards[t], self.lengths[t] = result.rewards, result.steps
            self.reward[t] = result.reward
            self.terminated[t], self.truncated[t] = result.terminated, result.truncated
            self.success[t] = result.success
            steps += int(result.steps.sum())
            self._count_episodes(result.reward, result.steps, result.done, result.success)
        self.final_obs = self.normalizer.rows(self.seen_final.flatten(0, 1)).view_as(self.obs)
        ranks = distributed.world_size()
        self.env_steps += round(float(distributed.mean(torch.tensor(float(steps)))) * ranks)

    def adapt(self) -> None:
        """Fold the observations of this rollout into the statistics (adaptive ones only)."""
        if self.moments is None:
            return
        self.moments.update(self.seen[:, :, -1].cpu().numpy())
        self.normalizer.set_obs(self.moments.mean, np.maximum(self.moments.std, MIN_STD))

    def _flatten(self, obs: Observation) -> Tensor:
        tensors = {key: torch.from_numpy(value).to(self.obs.device) for key, value in obs.items()}
        return self.normalizer.flatten(tensors)

    def _count_episodes(
        self, reward: NDArray[Any], steps: NDArray[Any], done: NDArray[Any], success: NDArray[Any]
    ) -> None:
        self._return += reward
        self._length += steps
        if done.any():
            whole = done & ~np.isnan(self._return)
            self._ended.append(np.stack([self._return[whole], self._length[whole], success[whole]]))
            self._return[done], self._length[done] = 0, 0

    def metrics(self) -> Metrics:
        """Means over the episodes that ended in this rollout (none: no entries)."""
        returns, lengths, success = np.concatenate([np.zeros((3, 0)), *self._ended], axis=1)
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
