"""The rules of an arm's process, one by one, in virtual time."""

from __future__ import annotations

import contextlib
import json
import os
import socket

import numpy as np
import pytest
from arm_bench import DT, Bench, TestDevice, VirtualClock, document
from genpolicy_deploy.robots import arm_process, motion
from genpolicy_deploy.robots.arm_messages import GOAL, HOLD, START, STOP

from genpolicy.spec import GenpolicyError


@pytest.fixture
def make_bench():
    with contextlib.ExitStack() as stack:

        def make(started: bool = True, **options) -> Bench:
            bench = Bench(**options)
            stack.callback(bench.close)
            if started:
                bench.order(START)
                bench.tick()
            return bench

        yield make


@pytest.fixture
def moving(make_bench) -> Bench:
    """An arm at speed, with a goal far away."""
    bench = make_bench()
    ramp(bench)
    assert np.abs(bench.path[-1] - bench.path[-2]).max() > 0.5 * DT
    return bench


def ramp(bench: Bench, ticks: int = 30, speed: float = 0.8) -> None:
    start = bench.path[-1] if len(bench.path) else bench.device.position.copy()
    for i in range(ticks):
        bench.tick(goal=start + speed * DT * (i + 1))


def finish(bench: Bench, ticks: int = 300) -> None:
    bench.tick(ticks)
    assert bench.ended


def test_nothing_is_written_before_the_first_goal(make_bench):
    bench = make_bench()
    bench.tick(50)
    bench.order(HOLD)
    bench.tick(5)
    assert not bench.device.written and bench.state["episode"] == 1
    bench.tick(goal=(0.01, 0.0))
    assert len(bench.device.written) == 1
    bench.order(STOP)
    finish(bench)


def test_goals_before_a_start_are_not_pursued(make_bench):
    bench = make_bench(started=False)
    bench.tick(5, goal=(0.1, 0.1))
    assert not bench.device.written


def test_an_arm_that_was_never_commanded_ends_without_a_write(make_bench):
    bench = make_bench()
    bench.order(STOP)
    bench.tick()
    assert bench.ended and not bench.device.written


def test_goals_are_reached_inside_the_limits(make_bench):
    bench = make_bench()
    bench.tick(250, goal=(0.15, -0.15))
    np.testing.assert_allclose(bench.path[-1], (0.15, -0.15), atol=1e-3)
    bench.check_limits()
    assert bench.state["goal_seq"] > 0 and not bench.state["holding"]


def test_a_jump_to_the_first_goal_is_refused(make_bench):
    bench = make_bench()
    bench.tick(5, goal=(0.5, 0.0))
    assert bench.ended and "shoulder" in bench.supervisor.reason
    assert np.abs(bench.path).max(initial=0.0) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_goal_that_is_no_place_moves_nothing_far(moving, bad):
    moving.tick(100, goal=(bad, bad))
    moving.check_limits(rest_last=False)
    assert np.isfinite(moving.path).all()
    if not abs(bad) < np.inf:
        np.testing.assert_array_equal(moving.path[-1], moving.path[-2])
    assert moving.state["blocked"] > 0 and moving.faults


def test_hold_brakes_at_once_and_the_next_goal_moves_on(moving):
    here, speed = moving.path[-1], np.abs(moving.path[-1] - moving.path[-2]) / DT
    moving.order(HOLD)
    moving.tick(60)
    moving.check_limits()
    acceleration, jerk = np.array([5.0, 10.0]), np.array([100.0, 200.0])
    shortest = 0.5 * speed**2 / acceleration
    way = np.abs(moving.path[-1] - here)
    assert (way < shortest + speed * (acceleration / jerk + 2.0 * DT)).all()
    assert moving.state["holding"]
    there = moving.path[-1].copy()
    moving.tick(100, goal=there + 0.1)
    np.testing.assert_allclose(moving.path[-1], there + 0.1, atol=1e-3)
    moving.check_limits()


def test_a_silent_loop_makes_the_joints_brake(moving):
    moving.tick(10)
    assert not moving.state["holding"]
    moving.tick(60)
    assert moving.state["holding"] and any("no goal for" in f for f in moving.faults)
    np.testing.assert_array_equal(moving.path[-1], moving.path[-10])
    moving.check_limits()
    assert not moving.ended and len(moving.path) == 30 + 70  # it goes on telling the arm to stay


