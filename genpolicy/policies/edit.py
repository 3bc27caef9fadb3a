"""On-the-fly policy (EXPO, arXiv 2507.07986): the best of a base policy's samples and their edits.

    a_1 … a_N ~ base(o),    e_i = β · tanh(u_i),  u_i ~ N(μ_θ(o, a_i), σ_θ(o, a_i)²)
    a = argmax of min_{j ∈ J} Q_j(o, ·) over a_1 … a_N, a_1 + e_1 … a_N + e_N,   J a random pair

The base is a flow or diffusion policy and is trained by imitation only; the edit policy is small,
so Q's gradient never passes through a generative chain. All a are in the normalised units of the
base, within the limits of the actuators, so that what is scored is what is executed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genpolicy.interfaces import Batch, Noise
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.gaussian import GaussianConfig, GaussianMLP, GaussianPolicy, squashed
from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy.values.critic import CriticEnsemble


@dataclass(frozen=True)
class OnTheFlyConfig:
    """What an on-the-fly policy is, apart from its shapes.

    Attributes:
        base: ``config_dict`` of a flow or diffusion policy that acts deterministically.
        samples: N, base samples to choose among.
        edits: Whether each of them is also edited; without, this is IDQL's policy.
        edit_scale: β, the largest edit, in normalised action units.
        edit_hidden: Widths of the edit policy: an odd number of equal values.
        critics: Q functions.
        critic_hidden: Their widths, LayerNorm MLPs.
        pair: How many of them, drawn at random, the minimum is over.
    """

    base: dict[str, Any] = field(default_factory=lambda: {"name": "flow"})
    samples: int = 8
    edits: bool = True
    edit_scale: float = 0.1
    edit_hidden: tuple[int, ...] = (256, 256, 256)
    critics: int = 10
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    pair: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot choose."""
        for name in ("samples", "critics", "pair"):
            if getattr(self, name) < 1:
                raise GenpolicyError(f"policy.{name}={getattr(self, name)} must be at least 1")
        if self.pair > self.critics:
            raise GenpolicyError(f"policy.pair={self.pair} of critics={self.critics}: choose less")
        if not 0 <= self.edit_scale < math.inf:
            raise GenpolicyError(f"policy.edit_scale={self.edit_scale} must not be negative")
        if not self.critic_hidden or min(self.critic_hidden) < 1:
            raise GenpolicyError(f"policy.critic_hidden={list(self.critic_hidden)} needs a layer")


