"""ROS 2: bytes on the wire, what is taken for a measurement, and a real arm behind real DDS."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from genpolicy_deploy.robots import arm_toml, drivers, ros2
from genpolicy_deploy.robots.config import load_config
from genpolicy_deploy.robots.device import DeviceState
from genpolicy_deploy.robots.ros2 import Ros2Device
from genpolicy_deploy.robots.ros2_states import JointStates
from peer_process import PeerProcess
from rigs import DOMAIN

from genpolicy.spec import GenpolicyError

messages = pytest.importorskip("genpolicy_deploy.robots.ros2_messages", reason="cyclonedds")
MS = 1_000_000

# CDR by hand: little-endian, every number aligned to its own size (counted from behind the four
# bytes of the encapsulation header), strings with their length and a final zero, sequences with
# their number of elements; an empty sequence is its number alone, without alignment behind it.
JOINT_STATE = bytes.fromhex(
    "00010000"  # plain CDR, little-endian
    "d2040000 15cd5b07"  # stamp: 1234 s, 123456789 ns
    "05000000 6261736500"  # frame_id "base"
    "000000"  # to 20
    "02000000"  # two names
    "03000000 6a3100"  # "j1"
    "00"  # to 32
    "07000000 6a6f696e743200"  # "joint2", to 43
    "00"  # to 44
    "02000000"  # two positions; the first is aligned already, at 48
    "000000000000f03f 00000000000000c0"  # 1.0, -2.0
    "00000000"  # no velocities, at 64
    "01000000"  # one effort, at 68; its number begins at 72
    "0000000000000840"  # 3.0
)
TRAJECTORY = bytes.fromhex(
    "00010000"
    "00000000 00000000"  # no stamp: begin at once
    "01000000 00"  # frame_id ""
    "000000"  # to 16
    "01000000"  # one name
    "03000000 6a3100"  # "j1", to 27
    "00"  # to 28
    "01000000"  # one point, at 28
    "01000000"  # one position, at 32
    "00000000"  # to 40
    "000000000000e03f"  # 0.5
    "00000000 00000000 00000000"  # no velocities, accelerations, efforts
    "00000000 c0e1e400"  # time from start: 0 s, 15000000 ns
)
ARRAY = bytes.fromhex(
    "00010000"
    "00000000"  # no dimensions
    "00000000"  # data offset
    "02000000"  # two numbers
    "00000000"  # to 16
    "000000000000e03f 000000000000e0bf"  # 0.5, -0.5
)


def joint_state(names, position, stamp_ns=1, velocity=(), effort=()):
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return messages.JointState(
        messages.Header(messages.Time(seconds, nanoseconds), "base"),
        list(names),
        list(position),
        list(velocity),
        list(effort),
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            joint_state(["j1", "joint2"], [1.0, -2.0], 1234_123456789, effort=[3.0]),
            JOINT_STATE,
        ),
        (
            messages.JointTrajectory(
                joint_names=["j1"],
                points=[
                    messages.JointTrajectoryPoint(
                        [0.5], time_from_start=messages.Duration(0, 15 * MS)
                    )
                ],
            ),
            TRAJECTORY,
        ),
        (messages.Float64MultiArray(data=[0.5, -0.5]), ARRAY),
    ],
    ids=["JointState", "JointTrajectory", "Float64MultiArray"],
)
def test_messages_are_what_ros_puts_on_the_wire(message, expected):
    assert message.serialize().hex() == expected.hex()
    assert type(message).deserialize(expected) == message


def test_types_are_named_as_in_ros():
    names = {
        messages.JointState: "sensor_msgs::msg::dds_::JointState_",
        messages.JointTrajectory: "trajectory_msgs::msg::dds_::JointTrajectory_",
        messages.Float64MultiArray: "std_msgs::msg::dds_::Float64MultiArray_",
    }
    for kind, name in names.items():
        assert kind.__idl_typename__.replace(".", "::") == name


def fresh_state(effort: bool = False) -> DeviceState:
    return DeviceState(np.zeros(2), np.zeros(2 if effort else 0))


def test_joints_are_found_by_name_in_any_order():
    state, states = fresh_state(), JointStates(("a", "b"), effort=False)
    assert states.take(joint_state(["b", "x", "a"], [2.0, 9.0, 1.0], 10), 100, state) == ""
    assert (state.position.tolist(), state.seq, state.t_ns) == ([1.0, 2.0], 1, 100)
    assert states.take(joint_state(["a", "b"], [3.0, 4.0], 20), 110, state) == ""
    assert (state.position.tolist(), state.seq, state.t_ns) == ([3.0, 4.0], 2, 110)


def test_effort_comes_along_where_it_is_wanted():
    state, states = fresh_state(effort=True), JointStates(("a", "b"), effort=True)
    assert states.take(joint_state(["b", "a"], [2.0, 1.0], 1, effort=[-2.0, -1.0]), 1, state) == ""
    assert state.effort.tolist() == [-1.0, -2.0]
    assert "different numbers" in states.take(joint_state(["b", "a"], [2.0, 1.0], 2), 2, state)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (joint_state(["a"], [1.0], 20), "joint 'b' 0 times"),
        (joint_state(["a", "b", "b"], [1.0, 2.0, 3.0], 20), "joint 'b' 2 times"),
        (joint_state(["a", "b"], [1.0], 20), "different numbers"),
        (joint_state(["a", "b"], [1.0, 2.0, 3.0], 20), "different numbers"),
        (joint_state(["a", "b"], [1.0, np.nan], 20), "not finite"),
        (joint_state(["a", "b"], [-np.inf, 1.0], 20), "not finite"),
        (joint_state(["a", "b"], [1.0, 2.0], 10), "does not advance"),
        (joint_state(["a", "b"], [1.0, 2.0], 9), "does not advance"),
    ],
)
def test_what_cannot_be_used_leaves_the_measurement_alone(message, sentence):
    state, states = fresh_state(), JointStates(("a", "b"), effort=False)
    assert states.take(joint_state(["a", "b"], [5.0, 6.0], 10), 100, state) == ""
    assert sentence in states.take(message, 200, state)
    assert (state.position.tolist(), state.seq, state.t_ns) == ([5.0, 6.0], 1, 100)
    assert states.take(joint_state(["a", "b"], [7.0, 8.0], 30), 300, state) == ""  # and goes on
    assert state.position.tolist() == [7.0, 8.0]


def test_topic_names_follow_the_rules_of_ros():
    def topics(**keys):
        device = Ros2Device(joints=("a",), rate_hz=100.0, **keys)
        return device._states, device._commands

    assert topics() == ("rt/joint_states", "rt/joint_trajectory_controller/joint_trajectory")
    assert topics(namespace="/left/arm/", states="/joint_states", commands="c/commands") == (
        "rt/joint_states",
        "rt/left/arm/c/commands",
    )


def test_the_example_file_describes_this_driver():
    path = Path(__file__).parents[2] / "configs" / "robot" / "ros2.toml"
    config = arm_toml.parse("ros2", load_config(path, "ros2"), path)
    assert drivers.build(config).spec.joints == JOINTS


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"domain": 233}, "domain must be 0 to 232"),
        ({"domain": True}, "domain must be 0 to 232"),
        ({"kind": "action"}, "kind must be 'trajectory' or 'array'"),
        ({"stop": "release"}, 'stop = "hold"'),
    ],
)
def test_impossible_keys_are_refused(keys, sentence):
    with pytest.raises(GenpolicyError, match=sentence):
        Ros2Device(joints=("a",), rate_hz=100.0, **keys)


def test_cdr_by_hand_agrees_with_the_arithmetic_of_its_comments():
    """The byte strings above are our reference: check their own offsets once."""
    body = JOINT_STATE[4:]
    assert struct.unpack_from("<iI", body, 0) == (1234, 123456789)
    assert struct.unpack_from("<2d", body, 48) == (1.0, -2.0)
    assert struct.unpack_from("<d", body, 72) == (3.0,)
    assert struct.unpack_from("<d", TRAJECTORY[4:], 40) == (0.5,)
    assert struct.unpack_from("<iI", TRAJECTORY[4:], 60) == (0, 15 * MS)


# --- a real arm: the peer's process, DDS over loopback ------------------------------------------

JOINTS = (*(f"joint{i}" for i in range(1, 8)), "gripper")
PATIENCE_S = 30.0  # for what takes milliseconds on an idle machine


class Peer(PeerProcess):
    """In a namespace of its own."""

    def __init__(self, *arguments: str) -> None:
        namespace = f"test_{os.getpid()}_{time.monotonic_ns()}"
        where = ("--domain", str(DOMAIN), "--namespace", namespace)
        super().__init__("ros2", *where, *arguments)

    def device(self, **keys) -> Ros2Device:
        return Ros2Device(joints=JOINTS, rate_hz=100.0, **(self.ready | keys))


@pytest.fixture(scope="module")
def shared_peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def peer(shared_peer):
    shared_peer.order("well")
    shared_peer.order("reset 0")
    return shared_peer


@contextlib.contextmanager
def connected(device: Ros2Device):
    """A connected driver, and a state with its first measurement."""
    device.connect()
    state = DeviceState.of(device.spec)
    try:
        wait_for(device, state, lambda: state.seq > 0)
        yield device, state
    finally:
        device.stop()
        device.close()


def last_point(peer: Peer) -> dict:
    """Of the newest trajectory that the controller took."""
    [point] = peer.state()["last"]["points"]
    return point


def wait_for(device: Ros2Device, state: DeviceState, condition) -> None:
    """Read on until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, state
        device.read(state)
        time.sleep(0.002)


