"""Chunk and n-chunk returns against sums by hand, and the ring's successors."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.data.demonstrations import Demonstrations, Episode
from genpolicy.data.normalizer import Normalizer
from genpolicy.finetune.replay import Replay
from genpolicy.finetune.rollout import Rollout
from genpolicy.finetune.transitions import n_chunk_return, of_demonstrations, of_rollout
from genpolicy.spec import ActionSpec, Feature, PolicySpec, StepResult, TaskSpec

GAMMA = 0.9
TASK = TaskSpec(
    task="numbers", robot="none", observations=(Feature("t", (1,)),),
    action=ActionSpec(("a",), ("",), (-1.0,), (1.0,)), control_mode="none", control_hz=1.0,
    max_episode_steps=7,
)  # fmt: skip


def by_hand(rewards, terminated, first, steps):
    """Return, discount and end of ``steps`` control steps from ``first`` of one episode."""
    last = min(first + steps, len(rewards))
    total = sum(GAMMA**i * rewards[first + i] for i in range(last - first))
    over = terminated and last == len(rewards)
    return total, 0.0 if over else GAMMA ** (last - first), last


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    chunk=st.integers(1, 4), n=st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_of_demonstrations(lengths, chunk, n, seed):
    rng = np.random.default_rng(seed)
    episodes, terminated = [], rng.random(len(lengths)) < 0.5
    for length, ended in zip(lengths, terminated, strict=True):
        t = np.arange(length + 1, dtype=np.float32)[:, None] / 10
        dones = np.arange(length) == (length - 1 if ended else -1)
        rewards = rng.normal(size=length).astype(np.float32)
        actions = rng.uniform(-1, 1, (length, 1))
        episodes.append(Episode({"t": t[:-1]}, actions, rewards, dones, {"t": t[1:]}))
    demos = Demonstrations.from_episodes(episodes, TASK)
    spec = PolicySpec(TASK, obs_steps=1, chunk=chunk, exec_steps=chunk)
    rows, follows = of_demonstrations(demos, spec, Normalizer(TASK), GAMMA)
    index = torch.arange(len(demos))
    reward, discount, last = n_chunk_return(rows, index, follows.__getitem__, n)
    row = 0
    for episode, ended in zip(episodes, terminated, strict=True):
        for t in range(len(episode)):
            want = by_hand(episode.rewards, ended, t, n * chunk)
            got = reward[row].item(), discount[row].item(), 10 * rows["next_obs"][last[row], 0]
            np.testing.assert_allclose(got, want, atol=1e-5)
            row += 1


class Counting:
    """Episodes of random lengths whose rewards are random and whose observation is the time."""

    spec, num_envs = TASK, 3

    def __init__(self, seed):
        self.rng, self.log = np.random.default_rng(seed), [[] for _ in range(3)]

    def reset(self, seed=None):
        self.t = np.zeros(3, int)
        self._start(np.ones(3, bool))
        return self._obs(self.t)

    def _start(self, who):
        self.t[who] = 0
        for i in np.flatnonzero(who):
            length, ended = self.rng.integers(1, 8), self.rng.random() < 0.5
            self.log[i].append((self.rng.normal(size=length), ended))

    def _obs(self, t):
        return {"t": (t[:, None, None] / 10).astype(np.float32)}

    def step(self, actions):
        rewards, steps = np.zeros(actions.shape[:2]), np.zeros(3, int)
        done, terminated = np.zeros((2, 3), bool)
        for i in range(3):
            episode, ended = self.log[i][-1]
            part = episode[self.t[i] : self.t[i] + actions.shape[1]]
            rewards[i, : len(part)], steps[i] = part, len(part)
            self.t[i] += len(part)
            done[i] = self.t[i] == len(episode)
            terminated[i] = done[i] and ended
        final = self._obs(self.t)
        self._start(done)
        return StepResult(
            self._obs(self.t), rewards.sum(1), rewards, terminated, done & ~terminated, final,
            terminated, steps, {},
        )  # fmt: skip

    def get_state(self):
        return {}


@settings(deadline=None, max_examples=30)
@given(
    chunk=st.integers(1, 3), n=st.integers(1, 4), rounds=st.integers(1, 6),
    capacity=st.integers(12, 60), seed=st.integers(0, 99),
)  # fmt: skip
def test_of_rollouts_in_a_ring(chunk, n, rounds, capacity, seed):
    env, steps = Counting(seed), 4
    rollout = Rollout(env, Normalizer(TASK), steps, 1)
    rollout.reset(0)
    replay = Replay(capacity, stride=3)
    for number in range(rounds):
        rollout.collect(lambda t, obs: np.zeros((3, chunk, 1)))
        chunks = torch.zeros(steps, 3, chunk)
        rows = of_rollout(rollout, chunks, GAMMA)
        replay.add(**rows, when=torch.arange(len(rows["obs"])) + len(rows["obs"]) * number)
    index = torch.arange(len(replay))
    reward, discount, last = n_chunk_return(replay.rows, index, replay.follows, n)
    total = rounds * steps * 3
    checked = 0
    for i in range(3):  # replay every environment's episodes by hand, in order
        when = i
        for episode, ended in env.log[i]:
            starts = range(0, len(episode), chunk)
            for k, first in enumerate(starts):
                if when >= total:
                    break
                known = (total - 1 - when) // 3 + 1  # chunks of this environment from here on
                want = by_hand(episode, ended, first, min(n, known) * chunk)
                row = when % capacity
                if replay.rows["when"][row] == when:
                    got = reward[row], discount[row], 10 * replay.rows["next_obs"][last[row], 0]
                    np.testing.assert_allclose(got, want, atol=1e-5, err_msg=str((i, k)))
                    checked += 1
                when += 3
    assert checked == len(replay)
