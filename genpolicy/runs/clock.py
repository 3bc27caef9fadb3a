"""Where a run's seconds go."""

from __future__ import annotations

import time

from genpolicy.interfaces import Metrics


class Clock:
    """Wall time over all sessions of a run, and the laps of its iterations."""

    def __init__(self, spent_s: float, env_steps: int) -> None:
        self._lap_at = time.perf_counter()
        self._started = self._lap_at - spent_s
        self._env_steps = env_steps
        self._laps: dict[str, float] = {}
        self._iterations = 0

    def wall_s(self) -> float:
        """Seconds of this run so far."""
        return time.perf_counter() - self._started

    def start(self) -> None:
        """An iteration begins."""
        self._iterations += 1
        self._lap_at = time.perf_counter()

    def lap(self, name: str) -> None:
        """What ran since the last lap was ``name``."""
        now = time.perf_counter()
        self._laps[name] = self._laps.get(name, 0.0) + now - self._lap_at
        self._lap_at = now

    def read(self, env_steps: int) -> Metrics:
        """Seconds per iteration of every lap, and env steps per second, since the last call."""
        busy = max(sum(self._laps.values()), 1e-9)
        metrics = {name: total / max(self._iterations, 1) for name, total in self._laps.items()}
        if env_steps > self._env_steps:
            metrics["perf/env_steps_per_s"] = (env_steps - self._env_steps) / busy
        self._env_steps, self._iterations, self._laps = env_steps, 0, {}
        return metrics
