"""What the policies do, seen from close by: their samples in one state, and what V says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genpolicy.evaluate.evaluator import EpisodeNoise, Evaluation
from genpolicy.spec import Observation, VecEnv
from genpolicy.values.critic import ValueFunction

STATES, SAMPLES = 20, 64
SIDE = 1  # world axis y: the expert goes round by the left or by the right


@torch.inference_mode()
def first_chunks(policies: dict[str, Any], env: VecEnv, seed0: int) -> dict[str, Any]:
    """Chunks of every policy in one initial state: that where the first one is most undecided.

    Args:
        policies: by name.
        env: any number of environments; the choice is among as many states, at most ``STATES``.
        seed0: of the first state.

    Returns:
        ``seed`` of the state, and per policy in ``paths`` the commanded displacement of the end
        effector, cm, ``[SAMPLES, Tp + 1, 3]``.
    """
    obs = env.reset(seed0)
    rows = np.arange(min(STATES, env.num_envs))
    first = next(iter(policies.values()))
    ends = _paths(first, obs, rows)[:, :, -1, SIDE]  # [R, SAMPLES]
    left = (ends > 0).mean(1)
    chosen = int(np.argmin(np.abs(left - 0.5) - 1e-3 * np.abs(ends).mean(1)))
    return {
        "seed": seed0 + chosen,
        "paths": {
            name: _paths(policy, obs, np.array([chosen]))[0] for name, policy in policies.items()
        },
    }


def _paths(policy: Any, obs: Observation, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cumulated commands ``[R, SAMPLES, Tp + 1, 3]``, cm; every policy gets the same draws."""
    policy.rng = np.random.default_rng(0)
    chunks = policy.sample(_tensors(policy, obs, rows), num_samples=SAMPLES).double().numpy()
    scale = 100.0 * policy.spec.task.control["position_scale"]
    return np.pad(np.cumsum(chunks[..., :3] * scale, axis=2), ((0, 0), (0, 0), (1, 0), (0, 0)))


@torch.inference_mode()
def first_scores(
    policy: Any, value: ValueFunction, env: VecEnv, evaluation: Evaluation
) -> dict[str, Any]:
    """What the value function said of every evaluated episode's first chunk, and how that ended.

    Args:
        policy: the one that was evaluated.
        value: scores its chunks.
        env: with as many environments as ``evaluation`` has episodes.
        evaluation: of ``policy`` alone.

    Returns:
        ``scores [E]``, ``success [E]`` and ``auc``, the chance that a random success was scored
        above a random failure (None without both).
    """
    obs = env.reset(evaluation.seed0)
    seeds = evaluation.seed0 + np.arange(evaluation.episodes)
    noise = EpisodeNoise(policy).draw([np.random.default_rng(seed) for seed in seeds])
    tensors = _tensors(policy, obs, np.arange(evaluation.episodes))
    chunks = policy.sample(tensors, noise=noise, num_samples=1)
    scores = value.score(tensors, chunks)[:, 0].double().numpy()
    return {
        "scores": scores,
        "success": evaluation.success,
        "auc": auc(scores[evaluation.success], scores[~evaluation.success]),
    }


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float | None:
    """Probability that a positive scores above a negative; ties count half."""
    if len(positive) == 0 or len(negative) == 0:
        return None
    difference = positive[:, None] - negative[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _tensors(policy: Any, obs: Observation, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    return {
        feature.name: torch.from_numpy(obs[feature.name][rows]).float()
        for feature in policy.spec.task.observations
    }