class OnTheFlyPolicy(ChunkPolicy):
    """``base``, the edit policy ``net`` and the critics that choose, over chunks ``[Ta, Da]``."""

    name = "on_the_fly"
    net: GaussianMLP
    config: OnTheFlyConfig

    def __init__(self, spec: PolicySpec, config: OnTheFlyConfig | None = None) -> None:
        from genpolicy.policies import build_policy  # the registry holds this class, too

        config = config or OnTheFlyConfig()
        super().__init__(spec, config)
        base = build_policy(config.base, spec)
        if set(base.noise_spec(1)) != {"noise"} or isinstance(base, GaussianPolicy):
            raise GenpolicyError(
                "policy.base must be a flow or diffusion policy whose only draw is its initial "
                f"noise (eta=0), and this is {dict(config.base)}"
            )
        if spec.chunk != spec.exec_steps:
            raise GenpolicyError(
                f"an on-the-fly policy executes all that it scores: its base plans chunk="
                f"{spec.chunk} and executes exec_steps={spec.exec_steps}: pretrain one with both "
                "equal"
            )
        self.base = base
        self.normalizer = base.normalizer
        edit = GaussianConfig(init_std=0.5, min_std=1e-3)
        rows = self.obs_dim + self.chunk_dim
        self.net = GaussianMLP(rows, config.edit_hidden, self.chunk_dim, edit)
        self.critic = CriticEnsemble(
            config.critics, self.obs_dim, self.chunk_dim, config.critic_hidden
        )

    # ---- candidates ------------------------------------------------------------------------

    def limits(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest chunk ``[A]`` in normalised units."""
        bounds = torch.stack([self.action_low, self.action_high])
        low, high = self.normalizer.action(bounds).repeat(1, self.spec.chunk)
        return low, high

    def propose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """The base's chunks.

        Args:
            obs: Normalised observations ``[B, C]``.
            noise: ``[B, N, Tp, Da]``.

        Returns:
            ``[B, N, A]`` in normalised units, within the limits.
        """
        chunks = self.base.to_actions(self.base.generate(obs, {"noise": noise}, True))
        return self.normalizer.action(chunks).flatten(2)

    def edit(self, obs: Tensor, chunks: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Edited chunks and the log-density of their edits.

        log π(e) = log N(u; μ, σ²) − Σ log(1 − tanh²u) − A·log β.

        Args:
            obs: Normalised observations ``[B, C]``.
            chunks: What is edited, ``[B, N, A]``.
            eps: Standard-normal draws of its shape.

        Returns:
            ``[B, N, A]`` within the limits, and ``[B, N]``.
        """
        beta = self.config.edit_scale
        rows = torch.cat([obs[:, None].expand(-1, chunks.shape[1], -1), chunks], dim=-1)
        mean, std = self.net(rows)
        direction, log_prob = squashed(mean, std, eps)
        if beta > 0:
            log_prob = log_prob - self.chunk_dim * math.log(beta)
        low, high = self.limits()
        return (chunks + beta * direction).clamp(low, high), log_prob

    def candidates(self, obs: Tensor, proposals: Tensor, eps: Tensor | None) -> Tensor:
        """The proposals ``[B, N, A]`` and, where there are edits, their edited copies."""
        if eps is None:
            return proposals
        return torch.cat([proposals, self.edit(obs, proposals, eps)[0]], dim=1)

    # ---- acting ----------------------------------------------------------------------------

    def noise_spec(
        self, batch: int, num_samples: int = 1, deterministic: bool = True
    ) -> dict[str, tuple[int, ...]]:
        """Draws of the base, of the edits, and the pair of critics (those with the largest)."""
        lead, config = (batch, num_samples), self.config
        chunk = (self.spec.chunk, self.spec.task.action.dim)
        shapes: dict[str, tuple[int, ...]] = {"noise": (*lead, config.samples, *chunk)}
        if config.edits:
            shapes["edit_noise"] = (*lead, config.samples, *chunk)
        if config.pair < config.critics and config.samples * (1 + config.edits) > 1:
            shapes["critic_noise"] = (*lead, config.critics)
        return shapes

    def generate(self, obs: Tensor, noise: Noise, deterministic: bool) -> Tensor:
        """The best candidate of each sample; executed as explored: edits are always drawn."""
        count = noise["noise"].shape[1]
        eps = noise.get("edit_noise")
        chunks = self.candidates(
            obs,
            self.propose(obs, noise["noise"].flatten(1, 2)),
            None if eps is None else eps.flatten(1, 2).flatten(2),
        )
        # [B, S, candidates, A]: proposals and edits of one sample side by side
        chunks = chunks.unflatten(1, (-1, count, self.config.samples)).transpose(1, 2).flatten(2, 3)
        if chunks.shape[2] == 1:
            return chunks[:, :, 0]
        q = self.critic(obs, chunks.flatten(1, 2)).unflatten(2, (count, -1))  # [M, B, S, C]
        q = q.permute(1, 2, 0, 3)  # [B, S, M, C]
        if "critic_noise" in noise:
            pair = noise["critic_noise"].topk(self.config.pair, dim=-1).indices  # [B, S, P]
            q = q.gather(2, pair[..., None].expand(-1, -1, -1, q.shape[-1]))
        return _take(chunks, q.amin(2).argmax(-1))

    def choose(self, obs: Tensor, chunks: Tensor, members: Tensor | None) -> Tensor:
        """The best of ``[B, C, A]`` by the critics ``members [P]`` (None: all): ``[B, A]``."""
        if chunks.shape[1] == 1:
            return chunks[:, 0]
        return _take(chunks, self.critic(obs, chunks, members).amin(0).argmax(-1))

    # ---- imitation -------------------------------------------------------------------------

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Refused: what imitates is the base.

        Raises:
            GenpolicyError: always.
        """
        raise GenpolicyError(
            "an on-the-fly policy does not imitate: pretrain a flow or diffusion policy and start "
            "algo=expo from it (init=...)"
        )


def _take(chunks: Tensor, index: Tensor) -> Tensor:
    """Rows ``index [...]`` of ``[..., C, A]``: ``[..., A]``."""
    where = index[..., None, None].expand(*index.shape, 1, chunks.shape[-1])
    return chunks.gather(-2, where).squeeze(-2)
