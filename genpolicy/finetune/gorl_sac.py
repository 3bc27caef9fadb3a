"""GoRL with SAC (arXiv 1812.05905) on the latent, where ``gorl.py`` has PPO.

The decoder is a part of the world, so the action of the critics is z:

    κ    = log π(z|o) − log N(z; 0, I),   z ~ π(·|o)
    y    = r + γ · ( min_j Q̄_j(o', z') − α κ' )
    L_Q  = Σ_j ( Q_j(o, z) − y )²
    L_π  = E[ α κ − min_j Q_j(o, z) ]
    L_α  = − log α · E[ κ − κ̄ ]

Entropy is relative to the prior, so E[κ] is the divergence that GoRL wants small, and κ̄ what it may
be. SAC's own, − log π, has no maximum where z is not squashed: beyond what the world cuts off Q is
flat, and π would spread without limit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genpolicy.finetune.off_policy import adam, descend
from genpolicy.finetune.replay import Replay
from genpolicy.finetune.rollout import Rollout, RolloutConfig, at_least_one, positive
from genpolicy.finetune.stages import DECODERS, Stages, StagesConfig, latent
from genpolicy.interfaces import Metrics
from genpolicy.policies.base import ChunkPolicy
from genpolicy.runs import seeding
from genpolicy.runs.checkpoint import pack, unpack
from genpolicy.spec import GenpolicyError, VecEnv
from genpolicy.values.critic import CriticEnsemble, follow


@dataclass(frozen=True)
class GoRLSACConfig(StagesConfig, RolloutConfig):
    """Hyperparameters.

    Attributes:
        updates: Gradient steps per iteration.
        batch_size: Transitions per gradient step.
        capacity: Transitions that the replay holds.
        learning_starts: Transitions before the first gradient step.
        gamma: Discount per chunk.
        tau: Share of the critics that their targets take over in each gradient step.
        actor_lr: Adam learning rate of the encoder.
        critic_lr: Adam learning rate of the critics.
        critic_hidden: Widths of the critics, LayerNorm MLPs.
        critics: How many; the smallest value counts.
        alpha: First temperature.
        alpha_lr: Adam learning rate of its logarithm; 0 keeps it.
        divergence: κ̄ per scalar of z, in nats.
        reward_scale: Rewards are multiplied by this.
    """

    rollout_steps: int = 1
    updates: int = 16
    batch_size: int = 256
    capacity: int = 500_000
    learning_starts: int = 5_000
    gamma: float = 0.99
    tau: float = 0.005
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    critic_hidden: tuple[int, ...] = (256, 256)
    critics: int = 2
    alpha: float = 0.03
    alpha_lr: float = 3e-4
    divergence: float = 1.0
    reward_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        self.check_stages()
        at_least_one(self, "updates", "batch_size", "critics")
        positive(self, "alpha", "actor_lr", "critic_lr")
        if not 0 < self.tau <= 1:
            raise GenpolicyError(f"algo.tau={self.tau} must lie in (0, 1]")
        if self.alpha_lr < 0:
            raise GenpolicyError(f"algo.alpha_lr={self.alpha_lr}: 0 keeps alpha, less is no rate")
        if not self.critic_hidden or min(self.critic_hidden) < 1:
            raise GenpolicyError(f"algo.critic_hidden={list(self.critic_hidden)} needs a layer")
        if self.capacity < self.learning_starts:
            raise GenpolicyError(
                f"algo.capacity={self.capacity} must hold algo.learning_starts="
                f"{self.learning_starts} transitions: it would never learn"
            )


class GoRLSAC:
    """Trains a latent policy around a flow or diffusion decoder, off policy."""

    policies = DECODERS

    def __init__(self, base: ChunkPolicy, env: VecEnv, config: GoRLSACConfig, seed: int) -> None:
        self.config = c = config
        if (rows := c.rollout_steps * env.num_envs) > c.capacity:
            raise GenpolicyError(
                f"algo.capacity={c.capacity} does not hold one iteration: {rows} transitions of "
                f"{env.num_envs} environments"
            )
        self.policy = latent(base, c, seed)
        self.rng = self.policy.rng = np.random.default_rng(seed)
        self.device = self.policy.device
        self.stages = Stages(self.policy, env, c, seed)
        normalizer, obs_dim = self.policy.normalizer, self.policy.obs_dim
        self.rollout = Rollout(env, normalizer, c.rollout_steps, obs_dim, bool(c.normalize_obs))
        self.rollout.reset(seeding.env_seed(seed, "train"), bool(c.stagger))
        self._z = torch.zeros(c.rollout_steps, env.num_envs, self.policy.chunk_dim)
        self._metrics: Metrics = {}
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        """New critics and optimisers, nothing remembered: at the start, and with a new decoder."""
        c, dims = self.config, (self.policy.obs_dim, self.policy.chunk_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = CriticEnsemble(c.critics, *dims, c.critic_hidden).to(self.device)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(c.alpha, device=self.device).log().requires_grad_()
        self.actor_opt = adam(self.policy.net.parameters(), c.actor_lr)
        self.critic_opt = adam(self.critic.parameters(), c.critic_lr)
        self.alpha_opt = adam([self.log_alpha], c.alpha_lr)
        self.replay = Replay(c.capacity, self.device)

    # ---- collect -----------------------------------------------------------------------------

    @property
    def env_steps(self) -> int:
        """Control steps executed so far, in all environments."""
        return self.rollout.env_steps

    @torch.no_grad()
    def collect(self) -> None:
        """Explore for ``rollout_steps`` chunks; remember them in task units: statistics move on."""
        self.rollout.collect(self._act)
        r = self.rollout
        self.replay.add(
            obs=r.seen.flatten(0, 1),
            next_obs=r.seen_final.flatten(0, 1),
            z=self._z.flatten(0, 1),
            reward=torch.from_numpy(r.reward.flatten()).to(self.device),
            goes_on=torch.from_numpy(~r.terminated.flatten()).to(self.device),
        )

    def _act(self, t: int, obs: Tensor) -> NDArray[np.float32]:
        z, _ = self._sample(obs)
        self._z[t] = z
        actions = self.policy.decoded_actions(obs, z)
        return actions[:, : self.policy.spec.exec_steps].cpu().numpy()

    def _sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``[B, A]`` and their κ ``[B]``, differentiable."""
        mean, std = self.policy.distribution(obs)
        noise = self.rng.standard_normal(mean.shape, dtype=np.float32)
        eps = torch.from_numpy(noise).to(self.device)
        z = mean + std * eps
        return z, ((z.square() - eps.square()) / 2 - std.log()).sum(1)

    # ---- update ------------------------------------------------------------------------------

    def update(self) -> None:
        """``updates`` gradient steps; at the end of a stage also the new decoder."""
        c = self.config
        if len(self.replay) >= c.learning_starts:
            rows = [
                self._step(self.replay.sample(self.rng, c.batch_size)) for _ in range(c.updates)
            ]
            names = ("train/critic_loss", "train/actor_loss", "policy/prior_kl", "policy/q_mean")
            self._metrics = dict(zip(names, torch.stack(rows).mean(0).tolist(), strict=True))
            self._metrics["policy/alpha"] = float(self.log_alpha.detach().exp())
        self.rollout.adapt()
        if self.stages.over():
            self._metrics["gorl/decoder_loss"] = self._next_stage()
        self._metrics["gorl/stage"] = float(self.stages.number)

    def _step(self, batch: dict[str, Tensor]) -> Tensor:
        """One gradient step of critics, encoder and temperature; the numbers that are logged."""
        c, alpha = self.config, self.log_alpha.exp().detach()
        obs, next_obs = (self.policy.normalizer.rows(batch[name]) for name in ("obs", "next_obs"))
        with torch.no_grad():
            z, divergence = self._sample(next_obs)
            value = self.target(next_obs, z[:, None])[..., 0].amin(0) - alpha * divergence
            y = c.reward_scale * batch["reward"] + c.gamma * batch["goes_on"] * value
        q = self.critic(obs, batch["z"][:, None])[..., 0]  # [M, B]
        critic_loss = (q - y).square().mean(1).sum()
        descend(self.critic_opt, critic_loss)

        z, divergence = self._sample(obs)
        self.critic.requires_grad_(False)
        gain = self.critic(obs, z[:, None])[..., 0].amin(0)
        self.critic.requires_grad_(True)
        actor_loss = (alpha * divergence - gain).mean()
        descend(self.actor_opt, actor_loss)

        if c.alpha_lr:
            excess = divergence.detach() - c.divergence * self.policy.chunk_dim
            descend(self.alpha_opt, -(self.log_alpha * excess).mean())
        follow(self.target, self.critic, c.tau)
        return torch.stack([critic_loss, actor_loss, divergence.mean(), q.mean()]).detach()

    def _next_stage(self) -> float:
        loss, env_steps = self.stages.refine()
        self.rollout.env_steps += env_steps
        self._metrics = {}
        weights, episodes, _ = self.stages.seeds
        self._begin(weights)
        self.rollout.reset(episodes, bool(self.config.stagger))
        return loss

    def metrics(self) -> Metrics:
        """Of the last rollout and update."""
        return {**self.rollout.metrics(), **self._metrics}

    # ---- checkpoint --------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        names = ("actor_opt", "critic_opt", "alpha_opt", "replay", "rollout", "stages")
        return {name: getattr(self, name) for name in names}

    def _modules(self) -> dict[str, nn.Module]:
        return {"policy": self.policy, "critic": self.critic, "target": self.target}

    def state_dict(self) -> dict[str, Any]:
        """Weights under ``model``; everything else that continues bit for bit beside."""
        return {
            "model": pack(self._modules()),
            "log_alpha": self.log_alpha.detach().clone(),
            "rng": self.rng.bit_generator.state,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit, in any stage."""
        unpack(state["model"], self._modules())
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self.rng.bit_generator.state = state["rng"]
