"""Episodes for batched simulations: chunks, early ends, same-step auto-reset, history, state."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from genpolicy.spec import GenpolicyError, Observation, StepResult, TaskSpec
from genpolicy_sim.chunks import by_feature, checked_actions
from genpolicy_sim.episodes import Array, Episodes, begin, note_all

POOL = 64  # initial states drawn at a time for one environment


class Outcome(NamedTuple):
    """What the last control step of N simulations was worth."""

    reward: Array  # [N]
    terminated: NDArray[np.bool_]  # [N] the task is over
    success: NDArray[np.bool_]  # [N] the task is achieved


class Startable(Protocol):
    """N simulations of one task. ``ids`` are those that a call concerns; others stay untouched."""

    num_envs: int
    draw_dim: int

    def draw(self, rng: np.random.Generator, count: int, /) -> Array:
        """Random numbers ``[count, draw_dim]`` that encode ``count`` initial states."""
        ...

    def start(self, ids: NDArray[np.intp], draws: Array) -> None:
        """Put simulations ``ids`` into the initial states ``draws [n, draw_dim]``."""
        ...

    def observe(self, out: Array) -> None:
        """Write the observations ``[N, obs_dim]``, features in the order of the spec."""
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


class BatchSim(Startable, Protocol):
    """Simulations that are stepped one control step at a time and know nothing of episodes."""

    def control_step(self, action: Array, ids: NDArray[np.intp] | None = None) -> None:
        """Execute one action ``[N, Da]`` (``ids=None``: in all)."""
        ...

    def outcome(self) -> Outcome:
        """Reward, termination and success of the last control step."""
        ...


@runtime_checkable
class ChunkSim(Startable, Protocol):
    """Simulations that run a whole chunk of control steps by themselves."""

    def run_chunk(self, actions: Array, episodes: Episodes, ids: NDArray[np.intp]) -> None:
        """Execute ``actions [N, Ta, Da]`` until episodes end.

        It must ``begin`` the chunk in ``episodes`` and ``note`` each control step there.
        """
        ...


class BatchEnv:
    """A ``VecEnv`` over simulations.

    Args:
        sim: the simulations.
        spec: what they observe and take; ``spec.max_episode_steps`` truncates.
        history: To, observations per observation, oldest first; the first one fills all places.
        dtype: of the observations.
        terminate_on_success: whether an achieved task ends the episode.
    """

    def __init__(
        self,
        sim: BatchSim | ChunkSim,
        spec: TaskSpec,
        *,
        history: int = 1,
        dtype: DTypeLike = np.float32,
        terminate_on_success: bool = True,
    ) -> None:
        self.sim, self.spec, self.num_envs = sim, spec, sim.num_envs
        self.terminate_on_success = terminate_on_success
        n = self.num_envs
        self._dtype = np.dtype(dtype)
        self._latest = np.zeros((n, spec.obs_dim))
        self._history = np.zeros((n, history, spec.obs_dim))
        self._elapsed = np.zeros(n, np.int64)
        self._episodes = self._new_chunk(1)
        self._starts = StartPool(sim)
        self._all = np.arange(n)
        # Decided once: asking for a protocol takes as long as many a step.
        chunks = isinstance(sim, ChunkSim)
        self._run_chunk = sim.run_chunk if chunks else partial(_step_by_step, sim)
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
        actions = checked_actions(actions, self.num_envs, self.spec.action, active)
        if actions.shape[1] != self._episodes.rewards.shape[1]:
            self._episodes = self._new_chunk(actions.shape[1])
        episodes = self._episodes
        ids = self._all if active is None else np.flatnonzero(active)
        self._run_chunk(actions, episodes, ids)
        final_obs = self._observation()
        obs, over = final_obs, episodes.terminated | episodes.truncated
        if np.count_nonzero(over):  # several times as fast as any()
            self._restart(np.flatnonzero(over))
            obs = self._observation()
        return StepResult(
            obs,
            episodes.total.copy(),
            episodes.rewards.copy(),
            episodes.terminated.copy(),
            episodes.truncated.copy(),
            final_obs,
            episodes.success.copy(),
            episodes.steps.copy(),
            {},
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

    def _new_chunk(self, chunk: int) -> Episodes:
        n = self.num_envs
        terminated, truncated, success = np.zeros((3, n), np.bool_)
        return Episodes(
            self._history,
            self._elapsed,
            np.zeros((n, chunk)),
            np.zeros(n),
            np.zeros(n, np.int64),
            terminated,
            truncated,
            success,
            self.spec.max_episode_steps,
            self.terminate_on_success,
        )

    def _restart(self, ids: NDArray[np.intp]) -> None:
        self.sim.start(ids, self._starts.next(ids))
        self._elapsed[ids] = 0
        self.sim.observe(self._latest)
        self._history[ids] = self._latest[ids, None]

    def _observation(self) -> Observation:
        """The history, split by feature: views of one copy."""
        return by_feature(self._history.astype(self._dtype), self.spec)


def _step_by_step(sim: BatchSim, actions: Array, episodes: Episodes, ids: NDArray[np.intp]) -> None:
    """The chunk in simulations that know no chunks."""
    begin(episodes)
    observation = np.empty(episodes.history[:, -1].shape)
    for t in range(actions.shape[1]):
        if not len(ids):
            return
        sim.control_step(actions[:, t], None if len(ids) == sim.num_envs else ids)
        sim.observe(observation)
        ids = ids[note_all(episodes, ids, t, observation, *sim.outcome())]


class StartPool:
    """Each environment's own endless sequence of initial states, drawn ``POOL`` at a time.

    Block b of environment i comes from ``default_rng([seed_i, b])``, so two integers per
    environment (its seed and its episode number) say exactly where it is.
    """

    def __init__(self, sim: Startable) -> None:
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
