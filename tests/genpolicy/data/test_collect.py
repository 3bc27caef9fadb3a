"""Collection from a counting environment whose every number is known."""

import numpy as np
import pytest
from toy_demonstrations import make_task

from genpolicy.data.collect import collect_episodes
from genpolicy.data.demonstrations import Demonstrations, check_episode
from genpolicy.data.hdf5 import read_demonstrations
from genpolicy.data.robomimic_writer import RobomimicWriter
from genpolicy.spec import GenpolicyError, StepResult

HORIZON = 9


class Counting:
    """Environment of seed s ends at its (2 + s mod 5)-th step, for seeds ≡ 3 by failure.

    Seeds ≡ 4 never end before the time limit. Observation ``position`` is (seed, step, sum of
    first actions). Auto-reset starts seed −5, which succeeds quickly.
    """

    def __init__(self, num_envs, history=1):
        self.num_envs, self.history = num_envs, history
        self.spec = make_task({"position": 3})
        object.__setattr__(self.spec, "max_episode_steps", HORIZON)

    def reset(self, seed=None):
        self.state = np.zeros((self.num_envs, 3))
        self.state[:, 0] = seed + np.arange(self.num_envs)
        return self._obs(self.state)

    def _obs(self, state):
        stacked = np.repeat(state[:, None], self.history, axis=1).astype(np.float32)
        stacked[:, :-1] = -99.0  # only the newest observation belongs to this step
        return {"position": stacked}

    def get_state(self):
        return {"qpos": self.state, "qvel": -self.state[:, :1]}

    def step(self, actions):
        assert actions.shape == (self.num_envs, 1, 2)
        self.state = self.state + np.stack(
            [np.zeros(self.num_envs), np.ones(self.num_envs), actions[:, 0, 0]], axis=1
        )
        seed, count = self.state[:, 0], self.state[:, 1]
        terminated = (count == 2 + seed % 5) & (seed % 5 != 4)
        success = terminated & (seed % 5 != 3)
        truncated = (count == HORIZON) & ~terminated
        final = self._obs(self.state)
        self.state[terminated | truncated] = [-5.0, 0.0, 0.0]
        return StepResult(
            obs=self._obs(self.state),
            reward=success.astype(float),
            rewards=success.astype(float)[:, None],
            terminated=terminated,
            truncated=truncated,
            final_obs=final,
            success=success,
            steps=np.ones(self.num_envs, np.int64),
            info={},
        )


def act(obs):
    """The action tells the step at which it was taken."""
    return np.stack([obs["position"][:, -1, 1] / 10, obs["position"][:, -1, 0] / 1000], axis=1)


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_episodes_are_those_of_the_seeds(num_envs):
    episodes = []
    stats = collect_episodes(
        Counting(num_envs, history=2), act, 7, episodes.append, seed=10, success_only=False
    )
    assert stats.kept == len(episodes) == 7
    for i, episode in enumerate(episodes):
        seed = 10 + i
        length = HORIZON if seed % 5 == 4 else 2 + seed % 5
        steps = np.arange(length)
        assert len(episode) == length
        sums = np.concatenate([[0.0], np.cumsum(steps / 10)])
        wanted = np.stack([np.full(length, seed), steps, sums[:-1]], axis=1)
        np.testing.assert_allclose(episode.obs["position"], wanted, atol=1e-6)
        after = np.stack([np.full(length, seed), steps + 1, sums[1:]], axis=1)
        np.testing.assert_allclose(episode.next_obs["position"], after, atol=1e-6)
        np.testing.assert_allclose(episode.actions[:, 0], steps / 10, atol=1e-6)
        last = steps == length - 1
        np.testing.assert_array_equal(episode.rewards, last & (seed % 5 not in (3, 4)))
        # A time limit is not an end of the task: value learning bootstraps there.
        np.testing.assert_array_equal(episode.dones, last & (seed % 5 != 4))
        states = np.concatenate([steps[:, None] / 10.0, wanted, -wanted[:, :1]], axis=1)
        np.testing.assert_allclose(episode.states, states, atol=1e-6)
        check_episode(episode, Counting(1).spec, "collected")


def test_failures_are_dropped_on_request():
    episodes, progress, waves = [], [], []
    stats = collect_episodes(
        Counting(5), act, 6, episodes.append, progress=progress.append, on_wave=waves.append
    )
    assert [e.obs["position"][0, 0] for e in episodes] == [0, 1, 2, 5, 6, 7]
    assert (stats.kept, stats.attempts, stats.successes) == (6, 10, 6)
    assert progress == [3, 6]
    assert waves == [0, 5]


def test_chunks_are_executed_to_their_end():
    calls = []

    def chunks(obs):
        calls.append(obs["position"][1, -1, 1])
        return np.tile(np.array([[0.1, 0], [0.2, 0], [0.3, 0]]), (2, 1, 1))

    episodes = []
    collect_episodes(Counting(2), chunks, 2, episodes.append, seed=3, success_only=False)
    assert calls == [0, 3, 6]
    np.testing.assert_allclose(episodes[1].actions[:, 0], [0.1, 0.2, 0.3] * 3)


def test_hopeless_driver_is_given_up():
    env = Counting(1)
    env.reset = lambda seed: Counting.reset(env, seed=3)
    with pytest.raises(GenpolicyError, match="0 of 20 attempts succeeded"):
        collect_episodes(env, act, 1, [].append)


def test_action_that_is_not_finite_is_refused():
    with pytest.raises(GenpolicyError, match="not finite"):
        collect_episodes(Counting(1), lambda obs: np.full((1, 2), np.nan), 1, [].append)


def test_collected_file_is_the_data_set(tmp_path):
    env, episodes = Counting(4), []
    with RobomimicWriter(tmp_path / "d.hdf5", {}, env.spec) as writer:
        collect_episodes(env, act, 5, writer.add)
    collect_episodes(env, act, 5, episodes.append)
    direct = Demonstrations.from_episodes(episodes, env.spec)
    assert read_demonstrations(tmp_path / "d.hdf5").fingerprint == direct.fingerprint


def test_a_simulator_that_tells_no_joint_positions_records_no_states(tmp_path):
    env = Counting(3)
    env.get_state = lambda: {"start_seed": np.zeros(3)}
    episodes = []
    stats = collect_episodes(
        env, lambda obs: np.ones((3, 2)), 3, episodes.append, success_only=False
    )
    assert [episode.states for episode in episodes] == [None] * 3
    assert stats.total_return == sum(episode.rewards.sum() for episode in episodes)
    with RobomimicWriter(tmp_path / "d.hdf5", {"type": 2}, env.spec) as writer:
        for episode in episodes:
            writer.add(episode)
    assert len(read_demonstrations(tmp_path / "d.hdf5")) == stats.env_steps
