"""GoRL: PPO on a latent policy, and a generative decoder that takes over what it found.

A stage of GoRL (arXiv 2512.02581, algorithm 1) has two halves:

1. The encoder π_θ(z|o) learns by PPO while the decoder g is frozen: the ratio is that of z, exact,
   and the decoder is a part of the world. A penalty holds π_θ near the prior N(0, I), because that
   is where the next decoder will be asked.
2. A new decoder learns what the encoder found (``stages.py``), and the encoder starts again.

In the first stage the decoder is the identity, or the pretrained policy that training starts from.
Without a second half (``stages=[]``) that policy stays as it is and is steered through its noise
(as in DSRL, arXiv 2506.15799).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genpolicy.finetune.critic import Critic
from genpolicy.finetune.on_policy import Record
from genpolicy.finetune.ppo import PPO, PPOConfig
from genpolicy.finetune.stages import DECODERS, Stages, StagesConfig, latent
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.latent import PRIORS, LatentPolicy
from genpolicy.spec import GenpolicyError, VecEnv


@dataclass(frozen=True)
class GoRLConfig(StagesConfig, PPOConfig):
    """PPO's hyperparameters, those of the stages, and what holds the encoder.

    Attributes:
        prior: The penalty: ``kl`` of the encoder to N(0, I), or ``l2``, μ² + σ².
        prior_coef: Its weight, per scalar of z.
        fresh_critic: Start V anew in every stage. (What the new decoder does with N(0, I) is what
            the last encoder did, so that its V is a good one to begin with.)
    """

    prior: str = "kl"
    prior_coef: float = 1e-3
    fresh_critic: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        self.check_stages()
        if self.prior not in PRIORS:
            raise GenpolicyError(f"algo.prior={self.prior!r}: choose one of {list(PRIORS)}")


class GoRL(PPO):
    """Trains a latent policy around a flow or diffusion decoder."""

    policies = DECODERS
    policy: LatentPolicy
    config: GoRLConfig

    def __init__(self, base: ChunkPolicy, env: VecEnv, config: GoRLConfig, seed: int) -> None:
        policy = latent(base, config, seed)
        super().__init__(policy, env, config, seed)
        self.stages = Stages(policy, env, config, seed)

    def _actions(self, obs: Tensor, x: Tensor) -> Tensor:
        """What PPO samples is z."""
        return self.policy.decoded_actions(obs, x)

    def penalty(self, obs: Tensor, record: Record) -> Tensor | None:
        """Distance of the encoder from the prior, and PPO's entropy bonus."""
        bonus = super().penalty(obs, record)
        if not self.config.prior_coef:
            return bonus
        mean, std = (part.float() for part in self.policy.distribution(obs))
        prior = self.config.prior_coef * PRIORS[self.config.prior](mean, std).sum(1).mean()
        return prior if bonus is None else prior + bonus

    def _executed(self, x: Tensor) -> Tensor:
        """Every scalar of z: through a decoder, each may change what is executed."""
        return super()._executed(x) if self.policy.config.identity else x

    def update(self) -> None:
        """PPO; at the end of a stage also the new decoder."""
        super().update()
        if self.stages.over():
            self._metrics["gorl/decoder_loss"] = self._next_stage()
        self._metrics["gorl/stage"] = float(self.stages.number)

    def _next_stage(self) -> float:
        c, rollout = self.config, self.rollout
        loss, env_steps = self.stages.refine()
        rollout.env_steps += env_steps
        weights, episodes, _ = self.stages.seeds
        if c.fresh_encoder:
            self.actor_opt.state.clear()
        if c.fresh_critic:
            obs_dim, num_envs = rollout.obs.shape[-1], rollout.env.num_envs
            self.critic = Critic(obs_dim, num_envs, c, weights, self.device)
        self.critic.scaler.returns[:] = 0
        rollout.reset(episodes, bool(c.stagger))
        return loss

    def state_dict(self) -> dict[str, Any]:
        """PPO's, and the stage."""
        return super().state_dict() | {"stages": self.stages.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit, in any stage."""
        self.stages.load_state_dict(state["stages"])
        super().load_state_dict(state)
