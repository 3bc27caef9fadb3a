"""FPO and FPO++: policy optimisation of a flow by its own training loss.

The likelihood of a flow policy is expensive; its conditional flow matching loss is an evidence
lower bound, so the *difference* of two losses on the same draws stands in for the difference of
two log-likelihoods. For every action a, P pairs (τ_j, ε_j) are drawn once, when acting, and kept:

    ℓ_j(θ) = w(τ_j) ‖ v_θ(x_j, τ_j, o) − (a − ε_j) ‖²,    x_j = (1 − τ_j) ε_j + τ_j a,
    FPO     r   = exp( mean_j ℓ_j(old) − mean_j ℓ_j(θ) )              (arXiv 2507.21053, eq. 13)
    FPO++   r_j = exp( ℓ_j(old) − ℓ_j(θ) ), each with its own surrogate    (arXiv 2602.02481)

Time runs from noise (0) to action (1), opposite to FPO's paper. There the velocity is supervised
through the noise that it implies, which here is the weight w = τ²; w = 1 is the plain velocity
error. FPO draws τ from the solver's own times, FPO++ from the whole interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genpolicy.finetune.on_policy import OnPolicy, OnPolicyConfig, Record
from genpolicy.finetune.rollout import at_least_one
from genpolicy.policies.flow import FlowPolicy, time_grid
from genpolicy.spec import GenpolicyError, VecEnv

# FPO++ keeps τ away from both ends, where the interpolation degenerates. The interval between is a
# fine grid, finer than the network resolves: few distinct times are quickly embedded.
UNIFORM_TIMES = torch.linspace(0.005, 0.995, 128)


@dataclass(frozen=True)
class FPOConfig(OnPolicyConfig):
    """Hyperparameters; defaults are FPO's, ``configs/algo/fpo_plus.yaml`` holds those of FPO++.

    Attributes:
        pairs: P, pairs (τ, ε) per chunk.
        per_pair: One ratio per pair (FPO++) instead of one of their mean.
        loss: ``noise`` weights the velocity error by τ², ``velocity`` does not.
        times: Where τ is drawn: from the ``solver``'s own times, or ``uniform``.
        log_ratio_limit: Largest |log r|; beyond it the gradient ends.
        loss_limit: Losses are cut here: one pair cannot dominate.
        explore_std: Std of Gaussian noise on every action, in normalised action units.
        sample_steps: Integration steps of the trained policy; 0 keeps the base policy's.
        evaluate_from_zero: What is evaluated and exported integrates from x_0 = 0 (FPO++'s zero
            sampling) instead of from a random draw.
    """

    clip: float = 0.05
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    critic_warmup: int = 0
    pairs: int = 8
    per_pair: bool = False
    loss: str = "noise"
    times: str = "solver"
    log_ratio_limit: float = 3.0
    loss_limit: float = 20.0
    explore_std: float = 0.0
    sample_steps: int = 0
    evaluate_from_zero: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown variants."""
        super().__post_init__()
        for name, known in (("loss", ("noise", "velocity")), ("times", ("solver", "uniform"))):
            if getattr(self, name) not in known:
                raise GenpolicyError(
                    f"algo.{name}={getattr(self, name)!r} is unknown: choose one of {known}"
                )
        at_least_one(self, "pairs")
        if not (self.explore_std >= 0 and self.log_ratio_limit > 0 and self.loss_limit > 0):
            raise GenpolicyError(
                "algo: explore_std must not be negative, log_ratio_limit and loss_limit positive"
            )


class FPO(OnPolicy):
    """Trains a flow policy, from scratch or from imitation."""

    policies = (FlowPolicy.name,)
    config: FPOConfig

    def __init__(self, base: FlowPolicy, env: VecEnv, config: FPOConfig, seed: int) -> None:
        steps = config.sample_steps or base.config.sample_steps
        from_zero = {"initial_noise": 0.0} if config.evaluate_from_zero else {}
        policy = base.fine_tunable(sample_steps=steps, **from_zero)
        super().__init__(policy, env, config, seed)
        times = time_grid(steps)[:-1] if config.times == "solver" else UNIFORM_TIMES
        self.times = times.to(self.device)
        self.executed = base.spec.exec_steps * base.spec.task.action.dim
        # A squared error grows with the number of scalars: FPO takes their mean, FPO++ their sum
        # over its square root.
        self.scale = math.sqrt(self.executed) if config.per_pair else 1.0

    def explore(self, obs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Integrate from a random draw, and draw the pairs that judge the action."""
        c, count, dim = self.config, len(obs), self.policy.chunk_dim
        x = self.policy.integrate(obs, self._normal(count, 1, dim))[:, 0]
        if c.explore_std:
            x = x + c.explore_std * self._normal(count, dim)
        record = {"x": x, "eps": self._normal(count, c.pairs, dim), "t": self._times(count)}
        return self.policy.to_actions(x), record

    def log_likelihood(self, obs: Tensor, record: Record) -> Tensor:
        """Minus the flow matching losses: ``[B, 1]`` of their mean, or ``[B, P]``."""
        c, t = self.config, record["t"]
        error = self.policy.pair_losses(obs, record["x"], record["eps"], t).float()
        loss = self.scale * error[..., : self.executed].mean(-1)  # [B, P]
        if c.loss == "noise":
            loss = t.square() * loss
        loss = loss.clamp(max=c.loss_limit)
        return -loss if c.per_pair else -loss.mean(1, keepdim=True)

    def log_ratio(self, new: Tensor, old: Tensor) -> Tensor:
        """Limited, so that one outlier cannot blow up the update."""
        return (new - old).clamp(-self.config.log_ratio_limit, self.config.log_ratio_limit)

    def _normal(self, *shape: int) -> Tensor:
        return torch.from_numpy(self.rng.standard_normal(shape, dtype=np.float32)).to(self.device)

    def _times(self, count: int) -> Tensor:
        """``[count, P]``: one draw from each of P equal parts of the times.

        Each pair's time is as good as a draw from all of them, and their mean loss varies less.
        """
        pairs, times = self.config.pairs, len(self.times)
        share = (np.arange(pairs) + self.rng.random((count, pairs))) / pairs
        picks = np.minimum((share * times).astype(np.int64), times - 1)  # rounding may reach 1
        return self.times[torch.from_numpy(picks).to(self.device)]
