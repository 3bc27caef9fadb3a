"""Training windows over demonstrations: every control step is the start of one sample.

Sample t sees observations t−To+1 … t and predicts actions t … t+Tp−1. Where a window leaves its
episode the first observation, or the last action, is repeated, as Diffusion Policy does
(arXiv 2303.04137): the policy learns to start from rest and to act up to the very end.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.normalizer import Normalizer
from genpolicy.spec import GenpolicyError


class ChunkDataset:
    """Windows of ``demos`` as two index tables; a batch is a handful of gathers.

    The data live on ``device`` as a whole: low-dimensional demonstrations fit in any memory.
    """

    def __init__(
        self,
        demos: Demonstrations,
        obs_steps: int,
        chunk: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if obs_steps < 1 or chunk < 1:
            raise GenpolicyError(
                f"windows: need obs_steps >= 1 and chunk >= 1, got {obs_steps} and {chunk}"
            )
        self.demos = demos
        self.device = torch.device(device)
        history, future, pad = window_tables(demos.starts, demos.lengths, obs_steps, chunk)
        self.history = torch.from_numpy(history).to(self.device)  # [T, To]
        self.future = torch.from_numpy(future).to(self.device)  # [T, Tp]
        self.pad = torch.from_numpy(pad).to(self.device)  # [T, Tp]
        self.obs = {k: torch.from_numpy(v).to(self.device) for k, v in demos.obs.items()}
        self.actions = torch.from_numpy(demos.actions).to(self.device)

    def __len__(self) -> int:
        """T: one window per control step."""
        return len(self.history)

    def batch(self, indices: Tensor) -> dict[str, dict[str, Tensor] | Tensor]:
        """Windows ``indices [B]``, in task units.

        Returns:
            ``obs`` ``{name: [B, To, D]}``, ``actions [B, Tp, Da]`` and ``pad [B, Tp]``, true
            where an action repeats the episode's last one.
        """
        indices = indices.to(self.device)
        history, future = self.history[indices], self.future[indices]
        return {
            "obs": {key: _gather(value, history) for key, value in self.obs.items()},
            "actions": _gather(self.actions, future),
            "pad": self.pad[indices],
        }

    def normalizer(self) -> Normalizer:
        """Statistics of these demonstrations."""
        return Normalizer.fit(self.demos.task, self.obs, self.actions)


def window_tables(
    starts: np.ndarray, lengths: np.ndarray, obs_steps: int, chunk: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """History ``[T, To]`` and future ``[T, Tp]`` indices, and where the future is padding."""
    step = np.arange(int(lengths.sum()))[:, None]
    first = np.repeat(starts, lengths)[:, None]
    last = np.repeat(starts + lengths - 1, lengths)[:, None]
    history = np.maximum(step + np.arange(1 - obs_steps, 1), first)
    future = step + np.arange(chunk)
    return history, np.minimum(future, last), future > last


def _gather(values: Tensor, table: Tensor) -> Tensor:
    """Rows of ``values [T, D]`` at ``table [B, W]``: ``[B, W, D]``."""
    return values.index_select(0, table.flatten()).unflatten(0, table.shape)
