"""Batched Lift: the protocol, its own options, the expert."""

import functools

import genpolicy_sim
import numpy as np
import pytest
from genpolicy_sim.experts.lift import tilt
from genpolicy_sim.lift import LiftSim, draw, initial_qpos, scene
from genpolicy_sim.osc import DeltaScale, Goal, delta_to_goal, rotation_matrix
from vec_env_conformance import check_exact_resume, check_vec_env, random_actions

from genpolicy.spec import GenpolicyError, TaskSpec

make = functools.partial(genpolicy_sim.make, "lift")


def run_expert(env, seed, **options):
    """One episode per environment: success, length, actions ``[T, N, 7]``."""
    expert = genpolicy_sim.expert("lift", env.num_envs, seed=seed, **options)
    obs, active = env.reset(seed), np.ones(env.num_envs, np.bool_)
    success, length = np.zeros(env.num_envs, np.bool_), np.zeros(env.num_envs, np.int64)
    actions = []
    while active.any():
        actions.append(expert.act(obs)[:, 0])
        result = env.step(actions[-1][:, None], active)
        obs = result.obs
        success |= result.success
        length += result.steps
        active &= ~result.done
    return success, length, np.stack(actions)


def test_lift_is_a_vec_env():
    check_vec_env(make)


def test_spec_survives_json_and_counts_19_dimensions():
    spec = make(1).spec
    assert spec.obs_dim == 19 and spec.action.dim == 7 and spec.control_hz == 20.0
    assert TaskSpec.from_dict(spec.to_dict()) == spec


def test_threads_do_not_change_results():
    one, two = make(5, num_threads=1), make(5, num_threads=2)
    actions = random_actions(one, 12)
    one.reset(0), two.reset(0)
    a, b = one.step(actions), two.step(actions)
    for key in a.obs:
        np.testing.assert_array_equal(a.obs[key], b.obs[key])


def test_expert_lifts_at_least_98_of_100_within_the_time_limit():
    success, length, _ = run_expert(make(100), seed=0, noise=0.3)
    assert success.sum() >= 98
    assert length.max() <= 100


def test_expert_goes_left_and_right():
    env = make(40)
    obs = env.reset(0)
    expert = genpolicy_sim.expert("lift", 40, seed=0, noise=0.0)
    sideways = expert.act(obs)[:, 0, 1]
    assert 8 < (sideways > 0.5).sum() < 32 and (np.abs(sideways) > 0.5).all()


def test_success_terminates_pays_one_and_starts_anew():
    env, cube = make(8), slice(0, 3)
    expert = genpolicy_sim.expert("lift", 8, seed=1)
    obs = env.reset(1)
    for _ in range(100):
        result = env.step(np.repeat(expert.act(obs), 2, axis=1))
        obs = result.obs
        if result.terminated.any():
            break
    won = result.terminated
    assert won.any() and (result.success == won).all() and not result.truncated.any()
    np.testing.assert_array_equal(result.reward, won.astype(float))
    assert (result.rewards[won, result.steps[won] - 1] == 1.0).all()
    assert (result.final_obs["object"][won, 0, cube.start + 2] > 0.84).all()
    assert (result.obs["object"][won, 0, cube.start + 2] < 0.84).all()


def test_success_may_go_on():
    env = make(4, terminate_on_success=False, max_episode_steps=60)
    expert = genpolicy_sim.expert("lift", 4, seed=2, bimodal=False, noise=0.0)
    obs, total = env.reset(2), np.zeros(4)
    for _ in range(60):
        result = env.step(expert.act(obs))
        obs, total = result.obs, total + result.reward
        assert not result.terminated.any()
    assert result.truncated.all() and (total > 5).all()


def test_absolute_goals_in_single_substeps_are_the_training_dynamics():
    trained, robot = LiftSim(2), LiftSim(2, num_threads=1)
    draws = draw(np.random.default_rng(3), 2)
    for sim in (trained, robot):
        sim.start(np.arange(2), draws)
    rng = np.random.default_rng(4)
    for _ in range(10):
        action = rng.uniform(-1, 1, (2, 7))
        trained.control_step(action)
        pose = robot.report.eef_pos, robot.report.eef_rot
        robot.set_goal(delta_to_goal(action, *pose, robot.goal.gripper, DeltaScale()))
        for _ in range(25):
            robot.substep(1)
    for name, value in trained.get_state().items():
        np.testing.assert_allclose(value, robot.get_state()[name], atol=1e-12, err_msg=name)


