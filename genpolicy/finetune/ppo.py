"""PPO on a Gaussian policy (arXiv 1707.06347): the baseline of every comparison.

The ratio is the true one, of the whole executed chunk: log π(a|o) is summed over its scalars. The
policy's tanh, if it has one, cancels in it, so likelihoods are those of the value before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genpolicy.finetune.on_policy import OnPolicy, OnPolicyConfig, Record
from genpolicy.policies.gaussian import GaussianPolicy
from genpolicy.spec import VecEnv


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Hyperparameters; defaults are those of FPO's tuned baseline where it states them.

    Attributes:
        entropy_coef: Weight of the entropy bonus.
    """

    clip: float = 0.1
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    critic_warmup: int = 0
    target_kl: float = 0.05
    entropy_coef: float = 0.0


class PPO(OnPolicy):
    """Trains a Gaussian policy, from scratch or from imitation."""

    policies = (GaussianPolicy.name,)
    config: PPOConfig

    def __init__(self, base: GaussianPolicy, env: VecEnv, config: PPOConfig, seed: int) -> None:
        super().__init__(base, env, config, seed)

    def explore(self, obs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sample the Gaussian."""
        mean, std = self.policy.distribution(obs)
        noise = self.rng.standard_normal(mean.shape, dtype=np.float32)
        x = mean + std * torch.from_numpy(noise).to(self.device)
        return self._actions(obs, x), {"x": x}

    def _actions(self, obs: Tensor, x: Tensor) -> Tensor:
        """What is executed where x ``[E, A]`` was sampled."""
        return self.policy.to_actions(x)

    def log_likelihood(self, obs: Tensor, record: Record) -> Tensor:
        """Log π of the executed rows: ``[B, 1]``."""
        return self._executed(self.policy.log_prob(obs, record["x"])).sum(1, keepdim=True)

    def penalty(self, obs: Tensor, record: Record) -> Tensor | None:
        """The negative entropy of the executed rows, up to a constant."""
        if not self.config.entropy_coef:
            return None
        _, std = self.policy.distribution(obs)
        return -self.config.entropy_coef * self._executed(std.float().log()).sum(1).mean()

    def _executed(self, x: Tensor) -> Tensor:
        """The scalars ``[B, Ta * Da]`` of ``[B, Tp * Da]`` that reach the environment."""
        return x[:, : self.policy.spec.exec_steps * self.policy.spec.task.action.dim]
