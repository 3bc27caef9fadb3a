"""Exponential moving average of a network's weights, the policy that imitation hands on."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


class Ema(Generic[Module]):
    """θ̄ ← d·θ̄ + (1 − d)·θ after every gradient step, with d = min(decay, (1 + n) / (10 + n)).

    The warm-up lets θ̄ follow the first n steps closely instead of remembering the random
    initialisation. Buffers (normaliser statistics, tables) are constant while training and are
    copied once.
    """

    def __init__(self, model: Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.module: Module = copy.deepcopy(model).requires_grad_(False).eval()
        self._averages = list(self.module.parameters())
        self._weights = list(model.parameters())

    def current_decay(self) -> float:
        """The decay d of the next update."""
        return min(self.decay, (1 + self.steps) / (10 + self.steps))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        weight = 1 - self.current_decay()
        for average, value in zip(self._averages, self._weights, strict=True):
            average.lerp_(value, weight)
        self.steps += 1
