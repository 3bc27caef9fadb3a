"""Push-T: the protocol, coverage against closed forms, the score, pushes, the expert."""

import functools

import genpolicy_sim
import numpy as np
import pytest
from genpolicy_sim import push_t
from genpolicy_sim.experts import pushing
from hypothesis import given
from hypothesis import strategies as st
from vec_env_conformance import check_vec_env

from genpolicy.spec import TaskSpec

make = functools.partial(genpolicy_sim.make, "push_t")
PARTS = np.array([push_t.BAR, push_t.STEM])
AREA = 0.12 * 0.03 + 0.03 * 0.09
coordinates = st.floats(-0.2, 0.2)
angles = st.floats(-4.0, 4.0)
poses = st.tuples(coordinates, coordinates, angles).map(np.array)


def coverage(pose, goal=(0.0, 0.0, 0.0)):
    return push_t.coverage(np.array(pose, float), np.array(goal, float), PARTS)


def test_push_t_is_a_vec_env():
    check_vec_env(make)


def test_spec_survives_json():
    spec = make(1).spec
    assert spec.obs_dim == 6 and spec.score == "return" and spec.control_hz == 10.0
    assert TaskSpec.from_dict(spec.to_dict()) == spec
    assert spec.control_hz == pytest.approx(1 / (push_t.SUBSTEPS * push_t.scene().opt.timestep))


def test_scene_and_rules_agree_on_the_block():
    model = push_t.scene()
    for name, part in (("bar", push_t.BAR), ("stem", push_t.STEM)):
        pos, size = model.geom(name).pos[:2], model.geom(name).size[:2]
        np.testing.assert_allclose([*(pos - size), *(pos + size)], part, atol=1e-9)
    assert model.geom("disk").size[0] == push_t.PUSHER_RADIUS
    np.testing.assert_allclose(model.body("goal").pos[:2], push_t.GOAL[:2])
    yaw = 2 * np.arctan2(model.body("goal").quat[3], model.body("goal").quat[0])
    assert yaw == pytest.approx(push_t.GOAL[2])
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in PARTS]
    centres = [[(x0 + x1) / 2, (y0 + y1) / 2] for x0, y0, x1, y1 in PARTS]
    np.testing.assert_allclose(np.average(centres, axis=0, weights=areas), 0.0, atol=1e-12)
    gyration = sum(
        a * (((x1 - x0) ** 2 + (y1 - y0) ** 2) / 12 + cy**2)
        for a, (x0, y0, x1, y1), (_, cy) in zip(areas, PARTS, centres, strict=True)
    ) / sum(areas)
    block = model.body("block")
    assert block.inertia[2] / block.mass[0] == pytest.approx(gyration, rel=1e-6)
    damping = [model.joint(f"block_{name}").damping[0] for name in ("x", "y", "yaw")]
    assert damping[2] / damping[0] == pytest.approx(gyration, rel=1e-6)
    np.testing.assert_allclose(pushing.GYRATION, gyration, rtol=1e-4)


@pytest.mark.parametrize(
    ("pose", "expected"),
    [
        ((0.0, 0.0, 0.0), 1.0),
        ((0.0, 0.0, 2 * np.pi), 1.0),
        ((0.121, 0.0, 0.0), 0.0),
        ((0.0, -0.121, 0.0), 0.0),
        ((0.2, 0.2, 1.0), 0.0),
        # Sideways by d < 0.03: both parts lose d; the stem and the bar do not meet.
        ((0.02, 0.0, 0.0), 1 - 0.02 * (0.03 + 0.09) / AREA),
        # Upward by d < 0.03: the bar loses d; its moved stem gains what it covers of the bar.
        ((0.0, 0.02, 0.0), 1 - 0.02 * 0.12 / AREA),
        # Downward by the height of the bar: stem on stem 0.06 high, bar on stem 0.03 high.
        ((0.0, -0.03, 0.0), (0.03 * 0.06 + 0.03 * 0.03) / AREA),
    ],
)
def test_coverage_in_closed_form(pose, expected):
    assert coverage(pose) == pytest.approx(expected, abs=1e-12)


def test_coverage_against_counting_points():
    rng = np.random.default_rng(0)
    grid = np.linspace(-0.1, 0.1, 401)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    on_goal = _inside(points, np.zeros(3))
    for _ in range(8):
        pose = rng.uniform(-1, 1, 3) * [0.05, 0.05, np.pi]
        counted = (on_goal & _inside(points, pose)).sum() / on_goal.sum()
        assert coverage(pose) == pytest.approx(counted, abs=8e-3)


def _inside(points, pose):
    return push_t.distance_to_block(points, np.tile(pose, (len(points), 1))) == 0


@given(poses, poses)
def test_coverage_is_a_share_and_symmetric(a, b):
    value = coverage(a, b)
    assert 0.0 <= value <= 1.0
    assert coverage(b, a) == pytest.approx(value, abs=1e-9)


@given(poses, poses, poses)
def test_coverage_does_not_depend_on_the_frame(a, b, frame):
    moved = [_moved(frame, pose) for pose in (a, b)]
    assert coverage(*moved) == pytest.approx(coverage(a, b), abs=1e-9)


@given(coordinates, coordinates, angles)
def test_the_t_is_its_own_mirror_image(x, y, yaw):
    assert coverage((x, y, yaw)) == pytest.approx(coverage((-x, y, -yaw)), abs=1e-9)


