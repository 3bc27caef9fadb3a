"""RLPD: SAC on a Gaussian policy with half of every batch from demonstrations (arXiv 2302.02948).

    y   = R + D · min_{j ∈ J} Q̄_j(o', a'),  a' ~ π(·|o'),   J a random pair of the ensemble
    L_π = E[ α log π(a|o) − mean_j Q_j(o, a) ]
    L_α = −log α · E[ log π + H̄ ],  H̄ = −A/2

The actions are chunks. ``entropy_backup`` adds SAC's −α log π(a'|o') to the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.normalizer import Normalizer
from genpolicy.finetune.off_policy import OffPolicy, adam, descend
from genpolicy.finetune.off_policy_config import OffPolicyConfig
from genpolicy.finetune.rollout import positive
from genpolicy.finetune.transitions import Rows
from genpolicy.policies.gaussian import GaussianPolicy, squashed
from genpolicy.spec import GenpolicyError, VecEnv
from genpolicy.values.critic import CriticEnsemble


@dataclass(frozen=True)
class RLPDConfig(OffPolicyConfig):
    """Hyperparameters.

    Attributes:
        actor_lr: Adam learning rate of the policy.
        alpha: First temperature.
        alpha_lr: Adam learning rate of its logarithm; 0 keeps it.
        entropy_backup: Whether the target counts the entropy of the next action.
    """

    actor_lr: float = 3e-4
    alpha: float = 1.0
    alpha_lr: float = 3e-4
    entropy_backup: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        positive(self, "alpha", "actor_lr")


class RLPD(OffPolicy):
    """Trains a tanh-Gaussian policy."""

    policies = (GaussianPolicy.name,)
    policy: GaussianPolicy
    config: RLPDConfig

    def __init__(
        self,
        policy: GaussianPolicy,
        env: VecEnv,
        config: RLPDConfig,
        seed: int,
        demos: Demonstrations | None = None,
    ) -> None:
        if config.normalize_obs and policy.squash != "tanh":
            policy = policy.fine_tunable(squash="tanh")  # nothing is learned yet that it changes
        if policy.squash != "tanh" or policy.spec.chunk != policy.spec.exec_steps:
            raise GenpolicyError(
                "algo=rlpd trains a Gaussian policy with policy.squash=tanh that executes its "
                "whole chunk (exec_steps = chunk): start from another one, or from scratch"
            )
        if config.normalize_obs and demos is not None:  # from scratch: the data have a scale
            tensors = {k: torch.from_numpy(v) for k, v in demos.obs.items()}
            fitted = Normalizer.fit(demos.task, tensors, torch.from_numpy(demos.actions))
            policy.normalizer.set_obs(fitted.obs_mid.numpy(), fitted.obs_scale.numpy())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            target = CriticEnsemble(
                config.critics, policy.obs_dim, policy.chunk_dim, config.critic_hidden
            )
        super().__init__(policy, env, target.to(policy.device), config, seed, demos)
        self.actor_opt = adam(policy.net.parameters(), config.actor_lr)
        self.log_alpha = torch.tensor(config.alpha, device=self.device).log().requires_grad_()
        self.alpha_opt = adam([self.log_alpha], config.alpha_lr)

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks ``[B, A]`` and their log-densities ``[B]``, differentiable."""
        mean, std = self.policy.distribution(obs)
        return squashed(mean, std, self.normal(*mean.shape))

    def act(self, obs: Tensor) -> Tensor:
        """As the policy explores."""
        mean, std = self.actor.distribution(obs)
        eps = self.actor.draw_noise(len(obs))["noise"].flatten(1)
        return squashed(mean, std, eps)[0]

    def value(self, batch: Rows) -> Tensor:
        """Min over a pair of Q̄ at the policy's action."""
        c, obs = self.config, batch["next_obs"]
        chunk, log_prob = self.sample(obs)
        value = self.least(obs, chunk)
        return value - self.log_alpha.detach().exp() * log_prob if c.entropy_backup else value

    def learn(self, batch: Rows) -> dict[str, Tensor]:
        """One step of the policy and of its temperature."""
        alpha = self.log_alpha.exp().detach()
        chunk, log_prob = self.sample(batch["obs"])
        self.critic.requires_grad_(False)
        q = self.critic(batch["obs"], chunk[:, None])[..., 0].mean(0)
        self.critic.requires_grad_(True)
        loss = (alpha * log_prob - q).mean()
        descend(self.actor_opt, loss)
        entropy = -log_prob.detach().mean()
        if self.config.alpha_lr:
            descend(self.alpha_opt, self.log_alpha * (entropy + self.policy.chunk_dim / 2))
        return {"train/actor_loss": loss.detach(), "policy/entropy": entropy, "policy/alpha": alpha}

    # ---- checkpoint --------------------------------------------------------------------------

    def parts(self) -> dict[str, Any]:
        """Also the policy's optimisers."""
        return super().parts() | {"actor_opt": self.actor_opt, "alpha_opt": self.alpha_opt}

    def state_dict(self) -> dict[str, Any]:
        """Also the temperature."""
        return super().state_dict() | {"log_alpha": self.log_alpha.detach().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit."""
        super().load_state_dict(state)
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
