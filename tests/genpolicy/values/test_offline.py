from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.spec import PolicySpec
from genpolicy.values.offline import chunk_transitions, mc_returns, propose, until_done

GAMMA = 0.9
EPISODES = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=5)


def toy_policy_spec(demos):
    return PolicySpec(demos.task, obs_steps=2, chunk=4, exec_steps=3)


def brute_force(demos, t, start, length, exec_steps):
    """Reward, discount and executed steps of the chunk at t, step by step."""
    reward, discount, h = 0.0, 1.0, 0
    while h < exec_steps and t + h < start + length:
        reward += discount * demos.rewards[t + h]
        discount *= GAMMA
        h += 1
        if demos.dones[t + h - 1]:
            return reward, 0.0, h
    return reward, discount, h


@settings(max_examples=60, deadline=None)
@given(episodes=EPISODES, seed=st.integers(0, 99))
def test_h_step_returns_equal_the_step_by_step_sum(make_demos, episodes, seed):
    demos = make_demos(*zip(*episodes, strict=True), seed=seed)
    data = chunk_transitions(demos, toy_policy_spec(demos), GAMMA)
    for episode, (start, length) in enumerate(zip(demos.starts, demos.lengths, strict=True)):
        tail = 0.0
        for t in reversed(range(start, start + length)):
            reward, discount, h = brute_force(demos, t, start, length, 3)
            tail = demos.rewards[t] + GAMMA * tail
            np.testing.assert_allclose(data.reward[t], reward, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(data.discount[t], discount, rtol=1e-6)
            np.testing.assert_allclose(data.mc_return[t], tail, rtol=1e-5, atol=1e-6)
            assert data.state[t] == t + episode
            assert data.next_state[t] == t + episode + h


def test_states_hold_the_history_and_every_episodes_final_observation(make_demos):
    demos = make_demos([4, 2], [False, True])
    data = chunk_transitions(demos, toy_policy_spec(demos), GAMMA)
    x, after = demos.obs["x"][:, 0], demos.next_obs["x"][:, 0]
    expected = [
        *[[x[0], x[0]], [x[0], x[1]], [x[1], x[2]], [x[2], x[3]], [x[3], after[3]]],
        *[[x[4], x[4]], [x[4], x[5]], [x[5], after[5]]],
    ]
    np.testing.assert_array_equal(data.obs["x"][..., 0], expected)


def test_chunks_repeat_the_last_action_and_never_reach_into_the_next_episode(make_demos):
    demos = make_demos([4, 2], [False, True])
    data = chunk_transitions(demos, toy_policy_spec(demos), GAMMA)
    a = demos.actions
    np.testing.assert_array_equal(data.chunk[2], a[[2, 3, 3]])
    np.testing.assert_array_equal(data.chunk[3], a[[3, 3, 3]])


def test_time_limit_bootstraps_and_success_does_not(make_demos):
    cut = chunk_transitions(*limited(make_demos, done=False), GAMMA)
    ended = chunk_transitions(*limited(make_demos, done=True), GAMMA)
    torch.testing.assert_close(cut.discount, torch.tensor([GAMMA**2, GAMMA]))
    torch.testing.assert_close(ended.discount, torch.zeros(2))


def limited(make_demos, done):
    demos = make_demos([2], [done])
    return demos, toy_policy_spec(demos)


def test_what_follows_the_first_done_is_dropped(make_demos):
    demos = make_demos([4, 3, 2], [True, False, True])
    dones = demos.dones.copy()
    dones[1] = dones[2] = True  # kept recording after success
    cut = until_done(replace(demos, dones=dones))
    kept = [0, 1, 4, 5, 6, 7, 8]
    np.testing.assert_array_equal(cut.actions, demos.actions[kept])
    np.testing.assert_array_equal(cut.next_obs["v"], demos.next_obs["v"][kept])
    np.testing.assert_array_equal(cut.lengths, [2, 3, 2])
    np.testing.assert_array_equal(cut.starts, [0, 2, 5])
    assert until_done(demos) is demos


def test_without_next_obs_the_last_observation_stands_for_the_final_one(make_demos):
    demos = replace(make_demos([3], [False]), next_obs=None)
    data = chunk_transitions(demos, toy_policy_spec(demos), GAMMA)
    np.testing.assert_array_equal(data.obs["x"][-1, :, 0], demos.obs["x"][[2, 2], 0])


def test_mc_returns_closed_form():
    returns = mc_returns(np.array([0.0, 0.0, 1.0, 0.0, 0.0]), np.array([3, 2]), 0.5)
    np.testing.assert_allclose(returns, [0.25, 0.5, 1.0, 0.0, 0.0])


def test_proposals_are_the_policys_samples_and_reproducible(policy, obs):
    first = propose(policy, obs, 3, 2, np.random.default_rng(5))
    again = propose(policy, obs, 3, 2, np.random.default_rng(5))
    assert torch.equal(first, again)
    noise = np.random.default_rng(5).standard_normal((5, 3, 4, 2), dtype=np.float32)
    direct = policy.sample(obs, noise={"noise": torch.from_numpy(noise)}, num_samples=3)
    torch.testing.assert_close(first, direct[:, :, :2])