def test_old_goals_are_counted_and_not_pursued(moving):
    for _ in range(30):
        moving.order(GOAL, (0.9, 0.9), age_s=0.15)
        moving.tick()
    assert moving.state["ignored"] == 30
    moving.tick(60)
    assert moving.state["holding"]
    np.testing.assert_array_equal(moving.path[-1], moving.path[-10])


def test_no_measurement_brakes_and_a_new_one_lets_the_arm_go_on(moving):
    moving.device.silent = True
    here = moving.path[-1]
    moving.tick(60, goal=here + 0.1)
    assert any("no measurement of the arm" in f for f in moving.faults)
    np.testing.assert_array_equal(moving.path[-1], moving.path[-10])
    resting = moving.path[-1].copy()
    moving.device.silent = False
    moving.tick(100, goal=resting + 0.1)
    np.testing.assert_allclose(moving.path[-1], resting + 0.1, atol=1e-3)
    moving.check_limits()


def test_no_measurement_for_a_second_is_the_end(moving):
    moving.device.silent = True
    moving.tick(150, goal=(0.5, 0.5))
    assert moving.ended and "no measurement of the arm for 1.0" in moving.supervisor.reason
    moving.check_limits()


def test_measurements_that_are_no_numbers_count_as_none(moving):
    place = moving.device.position
    moving.device.position = np.array([np.nan, 0.0])
    moving.device.stuck = True
    moving.tick(60, goal=place)
    assert any("not finite" in f for f in moving.faults)
    assert moving.state["holding"] and np.isfinite(moving.state["joints"]).all()
    moving.tick(100)
    assert moving.ended


def test_a_clock_in_the_future_does_not_keep_a_measurement_young(moving):
    read = moving.device.read

    def once_from_the_future(state):
        read(state)
        state.t_ns += 10**12
        moving.device.silent = True

    moving.device.read = once_from_the_future
    moving.tick(150, goal=(0.5, 0.5))
    assert moving.ended and "no measurement" in moving.supervisor.reason


@pytest.mark.parametrize("error", [GenpolicyError("unplugged"), RuntimeError("SDK"), KeyError(3)])
def test_a_driver_that_cannot_read_still_brakes(moving, error):
    before = len(moving.path)
    moving.device.read_error = error
    finish(moving)
    assert len(moving.path) > before + 3
    moving.check_limits()
    assert str(error) in moving.supervisor.reason


def test_a_driver_that_cannot_write_is_read_to_the_end(moving):
    reads = moving.device.reads
    moving.device.write_error = GenpolicyError("the wire is cut")
    finish(moving)
    assert moving.supervisor.reason == "the wire is cut"
    assert moving.device.reads - reads >= moving.device.refused > 3  # one read for each attempt


def test_faults_of_the_driver_reach_the_loop(moving):
    moving.device.faults = ["a packet with a bad checksum"]
    moving.tick(goal=moving.path[-1])
    assert "a packet with a bad checksum" in moving.faults


@pytest.mark.parametrize("effort", [np.nan, 3.1, -3.1])
def test_effort_beyond_its_limit_stops(make_bench, effort):
    limits = make_bench(started=False).supervisor._config.limits
    joints = {name: list(values) for name, values in vars(limits).items()}
    bench = make_bench(joints=joints | {"names": ["shoulder", "elbow"], "effort": [2.0, 3.0]})
    ramp(bench)
    bench.device.effort[:] = 1.9, 2.9
    bench.tick(5, goal=bench.path[-1])
    assert not bench.ended
    bench.device.effort[1] = effort
    finish(bench)
    assert bench.supervisor.reason == "effort of joint 'elbow' is beyond its limit"
    bench.check_limits()


@pytest.mark.parametrize("how", ["order", "pipe", "closed pipe", "hang-up", "signal"])
def test_every_way_to_stop_brakes_and_is_final(moving, how):
    here = moving.path[-1]
    if how == "order":
        moving.order(STOP)
    elif how == "pipe":
        os.write(moving.stop_fd, b"s")
    elif how == "closed pipe":
        os.close(moving.stop_fd)
    elif how == "hang-up":
        moving.connection.close()
        moving._drain = lambda: None
    else:
        moving.supervisor.signalled = "SIGTERM"
    if how == "hang-up":
        moving.tick(300)
    else:
        moving.tick(300, goal=here + 0.15)
    assert moving.ended
    assert np.abs(moving.path[-1] - here).max() < 0.15
    moving.check_limits()


