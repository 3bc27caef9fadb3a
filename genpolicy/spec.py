"""Descriptions that simulator, learner and robot share: features, units, rates, horizons.

This module needs NumPy and nothing else, so a robot computer without torch reads the same
descriptions that training wrote. The simulator's side of the bargain, ``VecEnv``, is here too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Observation = dict[str, NDArray[Any]]


class GenpolicyError(Exception):
    """Bad input. The message is one sentence that names the file or key and says what to do."""


@dataclass(frozen=True)
class Feature:
    """One named observation: ``shape`` per control step, without batch and history axes."""

    name: str
    shape: tuple[int, ...]
    unit: str = ""

    @property
    def dim(self) -> int:
        """Number of scalars when flattened."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ActionSpec:
    """The action vector: one name, unit, lower and upper bound per dimension."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse descriptions whose parts disagree in length or whose bounds are not ordered."""
        if not len(self.names) == len(self.units) == len(self.low) == len(self.high) > 0:
            raise GenpolicyError("action spec: names, units, low and high must have equal length")
        if not all(lo < hi for lo, hi in zip(self.low, self.high, strict=True)):
            raise GenpolicyError("action spec: every low must be below its high")

    @property
    def dim(self) -> int:
        """Da, the number of action dimensions."""
        return len(self.names)


@dataclass(frozen=True)
class TaskSpec:
    """What a task is: what is observed, what is commanded, how often, for how long.

    ``control`` holds the parameters by which ``control_mode`` turns an action into an absolute
    target (for ``osc_pose_delta``: ``position_scale`` in m, ``rotation_scale`` in rad,
    ``gripper_speed`` per control step). ``versions`` names the simulator builds behind the data.
    ``score`` is what episodes of it are judged by, ``success`` or ``return``.
    """

    task: str
    robot: str
    observations: tuple[Feature, ...]
    action: ActionSpec
    control_mode: str
    control_hz: float
    max_episode_steps: int
    control: dict[str, float] = field(default_factory=dict[str, float])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    score: str = "success"

    def __post_init__(self) -> None:
        """Refuse a score that nothing computes."""
        if self.score not in ("success", "return"):
            raise GenpolicyError(f"task spec: score={self.score!r} must be success or return")

    @property
    def obs_dim(self) -> int:
        """Scalars in one observation, all features together."""
        return sum(feature.dim for feature in self.observations)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskSpec:
        """Rebuild from ``to_dict`` output (JSON: tuples arrive as lists)."""
        try:
            return cls(
                task=data["task"],
                robot=data["robot"],
                observations=tuple(
                    Feature(f["name"], tuple(f["shape"]), f["unit"]) for f in data["observations"]
                ),
                action=ActionSpec(**{k: tuple(v) for k, v in data["action"].items()}),
                control_mode=data["control_mode"],
                control_hz=float(data["control_hz"]),
                max_episode_steps=int(data["max_episode_steps"]),
                control=dict(data["control"]),
                versions=dict(data["versions"]),
                score=data.get("score", "success"),  # files from before there was a choice
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise GenpolicyError(f"task spec: missing or malformed entry {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PolicySpec:
    """A task as one policy sees it.

    ``obs_steps`` (To) observations go in, ``chunk`` (Tp) actions come out, of which the first
    ``exec_steps`` (Ta) are executed before the policy is asked again.
    """

    task: TaskSpec
    obs_steps: int
    chunk: int
    exec_steps: int

    def __post_init__(self) -> None:
        """Refuse horizons that cannot be executed."""
        if self.obs_steps < 1 or not 1 <= self.exec_steps <= self.chunk:
            raise GenpolicyError(
                f"policy horizons: need obs_steps >= 1 and 1 <= exec_steps <= chunk, got "
                f"obs_steps={self.obs_steps}, exec_steps={self.exec_steps}, chunk={self.chunk}"
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PolicySpec:
        """Rebuild from ``to_dict`` output."""
        try:
            return cls(
                task=TaskSpec.from_dict(data["task"]),
                obs_steps=int(data["obs_steps"]),
                chunk=int(data["chunk"]),
                exec_steps=int(data["exec_steps"]),
            )
        except (KeyError, TypeError) as error:
            raise GenpolicyError(f"policy spec: missing or malformed entry {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON."""
        return asdict(self)


class StepResult(NamedTuple):
    """What one chunk of actions did, for N environments.

    Same-step auto-reset: ``obs`` belongs to the episode that goes on, ``final_obs`` to the one
    that ended (equal to ``obs`` where none did). Steps after an end are never executed.
    """

    obs: Observation  # {name: [N, To, D]}
    reward: NDArray[np.float64]  # [N] sum over the executed steps of the chunk
    rewards: NDArray[np.float64]  # [N, Ta] per control step, zero after the end
    terminated: NDArray[np.bool_]  # [N] the task ended: no value beyond
    truncated: NDArray[np.bool_]  # [N] the time limit ended it: bootstrap from final_obs
    final_obs: Observation  # {name: [N, To, D]}
    success: NDArray[np.bool_]  # [N] the task was achieved within this chunk
    steps: NDArray[np.int64]  # [N] control steps executed, 1..Ta
    info: dict[str, Any]

    @property
    def done(self) -> NDArray[np.bool_]:
        """[N] an episode ended, for whichever reason."""
        return self.terminated | self.truncated


@runtime_checkable
class VecEnv(Protocol):
    """N environments stepped together, chunk by chunk."""

    num_envs: int
    spec: TaskSpec

    def reset(self, seed: int | None = None) -> Observation:
        """Start N new episodes; environment i starts where ``seed + i`` alone decides."""
        ...

    def step(self, actions: NDArray[np.floating[Any]]) -> StepResult:
        """Execute ``actions [N, Ta, Da]``, any Ta >= 1, in task units."""
        ...

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything an exact resume in mid-episode needs (``qpos``, ``qvel``, ...)."""
        ...

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> Observation:
        """Continue from ``get_state`` output and return the observation there."""
        ...

    def close(self) -> None:
        """Release threads and processes."""
        ...
