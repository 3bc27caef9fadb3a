"""The residual MLP of DPPO (arXiv 2409.00588): actor for flat chunks, and state critics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genpolicy.spec import GenpolicyError

# DPPO uses ReLU for locomotion and Mish for manipulation; on a CPU, Mish costs as much time as
# the matrix products around it.
ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "mish": nn.Mish}


def width_of(hidden: Sequence[int]) -> int:
    """The one width of all layers.

    Raises:
        GenpolicyError: there are several, or the layers do not make whole blocks.
    """
    if len(hidden) % 2 == 0 or len(set(hidden)) != 1 or hidden[0] < 1:
        raise GenpolicyError(f"hidden={list(hidden)} must be an odd number of equal widths")
    return hidden[0]


class ResidualTrunk(nn.Module):
    """Pre-activation residual blocks of two layers each, then a linear read-out.

    ``hidden = [h, h, h]`` is one input layer (the caller's) and one block; more blocks come in
    pairs of layers, so the number of hidden layers is odd.
    """

    def __init__(self, hidden: Sequence[int], out_dim: int, activation: str = "mish") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise GenpolicyError(f"activation={activation!r}: choose one of {list(ACTIVATIONS)}")
        width, act = width_of(hidden), ACTIVATIONS[activation]
        self.blocks = nn.ModuleList(
            nn.Sequential(act(), nn.Linear(width, width), act(), nn.Linear(width, width))
            for _ in range(len(hidden) // 2)
        )
        self.out = nn.Linear(width, out_dim)

    def forward(self, h: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., out_dim]``."""
        for block in self.blocks:
            h = h + block(h)
        return self.out(h)


class ResidualMLP(nn.Module):
    """``[..., in_dim]`` to ``[..., out_dim]``: the critic of DPPO, appendix A2."""

    def __init__(
        self, in_dim: int, hidden: Sequence[int], out_dim: int, activation: str = "mish"
    ) -> None:
        super().__init__()
        self.input = nn.Linear(in_dim, width_of(hidden))
        self.trunk = ResidualTrunk(hidden, out_dim, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        return self.trunk(self.input(x))


def sinusoidal(t: Tensor, dim: int) -> Tensor:
    """Transformer position features of (possibly fractional) ``t [...]``: ``[..., dim]``."""
    half = dim // 2
    frequency = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=t.device))
    angle = t[..., None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class DenoisingMLP(nn.Module):
    """Noise (or velocity) of a flat chunk, given time and a flat observation.

    The first layer acts on [chunk, time, observation]. It is kept as three matrices because
    their inputs change at different rates: the observation's part is computed once per
    observation and the time's part once per weight update, for all denoising steps and samples.
    ``prefix_dim`` adds a fourth, for actions at the head of the chunk that are given: no bias, so
    that an empty prefix changes nothing.
    """

    def __init__(
        self,
        chunk_dim: int,
        obs_dim: int,
        hidden: Sequence[int],
        time_dim: int,
        activation: str = "mish",
        prefix_dim: int = 0,
    ) -> None:
        super().__init__()
        if time_dim < 4 or time_dim % 2:
            raise GenpolicyError(f"time_dim={time_dim} must be an even number, at least 4")
        self.time_dim = time_dim
        self.time_mlp = nn.Sequential(
            nn.Linear(time_dim, 2 * time_dim), nn.Mish(), nn.Linear(2 * time_dim, time_dim)
        )
        width = width_of(hidden)
        self.from_chunk = nn.Linear(chunk_dim, width, bias=False)
        self.from_obs = nn.Linear(obs_dim, width, bias=False)
        self.from_time = nn.Linear(time_dim, width)
        # The three parts together are initialised as the one layer that they are.
        bound = 1 / math.sqrt(chunk_dim + obs_dim + time_dim)
        for part in (self.from_chunk, self.from_obs, self.from_time):
            nn.init.uniform_(part.weight, -bound, bound)
        nn.init.uniform_(self.from_time.bias, -bound, bound)
        self.trunk = ResidualTrunk(hidden, chunk_dim, activation)
        if prefix_dim:
            self.from_prefix = nn.Linear(prefix_dim, width, bias=False)

    def time_features(self, t: Tensor) -> Tensor:
        """First-layer contribution of times ``[...]``: ``[..., width]``."""
        return self.from_time(self.time_mlp(sinusoidal(t, self.time_dim)))

    def obs_features(self, obs: Tensor) -> Tensor:
        """First-layer contribution of observations ``[..., obs_dim]``: ``[..., width]``."""
        return self.from_obs(obs)

    def prefix_features(self, prefix: Tensor) -> Tensor:
        """First-layer contribution of given actions ``[..., prefix_dim]``: ``[..., width]``."""
        return self.from_prefix(prefix)

    def forward(self, x: Tensor, time_features: Tensor, obs_features: Tensor) -> Tensor:
        """Noisy chunks ``[..., chunk_dim]`` to predictions of the same shape."""
        return self.trunk(self.from_chunk(x) + (time_features + obs_features))
