"""DPPO: diffusion policy policy optimisation (arXiv 2409.00588).

One chunk of actions is the end of a chain of Gaussian denoising steps. DPPO treats the last K' of
them as actions of an inner MDP whose reward and transition come only after the final one, and
applies PPO to each step's likelihood:

    r_i = exp( log p_θ(x_{i+1} | x_i, o) − log p_old(x_{i+1} | x_i, o) ),   i = 0 (noisiest) … K'−1,
    Â_i = γ_denoise^{K'−1−i} · GAE(V(o)),                                    (section 4.2)
    L   = − mean_i min( r_i Â_i, clip(r_i, 1 ± ε_i) Â_i ),                   (eq. 4.3)

with a critic V that sees the environment's state only. Log-probabilities are averaged over the
executed rows of the chunk, and ε_i grows exponentially from ``clip_base`` at the noisiest step to
``clip`` at the last one (appendix).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genpolicy.finetune.on_policy import OnPolicy, OnPolicyConfig, Record
from genpolicy.finetune.rollout import at_least_one
from genpolicy.policies.diffusion import DiffusionPolicy
from genpolicy.spec import VecEnv

# Per-scalar log-probabilities are cut to this range before averaging, as in the paper's code: one
# freak draw cannot dominate a chunk.
LOG_PROB_RANGE = (-5.0, 2.0)


@dataclass(frozen=True)
class DPPOConfig(OnPolicyConfig):
    """Hyperparameters; defaults are tuned for Lift on two cores.

    Attributes:
        tuned_steps: K', how many of the last denoising steps are tuned.
        sample_steps: S, denoising steps of the tuned sampler; 0 keeps the base policy's.
        explore_std: Floor under every transition's std, in normalised action units.
        explore_eta: η of the exploring chain.
        gamma_denoise: Discount per denoising step: noisier steps get less credit.
        clip: ε of the last denoising step.
        clip_base: ε of the noisiest one.
        clip_rate: Exponent of the interpolation between them.
        bc_coef: Weight of −log p_θ on chains sampled from the pretrained policy; 0 is off.
    """

    tuned_steps: int = 5
    sample_steps: int = 5
    explore_std: float = 0.1
    explore_eta: float = 1.0
    gamma_denoise: float = 0.9
    clip_base: float = 0.002
    clip_rate: float = 3.0
    bc_coef: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a chain of which nothing is tuned."""
        super().__post_init__()
        at_least_one(self, "tuned_steps")


def clip_widths(steps: int, clip: float, base: float, rate: float) -> Tensor:
    """ε_i for i = 0 … K'−1: ``base`` at the noisiest step, ``clip`` at the last. ``[K']``."""
    if steps == 1:
        return torch.tensor([clip])
    s = torch.arange(steps) / (steps - 1)
    return base + (clip - base) * torch.expm1(rate * s) / math.expm1(rate)


class DPPO(OnPolicy):
    """Fine-tunes the last K' denoising steps of a diffusion policy."""

    policies = (DiffusionPolicy.name,)
    kept = ("policy", "base")
    config: DPPOConfig

    def __init__(self, base: DiffusionPolicy, env: VecEnv, config: DPPOConfig, seed: int) -> None:
        c = config
        sampler = {
            "sample_steps": c.sample_steps or base.config.sample_steps,
            "explore_std": c.explore_std,
            "explore_eta": c.explore_eta,
        }
        self.base = base.fine_tunable(c.tuned_steps, **sampler).requires_grad_(False)
        super().__init__(base.fine_tunable(c.tuned_steps, **sampler), env, c, seed)
        self.base.rng = self.rng
        self.width = clip_widths(c.tuned_steps, c.clip, c.clip_base, c.clip_rate).to(self.device)
        exponents = torch.arange(c.tuned_steps - 1, -1, -1, device=self.device)
        self.credit = c.gamma_denoise**exponents  # [K']

    def explore(self, obs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sample the stochastic chain."""
        chain = self.policy.sample_chain(obs)
        return chain.actions, {"chain": chain.states}

    def log_likelihood(self, obs: Tensor, record: Record) -> Tensor:
        """Mean log-probability of the executed rows, per denoising step: ``[B, K']``."""
        log_prob = self.policy.chain_log_prob(obs, record["chain"])
        executed = log_prob[:, :, : self.policy.spec.exec_steps].clamp(*LOG_PROB_RANGE)
        return executed.mean(dim=(2, 3))

    def penalty(self, obs: Tensor, record: Record) -> Tensor | None:
        """−log p_θ of chains that the pretrained policy draws at the same observations."""
        if not self.config.bc_coef:
            return None
        chain = {"chain": self.base.sample_chain(obs).states}
        return -self.config.bc_coef * self.log_likelihood(obs, chain).mean()
