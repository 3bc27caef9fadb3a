"""Offline data for chunk critics: h-step transitions, Monte-Carlo returns, the policy's proposals.

A transition starts at any control step t, executes the chunk t … t+Ta−1 and ends after h steps,
where h < Ta only if the episode ended first (Q-chunking, arXiv 2507.07969, eq. 5):

    target = Σ_{i<h} γ^i r_{t+i} + γ^h (1 − terminated) · V(s_{t+h}).

A task that ended (success) has no value beyond; a time limit is not an end of the task, so its
last observation is bootstrapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.windows import window_tables
from genpolicy.interfaces import Policy
from genpolicy.runs.progress import ProgressBar
from genpolicy.spec import PolicySpec

STATES_PER_CALL = 2048


@dataclass(frozen=True)
class ChunkTransitions:
    """T transitions over S = T + E states (every episode also has its final one)."""

    obs: dict[str, Tensor]  # {name: [S, To, D]} in task units
    state: Tensor  # [T] int64, where each transition starts
    next_state: Tensor  # [T] int64, where it ends
    chunk: Tensor  # [T, Ta, Da] in task units; past the end the last action is repeated
    reward: Tensor  # [T] discounted sum over the executed steps
    discount: Tensor  # [T] γ^h, 0 where the task ended
    mc_return: Tensor  # [T] discounted rewards to the end of the episode

    def __len__(self) -> int:
        return len(self.state)


def until_done(demos: Demonstrations) -> Demonstrations:
    """The same episodes without what follows their first ``done``.

    Files of people who kept recording after success have several; nothing there is of value.
    """
    episode = np.repeat(np.arange(demos.num_episodes), demos.lengths)
    # Counted before each step, relative to the start of its episode.
    before = np.cumsum(demos.dones) - demos.dones
    keep = before == before[demos.starts][episode]
    if keep.all():
        return demos
    lengths = np.bincount(episode[keep], minlength=demos.num_episodes)
    cut = {k: v[keep] for k, v in demos.obs.items()}
    cut_next = demos.next_obs and {k: v[keep] for k, v in demos.next_obs.items()}
    return replace(
        demos,
        obs=cut,
        next_obs=cut_next,
        actions=demos.actions[keep],
        rewards=demos.rewards[keep],
        dones=demos.dones[keep],
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
    )


def chunk_transitions(demos: Demonstrations, spec: PolicySpec, gamma: float) -> ChunkTransitions:
    """Every control step of ``demos`` as the start of a transition.

    Without ``next_obs`` the last observation of an episode stands for its final one, which
    matters only where a time limit ended it.
    """
    demos = until_done(demos)
    steps = np.arange(len(demos))
    episode = np.repeat(np.arange(demos.num_episodes), demos.lengths)
    _, future, pad = window_tables(demos.starts, demos.lengths, 1, spec.exec_steps)
    executed = (~pad).sum(1)
    weights = np.where(pad, 0.0, gamma ** np.arange(spec.exec_steps))
    terminated = (demos.dones[future] & ~pad).any(1)
    return ChunkTransitions(
        obs=_state_obs(demos, spec.obs_steps),
        state=torch.from_numpy(steps + episode),
        next_state=torch.from_numpy(steps + episode + executed),
        chunk=torch.from_numpy(demos.actions[future]),
        reward=_tensor((demos.rewards[future] * weights).sum(1)),
        discount=_tensor(np.where(terminated, 0.0, gamma**executed)),
        mc_return=_tensor(mc_returns(demos.rewards, demos.lengths, gamma)),
    )


def mc_returns(
    rewards: NDArray[np.floating], lengths: NDArray[np.integer], gamma: float
) -> NDArray[np.float64]:
    """Discounted sum of rewards from every step to the end of its episode, ``[T]``."""
    longest = int(lengths.max())
    inside = np.arange(longest) < lengths[:, None]  # [E, L]
    table = np.zeros(inside.shape)
    table[inside] = rewards
    for t in range(longest - 2, -1, -1):
        table[:, t] += gamma * table[:, t + 1]
    return table[inside]


def _state_obs(demos: Demonstrations, obs_steps: int) -> dict[str, Tensor]:
    """History of every state, ``{name: [S, To, D]}``: all steps of an episode, then its end."""
    final = np.cumsum(demos.lengths + 1) - 1
    starts = final - demos.lengths
    history, _, _ = window_tables(starts, demos.lengths + 1, obs_steps, 1)
    last = demos.starts + demos.lengths - 1
    step = np.insert(np.arange(len(demos)), last + 1, last)  # [S] step behind each state
    states = {}
    for key, values in demos.obs.items():
        extended = values[step]
        if demos.next_obs is not None:
            extended[final] = demos.next_obs[key][last]
        states[key] = torch.from_numpy(extended[history])
    return states


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


@torch.inference_mode()
def propose(
    policy: Policy,
    obs: Mapping[str, Tensor],
    samples: int,
    exec_steps: int,
    rng: np.random.Generator,
) -> Tensor:
    """The policy's own samples in every state, drawn once: ``[S, samples, Ta, Da]``."""
    count = len(next(iter(obs.values())))
    da = policy.spec.task.action.dim
    proposals = torch.empty(count, samples, exec_steps, da)
    with ProgressBar("proposals", count) as bar:
        for start in range(0, count, STATES_PER_CALL):
            rows = {key: value[start : start + STATES_PER_CALL] for key, value in obs.items()}
            size = min(STATES_PER_CALL, count - start)
            noise = {
                name: torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
                for name, shape in policy.noise_spec(size, samples).items()
            }
            chunks = policy.sample(rows, noise=noise, num_samples=samples)
            proposals[start : start + size] = chunks[:, :, :exec_steps]
            bar.advance(size)
    return proposals
