"""Avoid: the protocol, the 24 ways, what ends an episode, the expert."""

import functools

import genpolicy_sim
import numpy as np
import pytest
from genpolicy_sim import avoid
from hypothesis import given
from hypothesis import strategies as st
from vec_env_conformance import check_vec_env

from genpolicy.spec import TaskSpec

make = functools.partial(genpolicy_sim.make, "avoid")


def drive(env, act, seed=0, steps=120):
    """One episode each: success, terminated, paths, returns."""
    obs, n = env.reset(seed), env.num_envs
    active, success, terminated = np.ones(n, bool), np.zeros(n, bool), np.zeros(n, bool)
    paths, returns = [[p] for p in obs["position"][:, -1]], np.zeros(n)
    for _ in range(steps):
        result = env.step(act(obs), active)
        obs = result.obs
        for i in np.flatnonzero(active):
            paths[i].append(result.final_obs["position"][i, -1])
        returns += result.reward
        success |= result.success
        terminated |= result.terminated
        active &= ~result.done
        if not active.any():
            break
    return success, terminated, [np.array(path) for path in paths], returns


def through(*x):
    """A path that crosses the rows at ``x``."""
    return np.array([[0.0, -0.28], *zip(x, avoid.ROW_Y, strict=True), [x[-1], 0.36]])


def test_avoid_is_a_vec_env():
    check_vec_env(make)


def test_spec_survives_json():
    spec = make(1).spec
    assert spec.obs_dim == 4 and spec.score == "success" and spec.control_hz == 20.0
    assert TaskSpec.from_dict(spec.to_dict()) == spec
    assert spec.control_hz == 1 / (avoid.SUBSTEPS * avoid.scene().opt.timestep)


def test_scene_and_rules_agree_on_the_obstacles():
    model = avoid.scene()
    rows = [i for i in range(model.ngeom) if model.geom(i).name.startswith("row")]
    shown = np.column_stack([model.geom_pos[rows, :2], model.geom_size[rows, 0]])
    np.testing.assert_allclose(shown, avoid.obstacles())
    assert model.geom("robot").size[0] == avoid.ROBOT_RADIUS
    assert model.geom("finish").pos[1] == avoid.FINISH_Y


def test_modes_number_the_24_combinations_of_gaps():
    gaps = [[-0.1, 0.1], [-0.15, 0.0, 0.15], [-0.2, -0.05, 0.05, 0.2]]
    combinations = [(i, j, k) for i in range(2) for j in range(3) for k in range(4)]
    paths = [through(gaps[0][i], gaps[1][j], gaps[2][k]) for i, j, k in combinations]
    np.testing.assert_array_equal(avoid.modes(paths), np.arange(24))
    np.testing.assert_array_equal(avoid.gaps(np.arange(24)), combinations)


def test_a_row_counts_where_it_is_crossed_for_the_last_time():
    left, right = through(-0.1, -0.15, -0.2), through(0.1, 0.15, 0.2)
    turned = np.concatenate([left[:2] + np.array([0, 0.01]), right])
    assert avoid.mode(turned) == avoid.mode(right) != avoid.mode(left)
    assert avoid.mode(left[:3]) == -1
    assert avoid.mode(left[::-1]) == -1


@given(st.lists(st.floats(-0.25, 0.25), min_size=3, max_size=3), st.integers(1, 40))
def test_mirrored_paths_mirror_the_gaps_and_sampling_does_not_matter(x, points):
    if min(abs(np.subtract.outer(x, [-0.15, -0.075, 0.0, 0.075, 0.15]).ravel())) < 1e-6:
        return  # through the middle of an obstacle
    path = through(*x)
    t = np.linspace(0, len(path) - 1, points * (len(path) - 1) + 1)
    fine = np.stack([np.interp(t, np.arange(len(path)), c) for c in path.T], axis=1)
    mode = avoid.mode(path)
    assert avoid.mode(fine) == mode
    mirrored = avoid.gaps(avoid.mode(path * [-1, 1]))
    np.testing.assert_array_equal(mirrored, [1, 2, 3] - avoid.gaps(mode))


@given(*[st.floats(-1, 1)] * 6)
def test_distance_to_a_segment(x, y, ax, ay, bx, by):
    t = np.linspace(0, 1, 2001)[:, None]
    points = np.array([ax, ay]) + t * np.array([bx - ax, by - ay])
    sampled = np.linalg.norm(points - [x, y], axis=1).min()
    assert sampled - 2e-3 <= avoid.distance_to_segment(x, y, ax, ay, bx, by) <= sampled + 1e-9


def test_touching_an_obstacle_is_failure():
    env = make(16)
    success, terminated, paths, returns = drive(
        env, lambda obs: np.tile([0.0, 1.0], (16, 1, 1)), seed=1
    )
    assert terminated.all() and not success.any() and not returns.any()
    last = np.array([path[-1] for path in paths])
    reach = avoid.RADII[0] + avoid.ROBOT_RADIUS
    distance = np.linalg.norm(last - [0.0, avoid.ROW_Y[0]], axis=1)
    assert (distance < reach).all()
    before = np.array([path[-2] for path in paths])
    assert (np.linalg.norm(before - [0.0, avoid.ROW_Y[0]], axis=1) >= reach).all()


def test_no_way_through_an_obstacle_within_one_control_step():
    sim = make(1).sim
    beside = np.array([[-0.05, avoid.ROW_Y[0]]])
    sim.start(np.arange(1), beside)
    c, memo = sim.task.constants, np.array([0.0, 0.0, *beside[0]])
    d = sim.state._replace(qpos=np.array([0.05, avoid.ROW_Y[0]]))
    jumped = functools.partial(_outcome_at, c, memo)
    assert jumped(d.qpos) == (0.0, True, False)
    assert jumped(beside[0]) == (0.0, False, False)


def _outcome_at(c, memo, qpos):
    class Data:
        ctrl = np.zeros(2)

    Data.qpos = qpos
    return avoid.outcome.py_func(Data, c, memo.copy(), np.zeros(2))


def test_expert_succeeds_in_98_of_100_and_takes_all_ways():
    env = make(400)
    expert = genpolicy_sim.expert("avoid", 400, seed=0)
    success, terminated, paths, returns = drive(env, expert.act)
    assert success.mean() >= 0.98
    np.testing.assert_array_equal(returns, success)
    assert (terminated == success)[success].all()
    counts = np.bincount(avoid.modes([paths[i] for i in np.flatnonzero(success)]), minlength=24)
    assert counts.min() >= 4 and counts.max() <= 40


def test_expert_takes_the_way_it_drew():
    expert = genpolicy_sim.expert("avoid", 24, seed=3, noise=0.0)
    env = make(24)
    success, _, paths, _ = drive(env, expert.act, seed=3)
    crossed = [[np.interp(row, path[:, 1], path[:, 0]) for row in avoid.ROW_Y] for path in paths]
    assert success.all()
    np.testing.assert_allclose(crossed, expert._through[:, 1:], atol=0.012)


def test_expert_resets_only_the_masked():
    expert = genpolicy_sim.expert("avoid", 6, seed=0)
    before, mask = expert._through.copy(), np.arange(6) < 3
    expert.reset(mask)
    assert (expert._through[3:] == before[3:]).all()
    assert (expert._through[:3, 1:] != before[:3, 1:]).all()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_do_not_change_results(num_threads):
    one, other = make(5, num_threads=2), make(5, num_threads=num_threads)
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 10, 2))
    one.reset(0), other.reset(0)
    a, b = one.step(actions), other.step(actions)
    np.testing.assert_array_equal(a.obs["position"], b.obs["position"])
