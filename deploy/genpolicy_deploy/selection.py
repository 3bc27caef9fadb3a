"""V-GPS (arXiv 2410.13816): choose one of the policy's samples by the value function's score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COLD = 1e-6


def select(
    scores: NDArray[np.floating], temperature: float, rng: np.random.Generator | None = None
) -> int:
    """Index of the sample to execute.

    Temperature 0 (anything below ``COLD``) takes the highest score. Otherwise the index is drawn from
    ``softmax(z / temperature)``, where z are the scores standardised over the samples: the scale
    of Q differs from state to state and from critic to critic, so dividing raw Q (as the paper
    does) would make one temperature mean different things. Scores that are not finite never win;
    when none is finite, sample 0 is executed: the base policy.

    Args:
        scores: ``[N]``.
        temperature: not negative, dimensionless.
        rng: needed for a positive temperature.
    """
    finite = np.isfinite(scores)
    if not finite.any():
        return 0
    if temperature < COLD or rng is None or len(scores) == 1:
        return int(np.argmax(np.where(finite, scores, -np.inf)))
    values = np.asarray(scores, dtype=np.float64)[finite]
    # Scaled before the moments, so that scores near the largest float cannot overflow.
    values = values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    z = values - values.mean()
    z /= max(float(z.std()), np.finfo(np.float32).eps)
    weights = np.exp((z - z.max()) / temperature)
    drawn = rng.choice(len(values), p=weights / weights.sum())
    return int(np.flatnonzero(finite)[drawn])
