"""Batched Lift is robosuite's Lift: whole expert episodes side by side."""

import genpolicy_sim
import numpy as np
import pytest
from genpolicy_sim import lift

from genpolicy.spec import GenpolicyError

BEFORE_CONTACT, THROUGH_GRASP = 1e-6, 5e-3  # rad or m


def observation(obs):
    keys = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object-state")
    return np.concatenate([obs[key] for key in keys])


@pytest.fixture
def reference():
    # One for each test: its resets draw from a stream, and which test ran before must not matter.
    return lift.robosuite_env(seed=lift.MODEL_SEED)


def watch_contact(env):
    """A list whose one entry says whether gripper and cube met in any substep so far."""
    met, pre_action = [False], env._pre_action

    def watching(action, policy_step=False):
        met[0] |= env.check_contact(env.robots[0].gripper["right"], env.cube)
        pre_action(action, policy_step)

    env._pre_action = watching
    return met


@pytest.mark.parametrize("episode", range(3))
def test_expert_episode_against_robosuite(reference, episode):
    for _ in range(episode + 1):  # another start in every episode
        expected = reference.reset()
    sim, seen = lift.LiftSim(1), np.zeros((1, 19))
    sim.start_at(np.arange(1), np.array(reference.sim.data.qpos)[None])
    sim.observe(seen)
    np.testing.assert_allclose(seen[0], observation(expected), rtol=0, atol=1e-9)

    expert = genpolicy_sim.expert("lift", 1, seed=episode, noise=0.3)
    # A knock between two looks at the scene ends the comparison by the strict limit, too.
    met = watch_contact(reference)
    for _ in range(100):
        obs = {
            "robot0_eef_pos": expected["robot0_eef_pos"][None, None],
            "robot0_eef_quat": expected["robot0_eef_quat"][None, None],
            "object": expected["object-state"][None, None],
        }
        action = expert.act(obs)[:, 0]
        expected, reward, _, _ = reference.step(action[0])
        sim.control_step(action)
        limit = THROUGH_GRASP if met[0] else BEFORE_CONTACT
        sim.observe(seen)
        np.testing.assert_allclose(sim.report.qpos[0], reference.sim.data.qpos, rtol=0, atol=limit)
        np.testing.assert_allclose(seen[0], observation(expected), rtol=0, atol=limit)
        assert sim.success()[0] == (reward == 1.0) == reference._check_success()
        if reward:
            break
    assert met[0] and reward == 1.0


def test_model_is_the_same_in_every_process(reference):
    # robosuite draws the cube's size when it builds the scene
    np.testing.assert_array_equal(reference.cube.size, lift.scene().cube_half_size)
    assert reference.sim.model.opt.timestep * lift.SUBSTEPS == pytest.approx(0.05)


def test_oracle_backend_runs_the_same_task():
    options = {"num_envs": 2, "dtype": np.float64, "max_episode_steps": 12}
    batch = genpolicy_sim.make("lift", **options)
    oracle = genpolicy_sim.make("lift", backend="robosuite", **options)
    try:
        a, b = batch.reset(3), oracle.reset(3)
        for key in a:
            np.testing.assert_allclose(a[key], b[key], rtol=0, atol=1e-9)
        actions = np.random.default_rng(0).uniform(-1, 1, (4, 2, 5, 7))
        for chunk in actions:  # the third chunk is cut short by the time limit
            ours, theirs = batch.step(chunk), oracle.step(chunk)
            np.testing.assert_array_equal(ours.steps, theirs.steps)
            np.testing.assert_array_equal(ours.truncated, theirs.truncated)
            for key in a:
                np.testing.assert_allclose(ours.obs[key], theirs.obs[key], rtol=0, atol=1e-6)
                np.testing.assert_allclose(
                    ours.final_obs[key], theirs.final_obs[key], rtol=0, atol=1e-6
                )
        state = oracle.get_state()
        first = oracle.step(actions[0])
        oracle.reset(8)
        oracle.set_state(state)
        again = oracle.step(actions[0])
        for key in a:
            np.testing.assert_array_equal(first.obs[key], again.obs[key])
        oracle.sim._workers._processes[1][0].kill()
        with pytest.raises(GenpolicyError, match="worker process died"):
            oracle.step(actions[0])
    finally:
        oracle.close()
    assert not oracle.sim._workers._processes
