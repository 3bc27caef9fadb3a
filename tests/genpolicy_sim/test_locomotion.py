"""Gymnasium's locomotion tasks against Gymnasium itself."""

import genpolicy_sim
import gymnasium
import numpy as np
import pytest
from genpolicy_sim import locomotion
from genpolicy_sim.batch_env import BatchEnv
from genpolicy_sim.compiled_sim import CompiledSim
from genpolicy_sim.locomotion_rules import sum_of_squares
from vec_env_conformance import check_vec_env

GYM = {
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "halfcheetah": "HalfCheetah-v5",
    "ant": "Ant-v5",
}
NUM_ENVS, STEPS = 8, 1000
# At least so many episodes end early in a comparison: terminations are compared, too.
MIN_TERMINATIONS = {"hopper": 200, "walker2d": 200, "halfcheetah": 0, "ant": 5}


def make(name, num_envs, constants=None, **options):
    """A task; ``constants`` differ from the task's own."""
    task = getattr(locomotion, f"{name}_task")()
    if constants:
        object.__setattr__(task, "constants", task.constants._replace(**constants))
    spec = locomotion.task_spec(name, name, task)
    return BatchEnv(CompiledSim(task, num_envs), spec, dtype=np.float64, **options)


def reset_like(gym_env, state, i):
    """Gymnasium's own state setter, as its reset calls it."""
    gym_env.reset()
    gym_env.unwrapped.data.qacc_warmstart[:] = 0.0
    gym_env.unwrapped.set_state(state["qpos"][i], state["qvel"][i])
    return gym_env.unwrapped._get_obs()


def largest_differences(name, steps, constants=None):
    """Of observations and rewards over random episodes; how many ended, all at the same time."""
    env = make(name, NUM_ENVS, constants)
    oracles = [gymnasium.make(GYM[name], max_episode_steps=None) for _ in range(NUM_ENVS)]
    rng = np.random.default_rng(0)
    obs, state = env.reset(0), env.get_state()
    obs_diff, reward_diff, ends = 0.0, 0.0, 0
    for i, oracle in enumerate(oracles):
        first = reset_like(oracle, state, i)
        obs_diff = max(obs_diff, np.abs(obs["observation"][i, 0] - first).max())
    for _ in range(steps):
        actions = rng.uniform(-1.0, 1.0, (NUM_ENVS, 1, env.spec.action.dim))
        result = env.step(actions)
        if result.done.any():
            state = env.get_state()
        for i, oracle in enumerate(oracles):
            expected, reward, terminated, _, _ = oracle.step(actions[i, 0])
            ours = result.final_obs["observation"][i, 0]
            obs_diff = max(obs_diff, np.abs(ours - expected).max())
            reward_diff = max(reward_diff, abs(result.reward[i] - reward))
            assert result.terminated[i] == terminated
            if result.done[i]:
                first = reset_like(oracle, state, i)
                obs_diff = max(obs_diff, np.abs(result.obs["observation"][i, 0] - first).max())
                ends += bool(terminated)
    env.close()
    return obs_diff, reward_diff, ends


@pytest.mark.parametrize("name", GYM)
def test_is_gymnasium_to_the_last_bit(name):
    obs_diff, reward_diff, terminations = largest_differences(name, STEPS)
    assert obs_diff == 0.0
    assert reward_diff == 0.0
    assert terminations >= MIN_TERMINATIONS[name]


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        ("hopper", "ctrl_cost"),
        ("hopper", "healthy_reward"),
        ("walker2d", "healthy_reward"),
        ("halfcheetah", "ctrl_cost"),
        ("halfcheetah", "dt"),
        ("ant", "ctrl_cost"),
        ("ant", "contact_cost"),
        ("ant", "healthy_reward"),
    ],
)
def test_parity_sees_a_millionth(name, constant):
    value = getattr(getattr(locomotion, f"{name}_task")().constants, constant)
    _, reward_diff, _ = largest_differences(name, 20, {constant: value + 1e-6})
    assert reward_diff > 1e-8


@pytest.mark.parametrize("name", GYM)
def test_is_a_vec_env(name):
    check_vec_env(lambda num_envs, **options: genpolicy_sim.make(name, num_envs, **options))


@pytest.mark.parametrize("name", GYM)
def test_initial_states_are_gymnasiums(name):
    """Quantiles of 400 starts each; a wrong scale or a wrong distribution is 10 standard errors."""
    task = getattr(locomotion, f"{name}_task")()
    ours = task.initial(task.draw(np.random.default_rng(1), 400))
    oracle = gymnasium.make(GYM[name]).unwrapped
    oracle.reset(seed=2)
    theirs = []
    for _ in range(400):
        oracle.reset_model()
        theirs.append((oracle.data.qpos.copy(), oracle.data.qvel.copy()))
    for mine, gym in zip(ours[:2], map(np.stack, zip(*theirs, strict=True)), strict=True):
        at = np.quantile(mine - mine.mean(0), [0.0, 0.1, 0.9, 1.0])
        expected = np.quantile(gym - gym.mean(0), [0.0, 0.1, 0.9, 1.0])
        np.testing.assert_allclose(at, expected, rtol=0.2)
        np.testing.assert_allclose(mine.mean(0), gym.mean(0), atol=6 * mine.std() / 20)


def test_sums_are_numpys():
    rng = np.random.default_rng(3)
    for n in (1, 6, 7, 8, 9, 16, 84, 128):
        values = rng.standard_normal(n)
        assert sum_of_squares(values, np.inf) == np.sum(np.square(values))
        clipped = np.sum(np.square(np.clip(values, -1.0, 1.0)))
        assert sum_of_squares(values, 1.0) == clipped
