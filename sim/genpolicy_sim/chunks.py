"""What goes into every VecEnv and comes out of it: chunks of actions, observations by feature."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import ActionSpec, GenpolicyError, Observation, TaskSpec
from genpolicy_sim.jit import njit


def checked_actions(
    actions: NDArray[np.floating[Any]],
    num_envs: int,
    spec: ActionSpec,
    active: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """A chunk ``[N, Ta, Da]`` in float64, clipped to the bounds.

    Raises:
        GenpolicyError: wrong shape, or values that are not finite.
    """
    actions = np.asarray(actions)
    if actions.dtype not in (np.float32, np.float64):
        actions = actions.astype(np.float64)
    if actions.ndim != 3 or actions.shape[::2] != (num_envs, spec.dim) or not actions.shape[1]:
        raise GenpolicyError(
            f"actions must be [{num_envs}, Ta, {spec.dim}], got {list(actions.shape)}"
        )
    if active is not None and active.shape != (num_envs,):
        raise GenpolicyError(f"active must be [{num_envs}], got {list(active.shape)}")
    # Compiled code goes by addresses: whatever the layout that came in, rows follow each other.
    clipped = np.empty(actions.shape)
    bad = _clip(actions, *_bounds(spec), clipped)
    if bad >= 0:
        raise GenpolicyError(f"actions of environment {bad} are not finite")
    return clipped


@cache
def _bounds(spec: ActionSpec) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(spec.low), np.array(spec.high)


@njit(nogil=True, cache=True)
def _clip(
    actions: NDArray[Any], low: NDArray[np.float64], high: NDArray[np.float64], out: NDArray[Any]
) -> int:
    """Write the clipped actions; the first environment whose are not finite, or -1."""
    for i in range(actions.shape[0]):
        for t in range(actions.shape[1]):
            for j in range(actions.shape[2]):
                if not np.isfinite(actions[i, t, j]):
                    return i
                out[i, t, j] = min(max(actions[i, t, j], low[j]), high[j])
    return -1


def by_feature(history: NDArray[Any], spec: TaskSpec) -> Observation:
    """``[N, To, obs_dim]`` split into ``{name: [N, To, D]}``, views."""
    obs, start = {}, 0
    for feature in spec.observations:
        obs[feature.name] = history[:, :, start : start + feature.dim]
        start += feature.dim
    return obs
