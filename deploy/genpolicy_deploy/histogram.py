"""Counts of durations in fixed logarithmic buckets: constant memory, no allocation per sample."""

from __future__ import annotations

import math

PER_DECADE = 50  # buckets are 4.7 % wide: the resolution of every percentile
DECADES = 8  # 0.1 µs to 10 s


class Histogram:
    """Durations in µs; everything at or below 0.1 µs falls into the first bucket."""

    def __init__(self) -> None:
        self.counts = [0] * (PER_DECADE * DECADES + 1)
        self.total = 0
        self.max = 0.0

    def add(self, microseconds: float) -> None:
        """Count one duration."""
        bucket = 0
        if microseconds > 0.1:
            bucket = math.ceil(math.log10(microseconds * 10.0) * PER_DECADE)
        self.counts[min(bucket, len(self.counts) - 1)] += 1
        self.total += 1
        self.max = max(self.max, microseconds)

    def percentile(self, percent: float) -> float:
        """Upper edge of the bucket where ``percent`` of the samples are reached, at most ``max``.

        Zero without samples.
        """
        wanted, seen = percent / 100.0 * self.total, 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return min(10.0 ** (bucket / PER_DECADE - 1.0), self.max)
        return 0.0

    def summary(self) -> dict[str, float]:
        """p50, p99, p999 and max in µs."""
        named = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
        quantiles = {name: round(self.percentile(p), 2) for name, p in named.items()}
        return quantiles | {"max": round(self.max, 2)}
