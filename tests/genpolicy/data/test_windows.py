"""Window index tables against the loop that they replace."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_demonstrations import make_episode, make_task

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.windows import ChunkDataset, window_tables
from genpolicy.spec import GenpolicyError


@given(
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    obs_steps=st.integers(1, 5),
    chunk=st.integers(1, 10),
)
def test_tables_equal_the_loop(lengths, obs_steps, chunk):
    lengths = np.array(lengths)
    starts = np.cumsum(lengths) - lengths
    history, future, pad = window_tables(starts, lengths, obs_steps, chunk)
    row = 0
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        for t in range(length):
            wanted = [start + max(0, t - back) for back in range(obs_steps - 1, -1, -1)]
            assert history[row].tolist() == wanted
            wanted = [start + min(length - 1, t + ahead) for ahead in range(chunk)]
            assert future[row].tolist() == wanted
            assert pad[row].tolist() == [t + ahead >= length for ahead in range(chunk)]
            row += 1
    assert row == len(history) == len(future) == len(pad)


@pytest.fixture
def dataset(task, episodes):
    return ChunkDataset(Demonstrations.from_episodes(episodes, task), obs_steps=2, chunk=3)


def test_batch_gathers_the_windows(dataset, episodes):
    # Step 5 of the last episode (of 7), which begins after 4 + 1 steps; and a one-step episode.
    batch = dataset.batch(torch.tensor([10, 4]))
    assert batch["obs"]["position"].shape == (2, 2, 3)
    assert batch["actions"].shape == (2, 3, 2)
    last = episodes[2]
    np.testing.assert_array_equal(batch["obs"]["velocity"][0], last.obs["velocity"][4:6])
    actions = last.actions[[5, 6, 6]].astype(np.float32)
    np.testing.assert_array_equal(batch["actions"][0], actions)
    assert batch["pad"].tolist() == [[False, False, True], [False, True, True]]
    only = episodes[1]
    np.testing.assert_array_equal(batch["obs"]["velocity"][1], only.obs["velocity"][[0, 0]])
    np.testing.assert_array_equal(batch["actions"][1], only.actions[[0, 0, 0]].astype(np.float32))


def test_every_step_is_a_window(dataset):
    assert len(dataset) == 12
    batch = dataset.batch(torch.arange(12))
    np.testing.assert_array_equal(batch["actions"][:, 0], dataset.demos.actions)
    np.testing.assert_array_equal(batch["obs"]["position"][:, -1], dataset.demos.obs["position"])


def test_normalizer_spans_the_data(dataset):
    normalizer = dataset.normalizer()
    scaled = normalizer.action(dataset.actions)
    torch.testing.assert_close(scaled.amax(0), torch.ones(2))
    torch.testing.assert_close(scaled.amin(0), -torch.ones(2))


def test_constant_dimensions_stay_finite(task, episodes):
    for episode in episodes:
        episode.obs["velocity"][:, 1] = 7.0
        episode.actions[:, 0] = 0.5
    dataset = ChunkDataset(Demonstrations.from_episodes(episodes, task), 1, 2)
    normalizer = dataset.normalizer()
    batch = dataset.batch(torch.arange(len(dataset)))
    obs, actions = normalizer.obs(batch["obs"]), normalizer.action(batch["actions"])
    assert torch.isfinite(obs).all()
    assert (obs[:, -1] == 0).all()
    assert (actions[..., 0] == 0).all()
    torch.testing.assert_close(normalizer.unaction(actions), batch["actions"])


def test_impossible_windows_are_refused(task, episodes):
    demos = Demonstrations.from_episodes(episodes, task)
    with pytest.raises(GenpolicyError, match="obs_steps >= 1"):
        ChunkDataset(demos, 0, 4)
    with pytest.raises(GenpolicyError, match="no episode"):
        Demonstrations.from_episodes([], task)


def test_next_observations_need_every_episode(task, episodes):
    assert Demonstrations.from_episodes(episodes, task).next_obs is not None
    episodes[1].next_obs = None
    assert Demonstrations.from_episodes(episodes, task).next_obs is None


def test_features_of_any_shape_are_flattened():
    task = make_task({"grid": 6})
    episode = make_episode(task, 3, np.random.default_rng(0))
    grid = episode.obs["grid"].reshape(3, 2, 3)
    episode.obs["grid"] = grid
    episode.next_obs = None
    demos = Demonstrations.from_episodes([episode], task)
    np.testing.assert_array_equal(demos.obs["grid"], grid.reshape(3, 6))
