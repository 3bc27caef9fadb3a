"""Episodes for batched simulations: chunks, early ends, same-step auto-reset, history, state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from genpolicy.spec import GenpolicyError, Observation, StepResult, TaskSpec

Array = NDArray[np.float64]
POOL = 64  # initial states drawn at a time for one environment


class Outcome(NamedTuple):
    """What the last control step of N simulations was worth."""

    reward: Array  # [N]
    terminated: NDArray[np.bool_]  # [N] the task is over
    success: NDArray[np.bool_]  # [N] the task is achieved


class BatchSim(Protocol):
    """N simulations of one task that know nothing of episodes.

    ``ids`` are the simulations that a call concerns (``None``: all); the others stay untouched.
    """

    num_envs: int
    draw_dim: int

    def draw(self, rng: np.random.Generator, count: int, /) -> Array:
        """Random numbers ``[count, draw_dim]`` that encode ``count`` initial states."""
        ...

    def start(self, ids: NDArray[np.intp], draws: Array) -> None:
        """Put simulations ``ids`` into the initial states ``draws [n, draw_dim]``."""
        ...

    def control_step(self, action: Array, ids: NDArray[np.intp] | None = None) -> None:
        """Execute one action ``[N, Da]``."""
        ...

    def observe(self, out: Array) -> None:
        """Write the observations ``[N, obs_dim]``, features in the order of the spec."""
        ...

    def outcome(self) -> Outcome:
        """Reward, termination and success of the last control step."""
        ...

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides the future, first axis N."""
        ...

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``get_state`` output."""
        ...

    def close(self) -> None:
        """Release threads."""
        ...


class BatchEnv:
    """A ``VecEnv`` over a ``BatchSim``.

    Args:
        sim: the simulations.
        spec: what they observe and take; ``spec.max_episode_steps`` truncates.
        history: To, observations per observation, oldest first; the first one fills all places.
        dtype: of the observations.
        terminate_on_success: whether an achieved task ends the episode.
    """

    def __init__(
        self,
        sim: BatchSim,
        spec: TaskSpec,
        *,
        history: int = 1,
        dtype: DTypeLike = np.float32,
        terminate_on_success: bool = True,
    ) -> None:
        self.sim, self.spec, self.num_envs = sim, spec, sim.num_envs
        self.terminate_on_success = terminate_on_success
        n = self.num_envs
        self._latest = np.zeros((n, spec.obs_dim))
        self._history = np.zeros((n, history, spec.obs_dim), dtype)
        self._elapsed = np.zeros(n, np.int64)
        self._starts = StartPool(sim)
        self._all = np.arange(n)
        self.reset()

    def reset(self, seed: int | None = None) -> Observation:
        """Start N new episodes; environment i starts where ``seed + i`` alone decides.

        Without a seed, each environment goes on in its own stream of initial states.
        """
        if seed is not None:
            self._starts.seed(seed)
        self._restart(self._all)
        return self._observation()

    def step(
        self, actions: NDArray[np.floating[Any]], active: NDArray[np.bool_] | None = None
    ) -> StepResult:
        """Execute a chunk ``actions [N, Ta, Da]``; values beyond the spec's bounds are clipped.

        Args:
            actions: any Ta >= 1. What follows the end of an episode is not executed.
            active: ``[N]`` environments that take part; the others are neither stepped nor reset
                (zero steps, zero reward) and cost nothing.

        Raises:
            GenpolicyError: wrong shape, or values that are not finite.
        """
        actions = self._checked(actions, active)
        n, chunk = actions.shape[:2]
        rewards = np.zeros((n, chunk))
        terminated, truncated, success = np.zeros((3, n), np.bool_)
        steps = np.zeros(n, np.int64)
        running = np.ones(n, np.bool_) if active is None else active.copy()
        for t in range(chunk):
            ids = None if running.all() else np.flatnonzero(running)
            if ids is not None and not len(ids):
                break
            self.sim.control_step(actions[:, t], ids)
            self._push(running)
            outcome = self.sim.outcome()
            rewards[:, t] = outcome.reward * running
            success |= outcome.success & running
            over = outcome.terminated & (~outcome.success | self.terminate_on_success)
            terminated |= over & running
            steps += running
            self._elapsed += running
            truncated |= (self._elapsed >= self.spec.max_episode_steps) & running & ~terminated
            running &= ~(terminated | truncated)
        final_obs = self._observation()
        done = np.flatnonzero(terminated | truncated)
        if len(done):
            self._restart(done)
        obs = self._observation() if len(done) else final_obs
        return StepResult(
            obs, rewards.sum(axis=1), rewards, terminated, truncated, final_obs, success, steps, {}
        )

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything an exact resume in mid-episode needs, as arrays with first axis N."""
        own = {"history": self._history.copy(), "elapsed": self._elapsed.copy()}
        return self.sim.get_state() | own | self._starts.get_state()

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> Observation:
        """Continue from ``get_state`` output and return the observation there.

        Raises:
            GenpolicyError: the state is of other environments.
        """
        try:
            self.sim.set_state(state)
            self._history[:], self._elapsed[:] = state["history"], state["elapsed"]
            self._starts.set_state(state)
        except (KeyError, ValueError) as error:
            raise GenpolicyError(
                f"simulator state does not fit {self.num_envs} {self.spec.task!r} environments "
                f"({error}): make the environment as it was when the state was saved"
            ) from error
        return self._observation()

    def close(self) -> None:
        """Release threads."""
        self.sim.close()

    def _checked(
        self, actions: NDArray[np.floating[Any]], active: NDArray[np.bool_] | None
    ) -> Array:
        actions = np.asarray(actions)
        n, dim = self.num_envs, self.spec.action.dim
        if actions.ndim != 3 or actions.shape[::2] != (n, dim) or not actions.shape[1]:
            raise GenpolicyError(f"actions must be [{n}, Ta, {dim}], got {list(actions.shape)}")
        if active is not None and active.shape != (n,):
            raise GenpolicyError(f"active must be [{n}], got {list(active.shape)}")
        if not np.isfinite(actions).all():
            bad = np.flatnonzero(~np.isfinite(actions).all(axis=(1, 2)))
            raise GenpolicyError(f"actions of environment {bad[0]} are not finite")
        return np.clip(actions.astype(np.float64), self.spec.action.low, self.spec.action.high)

    def _restart(self, ids: NDArray[np.intp]) -> None:
        self.sim.start(ids, self._starts.next(ids))
        self._elapsed[ids] = 0
        self.sim.observe(self._latest)
        self._history[ids] = self._latest[ids, None]

    def _push(self, running: NDArray[np.bool_]) -> None:
        """Append the current observation to the history of the running environments."""
        self.sim.observe(self._latest)
        if running.all():
            self._history[:, :-1] = self._history[:, 1:]
            self._history[:, -1] = self._latest
        else:
            self._history[running, :-1] = self._history[running, 1:]
            self._history[running, -1] = self._latest[running]

    def _observation(self) -> Observation:
        """The history, split by feature: views of one copy."""
        copy, obs, start = self._history.copy(), {}, 0
        for feature in self.spec.observations:
            obs[feature.name] = copy[:, :, start : start + feature.dim]
            start += feature.dim
        return obs


