"""V-GPS (arXiv 2410.13816): choose one of the policy's samples by the value function's score.

The same rule as ``genpolicy.values.rerank.select`` in NumPy, draw for draw, because a robot
computer has no torch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def select(
    scores: NDArray[np.floating],
    temperature: float,
    choice: NDArray[np.floating] | None = None,
) -> int:
    """Index of the sample to execute.

    Temperature 0 takes the highest score. Otherwise the index is drawn from
    ``softmax(z / temperature)`` by the Gumbel-max trick, where z are the scores standardised over
    the samples: the scale of Q differs from state to state and from critic to critic, so dividing
    raw Q (as the paper does) would make one temperature mean different things. Scores that are
    not finite never win; when none is finite, sample 0 is executed: the base policy.

    Args:
        scores: ``[N]``.
        temperature: not negative, dimensionless.
        choice: standard-normal draws ``[N]``, needed for a positive temperature.
    """
    finite = np.isfinite(scores)
    values = np.where(finite, scores, 0.0).astype(np.float64)
    if temperature > 0.0:
        if choice is None:
            raise ValueError("a positive temperature needs the choice draws")
        with np.errstate(over="ignore"):  # an almost zero temperature is an argmax
            values = _standardised(values, finite) / temperature + _gumbel(choice)
    return int(np.argmax(np.where(finite, values, -np.inf)))


def _standardised(values: NDArray[np.float64], finite: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Zero mean and unit variance over the finite scores; 0 elsewhere."""
    count = max(int(finite.sum()), 1)
    # Scaled before the moments, so that scores near the largest float cannot overflow.
    values = values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    centred = np.where(finite, values - values.sum() / count, 0.0)
    return centred / max(math.sqrt((centred**2).sum() / count), np.finfo(np.float32).eps)


def _gumbel(normal: NDArray[np.floating]) -> NDArray[np.float64]:
    """Standard-normal draws to Gumbel ones: Φ makes them uniform, −log(−log u) does the rest."""
    uniform = (min(0.5 * math.erfc(-float(x) / math.sqrt(2.0)), 1.0 - 2.0**-53) for x in normal)
    return np.array([-math.log(-math.log(u)) for u in uniform])
