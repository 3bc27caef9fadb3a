"""What every driver must do, judged by what its simulated arm received over the wire."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from genpolicy_deploy.robots.arm import ArmRobot
from genpolicy_deploy.robots.arm_messages import FAULT, STATE, message_kind, message_text
from rigs import ACCELERATION, RIGS, VELOCITY, Peer

from genpolicy.spec import GenpolicyError

PATIENCE_S = 15.0  # for what takes a fraction of a second on an idle machine


class Station:
    """A rig's simulated arm, and one connection to it that tests may share."""

    def __init__(self, rig) -> None:
        self.peer = Peer(rig)
        self._drive: Drive | None = None

    def drive(self) -> Drive:
        """Connected, at rest."""
        if self._drive is None or self._drive.robot.pid is None:
            self.prepare()
            robot = ArmRobot(self.peer.rig.driver, self.peer.document())
            self._drive = Drive(robot.__enter__(), self.peer)
        self._drive.begin()
        return self._drive

    def prepare(self) -> None:
        """Nobody is connected, nothing is broken, the arm is where it starts."""
        if self._drive is not None:
            self._drive.robot.stop()
            self._drive = None
        for order in (*self.peer.rig.recover, "reset 0"):
            self.peer.order(order)
        self.peer.state()

    def close(self) -> None:
        if self._drive is not None:
            self._drive.robot.stop()
        self.peer.close()


@pytest.fixture(scope="module", params=RIGS, ids=lambda rig: rig.driver)
def station(request):
    if not request.param.available:
        pytest.skip(f"needs {request.param.needs}")
    station = Station(request.param)
    yield station
    station.close()


@pytest.fixture
def drive(station):
    """A connection that other tests have used, and will use: leave the arm able to move."""
    drive = station.drive()
    yield drive
    if drive.robot._stopped is not None:
        drive.robot.stop()


@pytest.fixture
def peer(station) -> Peer:
    """An arm to which nobody is connected."""
    station.prepare()
    return station.peer


class Drive:
    """A loop of the test's own: sends goals, keeps every measurement and every fault."""

    def __init__(self, robot: ArmRobot, peer: Peer) -> None:
        self.robot, self.peer = robot, peer
        self.commands: list[np.ndarray] = []  # every joint command that the arm's process sent
        self.gaps: list[int] = []  # commands before which its process had not run in time
        self.faults: list[str] = []
        receive = robot._link.receive

        def tapped():
            message = receive()
            if message is None:
                return None
            if message_kind(message) == FAULT and "did not run" in message_text(message):
                self.gaps.append(len(self.commands))
            if message_kind(message) == STATE:
                record = np.frombuffer(message, robot._got.dtype)[0]
                self.commands.append(record["command"].copy())
            return message

        robot._link.receive = tapped

    def begin(self) -> None:
        """An episode: the arm rests, nothing of before is remembered."""
        self.robot.reset(0)
        self.read()
        del self.commands[:-1]  # a busy peer may note only now that it was told to rest
        self.peer.state()
        self.gaps.clear()
        self.faults.clear()
        self.start = self.state.position.copy()
        self.start[0] = 0.0  # no drift from test to test
        self.goal = self.state.position.copy()

    def read(self) -> None:
        self.state = self.robot.read()
        self.faults += self.state.faults
        self.state.faults.clear()

    def run(self, seconds: float, goal=None, silent: bool = False) -> None:
        """Send ``goal(elapsed)``, or the last one again, at the robot's rate."""
        begin = time.monotonic()
        while (elapsed := time.monotonic() - begin) < seconds:
            if goal is not None:
                self.goal = goal(elapsed)
            if not silent:
                self.robot.write(self.goal)
            time.sleep(1.0 / self.robot.spec.rate_hz)
            self.read()

    def until(self, condition, what: str, silent: bool = False) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.state}, {self.faults[-5:]}"
            self.run(0.02, silent=silent)

    def swing(self, elapsed: float) -> np.ndarray:
        """Goals that joint 0 can only follow at its greatest speed."""
        goal = self.start.copy()
        goal[0] += 0.4 * (1.0 if elapsed % 1.4 < 0.7 else -1.0)
        return goal

    @property
    def holding(self) -> bool:
        return bool(self.robot._got["holding"][0])

    @property
    def resting(self) -> bool:
        last = self.commands[-5:]
        return len(last) == 5 and all((command == last[0]).all() for command in last)


@contextlib.contextmanager
def driving(peer: Peer, **options):
    with ArmRobot(peer.rig.driver, peer.document(**options)) as robot:
        drive = Drive(robot, peer)
        drive.begin()
        yield drive


