"""Soft indicator functions, the building blocks of DeepMind Control's rewards, compiled.

Tassa et al., "DeepMind Control Suite", arXiv 1801.00690, section 2 (Tolerance): 1 inside an
interval, falling to 0 outside with a sigmoid shape over a margin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genpolicy_sim.jit import njit

GAUSSIAN, LINEAR, QUADRATIC = range(3)  # shapes of ``tolerance``


@njit(cache=True, nogil=True)
def tolerance(
    x: float,
    low: float,
    high: float,
    margin: float = 0.0,
    shape: int = GAUSSIAN,
    at_margin: float = 0.1,
) -> float:
    """1 where ``low <= x <= high``, less outside, ``at_margin`` at the distance ``margin``.

    Args:
        x: the value.
        low: end of the interval.
        high: end of the interval, may be infinite.
        margin: how far outside values still count; 0: not at all.
        shape: of the fall: ``GAUSSIAN``, ``LINEAR`` or ``QUADRATIC``. The last two reach 0.
        at_margin: in [0, 1), for ``GAUSSIAN`` not 0.
    """
    if low <= x <= high:
        return 1.0
    if margin == 0.0:
        return 0.0
    distance = (low - x if x < low else x - high) / margin
    if shape == GAUSSIAN:
        scale = np.sqrt(-2.0 * np.log(at_margin))
        return np.exp(-0.5 * (distance * scale) ** 2)
    if shape == LINEAR:
        return max(0.0, 1.0 - distance * (1.0 - at_margin))
    return max(0.0, 1.0 - distance**2 * (1.0 - at_margin))


@njit(cache=True, nogil=True)
def small_control(control: NDArray[np.float64]) -> float:
    """1 for no control, 0.8 for full controls ``[nu]``: the suite's factor against effort."""
    total = 0.0
    for u in control:
        total += tolerance(u, 0.0, 0.0, 1.0, QUADRATIC, 0.0)
    return (4.0 + total / len(control)) / 5.0
