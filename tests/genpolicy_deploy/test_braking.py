"""Braking in closed form is braking step by step; moving targets are followed without stutter."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from genpolicy_deploy.braking import Axis, AxisLimits
from hypothesis import example, given, settings
from hypothesis import strategies as st


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    """From a fraction of a step to 60 steps until full acceleration, as many to full speed."""
    dt = draw(st.sampled_from([0.05, 0.01, 0.002]))
    velocity = draw(st.floats(0.05, 10.0))
    acceleration = velocity / (draw(st.floats(0.3, 60.0)) * dt)
    jerk = acceleration / (draw(st.floats(0.3, 60.0)) * dt)
    low, high = -draw(st.floats(0.1, 2.0)), draw(st.floats(0.1, 2.0))
    return Axis(AxisLimits(low, high, velocity, acceleration, jerk), dt)


def axis_of(velocity: float, acceleration: float, jerk: float) -> Axis:
    return Axis(AxisLimits(-1.0, 1.0, velocity, acceleration, jerk), 0.01)


def brake_step_by_step(axis: Axis, v: float, a: float) -> list[tuple[float, float]]:
    """(p, v) of every step until rest, as ``Axis.hold`` makes them."""
    p, way = 0.0, [(0.0, v)]
    while not axis._resting(v, a):
        a = axis.brake(v, a)
        v += a * axis.dt
        p += v * axis.dt
        way.append((p, v))
        assert len(way) < 20_000
    return way


@settings(max_examples=400, deadline=None)
@given(axes(), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
@example(axis_of(1.0, 10.0, 500.0), 0.3, -1.0)  # turns round
@example(axis_of(1.0, 10.0, 500.0), 0.3, 1.0)
@example(axis_of(1.0, 10.0, 500.0), 0.0, 1.0)
@example(axis_of(1.0, 10.0, 5000.0), 1.0, 0.0)  # one jerk step is too much
def test_closed_form_of_braking_is_braking_step_by_step(axis, speed, push):
    axis.v, axis.a = speed * axis._max_v, push * axis._max_a
    way = brake_step_by_step(axis, axis.v, axis.a)
    travel = axis.travel()
    scale = max(max(abs(p) for p, _ in way), axis.limits.jerk * axis.dt**3)
    assert travel.rest == pytest.approx(way[-1][0], abs=1e-7 * scale)
    assert travel.span == pytest.approx(
        sum(abs(b[0] - a[0]) for a, b in pairwise(way)), abs=1e-7 * scale
    )
    for step in {0, 1, 2, 3, len(way) // 3, len(way) // 2, len(way) - 1}:
        if step < len(way):
            assert travel.at(step) == pytest.approx(way[step][0], abs=1e-7 * scale)


@settings(max_examples=400, deadline=None)
@given(
    axes(),
    st.floats(-1.0, 1.0),
    st.floats(-1.05, 1.05),
    st.floats(-1.0, 1.0),
)
def test_a_state_is_safe_when_every_step_of_braking_is(axis, place, speed, push):
    limits = axis.limits
    p, v, a = place * (limits.high if place > 0 else -limits.low), speed * axis._max_v, 0.0
    a = push * axis._max_a
    way = brake_step_by_step(axis, v, a)
    room = min(min(p + q - limits.low, limits.high - p - q) for q, _ in way)
    spare = min(limits.velocity - abs(w) for _, w in way)
    if abs(room) > 1e-6 and abs(spare) > 1e-6 * limits.velocity:
        assert axis._safe(p, v, a) == (room > 0 and spare > 0)


def follow(axis: Axis, targets: list[float]) -> list[float]:
    """Positions of an axis that is told its target's velocity, too."""
    got, before = [], targets[0]
    for target in targets:
        axis.track(target, (target - before) / axis.dt)
        before = target
        got.append(axis.p)
    return got


def test_a_moving_target_is_caught_and_then_followed_exactly():
    axis = Axis(AxisLimits(-2, 2, 2.0, 10.0, 400.0), 0.01)
    targets = [0.8 * 0.01 * i for i in range(200)]
    got = np.array(follow(axis, targets))
    velocity = np.diff(got) / 0.01
    np.testing.assert_allclose(got[60:], targets[60:], atol=1e-9)
    assert velocity.max() < 1.3  # it may hurry to catch up, not swing
    # Once it has caught up it stays: it neither stutters nor overshoots.
    caught = int(np.argmax(np.abs(got - targets)[10:] < 1e-9)) + 10
    assert np.abs(velocity[caught + 1 :] - 0.8).max() < 1e-6
    assert (got - targets).max() < 1e-9


@settings(max_examples=100, deadline=None)
@given(axes(), st.lists(st.floats(-3.0, 3.0), min_size=2, max_size=30))
def test_following_obeys_every_limit(axis, corners):
    limits, dt = axis.limits, axis.dt
    targets = [float(t) for c, d in pairwise(corners) for t in np.linspace(c, d, 5)]
    p = np.array([0.0, 0.0, 0.0, *follow(axis, targets)])
    for order, bound in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
        rate = np.abs(np.diff(p, order)).max() / dt**order
        assert rate <= bound * (1 + 1e-6) + 1e-14 / dt**order
    assert p.min() >= limits.low and p.max() <= limits.high
    for _ in range(20_000):
        if axis.at_rest:
            break
        axis.hold()
    assert axis.at_rest and limits.low <= axis.p <= limits.high


def test_one_step_far_from_limits_costs_little():
    """8 joints at 500 Hz: a count of closed-form evaluations, not a clock."""
    axis = Axis(AxisLimits(-3, 3, 2.0, 10.0, 100.0), 0.002)
    calls = 0
    original = axis._phases

    def counted(v: float, a: float) -> list[tuple[int, float]]:
        nonlocal calls
        calls += 1
        return original(v, a)

    axis._phases = counted
    for _ in range(500):
        axis.approach(math.inf)
    assert axis.p > 0.5
    assert calls <= 500 * 28