def test_an_arm_is_measured_and_follows(peer):
    with connected(peer.device(effort=True)) as (device, state):
        truth = peer.state()
        np.testing.assert_allclose(state.position, truth["position"], atol=1e-3)
        np.testing.assert_allclose(state.effort, truth["effort"], atol=0.1)
        goal = state.position + np.array([0.02, 0, 0, 0.02, 0, 0, -0.02, 0.005])
        device.write(goal)
        wait_for(device, state, lambda: np.abs(state.position - goal).max() < 2e-3)
        assert state.faults == []
        after = peer.state()
        assert after["refused"] == 0
        assert after["last"]["header"]["stamp"] == {"sec": 0, "nanosec": 0}
        assert after["last"]["points"][0]["time_from_start"] == {"sec": 0, "nanosec": 15 * MS}
        device.stop()
        wait_for(device, state, lambda: last_point(peer)["velocities"] == [0.0] * 8)
        assert last_point(peer)["positions"] == goal.tolist()


def test_a_forward_command_controller_takes_arrays():
    peer = Peer("--kind", "array")
    with connected(peer.device()) as (device, state):
        goal = state.position + 0.01
        device.write(goal)
        wait_for(device, state, lambda: np.abs(state.position - goal).max() < 2e-3)
        assert peer.state()["goals"][-1][1] == goal.tolist()
    peer.close()


