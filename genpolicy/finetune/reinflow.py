"""ReinFlow: a flow policy with injected noise has an exact likelihood (arXiv 2505.22094).

Between two points of the time grid the Euler step becomes a Gaussian whose std a small network
learns with the velocity,

    x_{k+1} ~ N( x_k + (t_{k+1} − t_k) v_θ(x_k, t_k, o),  σ_φ(t_k, o)² ),     k = 0 … K−1,

so the log-likelihood of a whole chain is a sum of K Gaussians (that of x_0 does not depend on the
parameters), and PPO applies to it: one ratio per chunk,

    ℓ = 1/K Σ_k mean log N(x_{k+1}; …),   L = −S(r, Â, ε) − entropy_coef · mean log σ.

The noise network is thrown away afterwards: what is executed integrates the velocity alone.
``time_grid`` is the one grid of sampling and likelihood. Unlike the paper's code the means are
not cut to [-1, 1]: the actions are, when they are executed. The tuned policy is an Euler sampler
from random noise, whatever solver and initial noise the base was executed with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from genpolicy.finetune.on_policy import OnPolicy, OnPolicyConfig, Record
from genpolicy.finetune.rollout import at_least_one
from genpolicy.policies.flow import FlowPolicy, time_grid
from genpolicy.policies.nets.mlp import sinusoidal
from genpolicy.spec import GenpolicyError, VecEnv

TIME_DIM = 16


@dataclass(frozen=True)
class ReinFlowConfig(OnPolicyConfig):
    """Hyperparameters.

    Attributes:
        sample_steps: K, Euler steps of the tuned policy; 0 keeps the base policy's.
        noise_std: Smallest and largest σ, in normalised action units.
        noise_hidden: Width of the two hidden layers of σ.
        entropy_coef: Weight of the mean log σ.
    """

    clip: float = 0.01
    sample_steps: int = 4
    noise_std: tuple[float, float] = (0.08, 0.16)
    noise_hidden: int = 64
    entropy_coef: float = 0.03

    def __post_init__(self) -> None:
        """Refuse noise that has no likelihood."""
        super().__post_init__()
        if len(self.noise_std) != 2 or not 0 < self.noise_std[0] < self.noise_std[1]:
            raise GenpolicyError(
                f"algo.noise_std={list(self.noise_std)} must be two rising positive numbers"
            )
        at_least_one(self, "noise_hidden")


class NoiseNet(nn.Module):
    """σ_φ(t, o): its log-variance lies between those of the two stds."""

    def __init__(self, obs_dim: int, out_dim: int, hidden: int, std: tuple[float, float]) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(TIME_DIM + obs_dim, hidden), nn.Tanh(),
            nn.Linear(hidden, hidden), nn.Tanh(),
            nn.Linear(hidden, out_dim), nn.Tanh(),
        )  # fmt: skip
        self.low, self.high = (math.log(s) for s in std)

    def forward(self, t: Tensor, obs: Tensor) -> Tensor:
        """Times ``[K]`` and observations ``[B, C]`` to stds ``[B, K, A]``."""
        time = sinusoidal(100 * t, TIME_DIM).expand(len(obs), -1, -1)
        inputs = torch.cat([time, obs[:, None].expand(-1, len(t), -1)], dim=-1)
        share = (self.net(inputs).float() + 1) / 2
        return (self.low + (self.high - self.low) * share).exp()


class ReinFlow(OnPolicy):
    """Fine-tunes a flow policy by the likelihood of its noisy chain."""

    policies = (FlowPolicy.name,)
    kept = ("policy", "noise_net")
    config: ReinFlowConfig

    def __init__(self, base: FlowPolicy, env: VecEnv, config: ReinFlowConfig, seed: int) -> None:
        c, spec = config, base.spec
        steps = c.sample_steps or base.config.sample_steps
        policy = base.fine_tunable(sample_steps=steps, solver="euler", initial_noise=1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            obs_dim = spec.obs_steps * spec.task.obs_dim
            noise_net = NoiseNet(obs_dim, policy.chunk_dim, c.noise_hidden, c.noise_std)
        self.noise_net = noise_net.to(policy.device)
        super().__init__(policy, env, c, seed, trained=(self.noise_net,))
        self.times = time_grid(steps).to(self.device)  # [K + 1]
        self.executed = spec.exec_steps * spec.task.action.dim

    def explore(self, obs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Integrate with noise."""
        steps = len(self.times) - 1
        shape = (steps + 1, len(obs), self.policy.chunk_dim)
        noise = torch.from_numpy(self.rng.standard_normal(shape, dtype=np.float32)).to(self.device)
        std = self.noise_net(self.times[:-1], obs)
        chain = [noise[0]]
        for k in range(steps):
            mean = self._means(chain[-1][:, None], self.times[k : k + 2], obs)[:, 0]
            chain.append(mean + std[:, k] * noise[k + 1])
        return self.policy.to_actions(chain[-1]), {"chain": torch.stack(chain, dim=1)}

    def log_likelihood(self, obs: Tensor, record: Record) -> Tensor:
        """Mean over transitions and executed scalars: ``[B, 1]``."""
        x, x_next = record["chain"][:, :-1], record["chain"][:, 1:]  # [B, K, A]
        std = self.noise_net(self.times[:-1], obs)
        z = (x_next - self._means(x, self.times, obs)) / std
        log_prob = -0.5 * (z * z + math.log(2 * math.pi)) - std.log()
        return log_prob[..., : self.executed].mean(dim=(1, 2))[:, None]

    def penalty(self, obs: Tensor, record: Record) -> Tensor | None:
        """The negative entropy of the transitions, up to a constant."""
        if not self.config.entropy_coef:
            return None
        std = self.noise_net(self.times[:-1], obs)[..., : self.executed]
        return -self.config.entropy_coef * std.log().mean()

    def _means(self, x: Tensor, times: Tensor, obs: Tensor) -> Tensor:
        """Euler steps from ``x [B, K, A]`` over the intervals of ``times [K + 1]``."""
        velocity = self.policy.velocity(x, times[:-1], obs).float()
        return x + times.diff()[:, None] * velocity
