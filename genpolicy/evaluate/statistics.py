"""Intervals and paired tests for success rates and returns."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PICKS_AT_A_TIME = 10_000_000  # of a bootstrap, so that its memory is bounded


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    It stays inside [0, 1] and keeps its coverage near 0 and 1, where the usual
    p ± 1.96·sqrt(p(1−p)/n) claims certainty.
    """
    if not 0 <= successes <= episodes or episodes < 1:
        raise ValueError(f"{successes} successes in {episodes} episodes")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / episodes
    scale = 1 / (1 + z * z / episodes)
    center = scale * (rate + z * z / (2 * episodes))
    half = scale * z * math.sqrt(rate * (1 - rate) / episodes + (z / (2 * episodes)) ** 2)
    # At the ends one bound is exact; rounding must not put it inside.
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == episodes else center + half
    return low, high


class PairedTest(NamedTuple):
    """Two policies from the same initial states."""

    difference: float  # success rate of the second minus that of the first
    lo: float  # bootstrap 95 % interval of the difference over initial states
    hi: float
    gained: int  # episodes that only the second solves
    lost: int  # episodes that only the first solves
    p_value: float  # exact two-sided McNemar


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value that ``gained`` and ``lost`` are equally likely (McNemar 1947)."""
    discordant, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(discordant, k) for k in range(fewer + 1)) / 2**discordant
    return min(1.0, 2 * tail)


def compare(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedTest:
    """Paired comparison of two success vectors ``[E]`` over the same seeds.

    Raises:
        ValueError: they differ in length.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired episodes differ in number: {first.shape} and {second.shape}")
    change = second.astype(np.int64) - first.astype(np.int64)
    lo, hi = bootstrap(change)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return PairedTest(float(change.mean()), lo, hi, gained, lost, mcnemar(gained, lost))


def bootstrap(
    values: NDArray[Any], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of ``values [E]`` (Efron 1979)."""
    rng = np.random.default_rng(seed)
    values, count = np.asarray(values, dtype=np.float64), len(values)
    rows = max(1, PICKS_AT_A_TIME // count)
    means = np.concatenate(
        [
            values[rng.integers(count, size=(min(rows, resamples - done), count))].mean(1)
            for done in range(0, resamples, rows)
        ]
    )
    tail = (1 - confidence) / 2
    lo, hi = np.quantile(means, [tail, 1 - tail])
    return float(lo), float(hi)
