"""Episodes from a vectorised environment, driven by an expert or a policy.

The environment and the driver come in as arguments, so this module knows no simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpolicy.data.demonstrations import Episode
from genpolicy.spec import GenpolicyError, Observation, VecEnv

Act = Callable[[Observation], NDArray[Any]]
MAX_ATTEMPTS_PER_EPISODE = 20


class CollectStats(NamedTuple):
    """What a collection did: ``kept`` of ``attempts`` episodes; the rest is over all attempts."""

    kept: int
    attempts: int
    successes: int
    env_steps: int
    total_return: float


def collect_episodes(
    env: VecEnv,
    act: Act,
    episodes: int,
    sink: Callable[[Episode], Any],
    *,
    seed: int = 0,
    success_only: bool = True,
    on_wave: Callable[[int], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> CollectStats:
    """Run waves of N episodes until ``episodes`` were handed to ``sink``.

    Attempt i starts from seed ``seed + i``, whatever N is, and episodes arrive in that order, so
    a collection does not depend on ``num_envs`` as long as ``act`` does not.

    Args:
        env: N environments.
        act: ``{name: [N, To, D]}`` to actions ``[N, Da]`` or chunks ``[N, Ta, Da]``, in task units.
        episodes: How many to keep.
        sink: Takes each kept episode: ``RobomimicWriter.add`` or ``list.append``.
        seed: Seed of the first attempt.
        success_only: Drop failures (demonstrations); keep them for value learning.
        on_wave: Called with the wave's first seed before each wave, e.g. to reset an expert.
        progress: Called with the number kept after each wave.

    Raises:
        GenpolicyError: Almost no attempt succeeds, or an action is not finite.
    """
    kept = attempts = successes = env_steps = 0
    total_return = 0.0
    while kept < episodes:
        if attempts >= MAX_ATTEMPTS_PER_EPISODE * episodes:
            raise GenpolicyError(
                f"collect: {successes} of {attempts} attempts succeeded, {episodes} episodes "
                "wanted: use a better checkpoint, or keep failures (success_only=false)"
            )
        if on_wave is not None:
            on_wave(seed + attempts)
        wave = _run_wave(env, act, seed + attempts)
        attempts += env.num_envs
        for episode, success in wave:
            successes += success
            env_steps += len(episode)
            total_return += float(episode.rewards.sum())
            if kept < episodes and (success or not success_only):
                sink(episode)
                kept += 1
        if progress is not None:
            progress(kept)
    return CollectStats(kept, attempts, successes, env_steps, total_return)


def _run_wave(env: VecEnv, act: Act, seed: int) -> list[tuple[Episode, bool]]:
    """One episode per environment; what auto-reset starts afterwards is not recorded."""
    steps, count = env.spec.max_episode_steps, env.num_envs
    obs = env.reset(seed=seed)
    record = _Record(env, obs, steps)
    chunk = np.empty((count, 0, env.spec.action.dim))
    used = 0
    for _ in range(steps):
        if used == chunk.shape[1]:
            chunk, used = _chunk(act(obs)), 0
        obs = record.step(env, obs, chunk[:, used : used + 1])
        used += 1
        if record.over.all():
            break
    return [record.episode(i) for i in range(count)]


def _chunk(actions: NDArray[Any]) -> NDArray[Any]:
    """``[N, Da]`` or ``[N, Ta, Da]`` to ``[N, Ta, Da]``."""
    if not np.isfinite(actions).all():
        raise GenpolicyError("collect: the driver returned an action that is not finite")
    return actions[:, None] if actions.ndim == 2 else actions


class _Record:
    """Preallocated recording of one wave: ``[T_max, N, ...]`` per array."""

    def __init__(self, env: VecEnv, obs: Observation, steps: int) -> None:
        count, dim = env.num_envs, env.spec.action.dim
        self.obs = {k: np.empty((steps, count, *v.shape[2:]), v.dtype) for k, v in obs.items()}
        self.next_obs = {key: np.empty_like(value) for key, value in self.obs.items()}
        self.actions = np.empty((steps, count, dim))
        self.rewards = np.zeros((steps, count))
        self.dones = np.zeros((steps, count), dtype=np.bool_)
        self.states: list[NDArray[np.float64]] = []  # one [N, S] per step, where there are any
        self.steps = 0
        self.lengths = np.zeros(count, dtype=np.int64)
        self.success = np.zeros(count, dtype=np.bool_)
        self.over = np.zeros(count, dtype=np.bool_)

    def step(self, env: VecEnv, obs: Observation, actions: NDArray[Any]) -> Observation:
        """Execute ``actions [N, 1, Da]`` and record the transition."""
        t, self.steps = self.steps, self.steps + 1
        state = env.get_state()
        if "qpos" in state:  # other simulators keep theirs to themselves
            self.states.append(_flat_state(state, t / env.spec.control_hz))
        result = env.step(actions)
        for key in self.obs:
            self.obs[key][t] = obs[key][:, -1]
            self.next_obs[key][t] = result.final_obs[key][:, -1]
        self.actions[t] = actions[:, 0]
        self.rewards[t] = result.reward
        self.dones[t] = result.terminated
        self.lengths += ~self.over
        self.success |= result.success & ~self.over
        self.over |= result.done
        return result.obs

    def episode(self, i: int) -> tuple[Episode, bool]:
        """Environment i's episode, and whether it succeeded."""
        length = int(self.lengths[i])
        episode = Episode(
            obs={key: value[:length, i] for key, value in self.obs.items()},
            next_obs={key: value[:length, i] for key, value in self.next_obs.items()},
            actions=self.actions[:length, i],
            rewards=self.rewards[:length, i],
            dones=self.dones[:length, i],
            states=np.stack([s[i] for s in self.states[:length]]) if self.states else None,
        )
        return episode, bool(self.success[i])


def _flat_state(state: Any, time_s: float) -> NDArray[np.float64]:
    """Robomimic's ``[time, qpos, qvel]`` per environment, ``[N, 1 + nq + nv]``."""
    qpos, qvel = np.asarray(state["qpos"]), np.asarray(state["qvel"])
    time = np.broadcast_to(np.asarray(state.get("time", time_s)).reshape(-1, 1), (len(qpos), 1))
    return np.concatenate([time, qpos, qvel], axis=1)