class StartPool:
    """Each environment's own endless sequence of initial states, drawn ``POOL`` at a time.

    Block b of environment i comes from ``default_rng([seed_i, b])``, so two integers per
    environment (its seed and its episode number) say exactly where it is.
    """

    def __init__(self, sim: BatchSim) -> None:
        self._sim = sim
        self._draws = np.zeros((sim.num_envs, POOL, sim.draw_dim))
        entropy = np.random.SeedSequence().generate_state(1)
        self.seed(int(entropy[0]))

    def seed(self, seed: int) -> None:
        """Start all sequences anew, environment i's from ``seed + i``."""
        if seed < 0:
            raise GenpolicyError(f"seed={seed} must not be negative")
        n = self._sim.num_envs
        self._seeds = seed + np.arange(n)
        self._episode = np.zeros(n, np.int64)

    def next(self, ids: NDArray[np.intp]) -> Array:
        """The next initial state of each environment in ``ids``, ``[n, draw_dim]``."""
        place = self._episode[ids] % POOL
        self._fill(ids[place == 0])
        self._episode[ids] += 1
        return self._draws[ids, place]

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Where every sequence is."""
        return {"start_seed": self._seeds.copy(), "start_episode": self._episode.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue every sequence."""
        self._seeds = np.array(state["start_seed"], np.int64)
        self._episode = np.array(state["start_episode"], np.int64)
        self._fill(np.flatnonzero(self._episode % POOL))

    def _fill(self, ids: NDArray[np.intp]) -> None:
        for i in ids:
            rng = np.random.default_rng([self._seeds[i], self._episode[i] // POOL])
            self._draws[i] = self._sim.draw(rng, POOL)
