"""The Dynamixel driver against eight simulated servos, a process at the end of a real port."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from genpolicy_deploy.robots.config import load_config
from genpolicy_sim.peers import dynamixel_servo
from peer_process import PeerProcess
from rigs import CONFIGS
from servo_bus import ServoArm, build, check_goals_into_silence, mend

from genpolicy.spec import GenpolicyError

HASTY_S = 0.3
TABLE = {  # address, bytes
    "model": (0, 2),
    "delay": (9, 1),
    "mode": (11, 1),
    "lowest": (52, 4),
    "torque": (64, 1),
    "watchdog": (98, 1),
}


@pytest.fixture(scope="module")
def shared_peer():
    peer = PeerProcess("dynamixel")
    yield peer
    peer.close()


@pytest.fixture
def peer(shared_peer):
    sound = (f"set {servo} {register} 1 0" for servo in range(1, 9) for register in (70, 98))
    return mend(shared_peer, *sound, "jump 1 0 0")


class Arm(ServoArm):
    driver = "dynamixel"
    patient = ServoArm.patient | {"watchdog_s": 2.5}  # the longest

    def register(self, servo: int, name: str) -> int:
        return self.device._bus.get(servo, TABLE[name])


def test_the_shipped_file_describes_the_simulated_arm():
    driver = load_config(CONFIGS / "dynamixel.toml", "dynamixel")["driver"]
    assert tuple(driver["zero"]) == dynamixel_servo.ZERO
    np.testing.assert_allclose(driver["scale"], dynamixel_servo.SCALE, rtol=1e-7)


def test_measurements_are_the_arms(peer):
    begin = time.monotonic_ns()
    with Arm(peer) as arm:
        assert arm.read() == []
        truth = peer.state()
    assert begin < arm.state.t_ns < time.monotonic_ns() and arm.state.seq == 1
    np.testing.assert_allclose(arm.state.position[:7], truth["position"][:7], atol=4e-3)
    assert abs(arm.state.position[7] - truth["position"][7]) < 1e-4


def test_a_reversed_joint_is_reversed_both_ways(peer):
    scale = load_config(CONFIGS / "dynamixel.toml", "dynamixel")["driver"]["scale"]
    zero = [*dynamixel_servo.ZERO]
    scale[0] = -scale[0]
    with Arm(peer, scale=scale, zero=zero) as arm:
        arm.read()
        goal = arm.state.position.copy()
        truth = peer.state()["position"]
        assert arm.state.position[0] == pytest.approx(-truth[0], abs=4e-3)
        goal[0] += 0.2
        arm.device.write(goal)
        arm.read()
        assert peer.state()["goals"][0][1][0] == pytest.approx(-goal[0], abs=1e-3)


def test_effort_is_in_ampere_with_the_joints_sign(peer):
    with Arm(peer) as arm:
        deadline = time.monotonic() + 20.0
        torque = np.zeros(8)
        while np.abs(torque).max() < 5.0 and time.monotonic() < deadline:
            torque = np.array(peer.state()["effort"])
        assert arm.read() == []
    strong = np.abs(torque) > 5.0
    assert strong.any()
    np.testing.assert_allclose(arm.state.effort[strong], torque[strong] / 100.0, rtol=0.2)


def test_torque_comes_on_where_the_arm_is(peer):
    for servo in range(1, 9):
        peer.order(f"set {servo} 116 4 2000")  # goals from some earlier life
        peer.order(f"set {servo} 64 1 0")
    before = np.array(peer.state()["position"])
    with Arm(peer) as arm:
        assert [arm.register(servo, "torque") for servo in range(1, 9)] == [1] * 8
        after = peer.state()
    np.testing.assert_allclose(after["target"], before, atol=4e-3)
    np.testing.assert_allclose(after["position"], before, atol=0.02)


def test_commands_arrive_as_joint_goals(peer):
    with Arm(peer) as arm:
        arm.read()
        goal = arm.state.position + np.array([0.1, -0.1, 0.1, 0.1, -0.1, 0.1, -0.1, 0.005])
        peer.state()
        arm.device.write(goal)
        arm.read()  # an answer: the goals before it have been heard
        goals = peer.state()["goals"]
        assert len(goals) == 1
        np.testing.assert_allclose(goals[0][1], goal, atol=8e-4)
        deadline = time.monotonic() + 20.0
        while np.abs(arm.state.position - goal).max() > 0.02 and time.monotonic() < deadline:
            arm.read()
        np.testing.assert_allclose(arm.state.position, goal, atol=0.02)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("drop 1", "servo 1 .joint1. does not answer"),
        ("crc 1", "the answer of servo 1 .joint1. is damaged"),
        ("partial 1", "servo 1 .joint1."),
        ("mute 4 1000", "servo 4 .joint4. does not answer"),
    ],
)
def test_what_is_lost_or_damaged_is_a_fault_and_the_measurement_stays(peer, fault, words):
    with Arm(peer, reply_s=HASTY_S) as arm:
        while arm.read():
            pass  # a busy machine loses some too
        before = arm.state.seq, arm.state.t_ns, arm.state.position.copy()
        peer.order(fault)
        faults = arm.read()
        assert len(faults) == 1
        assert re.search(words, faults[0])
        assert before[:2] == (arm.state.seq, arm.state.t_ns)
        np.testing.assert_array_equal(before[2], arm.state.position)
        peer.order("mute 4 0")
        deadline = time.monotonic() + 20.0
        while arm.read() and time.monotonic() < deadline:
            pass
        assert arm.state.seq == before[0] + 1


def test_noise_before_an_answer_is_skipped(peer):
    with Arm(peer) as arm:
        peer.order("noise 37")
        assert arm.read() == []


def test_answers_with_the_header_in_their_data_arrive_whole(peer):
    with Arm(peer) as arm:
        peer.order("freeze 1000")
        peer.order("set 3 128 4 -1")  # velocity FF FF FF FF,
        peer.order("set 3 132 4 2301")  # position FD 08 00 00: to be stuffed
        assert arm.read() == []
        assert arm.state.position[2] == pytest.approx((2301 - 2048) * 2 * np.pi / 4096)


def test_silence_is_waited_for_in_bounded_time(peer):
    with Arm(peer, reply_s=HASTY_S) as arm:
        peer.order("silent 1000")
        begin = time.monotonic()
        faults = arm.read()
        assert time.monotonic() - begin < 2.0
        assert "does not answer" in faults[0]


def test_goals_into_silence_do_not_count_as_sent(peer):
    with Arm(peer, reply_s=HASTY_S) as arm:
        check_goals_into_silence(arm, peer)


def test_endless_noise_is_not_listened_to_for_ever(peer):
    with Arm(peer, reply_s=HASTY_S) as arm:
        peer.order("silent 1000")
        port = arm.device._bus.port
        port.ser.read = lambda size: b"\x00" * size
        begin = time.monotonic()
        assert arm.read()
        assert time.monotonic() - begin < 2.0


@pytest.mark.parametrize(
    ("kind", "words"),
    [("overload", "overload"), ("overheating", "overheating"), ("voltage", "input voltage")],
)
def test_hardware_errors_name_the_servo(peer, kind, words):
    with Arm(peer) as arm:
        assert arm.read() == []
        peer.order(f"error 6 {kind}")
        with pytest.raises(GenpolicyError, match=rf"servo 6 \(joint6\) reports.*: {words}"):
            arm.read()
    with pytest.raises(GenpolicyError, match=rf"servo 6 \(joint6\) reports.*: {words}"):
        Arm(peer).device.connect()


def test_the_servos_stop_when_the_bus_falls_silent_and_the_driver_says_so(peer):
    with Arm(peer, watchdog_s=0.1) as arm:
        arm.read()
        time.sleep(0.3)
        assert arm.read() == []  # nothing moves yet, nothing to stop
        arm.device.write(arm.state.position)
        assert arm.device._guarded
        time.sleep(0.3)
        peer.state()  # the servos have looked at the clock
        with pytest.raises(GenpolicyError, match="has stopped by itself: its bus was silent"):
            arm.read()
        stopped = peer.state()
        arm.device.write(arm.state.position + 0.5)
        with pytest.raises(GenpolicyError, match="has stopped by itself"):
            arm.read()
        after = peer.state()
        np.testing.assert_allclose(after["target"], stopped["target"])
        assert after["torque"]
    with Arm(peer) as arm:  # start again
        assert arm.read() == []
        goal = arm.state.position + 0.01
        arm.device.write(goal)
        arm.read()
        np.testing.assert_allclose(peer.state()["target"], goal, atol=2e-3)


def test_unplugged_is_an_error_and_plugged_in_again_it_connects(peer):
    with Arm(peer) as arm:
        peer.order("unplug")
        for exchange in (arm.read, lambda: arm.device.write(np.zeros(8))):
            with pytest.raises(GenpolicyError, match="is gone"):
                exchange()
        arm.device.stop()
        with pytest.raises(GenpolicyError, match="cannot be opened"):
            arm.device.connect()
        peer.order("plug")
        arm.device.connect()
        assert arm.read() == []


@pytest.mark.parametrize(("stop", "torque"), [("hold", True), ("release", False)])
def test_stop_leaves_what_was_asked_for(peer, stop, torque):
    with Arm(peer, stop) as arm:
        arm.read()
        arm.device.write(arm.state.position)
        arm.device.stop()
        arm.device.stop()
        assert peer.state()["torque"] == torque
        assert arm.register(1, "watchdog") == 0
    arm.device.close()
    arm.device.stop()


@pytest.mark.parametrize(
    ("register", "value", "normal", "message"),
    [
        ("model", 1190 + 1, 1020, r"servo 2 \(joint2\) is model 1191"),
        ("mode", 1, 3, r"servo 2 \(joint2\) is in operating mode 1: set it to 3"),
        ("lowest", 2000, 0, r"servo 2 \(joint2\) permits 2000 to 4095 ticks.*narrow"),
    ],
)
def test_another_arm_than_described_is_refused(peer, register, value, normal, message):
    address, size = TABLE[register]
    peer.order(f"set 2 {address} {size} {value}")
    try:
        with pytest.raises(GenpolicyError, match=message):
            Arm(peer).device.connect()
    finally:
        peer.order(f"set 2 {address} {size} {normal}")


def test_a_servo_that_is_not_there_is_named(peer):
    arm = Arm(peer, ids=[1, 2, 3, 4, 5, 6, 7, 9])
    with pytest.raises(GenpolicyError, match=r"servo 9 \(gripper\) does not answer: check"):
        arm.device.connect()


def test_the_return_delay_is_taken_away(peer):
    peer.order("set 5 64 1 0")
    peer.order("set 5 9 1 250")
    with Arm(peer) as arm:
        assert arm.register(5, "delay") == 0


def test_one_port_serves_one_driver(peer):
    with Arm(peer), pytest.raises(GenpolicyError, match="no other program using it"):
        Arm(peer).device.connect()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": [1, 2, 3]}, "need 8 values"),
        ({"ids": [1, 1, 2, 3, 4, 5, 6, 7]}, "ids must differ"),
        ({"scale": [0.0] * 8}, "other than 0"),
        ({"speed": 3}, "speed"),
        ({"baud": 57600}, "rate_hz = 100 is more"),
        ({"watchdog_s": 3.0}, "watchdog_s must lie between"),
        ({"reply_s": 0.0}, "reply_s must be"),
        ({"zero": [400_000] * 8}, r"the limits of servo 1 \(joint1\) reach from"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(GenpolicyError, match=message):
        build("dynamixel", "/dev/none", **changes)
