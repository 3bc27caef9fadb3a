"""From one chunk to the next while the robot moves: weights, delays, ensembles, and what fits.

Rows of a chunk are counted in control steps, and delays in actions that were really executed: a
loop that runs late or holds does not shift a plan.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.contract import Contract

MODES = ("sync", "async", "ensemble")
DELAY_DECAY = 0.1  # how much of the distance to a shorter delay the estimate goes per chunk
ENSEMBLE_DECAY = 0.01  # m of ACT (arXiv 2304.13705): the k-th oldest chunk weighs exp(-m k)


def check_handover(mode: str, contract: Contract) -> None:
    """Refuse a mode that this controller's horizons leave no room for.

    Raises:
        GenpolicyError: says what would.
    """
    if mode not in MODES:
        raise GenpolicyError(f"--handover {mode}: choose one of {', '.join(MODES)}")
    spec = contract.spec
    if mode == "async" and spec.chunk <= spec.exec_steps:
        raise GenpolicyError(
            f"--handover async: this controller plans {spec.chunk} actions and executes "
            f"{spec.exec_steps}, so none is left to execute while the next chunk is computed; "
            "export a policy trained with exec_steps below chunk, or use --handover sync"
        )
    if mode == "ensemble" and spec.chunk < 2:
        raise GenpolicyError(
            "--handover ensemble: chunks of one action do not overlap; use --handover sync"
        )


def soft_weights(delay: int, overlap: int, out: NDArray[np.float32]) -> None:
    """How much each row of the next chunk is bound by the present one (arXiv 2506.07339, eq. 5).

    Row i weighs 1 for i < ``delay`` (it will have been executed), then c·(eᶜ − 1)/(e − 1) with c
    falling linearly from 1 to 0, both exclusive, and 0 from row ``overlap`` on.

    Args:
        delay: control steps until the next chunk is there.
        overlap: rows that are left of the present chunk; a longer delay counts as this.
        out: ``[Tp]``, overwritten.
    """
    delay = min(delay, overlap)
    for i in range(len(out)):
        c = min(max((overlap - i) / (overlap - delay + 1), 0.0), 1.0)
        out[i] = c * math.expm1(c) / math.expm1(1.0)
    out[:delay] = 1.0


class DelayEstimate:
    """The delay to plan for, control steps: a maximum that forgets.

    A longer delay counts at once. After it the estimate decays towards the delays that follow, so
    that one hiccup costs some chunks their freedom to react, not the rest of the run.
    """

    def __init__(self) -> None:
        self._value = 1.0

    def add(self, steps: int) -> None:
        """One chunk took so many control steps."""
        kept = self._value - DELAY_DECAY * (self._value - steps)
        self._value = max(float(steps), kept)

    @property
    def steps(self) -> int:
        """At least 1: the action of the control step that asks is executed anyway."""
        return max(math.ceil(self._value - 0.5), 1)


class Ensemble:
    """Temporal ensembling (arXiv 2304.13705): the mean of all chunks' actions for the same step.

    Args:
        chunk: Tp.
        action_dim: Da.
    """

    def __init__(self, chunk: int, action_dim: int) -> None:
        self._mean = np.zeros((chunk, action_dim))  # row 0 is executed next
        self._weight = np.zeros((chunk, 1))
        self._count = np.zeros((chunk, 1))
        self.clear()

    def clear(self) -> None:
        """Nothing is planned any more."""
        self._mean[:] = self._weight[:] = self._count[:] = 0.0

    def add(self, actions: NDArray[np.float32]) -> None:
        """Average rows ``[n, Da]`` in, the first for the action that is executed next."""
        n = len(actions)
        new = np.exp(-ENSEMBLE_DECAY * self._count[:n])
        self._weight[:n] += new
        self._mean[:n] += new / self._weight[:n] * (actions - self._mean[:n])
        self._count[:n] += 1.0

    def take(self, out: NDArray[np.float32]) -> None:
        """Write the next action ``[Da]`` and move on by a control step."""
        out[:] = self._mean[0]
        for array in (self._mean, self._weight, self._count):
            array[:-1] = array[1:]
            array[-1] = 0.0