def test_goal_holds_the_pose():
    sim = LiftSim(1)
    sim.start(np.arange(1), np.zeros((1, 10)))
    pos, rot = sim.report.eef_pos.copy(), sim.report.eef_rot.copy()
    target = pos + np.array([0.03, -0.04, 0.02])
    sim.set_goal(Goal(target, rot, np.array([-1.0])))
    sim.substep(600)
    np.testing.assert_allclose(sim.report.eef_pos, target, atol=1e-3)
    np.testing.assert_allclose(sim.report.eef_rot, rot, atol=5e-3)
    assert sim.report.qpos[0, 7] > 0.035  # -1 opens


def test_initial_states_are_distributed_as_described():
    qpos = initial_qpos(draw(np.random.default_rng(0), 4000), (0.03, 0.02))
    noise = qpos[:, :7] - scene().rest_qpos
    np.testing.assert_allclose(noise.std(axis=0), 0.02, rtol=0.06)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=1.5e-3)
    assert (np.abs(qpos[:, 9:11]) <= [0.03, 0.02]).all()
    np.testing.assert_allclose(np.abs(qpos[:, 9:11]).mean(axis=0), [0.015, 0.01], rtol=0.06)
    yaw = 2 * np.arctan2(qpos[:, 15], qpos[:, 12])
    assert yaw.min() < 0.02 and yaw.max() > 2 * np.pi - 0.02
    np.testing.assert_allclose(np.linalg.norm(qpos[:, 12:16], axis=1), 1.0)


def test_actions_are_clipped():
    env = make(2)
    action = random_actions(env, 2, scale=1.0)
    action[:, :, :3] = 5.0
    env.reset(0)
    wild = env.step(action)
    env.reset(0)
    tame = env.step(np.clip(action, -1, 1))
    np.testing.assert_array_equal(wild.obs["object"], tame.obs["object"])


def test_double_precision_observations():
    env = make(1, dtype=np.float64)
    assert env.reset(0)["object"].dtype == np.float64
    check_exact_resume(functools.partial(make, dtype=np.float64))


def test_rotation_matrix_against_closed_forms():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 3))
    vectors[0] = 0.0
    R = rotation_matrix(vectors)
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    np.testing.assert_allclose((R @ vectors[:, :, None])[:, :, 0], vectors, atol=1e-12)
    trace = np.trace(R, axis1=1, axis2=2)
    np.testing.assert_allclose(trace, 1 + 2 * np.cos(np.linalg.norm(vectors, axis=1)), atol=1e-12)
    quarter = rotation_matrix(np.array([[0.0, 0.0, np.pi / 2]]))[0]
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)


def test_tilt_points_back_to_straight_down():
    small = np.array([[0.1, 0.0, 0.0], [0.0, -0.2, 0.0], [0.05, 0.05, -0.1]])
    half = np.linalg.norm(small, axis=1, keepdims=True) / 2
    vec = small / (2 * half) * np.sin(half)
    x, y, z = vec.T
    w = np.cos(half[:, 0])
    # quaternion of rotation ``small`` times (1, 0, 0, 0), both xyzw
    turned = np.stack([w, z, -y, -x], axis=1)
    np.testing.assert_allclose(tilt(turned), -small, rtol=0.02, atol=1e-3)
    np.testing.assert_allclose(tilt(-turned), -small, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lfit",), "'lfit' does not exist: choose one of .*lift"),
        (("lift", 0), "num_envs=0"),
    ],
)
def test_make_refuses(arguments, message):
    with pytest.raises(GenpolicyError, match=message):
        genpolicy_sim.make(*arguments)


def test_make_refuses_unknown_options():
    with pytest.raises(GenpolicyError, match="colour"):
        genpolicy_sim.make("lift", colour="red")
    with pytest.raises(GenpolicyError, match="backend='mjx'"):
        genpolicy_sim.make("lift", backend="mjx")
    with pytest.raises(GenpolicyError, match="no scripted expert"):
        genpolicy_sim.expert("hopper")
    assert "lift" in genpolicy_sim.tasks()