def test_an_arm_that_was_never_commanded_is_sent_nothing(peer):
    peer.state()  # forget earlier goals
    with connected(peer.device()) as (device, _state):
        device.stop()
        assert peer.state()["goals"] == []


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ("nan 200", "not finite"),
        ("partial 200", "0 times, not once"),
        ("short 200", "different numbers"),
        ("freeze 1", "does not advance"),
    ],
)
def test_a_bad_measurement_is_a_fault_told_once_and_none_is_taken(peer, order, sentence):
    with connected(peer.device()) as (device, state):
        peer.order(order)
        wait_for(device, state, lambda: bool(state.faults))
        seq, t_ns, position = state.seq, state.t_ns, state.position.copy()
        for _ in range(20):
            device.read(state)
            time.sleep(0.005)
        faults = list(state.faults)
        wait_for(device, state, lambda: state.seq > seq)  # it recovers
        assert len(faults) == 1 and sentence in faults[0]
        assert state.t_ns > t_ns
        assert np.abs(state.position - position).max() < 1e-2


def test_silence_shows_in_the_age(peer):
    with connected(peer.device()) as (device, state):
        peer.order("silent 1")
        time.sleep(0.1)
        device.read(state)
        seq, t_ns = state.seq, state.t_ns
        time.sleep(0.3)
        device.read(state)
        assert (state.seq, state.t_ns) == (seq, t_ns)
        wait_for(device, state, lambda: state.seq > seq)
        assert state.t_ns - t_ns > 0.3e9


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ("second", "2 programs publish"),
        ("rival", "another program sends commands"),
        ("deaf", "start the arm's controller"),
        ("silent 1000", "is silent"),
        ("freeze 1000", "does not advance"),
        ("partial 1000000", "0 times, not once"),
    ],
)
def test_an_arm_that_is_not_as_it_should_be_is_refused(monkeypatch, peer, order, sentence):
    monkeypatch.setattr(ros2, "CONNECT_TIMEOUT_S", 0.5)
    peer.order(order)
    deadline = time.monotonic() + PATIENCE_S
    refusal = ""
    while sentence not in refusal:  # on a busy machine, it takes a while to find out
        assert time.monotonic() < deadline, refusal
        with pytest.raises(GenpolicyError) as caught:
            peer.device().connect()
        refusal = str(caught.value)


def test_nobody_there_is_one_sentence(monkeypatch, peer):
    monkeypatch.setattr(ros2, "CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(GenpolicyError, match=r"nobody publishes /elsewhere/joint_states"):
        peer.device(namespace="elsewhere").connect()
    with pytest.raises(GenpolicyError, match=r"check driver\.interface"):
        peer.device(interface="no_such_interface0").connect()


def test_a_second_publisher_ends_the_connection(peer):
    with connected(peer.device()) as (device, state):
        peer.order("second")
        with pytest.raises(GenpolicyError, match="another program has begun to publish"):
            wait_for(device, state, lambda: False)


def test_a_second_sender_of_commands_ends_the_run(peer):
    with connected(peer.device()) as (device, state):
        device.write(state.position)
        peer.order("rival")
        with pytest.raises(GenpolicyError, match="another program has begun to send commands"):
            wait_for(device, state, lambda: device.write(state.position) is None)


def test_a_controller_that_ends_is_noticed_and_so_is_its_return(peer):
    with connected(peer.device()) as (device, state):
        peer.order("deaf")
        with pytest.raises(GenpolicyError, match="nobody listens"):
            wait_for(device, state, lambda: device.write(state.position) is None)
    peer.order("well")
    with connected(peer.device()) as (device, state):
        device.write(state.position)


def test_a_killed_arm_falls_silent_and_stopping_returns():
    peer = Peer()
    with connected(peer.device()) as (device, state):
        device.write(state.position)
        peer.process.kill()
        peer.process.wait()
        time.sleep(0.1)
        device.read(state)  # what was on its way
        seq, t_ns = state.seq, state.t_ns
        time.sleep(0.2)
        device.read(state)
        assert (state.seq, state.t_ns) == (seq, t_ns)
        device.stop()
