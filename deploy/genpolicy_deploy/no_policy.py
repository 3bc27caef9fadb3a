"""What stands where the policy would, when only a person acts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NoPolicy:
    """The face of ``ChunkPlayer`` without chunks: nothing is due, and nothing is late."""

    empty = True
    due = False
    asking = False

    def start(self, seed: int) -> None:
        """An episode begins."""

    def observe(self, observation: Mapping[str, NDArray[Any]], *, again: bool = False) -> None:
        """A control step begins."""

    def poll(self, now: int) -> None:
        """No chunk has come."""

    def ask(self, now: int, t_obs_ns: int) -> None:
        """Nobody is there to be asked."""

    def next_action(self) -> NDArray[np.float32]:
        """There is none.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("no policy acts here")

    def drop(self) -> None:
        """There is no chunk."""

    def void(self, now: int) -> None:
        """There is no request."""

    def abandon(self) -> None:
        """There is no chunk, nor a request."""

    def waiting_s(self, now: int) -> float:
        """No chunk is missing."""
        return 0.0
