"""Any Gymnasium environment behind the VecEnv protocol, stepped in worker processes.

    genpolicy_sim.make("gym", 16, id="Pendulum-v1")
    genpolicy finetune task=gym task.options.id=Pendulum-v1 algo=ppo policy=gaussian_small

Each process holds a block of the environments and executes whole chunks of actions: one message
per process and chunk. What an environment keeps inside cannot be read from outside, so a state
(``get_state``) is where each environment's sequence of episodes is, and going on from it
(``set_state``, a resumed run) starts new episodes there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import DTypeLike, NDArray

from genpolicy.spec import (
    ActionSpec,
    Feature,
    GenpolicyError,
    Observation,
    StepResult,
    TaskSpec,
)
from genpolicy_sim.chunks import by_feature, checked_actions
from genpolicy_sim.gym_worker import Block, Facts, Trace, boxes_of, size_of
from genpolicy_sim.workers import Workers

Array = NDArray[np.float64]


def make(
    num_envs: int = 1,
    *,
    id: str | Callable[[], Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    history: int = 1,
    dtype: DTypeLike = np.float32,
    max_episode_steps: int | None = None,
    score: str = "return",
    num_workers: int | None = None,
) -> GymEnv:
    """The factory of task ``gym``.

    Args:
        num_envs: N.
        id: an id registered with Gymnasium (``module:Name-v0`` imports ``module`` first), or a
            function at the top of a module that builds one environment.
        kwargs: for the environment, besides its id.
        history: To, observations per observation, oldest first.
        dtype: of the observations.
        max_episode_steps: time limit in control steps; default the environment's own.
        score: what episodes are judged by; for ``success`` the environment reports
            ``info["is_success"]`` or ``info["success"]``.
        num_workers: processes; default all available cores.

    Raises:
        GenpolicyError: the environment cannot be built, or its spaces are of another kind.
    """
    if id is None:
        raise GenpolicyError("task gym: name the environment, id=Pendulum-v1 for example")
    return GymEnv(
        id,
        num_envs,
        kwargs=kwargs,
        history=history,
        dtype=dtype,
        max_episode_steps=max_episode_steps,
        score=score,
        num_workers=num_workers,
    )


class GymEnv:
    """A ``VecEnv`` of N Gymnasium environments; the arguments are those of ``make``.

    Actions are a float Box with finite bounds; observations a Box (the one key ``observation``) or
    a Dict of Boxes.
    """

    def __init__(
        self,
        env: str | Callable[[], Any],
        num_envs: int = 1,
        *,
        kwargs: Mapping[str, Any] | None = None,
        history: int = 1,
        dtype: DTypeLike = np.float32,
        max_episode_steps: int | None = None,
        score: str = "return",
        num_workers: int | None = None,
    ) -> None:
        name = env if isinstance(env, str) else getattr(env, "__name__", "environment")
        self.num_envs, self._name = num_envs, f"Gymnasium environment {name!r}"
        block = partial(Block, env, dict(kwargs or {}), max_episode_steps)
        self._workers = Workers(block, num_envs, num_workers, name=self._name)
        try:
            asked = [(), *([None] * (len(self._workers.blocks) - 1))]
            facts: Facts = self._workers.call("facts", asked)[0]
            # A module before the colon, and a slash that would make folders, are no part of a name.
            task = name.rpartition(":")[2].replace("/", "-")
            self.spec = _task_spec(facts, task, score, self._name)
        except BaseException:
            self.close()
            raise
        self._history = np.zeros((num_envs, history, self.spec.obs_dim), dtype)
        self._episodes = np.zeros(num_envs, np.int64)
        self.reset(int(np.random.SeedSequence().generate_state(1)[0] // 2))

    def reset(self, seed: int | None = None) -> Observation:
        """Start N new episodes; environment i starts where ``seed + i`` alone decides.

        Without a seed, each environment's own generator goes on.

        Raises:
            GenpolicyError: a negative seed, or an environment fails.
        """
        if seed is None:
            return self._restart([None] * self.num_envs)
        if seed < 0:
            raise GenpolicyError(f"seed={seed} must not be negative")
        self._seeds = seed + np.arange(self.num_envs)
        self._episodes[:] = 0
        return self._restart(self._seeds.tolist())

    def _restart(self, seeds: Sequence[int | None]) -> Observation:
        blocks = self._workers.blocks
        parts = self._workers.call("reset", [([seeds[i] for i in b],) for b in blocks])
        first = np.concatenate(parts)
        self._refuse_nan(first[:, None])
        self._history[:] = first[:, None]
        self._episodes += 1
        return by_feature(self._history.copy(), self.spec)

    def step(
        self, actions: NDArray[np.floating[Any]], active: NDArray[np.bool_] | None = None
    ) -> StepResult:
        """Execute a chunk ``actions [N, Ta, Da]``; values beyond the spec's bounds are clipped.

        Args:
            actions: any Ta >= 1. What follows the end of an episode is not executed.
            active: ``[N]`` environments that take part; the others are neither stepped nor reset.

        Raises:
            GenpolicyError: wrong shape, values that are not finite, or an environment fails.
        """
        actions = checked_actions(actions, self.num_envs, self.spec.action, active)
        trace = self._run(actions, np.ones(self.num_envs, np.bool_) if active is None else active)
        self._refuse_nan(trace.obs, trace.rewards)
        everything = np.concatenate([self._history, trace.obs.astype(self._history.dtype)], axis=1)
        rows = trace.steps[:, None] + np.arange(self._history.shape[1])
        self._history = everything[np.arange(self.num_envs)[:, None], rows]
        obs = final_obs = by_feature(self._history.copy(), self.spec)
        done = trace.terminated | trace.truncated
        if done.any():
            self._refuse_nan(trace.first[:, None])
            self._history[done] = trace.first[done, None]
            self._episodes += done
            obs = by_feature(self._history.copy(), self.spec)
        return StepResult(
            obs,
            trace.rewards.sum(axis=1),
            trace.rewards,
            trace.terminated,
            trace.truncated,
            final_obs,
            trace.success,
            trace.steps,
            {},
        )

    def _run(self, actions: Array, active: NDArray[np.bool_]) -> Trace:
        """One message per worker process that has something to do."""
        blocks = self._workers.blocks
        asked = [(actions[b], active[b]) if active[b].any() else None for b in blocks]
        whole = Trace.empty(actions.shape[0], actions.shape[1], self.spec.obs_dim)
        for block, part in zip(blocks, self._workers.call("step", asked), strict=True):
            if part is not None:
                for mine, theirs in zip(whole, part, strict=True):
                    mine[block] = theirs
        return whole

    def _refuse_nan(self, *arrays: Array) -> None:
        """Each ``[N, Ta, ...]``."""
        for array in arrays:
            if not np.isfinite(array).all():
                i = np.argwhere(~np.isfinite(array))[0][0]
                raise GenpolicyError(
                    f"{self._name}: environment {i} gave an observation or a reward that is not "
                    "finite: repair it there"
                )

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Where each environment's sequence of episodes is, not what goes on inside this one."""
        return {"start_seed": self._seeds.copy(), "start_episode": self._episodes.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> Observation:
        """Start new episodes, decided by ``get_state`` output alone, and return the observation.

        Raises:
            GenpolicyError: the state is of other environments.
        """
        try:
            seeds, episodes = np.zeros((2, self.num_envs), np.int64)
            seeds[:], episodes[:] = state["start_seed"], state["start_episode"]
        except (KeyError, ValueError) as error:
            raise GenpolicyError(
                f"state does not fit {self.num_envs} environments of {self._name} ({error}): make "
                "them as they were when the state was saved"
            ) from error
        self._seeds, self._episodes = seeds, episodes
        pairs = zip(seeds.tolist(), episodes.tolist(), strict=True)
        return self._restart([int(np.random.SeedSequence(p).generate_state(1)[0]) for p in pairs])

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()


def _task_spec(facts: Facts, task: str, score: str, name: str) -> TaskSpec:
    """The description; refuses spaces that no policy here can observe or command."""
    action, boxes = facts.action_space, boxes_of(facts.observation_space)
    strange = [f"{key} ({value})" for key, value in boxes.items() if not isinstance(value, Box)]
    if strange:
        raise GenpolicyError(
            f"{name}: observation {strange[0]} is no Box: wrap it in "
            "gymnasium.wrappers.FlattenObservation"
        )
    if not isinstance(action, Box) or action.dtype is None or action.dtype.kind != "f":
        raise GenpolicyError(f"{name}: actions must be a Box of floats, got {action}")
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
        raise GenpolicyError(
            f"{name}: actions need finite bounds, got {action}: wrap it in "
            "gymnasium.wrappers.RescaleAction"
        )
    if facts.max_episode_steps is None:
        raise GenpolicyError(f"{name} has no time limit: give max_episode_steps=1000 for example")
    dims = range(size_of(action))
    return TaskSpec(
        task=task,
        robot="simulated",
        observations=tuple(Feature(k, box.shape or (1,)) for k, box in boxes.items()),
        action=ActionSpec(
            tuple(f"action_{i}" for i in dims),
            ("",) * len(dims),
            tuple(float(x) for x in action.low.flat),
            tuple(float(x) for x in action.high.flat),
        ),
        control_mode="direct",
        control_hz=facts.control_hz,
        max_episode_steps=facts.max_episode_steps,
        versions={"gymnasium": version("gymnasium")},
        score=score,
    )
