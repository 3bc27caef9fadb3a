"""The ring holds the newest transitions, draws them evenly, and survives a checkpoint."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.finetune.replay import Replay


def rows(start, count):
    number = torch.arange(start, start + count)
    return {"obs": number[:, None].float().expand(count, 3), "number": number}


@given(capacity=st.integers(1, 12), counts=st.lists(st.integers(0, 12), max_size=8))
def test_it_holds_the_newest_and_rows_stay_together(capacity, counts):
    replay, added = Replay(capacity), 0
    for count in (min(c, capacity) for c in counts):
        replay.add(**rows(added, count))
        added += count
    assert len(replay) == min(added, capacity)
    if not added:
        return
    drawn = replay.sample(np.random.default_rng(0), 400)
    newest = set(range(added - len(replay), added))
    assert set(drawn["number"].tolist()) <= newest
    if capacity < 8:
        assert set(drawn["number"].tolist()) == newest
    assert torch.equal(drawn["obs"], drawn["number"][:, None].float().expand(-1, 3))


def test_draws_are_uniform():
    replay = Replay(10)
    replay.add(**rows(0, 10))
    drawn = replay.sample(np.random.default_rng(0), 20_000)["number"]
    assert (torch.bincount(drawn) / 20_000 - 0.1).abs().max() < 0.01


def test_a_restored_replay_goes_on_in_the_same_places():
    first, second = Replay(5), Replay(5)
    first.add(**rows(0, 4))
    second.load_state_dict(first.state_dict())
    for replay in (first, second):
        replay.add(**rows(4, 3))
    draws = [replay.sample(np.random.default_rng(1), 50)["number"] for replay in (first, second)]
    assert torch.equal(*draws)


@given(old=st.integers(1, 8), new=st.integers(1, 8), added=st.integers(0, 20))
def test_a_replay_of_another_capacity_takes_over_the_newest(old, new, added):
    first, second = Replay(old), Replay(new)
    for number in range(added):
        first.add(**rows(number, 1))
    second.load_state_dict(first.state_dict())
    second.add(**rows(added, 1))
    count = min(old, added, new - 1) + 1 if new > 1 else 1
    drawn = second.sample(np.random.default_rng(0), 300)["number"]
    assert len(second) == min(count, new)
    assert set(drawn.tolist()) == set(range(added + 1 - len(second), added + 1))


def test_more_than_there_is_room_for_is_refused():
    with pytest.raises(ValueError, match="capacity is 3"):
        Replay(3).add(**rows(0, 4))


@settings(deadline=None)
@given(
    rounds=st.integers(1, 12), capacity=st.integers(6, 40), seed=st.integers(0, 99),
)  # fmt: skip
def test_rows_of_an_episode_are_found_from_its_last(rounds, capacity, seed):
    rng, stride = np.random.default_rng(seed), 3
    replay, begun = Replay(capacity, stride=stride), np.zeros(stride, np.int64)
    for number in range(rounds):
        ended = rng.random(stride) < 0.4
        episode = begun * stride + np.arange(stride)
        replay.add(ended=torch.from_numpy(ended), episode=torch.from_numpy(episode))
        newest = replay.newest(stride)
        np.testing.assert_array_equal(replay.rows["episode"][newest], episode)
        last = newest[torch.from_numpy(ended)]
        found = replay.episodes(last)
        alive = replay.rows["episode"][: len(replay)]
        wanted = torch.isin(alive, replay.rows["episode"][last]).nonzero()[:, 0]
        np.testing.assert_array_equal(np.sort(found), wanted, err_msg=str(number))
        begun += ended