def check_wire(drive: Drive) -> np.ndarray:
    """What the arm received obeys the limits; returns those goals ``[n, J]``."""
    rig, limits, dt = drive.peer.rig, drive.robot.config.limits, 1.0 / drive.robot.spec.rate_hz
    received = drive.peer.state()["goals"]
    with contextlib.suppress(GenpolicyError):
        drive.read()  # all commands that the arm may have received by now
    assert len(received) > 10
    times = np.array([t for t, _ in received])
    goals, tick = np.array([goal for _, goal in received]), rig.tick
    assert (goals >= np.array(limits.low) - tick).all()
    assert (goals <= np.array(limits.high) + tick).all()
    if rig.lossless:
        assert np.abs(np.diff(goals, axis=0)).max() <= VELOCITY * dt * 1.001 + tick
    # Whatever the wire does to single commands: in half a second no joint gets further than its
    # speed and a quarter of a second of this machine's lateness allow.
    for i in range(0, len(goals), 5):
        j = int(np.searchsorted(times, times[i] + 0.5))
        if j < len(goals):
            allowed = VELOCITY * (times[j] - times[i] + 0.25)
            assert np.abs(goals[j] - goals[i]).max() <= allowed + tick
    # The wire hides the acceleration of single steps; what was sent does not.
    check_commands(drive, dt)
    sent = np.array(drive.commands)
    for goal in goals[:: max(len(goals) // 50, 1)]:
        nearest = np.abs(sent - goal).max(axis=1).min()
        assert nearest <= tick, f"{goal}: the arm was told another position"
    return goals


def check_commands(drive: Drive, dt: float) -> None:
    """Between gaps of the machine's making, after which joints begin at rest."""
    for commands in np.split(np.array(drive.commands), drive.gaps):
        step = np.diff(commands, axis=0)
        assert np.abs(step).max(initial=0.0) <= VELOCITY * dt * 1.0001
        if len(step) > 1:
            assert np.abs(np.diff(step, axis=0)).max() <= ACCELERATION * dt**2 * 1.0001


def check_rests(peer: Peer) -> None:
    """The arm does not move any more."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        first = np.array(peer.state()["position"])
        time.sleep(0.3)
        again = np.array(peer.state()["position"])
        if np.abs(again - first).max() < 2e-3:
            return
        assert time.monotonic() < deadline, again - first


def test_it_connects_reports_and_follows(drive):
    truth = drive.peer.state()
    assert drive.robot.spec.axes == tuple(truth["names"])
    tolerance = 2.0 * drive.peer.rig.tick + 1e-3
    np.testing.assert_allclose(drive.state.position, truth["position"], atol=tolerance)
    np.testing.assert_array_equal(drive.state.observation["joints"], drive.state.position)
    seq, t_ns = drive.state.seq, drive.state.t_ns
    goal = drive.start.copy()
    goal[0] += 0.15
    drive.run(0.2, lambda t: goal)
    drive.until(lambda: abs(drive.state.position[0] - goal[0]) < 0.02, "the arm follows")
    assert drive.state.seq > seq and drive.state.t_ns > t_ns
    assert abs(drive.state.t_ns - time.monotonic_ns()) < 1e9
    check_wire(drive)


def test_limits_hold_at_the_wire(drive):
    drive.run(2.5, drive.swing)
    goals = check_wire(drive)
    speed = np.abs(np.diff(np.array(drive.commands)[:, 0])).max() * drive.robot.spec.rate_hz
    assert speed > 0.9 * VELOCITY, "the motion does not reach the limit that is checked"
    assert np.ptp(goals[:, 0]) > 0.2
    assert drive.state.blocked > 0


def test_bad_packets_are_faults_and_the_arm_goes_on(drive):
    drive.run(0.3, drive.swing)
    for order in drive.peer.rig.damage:
        before, seq = len(drive.faults), drive.state.seq
        drive.peer.order(order)
        drive.run(0.2, drive.swing)
        drive.until(lambda seq=seq: drive.state.seq > seq + 3, f"measurements after '{order}'")
        assert np.isfinite(drive.state.position).all()
        if not order.startswith(("noise", "duplicate")) and drive.peer.rig.lossless:
            drive.until(lambda n=before: len(drive.faults) > n, f"a fault for '{order}'")
    check_wire(drive)


def test_a_goal_that_is_no_number_brakes(drive):
    drive.run(0.5, drive.swing)
    bad = drive.start * np.nan
    drive.run(0.3, lambda t: bad)
    drive.until(lambda: drive.resting, "rest")
    assert any("not_finite" in fault for fault in drive.faults)
    goals = check_wire(drive)
    assert np.isfinite(goals).all()


def test_a_silent_arm_is_told_to_brake(drive):
    drive.run(0.4, drive.swing)
    drive.peer.order("silent 0.4")
    drive.until(lambda: drive.holding, "the arm holds")
    assert any("no measurement" in fault for fault in drive.faults)
    age = time.monotonic_ns() - drive.state.t_ns
    assert age > 0.05e9, "an old measurement looks new"
    drive.until(lambda: not drive.holding, "it goes on")
    here = drive.state.position[0]
    drive.goal[0] = here + (0.1 if here < drive.start[0] else -0.1)
    drive.until(lambda: abs(drive.state.position[0] - drive.goal[0]) < 0.02, "it follows again")


def test_a_silent_loop_makes_the_arm_rest(drive):
    drive.run(0.5, drive.swing)
    drive.run(0.3, silent=True)
    drive.until(lambda: drive.holding and drive.resting, "rest", silent=True)
    assert any("no goal for" in fault for fault in drive.faults)
    check_wire(drive)
    check_rests(drive.peer)


def test_stop_while_moving_brakes_inside_the_limits(peer):
    with driving(peer) as drive:
        drive.run(0.5, drive.swing)
        before = drive.commands[-1][0]
        drive.robot.stop()  # waits for it
        goals = check_wire(drive)
        way = VELOCITY**2 / ACCELERATION / 2.0 + VELOCITY * 0.35
        assert abs(goals[-1, 0] - before) < way
        check_rests(peer)
        with pytest.raises(GenpolicyError, match="asked to"):
            drive.robot.read()


def test_a_killed_loop_leaves_the_arm_at_rest(peer):
    loop = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("arm_loop.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    given = {"driver": peer.rig.driver, "document": peer.document()}
    loop.stdin.write(json.dumps(given) + "\n")
    loop.stdin.flush()
    arm_pid = int(loop.stdout.readline())  # it moves now
    peer.state()
    loop.send_signal(signal.SIGKILL)
    loop.wait()
    loop.stdin.close()
    loop.stdout.close()
    wait_for_end(arm_pid)
    goals = np.array([goal for _, goal in peer.state()["goals"]])
    if len(goals) > 3 and peer.rig.lossless:
        step = VELOCITY / given["document"]["rate_hz"]
        assert np.abs(np.diff(goals, axis=0)).max() <= 1.01 * step + peer.rig.tick
        assert np.abs(goals[-1] - goals[-2]).max() <= 0.1 * step + peer.rig.tick
    check_rests(peer)
    state = peer.state()
    assert not state["goals"], "somebody still commands the arm"
    assert not state.get("connected", False), "the driver was not stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_arms_process_brakes(peer, number):
    if peer.rig.driver != "lerobot" and number != signal.SIGTERM:
        pytest.skip("the driver makes no difference")
    with driving(peer) as drive:
        drive.run(0.5, drive.swing)
        os.kill(drive.robot.pid, number)
        with pytest.raises(GenpolicyError, match=signal.Signals(number).name):
            drive.run(PATIENCE_S, drive.swing)
        check_wire(drive)
        check_rests(peer)


def test_an_unplugged_arm_ends_the_run_and_can_be_connected_again(peer):
    with driving(peer) as drive:
        drive.run(0.4, drive.swing)
        peer.order(peer.rig.unplug)
        with pytest.raises(GenpolicyError) as raised:
            drive.run(PATIENCE_S, drive.swing)
        assert len(str(raised.value)) > 20
    with pytest.raises(GenpolicyError), driving(peer):
        pass  # it is not there
    for order in (*peer.rig.plug, *peer.rig.recover, "reset 0"):
        peer.order(order)
    with driving(peer) as drive:
        drive.run(0.3, drive.swing)
        assert drive.state.seq > 0


def test_another_arm_is_refused(peer):
    changes = peer.rig.wrong_arm
    with pytest.raises(GenpolicyError) as raised, driving(peer, **changes):
        pass
    assert peer.rig.driver in str(raised.value).lower()
    assert not peer.state()["goals"]


def test_a_hardware_error_stops_with_its_name(peer):
    if peer.rig.error is None:
        pytest.skip("its wire carries no such errors")
    order, name = peer.rig.error
    with driving(peer) as drive:
        drive.run(0.4, drive.swing)
        peer.order(order)
        with pytest.raises(GenpolicyError, match=f"(?i){name}"):
            drive.run(PATIENCE_S, drive.swing)
    peer.close()  # as a real one, it wants its power switched off and on
    peer.start()


def test_effort_beyond_its_limit_stops(peer):
    document = peer.document()
    if not peer.rig.effort:
        document["joints"]["effort"] = [1.0] * len(document["joints"]["names"])
        with pytest.raises(GenpolicyError, match="reports no effort"):
            ArmRobot(peer.rig.driver, document).__enter__()
        return
    document["joints"]["effort"] = [1e-6] * len(document["joints"]["names"])
    with (
        ArmRobot(peer.rig.driver, document) as robot,
        pytest.raises(GenpolicyError, match="effort"),
    ):
        drive = Drive(robot, peer)
        drive.begin()
        drive.run(PATIENCE_S, drive.swing)


def test_hand_goals_move_the_hand(peer):
    with driving(peer, mode="hand") as drive:
        before = np.array(peer.state()["hand"])
        np.testing.assert_allclose(drive.state.position[:3], drive.state.observation["eef"])
        goal = drive.state.position.copy()
        goal[2] += 0.04
        drive.run(0.5, lambda t: goal)
        drive.until(lambda: abs(drive.state.position[2] - goal[2]) < 4e-3, "the hand follows")
        after = np.array(peer.state()["hand"])
        np.testing.assert_allclose(after - before, [0.0, 0.0, 0.04], atol=8e-3)


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return  # nobody collects orphans here
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError("the arm's process is still there")
