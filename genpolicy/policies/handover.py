"""Chunks that go on from the one that the robot is still executing: real-time chunking for flows.

While the policy computes, the robot executes d more actions of its present chunk. What is left of
that chunk when the observation is taken, ``previous [Tp, Da]`` (row 0 is executed next), enters
the integration in one of two ways; ``weights [Tp]`` says how much each row binds, 1 for the d rows
that are executed anyway and 0 for rows that are free (``genpolicy_deploy.handover.soft_weights``).

- ``prefix`` (training-time real-time chunking, arXiv 2512.05964): the network was trained with the
  first d actions given, d from 0 to ``max_delay``. Rows of weight 1 are put in their place before
  every network call, which also is told them; the other rows are guided, which the paper does not
  do and which halves the jumps that are left.
- ``guided`` (real-time chunking, arXiv 2506.07339, its velocity's Jacobian taken for the identity),
  for flows that were not trained so: every velocity v is pulled towards the previous chunk,

      x̂ = x + (1 − t)·v,   v ← v + λ·W·(previous − x̂),   λ = min(β, (1 − t)/t · 1/r²),
      r² = (1 − t)² / (t² + (1 − t)²),   β = 5, and never more than 1/Δt, which would overshoot.

Both are the plain integration, bit for bit, where all weights are 0. Time runs as everywhere here:
t = 0 is noise, t = 1 the action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_GUIDANCE = 5.0  # β


def guidance_gain(t: float, dt: float) -> float:
    """λ at flow time ``t`` for a step of ``dt``."""
    largest = min(MAX_GUIDANCE, 1 / dt)
    if not 0 < t < 1:
        return largest
    return min(largest, (t * t + (1 - t) ** 2) / (t * (1 - t)))


class Free:
    """Nothing to go on from: the plain integration."""

    def place(self, x: Tensor) -> Tensor:
        """The point ``[B, N, A]`` that the network sees."""
        return x

    def steer(self, v: Tensor, x: Tensor, t: float, dt: float) -> Tensor:
        """The velocity to follow from ``x`` at flow time ``t``."""
        return v


@dataclass(frozen=True)
class Guided(Free):
    """Velocities are pulled towards the previous chunk."""

    previous: Tensor  # [B, 1, A]
    weights: Tensor  # [B, 1, A]

    def steer(self, v: Tensor, x: Tensor, t: float, dt: float) -> Tensor:
        """``v`` with guidance."""
        end = x + (1 - t) * v
        return v + guidance_gain(t, dt) * (self.weights * (self.previous - end))


@dataclass(frozen=True)
class Prefixed(Guided):
    """Actions of weight 1 stay in their place, the others are guided."""

    def place(self, x: Tensor) -> Tensor:
        """``x`` with the given actions."""
        return torch.where(self.weights >= 1, self.previous, x)


FREE = Free()
