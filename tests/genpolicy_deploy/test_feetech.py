"""The Feetech driver against eight simulated servos, a process at the other end of a real port."""

from __future__ import annotations

import time

import numpy as np
import pytest
from genpolicy_deploy.robots import arm_toml, drivers
from genpolicy_deploy.robots.config import load_config
from peer_process import PeerProcess
from rigs import CONFIGS
from servo_bus import ServoArm, build, check_goals_into_silence, mend

from genpolicy.spec import GenpolicyError

HASTY_S = 0.05


@pytest.fixture(scope="module")
def shared_peer():
    peer = PeerProcess("feetech")
    yield peer
    peer.close()


@pytest.fixture
def peer(shared_peer):
    return mend(shared_peer, *(f"error {servo} none" for servo in range(1, 9)))


class Arm(ServoArm):
    driver = "feetech"


def test_measurements_are_the_arms(peer):
    begin = time.monotonic_ns()
    with Arm(peer) as arm:
        assert arm.read() == []
        truth = peer.state()
    assert begin < arm.state.t_ns < time.monotonic_ns() and arm.state.seq == 1
    np.testing.assert_allclose(arm.state.position[:7], truth["position"][:7], atol=4e-3)
    assert abs(arm.state.position[7] - truth["position"][7]) < 1e-4
    assert arm.device.spec.reports_effort
    assert np.abs(arm.state.effort).max() < 1.0 and np.abs(arm.state.effort).max() > 0.05


def test_effort_has_the_joints_sign(peer):
    with Arm(peer) as arm:
        time.sleep(0.3)
        assert arm.read() == []
        torques = np.array(peer.state()["effort"])
    strong = np.abs(torques) > 5.0
    assert strong.any()
    np.testing.assert_array_equal(np.sign(arm.state.effort[strong]), np.sign(torques[strong]))


def test_torque_comes_on_without_a_move():
    peer = PeerProcess("feetech")  # after a power-up, with goals far from where the servos are
    try:
        before = np.array(peer.state()["position"])
        with Arm(peer):
            time.sleep(0.3)
            after = peer.state()
    finally:
        peer.close()
    assert np.abs((2048 - np.array([3072, 800])) * 2 * np.pi / 4096 - before[[3, 5]]).min() > 0.3
    np.testing.assert_allclose(after["position"], before, atol=0.02)
    np.testing.assert_allclose(after["target"], before, atol=4e-3)


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


@pytest.mark.parametrize("fault", ["drop 1", "crc 1", "partial 1", "mute 4 1000"])
def test_what_is_lost_or_damaged_is_a_fault_and_the_measurement_stays(peer, fault):
    with Arm(peer, reply_s=HASTY_S) as arm:
        while arm.read():
            pass  # a busy machine loses some too
        before = arm.state.seq, arm.state.t_ns, arm.state.position.copy()
        peer.order(fault)
        faults = arm.read()
        assert len(faults) == 1 and "no sound answer from servo" in faults[0]
        assert "(joint" in faults[0]
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


def test_silence_is_waited_for_in_bounded_time(peer):
    with Arm(peer, reply_s=HASTY_S) as arm:
        peer.order("silent 1000")
        begin = time.monotonic()
        faults = arm.read()
        assert time.monotonic() - begin < 2.0
        assert faults == ["no servo gives a sound answer"]


def test_goals_into_silence_do_not_count_as_sent(peer):
    with Arm(peer, reply_s=HASTY_S) as arm:
        check_goals_into_silence(arm, peer)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("overload", "overload"), ("overheating", "overheated"), ("voltage", "inpu")],
)
def test_hardware_errors_name_the_servo(peer, kind, words):
    with Arm(peer) as arm:
        peer.order(f"error 6 {kind}")
        with pytest.raises(GenpolicyError, match=rf"servo 6 \(joint6\) reports: {words}"):
            arm.read()
    with pytest.raises(GenpolicyError, match=rf"servo 6 \(joint6\) reports: {words}"):
        Arm(peer).__enter__()


def test_unplugged_is_an_error_and_plugged_in_again_it_connects(peer):
    with Arm(peer) as arm:
        peer.order("unplug")
        for exchange in (arm.read, lambda: arm.device.write(np.zeros(8))):
            with pytest.raises(GenpolicyError, match="connection is lost"):
                exchange()
        arm.device.stop()
        with pytest.raises(GenpolicyError, match="cannot be opened"):
            arm.device.connect()
        peer.order("plug")
        arm.device.connect()
        assert arm.read() == []


@pytest.mark.parametrize(("stop", "torque"), [("hold", True), ("release", False)])
def test_stop_leaves_what_was_asked_for_even_beside_an_error(peer, stop, torque):
    with Arm(peer, stop) as arm:
        peer.order("error 2 overheating")
        arm.device.stop()
        arm.device.stop()
        peer.order("error 2 none")
        assert set(arm.device._registers(40, 1).values()) == {bytes((torque,))}
        assert peer.state()["torque"] == torque
    arm.device.close()
    arm.device.stop()


@pytest.mark.parametrize(
    ("register", "normal", "message"),
    [
        ("3 2 1284", "3 2 777", r"servo 2 \(joint2\) is model 1284"),
        ("33 1 1", "33 1 0", r"servo 2 \(joint2\) is in mode 1: set register 33"),
        ("11 2 0", "11 2 4095", r"servo 2 \(joint2\) turns without end"),
        ("9 2 2000", "9 2 0", r"servo 2 \(joint2\) permits 2000 to 4095 ticks.*narrow"),
    ],
)
def test_another_arm_than_described_is_refused(peer, register, normal, message):
    peer.order(f"set 2 {register}")
    try:
        with pytest.raises(GenpolicyError, match=message):
            Arm(peer).device.connect()
    finally:
        peer.order(f"set 2 {normal}")


def test_a_servo_that_is_not_there_is_named(peer):
    arm = Arm(peer, reply_s=HASTY_S, ids=[1, 2, 3, 4, 5, 6, 7, 9])
    with pytest.raises(GenpolicyError, match=r"no sound answer from .*servo 9 \(gripper\); check"):
        arm.device.connect()


def test_the_return_delay_is_taken_away_for_good(peer):
    peer.order("set 5 7 1 250")
    with Arm(peer) as arm:
        assert set(arm.device._registers(7, 1).values()) == {b"\x00"}
        assert set(arm.device._registers(55, 1).values()) == {b"\x01"}  # locked again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": [1, 2, 3]}, "need 8 values"),
        ({"ids": [1, 1, 2, 3, 4, 5, 6, 7]}, "ids must differ"),
        ({"zero": [100] * 8}, r"the limits of servo 1 \(joint1\) reach from -"),
        ({"speed": 3}, "speed"),
        ({"baud": 9600}, "rate_hz = 100 is more"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(GenpolicyError, match=message):
        build("feetech", "/dev/none", **changes)


def test_example_of_a_real_arm_fits_its_driver():
    path = CONFIGS / "so101.toml"
    device = drivers.build(arm_toml.parse("feetech", load_config(path, "feetech"), path))
    assert len(device.spec.joints) == 6
    assert "holds its last goal" in device.spec.on_silence
