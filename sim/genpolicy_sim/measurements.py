"""The way of a measurement from a simulated robot to its driver, as imperfect as a real one's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

POSE = 6  # of the axes are measured; the last, the gripper's, is its target


class Imperfections(NamedTuple):
    """What lies between the robot and its driver; the defaults are a perfect connection.

    ``latency_s`` passes from measuring to arriving, and at random (uniformly) up to ``jitter_s``
    more, in order; ``noise`` is the standard deviation of what is added to every measured number,
    in that number's unit; ``loss`` is the share of measurements that never arrive.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    noise: float = 0.0
    loss: float = 0.0


class MeasurementChannel:
    """Takes measurements, gives them back when and as they arrive."""

    def __init__(self, imperfections: Imperfections) -> None:
        self._imperfections = imperfections
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget what is under way; from here on ``seed`` decides what happens to the n-th."""
        self._rng = np.random.default_rng([seed, 1])
        self._under_way: deque[tuple[int, bytes]] = deque()

    def put(self, message: NDArray[np.void], now_ns: int) -> None:
        """Send ``message``, a record with ``position`` and ``obs``; noise is added in place."""
        how = self._imperfections
        lost, delay = self._rng.random(2)
        self._disturb(message)
        if lost < how.loss:
            return
        due = now_ns + int((how.latency_s + delay * how.jitter_s) * 1e9)
        if self._under_way:  # in order
            due = max(due, self._under_way[-1][0])
        self._under_way.append((due, message.tobytes()))

    def arrived(self, now_ns: int) -> Iterator[bytes]:
        """What has arrived by ``now_ns``, oldest first."""
        while self._under_way and self._under_way[0][0] <= now_ns:
            yield self._under_way.popleft()[1]

    def _disturb(self, message: NDArray[np.void]) -> None:
        if self._imperfections.noise:
            for values in (message["position"][..., :POSE], message["obs"]):
                values += self._rng.normal(scale=self._imperfections.noise, size=values.shape)
