"""The two protocols of the learning library: a policy, and an algorithm that improves one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from genpolicy.spec import Observation, PolicySpec

Metrics = dict[str, float]
Batch = Mapping[str, Any]  # {"obs": {name: [B, To, D]}, "actions": [B, Tp, Da]} in task units
Noise = Mapping[str, Tensor]


@runtime_checkable
class Policy(Protocol):
    """A generative policy: observations in, chunks of actions out, every draw an explicit input.

    Implementations are ``nn.Module``s that contain their normalizer, so both sides of every
    method are in task units. ``rng`` draws whatever noise is not given; an algorithm puts its own
    generator there, so that its checkpoint resumes exactly.
    """

    spec: PolicySpec
    rng: np.random.Generator

    def config_dict(self) -> dict[str, Any]:
        """``{"name": ..., **config}``: with ``spec``, all that rebuilding needs."""
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Imitation loss (scalar) and metrics of one batch, still on the graph."""
        ...

    def noise_spec(self, batch: int, num_samples: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every standard-normal draw of one deterministic-mode ``sample``."""
        ...

    def sample(
        self,
        obs: Mapping[str, Tensor],
        *,
        noise: Noise | None = None,
        num_samples: int = 1,
        deterministic: bool = True,
    ) -> Tensor:
        """``{name: [B, To, D]}`` to actions ``[B, N, Tp, Da]``, clipped to the action limits."""
        ...

    def act(self, obs: Observation) -> NDArray[np.float32]:
        """One sample's first Ta rows, ``[B, Ta, Da]``, NumPy in and out."""
        ...


class Shippable(Protocol):
    """What a checkpoint's ``policy`` part holds: a policy, or a value function."""

    @property
    def spec(self) -> PolicySpec:
        """Task and horizons."""
        ...

    def config_dict(self) -> dict[str, Any]:
        """Name and configuration: with the spec, all that rebuilding it needs."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its weights and statistics."""
        ...


@runtime_checkable
class Algorithm(Protocol):
    """Something that improves ``policy``; one iteration is ``collect``, ``update``, ``metrics``."""

    @property
    def policy(self) -> Shippable:
        """What is evaluated, saved and exported."""
        ...

    @property
    def env_steps(self) -> int:
        """Control steps executed so far, in all environments."""
        ...

    def collect(self) -> None:
        """Gather the data of one iteration (a rollout, or one minibatch)."""
        ...

    def update(self) -> None:
        """Learn from it."""
        ...

    def metrics(self) -> Metrics:
        """Scalars of the last iteration, named as in the README's metric table."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """``{"model": {name: tensor}, ...}``: tensors, numbers, strings, lists and dicts only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        ...
