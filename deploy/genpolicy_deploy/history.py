"""The last To observations, kept in arrays that are written in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, PolicySpec


class History:
    """``{key: [1, To, D]}`` at control rate; the first observation fills all To rows."""

    def __init__(self, spec: PolicySpec) -> None:
        self.stacked = {
            f.name: np.zeros((1, spec.obs_steps, f.dim), np.float32) for f in spec.task.observations
        }
        self._empty = True

    def reset(self) -> None:
        """Forget: the next observation starts an episode."""
        self._empty = True

    def push(self, observation: Mapping[str, NDArray[Any]], *, again: bool = False) -> None:
        """Append ``{key: [D]}`` (one control step) or replace by ``{key: [To, D]}``.

        Args:
            observation: what was measured.
            again: overwrite the newest row instead: a fresher look at the same control step.

        Raises:
            GenpolicyError: a key is missing, has another shape or is not finite. Nothing is
                changed then.
        """
        rows = {name: _checked(observation, name, s[0]) for name, s in self.stacked.items()}
        for name, stacked in self.stacked.items():
            row = rows[name]
            if row.ndim == 2 or self._empty:
                stacked[0, :] = row
            else:
                if not again:
                    stacked[0, :-1] = stacked[0, 1:]
                stacked[0, -1] = row
        self._empty = False


def _checked(
    observation: Mapping[str, NDArray[Any]], name: str, stacked: NDArray[np.float32]
) -> NDArray[Any]:
    if name not in observation:
        raise GenpolicyError(f"observation '{name}' is missing")
    row = np.asarray(observation[name])
    if row.shape not in (stacked.shape, stacked.shape[1:]):
        raise GenpolicyError(
            f"observation '{name}' has shape {list(row.shape)}, the controller needs "
            f"{list(stacked.shape[1:])} or {list(stacked.shape)}"
        )
    if not np.isfinite(row).all():
        raise GenpolicyError(f"observation '{name}' is not finite")
    return row
