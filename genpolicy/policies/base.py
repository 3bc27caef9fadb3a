"""What all policies over action chunks share: units, limits, draws, and acting.

A policy works on one flat variable x ``[A = Tp * Da]`` per chunk. ``to_actions`` is the only way
from x to what is executed, and ``from_actions`` its inverse: every method sees the same units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genpolicy.data.normalizer import Normalizer
from genpolicy.interfaces import Batch, Noise
from genpolicy.spec import GenpolicyError, Observation, PolicySpec

SQUASHES = ("clip", "tanh")
# tanh reaches ±1 at infinity only: data at the limits is learned as this much of them (x = ±3.8).
TANH_RANGE = 1 - 1e-3


class ChunkPolicy(nn.Module, ABC):
    """Chunks ``[Tp, Da]`` conditioned on ``To`` observations; ``net`` is the network that learns.

    ``rng`` draws whatever noise is not given; a training algorithm puts its own generator there,
    so that its checkpoint resumes exactly.

    Args:
        spec: Task and horizons.
        config: A frozen dataclass; ``config_dict`` and ``fine_tunable`` read it.
        squash: How x becomes bounded: ``clip`` takes x for normalised actions and cuts at the
            limits; ``tanh`` takes tanh(x) for them, which keeps a gradient at the limits.
    """

    name: ClassVar[str]
    net: nn.Module
    config: Any
    action_low: Tensor  # [Da]
    action_high: Tensor  # [Da]

    def __init__(self, spec: PolicySpec, config: Any, squash: str = "clip") -> None:
        super().__init__()
        if squash not in SQUASHES:
            raise GenpolicyError(f"policy.squash={squash!r}: choose one of {list(SQUASHES)}")
        self.spec, self.config, self.squash = spec, config, squash
        self.rng = np.random.default_rng(0)
        self.chunk_dim = spec.chunk * spec.task.action.dim
        self.obs_dim = spec.obs_steps * spec.task.obs_dim
        self.normalizer = Normalizer(spec.task)
        self.register_buffer("action_low", torch.tensor(spec.task.action.low), persistent=False)
        self.register_buffer("action_high", torch.tensor(spec.task.action.high), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.action_low.device

    def config_dict(self) -> dict[str, Any]:
        """Name and configuration: with the spec, all that rebuilding this policy needs."""
        entries = asdict(self.config).items()
        return {"name": self.name} | {k: list(v) if type(v) is tuple else v for k, v in entries}

    def fine_tunable(self, **changes: Any) -> Self:
        """A copy with other values of ``config``, for an algorithm to tune."""
        policy = type(self)(self.spec, replace(self.config, **changes))
        policy.load_state_dict(self.state_dict())
        return policy.to(self.device)

    # ---- units -----------------------------------------------------------------------------

    def to_actions(self, x: Tensor) -> Tensor:
        """Flat chunks ``[..., Tp * Da]`` to ``[..., Tp, Da]`` in task units within the limits."""
        return self.unbounded_actions(x).clamp(self.action_low, self.action_high)

    def unbounded_actions(self, x: Tensor) -> Tensor:
        """As ``to_actions``, not yet cut at the limits."""
        chunk = x.unflatten(-1, (self.spec.chunk, self.spec.task.action.dim))
        if self.squash == "tanh":
            chunk = chunk.tanh()
        return self.normalizer.unaction(chunk)

    def from_actions(self, actions: Tensor) -> Tensor:
        """Task units ``[..., Tp, Da]`` to x ``[..., Tp * Da]``: the inverse of ``to_actions``."""
        x = self.normalizer.action(actions).flatten(-2)
        return x.clamp(-TANH_RANGE, TANH_RANGE).atanh() if self.squash == "tanh" else x

    # ---- learning and acting ---------------------------------------------------------------

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Imitation loss of ``{"obs": {name: [B, To, D]}, "actions": [B, Tp, Da]}``."""

    @abstractmethod
    def generate(self, obs: Tensor, noise: Noise, deterministic: bool) -> Tensor:
        """Normalised observations ``[B, C]`` to x ``[B, N, A]``."""

    def noise_spec(
        self, batch: int, num_samples: int = 1, deterministic: bool = True
    ) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the standard-normal inputs of ``sample``."""
        return {"noise": (batch, num_samples, self.spec.chunk, self.spec.task.action.dim)}

    def draw_noise(
        self, batch: int, num_samples: int = 1, deterministic: bool = True
    ) -> dict[str, Tensor]:
        """The draws of ``noise_spec`` from ``self.rng``, on this policy's device."""
        shapes = self.noise_spec(batch, num_samples, deterministic)
        return {name: self._draw(shape) for name, shape in shapes.items()}

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        normal = self.rng.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(normal).to(self.device)

    def sample(
        self,
        obs: Mapping[str, Tensor],
        *,
        noise: Noise | None = None,
        num_samples: int = 1,
        deterministic: bool = True,
    ) -> Tensor:
        """``{name: [B, To, D]}`` to ``[B, N, Tp, Da]`` in task units, inside the limits.

        ``deterministic`` is the executed policy; otherwise the one that explores. Neither draws
        anything that is not in ``noise``.
        """
        flat = self.normalizer.obs(obs)
        noise = noise or self.draw_noise(len(flat), num_samples, deterministic)
        return self.to_actions(self.generate(flat, noise, deterministic))

    @torch.inference_mode()
    def act(self, obs: Observation, *, deterministic: bool = True) -> NDArray[np.float32]:
        """One sample's first Ta actions, ``[B, Ta, Da]``."""
        tensors = {
            key: torch.as_tensor(obs[key], dtype=torch.float32, device=self.device)
            for key in self.normalizer.keys
        }
        chunks = self.sample(tensors, deterministic=deterministic)
        return chunks[:, 0, : self.spec.exec_steps].cpu().numpy()