def _moved(frame, pose):
    cos, sin = np.cos(frame[2]), np.sin(frame[2])
    x, y = frame[0] + cos * pose[0] - sin * pose[1], frame[1] + sin * pose[0] + cos * pose[1]
    return np.array([x, y, frame[2] + pose[2]])


def test_the_return_is_the_best_score():
    env = make(8, max_episode_steps=60)
    rng, best, total = np.random.default_rng(0), np.zeros(8), np.zeros(8)
    obs, target = env.reset(0), np.zeros((8, 1, 2))
    for t in range(60):
        if t % 6 == 0:  # through the block, from where the pusher is
            target = obs["block"][:, -1:, :2] / push_t.WORKSPACE + rng.normal(0, 0.1, (8, 1, 2))
        result = env.step(target)
        assert (result.reward >= 0).all()
        obs, seen = result.obs, result.final_obs["block"][:, -1].astype(float)
        yaw = np.arctan2(seen[:, 3], seen[:, 2])
        covered = [
            coverage((x, y, a), push_t.GOAL) for x, y, a in zip(*seen.T[:2], yaw, strict=True)
        ]
        best, total = (
            np.maximum(best, np.minimum(np.array(covered) / 0.95, 1.0)),
            total + result.reward,
        )
    assert result.done.all()
    assert best.max() > 0.1
    np.testing.assert_allclose(total, best, atol=1e-4)


def test_success_is_95_percent_of_the_goal():
    env = make(2)
    state = env.get_state()
    state["qpos"][:] = [*push_t.GOAL, -0.2, -0.2]
    state["qpos"][1, 0] += 0.01
    state["qvel"][:] = state["memo"][:] = 0.0
    env.set_state(state)
    result = env.step(np.full((2, 1, 2), -0.2 / push_t.WORKSPACE))
    np.testing.assert_array_equal(result.success, [True, False])
    np.testing.assert_array_equal(result.terminated, [True, False])
    assert result.reward[0] == 1.0 and 0.5 < result.reward[1] < 1.0


def test_starts_are_free_and_everywhere():
    draws = push_t.draw(np.random.default_rng(0), 2000)
    gap = push_t.distance_to_block(draws[:, 3:], draws[:, :3]) - push_t.PUSHER_RADIUS
    assert gap.min() >= push_t.CLEARANCE
    assert (np.abs(draws) <= [0.15, 0.15, np.pi, 0.2, 0.2]).all()
    assert (np.abs(draws).max(axis=0) > [0.145, 0.145, 3.1, 0.195, 0.195]).all()


@pytest.mark.parametrize("contact", range(0, pushing.NUM_CONTACTS, 5))
def test_the_scene_moves_as_the_plan_says(contact):
    """A slow push of 3 cm along a contact's normal, in the closed form and in MuJoCo."""
    row, pose = pushing.CONTACTS[contact], np.array([0.02, -0.03, 0.4])
    env = make(1, max_episode_steps=1000)
    state = env.get_state()
    state["qpos"][0] = [*pose, *pushing.pusher_at(pose, row, 0.0)]
    state["qvel"][:] = 0.0
    env.set_state(state)
    for distance in np.append(np.linspace(0.0, 0.03, 31), [0.03] * 12):
        there = np.array(pushing.pushed(pose, row, distance))
        target = np.array(pushing.pusher_at(there, row, 0.0)) / push_t.WORKSPACE
        env.step(target[None, None])
    x, y, yaw = env.get_state()["qpos"][0, :3]
    np.testing.assert_allclose([x, y], there[:2], atol=2e-4)
    assert yaw == pytest.approx(there[2], abs=1e-3)
    assert np.hypot(x - pose[0], y - pose[1]) + abs(yaw - pose[2]) > 0.01


@given(poses, st.integers(0, pushing.NUM_CONTACTS - 1), st.floats(0, 0.2), st.floats(0, 0.2))
def test_two_halves_of_a_push_are_the_push(pose, contact, a, b):
    row = pushing.CONTACTS[contact]
    halves = pushing.pushed(np.array(pushing.pushed(pose, row, a)), row, b)
    np.testing.assert_allclose(halves, pushing.pushed(pose, row, a + b), atol=1e-9)


def run_expert(n, seed):
    env, expert = make(n), genpolicy_sim.expert("push_t", n, seed=seed)
    obs, active, score = env.reset(seed), np.ones(n, bool), np.zeros(n)
    actions = []
    while active.any():
        actions.append(expert.act(obs))
        result = env.step(actions[-1], active)
        obs, score = result.obs, score + result.reward
        active &= ~result.done
    return score, np.concatenate(actions, axis=1)


def test_expert_scores_at_least_095_and_repeats_itself():
    score, actions = run_expert(24, seed=0)
    assert score.mean() >= 0.95
    assert (np.abs(actions) <= 1).all()
    again = genpolicy_sim.expert("push_t", 24, seed=0).act(make(24).reset(0))
    np.testing.assert_array_equal(again[:, 0], actions[:, 0])


def test_expert_goes_different_ways_from_one_state():
    env = make(32)
    state = env.get_state()
    state["qpos"][:] = [0.05, 0.1, 2.0, -0.1, -0.15]
    state["observation"][:] = [-0.1, -0.15, 0.05, 0.1, np.cos(2.0), np.sin(2.0)]
    state["history"][:] = state["observation"][:, None]
    obs = env.set_state(state)
    expert = genpolicy_sim.expert("push_t", 32, seed=0)
    expert.act(obs)
    assert len(np.unique(expert._minds.pair[:, 0])) >= 3
