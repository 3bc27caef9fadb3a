"""The emergency stop: whatever sets it, the run ends by braking, and it stays set."""

from __future__ import annotations

import os
import pty
import signal

import pytest
from fake_robot import FakeRobot
from genpolicy_deploy.estop import SIGNAL, EmergencyStop
from genpolicy_deploy.run import Run, RunOptions
from genpolicy_deploy.session import FAULT
from genpolicy_deploy.states import State
from genpolicy_deploy.watchdog import Watchdog
from tiny_controller import lift_task

from genpolicy.spec import GenpolicyError

PATIENT = Watchdog(measurement_hold=5.0, measurement_stop=10.0, chunk_hold=10.0, chunk_stop=20.0)


def execute(controller, tmp_path, trigger, brakes_itself=False):
    """A run in which ``trigger`` is called at the hundredth measurement."""
    stop = tmp_path / "stop"

    def inject(robot, state, count):
        if count == 100:
            trigger(stop)

    robot = FakeRobot(lift_task(), inject, brakes_itself=brakes_itself)
    options = RunOptions(controller, episodes=1, realtime=False, estop=stop)
    run = Run(options, robot=robot, watchdog=PATIENT)
    run.execute()
    assert run.exit_code == FAULT
    assert run.loop.machine.state is State.STOP and run.loop.envelope.stopped
    assert robot.reads <= 101  # it ends at the next tick
    return run, robot, stop


@pytest.mark.parametrize("brakes_itself", [False, True])
def test_file_stops_the_robot_and_keeps_the_next_run_from_beginning(
    controller_path, tmp_path, brakes_itself
):
    run, robot, stop = execute(controller_path, tmp_path, lambda stop: stop.touch(), brakes_itself)
    assert "emergency stop by file" in run.fault
    if brakes_itself:  # no detour over a braked goal: the stop itself comes next
        assert "hold" not in robot.calls and robot.calls[-1] == "stop"
    else:
        assert run.loop.envelope.at_rest
    with pytest.raises(GenpolicyError, match="remove the file"):
        Run(RunOptions(controller_path, estop=stop), robot=FakeRobot(lift_task()))
    stop.unlink()
    Run(RunOptions(controller_path, estop=stop), robot=FakeRobot(lift_task()))


def test_signal_stops_and_leaves_the_file(controller_path, tmp_path):
    run, _, stop = execute(controller_path, tmp_path, lambda stop: os.kill(os.getpid(), SIGNAL))
    assert "SIGUSR1" in run.fault
    assert "SIGUSR1" in stop.read_text()
    assert signal.getsignal(SIGNAL) == signal.SIG_DFL


def test_no_run_begins_where_the_stop_could_not_be_left(controller_path, tmp_path):
    with pytest.raises(GenpolicyError, match="folder does not exist"):
        EmergencyStop(tmp_path / "nowhere" / "stop")


@pytest.mark.parametrize(("typed", "stops"), [(b" ", True), (b"\x1b", True), (b"ab", False)])
def test_keys(monkeypatch, typed, stops):
    ours, theirs = pty.openpty()
    monkeypatch.setattr(os, "tcgetpgrp", lambda terminal: os.getpgrp())
    with EmergencyStop(keyboard=theirs) as estop:
        assert estop.poll() is None
        os.write(ours, typed)
        assert (estop.poll() == "key") is stops
        assert (estop.poll() == "key") is stops  # latched
        os.close(ours)
        assert (estop.poll() == "key") is stops  # a terminal that has gone is no key
    os.close(theirs)


def test_another_programs_terminal_is_left_alone():
    ours, theirs = pty.openpty()  # of which we are not the foreground
    with EmergencyStop(keyboard=theirs) as estop:
        os.write(ours, b" ")
        assert estop.poll() is None
    os.close(ours)
    os.close(theirs)
