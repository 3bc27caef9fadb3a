"""The part of ``gym_env`` that runs in worker processes: Gymnasium environments, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Dict
from numpy.typing import NDArray

Array = NDArray[np.float64]
DEFAULT_HZ = 30.0  # of environments that state no render_fps


class Trace(NamedTuple):
    """What a chunk of Ta steps did to n environments; zero where nothing was executed."""

    obs: Array  # [n, Ta, D] after each step
    rewards: Array  # [n, Ta]
    terminated: NDArray[np.bool_]  # [n]
    truncated: NDArray[np.bool_]  # [n]
    success: NDArray[np.bool_]  # [n]
    steps: NDArray[np.int64]  # [n]
    first: Array  # [n, D] of the next episode, where one ended

    @classmethod
    def empty(cls, count: int, chunk: int, dim: int) -> Trace:
        """Nothing was executed."""
        over, cut, success = np.zeros((3, count), np.bool_)
        obs, rewards = np.zeros((count, chunk, dim)), np.zeros((count, chunk))
        first, steps = np.zeros((count, dim)), np.zeros(count, np.int64)
        return cls(obs, rewards, over, cut, success, steps, first)


class Facts(NamedTuple):
    """What an environment says about itself."""

    observation_space: Any
    action_space: Any
    max_episode_steps: int | None
    control_hz: float


class Block:
    """The environments of one worker process."""

    def __init__(
        self,
        make_env: str | Callable[[], Any],
        kwargs: dict[str, Any],
        max_episode_steps: int | None,
        ids: list[int],
    ) -> None:
        if isinstance(make_env, str):
            make_env = partial(
                gymnasium.make,
                make_env,
                max_episode_steps=max_episode_steps,
                disable_env_checker=True,  # what matters here is checked here
            )
        self._envs: list[Any] = [make_env(**kwargs) for _ in ids]
        own = getattr(self._envs[0], "spec", None)
        self._limit = max_episode_steps or (own.max_episode_steps if own else None)
        self._elapsed = [0] * len(ids)

    def facts(self) -> Facts:
        """What the description of the task is made from."""
        env = self._envs[0]
        hz = (env.metadata or {}).get("render_fps") or DEFAULT_HZ
        return Facts(env.observation_space, env.action_space, self._limit, float(hz))

    def reset(self, seeds: list[int | None]) -> Array:
        """First observations ``[n, D]``."""
        return np.stack([self._reset(i, seed) for i, seed in enumerate(seeds)])

    def _reset(self, i: int, seed: int | None = None) -> Array:
        self._elapsed[i] = 0
        return self._flat(i, self._envs[i].reset(seed=seed)[0])

    def step(self, actions: Array, active: NDArray[np.bool_]) -> Trace:
        """A chunk ``[n, Ta, Da]``; episodes that end are followed by new ones at once."""
        dim = sum(size_of(box) for box in boxes_of(self._envs[0].observation_space).values())
        trace = Trace.empty(actions.shape[0], actions.shape[1], dim)
        space = self._envs[0].action_space
        chunks = actions.astype(space.dtype).reshape(*actions.shape[:2], *space.shape)
        for i in np.flatnonzero(active):
            self._run(i, chunks[i], trace)
        return trace

    def _run(self, i: int, chunk: NDArray[Any], trace: Trace) -> None:
        for t, action in enumerate(chunk):
            obs, trace.rewards[i, t], terminated, truncated, info = self._envs[i].step(action)
            trace.obs[i, t] = self._flat(i, obs)
            trace.success[i] |= bool(info.get("is_success", info.get("success", False)))
            trace.steps[i] += 1
            self._elapsed[i] += 1
            truncated = truncated or self._elapsed[i] >= (self._limit or np.inf)
            if terminated or truncated:
                trace.terminated[i], trace.truncated[i] = terminated, not terminated
                trace.first[i] = self._reset(i)
                return

    def _flat(self, i: int, obs: Any) -> Array:
        """``[D]``, features in the order of the spec."""
        boxes = boxes_of(self._envs[i].observation_space)
        parts = obs if isinstance(obs, Mapping) else {"observation": obs}
        for name, box in boxes.items():
            if np.shape(parts[name]) != box.shape:
                raise ValueError(
                    f"{name} has shape {np.shape(parts[name])}, its observation_space {box.shape}"
                )
        return np.concatenate([np.ravel(parts[name]) for name in boxes]).astype(np.float64)


def boxes_of(space: Any) -> dict[str, Any]:
    """Observation spaces by feature."""
    return dict(space.spaces) if isinstance(space, Dict) else {"observation": space}


def size_of(box: Any) -> int:
    """Number of scalars in a space."""
    return int(np.prod(box.shape))
