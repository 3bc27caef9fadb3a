"""What goes into every VecEnv and comes out of it: chunks of actions, observations by feature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import ActionSpec, GenpolicyError, Observation, TaskSpec


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
    if actions.ndim != 3 or actions.shape[::2] != (num_envs, spec.dim) or not actions.shape[1]:
        raise GenpolicyError(
            f"actions must be [{num_envs}, Ta, {spec.dim}], got {list(actions.shape)}"
        )
    if active is not None and active.shape != (num_envs,):
        raise GenpolicyError(f"active must be [{num_envs}], got {list(active.shape)}")
    if not np.isfinite(actions).all():
        bad = np.flatnonzero(~np.isfinite(actions).all(axis=(1, 2)))
        raise GenpolicyError(f"actions of environment {bad[0]} are not finite")
    # Compiled code goes by addresses: whatever the layout that came in, rows follow each other.
    return np.clip(actions.astype(np.float64, order="C"), spec.low, spec.high)


def by_feature(history: NDArray[Any], spec: TaskSpec) -> Observation:
    """``[N, To, obs_dim]`` split into ``{name: [N, To, D]}``, views."""
    obs, start = {}, 0
    for feature in spec.observations:
        obs[feature.name] = history[:, :, start : start + feature.dim]
        start += feature.dim
    return obs
