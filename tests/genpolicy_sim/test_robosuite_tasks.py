"""Can is robosuite's: observations, success, where episodes start; and a VecEnv."""

import functools

import genpolicy_sim
import numpy as np
import pytest
from genpolicy_sim import can
from robosuite_parity import Pair, assert_parity, random_walk
from scipy.stats import ks_2samp
from vec_env_conformance import check_vec_env

from genpolicy.spec import TaskSpec

TASKS = [can.CanSim]
PLACES = {can.CanSim: (can.GOAL_LOW, can.GOAL_HIGH)}  # m, where the object shall be
DRAWS = 4000
THROUGH_GRASP = 1e-2  # rad, m or of a quaternion: contact amplifies rounding errors
per_task = pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.name)


@per_task
def test_is_a_vec_env(kind):
    check_vec_env(functools.partial(genpolicy_sim.make, kind.name))


@per_task
def test_spec_survives_json_and_has_the_dimensions_of_robomimics_data(kind):
    spec = kind.task_spec()
    dims = {"can": (23, 7, 300), "square": (23, 7, 400), "transport": (59, 14, 800)}
    assert (spec.obs_dim, spec.action.dim, spec.max_episode_steps) == dims[kind.name]
    assert TaskSpec.from_dict(spec.to_dict()) == spec
    assert kind.task_spec(50).max_episode_steps == 50


@per_task
def test_observations_are_robosuites_before_contact(kind):
    pair, rng = Pair(kind), np.random.default_rng(0)
    for _ in range(2):
        assert_parity(*pair.reset(), limit=1e-9)
        for action in random_walk(rng, pair.spec.action.dim, 60):
            ours, theirs = pair.step(action)
            if pair.gripper_touches_something():
                break
            assert_parity(ours, theirs)
            assert pair.sim.success()[0] == pair.env._check_success()


@per_task
def test_success_is_robosuites_in_any_state(kind):
    pair, count = Pair(kind), 300
    pair.reset()
    qpos = near_success(kind, np.random.default_rng(1), count)
    sim = kind(count)
    sim.start_at(np.arange(count), qpos)
    expected = []
    for row in qpos:
        pair.env.sim.data.qpos[:] = row
        pair.env.sim.forward()
        expected.append(pair.env._check_success())
    assert 20 < sum(expected) < count - 20
    np.testing.assert_array_equal(sim.success(), expected)
    reward = sim.outcome()
    np.testing.assert_array_equal(reward.reward, np.array(expected, np.float64))
    np.testing.assert_array_equal(reward.terminated, expected)


def near_success(kind, rng, count):
    """States ``[count, nq]`` with the object about its place, or (a third) about the gripper."""
    sim, (low, high) = kind(1, 1), PLACES[kind]
    qpos = sim.initial_qpos(sim.draw(rng, count))
    thing = qpos[:, sim.model.joint(f"{kind.object_name}_joint0").qposadr[0] :][:, :3]
    spread = rng.uniform(-0.7, 0.7, (count, 3))
    thing[:] = (low + high) / 2 + spread * (high - low)
    held = np.arange(count) % 3 == 0
    thing[held] = gripper_of(sim, qpos[held]) + 0.1 * spread[held]
    return qpos


def gripper_of(sim, qpos):
    many = type(sim)(len(qpos))
    many.start_at(np.arange(len(qpos)), qpos)
    return many.report.eef_pos.copy()


@per_task
def test_initial_states_are_distributed_as_robosuites(kind):
    sim, sampler = kind(1, 1), kind.robosuite_env(seed=0).placement_initializer
    ours = sim.initial_qpos(sim.draw(np.random.default_rng(0), DRAWS))
    theirs = [sampler.sample() for _ in range(DRAWS)]
    noise = ours[:, :7] - kind.scene().rest_qpos
    np.testing.assert_allclose(noise.std(axis=0), 0.02, rtol=0.06)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=1.5e-3)
    at = sim.model.joint(f"{kind.object_name}_joint0").qposadr[0]
    pose = np.array([np.concatenate(row[kind.object_name][:2]) for row in theirs])
    assert_same_distribution(ours[:, at : at + 7], pose)


def assert_same_distribution(ours, theirs):
    """Poses ``[n, 7]``: each column, and the distance from the mean."""
    np.testing.assert_allclose(ours.min(axis=0), theirs.min(axis=0), atol=0.02)
    np.testing.assert_allclose(ours.max(axis=0), theirs.max(axis=0), atol=0.02)
    middle = theirs[:, :2].mean(axis=0)
    columns = [*zip(ours.T, theirs.T, strict=True)]
    columns.append(tuple(np.linalg.norm(pose[:, :2] - middle, axis=1) for pose in (ours, theirs)))
    for a, b in columns:
        if np.ptp(b) > 1e-9:
            assert ks_2samp(a, b).pvalue > 1e-3
        else:
            np.testing.assert_allclose(a, b, atol=1e-9)


def test_cans_keep_off_the_middle_for_objects_that_are_gone():
    places = can.free_places(np.random.default_rng(0), DRAWS, can.scene().radii)
    gap = np.linalg.norm(places[:, :-1] - places[:, -1:], axis=2)
    assert (gap > can.scene().radii[:-1] + can.scene().radii[-1]).all()
    alone = can.free_places(np.random.default_rng(0), DRAWS, can.scene().radii[-1:])[:, 0]
    assert ks_2samp(np.abs(places[:, -1, 0]), np.abs(alone[:, 0])).pvalue < 0.05


def test_a_can_in_its_compartment_is_a_success_in_both():
    pair = Pair(can.CanSim, seed=1)
    ours, theirs = pair.reset()
    goal, won = (can.GOAL_LOW + can.GOAL_HIGH) / 2, 0
    touched = False
    for action in carry(pair, goal):
        ours, theirs = pair.step(action)
        touched |= pair.gripper_touches_something()
        assert_parity(ours, theirs, THROUGH_GRASP if touched else 1e-6)
        assert pair.sim.success()[0] == pair.env._check_success() == (pair.reward == 1.0)
        won += pair.sim.success()[0]
    assert touched and won > 0


def carry(pair, goal):
    """Actions that take the object to above ``goal`` and let it fall there."""
    thing, up = pair.observations()[1][16:19].copy(), np.array([0, 0, 0.1])
    phases = (
        (thing + up, -1),
        (thing, -1),
        (thing, 1),
        (thing + 3 * up, 1),
        (goal + 3 * up, 1),
        (goal + 0.2 * up, 1),
        (goal + 0.2 * up, -1),
        (goal + 3 * up, -1),
    )
    for target, hand in phases:
        for _ in range(25):
            eef = pair.observations()[1][:3]
            yield np.r_[np.clip((target - eef) / 0.05, -1, 1), 0, 0, 0, hand]
