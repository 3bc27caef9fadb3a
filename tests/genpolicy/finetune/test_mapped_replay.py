"""A replay in files equals one in memory, goes on after a crash, and refuses other runs' files."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.finetune.mapped_replay import MappedReplay
from genpolicy.finetune.replay import Replay
from genpolicy.spec import GenpolicyError

ABOUT = {"task": "reach", "gamma": 0.9}


def rows(number, count=2):
    number = torch.arange(number, number + count)
    return {"obs": number[:, None].float().expand(count, 3), "number": number, "ended": number < 0}


@settings(deadline=None, max_examples=20)
@given(capacity=st.integers(4, 12), before=st.integers(1, 9), after=st.integers(0, 9))
def test_it_equals_one_in_memory(tmp_path_factory, capacity, before, after):
    folder = tmp_path_factory.mktemp("replay") / "files"
    memory, mapped = Replay(capacity, stride=2), MappedReplay(folder, ABOUT, capacity, 2)
    for k in range(before):
        for replay in (memory, mapped):
            replay.add(**rows(2 * k))
    state, mapped = copy.deepcopy(mapped.state_dict()), MappedReplay(folder, ABOUT, capacity, 2)
    assert not any(isinstance(value, torch.Tensor) for value in state.values())
    mapped.load_state_dict(state)
    for k in range(before, before + after):
        for replay in (memory, mapped):
            replay.add(**rows(2 * k))
    index = torch.arange(len(memory))
    assert len(mapped) == len(memory)
    np.testing.assert_array_equal(mapped.follows(index), memory.follows(index))
    for name, value in memory.rows.items():
        np.testing.assert_array_equal(mapped.rows[name], value)


def test_what_came_after_the_checkpoint_stays_and_is_cut_off(tmp_path):
    replay = MappedReplay(tmp_path / "files", ABOUT, 8, 2)
    replay.add(**rows(0))
    state = replay.state_dict()
    replay.add(**rows(2))
    del replay  # a crash
    again = MappedReplay(tmp_path / "files", ABOUT, 8, 2)
    again.load_state_dict(state)
    again.add(**rows(4))
    assert again.rows["number"][:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert again.rows["ended"][:6].tolist() == [False, False, True, True, False, False]


def test_files_of_another_task_are_refused(tmp_path):
    MappedReplay(tmp_path / "files", ABOUT, 8, 2).add(**rows(0))
    for about, capacity in ((ABOUT | {"task": "lift"}, 8), (ABOUT | {"gamma": 0.5}, 8), (ABOUT, 9)):
        with pytest.raises(GenpolicyError, match=r"choose another algo\.replay_dir"):
            MappedReplay(tmp_path / "files", about, capacity, 2)


def test_files_of_another_run_are_not_overwritten(tmp_path):
    MappedReplay(tmp_path / "files", ABOUT, 8, 2).add(**rows(0))
    other = MappedReplay(tmp_path / "files", ABOUT, 8, 2)
    with pytest.raises(GenpolicyError, match="resume the run that it belongs to"):
        other.add(**rows(5))
    assert np.load(tmp_path / "files/number.npy")[:2].tolist() == [0, 1]


@pytest.mark.parametrize("lost", ["number.npy", "count.npy"])
def test_lost_files_are_named(tmp_path, lost):
    replay = MappedReplay(tmp_path / "files", ABOUT, 8, 2)
    replay.add(**rows(0))
    (tmp_path / "files" / lost).unlink()
    with pytest.raises(GenpolicyError, match=lost):
        MappedReplay(tmp_path / "files", ABOUT, 8, 2).load_state_dict(replay.state_dict())


def test_fewer_transitions_than_the_checkpoint_counted_are_refused(tmp_path):
    replay = MappedReplay(tmp_path / "files", ABOUT, 8, 2)
    replay.add(**rows(0))
    with pytest.raises(GenpolicyError, match="after 5"):
        replay.load_state_dict(replay.state_dict() | {"added": 5})
