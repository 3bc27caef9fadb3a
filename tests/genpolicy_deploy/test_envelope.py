"""No target sequence, however wild, makes a command outside the limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from genpolicy_deploy.braking import Axis, AxisLimits
from genpolicy_deploy.envelope import Envelope, FirstCommandError
from genpolicy_deploy.robots.base import Limits, RobotSpec
from genpolicy_deploy.rotations import compose, nearest
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.spec import GenpolicyError

finite = st.floats(-1e6, 1e6, allow_nan=False)
wild = st.one_of(
    st.floats(-2.0, 2.0), finite, st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308])
)
limits_of_an_axis = st.builds(
    AxisLimits,
    low=st.floats(-2.0, -0.1),
    high=st.floats(0.1, 2.0),
    velocity=st.floats(0.05, 10.0),
    acceleration=st.floats(0.1, 500.0),
    jerk=st.floats(1.0, 20000.0),
)


def assert_within(positions: list[float], limits: AxisLimits, dt: float, start: float) -> None:
    """Finite differences of what was emitted, computed independently of the filter."""
    p = np.array([start, start, start, *positions])
    v, a, j = (np.diff(p, n) / dt**n for n in (1, 2, 3))
    assert p.min() >= limits.low and p.max() <= limits.high
    for difference, bound, order in ((v, "velocity", 1), (a, "acceleration", 2), (j, "jerk", 3)):
        rounding = 1e-13 / dt**order
        assert np.abs(difference).max() <= getattr(limits, bound) * (1 + 1e-6) + rounding, bound


@settings(max_examples=120, deadline=None)
@given(
    limits_of_an_axis,
    st.sampled_from([0.05, 0.02]),
    st.lists(finite, min_size=1, max_size=25),
    st.integers(0, 25),
)
def test_axis_never_leaves_its_limits(limits, dt, targets, hold_from):
    axis = Axis(limits, dt)
    axis.start(0.0)
    emitted = []
    for index, target in enumerate(targets):
        if index >= hold_from:
            axis.hold()
        elif axis.violation(target) is None:
            axis.go(target)
            assert axis.p == target
        else:
            axis.approach(target)
        emitted.append(axis.p)
    for _ in range(2000):
        if axis.at_rest:
            break
        axis.hold()
        emitted.append(axis.p)
    assert axis.at_rest
    assert_within(emitted, limits, dt, 0.0)


@settings(max_examples=80, deadline=None)
@given(limits_of_an_axis, st.floats(0.02, 1.0), st.floats(0.1, 1.0))
def test_motion_within_every_rate_still_stops_before_the_bound(limits, share, speed):
    """Targets that break no rate at any step, but run at full speed into the end of the range."""
    axis, dt = Axis(limits, 0.05), 0.05
    axis.start(0.0)
    p = v = a = 0.0
    emitted = []
    while p < 2.0 * limits.high and len(emitted) < 300:
        a = min(a + share * limits.jerk * dt, share * limits.acceleration)
        v = min(v + a * dt, speed * limits.velocity)
        p += v * dt
        if axis.violation(p) is None:
            axis.go(p)
        else:
            axis.approach(p)
        emitted.append(axis.p)
    assert_within(emitted, limits, dt, 0.0)


@settings(max_examples=60, deadline=None)
@given(limits_of_an_axis, st.floats(-3.0, 3.0))
def test_axis_reaches_a_standing_target_without_passing_it(limits, target):
    axis = Axis(limits, 0.05)
    axis.start(0.0)
    goal = min(max(target, limits.low), limits.high)
    furthest = 0.0
    for _ in range(3000):
        if axis.violation(target) is None:
            axis.go(target)
        else:
            axis.approach(target)
        furthest = max(furthest, axis.p * math.copysign(1.0, goal))
        if axis.p == goal and axis.at_rest:
            break
    assert axis.p == pytest.approx(goal, abs=1e-6)
    assert furthest <= abs(goal) + max(1e-6, limits.velocity * 0.05)


def spec(grippers: tuple[int, ...] = (), **changes) -> RobotSpec:
    bounds = {
        "low": (-1.0,) * 7,
        "high": (1.0,) * 7,
        "velocity": (1.0,) * 7,
        "acceleration": (10.0,) * 7,
        "jerk": (400.0,) * 7,
        "first_step": (0.3,) * 7,
    }
    return RobotSpec(
        name="test",
        control_mode="osc_pose_delta",
        action_names=("a",),
        observations=(),
        axes=("x", "y", "z", "rx", "ry", "rz", "gripper"),
        limits=Limits(**(bounds | changes)),
        rate_hz=500.0,
        on_silence="holds",
        silence_s=0.1,
        rotation=(3, 4, 5),
        workspace=(0, 1, 2),
        grippers=grippers,
    )


targets_of_a_robot = st.one_of(
    st.lists(wild, min_size=7, max_size=7).map(np.array),
    st.lists(wild, min_size=0, max_size=9).map(np.array),
    st.sampled_from([None, "up", 3.0, np.zeros((7, 1)), np.zeros(7, int), [0.0] * 7]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(targets_of_a_robot, max_size=12), st.integers(0, 12))
def test_envelope_never_emits_a_command_outside_the_limits(targets, stop_at):
    envelope = Envelope(spec(), 0.05)
    measured = np.zeros(7)
    envelope.start(measured)
    emitted = []
    for index, target in enumerate(targets):
        if index == stop_at:
            envelope.stop()
        try:
            emitted.append(envelope.apply(target, measured).copy())
        except FirstCommandError:
            emitted.append(envelope.command.copy())
    emitted.extend(envelope.hold().copy() for _ in range(60))
    assert envelope.at_rest
    assert envelope.blocked <= len(targets)
    for index in range(7):
        limits = AxisLimits(-1.0, 1.0, 1.0, 10.0, 400.0)
        assert_within([float(c[index]) for c in emitted], limits, 0.05, 0.0)


def test_targets_within_limits_pass_unaltered():
    envelope, measured = Envelope(spec(), 0.05), np.zeros(7)
    envelope.start(measured)
    for t in np.linspace(0.0, 1.0, 20):
        target = 0.2 * np.sin(0.5 * t) * np.arange(1, 8) / 7
        np.testing.assert_array_equal(envelope.apply(target, measured), target)
    assert envelope.violations == {} and envelope.blocked == 0


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (np.full(7, np.nan), "not_finite"),
        (np.r_[np.zeros(6), np.inf], "not_finite"),
        (np.zeros(6), "shape"),
        (None, "shape"),
        (np.r_[0.25, np.zeros(6)], "velocity"),
        (np.r_[0.04, np.zeros(6)], "acceleration"),
        (np.r_[np.zeros(3), 0.004, np.zeros(3)], None),
    ],
)
def test_each_violation_is_recorded_by_its_kind(target, kind):
    envelope, measured = Envelope(spec(), 0.05), np.zeros(7)
    envelope.start(measured)
    envelope.apply(target, measured)
    assert envelope.violations == ({kind: 1} if kind else {})
    assert envelope.blocked == (kind is not None)


def test_bounds_of_the_position_axes_count_as_workspace_and_jerk_as_jerk():
    wide = {"velocity": (100.0,) * 7, "acceleration": (1e4,) * 7, "jerk": (1e6,) * 7}
    envelope = Envelope(spec(**wide, first_step=(9.0,) * 7), 0.05)
    envelope.start(np.zeros(7))
    envelope.apply(np.r_[1.5, np.zeros(5), 1.5], np.zeros(7))
    assert envelope.violations == {"workspace": 1, "position": 1}
    jerky = Envelope(spec(acceleration=(1e3,) * 7, jerk=(10.0,) * 7), 0.05)
    jerky.start(np.zeros(7))
    jerky.apply(np.full(7, 0.01), np.zeros(7))
    assert set(jerky.violations) == {"jerk"}


def test_first_command_guard_refuses_a_jump_and_lets_nothing_through():
    envelope = Envelope(spec(), 0.05)
    envelope.start(np.zeros(7))
    with pytest.raises(FirstCommandError, match="'x' would jump"):
        envelope.apply(np.r_[0.5, np.zeros(6)], np.zeros(7))
    np.testing.assert_array_equal(envelope.command, np.zeros(7))
    assert envelope.violations == {"first_command": 1}


def test_stop_is_latched():
    envelope = Envelope(spec(), 0.05)
    envelope.start(np.zeros(7))
    for i in range(5):
        envelope.apply(np.full(7, 0.02 * i), np.zeros(7))
    envelope.stop()
    for _ in range(40):
        envelope.apply(np.full(7, 0.3), np.zeros(7))
    rest = envelope.command.copy()
    for _ in range(10):
        np.testing.assert_array_equal(envelope.apply(np.full(7, -0.3), np.zeros(7)), rest)
    with pytest.raises(GenpolicyError, match="stopped for good"):
        envelope.start(np.zeros(7))


def test_starting_outside_the_limits_is_refused():
    with pytest.raises(GenpolicyError, match="outside its limits: axis 'gripper'"):
        Envelope(spec(), 0.05).start(np.r_[np.zeros(6), 1.4])
    with pytest.raises(GenpolicyError, match="outside its limits"):
        Envelope(spec(), 0.05).start(np.full(7, np.nan))


def test_starting_a_hair_outside_the_limits_begins_on_them():
    envelope = Envelope(spec(), 0.05)
    envelope.start(np.r_[np.zeros(6), 1.2])  # first_step is 0.3
    assert envelope.command[6] == 1.0


def test_what_a_gripper_holds_it_goes_on_holding():
    envelope = Envelope(spec(grippers=(6,)), 0.05)
    envelope.start(np.zeros(7))
    for i in range(40):
        envelope.apply(np.r_[np.zeros(6), min(0.025 * i, 0.9)], np.zeros(7))
    assert envelope.command[6] == 0.9
    rest = np.r_[np.full(6, 0.1), 0.2]  # the gripper closed on something
    envelope.resume(rest)
    np.testing.assert_array_equal(envelope.command, np.r_[np.full(6, 0.1), 0.9])
    envelope.apply(envelope.command.copy(), rest)  # no leap, whatever the gripper measures
    assert envelope.command[6] == 0.9
    envelope.resume(rest)
    with pytest.raises(FirstCommandError, match="axis 'x'"):
        envelope.apply(np.r_[0.5, np.full(5, 0.1), 0.9], rest)
    envelope.start(rest)  # another episode: no hold before
    with pytest.raises(FirstCommandError, match="axis 'gripper'"):
        envelope.apply(np.r_[np.full(6, 0.1), 0.9], rest)


def test_effort_beyond_its_limit_is_reported_and_nan_counts():
    envelope = Envelope(spec(effort=(5.0,) * 7), 0.05)
    assert envelope.effort_exceeded(np.full(7, 4.0)) is None
    assert envelope.effort_exceeded(np.r_[np.zeros(2), -6.0, np.zeros(4)]) == "z"
    assert envelope.effort_exceeded(np.full(7, np.nan)) == "x"
    assert envelope.violations == {"effort": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"low": (2.0,) * 7},
        {"jerk": (0.0,) * 7},
        {"velocity": (1.0,) * 6},
        {"high": (math.nan,) * 7},
    ],
)
def test_impossible_limits_are_refused(changes):
    with pytest.raises(GenpolicyError, match="limits"):
        Envelope(spec(**changes), 0.05)


vectors = st.tuples(*[st.floats(-3.0, 3.0)] * 3)


def matrix(rotvec) -> np.ndarray:
    x, y, z = rotvec
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.linalg.norm(rotvec)
    return (
        np.eye(3)
        + np.sinc(angle / np.pi) * cross
        + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross
    )


@given(vectors, vectors)
def test_composition_is_the_product_of_matrices(left, right):
    got = compose(left, right)
    np.testing.assert_allclose(matrix(got), matrix(left) @ matrix(right), atol=1e-9)
    assert np.linalg.norm(got) <= math.pi + 1e-9


@given(vectors, st.integers(-2, 2))
def test_nearest_is_the_same_rotation_and_continuous(rotvec, turns):
    angle = np.linalg.norm(rotvec)
    if angle < 1e-3:
        return
    far = np.array(rotvec) * (1 + turns * 2 * math.pi / angle)
    np.testing.assert_allclose(nearest(rotvec, far), far, atol=1e-9)
    np.testing.assert_allclose(matrix(nearest(rotvec, (9.0, -2.0, 4.0))), matrix(rotvec), atol=1e-9)
