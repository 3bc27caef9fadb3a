"""The loop with a real policy process and a robot that fails: each fault ends as it should."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from fake_robot import FakeRobot
from genpolicy_deploy.flight_log import read_log
from genpolicy_deploy.link import LinkClosedError
from genpolicy_deploy.replay import replay
from genpolicy_deploy.run import Run, RunOptions
from genpolicy_deploy.session import FAULT, INTERRUPTED, OK
from genpolicy_deploy.states import State, StateMachine
from genpolicy_deploy.watchdog import Watchdog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from mcap.reader import make_reader
from mcap.writer import Writer
from tiny_controller import lift_task

from genpolicy.spec import GenpolicyError

STEPS = 24  # control steps of an episode: 1.2 s


@pytest.fixture(scope="module")
def short_controller(build_controller, tmp_path_factory):
    task = replace(lift_task(), max_episode_steps=STEPS)
    return build_controller(tmp_path_factory.mktemp("onnx") / "short.onnx", task=task)


# Long thresholds: a busy machine must not look like the fault under test.
PATIENT = Watchdog(measurement_hold=5.0, measurement_stop=10.0, chunk_hold=10.0, chunk_stop=20.0)
QUICK_CHUNK = Watchdog(measurement_hold=5.0, measurement_stop=10.0, chunk_hold=0.05, chunk_stop=0.6)
QUICK_MEASUREMENT = Watchdog(
    measurement_hold=0.05, measurement_stop=0.5, chunk_hold=10.0, chunk_stop=20.0
)
QUICK_HOLD = replace(QUICK_MEASUREMENT, measurement_stop=30.0)


def execute(controller, tmp_path, inject=None, watchdog=PATIENT, robot=None, **options):
    robot = robot or FakeRobot(lift_task(), inject)
    log = tmp_path / "run.mcap"
    options = {"episodes": 1, "realtime": False} | options
    run = Run(RunOptions(controller, log=log, **options), robot=robot, watchdog=watchdog)
    robot.run = run  # for those that break it
    run.execute()
    assert_commands_within_limits(robot)
    assert robot.stops >= 1
    return run, robot, read_log(log)


def assert_commands_within_limits(robot) -> None:
    """Whatever happened: every command is finite and inside, every step between two allowed."""
    if not robot.commands:
        return
    commands = np.array(robot.commands)
    assert np.isfinite(commands).all()
    assert np.abs(commands).max() <= 1.0
    limits, dt = robot.spec.limits, 0.05
    assert np.abs(np.diff(commands, axis=0)).max() <= limits.velocity[0] * dt * (1 + 1e-6)


def states(log) -> list[str]:
    return [text.split()[0] for text in log.event_texts("state")]


def test_a_run_without_faults_executes_the_episode_and_replays_exactly(short_controller, tmp_path):
    run, robot, log = execute(short_controller, tmp_path, seed=4)
    assert run.exit_code == OK and run.fault is None
    result = run.result()
    assert result["episodes"] == [{"seed": 4, "steps": STEPS, "success": False, "complete": True}]
    assert set(result["deploy"]) == {
        "control_hz",
        "ticks",
        "missed_deadlines",
        "lateness_us",
        "inference_ms",
        "envelope_violations_blocked",
    }
    assert set(result["deploy"]["lateness_us"]) == {"p50", "p99", "p999", "max"}
    assert states(log) == ["WARMUP", "RAMP", "RUN", "HOLD", "STOP"]
    assert log.complete and len(log.chunks) == STEPS // 4
    assert len(log.ticks) >= result["deploy"]["ticks"]
    np.testing.assert_array_equal(log.ticks["command"][-1], robot.commands[-1])
    assert_steps_are_those_of_the_chunks(log)
    outcome = replay(tmp_path / "run.mcap")
    assert outcome.passed and outcome.identical == outcome.chunks == STEPS // 4


def test_replay_notices_another_controller_and_other_actions(
    short_controller, build_controller, tmp_path
):
    _, _, log = execute(short_controller, tmp_path)
    other = build_controller(tmp_path / "other.onnx", sigma=0.2)
    with pytest.raises(GenpolicyError, match="not the controller"):
        replay(tmp_path / "run.mcap", other)
    place = log.chunks.dtype.fields["actions"][1]
    flip_bit(tmp_path / "run.mcap", tmp_path / "altered.mcap", "/chunk", 3, place + 3)
    outcome = replay(tmp_path / "altered.mcap")
    assert outcome.identical == outcome.chunks - 1 and not outcome.passed


def assert_steps_are_those_of_the_chunks(log) -> None:
    """Every control step with what it saw and did, and what was seen at the end."""
    np.testing.assert_array_equal(log.steps["step"], np.arange(STEPS + 1))
    assert log.steps["acted"].tolist() == [True] * STEPS + [False]
    executed = log.chunks["actions"][:, :4].reshape(STEPS, 7)
    np.testing.assert_array_equal(log.steps["action"][:-1], executed)
    np.testing.assert_array_equal(log.steps["obs"][:-1:4], log.chunks["obs"])
    assert set(log.steps["seed"]) == {4}


def flip_bit(path, out, topic, index, place) -> None:
    """A copy of a log, valid but for one bit of one message."""
    with open(path, "rb") as file, open(out, "wb") as copy:
        reader, writer = make_reader(file), Writer(copy)
        writer.start()
        for record in reader.iter_metadata():
            writer.add_metadata(record.name, record.metadata)
        channels, seen = {}, 0
        for schema, channel, message in reader.iter_messages(log_time_order=False):
            if channel.topic not in channels:
                number = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.topic] = writer.register_channel(channel.topic, "cdr", number)
            data = bytearray(message.data)
            if channel.topic == topic:
                data[4 + place] ^= seen == index
                seen += 1
            times = (message.log_time, bytes(data), message.publish_time, message.sequence)
            writer.add_message(channels[channel.topic], *times)
        writer.finish()
    assert seen > index


def kill_policy(number):
    def inject(robot, state, count):
        if count == 120:
            os.kill(robot.run.inference.pid, number)

    return inject


def test_killed_policy_holds_then_stops_and_the_log_is_whole(short_controller, tmp_path):
    run, _, log = execute(short_controller, tmp_path, kill_policy(signal.SIGKILL))
    assert run.exit_code == FAULT
    assert "inference: the process has ended" in run.fault
    assert states(log)[-3:] == ["RUN", "HOLD", "STOP"]
    assert log.complete
    assert log.event_texts("process_died")
    assert run.loop.envelope.stopped and run.loop.envelope.at_rest
    assert replay(tmp_path / "run.mcap").passed
    assert run.result()["fault"] == run.fault


def test_stuck_policy_holds_then_stops(short_controller, tmp_path):
    run, _, log = execute(short_controller, tmp_path, kill_policy(signal.SIGSTOP), QUICK_CHUNK)
    assert run.exit_code == FAULT and "no chunk for" in run.fault
    assert "hold" in {bytes(kind).decode() for kind in log.events["kind"]}
    assert states(log)[-2:] == ["HOLD", "STOP"]


def test_a_reply_of_another_size_stops(short_controller, tmp_path):
    def garble(robot, state, count):
        if count == 60:
            robot.run.inference._link.receive = lambda: memoryview(bytes(7))

    run, _, log = execute(short_controller, tmp_path, garble)
    assert run.exit_code == FAULT and "a reply of 7 bytes instead of" in run.fault
    assert states(log)[-2:] == ["HOLD", "STOP"]


def test_an_error_in_the_program_stops_and_stands_in_the_log(short_controller, tmp_path):
    def fail(robot, state, count):
        if count == 60:
            raise ValueError("an error of ours")

    robot = FakeRobot(lift_task(), fail)
    with pytest.raises(ValueError, match="of ours"):
        execute(short_controller, tmp_path, robot=robot)
    log = read_log(tmp_path / "run.mcap")
    assert robot.stops and log.event_texts("state")[-1] == "STOP ValueError: an error of ours"


def test_what_a_robot_says_while_it_stops_stands_in_the_log(short_controller, tmp_path):
    class Talker(FakeRobot):
        def stop(self):
            super().stop()
            self._state.faults.append("a brake is worn")

    _, _, log = execute(short_controller, tmp_path, robot=Talker(lift_task()))
    assert "a brake is worn" in log.event_texts("robot")


def test_a_robot_that_does_not_get_home_keeps_the_episodes_before(short_controller, tmp_path):
    class Homeless(FakeRobot):
        def reset(self, seed, cancelled=lambda: False):
            if seed == 1:
                raise GenpolicyError("joint 'elbow' did not get home")
            super().reset(seed, cancelled)

    run, _, log = execute(short_controller, tmp_path, robot=Homeless(lift_task()), episodes=2)
    assert run.exit_code == FAULT and "elbow" in run.fault and len(run.episodes) == 1
    assert "elbow" in log.event_texts("state")[-1]


def nan_observation(robot, state, count):
    state.observation["object"] = np.full(10, np.nan)


def nan_position(robot, state, count):
    state.position = np.full(7, np.nan)


def wrong_shape(robot, state, count):
    state.observation["object"] = np.zeros(9)


def missing_key(robot, state, count):
    del state.observation["object"]


def stale(robot, state, count):
    robot.frozen = True


def after(start, damage, end=10**9):
    def inject(robot, state, count):
        if start <= count < end:
            damage(robot, state, count)
        elif count >= end:
            robot.frozen = False

    return inject


@pytest.mark.parametrize("damage", [nan_observation, nan_position, wrong_shape, missing_key, stale])
def test_lasting_bad_measurements_hold_then_stop(short_controller, tmp_path, damage):
    run, robot, log = execute(short_controller, tmp_path, after(100, damage), QUICK_MEASUREMENT)
    assert run.exit_code == FAULT and "no usable measurement" in run.fault
    assert states(log)[-2:] == ["HOLD", "STOP"]
    assert run.loop.envelope.at_rest
    assert len(robot.commands) > 0


@pytest.mark.parametrize("damage", [nan_observation, stale])
def test_passing_bad_measurements_hold_and_recover(short_controller, tmp_path, damage):
    run, _, log = execute(short_controller, tmp_path, after(100, damage, 140), QUICK_HOLD)
    assert run.exit_code == OK
    sequence = states(log)
    assert sequence[sequence.index("HOLD") + 1] == "RUN"
    assert run.episodes[0].steps == STEPS
    assert replay(tmp_path / "run.mcap").passed


@pytest.mark.parametrize("damage", [nan_observation, wrong_shape])
def test_nothing_is_commanded_from_measurements_that_were_never_good(
    short_controller, tmp_path, damage
):
    run, robot, _ = execute(short_controller, tmp_path, damage, QUICK_MEASUREMENT)
    assert run.exit_code == FAULT
    assert robot.commands == []


def test_effort_beyond_its_limit_stops(short_controller, tmp_path):
    def inject(robot, state, count):
        state.effort = np.full(7, 11.0 if count > 100 else 1.0)

    robot = FakeRobot(lift_task(), inject, effort=True)
    run, _, log = execute(short_controller, tmp_path, robot=robot)
    assert run.exit_code == FAULT and "effort of axis 'x'" in run.fault
    assert states(log)[-2:] == ["HOLD", "STOP"]


def test_first_command_far_from_the_robot_stops_before_anything_moves(short_controller, tmp_path):
    robot = FakeRobot(lift_task())
    tight = replace(robot.spec.limits, first_step=(1e-6,) * 7)
    object.__setattr__(robot.spec, "limits", tight)
    run, _, _ = execute(short_controller, tmp_path, robot=robot)
    assert run.exit_code == FAULT and "first command refused" in run.fault
    assert robot.commands == []


def test_lost_robot_stops_at_once(short_controller, tmp_path):
    def inject(robot, state, count):
        if count > 100:
            raise LinkClosedError("robot 'fake': the process has ended")

    run, _, log = execute(short_controller, tmp_path, inject)
    assert run.exit_code == FAULT and "the process has ended" in run.fault
    assert states(log)[-1] == "STOP" and log.complete


def test_cancelling_stops_in_a_controlled_way(short_controller, tmp_path):
    def inject(robot, state, count):
        if count == 100:
            os.kill(os.getpid(), signal.SIGINT)

    run, _, log = execute(short_controller, tmp_path, inject)
    assert run.exit_code == INTERRUPTED and run.result()["interrupted"]
    assert states(log)[-3:] == ["RUN", "HOLD", "STOP"]
    assert run.loop.machine.state is State.STOP and run.loop.envelope.at_rest
    assert log.complete


def test_robot_of_another_kind_is_refused_before_it_is_commanded(short_controller, tmp_path):
    for field, value, message in (
        ("action_names", ("j1",) * 7, "action names"),
        ("control_mode", "joint_position", "control mode"),
        ("observations", (), "needs observation 'robot0_eef_pos'"),
        ("rate_hz", 33.0, "not a multiple"),
    ):
        robot = FakeRobot(lift_task())
        object.__setattr__(robot.spec, field, value)
        run = Run(RunOptions(short_controller, realtime=False), robot=robot)
        with pytest.raises(GenpolicyError, match=message):
            run.execute()
        assert robot.commands == [] and robot.stops >= 1


def test_robot_that_brakes_itself_is_told_at_once_and_goes_on_from_where_it_rests(
    short_controller, tmp_path
):
    robot = FakeRobot(lift_task(), after(100, stale, 140), brakes_itself=True)
    run, _, log = execute(short_controller, tmp_path, watchdog=QUICK_HOLD, robot=robot)
    assert run.exit_code == OK and run.episodes[0].steps == STEPS
    sequence = states(log)
    place = sequence.index("HOLD")
    assert sequence[place + 1 : place + 3] == ["RAMP", "RUN"]
    first, last = robot.calls.index("hold"), len(robot.calls) - robot.calls[::-1].index("hold") - 1
    assert set(robot.calls[first : last + 1]) == {"hold"}  # not one goal in between
    writes = robot.calls[:first].count("write")
    resumed, rested = robot.commands[writes], robot.commands[writes - 1]
    bound = np.array(robot.spec.limits.first_step)
    assert (np.abs(resumed - rested) <= bound).all()  # the guard of first commands is on again


def test_limits_that_stop_holding_are_events_with_their_axis(short_controller, tmp_path):
    robot = FakeRobot(lift_task())
    tight = replace(robot.spec.limits, velocity=(4.0, 1e-3, *(4.0,) * 5))
    object.__setattr__(robot.spec, "limits", tight)
    run, _, log = execute(short_controller, tmp_path, robot=robot)
    texts = log.event_texts("limit")
    assert "velocity y" in texts
    assert run.loop.envelope.violations["velocity"] >= texts.count("velocity y") >= 1


def test_controller_with_another_number_of_axes_is_refused(short_controller):
    robot = FakeRobot(lift_task())
    object.__setattr__(robot.spec, "axes", robot.spec.axes[:6])
    run = Run(RunOptions(short_controller, realtime=False), robot=robot)
    with pytest.raises(GenpolicyError, match=r"limits\.low needs 6|the robot 'fake' has"):
        run.execute()


class StatesOfARun(RuleBasedStateMachine):
    """Whatever is asked in whatever order: only the ways of the drawing are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[State] = [State.INIT]
        self.machine = StateMachine(lambda state, reason: self.heard.append(state))

    @rule(state=st.sampled_from(State))
    def ask(self, state):
        before = self.machine.state
        allowed = state is before or (before.name, state.name) in DRAWN
        try:
            self.machine.to(state, "asked")
        except RuntimeError:
            assert not allowed and self.machine.state is before
        else:
            assert allowed and self.machine.state is state

    @invariant()
    def nothing_follows_a_stop(self):
        assert State.STOP not in self.heard[:-1]
        assert self.heard[-1] is self.machine.state


# As drawn in docs/robots.md, written down a second time.
DRAWN = {
    *(("INIT", to) for to in ("WARMUP", "STOP")),
    *(("WARMUP", to) for to in ("RAMP", "STOP")),
    *(("RAMP", to) for to in ("RUN", "HOLD", "STOP")),
    *(("RUN", to) for to in ("RAMP", "HOLD", "STOP")),
    *(("HOLD", to) for to in ("RAMP", "RUN", "STOP")),
}
TestStatesOfARun = StatesOfARun.TestCase
TestStatesOfARun.settings = settings(max_examples=50, stateful_step_count=12, deadline=None)
