"""Demonstrations in memory: flat arrays over all control steps, episode after episode.

Flat, because every consumer gathers: windows for imitation and transitions for value learning
are index tables into these arrays (``windows.py``), so nothing is ever copied per sample.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, TaskSpec

Arrays = dict[str, NDArray[Any]]
# Actions may leave their bounds by rounding (float32 against float64), by no more.
BOUND_TOLERANCE = 1e-4


@dataclass
class Episode:
    """One episode of T control steps, in task units.

    ``dones[t]`` is true where nothing of value lies beyond step t (the task ended); an episode
    cut by the time limit has none. ``states`` are robomimic's flattened simulator states
    ``[time, qpos, qvel]`` and stay empty (``[T, 0]``) without a simulator. ``interventions`` tells
    which actions came from a person instead of the policy.
    """

    obs: Arrays  # {name: [T, ...]}
    actions: NDArray[Any]  # [T, Da]
    rewards: NDArray[Any]  # [T]
    dones: NDArray[Any]  # [T]
    next_obs: Arrays | None = None  # {name: [T, ...]}
    states: NDArray[Any] | None = None  # [T, S]
    interventions: NDArray[np.bool_] | None = None  # [T]

    def __len__(self) -> int:
        return len(self.actions)

    def arrays(self) -> Arrays:
        """Every array under its name in a robomimic file."""
        arrays = {"actions": self.actions, "rewards": self.rewards, "dones": self.dones}
        arrays |= {f"obs/{key}": value for key, value in self.obs.items()}
        arrays |= {f"next_obs/{key}": value for key, value in (self.next_obs or {}).items()}
        if self.states is not None:
            arrays["states"] = self.states
        if self.interventions is not None:
            arrays["interventions"] = self.interventions
        return arrays


def check_episode(episode: Episode, task: TaskSpec, where: str) -> None:
    """Refuse an episode that does not fit the task or that would poison training.

    Raises:
        GenpolicyError: Zero steps, lengths or shapes that disagree, a missing observation, a
            value that is not finite, or an action outside its bounds.
    """
    if len(episode) == 0:
        raise GenpolicyError(f"{where}: the episode has zero steps: remove it from the file")
    shapes = {"actions": (task.action.dim,), "rewards": (), "dones": ()}
    groups = [("obs", episode.obs)]
    if episode.next_obs is not None:
        groups.append(("next_obs", episode.next_obs))
    for group, arrays in groups:
        for feature in task.observations:
            if feature.name not in arrays:
                raise GenpolicyError(
                    f"{where}: no {group}/{feature.name}; there are {sorted(arrays)}"
                )
            shapes[f"{group}/{feature.name}"] = feature.shape
    for name, array in episode.arrays().items():
        if len(array) != len(episode):
            raise GenpolicyError(
                f"{where}: {name} has {len(array)} steps but actions has {len(episode)}: "
                "every array of an episode needs the same length"
            )
        if name in shapes and array.shape[1:] != shapes[name]:
            raise GenpolicyError(
                f"{where}: {name} has shape {array.shape[1:]} per step but the task says "
                f"{shapes[name]}: keep episodes of different shapes in different data sets"
            )
        if array.dtype.kind not in "biuf":
            raise GenpolicyError(f"{where}: {name} does not hold numbers but {array.dtype}")
        finite = _is_finite(array)
        if not finite.all():
            step = int(np.argwhere(~finite)[0][0])
            raise GenpolicyError(
                f"{where}: {name} is not finite (NaN or infinity) at step {step}: repair or "
                "remove this episode"
            )
    _check_bounds(episode.actions, task, where)


def _is_finite(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Element by element, in the float32 that training uses."""
    with np.errstate(over="ignore"):
        return np.isfinite(array.astype(np.float32, copy=False))


def _check_bounds(actions: NDArray[Any], task: TaskSpec, where: str) -> None:
    low, high = np.array(task.action.low), np.array(task.action.high)
    outside = (actions < low - BOUND_TOLERANCE) | (actions > high + BOUND_TOLERANCE)
    if outside.any():
        step, dim = np.argwhere(outside)[0]
        raise GenpolicyError(
            f"{where}: actions[{step}] has {task.action.names[dim]}={actions[step, dim]:.4g}, "
            f"outside [{low[dim]:.4g}, {high[dim]:.4g}]: scale the actions, or state their true "
            "bounds in the file (genpolicy_task in robomimic's, action_space in Minari's)"
        )


@dataclass(frozen=True)
class Demonstrations:
    """All episodes of a data set, E of them with T control steps together."""

    obs: dict[str, NDArray[np.float32]]  # {name: [T, D]}, features flattened
    actions: NDArray[np.float32]  # [T, Da]
    rewards: NDArray[np.float32]  # [T]
    dones: NDArray[np.bool_]  # [T] the task ended here: no value beyond
    starts: NDArray[np.int64]  # [E] index of each episode's first step
    lengths: NDArray[np.int64]  # [E]
    task: TaskSpec
    next_obs: dict[str, NDArray[np.float32]] | None = None  # {name: [T, D]}
    sources: tuple[str, ...] = field(default=())

    @classmethod
    def from_episodes(
        cls, episodes: Sequence[Episode], task: TaskSpec, sources: Sequence[str] = ()
    ) -> Demonstrations:
        """Concatenate episodes that ``check_episode`` has passed.

        ``next_obs`` is kept only where every episode has it.

        Raises:
            GenpolicyError: There is no episode.
        """
        if not episodes:
            raise GenpolicyError("demonstrations: no episode: collect or select at least one")
        keys = [feature.name for feature in task.observations]
        next_obs = None
        if all(episode.next_obs is not None for episode in episodes):
            next_obs = {k: _flat([e.next_obs[k] for e in episodes if e.next_obs]) for k in keys}
        lengths = np.array([len(episode) for episode in episodes], dtype=np.int64)
        return cls(
            obs={key: _flat([episode.obs[key] for episode in episodes]) for key in keys},
            actions=_flat([episode.actions for episode in episodes]),
            rewards=np.concatenate([e.rewards for e in episodes]).astype(np.float32),
            dones=np.concatenate([e.dones for e in episodes]).astype(np.bool_),
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            task=task,
            next_obs=next_obs,
            sources=tuple(sources),
        )

    def __len__(self) -> int:
        """T, the number of control steps."""
        return len(self.actions)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.lengths)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the task and of every array: equal data, equal fingerprint, any file."""
        digest = hashlib.sha256(json.dumps(self.task.to_dict(), sort_keys=True).encode())
        groups: dict[str, Mapping[str, NDArray[Any]]] = {
            "": {"actions": self.actions, "rewards": self.rewards, "dones": self.dones},
            "lengths": {"": self.lengths},
            "obs": self.obs,
            "next_obs": self.next_obs or {},
        }
        for group, arrays in groups.items():
            for name, array in arrays.items():
                digest.update(f"{group}/{name}{array.shape}{array.dtype}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _flat(parts: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """``[T_i, ...]`` each, to one ``[T, D]`` in float32."""
    joined = np.concatenate(parts)
    return np.ascontiguousarray(joined.reshape(len(joined), -1), dtype=np.float32)
