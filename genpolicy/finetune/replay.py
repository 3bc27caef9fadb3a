"""Replay: transitions in a ring of preallocated tensors, drawn without a loop per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Replay:
    """The newest ``capacity`` transitions.

    Args:
        capacity: how many.
        device: where they are kept.
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu") -> None:
        self.capacity, self.device = capacity, torch.device(device)
        self._rows: dict[str, Tensor] = {}  # {name: [capacity, ...]}
        self._added = 0  # ever

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return min(self._added, self.capacity)

    def add(self, **rows: Tensor) -> None:
        """R transitions, ``{name: [R, ...]}``; the oldest make room.

        Raises:
            ValueError: more than there is room for, or of different numbers.
        """
        (count,) = {len(value) for value in rows.values()}
        if count > self.capacity:
            raise ValueError(f"{count} transitions at once, and capacity is {self.capacity}")
        for name, value in rows.items():
            if name not in self._rows:
                shape = (self.capacity, *value.shape[1:])
                self._rows[name] = torch.zeros(shape, dtype=value.dtype, device=self.device)
        start = self._added % self.capacity
        first = min(count, self.capacity - start)
        for name, value in rows.items():
            self._rows[name][start : start + first] = value[:first]
            self._rows[name][: count - first] = value[first:]
        self._added += count

    def sample(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """``count`` transitions, uniformly with replacement."""
        picks = torch.from_numpy(rng.integers(len(self), size=count)).to(self.device)
        return {name: value[picks] for name, value in self._rows.items()}

    def state_dict(self) -> dict[str, Any]:
        """What is in it, without the empty rest."""
        filled = {name: value[: len(self)].clone() for name, value in self._rows.items()}
        return {"rows": filled, "added": self._added}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the same transitions, in the same places unless the capacity is another."""
        self._rows, self._added = {}, 0
        rows, added = state["rows"], int(state["added"])
        count = len(next(iter(rows.values()), ()))
        if self.capacity < count or count < min(added, self.capacity):  # the oldest first
            rows = {k: v.roll(-(added % count), 0)[-self.capacity :] for k, v in rows.items()}
            added = min(count, self.capacity)
        if rows:
            self.add(**rows)
        self._added = added
