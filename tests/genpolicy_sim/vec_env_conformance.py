"""What every VecEnv must do, as functions of a factory ``make(num_envs, **options) -> VecEnv``.

A task's own test module calls ``check_vec_env`` once; each check says what broke.
"""

import numpy as np
import pytest

from genpolicy.spec import GenpolicyError, VecEnv


def check_vec_env(make, max_episode_steps="max_episode_steps"):
    """All checks. ``max_episode_steps`` names the factory's option for the time limit."""
    check_shapes_and_types(make)
    check_seed_decides_each_start(make)
    check_history_is_at_control_rate(make)
    check_chunk_equals_single_steps(make)
    check_memory_layout_does_not_matter(make)
    check_truncation_and_auto_reset(make, max_episode_steps)
    check_inactive_environments_rest(make)
    check_exact_resume(make)
    check_bad_input(make)


def random_actions(env, chunk, seed=0, scale=0.5):
    low, high = np.array(env.spec.action.low), np.array(env.spec.action.high)
    unit = np.random.default_rng(seed).uniform(-scale, scale, (env.num_envs, chunk, len(low)))
    return (low + high) / 2 + unit * (high - low) / 2


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def check_shapes_and_types(make):
    env = make(3)
    assert isinstance(env, VecEnv)
    result = env.step(random_actions(env, 2))
    for obs in (env.reset(0), result.obs, result.final_obs):
        assert list(obs) == [feature.name for feature in env.spec.observations]
        for feature in env.spec.observations:
            assert obs[feature.name].shape == (3, 1, *feature.shape)
            assert obs[feature.name].dtype == np.float32
    assert result.reward.shape == (3,) and result.reward.dtype == np.float64
    assert result.rewards.shape == (3, 2) and result.rewards.dtype == np.float64
    for flag in (result.terminated, result.truncated, result.success):
        assert flag.shape == (3,) and flag.dtype == np.bool_
    assert result.steps.dtype == np.int64 and ((result.steps >= 1) & (result.steps <= 2)).all()
    np.testing.assert_allclose(result.reward, result.rewards.sum(axis=1))
    env.close()


def check_seed_decides_each_start(make):
    many, few = make(4), make(2)
    first = many.reset(10)
    assert_same({k: v[2:] for k, v in first.items()}, few.reset(12))
    assert_same(first, many.reset(10))
    follow_up = many.reset()
    assert any((follow_up[k] != first[k]).any() for k in first), "no new initial states"
    many.reset(10)
    assert_same(follow_up, many.reset())
    assert any((first[k][0] != first[k][1]).any() for k in first), "all environments start alike"
    many.close(), few.close()


def check_history_is_at_control_rate(make):
    env, plain = make(2, history=3), make(2)
    actions = random_actions(env, 4)
    seen = [env.reset(1)]
    for value in seen[0].values():
        np.testing.assert_array_equal(value, np.repeat(value[:, :1], 3, axis=1))
    plain.reset(1)
    steps = [plain.step(actions[:, t : t + 1]).obs for t in range(4)]
    result = env.step(actions)
    for key, value in result.obs.items():
        expected = np.concatenate([step[key] for step in steps[1:]], axis=1)
        np.testing.assert_array_equal(value, expected, err_msg=key)
    env.close(), plain.close()


def check_chunk_equals_single_steps(make):
    chunked, single = make(3), make(3)
    actions = random_actions(chunked, 5, seed=2)
    chunked.reset(3), single.reset(3)
    together = chunked.step(actions)
    rewards = np.zeros((3, 5))
    for t in range(5):
        apart = single.step(actions[:, t : t + 1])
        rewards[:, t] = apart.reward
    assert_same(together.obs, apart.obs)
    np.testing.assert_array_equal(together.rewards, rewards)
    assert (together.steps == 5).all()
    chunked.close(), single.close()


def check_memory_layout_does_not_matter(make):
    env = make(3)
    actions = random_actions(env, 2)
    env.reset(0)
    expected = env.step(actions).obs
    env.reset(0)
    assert_same(env.step(np.asfortranarray(actions)).obs, expected)
    env.close()


def check_truncation_and_auto_reset(make, max_episode_steps):
    env, fresh = make(2, **{max_episode_steps: 3}), make(2)
    actions = random_actions(env, 4, seed=4)
    env.reset(5), fresh.reset(5)
    before = fresh.step(actions[:, :3])
    result = env.step(actions)
    assert (result.steps == 3).all() and result.truncated.all() and not result.terminated.any()
    assert result.done.all() and not result.rewards[:, 3].any()
    assert_same(result.final_obs, before.obs)
    assert_same(result.obs, fresh.reset())  # the next initial state of each one's own sequence
    after = env.step(actions[:, :1])
    assert not after.done.any()
    assert_same(after.final_obs, after.obs)
    env.close(), fresh.close()


def check_inactive_environments_rest(make):
    env, busy = make(3, history=2), make(3, history=2)
    env.reset(6)
    start = env.step(random_actions(env, 1))
    before = env.get_state()
    active = np.array([False, True, False])
    result = env.step(random_actions(env, 2), active=active)
    busy.set_state(before)
    for key, value in busy.step(random_actions(env, 2)).obs.items():
        np.testing.assert_array_equal(value[active], result.obs[key][active], err_msg=key)
    np.testing.assert_array_equal(result.steps, [0, 2, 0])
    after = env.get_state()
    for key in before:
        np.testing.assert_array_equal(before[key][~active], after[key][~active], err_msg=key)
    for key, value in result.obs.items():
        np.testing.assert_array_equal(value[~active], start.obs[key][~active])
    assert not np.array_equal(before["qpos"][active], after["qpos"][active])
    env.close(), busy.close()


def check_exact_resume(make):
    env, other = make(3, history=2), make(3, history=2)
    env.reset(7)
    before = env.step(random_actions(env, 3))
    state = env.get_state()
    actions = random_actions(env, 30, seed=8, scale=1.0)
    first = env.step(actions)
    other.reset(99)
    other.step(random_actions(env, 2, seed=9))
    assert_same(other.set_state(state), before.obs)
    again = other.step(actions)
    assert_same(first.obs, again.obs)
    np.testing.assert_array_equal(first.rewards, again.rewards)
    assert_same(env.reset(), other.reset())
    env.close(), other.close()


def check_bad_input(make):
    env = make(2)
    good = random_actions(env, 1)
    bad = good.copy()
    bad[1, 0, 0] = np.nan
    for actions, message in (
        (bad, "environment 1 are not finite"),
        (good[:, 0], r"must be \[2, Ta,"),
        (good[:1], r"must be \[2, Ta,"),
        (good[:, :0], r"must be \[2, Ta,"),
    ):
        with pytest.raises(GenpolicyError, match=message):
            env.step(actions)
    with pytest.raises(GenpolicyError, match="does not fit 2"):
        env.set_state({})
    with pytest.raises(GenpolicyError, match="negative"):
        env.reset(-1)
    env.close()
