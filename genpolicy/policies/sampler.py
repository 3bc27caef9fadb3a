"""The reverse process of a diffusion policy as one table of Gaussian transitions.

DDPM (arXiv 2006.11239) and DDIM (arXiv 2010.02502) are the same affine map with other numbers.
At table row s, with noise prediction ε of the current x,

    x̂₀ = clip(x_scale·x − eps_scale·ε, ±r),   x' ~ N(x0_coef·x̂₀ + x_coef·x, std²),

where DDIM's direction term is written with the ε that x̂₀ implies after clipping. η = 1 with all
K training steps is DDPM; η = 0 is deterministic DDIM; in between and with fewer steps is the
stochastic DDIM that DPPO fine-tunes (section A4 of its appendix).
"""

from __future__ import annotations

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from genpolicy.spec import GenpolicyError


def alphas_cumprod(train_steps: int) -> Tensor:
    """ᾱ of the cosine schedule, ``[K]`` float64-rounded as diffusers publishes it."""
    schedule = DDPMScheduler(num_train_timesteps=train_steps, beta_schedule="squaredcos_cap_v2")
    return schedule.alphas_cumprod


class SamplerTable(nn.Module):
    """Per denoising step, noisiest first: columns ``[S]`` float32, moved with the policy.

    Leading spacing: ``t = j·K/S`` for j = S−1 … 0. ``min_std`` is DPPO's floor under the std of
    every transition, the last one included; the means stay those of η. ``x0_range`` is r, 1 for
    data within their limits.
    """

    t: Tensor  # the network's time input
    x_scale: Tensor
    eps_scale: Tensor
    x0_coef: Tensor
    x_coef: Tensor
    std: Tensor

    def __init__(
        self,
        train_steps: int,
        sample_steps: int,
        eta: float,
        min_std: float = 0.0,
        x0_range: float = 1.0,
    ) -> None:
        super().__init__()
        if sample_steps < 1 or train_steps % sample_steps:
            raise GenpolicyError(
                f"sample_steps={sample_steps} must divide train_steps={train_steps}"
            )
        if not 0.0 <= eta <= 1.0:
            raise GenpolicyError(f"eta={eta} must lie in [0, 1]: 0 is DDIM, 1 is DDPM")
        if not x0_range > 0:
            raise GenpolicyError(f"x0_range={x0_range} must be positive")
        self.x0_range = x0_range
        t = torch.arange(sample_steps - 1, -1, -1) * (train_steps // sample_steps)
        all_bars = alphas_cumprod(train_steps).double()
        bar = all_bars[t]
        # The step after the last one is the clean action: ᾱ = 1.
        bar_next = torch.cat([all_bars[t[1:]], torch.ones(1, dtype=torch.float64)])
        variance = eta**2 * (1 - bar_next) / (1 - bar) * (1 - bar / bar_next)
        x_coef = ((1 - bar_next - variance).clamp(min=0) / (1 - bar)).sqrt()
        columns = {
            "t": t,
            "x_scale": bar.rsqrt(),
            "eps_scale": (1 / bar - 1).sqrt(),
            "x0_coef": bar_next.sqrt() - x_coef * bar.sqrt(),
            "x_coef": x_coef,
            "std": variance.sqrt().clamp(min=min_std),
        }
        for name, column in columns.items():
            self.register_buffer(name, column.float(), persistent=False)

    def __len__(self) -> int:
        return len(self.t)

    def mean(self, s: int | Tensor, x: Tensor, eps: Tensor) -> Tensor:
        """Means at row ``s`` of ``x [..., A]``, or at rows ``s [R]`` of ``x [..., R, A]``."""
        x_scale, eps_scale, x0_coef, x_coef = (
            column[s][..., None]
            for column in (self.x_scale, self.eps_scale, self.x0_coef, self.x_coef)
        )
        x0 = (x_scale * x - eps_scale * eps).clamp(-self.x0_range, self.x0_range)
        return x0_coef * x0 + x_coef * x