class Broken(motion.Servo):
    """Breaks its word, as only an error in the program could."""

    wrong: object = None

    def step(self):
        command = super().step()
        if self.wrong is not None:
            return self.wrong(command.copy())
        return command


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda q: q * np.nan, "not finite"),
        (lambda q: q + np.array([0.0, 2.1 * DT]), "'elbow' is faster than its limit"),
        (lambda q: q + np.array([0.0, 0.3 * DT]), "'elbow' accelerates beyond its limit"),
        (lambda q: np.array([1.001, q[1]]), "'shoulder' is outside its limits"),
        (lambda q: q[:1], "another shape"),
        (lambda q: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_servo_that_breaks_its_word_is_not_obeyed(make_bench, monkeypatch, wrong, reason):
    monkeypatch.setattr(motion, "Servo", Broken)
    bench = make_bench(position=(0.9, 0.0) if "outside" in reason else (0.0, 0.0))
    if "outside" in reason:  # where only the position is wrong, not the speed
        bench.tick(60, goal=(0.995, 0.0))
        bench.tick(60, goal=(0.995, 0.1))
    else:
        ramp(bench)
    bench.supervisor._motion._main.wrong = wrong
    finish(bench)
    assert reason in bench.supervisor.reason
    assert np.isfinite(bench.path).all() and bench.path.shape[1] == 2
    bench.check_limits()


def test_an_error_in_the_rules_brakes_too(moving, monkeypatch):
    def fail():
        raise ZeroDivisionError("in the rules")

    monkeypatch.setattr(moving.supervisor, "_report", fail)
    moving.supervisor.run()
    assert "in the rules" in moving.supervisor.reason
    moving.check_limits()


def test_after_a_gap_joints_start_again_from_rest(moving):
    before = len(moving.path)
    moving.clock.late_s = 0.08
    moving.tick(goal=moving.path[-1] + 0.05)
    assert any("did not run for" in f for f in moving.faults)
    step = np.abs(moving.path[before] - moving.path[before - 1])
    assert (step <= np.array([5.0, 10.0]) * DT**2 * (1 + 1e-6)).all()


def test_joints_do_not_run_ahead_of_a_driver_that_does_not_send(moving):
    moving.device.deaf = True
    ramp(moving, 50)
    moving.device.deaf = False
    before = len(moving.path)
    ramp(moving, 20)
    step = np.abs(moving.path[before] - moving.path[before - 1])
    assert (step <= np.array([5.0, 10.0]) * DT**2 * (1 + 1e-6)).all()  # again from rest
    moving.order(HOLD)
    moving.tick(60)
    assert (np.abs(np.diff(moving.path, axis=0)) <= np.array([1.0, 2.0]) * DT * (1 + 1e-6)).all()


def test_single_commands_that_are_not_sent_do_not_keep_the_arm_from_its_goal(make_bench):
    bench = make_bench()
    for tick in range(400):
        bench.device.deaf = tick % 2 == 1
        bench.tick(goal=(0.15, -0.15))
    np.testing.assert_allclose(bench.path[-1], (0.15, -0.15), atol=1e-3)
    steps = np.abs(np.diff(bench.path, axis=0))
    assert (steps <= 2 * np.array([1.0, 2.0]) * DT * (1 + 1e-6)).all()


def test_an_arm_that_was_moved_before_its_first_goal_starts_from_there(make_bench):
    bench = make_bench()
    bench.device.position[:] = (0.5, -0.3)  # by a person
    bench.tick(3)
    bench.tick(goal=(0.55, -0.3))
    np.testing.assert_allclose(bench.path[0], (0.5, -0.3), atol=1e-3)
    other = make_bench()
    other.device.position[:] = (0.5, -0.3)
    other.tick(3)
    other.tick(goal=(0.1, 0.0))  # near where it was at the start
    assert "would jump" in other.supervisor.reason and not other.device.written


def test_home_is_reached_slowly_before_the_episode_begins(make_bench):
    bench = make_bench(started=False, home=[0.5, -1.0])
    bench.order(START)
    ticks = 0
    while bench.state["episode"] != 1 and ticks < 1500:
        bench.tick(goal=(9.0, 9.0) if ticks else None)  # goals meanwhile are not pursued
        ticks += 1
    np.testing.assert_allclose(bench.path[-1], (0.5, -1.0), atol=1e-3)
    velocity = np.abs(np.diff(bench.path, axis=0)).max(axis=0) / DT
    assert (velocity < 0.4 * np.array([1.0, 2.0])).all()
    bench.tick(100, goal=(0.6, -1.0))
    np.testing.assert_allclose(bench.path[-1], (0.6, -1.0), atol=1e-3)
    bench.check_limits()


def test_an_episode_begins_only_when_the_arm_rests_at_home(make_bench):
    bench = make_bench(started=False, home=[0.1, 0.0])
    bench.order(START)
    while bench.state["episode"] != 1 and len(bench.path) < 300:
        bench.tick()
    bench.tick(5)
    assert bench.state["episode"] == 1
    jerk = np.abs(np.diff(bench.path, n=3, axis=0)).max(axis=0) / DT**3
    assert (jerk <= np.array([100.0, 200.0]) * (1 + 1e-6)).all()


def test_a_joint_that_does_not_get_home_is_named(make_bench):
    bench = make_bench(started=False, home=[0.5, 0.0])
    bench.device.stuck = True
    bench.order(START)
    finish(bench, 2000)
    assert "joint 'shoulder' does not follow" in bench.supervisor.reason


def test_a_hold_ends_the_way_home(make_bench):
    bench = make_bench(started=False, home=[0.5, -1.0])
    bench.order(START)
    bench.tick(80)
    bench.order(HOLD)
    bench.tick(100)
    resting = bench.path[-1]
    assert 0.02 < resting[0] < 0.48 and bench.state["episode"] == 0
    bench.check_limits()
    bench.order(START, episode=2)
    bench.tick(800)
    assert bench.state["episode"] == 2
    bench.check_limits()


def test_a_start_while_moving_waits_for_rest(moving):
    moving.order(START, episode=2)
    moving.tick()
    assert moving.state["episode"] == 1
    moving.tick(60)
    assert moving.state["episode"] == 2
    moving.check_limits()


def test_an_arm_outside_its_limits_does_not_start(make_bench):
    bench = make_bench(position=(1.3, 0.0))
    assert bench.ended and "shoulder" in bench.supervisor.reason
    bench = make_bench(position=(1.001, 0.0))  # a hair, as encoders have it
    bench.tick(5, goal=(1.0, 0.0))
    assert not bench.ended and (bench.path[:, 0] <= 1.0).all()


def test_an_arm_that_was_made_ready_in_vain_is_stopped(monkeypatch):
    calls = []
    device = TestDevice(VirtualClock(), (0.0, 0.0))
    device.silent = True
    for name in ("connect", "stop", "close"):
        setattr(device, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(arm_process, "build", lambda config: device)
    monkeypatch.setattr(arm_process, "FIRST_MEASUREMENT_S", 0.05)
    monkeypatch.setattr(arm_process, "_stop_on_signals", lambda supervisor: None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    with ours, theirs, open(reading, "rb"), open(writing, "wb"):
        message = {"driver": "lerobot", "options": document(), "source": ""}
        ours.send(json.dumps(message).encode())
        with pytest.raises(GenpolicyError, match="no measurement within"):
            arm_process.serve(theirs, reading)
    assert calls == ["connect", "stop", "close"]


def test_a_joint_that_is_held_back_ends_the_run_before_it_could_leap(moving):
    held = moving.device.position.copy()
    moving.device.stuck = True
    while not moving.ended:
        moving.tick(goal=moving.path[-1] + 0.8 * DT)
        assert np.abs(moving.path[-1] - held).max() < 0.6  # half a second's way and braking
    assert moving.supervisor.reason.startswith("joint 'shoulder' does not follow: it is at")
    moving.check_limits()


def test_a_joint_may_lag_by_less_than_half_a_second(make_bench, monkeypatch):
    bench = make_bench()
    delayed = [bench.device.position.copy()] * 40  # 0.4 s

    def write(command):
        bench.device.written.append(command.copy())
        delayed.append(command.copy())
        bench.device.position[:] = delayed.pop(0)
        return True

    monkeypatch.setattr(bench.device, "write", write)
    ramp(bench, ticks=100)
    assert not bench.ended
    bench.tick(100, goal=bench.path[-1])
    assert not bench.ended


def test_an_arm_that_is_pushed_away_at_rest_ends_the_run(make_bench):
    bench = make_bench()
    ramp(bench, ticks=10)
    bench.tick(60, goal=bench.path[-1])
    bench.device.stuck = True
    first_step = bench.supervisor._config.limits.first_step[1]
    bench.device.position[1] += 0.9 * first_step
    bench.tick(10, goal=bench.path[-1])
    assert not bench.ended
    bench.device.position[1] += 0.2 * first_step
    finish(bench)
    assert "joint 'elbow' does not follow" in bench.supervisor.reason
