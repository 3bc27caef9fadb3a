"""Can, Square and Transport are robosuite's: observations, success, initial states."""

import functools

import genpolicy_sim
import numpy as np
import pytest
from genpolicy_sim import can, square, transport
from genpolicy_sim.osc import Goal
from robosuite_parity import BEFORE_CONTACT, Pair, assert_parity, random_walk
from scipy.stats import ks_2samp
from vec_env_conformance import check_vec_env

from genpolicy.spec import TaskSpec

TASKS = [can.CanSim, square.SquareSim, transport.TransportSim]
PEG = np.array([0.23, 0.1, 0.85])  # m
PLACES = {  # m, corners of where the object shall be
    can.CanSim: (can.GOAL_LOW, can.GOAL_HIGH),
    square.SquareSim: (PEG - square.PEG_REACH, PEG + np.array([0.03, 0.03, 0.02])),
}
STARTS, PLACES_DRAWN = 300, 4000
# rad, m or of a quaternion. Contact amplifies rounding errors: joints that begin 1e-9 rad/s faster
# end up to 0.03 elsewhere.
THROUGH_GRASP = 0.1
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
        assert_parity(*pair.reset())
        for action in random_walk(rng, pair.spec.action.dim, 40):
            ours, theirs = pair.step(action)
            if pair.robot_touches_something():
                break
            arms = 9 * kind.num_arms
            assert_parity(ours[:arms], theirs[:arms])
            # The hammer falls and rocks in its bin: contact, from the first step on.
            loose = kind is transport.TransportSim
            assert_parity(ours[arms:], theirs[arms:], 1e-3 if loose else BEFORE_CONTACT)
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
    """States ``[count, nq]`` of which some are successes."""
    sim = kind(1, 1)
    qpos = sim.initial_qpos(sim.draw(rng, count))
    if kind is transport.TransportSim:
        put_into_bins(sim.model, qpos, rng)
        return qpos
    # The object about its place; in half of them the gripper a few centimetres above it.
    thing, (low, high) = place_of(sim.model, qpos, f"{kind.object_name}_joint0"), PLACES[kind]
    spread = rng.uniform(-0.7, 0.7, (count, 3))
    thing[:] = (low + high) / 2 + spread * (high - low)
    held = np.arange(0, count, 2)
    above = thing[held] + [0, 0, 0.045] + 0.015 * spread[held]
    qpos[held, :9] = reaching(kind, above)
    return qpos


def reaching(kind, where):
    """Postures ``[n, 9]`` with the open gripper about ``where [n, 3]``."""
    sim = kind(len(where))
    sim.start(np.arange(len(where)), sim.draw(np.random.default_rng(0), len(where)))
    for height in (0.2, 0.0):
        over = where + np.array([0.0, 0.0, height])
        sim.set_goal(Goal(over, sim.report.eef_rot.copy(), np.full(len(where), -1.0)))
        sim.substep(400)
    return sim.report.qpos[:, :9].copy()


def put_into_bins(model, qpos, rng):
    """Put hammer and trash on the floors of their bins, beside or just above."""
    for thing, target in (("payload", "transport_target_bin"), ("trash", "transport_trash_bin")):
        place, inside = (place_of(model, qpos, f"{name}_joint0") for name in (thing, target))
        offset = rng.uniform(-1, 1, (len(qpos), 3)) * [0.1, 0.1, 0.015]
        place[:] = inside + offset + [0, 0, model.geom(f"{target}_base").pos[2] + 0.03]


def place_of(model, qpos, joint):
    """A view ``[n, 3]`` of where a free joint is in ``qpos [n, nq]``."""
    at = model.joint(joint).qposadr[0]
    return qpos[:, at : at + 3]


@per_task
def test_initial_states_are_distributed_as_robosuites(kind):
    sim, env = kind(1, 1), kind.robosuite_env(seed=0)
    ours = sim.initial_qpos(sim.draw(np.random.default_rng(0), STARTS))
    theirs = np.zeros_like(ours)
    for row in theirs:
        env.reset()
        row[:] = env.sim.data.qpos
    for a, b in zip(ours.T, theirs.T, strict=True):
        if np.ptp(b) > 1e-9:
            assert ks_2samp(a, b).pvalue > 1e-3
            np.testing.assert_allclose(a.std(), b.std(), rtol=0.3)
        else:
            np.testing.assert_allclose(a, b, atol=1e-9)
    # What goes together: the lid with its bin, the parts of a quaternion, ...
    varied = np.ptp(theirs, axis=0) > 1e-9
    np.testing.assert_allclose(*(np.corrcoef(x[:, varied].T) for x in (ours, theirs)), atol=0.5)


def test_cans_keep_off_the_middle_for_objects_that_are_gone():
    places = can.free_places(np.random.default_rng(0), PLACES_DRAWN, can.scene().radii)
    gap = np.linalg.norm(places[:, :-1] - places[:, -1:], axis=2)
    assert (gap > can.scene().radii[:-1] + can.scene().radii[-1]).all()
    alone = can.free_places(np.random.default_rng(0), PLACES_DRAWN, can.scene().radii[-1:])[:, 0]
    assert ks_2samp(np.abs(places[:, -1, 0]), np.abs(alone[:, 0])).pvalue < 0.05


def test_a_can_in_its_compartment_is_a_success_in_both():
    pair = Pair(can.CanSim, seed=1)
    ours, theirs = pair.reset()
    goal, won = (can.GOAL_LOW + can.GOAL_HIGH) / 2, 0
    touched = False
    for action in carry(pair, goal):
        ours, theirs = pair.step(action)
        touched |= pair.robot_touches_something()
        assert_parity(ours, theirs, THROUGH_GRASP if touched else BEFORE_CONTACT)
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


@pytest.mark.parametrize("task", ["can", "transport"])
def test_oracle_backend_runs_the_same_task_and_resumes_exactly(task):
    options = {"num_envs": 1, "dtype": np.float64}
    batch = genpolicy_sim.make(task, **options)
    oracle = genpolicy_sim.make(task, backend="robosuite", **options)
    try:
        assert_obs(batch.reset(3), oracle.reset(3))
        actions = random_walk(np.random.default_rng(0), batch.spec.action.dim, 6)[None]
        assert_obs(batch.step(actions).obs, oracle.step(actions).obs)
        state = oracle.get_state()
        expected = oracle.step(actions).obs
        oracle.reset(8)
        oracle.set_state(state)
        assert_obs(oracle.step(actions).obs, expected, 0.0)
    finally:
        oracle.close()


def assert_obs(ours, theirs, limit=BEFORE_CONTACT):
    for key, value in ours.items():
        np.testing.assert_allclose(value, theirs[key], rtol=0, atol=limit, err_msg=key)
