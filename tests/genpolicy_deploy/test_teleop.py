"""People at the robot: their devices, taking over from a policy, and demonstrations from it."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_robot import FakeRobot
from genpolicy_deploy import leaders, teleop
from genpolicy_deploy.flight_log import read_log
from genpolicy_deploy.leaders import arm, base
from genpolicy_deploy.leaders.gamepad import Gamepad
from genpolicy_deploy.leaders.keyboard import STEP, Keyboard
from genpolicy_deploy.replay import replay
from genpolicy_deploy.run import Run, RunOptions
from genpolicy_deploy.session import FAULT, OK
from genpolicy_deploy.teleop import Teleop, TeleopOptions
from genpolicy_deploy.watchdog import Watchdog
from rigs import CONFIGS, RIGS, SLOW_REPLY_S, Peer
from tiny_controller import lift_task

from genpolicy.spec import ActionSpec, GenpolicyError

PATIENT = Watchdog(measurement_hold=5.0, measurement_stop=30.0, chunk_hold=20.0, chunk_stop=30.0)
PATIENCE_S = 240.0  # a busy machine takes minutes to start a simulation
OPEN, CLOSED = -1.0, 1.0


def commands(gripper: float = OPEN) -> np.ndarray:
    return np.array([0.0] * 6 + [gripper])


# --- the keyboard -----------------------------------------------------------------------------


def test_keys_are_steps_of_the_hand():
    keyboard = Keyboard(lift_task())
    assert not keyboard.steers
    keyboard.typed(b"wwdR")
    assert keyboard.steers
    action = keyboard.action(commands())
    np.testing.assert_allclose(action, [2 * STEP, -STEP, 1.0, 0, 0, 0, OPEN], atol=1e-6)
    np.testing.assert_allclose(keyboard.action(commands()), [0] * 6 + [OPEN])  # one press, one step
    keyboard.typed(b"WWW")
    assert keyboard.action(commands())[0] == 1.0


def test_the_gripper_starts_as_it_is_and_its_key_turns_it_round():
    keyboard = Keyboard(lift_task())
    keyboard.typed(b"w")
    assert keyboard.action(commands(CLOSED))[6] == CLOSED
    keyboard.typed(b"g")
    assert [keyboard.action(commands(CLOSED))[6] for _ in range(2)] == [OPEN, OPEN]
    keyboard.typed(b"p")  # let go: somebody else may move it meanwhile
    keyboard.typed(b"g")
    assert keyboard.action(commands(OPEN))[6] == CLOSED


def test_verdicts_and_letting_go_by_key():
    keyboard = Keyboard(lift_task())
    keyboard.typed(b"w\n")
    assert (keyboard.steers, keyboard.verdict) == (True, True)
    keyboard.begin()
    assert (keyboard.steers, keyboard.verdict) == (False, None)
    keyboard.typed(b"w\x7f")
    assert keyboard.verdict is False
    keyboard.begin()
    keyboard.typed(b"wp")
    assert not keyboard.steers
    keyboard.typed(b"q")
    assert keyboard.quits and keyboard.verdict is False
    keyboard.begin()
    assert keyboard.verdict is False  # it ends the episode that had begun meanwhile


# --- the gamepad ------------------------------------------------------------------------------


def recorded(*events: tuple[int, int, int]) -> bytes:
    """Bytes as the kernel sends them: (value, type, number)."""
    return b"".join(struct.pack("<IhBB", 1000 + k, *e) for k, e in enumerate(events))


@pytest.fixture
def pad(tmp_path):
    path = tmp_path / "js0"
    os.mkfifo(path)
    with Gamepad(lift_task(), path) as gamepad, open(path, "wb", buffering=0) as kernel:
        yield gamepad, kernel


def test_sticks_push_the_hand_beyond_a_dead_zone(pad):
    gamepad, kernel = pad
    kernel.write(recorded((0, 0x82, 0), (-32767, 0x82, 2), (20000, 0x82, 1), (1, 0x81, 0)))
    gamepad.poll(0)
    assert not gamepad.steers  # that was its state when it was opened
    kernel.write(recorded((3000, 2, 0)))
    gamepad.poll(0)
    assert not gamepad.steers
    kernel.write(recorded((-32767, 2, 1), (32767, 2, 0), (-16384, 2, 4)))
    gamepad.poll(0)
    assert gamepad.steers
    action = gamepad.action(commands())
    np.testing.assert_allclose(action[:3], [1.0, -1.0, (0.5 - 0.15) / 0.85], atol=1e-3)
    np.testing.assert_allclose(gamepad.action(commands()), action)  # as long as it is pushed
    kernel.write(recorded((0, 2, 1), (0, 2, 0), (0, 2, 4)))
    gamepad.poll(0)
    np.testing.assert_allclose(gamepad.action(commands())[:6], 0.0)


def test_buttons_and_events_that_come_in_pieces(pad):
    gamepad, kernel = pad
    events = recorded((1, 1, 0), (0, 1, 0))
    kernel.write(events[:5])
    gamepad.poll(0)
    assert not gamepad.steers
    kernel.write(events[5:])
    gamepad.poll(0)
    assert gamepad.action(commands(OPEN))[6] == CLOSED
    kernel.write(recorded((1, 1, 1)))
    gamepad.poll(0)
    assert not gamepad.steers
    for button, verdict in ((2, True), (3, False)):
        kernel.write(recorded((1, 1, button)))
        gamepad.poll(0)
        assert gamepad.verdict is verdict


def test_a_gamepad_that_is_pulled_out_is_an_error(pad):
    gamepad, kernel = pad
    kernel.close()
    with pytest.raises(GenpolicyError, match="the gamepad is gone"):
        gamepad.poll(0)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mouse", "choose keyboard"),
        ("arm", "choose keyboard"),
        ("gamepad:/nowhere/js7", "no gamepad can be read"),
        ("arm:leader.toml", "use --leader keyboard or gamepad"),
    ],
)
def test_leaders_that_do_not_exist_or_fit_are_refused(name, sentence):
    with pytest.raises(GenpolicyError, match=sentence), leaders.make(name, lift_task()):
        pass


# --- another arm ------------------------------------------------------------------------------


def joint_task(names) -> object:
    count = len(names)
    action = ActionSpec(tuple(names), ("rad",) * count, (-3.0,) * count, (3.0,) * count)
    return replace(lift_task(), action=action, control_mode="joint_position", control={})


@pytest.fixture(scope="module")
def leader_file(tmp_path_factory):
    """A simulated arm that hangs limp from its servo bus, and the file that describes it."""
    rig = next(rig for rig in RIGS if rig.driver == "dynamixel")
    if not rig.available:
        pytest.skip(f"needs {rig.needs}")
    peer = Peer(rig)
    text = (CONFIGS / rig.config).read_text()
    path = tmp_path_factory.mktemp("leader") / "leader.toml"
    text = text.replace('stop = "hold"', 'stop = "release"', 1)
    text = re.sub(r"(?m)^port = .*$", f'port = "{peer.ready["port"]}"', text)
    text = re.sub(r"(?m)^(# *)?reply_s = .*$", f"reply_s = {SLOW_REPLY_S}", text)
    path.write_text(text)
    yield path, peer
    peer.close()


def test_a_leader_arm_leads_from_where_the_robot_is(leader_file, monkeypatch):
    monkeypatch.setattr(arm, "SILENCE_S", PATIENCE_S)  # servos of a busy machine answer late
    path, peer = leader_file
    names = ["joint3", "joint1", "joint2"]
    with leaders.make(f"arm:{path}", joint_task(names)) as leader:
        leader.begin()
        assert not peer.state()["torque"]
        deadline = time.monotonic() + PATIENCE_S
        first, moved_at, seed = None, 0.0, 0
        robot = np.array([1.0, 2.0, 3.0])
        while first is None or np.abs(leader.action(robot) - first).max() < 0.02:
            now = time.monotonic()
            assert now < deadline
            if now - moved_at > 0.5:  # somebody moves it: every episode starts elsewhere
                peer.order(f"reset {(seed := seed + 1)}")
                moved_at = now
            leader.poll(time.monotonic_ns())
            if leader.steers and first is None:
                first = leader.action(robot).copy()
                np.testing.assert_allclose(first, robot, atol=1e-6)  # no jump, wherever it is
            time.sleep(0.01)
        state = peer.state()
        assert state["goals"] == []  # nothing is ever written to it


def test_a_leader_arm_that_would_hold_against_the_hand_is_refused(leader_file, tmp_path):
    path, _ = leader_file
    stiff = tmp_path / "stiff.toml"
    stiff.write_text(path.read_text().replace("release", "hold", 1))
    with pytest.raises(GenpolicyError, match='stop = "release"'):
        leaders.make(f"arm:{stiff}", joint_task(["joint1"]))
    with pytest.raises(GenpolicyError, match="joint 'elbow'"):
        leaders.make(f"arm:{path}", joint_task(["elbow"]))


# --- taking over from a policy ----------------------------------------------------------------


class Plan(base.HandLeader):
    """Steers from one control step to another, as told beforehand."""

    start, end, breaks_at = 6, 12, None

    def __init__(self, task) -> None:
        super().__init__(task)
        self.given = 0
        self.robot: FakeRobot | None = None

    def poll(self, now_ns: int) -> None:
        steps = len(np.unique(np.array(self.robot.commands), axis=0)) if self.robot.commands else 0
        if self.breaks_at is not None and steps >= self.breaks_at:
            raise GenpolicyError("the gamepad is gone")
        self.steers = steps >= self.start and self.given < self.end - self.start

    def action(self, command):
        self.given += 1
        self._push[:] = 0.1 * self.given
        return super().action(command)


@pytest.fixture
def take_over(build_controller, tmp_path, monkeypatch):
    task = replace(lift_task(), max_episode_steps=30)
    controller = build_controller(tmp_path / "short.onnx", task=task)

    def run(**attributes):
        plan = Plan(task)
        for name, value in attributes.items():
            setattr(plan, name, value)
        plan.robot = robot = FakeRobot(task)
        monkeypatch.setattr(leaders, "make", lambda name, task: plan)
        options = RunOptions(
            controller, episodes=1, realtime=False, log=tmp_path / "run.mcap", leader="plan"
        )
        outcome = Run(options, robot=robot, watchdog=PATIENT)
        outcome.execute()
        return outcome, read_log(tmp_path / "run.mcap")

    return run


def test_a_person_takes_over_and_hands_back(take_over, tmp_path):
    run, log = take_over()
    assert run.exit_code == OK
    assert log.event_texts("intervention") == ["start", "end"]
    acted = log.steps[log.steps["acted"]]
    assert len(acted) == 30
    person = acted[acted["intervention"]]
    assert len(person) == 6
    np.testing.assert_allclose(
        person["action"][:, :6], np.outer(0.1 * np.arange(1, 7), np.ones(6)), atol=1e-6
    )
    assert np.ptp(np.flatnonzero(acted["intervention"])) == 5  # at a stretch
    assert log.ticks["intervention"].any() and not log.ticks["intervention"].all()
    # The policy goes on from what it sees after the person let go, not from an old plan.
    back = acted[np.flatnonzero(acted["intervention"])[-1] + 1]
    chunk = log.chunks[log.chunks["step"] == back["step"]]
    assert len(chunk) == 1 and chunk[0]["t_obs_ns"] > person[-1]["t_ns"]
    np.testing.assert_array_equal(chunk[0]["actions"][0], back["action"])
    assert replay(tmp_path / "run.mcap").passed


def test_a_leader_that_breaks_stops_the_robot(take_over):
    run, log = take_over(breaks_at=8)
    assert run.exit_code == FAULT
    assert run.fault == "stopped: the gamepad is gone"
    assert log.event_texts("state")[-1].startswith("STOP")


# --- demonstrations ---------------------------------------------------------------------------


class Person(Keyboard):
    """Lifts the cube by the keyboard: looks at each new observation, and presses keys."""

    robot = None

    def poll(self, now_ns: int) -> None:
        seen = self.robot.read().observation
        if getattr(self, "looked", None) == now_ns // 50_000_000:
            return  # a person is not as quick as the loop
        self.looked = now_ns // 50_000_000
        to_cube, opening = seen["object"][7:10], seen["robot0_gripper_qpos"][0]
        self._push[:] = 0.0
        if np.abs(to_cube).max() < 0.012:
            if self._grip != CLOSED:
                self.typed(b"g")
            elif opening < 0.024:
                self.typed(b"R")
        elif self._grip == CLOSED:
            self.typed(b"R")
        else:
            for axis, (more, less) in enumerate(("ws", "ad", "rf")):
                if abs(to_cube[axis]) > 0.006:
                    key = more if to_cube[axis] > 0.0 else less
                    far = abs(to_cube[axis]) > 0.04
                    self.typed((key.upper() if far else key).encode())


@pytest.mark.timeout(900)  # on an idle machine, less than a minute
def test_a_lifted_cube_becomes_a_demonstration(tmp_path, monkeypatch):
    log, data = tmp_path / "demo.mcap", tmp_path / "demo.hdf5"
    options = TeleopOptions("keyboard", log, episodes=1, max_steps=400, realtime=False)
    session = Teleop(options, watchdog=PATIENT)
    Person.robot = session.robot
    monkeypatch.setattr(leaders, "make", lambda name, task: Person(task))
    monkeypatch.setattr(Person, "check_terminal", lambda self, there: None)
    session.execute()
    assert session.fault is None
    [episode] = session.episodes
    assert episode.success and episode.steps > 10
    steps = read_log(log).steps
    assert steps[steps["acted"]]["intervention"].all()

    from genpolicy.cli import main

    assert main(["convert", str(log), f"out={data}"]) == 0
    arguments = ["task=lift", "policy=flow_mlp", f"data.path={data}", "iterations=2"]
    arguments += ["wandb.mode=disabled", f"run_dir={tmp_path / 'run'}"]
    assert main(["pretrain", *arguments]) == 0


@pytest.mark.timeout(900)
def test_the_keyboard_of_a_terminal_drives_the_robot(tmp_path, request):
    log = tmp_path / "keys.mcap"
    command = ["-m", "genpolicy_deploy", "teleop", "--leader", "keyboard", "--log", str(log)]
    command += ["--no-realtime"]
    ours, theirs = pty.openpty()
    code = f"import os, sys; os.login_tty({theirs}); "
    code += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], pass_fds=[theirs], start_new_session=False
    )
    os.close(theirs)
    request.addfinalizer(process.terminate)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + PATIENCE_S
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 4096)

    until(b"emergency stop")
    seen = b""
    deadline = time.monotonic() + PATIENCE_S
    while b"episode 0" not in seen:
        assert time.monotonic() < deadline
        os.write(ours, b"w")
        time.sleep(0.5)
        os.write(ours, b"\n")
        if select.select([ours], [], [], 0.5)[0]:
            seen += os.read(ours, 4096)
    os.write(ours, b"q")
    until(b"of them successes")
    assert process.wait(PATIENCE_S) == OK
    os.close(ours)
    steps = read_log(log).steps
    first = steps[steps["acted"]][0]
    assert first["intervention"]
    assert first["action"][0] >= STEP - 1e-6  # or more, had presses to wait for a slow start
    np.testing.assert_array_equal(first["action"][1:], [0, 0, 0, 0, 0, OPEN])
    assert steps[~steps["acted"]]["success"][0]


def test_a_keyboard_without_a_terminal_is_refused(tmp_path):
    options = TeleopOptions("keyboard", tmp_path / "x.mcap", realtime=False)
    session = Teleop(options)
    session.robot = FakeRobot(lift_task())
    with pytest.raises(GenpolicyError, match="needs a terminal"):
        session.execute()
    assert session.robot.stops == 1
    assert not options.log.exists()


def test_the_task_follows_from_the_robot():
    robot = FakeRobot(lift_task())
    options = TeleopOptions("keyboard", Path("unused.mcap"), task="stack")
    task = teleop.task_of(robot.spec, options)
    assert (task.task, task.control_mode, task.action.names) == (
        "stack",
        "osc_pose_delta",
        lift_task().action.names,
    )
    with pytest.raises(GenpolicyError, match="not a multiple"):
        teleop.task_of(robot.spec, replace(options, control_hz=30.0))
