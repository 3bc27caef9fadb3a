"""Diffusion policy (arXiv 2303.04137) over action chunks, with the stochastic chain DPPO tunes.

Imitation minimises ‖ε − ε_θ(√ᾱ_t a + √(1−ᾱ_t) ε, t, o)‖² (DDPM, eq. 14); sampling runs the table
of ``sampler.py``. Everything random is an input (``noise_spec``), so any draw can be replayed, in
torch and in the exported controller.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from genpolicy.interfaces import Batch, Noise
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.nets.mlp import DenoisingMLP
from genpolicy.policies.sampler import SamplerTable, alphas_cumprod
from genpolicy.spec import GenpolicyError, PolicySpec

# DPPO cuts every injected noise here, so that one draw cannot throw an arm across its workspace.
NOISE_CLIP = 3.0


@dataclass(frozen=True)
class DiffusionConfig:
    """What a diffusion policy is, apart from its shapes.

    Attributes:
        hidden: Widths of the denoising MLP: an odd number of equal values.
        activation: ``relu``, ``silu`` or ``mish``.
        time_dim: Size of the sinusoidal time embedding.
        train_steps: K, diffusion steps of the training schedule.
        sample_steps: S, denoising steps when acting; divides K.
        eta: 0 executes DDIM; 1 with S = K executes DDPM.
        tuned_steps: K', how many of the last S steps RL has tuned; 0 for a pretrained policy.
        explore_eta: η of the stochastic chain that RL rolls out.
        explore_std: Smallest std of every transition of that chain, in normalised action units.
        x0_range: Where predictions of the clean chunk are cut, in normalised units. Demonstrations
            lie within 1; actions of a Gaussian, which GoRL's decoders imitate, do not.
    """

    hidden: tuple[int, ...] = (512, 512, 512)
    activation: str = "relu"
    time_dim: int = 32
    train_steps: int = 100
    sample_steps: int = 10
    eta: float = 0.0
    tuned_steps: int = 0
    explore_eta: float = 1.0
    explore_std: float = 0.1
    x0_range: float = 1.0


class Chain(NamedTuple):
    """A rollout of the stochastic chain."""

    actions: Tensor  # [B, Tp, Da] in task units, clipped to the limits: what is executed
    states: Tensor  # [B, K'+1, Tp * Da] normalised; the last K' transitions are the tuned ones


class DiffusionPolicy(ChunkPolicy):
    """Denoises chunks ``[Tp, Da]`` conditioned on ``To`` observations.

    While RL tunes only the last K' of S steps, ``frozen`` is the pretrained network that executes
    the others.
    """

    name = "diffusion"
    net: DenoisingMLP
    config: DiffusionConfig
    bars: Tensor  # ᾱ [K]

    def __init__(self, spec: PolicySpec, config: DiffusionConfig | None = None) -> None:
        config = config or DiffusionConfig()
        super().__init__(spec, config)
        if not 0 <= config.tuned_steps <= config.sample_steps:
            raise GenpolicyError(
                f"tuned_steps={config.tuned_steps} must lie in 0 .. "
                f"sample_steps={config.sample_steps}"
            )
        if config.explore_std <= 0:
            raise GenpolicyError(f"explore_std={config.explore_std} must be positive")
        self.net = DenoisingMLP(
            self.chunk_dim, self.obs_dim, config.hidden, config.time_dim, config.activation
        )
        self.frozen: DenoisingMLP | None = None
        if 0 < config.tuned_steps < config.sample_steps:
            self.frozen = copy.deepcopy(self.net).requires_grad_(False)
        steps, reach = (config.train_steps, config.sample_steps), config.x0_range
        self.table = SamplerTable(*steps, config.eta, x0_range=reach)
        self.explore_table = SamplerTable(*steps, config.explore_eta, config.explore_std, reach)
        self.register_buffer("bars", alphas_cumprod(config.train_steps), persistent=False)

    # ---- imitation -------------------------------------------------------------------------

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """ε-prediction error of ``{"obs": {name: [B, To, D]}, "actions": [B, Tp, Da]}``."""
        actions = self.from_actions(batch["actions"])  # [B, A]
        t = torch.from_numpy(self.rng.integers(len(self.bars), size=len(actions)))
        t = t.to(actions.device)
        eps = self._draw(tuple(actions.shape))
        bar = self.bars[t][:, None]
        x = bar.sqrt() * actions + (1 - bar).sqrt() * eps
        # Embedding the K distinct times and gathering is cheaper than embedding B of them.
        time = self.net.time_features(torch.arange(len(self.bars), device=t.device))[t]
        predicted = self.net(x, time, self.net.obs_features(self.normalizer.obs(batch["obs"])))
        loss = mse_loss(predicted, eps)
        return loss, {"train/loss": loss.detach()}

    # ---- acting ----------------------------------------------------------------------------

    def noise_spec(
        self, batch: int, num_samples: int = 1, deterministic: bool = True
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard-normal inputs of ``sample``: ``noise`` and maybe ``step_noise``.

        ``deterministic`` is the executed policy: it draws step noise only if ``eta`` > 0, and
        none after the last step. Otherwise the exploring chain, which draws at every step.
        """
        spec = super().noise_spec(batch, num_samples, deterministic)
        chunk, steps = spec["noise"], self.config.sample_steps
        if not deterministic:
            spec["step_noise"] = (steps, *chunk)
        elif self.config.eta > 0 and steps > 1:
            spec["step_noise"] = (steps - 1, *chunk)
        return spec

    def generate(self, obs: Tensor, noise: Noise, deterministic: bool) -> Tensor:
        """The end of the denoising chain, ``[B, N, A]``."""
        return self._denoise(obs, noise, deterministic)[-1]

    def _denoise(self, obs: Tensor, noise: Noise, deterministic: bool) -> list[Tensor]:
        """Normalised obs ``[B, C]`` to the states ``S+1 × [B, N, A]``, noisiest first."""
        table = self.table if deterministic else self.explore_table
        tuned_from = self._tuned_from()
        nets = [self.frozen or self.net] * tuned_from
        nets += [self.net] * (len(table) - tuned_from)
        # Once per call and network, for all steps and samples: [B, 1, H] and [S, H].
        parts = {
            net: (net.obs_features(obs)[:, None], net.time_features(table.t)) for net in set(nets)
        }
        step_noise = noise["step_noise"].flatten(3) if "step_noise" in noise else None
        states = [noise["noise"].flatten(2)]
        for s, net in enumerate(nets):
            obs_part, time_part = parts[net]
            x = table.mean(s, states[-1], net(states[-1], time_part[s], obs_part))
            if step_noise is not None and s < len(step_noise):
                x = x + table.std[s] * step_noise[s].clamp(-NOISE_CLIP, NOISE_CLIP)
            states.append(x)
        return states

    # ---- the chain that RL tunes (DPPO, section 4) -------------------------------------------

    def fine_tunable(self, tuned_steps: int, **changes: Any) -> DiffusionPolicy:
        """A copy whose last ``tuned_steps`` of S denoising steps are to be tuned.

        ``changes`` replaces other entries of the configuration (``sample_steps``, ``explore_std``).
        """
        config = replace(self.config, tuned_steps=tuned_steps, **changes)
        policy = DiffusionPolicy(self.spec, config)
        policy.normalizer.load_state_dict(self.normalizer.state_dict())
        policy.net.load_state_dict(self.net.state_dict())
        if policy.frozen is not None:
            policy.frozen.load_state_dict((self.frozen or self.net).state_dict())
        return policy.to(self.device)

    def _tuned_from(self) -> int:
        """First table row that ``net`` executes while a frozen half exists."""
        return len(self.table) - self.config.tuned_steps if self.frozen is not None else 0

    @torch.no_grad()
    def sample_chain(self, obs: Tensor, noise: Noise | None = None) -> Chain:
        """Explore from normalised observations ``[B, C]``."""
        noise = noise or self.draw_noise(len(obs), 1, deterministic=False)
        states = self._denoise(obs, noise, deterministic=False)
        tuned = torch.cat(states[-1 - self.config.tuned_steps :], dim=1)  # [B, K'+1, A]
        return Chain(self.to_actions(tuned[:, -1]), tuned)

    def chain_log_prob(self, obs: Tensor, states: Tensor) -> Tensor:
        """Per scalar, log N(x_{i+1}; μ_θ(x_i, o), σ_i²) of every tuned transition.

        Args:
            obs: Normalised observations ``[B, C]``.
            states: ``[B, K'+1, A]`` as ``sample_chain`` returned them.

        Returns:
            ``[B, K', Tp, Da]`` float32; the network may run under autocast, this arithmetic not.
        """
        steps = self.config.tuned_steps
        rows = torch.arange(len(self.table) - steps, len(self.table), device=obs.device)
        x, x_next = states[:, :-1], states[:, 1:]
        table = self.explore_table
        eps = self.net(
            x, self.net.time_features(table.t[rows]), self.net.obs_features(obs)[:, None]
        ).float()
        std = table.std[rows][:, None]
        z = (x_next - table.mean(rows, x, eps)) / std
        log_prob = -0.5 * (z * z + np.log(2 * np.pi)) - std.log()
        return log_prob.unflatten(-1, (self.spec.chunk, self.spec.task.action.dim))
