"""Running mean and variance over everything seen so far, on all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genpolicy.runs import distributed


class RunningMoments:
    """Mean and variance of vectors ``[dim]``: Chan's parallel update, exact whatever the batches.

    The sum of squared deviations is carried along, so the estimate converges like that of all
    data at once.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean, self.m2 = np.zeros((2, dim))

    def update(self, values: NDArray[Any]) -> None:
        """Merge ``values [..., dim]``."""
        rows = np.asarray(values, dtype=np.float64).reshape(-1, len(self.mean))
        # Deviations from a mean that is known already, or from some value: nothing cancels.
        reference = self.mean if self.count else distributed.mean(torch.from_numpy(rows[0])).numpy()
        shifted = rows - reference
        moments = torch.from_numpy(np.stack([shifted.mean(0), np.square(shifted).mean(0)]))
        offset, square = distributed.mean(moments).numpy()
        count = len(rows) * distributed.world_size()
        delta, total = reference + offset - self.mean, self.count + count
        self.m2 += (square - offset**2) * count + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation ``[dim]``; zero before any data."""
        return np.sqrt(self.m2 / max(self.count, 1))

    def state_dict(self) -> dict[str, Any]:
        """Count included: a resumed run goes on with the same statistics."""
        return {"count": self.count, "mean": self.mean.copy(), "m2": self.m2.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.count = int(state["count"])
        self.mean, self.m2 = np.array(state["mean"]), np.array(state["m2"])
