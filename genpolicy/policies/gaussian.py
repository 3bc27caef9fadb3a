"""Gaussian policy: one mean chunk and a diagonal std, the baseline of every generative policy.

Imitation minimises −log N(x; μ_θ(o), σ_θ(o)²); with two equally good ways in the data the mean goes
between them. With ``squash=tanh`` x is the variable before tanh, as in Brax's PPO; the Jacobian
does not depend on θ and cancels in every ratio, so it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from genpolicy.interfaces import Batch, Noise
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.nets.mlp import ResidualMLP
from genpolicy.spec import GenpolicyError, PolicySpec

STDS = ("state", "independent")


@dataclass(frozen=True)
class GaussianConfig:
    """What a Gaussian policy is, apart from its shapes.

    Attributes:
        hidden: Widths of the MLP: an odd number of equal values.
        activation: ``relu``, ``silu`` or ``mish``.
        std: ``state``: the std is an output of the network; ``independent``: one parameter per
            scalar of the chunk.
        init_std: Std before training, in units of x.
        min_std: Smallest std.
        squash: How chunks are bounded: ``clip`` at the limits (imitation) or ``tanh`` (from
            scratch).
        execute_std: Scale of the std when executed; 0 is the mean.
    """

    hidden: tuple[int, ...] = (512, 512, 512)
    activation: str = "relu"
    std: str = "state"
    init_std: float = 0.5
    min_std: float = 0.01
    squash: str = "clip"
    execute_std: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no density."""
        if self.std not in STDS:
            raise GenpolicyError(f"policy.std={self.std!r}: choose one of {list(STDS)}")
        if not 0 < self.min_std < self.init_std < math.inf:
            raise GenpolicyError(
                f"policy: need 0 < min_std < init_std, got min_std={self.min_std} and "
                f"init_std={self.init_std}"
            )
        if not 0 <= self.execute_std < math.inf:
            raise GenpolicyError(f"policy.execute_std={self.execute_std} must not be negative")


class GaussianMLP(ResidualMLP):
    """``[..., obs_dim]`` to mean and std, both ``[..., dim]``.

    σ = min_std + softplus(raw + c), where raw is an output or a parameter and raw = 0 gives
    ``init_std``: unlike exp(raw), a large step of raw does not multiply the std.
    """

    def __init__(
        self, obs_dim: int, hidden: Sequence[int], dim: int, config: GaussianConfig
    ) -> None:
        independent = config.std == "independent"
        super().__init__(obs_dim, hidden, dim if independent else 2 * dim, config.activation)
        self.raw_std = nn.Parameter(torch.zeros(dim)) if independent else None
        self.min_std = config.min_std
        self.offset = math.log(math.expm1(config.init_std - config.min_std))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the network."""
        out = super().forward(obs)
        if self.raw_std is not None:
            mean, raw = out, self.raw_std.expand_as(out)
        else:
            mean, raw = out.chunk(2, dim=-1)
        return mean, self.min_std + softplus(raw + self.offset)


class GaussianPolicy(ChunkPolicy):
    """N(μ_θ(o), σ_θ(o)²) over chunks ``[Tp, Da]``."""

    name = "gaussian"
    net: GaussianMLP
    config: GaussianConfig

    def __init__(self, spec: PolicySpec, config: GaussianConfig | None = None) -> None:
        config = config or GaussianConfig()
        super().__init__(spec, config, config.squash)
        self.net = GaussianMLP(self.obs_dim, config.hidden, self.chunk_dim, config)

    def distribution(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std of x, both ``[B, A]``, at normalised observations ``[B, C]``."""
        return self.net(obs)

    def log_prob(self, obs: Tensor, x: Tensor) -> Tensor:
        """Per scalar, log N(x; μ, σ²) of ``x [B, A]``; float32 whatever the network runs in."""
        mean, std = (part.float() for part in self.distribution(obs))
        return _log_normal(x, mean, std)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean −log N per scalar; ``train/mse`` is the error of the mean."""
        x = self.from_actions(batch["actions"])
        mean, std = (part.float() for part in self.distribution(self.normalizer.obs(batch["obs"])))
        loss = -_log_normal(x, mean, std).mean()
        return loss, {"train/loss": loss.detach(), "train/mse": (x - mean).detach().square().mean()}

    def generate(self, obs: Tensor, noise: Noise, deterministic: bool) -> Tensor:
        """μ + scale·σ·noise; executed, the scale is ``execute_std``, exploring it is 1."""
        mean, std = (part[:, None] for part in self.distribution(obs))
        scale = self.config.execute_std if deterministic else 1.0
        return mean + scale * std * noise["noise"].flatten(2)


def squashed(mean: Tensor, std: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(u) of u = μ + σ·ε, and its log-density, log N(u; μ, σ²) − Σ log(1 − tanh²u).

    Args:
        mean: ``[..., A]``.
        std: Of its shape.
        eps: Standard-normal draws of its shape.

    Returns:
        ``[..., A]`` and ``[...]``.
    """
    u = mean + std * eps
    log_normal = -0.5 * (eps.square() + math.log(2 * math.pi)) - std.log()
    log_slope = 2 * (math.log(2) - u - softplus(-2 * u))  # where 1 − tanh²u would round to 0
    return u.tanh(), (log_normal - log_slope).sum(-1)


def _log_normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    z = (x - mean) / std
    return -0.5 * (z * z + math.log(2 * math.pi)) - std.log()
