"""What an episode is, once, for every simulation: early ends, time limit, history, rewards.

Compiled, so that simulations that run a whole chunk of control steps in compiled code keep their
episodes there, and those that are stepped from Python keep them with the same functions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpolicy_sim.jit import njit

Array = NDArray[np.float64]


class Episodes(NamedTuple):
    """The episodes of N environments: what lasts, then the chunk ``[N, Ta]`` in progress."""

    history: Array  # [N, To, obs_dim], oldest first
    elapsed: NDArray[np.int64]  # [N] control steps since the episode began
    rewards: Array  # [N, Ta]
    total: Array  # [N] sum of the rewards
    steps: NDArray[np.int64]  # [N] control steps executed
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    success: NDArray[np.bool_]  # [N]
    max_steps: int  # where an episode is truncated
    end_on_success: bool  # whether an achieved task ends the episode


@njit(nogil=True, cache=True)
def begin(episodes: Episodes) -> None:
    """Begin a chunk in which nothing has happened yet."""
    episodes.rewards[:] = 0.0
    episodes.total[:] = 0.0
    episodes.steps[:] = 0
    episodes.terminated[:] = False
    episodes.truncated[:] = False
    episodes.success[:] = False


@njit(nogil=True, cache=True)
def note(
    episodes: Episodes,
    i: int,
    t: int,
    observation: Array,
    reward: Any,
    terminated: Any,
    success: Any,
) -> bool:
    """Note control step ``t`` of environment ``i``; whether its episode goes on."""
    history = episodes.history[i]
    last = history.shape[0] - 1
    for j in range(history.shape[1]):
        for k in range(last):
            history[k, j] = history[k + 1, j]
        history[last, j] = observation[j]
    episodes.rewards[i, t] = reward
    episodes.total[i] += reward
    episodes.steps[i] += 1
    episodes.elapsed[i] += 1
    episodes.success[i] |= success
    over = terminated and (not success or episodes.end_on_success)
    late = episodes.elapsed[i] >= episodes.max_steps and not over
    episodes.terminated[i] |= over
    episodes.truncated[i] |= late
    return not (over or late)


@njit(nogil=True, cache=True)
def note_all(
    episodes: Episodes,
    ids: NDArray[np.intp],
    t: int,
    observation: Array,
    reward: Array,
    terminated: NDArray[np.bool_],
    success: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Note control step ``t`` of environments ``ids`` (all else ``[N, ...]``).

    Returns:
        ``[len(ids)]`` whose episodes go on.
    """
    on = np.zeros(ids.shape[0], np.bool_)
    for k, i in enumerate(ids):
        on[k] = note(episodes, i, t, observation[i], reward[i], terminated[i], success[i])
    return on
