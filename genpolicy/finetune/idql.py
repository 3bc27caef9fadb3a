"""IDQL: implicit Q-learning, and the best of N samples of a policy that only imitates.

    L_V = E[ |τ − 1(u < 0)| u² ],  u = min_j Q̄_j(o, a) − V(o)        (arXiv 2304.10573, eq. 2 and 3)
    L_Q = Σ_j ( Q_j(o, a) − y )²,  y = R + D · V(o')

V is the τ-expectile of Q over the actions that were executed, so Q is never asked about others;
only when acting are N samples compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.finetune.best_of_n import BestOfN, BestOfNConfig
from genpolicy.finetune.off_policy import adam, descend
from genpolicy.finetune.transitions import Rows
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.nets.mlp import ResidualMLP
from genpolicy.spec import GenpolicyError, VecEnv


@dataclass(frozen=True)
class IDQLConfig(BestOfNConfig):
    """Hyperparameters.

    Attributes:
        expectile: τ; 0.5 is the mean, 1 the maximum.
        value_hidden: Widths of V: an odd number of equal values.
    """

    critics: int = 2
    expectile: float = 0.7
    value_hidden: tuple[int, ...] = (256, 256, 256)

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        if not 0.5 <= self.expectile < 1:
            raise GenpolicyError(f"algo.expectile={self.expectile} must lie in [0.5, 1)")


class IDQL(BestOfN):
    """Trains V, the critics and the base."""

    config: IDQLConfig

    def __init__(
        self,
        base: ChunkPolicy,
        env: VecEnv,
        config: IDQLConfig,
        seed: int,
        demos: Demonstrations | None = None,
    ) -> None:
        super().__init__(base, env, config, seed, demos)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = ResidualMLP(self.policy.obs_dim, config.value_hidden, 1, "relu")
        self.value_net = net.to(self.device)
        self.value_opt = adam(self.value_net.parameters(), config.critic_lr)

    def value(self, batch: Rows) -> Tensor:
        """V(o')."""
        return self.value_net(batch["next_obs"])[:, 0]

    def learn(self, batch: Rows) -> dict[str, Tensor]:
        """One step of V and of the base."""
        with torch.no_grad():
            q = self.least(batch["obs"], batch["chunk"])
        u = q - self.value_net(batch["obs"])[:, 0]
        weight = torch.where(u < 0, 1 - self.config.expectile, self.config.expectile)
        loss = (weight * u.square()).mean()
        descend(self.value_opt, loss)
        return super().learn(batch) | {"train/value_loss": loss.detach()}

    def modules(self) -> dict[str, nn.Module]:
        """Also V."""
        return super().modules() | {"value": self.value_net}

    def parts(self) -> dict[str, Any]:
        """Also its optimiser."""
        return super().parts() | {"value_opt": self.value_opt}
