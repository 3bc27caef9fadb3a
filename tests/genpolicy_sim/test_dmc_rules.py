"""DeepMind Control's rewards and observations: our compiled rules against dm_control's own.

States that random actions rarely reach are set by hand in dm_control's physics; our functions read
the same MjData. Sparse rewards are looked at a hair's breadth on both sides of their thresholds.
"""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from dmc_oracle import TASKS, flat, memo_of, our_rules, our_task, suite, suite_env
from genpolicy_sim.dmc import rewards
from genpolicy_sim.native import field_addresses, field_sizes, fields
from hypothesis import given, settings
from hypothesis import strategies as st

HAIR = 1e-9


def ours(task, physics):
    """Our observation and reward of the state that dm_control's physics is in."""
    model, data = physics.model.ptr, physics.data.ptr
    d = fields(field_addresses(data), field_sizes(model, data))
    memo, out = memo_of(task.name, physics), np.zeros(sum(f.dim for f in task.features))
    observe, outcome = our_rules(task.name)
    reward, terminated, success = outcome(d, task.constants, memo, data.ctrl)
    assert not terminated and not success
    observe(d, task.constants, memo, out)
    return out, reward


def theirs(env):
    return flat(env.task.get_observation(env.physics)), env.task.get_reward(env.physics)


def put(physics, qpos=None, qvel=None, ctrl=None):
    """Set joints by name, as dm_control's resets do."""
    with physics.reset_context():
        for name, value in (qpos or {}).items():
            physics.named.data.qpos[name] = value
        for name, value in (qvel or {}).items():
            physics.named.data.qvel[name] = value
    if ctrl is not None:
        physics.set_control(np.resize(ctrl, physics.model.nu))


def ball_in_cup_states(physics):
    for edge in (0.025 - HAIR, 0.025 + HAIR):
        for x, z in ((edge, 0.0), (-edge, 0.01), (0.0, edge), (0.02, -edge)):
            yield put(physics, {"ball_x": x, "ball_z": 0.35 + z})


def cartpole_states(physics):
    for x, angle, rate, u in ((0.0, 0.0, 0.0, 0.0), (0.7, 0.3, 2.0, 0.5), (-1.5, 3.0, -6.0, 1.0)):
        yield put(physics, {"slider": x, "hinge_1": angle}, {"hinge_1": rate}, u)


def cheetah_states(physics):
    for speed in (-1.0, 0.5, 5.0, 9.999, 10.5):
        yield put(physics, qvel={"rootx": speed, "bthigh": 1.0})


def finger_spin_states(physics):
    for rate in (-15.0 - HAIR, -15.0 + HAIR, 15.0, -20.0):
        yield put(physics, qvel={"hinge": rate})


def finger_turn_states(physics):
    radius = physics.named.model.site_size["target", 0]
    for angle in (0.5, -2.0):
        put(physics, {"hinge": angle, "proximal": -1.0})
        tip = physics.named.data.site_xpos["tip", ["x", "z"]].copy()
        for distance in (0.0, radius - HAIR, radius + HAIR, 2 * radius):
            direction = np.array([np.sin(angle), np.cos(angle)])
            physics.named.model.site_pos["target", ["x", "z"]] = tip + distance * direction
            yield physics.forward()


def fish_states(physics):
    for distance, tilt in ((0.02, 0.0), (0.06, 0.3), (0.1, -0.8)):
        quat = np.array([np.cos(tilt), np.sin(tilt), 0.1, 0.0])
        put(physics, {"root": [0.1, 0.0, 0.2, *quat / np.linalg.norm(quat)], "tail1": 0.3})
        mouth = physics.named.data.geom_xpos["mouth"]
        physics.named.model.geom_pos["target"] = mouth + distance * np.array([0.6, 0.0, 0.8])
        yield physics.forward()


def hopper_states(physics):
    low, high = np.deg2rad(5.0), np.deg2rad(150.0)  # of the knee: torso above and below 0.6 m
    for _ in range(60):
        knee = 0.5 * (low + high)
        put(physics, {"hip": -0.5 * knee, "knee": knee})
        low, high = (knee, high) if physics.height() > 0.6 else (low, knee)
    for bend in (-0.5, -1e-8, 1e-8, 0.5):
        yield put(physics, {"hip": -0.5 * knee, "knee": knee + bend}, ctrl=[0.3, -0.6])


def humanoid_states(physics):
    for z, tilt in ((1.5, 0.05), (1.1, 0.4), (1.0, 0.7)):
        root = [0.0, 0.0, z, np.cos(tilt), np.sin(tilt), 0.0, 0.0]
        velocity = [0.8, -0.3, 0.1, 0.0, 0.0, 0.0]
        yield put(physics, {"root": root, "left_knee": -0.5}, {"root": velocity}, [0.3, -0.6])


def point_mass_states(physics):
    for x, y in ((0.0, 0.01), (0.02, 0.01), (-0.01, 0.03)):
        yield put(physics, {"root_x": x, "root_y": y}, ctrl=[0.5, -0.2])


def reacher_states(physics):
    reach = physics.named.model.geom_size[["target", "finger"], 0].sum()
    for shoulder, wrist in ((0.3, 0.5), (-2.0, 2.0)):
        put(physics, {"shoulder": shoulder, "wrist": wrist})
        finger = physics.named.data.geom_xpos["finger", :2].copy()
        for distance in (0.0, reach - HAIR, reach + HAIR):
            physics.named.model.geom_pos["target", :2] = finger + distance * np.array([0.6, -0.8])
            yield physics.forward()


