"""Min-max normalisation to [-1, 1], carried inside every policy and value function.

The statistics are buffers, so they are saved, exported and loaded with the weights: a policy
cannot be run with the wrong ones or, worse, without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genpolicy.spec import GenpolicyError, TaskSpec

# Observations far outside the data are cut here (DPPO's advice for hardware), in normalised units.
OBS_CLIP = 5.0
# A dimension that moves less than this in the data is constant: dividing by its range would
# turn sensor noise into a full-scale input.
MIN_RANGE = 1e-4


class Normalizer(nn.Module):
    """Affine maps between task units and [-1, 1], per scalar of observation and action.

    Constant observation dimensions map to 0; constant action dimensions always un-normalise to
    their constant, whatever a network says.
    """

    obs_mid: Tensor
    obs_scale: Tensor
    action_mid: Tensor
    action_scale: Tensor

    def __init__(self, task: TaskSpec) -> None:
        super().__init__()
        self.keys = [feature.name for feature in task.observations]
        self.dims = [feature.dim for feature in task.observations]
        self.register_buffer("obs_mid", torch.zeros(task.obs_dim))
        self.register_buffer("obs_scale", torch.ones(task.obs_dim))
        # Without data the whole range of the actuators is [-1, 1].
        low, high = (torch.tensor(bound).float() for bound in (task.action.low, task.action.high))
        bounded = (high - low).isfinite()
        self.register_buffer("action_mid", torch.where(bounded, (low + high) / 2, 0.0))
        self.register_buffer("action_scale", torch.where(bounded, (high - low) / 2, 1.0))

    @classmethod
    def fit(cls, task: TaskSpec, obs: Mapping[str, Tensor], actions: Tensor) -> Normalizer:
        """Statistics of ``{name: [T, ...]}`` and ``[T, Da]`` in task units.

        Raises:
            GenpolicyError: A key of the task is missing: statistics are never guessed.
        """
        normalizer = cls(task)
        missing = [key for key in normalizer.keys if key not in obs]
        if missing:
            raise GenpolicyError(f"normalizer: the data has no observation {missing}")
        flat = torch.cat([obs[key].flatten(1) for key in normalizer.keys], dim=1)
        for name, values in (("obs", flat), ("action", actions)):
            low, high = values.amin(0).double(), values.amax(0).double()
            half = (high - low) / 2
            constant = 2 * half < MIN_RANGE
            # An observation divides by the scale, an action multiplies by it.
            fallback = torch.zeros_like(half) if name == "action" else torch.ones_like(half)
            getattr(normalizer, f"{name}_mid").copy_((low + high) / 2)
            getattr(normalizer, f"{name}_scale").copy_(torch.where(constant, fallback, half))
        return normalizer

    def obs(self, obs: Mapping[str, Tensor]) -> Tensor:
        """``{name: [B, To, ...]}`` in task units to one normalised row ``[B, To * D]``."""
        return self.rows(self.flatten(obs))

    def rows(self, flat: Tensor) -> Tensor:
        """What ``flatten`` gives, ``[B, To, D]``, to normalised rows ``[B, To * D]``."""
        scaled = (flat - self.obs_mid) / self.obs_scale
        return scaled.clamp(-OBS_CLIP, OBS_CLIP).flatten(1)

    def unrows(self, rows: Tensor) -> Tensor:
        """The inverse of ``rows``, where it did not cut: ``[B, To, D]`` in task units."""
        return rows.unflatten(1, (-1, len(self.obs_mid))) * self.obs_scale + self.obs_mid

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """The inverse of ``flatten``: ``{name: [B, To, D]}``."""
        return dict(zip(self.keys, flat.split(self.dims, dim=-1), strict=True))

    def flatten(self, obs: Mapping[str, Tensor]) -> Tensor:
        """``{name: [B, To, ...]}`` to ``[B, To, D]``, still in task units."""
        return torch.cat([obs[key].flatten(2) for key in self.keys], dim=-1)

    def set_obs(self, mid: NDArray[Any], scale: NDArray[Any]) -> None:
        """Use these statistics ``[D]`` of the observations: RL from scratch has no data to fit."""
        self.obs_mid.copy_(torch.as_tensor(mid))
        self.obs_scale.copy_(torch.as_tensor(scale))

    def action(self, actions: Tensor) -> Tensor:
        """``[..., Da]`` in task units to [-1, 1]."""
        safe = torch.where(self.action_scale > 0, self.action_scale, 1.0)
        return (actions - self.action_mid) / safe

    def unaction(self, normalized: Tensor) -> Tensor:
        """``[..., Da]`` in [-1, 1] to task units."""
        return normalized * self.action_scale + self.action_mid
