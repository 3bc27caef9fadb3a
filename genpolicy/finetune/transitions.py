"""Transitions of chunks, online and offline, and their n-chunk returns.

A chunk that starts in s_t and takes h control steps (h < Ta where the episode ends within it) has

    r_t = Σ_{i<h} γ^i r_{t+i},   d_t = γ^h (1 − terminated)

and n chunks in a row, unless the episode ends before,

    R = r_t + d_t r_{t+1} + d_t d_{t+1} r_{t+2} + …,   D = d_t d_{t+1} …,   y = R + D · V(last s').

A time limit ends the sum, not the task: V of its final observation counts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.normalizer import Normalizer
from genpolicy.finetune.rollout import Rollout
from genpolicy.spec import PolicySpec
from genpolicy.values.offline import chunk_transitions

# obs [R, C], next_obs [R, C], chunk [R, A], reward, discount [R], ended [R], whether the episode
# did, and good [R], whether it is known to have succeeded.
Rows = dict[str, Tensor]


def of_rollout(rollout: Rollout, chunk: Tensor, gamma: float) -> Rows:
    """What just happened, ``T · E`` rows, all environments of a chunk step side by side.

    Args:
        rollout: of T chunk steps in E environments.
        chunk: What was executed, ``[T, E, A]`` in normalised units.
        gamma: Discount per control step.
    """
    weights = gamma ** np.arange(rollout.rewards.shape[2])
    discount = np.where(rollout.terminated, 0.0, gamma**rollout.lengths)
    ended = rollout.terminated | rollout.truncated
    return {
        "obs": rollout.obs.flatten(0, 1),
        "next_obs": rollout.final_obs.flatten(0, 1),
        "chunk": chunk.flatten(0, 1),
        "reward": _flat((rollout.rewards * weights).sum(2)),
        "discount": _flat(discount),
        "ended": torch.from_numpy(ended).flatten(),
        "good": torch.from_numpy(ended & rollout.success).flatten(),
    }


def of_demonstrations(
    demos: Demonstrations, spec: PolicySpec, normalizer: Normalizer, gamma: float
) -> tuple[Rows, Tensor]:
    """Every control step of ``demos`` as the start of a transition.

    Returns:
        T rows, and for each the row of the chunk that follows it, −1 where its episode ends.
    """
    data = chunk_transitions(demos, spec, gamma)
    states = normalizer.obs(data.obs)
    starts = torch.full((len(states),), -1)  # of a transition, in each state
    starts[data.state] = torch.arange(len(data))
    follows = starts[data.next_state]
    rows = {
        "obs": states[data.state],
        "next_obs": states[data.next_state],
        "chunk": normalizer.action(data.chunk).flatten(1),
        "reward": data.reward,
        "discount": data.discount,
        "ended": follows < 0,
        "good": torch.ones(len(follows), dtype=torch.bool),
    }
    return rows, follows


def n_chunk_return(
    rows: Rows, index: Tensor, follows: Callable[[Tensor], Tensor], n: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return R, discount D and the last row of the n chunks from rows ``index [B]`` on.

    Args:
        rows: as above.
        index: first rows.
        follows: from rows to the rows after them, −1 where there is none (yet).
        n: how many chunks, at most.
    """
    reward, discount, last = rows["reward"][index], rows["discount"][index], index
    for _ in range(n - 1):
        after = follows(last)
        goes_on = ~rows["ended"][last] & (after >= 0)
        reward = torch.where(goes_on, reward + discount * rows["reward"][after], reward)
        discount = torch.where(goes_on, discount * rows["discount"][after], discount)
        last = torch.where(goes_on, after, last)
    return reward, discount, last


def _flat(values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).flatten()