def walker_states(physics):
    for z, tilt, speed in ((0.0, 0.1, 0.3), (-0.3, 0.5, 0.7), (-0.7, -1.0, 1.2), (0.0, 0.0, 2.0)):
        yield put(physics, {"rootz": z, "rooty": tilt, "right_knee": -0.4}, {"rootx": speed})


STATES = {
    "ball_in_cup_catch": ball_in_cup_states,
    "cartpole_balance": cartpole_states,
    "cheetah_run": cheetah_states,
    "finger_spin": finger_spin_states,
    "finger_turn_easy": finger_turn_states,
    "finger_turn_hard": finger_turn_states,
    "fish_swim": fish_states,
    "hopper_stand": hopper_states,
    "humanoid_stand": humanoid_states,
    "point_mass_easy": point_mass_states,
    "reacher_easy": reacher_states,
    "reacher_hard": reacher_states,
    "walker_walk": walker_states,
}
# What dm_control's rewards are made of, besides calls of ``tolerance``.
TERMS = {
    "ball_in_cup_catch": ["ball_to_target"],
    "cartpole_balance": ["cart_position", "pole_angle_cosine", "angular_vel", "control"],
    "cheetah_run": ["speed"],
    "finger_spin": ["hinge_velocity"],
    "finger_turn_easy": ["dist_to_target"],
    "finger_turn_hard": ["dist_to_target"],
    "fish_swim": ["upright", "mouth_to_target"],
    "hopper_stand": ["height", "control"],
    "humanoid_stand": ["head_height", "torso_upright", "center_of_mass_velocity", "control"],
    "point_mass_easy": ["mass_to_target_dist", "control"],
    "reacher_easy": ["finger_to_target_dist"],
    "reacher_hard": ["finger_to_target_dist"],
    "walker_walk": ["torso_upright", "torso_height", "horizontal_velocity"],
}


def worst_reward_error(task, env):
    return max(
        abs(ours(task, env.physics)[1] - theirs(env)[1]) for _ in STATES[task.name](env.physics)
    )


@pytest.fixture(scope="module", params=sorted(TASKS))
def pair(request):
    """Our task and dm_control's environment."""
    return our_task(request.param), suite_env(request.param)


def test_rules_are_dm_controls_in_states_set_by_hand(pair):
    task, env = pair
    rewards_seen = set()
    env.reset()
    for _ in STATES[task.name](env.physics):
        observation, reward = ours(task, env.physics)
        expected_observation, expected_reward = theirs(env)
        np.testing.assert_allclose(observation, expected_observation, rtol=0, atol=1e-12)
        assert reward == pytest.approx(expected_reward, rel=0, abs=1e-12)
        rewards_seen.add(round(reward, 6))
    assert len(rewards_seen) > 1 and max(rewards_seen) > 0.3


def test_every_term_of_dm_controls_reward_is_ours(pair, monkeypatch):
    """A millionth on any term, on their side, makes a difference that parity would notice."""
    task, env = pair
    env.reset()
    assert worst_reward_error(task, env) < 1e-12
    for name in TERMS[task.name]:
        honest = getattr(env.physics, name)
        with monkeypatch.context() as patch:
            patch.setattr(env.physics, name, lambda honest=honest: honest() + 1e-6)
            up = worst_reward_error(task, env)
            patch.setattr(env.physics, name, lambda honest=honest: honest() - 1e-6)
            assert max(up, worst_reward_error(task, env)) > 1e-9, name


@pytest.mark.parametrize(
    "name", [name for name in sorted(TASKS) if not name.startswith(("ball", "finger"))]
)
def test_every_tolerance_of_dm_controls_reward_is_ours(name, monkeypatch):
    task, env = our_task(name), suite_env(name)
    module = inspect.getmodule(type(env.task))
    env.reset()
    honest, calls = module.rewards.tolerance, []

    def perturbed(*args, **kwargs):
        calls.append(None)
        return honest(*args, **kwargs) + 1e-6 * ((len(calls) - 1) % number == wanted)

    with monkeypatch.context() as patch:
        patch.setattr(module.rewards, "tolerance", perturbed)
        number = wanted = 10
        theirs(env)
        number = len(calls)
        for wanted in range(number):
            calls.clear()
            assert worst_reward_error(task, env) > 1e-9, wanted


def test_every_constant_of_our_reward_matters(pair):
    task, env = pair
    env.reset()
    unused = {
        "finger_spin": {"hinge_x", "hinge_z", "radius", "size"},
        "finger_turn_easy": {"spin"},
        "finger_turn_hard": {"spin"},
    }
    for name, value in task.constants._asdict().items():
        if np.asarray(value).dtype.kind != "f" or name in unused.get(task.name, ()):
            continue
        errors = []
        for wrong in (value - 1e-6, value + 1e-6):
            constants = task.constants._replace(**{name: wrong})
            errors.append(worst_reward_error(replace(task, constants=constants), env))
        assert max(errors) > 1e-9, name


SHAPES = {rewards.GAUSSIAN: "gaussian", rewards.LINEAR: "linear", rewards.QUADRATIC: "quadratic"}


@settings(deadline=None)  # the first call compiles
@given(
    x=st.floats(-10, 10),
    low=st.floats(-5, 5),
    width=st.floats(0, 5) | st.just(float("inf")),
    margin=st.floats(0.01, 5) | st.just(0.0),
    shape=st.sampled_from(sorted(SHAPES)),
    at_margin=st.floats(0.01, 0.99),
)
def test_tolerance_is_dm_controls(x, low, width, margin, shape, at_margin):
    value = rewards.tolerance(x, low, low + width, margin, shape, at_margin)
    theirs = suite().walker.rewards.tolerance
    expected = theirs(x, (low, low + width), margin, SHAPES[shape], at_margin)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert 0.0 <= value <= 1.0
