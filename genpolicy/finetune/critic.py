"""V of the environment's state: what on-policy methods measure advantages against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from genpolicy.finetune.gae import RewardScaler, gae
from genpolicy.finetune.rollout import Rollout
from genpolicy.interfaces import Metrics
from genpolicy.policies.nets.mlp import ResidualMLP
from genpolicy.runs import distributed


class CriticConfig(Protocol):
    """What ``Critic`` reads of a method's hyperparameters (see ``OnPolicyConfig``)."""

    gamma: float
    gae_lambda: float
    critic_lr: float
    critic_hidden: tuple[int, ...]
    critic_activation: str
    value_range: tuple[float, float] | None
    advantage_std_floor: float


class Targets(NamedTuple):
    """What a rollout of R chunks teaches."""

    advantage: Tensor  # [R] normalised over the rollout, on all ranks
    returns: Tensor  # [R] value targets, in scaled rewards
    metrics: Metrics


class Critic:
    """V(o) on scaled rewards, its optimiser, and the advantages that it gives.

    Args:
        obs_dim: C, scalars of a normalised observation.
        num_envs: E.
        config: Hyperparameters.
        seed: Of its initial weights.
        device: Where it lives.
    """

    def __init__(
        self, obs_dim: int, num_envs: int, config: Any, seed: int, device: torch.device
    ) -> None:
        self.config: CriticConfig = config
        self.device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = ResidualMLP(obs_dim, config.critic_hidden, 1, config.critic_activation)
        self.net.to(device)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), config.critic_lr, weight_decay=0.0, fused=True
        )
        self.scaler = RewardScaler(num_envs, config.gamma)

    @torch.no_grad()
    def targets(self, r: Rollout) -> Targets:
        """Advantages by GAE and value targets of a whole rollout."""
        c, shape = self.config, r.reward.shape
        reward = self.scaler(r.reward, r.terminated | r.truncated)
        low, high = (v / self.scaler.std for v in c.value_range or (-math.inf, math.inf))
        value, final_value = (
            self.net(x).view(shape).clamp(low, high).cpu().numpy() for x in (r.obs, r.final_obs)
        )
        advantage, returns = gae(
            reward, value, final_value, r.terminated, r.truncated, c.gamma, c.gae_lambda
        )
        explained = 1 - (returns - value).var() / max(returns.var(), 1e-8)
        moments = torch.tensor([advantage.mean(), np.square(advantage).mean()])
        mean, square = distributed.mean(moments.double()).tolist()
        std = max(square - mean**2, 0.0) ** 0.5
        advantage = (advantage - mean) / max(std, c.advantage_std_floor)
        rows = [torch.from_numpy(x).flatten().to(self.device) for x in (advantage, returns)]
        metrics = {"policy/explained_variance": float(explained), "policy/advantage_std": std}
        return Targets(rows[0], rows[1], metrics)

    def loss(self, obs: Tensor, returns: Tensor) -> Tensor:
        """Mean squared error of V at ``obs [B, C]``."""
        return mse_loss(self.net(obs).squeeze(-1).float(), returns)

    def descend(self, loss: Tensor) -> None:
        """One gradient step."""
        self.optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(self.net.parameters())
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """All but the weights."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
