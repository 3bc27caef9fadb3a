"""Episodes out of a flight log: what was seen and done at every control step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from genpolicy_deploy.flight_log import FlightLog
from genpolicy_deploy.states import State
from numpy.typing import NDArray

from genpolicy.data.demonstrations import Arrays, Episode
from genpolicy.spec import TaskSpec


class Logged(NamedTuple):
    """One episode of a log, in pieces: where the robot held, time is missing in between."""

    number: int
    success: bool
    pieces: list[Episode]


def episodes_of(
    log: FlightLog, task: TaskSpec, succeeded: Sequence[int] | None = None
) -> Iterator[Logged]:
    """All episodes of ``log``, in their order.

    A step counts once its outcome is known, which is the observation of the step after it: the
    last one before a hold, a fault or the end of a log is left out.

    Args:
        log: as it was read.
        task: what its numbers mean.
        succeeded: numbers of the episodes that a person judged successes; None for what the
            robot observed.
    """
    held = log.ticks["t_ns"][log.ticks["state"] == State.HOLD]
    for number in np.unique(log.steps["episode"]).tolist():
        steps = log.steps[log.steps["episode"] == number]
        success = bool(steps["success"].any())
        if succeeded is not None:
            success = number in succeeded
            steps = steps.copy()
            steps["success"] = False
            steps["success"][-1] = success
        pieces = [_piece(rows, task) for rows in _pieces(steps, held) if len(rows) > 1]
        yield Logged(number, success, pieces)


def _pieces(steps: NDArray[Any], held: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Runs of steps that follow one another at control rate."""
    times = steps["t_ns"]
    next_hold = np.searchsorted(held, times)
    followed = (np.diff(steps["step"]) == 1) & (np.diff(next_hold) == 0)
    return np.split(steps, np.flatnonzero(~followed) + 1)


def _piece(rows: NDArray[Any], task: TaskSpec) -> Episode:
    """T steps from T + 1 rows."""
    done = rows["success"][1:]
    low, high = np.array(task.action.low), np.array(task.action.high)
    return Episode(
        obs=_observations(rows["obs"][:-1], task),
        actions=np.clip(rows["action"][:-1], low, high),  # as the loop executed them
        rewards=done.astype(np.float64),
        dones=done,
        next_obs=_observations(rows["obs"][1:], task),
        interventions=rows["intervention"][:-1],
    )


def _observations(flat: NDArray[np.float32], task: TaskSpec) -> Arrays:
    """``[T, obs_dim]`` to ``{name: [T, ...]}``."""
    features = task.observations
    parts = np.split(flat, np.cumsum([f.dim for f in features])[:-1], axis=1)
    return {f.name: p.reshape(-1, *f.shape) for f, p in zip(features, parts, strict=True)}
