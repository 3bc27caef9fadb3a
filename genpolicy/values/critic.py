"""The value function of V-GPS: a pessimistic ensemble Q(observation history, executed chunk).

V-GPS (arXiv 2410.13816) scores one action with the minimum of two heads. Here Q takes the whole
chunk that the robot executes, and the score is the ensemble's lower bound mean − k·std. With two
members and k = 1 that is exactly their minimum; with more it counters the over-optimisation that
the paper reports for large numbers of samples (its table: K = 50 → .84, K = 100 → .63).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from genpolicy.data.normalizer import Normalizer
from genpolicy.spec import GenpolicyError, PolicySpec


@dataclass(frozen=True)
class ValueConfig:
    """Shape of the value function.

    Attributes:
        hidden: Widths of the hidden layers.
        members: M, critics in the ensemble.
        pessimism: k of the score mean − k·std over the members.
    """

    hidden: tuple[int, ...] = (128, 128)
    members: int = 5
    pessimism: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be built; lists (YAML) become tuples."""
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if not self.hidden or min(self.hidden) < 1 or self.members < 1 or self.pessimism < 0:
            raise GenpolicyError(
                f"value: need at least one hidden layer, members >= 1 and pessimism >= 0, "
                f"got hidden={self.hidden}, members={self.members}, pessimism={self.pessimism}"
            )


class EnsembleLinear(nn.Module):
    """M linear layers as one batched product."""

    def __init__(self, members: int, in_dim: int, out_dim: int, *, fan_in: int = 0) -> None:
        super().__init__()
        bound = 1 / math.sqrt(fan_in or in_dim)
        self.weight = nn.Parameter(torch.empty(members, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, out_dim).uniform_(-bound, bound))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """``[M, R, in]``, or ``[R, in]`` for all members, to ``[M, R, out]``."""
        weight, bias = self.weight, self.bias
        if members is not None:
            weight, bias = weight[members], bias[members]
        return torch.baddbmm(bias, x.expand(len(weight), -1, -1), weight)


class CriticEnsemble(nn.Module):
    """M LayerNorm MLPs over normalised rows, evaluated together.

    The first layer is kept as two matrices, so that an observation is encoded once for all the
    chunks that are scored in it.
    """

    def __init__(self, members: int, obs_dim: int, chunk_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        fan_in = obs_dim + chunk_dim  # the two parts are initialised as the one layer they are
        self.from_obs = EnsembleLinear(members, obs_dim, hidden[0], fan_in=fan_in)
        bound = 1 / math.sqrt(fan_in)
        self.from_chunk = nn.Parameter(
            torch.empty(members, chunk_dim, hidden[0]).uniform_(-bound, bound)
        )
        dims = [*hidden, 1]
        self.layers = nn.ModuleList(
            EnsembleLinear(members, a, b) for a, b in itertools.pairwise(dims)
        )

    def forward(self, obs: Tensor, chunks: Tensor, members: Tensor | None = None) -> Tensor:
        """Rows ``[B, obs_dim]`` and ``[B, N, chunk_dim]`` to ``[M, B, N]``, or of some members."""
        batch, samples, _ = chunks.shape
        from_chunk = self.from_chunk if members is None else self.from_chunk[members]
        h = torch.matmul(chunks.flatten(0, 1), from_chunk)  # [M, B * N, H]
        h.unflatten(1, (batch, samples)).add_(self.from_obs(obs, members)[:, :, None])
        *layers, last = self.layers
        for layer in layers:
            h = layer(_activate(h), members)
        h = _activate(h).float()
        # Under autocast, too, values are float32: candidates differ by less than bfloat16 resolves.
        with torch.autocast(h.device.type, enabled=False):
            return last(h, members).reshape(-1, batch, samples)


def _activate(h: Tensor) -> Tensor:
    return functional.layer_norm(h, h.shape[-1:]).relu_()


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move every weight of a target network by the share ``tau`` towards ``source``."""
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, tau)


def lower_bound(q: Tensor, pessimism: float) -> Tensor:
    """Mean − k·std over the members: ``[M, ...]`` to ``[...]``."""
    if pessimism == 0:
        return q.mean(0)
    std, mean = torch.std_mean(q, dim=0, correction=0)
    return mean - pessimism * std


class ValueFunction(nn.Module):
    """Scores chunks of actions: what is shipped, exported and consulted at the robot.

    It holds the *target* networks of the algorithm that trained it and its own normalizer, so
    task units go in whatever the policy that proposes the chunks uses inside.
    """

    def __init__(
        self, config: ValueConfig, spec: PolicySpec, normalizer: Normalizer | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.normalizer = normalizer if normalizer is not None else Normalizer(spec.task)
        self.critic = self.make_critic()

    def make_critic(self) -> CriticEnsemble:
        """A freshly initialised ensemble of this function's shape."""
        spec, config = self.spec, self.config
        obs_dim = spec.obs_steps * spec.task.obs_dim
        chunk_dim = spec.exec_steps * spec.task.action.dim
        return CriticEnsemble(config.members, obs_dim, chunk_dim, config.hidden)

    def config_dict(self) -> dict[str, Any]:
        """What ``build_value`` needs to rebuild this module."""
        return {"name": "q_ensemble", **asdict(self.config)}

    def chunk_rows(self, chunks: Tensor) -> Tensor:
        """Executed part of ``[B, N, >=Ta, Da]``, normalised and flat: ``[B, N, Ta * Da]``."""
        return self.normalizer.action(chunks[:, :, : self.spec.exec_steps]).flatten(2)

    def score(self, obs: Mapping[str, Tensor], chunks: Tensor) -> Tensor:
        """Pessimistic value of N chunks per observation.

        Args:
            obs: ``{name: [B, To, D]}`` in task units.
            chunks: ``[B, N, Tp, Da]`` in task units; the first Ta rows count.

        Returns:
            ``[B, N]``.
        """
        q = self.critic(self.normalizer.obs(obs), self.chunk_rows(chunks))
        return lower_bound(q, self.config.pessimism)
