"""What a ratio-based method maximises: three surrogates of the policy gradient.

With r = π_θ/π_old and the advantage Â, all three have the gradient Â·∇r at r = 1; they differ in
how they hold r near 1, within a width ε:

    clip   min( r Â, clip(r, 1 ± ε) Â )                PPO (arXiv 1707.06347, eq. 7): beyond ε the
                                                       gradient is gone, in the bad direction too
    spo    r Â − |Â|/(2ε) (r − 1)²                     SPO (arXiv 2401.16025): a parabola whose top
                                                       is at r = 1 ± ε, so r is always drawn back
    aspo   clip where Â > 0, spo where Â ≤ 0           FPO++ (arXiv 2602.02481): a likelihood that
                                                       is pushed down cannot run away
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Surrogate = Callable[[Tensor, Tensor, Tensor], Tensor]


def clip(ratio: Tensor, advantage: Tensor, width: Tensor) -> Tensor:
    """PPO's, element by element; all arguments broadcast."""
    return torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - width, 1 + width) * advantage)


def spo(ratio: Tensor, advantage: Tensor, width: Tensor) -> Tensor:
    """Simple Policy Optimization's, element by element."""
    return ratio * advantage - advantage.abs() / (2 * width) * (ratio - 1).square()


def aspo(ratio: Tensor, advantage: Tensor, width: Tensor) -> Tensor:
    """FPO++'s asymmetric one, element by element."""
    return torch.where(advantage > 0, clip(ratio, advantage, width), spo(ratio, advantage, width))


SURROGATES: dict[str, Surrogate] = {"clip": clip, "spo": spo, "aspo": aspo}
