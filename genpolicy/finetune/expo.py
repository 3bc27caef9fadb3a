"""EXPO: expressive policies improved by small edits (arXiv 2507.07986, algorithm 1).

The policy is chosen on the fly (``policies/edit.py``): the best of N samples of a base policy and N
edits of them, when acting and in the TD target alike. What learns:

    base    by imitation of everything that was executed, never by Q
    Q       L_Q = Σ_j ( Q_j(o, a) − y )²,  y = R + D · min_{j ∈ J'} Q̄_j(o', a*),
            a* chosen by another random pair J: two pairs, so that the maximum is less biased
    edit    L_e = E[ α log π_e(e|o, a) − mean_j Q_j(o, a + e) ],  a from the data
    α       L_α = −log α · E[ log π_e + H̄ ],  H̄ = −A/2 + A log β

Before the edits there may be a warm-up in which the base alone acts and is evaluated, so that Q is
not random when it first chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.finetune.best_of_n import BestOfN, BestOfNConfig
from genpolicy.finetune.off_policy import adam, descend
from genpolicy.finetune.rollout import positive
from genpolicy.finetune.transitions import Rows
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.edit import OnTheFlyConfig
from genpolicy.spec import GenpolicyError, VecEnv


@dataclass(frozen=True)
class EXPOConfig(BestOfNConfig):
    """Hyperparameters.

    Attributes:
        edits: Whether there are edits.
        edit_scale: β, the largest edit, in normalised action units.
        edit_hidden: Widths of the edit policy: an odd number of equal values.
        edit_lr: Adam learning rate of the edit policy.
        alpha: First temperature.
        alpha_lr: Adam learning rate of its logarithm; 0 keeps it.
        warmup: Iterations in which the base acts alone.
        stored_samples: Draw the base's N samples of a next state once, when it is first seen,
            instead of in every gradient step (the paper).
    """

    edits: bool = True
    edit_scale: float = 0.1
    edit_hidden: tuple[int, ...] = (256, 256, 256)
    edit_lr: float = 3e-4
    alpha: float = 1.0
    alpha_lr: float = 3e-4
    warmup: int = 0
    stored_samples: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        positive(self, "alpha", "edit_lr")
        if min(self.alpha_lr, self.warmup) < 0:
            raise GenpolicyError("algo: alpha_lr and warmup must not be negative")

    def choice(self, base: Mapping[str, Any]) -> OnTheFlyConfig:
        """Among samples and their edits."""
        edit = {name: getattr(self, name) for name in ("edits", "edit_scale", "edit_hidden")}
        return replace(super().choice(base), **edit)


class EXPO(BestOfN):
    """Trains base, critics and edit policy of an on-the-fly policy."""

    config: EXPOConfig

    def __init__(
        self,
        base: ChunkPolicy,
        env: VecEnv,
        config: EXPOConfig,
        seed: int,
        demos: Demonstrations | None = None,
    ) -> None:
        self.iteration = 0
        super().__init__(base, env, config, seed, demos)
        self.edit_opt = adam(self.policy.net.parameters(), config.edit_lr)
        self.log_alpha = torch.tensor(config.alpha, device=self.device).log().requires_grad_()
        self.alpha_opt = adam([self.log_alpha], config.alpha_lr)

    @property
    def warming_up(self) -> bool:
        """Whether the base still acts alone."""
        return self.iteration < self.config.warmup

    # ---- acting and what it is worth: the same choice ------------------------------------------

    def act(self, obs: Tensor) -> Tensor:
        """The policy's choice; the base's first sample in the warm-up."""
        if not self.warming_up:
            return super().act(obs)
        noise = self.actor.draw_noise(len(obs))["noise"]  # [E, 1, N, Tp, Da]
        return self.actor.propose(obs, noise[:, 0, :1])[:, 0]

    def value(self, batch: Rows) -> Tensor:
        """Min over one pair of Q̄ at the choice of another."""
        obs, policy = batch["next_obs"], self.policy
        samples = batch["samples"] if self.config.stored_samples else self.propose(obs)
        if self.warming_up:
            chosen = samples[:, 0]
        else:
            eps = self.normal(*samples.shape) if self.config.edits else None
            with self._autocast():
                candidates = policy.candidates(obs, samples, eps)
                chosen = policy.choose(obs, candidates, self.some_critics())
        return self.least(obs, chosen)

    @torch.no_grad()
    def extend(self, rows: Rows) -> Rows:
        """With the base's samples in the next state."""
        if not self.config.stored_samples:
            return rows
        return rows | {"samples": self.propose(rows["next_obs"])}

    # ---- update ------------------------------------------------------------------------------

    def update(self) -> None:
        """Critics, base, edit policy and temperature."""
        super().update()
        self.iteration += 1

    def learn(self, batch: Rows) -> dict[str, Tensor]:
        """One step of the base, and after the warm-up of the edit policy and its temperature."""
        losses, c = super().learn(batch), self.config
        if not c.edits or not c.edit_scale or self.warming_up:
            return losses
        obs, chunk = batch["obs"], batch["chunk"][:, None]
        alpha = self.log_alpha.exp().detach()
        edited, log_prob = self.policy.edit(obs, chunk, self.normal(*chunk.shape))
        self.critic.requires_grad_(False)
        q = self.critic(obs, edited).mean(0)  # [B, 1]
        self.critic.requires_grad_(True)
        loss = (alpha * log_prob - q).mean()
        descend(self.edit_opt, loss)
        entropy = -log_prob.detach().mean()
        if c.alpha_lr:
            lowest = self.policy.chunk_dim * (math.log(c.edit_scale) - 0.5)
            descend(self.alpha_opt, self.log_alpha * (entropy - lowest))
        return losses | {
            "train/actor_loss": loss.detach(),
            "policy/edit_entropy": entropy,
            "policy/edit_size": (edited - chunk).detach().abs().mean(),
            "policy/alpha": alpha,
        }

    # ---- checkpoint --------------------------------------------------------------------------

    def parts(self) -> dict[str, Any]:
        """Also the other optimisers."""
        return super().parts() | {"edit_opt": self.edit_opt, "alpha_opt": self.alpha_opt}

    def state_dict(self) -> dict[str, Any]:
        """Also the temperature, and whether the warm-up is over."""
        return super().state_dict() | {
            "log_alpha": self.log_alpha.detach().clone(),
            "iteration": self.iteration,
            "offline_samples": self.offline.get("samples", torch.zeros(0)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit."""
        super().load_state_dict(state)
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self.iteration = state["iteration"]
        if len(state["offline_samples"]):
            self.offline["samples"] = state["offline_samples"].to(self.device)
