"""GAE and reward scaling against brute force."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.finetune.gae import RewardScaler, gae


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.8, 1.0), st.floats(0.0, 1.0))
def test_gae_equals_the_sum_of_discounted_td_errors(seed, gamma, lam):
    rng = np.random.default_rng(seed)
    T, E = 7, 3
    reward, value, final_value = rng.normal(size=(3, T, E)).astype(np.float32)
    terminated, truncated = rng.random((2, T, E)) < 0.2
    advantage, returns = gae(reward, value, final_value, terminated, truncated, gamma, lam)
    for e in range(E):
        for t in range(T):
            total, weight = 0.0, 1.0
            for k in range(t, T):
                bootstrap = 0.0 if terminated[k, e] else final_value[k, e]
                total += weight * (reward[k, e] + gamma * bootstrap - value[k, e])
                if terminated[k, e] or truncated[k, e]:
                    break
                weight *= gamma * lam
            np.testing.assert_allclose(advantage[t, e], total, atol=1e-4)
    np.testing.assert_allclose(returns, advantage + value)


def test_a_time_limit_bootstraps_and_an_end_does_not():
    zeros, ones, no = np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1), dtype=bool)
    truncated, _ = gae(zeros, zeros, ones, no, ~no, 0.9, 0.95)
    terminated, _ = gae(zeros, zeros, ones, ~no, no, 0.9, 0.95)
    assert truncated[0, 0] == np.float64(0.9) and terminated[0, 0] == 0


def test_scaler_converges_to_the_std_of_the_discounted_return():
    rng = np.random.default_rng(0)
    scaler, gamma, history = RewardScaler(4, 0.9), 0.9, []
    running = np.zeros(4)
    for _ in range(50):
        reward = rng.normal(1.0, 2.0, (20, 4))
        done = rng.random((20, 4)) < 0.1
        scaled = scaler(reward, done)
        for t in range(20):
            running = running * gamma + reward[t]
            history.append(running)
            running = np.where(done[t], 0, running)
    np.testing.assert_allclose(scaler.std, np.std(history), rtol=1e-9)
    np.testing.assert_allclose(scaled, reward / scaler.std, rtol=1e-5)


def test_scaler_never_blows_up_a_reward_that_was_not_seen_yet():
    scaler = RewardScaler(2, 0.99)
    scaler(np.zeros((10, 2)), np.zeros((10, 2), dtype=bool))
    assert scaler.std == 0.1
