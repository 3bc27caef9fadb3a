"""The one evaluator: training, command line, re-ranking and ONNX are measured by it alone.

Episode i starts from initial state ``seed0 + i`` and draws its noise from a generator seeded with
the same number. So results do not depend on how many environments run side by side, every policy
meets the same initial states, and a checkpoint and its export see the same noise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genpolicy.evaluate.statistics import bootstrap, wilson
from genpolicy.spec import GenpolicyError, Observation, PolicySpec, StepResult, VecEnv


class Sampler(Protocol):
    """What can be evaluated: a policy, an ONNX controller, a policy with re-ranking."""

    spec: PolicySpec

    def noise_spec(self, batch: int, num_samples: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the standard-normal draws of one ``sample``."""
        ...

    def sample(
        self,
        obs: Mapping[str, Tensor],
        *,
        noise: Mapping[str, Tensor] | None = None,
        num_samples: int = 1,
        deterministic: bool = True,
    ) -> Tensor:
        """``{name: [B, To, D]}`` to ``[B, N, Tp, Da]``."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What happened in E episodes, in the order of their seeds."""

    seed0: int  # episode i started from seed0 + i
    success: NDArray[np.bool_]  # [E]
    returns: NDArray[np.float64]  # [E]
    lengths: NDArray[np.int64]  # [E] control steps
    score: str = "success"  # what the task's episodes are judged by, success or return

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.success)

    @property
    def success_rate(self) -> float:
        """Share of the episodes that succeeded."""
        return float(self.success.mean())

    @cached_property
    def _success_interval(self) -> tuple[float, float]:
        return wilson(int(self.success.sum()), self.episodes)

    @property
    def success_lo(self) -> float:
        """Lower end of the Wilson 95 % interval."""
        return self._success_interval[0]

    @property
    def success_hi(self) -> float:
        """Upper end of the Wilson 95 % interval."""
        return self._success_interval[1]

    @property
    def return_mean(self) -> float:
        """Mean return of the episodes."""
        return float(self.returns.mean())

    @cached_property
    def _return_interval(self) -> tuple[float, float]:
        return bootstrap(self.returns)

    @property
    def return_lo(self) -> float:
        """Lower end of the bootstrap 95 % interval of the mean over episodes."""
        return self._return_interval[0]

    @property
    def return_hi(self) -> float:
        """Upper end of the bootstrap 95 % interval of the mean over episodes."""
        return self._return_interval[1]

    @property
    def score_lo(self) -> float:
        """Lower end of the interval of the task's score: what ``best`` and ``stop_at`` go by."""
        return self.return_lo if self.score == "return" else self.success_lo

    def summary(self) -> str:
        """One line for people."""
        if self.score == "return":
            mean, lo, hi = (f"{x:.4g}" for x in (self.return_mean, self.return_lo, self.return_hi))
        else:
            rate, interval = self.success_rate, self._success_interval
            mean, lo, hi = (f"{x:.3f}" for x in (rate, *interval))
        return f"{self.score} {mean} [{lo}, {hi}] in {self.episodes} episodes"

    def metrics(self) -> dict[str, float]:
        """The ``eval/`` metrics."""
        return {
            "eval/success_rate": self.success_rate,
            "eval/success_lo": self.success_lo,
            "eval/success_hi": self.success_hi,
            "eval/return_mean": self.return_mean,
            "eval/return_lo": self.return_lo,
            "eval/return_hi": self.return_hi,
            "eval/episode_len": float(self.lengths.mean()),
            "eval/episodes": float(self.episodes),
        }

    def to_dict(self) -> dict[str, Any]:
        """One stage of ``report.json``, followed by every episode."""
        return {
            "success_rate": self.success_rate,
            "success_lo": self.success_lo,
            "success_hi": self.success_hi,
            "episodes": self.episodes,
            "seed0": self.seed0,
            "score": self.score,
            "return_mean": self.return_mean,
            "return_lo": self.return_lo,
            "return_hi": self.return_hi,
            "success": self.success.astype(int).tolist(),
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """Rebuild from ``to_dict`` output."""
        return cls(
            int(data["seed0"]),
            np.array(data["success"], dtype=bool),
            np.array(data["returns"], dtype=np.float64),
            np.array(data["lengths"], dtype=np.int64),
            data.get("score", "success"),  # files from before there was a choice
        )


def evaluate(
    policy: Sampler,
    env: VecEnv,
    *,
    episodes: int,
    seed0: int,
    on_episodes: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run ``episodes`` episodes in waves of ``env.num_envs``.

    Args:
        policy: what is measured, in its deterministic mode (what the robot executes).
        env: made with ``history=policy.spec.obs_steps``.
        episodes: how many.
        seed0: initial state and noise of the first episode; the others count up.
        on_episodes: told how many more episodes have ended.

    Raises:
        GenpolicyError: the policy was made for another task.
    """
    check_task(policy.spec, env)
    if episodes < 1:
        raise GenpolicyError(f"episodes={episodes} must be at least 1")
    noise = EpisodeNoise(policy)
    waves = []
    with _evaluation_mode(policy):
        for first in range(0, episodes, env.num_envs):
            count = min(env.num_envs, episodes - first)
            waves.append(_wave(policy, env, noise, seed0 + first, count))
            if on_episodes:
                on_episodes(count)
    success, returns, lengths = (np.concatenate(parts) for parts in zip(*waves, strict=True))
    return Evaluation(seed0, success, returns, lengths, env.spec.score)


def check_task(spec: PolicySpec, env: VecEnv) -> None:
    """Refuse a policy whose observations, actions or control mean something else in ``env``.

    A policy may use fewer observations than the task has, and names and units are for people:
    data recorded elsewhere need not know them.

    Raises:
        GenpolicyError: names the first difference.
    """
    ours, theirs = spec.task, env.spec
    here = {feature.name: feature.shape for feature in theirs.observations}
    differences: list[tuple[str, Any, Any]] = [
        (f"observation '{feature.name}'", feature.shape, here.get(feature.name))
        for feature in ours.observations
    ]
    mine, other = ((task.action.low, task.action.high) for task in (ours, theirs))
    differences.append(("the action range", mine, other))
    names = ("task", "control_mode", "control_hz", "control")
    differences += [(name, getattr(ours, name), getattr(theirs, name)) for name in names]
    for name, mine, other in sorted(differences, key=lambda row: row[0] != "task"):
        if mine != other and not (name == "control" and not mine):
            raise GenpolicyError(
                f"made for task '{ours.task}', which differs from '{theirs.task}' here: "
                f"{name} is {mine} there and {other} here; choose the task it was made for"
            )


class EpisodeNoise:
    """Standard-normal draws, one independent stream per episode."""

    def __init__(self, policy: Sampler) -> None:
        one, two = policy.noise_spec(1, 1), policy.noise_spec(2, 1)
        self._shapes = one
        self._batch_axis = {
            name: next(
                i for i, (a, b) in enumerate(zip(one[name], two[name], strict=True)) if a < b
            )
            for name in one
        }

    def draw(self, streams: list[np.random.Generator]) -> dict[str, Tensor]:
        """Noise of one ``sample`` for ``B = len(streams)`` observations."""
        return {
            name: torch.from_numpy(
                np.concatenate(
                    [stream.standard_normal(shape, dtype=np.float32) for stream in streams],
                    axis=self._batch_axis[name],
                )
            )
            for name, shape in self._shapes.items()
        }


@torch.inference_mode()
def act(
    policy: Sampler, obs: Observation, rows: NDArray[np.int64], noise: Mapping[str, Tensor]
) -> NDArray[np.float32]:
    """What the policy executes in environments ``rows [R]`` of ``obs``: ``[R, Ta, Da]``."""
    device = _device(policy)
    tensors = {
        feature.name: torch.from_numpy(obs[feature.name][rows]).float().to(device)
        for feature in policy.spec.task.observations
    }
    noise = {name: draw.to(device) for name, draw in noise.items()}
    chunks = policy.sample(tensors, noise=noise, num_samples=1, deterministic=True)
    return chunks[:, 0, : policy.spec.exec_steps].cpu().numpy()


def _wave(
    policy: Sampler, env: VecEnv, noise: EpisodeNoise, seed0: int, count: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    """Episodes ``seed0 … seed0 + count − 1`` side by side, each until its own first end."""
    # Where the simulator can skip environments, those that are done cost nothing.
    skips = "active" in inspect.signature(env.step).parameters
    streams = [np.random.default_rng(seed0 + i) for i in range(count)]
    success = np.zeros(count, dtype=bool)
    returns, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
    active = np.arange(env.num_envs) < count
    task = policy.spec.task
    actions = np.zeros((env.num_envs, policy.spec.exec_steps, task.action.dim), dtype=np.float32)
    obs = env.reset(seed0)
    while active.any():
        rows = np.flatnonzero(active)
        actions[rows] = act(policy, obs, rows, noise.draw([streams[i] for i in rows]))
        result: StepResult = env.step(actions, **({"active": active} if skips else {}))
        success[rows] |= result.success[rows]
        returns[rows] += result.reward[rows]
        lengths[rows] += result.steps[rows]
        active &= ~result.done
        obs = result.obs
    return success, returns, lengths


def _device(policy: Sampler) -> torch.device:
    parameters = policy.parameters() if isinstance(policy, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


@contextmanager
def _evaluation_mode(policy: Sampler) -> Iterator[None]:
    """Dropout and the like off, and afterwards as it was."""
    training = isinstance(policy, nn.Module) and policy.training
    if isinstance(policy, nn.Module):
        policy.eval()
    try:
        yield
    finally:
        if isinstance(policy, nn.Module):
            policy.train(training)
