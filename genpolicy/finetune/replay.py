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
        stride: environments side by side: so many rows further on, each goes on.
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu", stride: int = 1) -> None:
        self.capacity, self.device, self.stride = capacity, torch.device(device), stride
        self.rows: dict[str, Tensor] = {}  # {name: [capacity, ...]}
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
            if name not in self.rows:
                shape = (self.capacity, *value.shape[1:])
                self.rows[name] = self._allocate(name, shape, value.dtype)
        start = self._added % self.capacity
        first = min(count, self.capacity - start)
        for name, value in rows.items():
            self.rows[name][start : start + first] = value[:first]
            self.rows[name][: count - first] = value[first:]
        self._added += count

    def _allocate(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Room for the rows ``name``."""
        del name
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def draw(self, rng: np.random.Generator, count: int) -> Tensor:
        """``count`` rows, uniformly with replacement."""
        return torch.from_numpy(rng.integers(len(self), size=count)).to(self.device)

    def sample(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """The transitions of ``draw``."""
        index = self.draw(rng, count)
        return {name: value[index] for name, value in self.rows.items()}

    def follows(self, index: Tensor) -> Tensor:
        """The rows in which the environments of rows ``index`` went on, −1 for the newest."""
        goes_on = self._newer(index) >= self.stride
        return torch.where(goes_on, (index + self.stride) % self.capacity, -1)

    def _newer(self, index: Tensor) -> Tensor:
        """How many transitions came after those in rows ``index``."""
        return (self._added - 1 - index) % self.capacity

    def newest(self, count: int) -> Tensor:
        """The rows of the ``count`` transitions that came last."""
        return torch.arange(self._added - count, self._added, device=self.device) % self.capacity

    def episodes(self, index: Tensor) -> Tensor:
        """All rows of the episodes whose last ones are ``index``, as far as they are still here."""
        found = [index]
        while len(index):
            still_here = self._newer(index) + self.stride < len(self)
            index = (index - self.stride)[still_here] % self.capacity
            index = index[~self.rows["ended"][index]]
            found.append(index)
        return torch.cat(found)

    def state_dict(self) -> dict[str, Any]:
        """What is in it, without the empty rest."""
        filled = {name: value[: len(self)].clone() for name, value in self.rows.items()}
        return {"rows": filled, "added": self._added}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the same transitions, in the same places unless the capacity is another."""
        self.rows, self._added = {}, 0
        rows, added = state["rows"], int(state["added"])
        count = len(next(iter(rows.values()), ()))
        if self.capacity < count or count < min(added, self.capacity):  # the oldest first
            rows = {k: v.roll(-(added % count), 0)[-self.capacity :] for k, v in rows.items()}
            added = min(count, self.capacity)
        if rows:
            self.add(**rows)
        self._added = added
