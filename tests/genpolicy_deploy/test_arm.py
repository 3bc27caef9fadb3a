"""The loop's side of an arm: what it observes, how old that is, and what it does when all hangs."""

from __future__ import annotations

import os
import socket
import time

import genpolicy_sim
import mujoco
import numpy as np
import pytest
from arm_bench import document
from genpolicy_deploy import robots
from genpolicy_deploy.robots.arm import ArmRobot
from genpolicy_deploy.robots.arm_messages import state_dtype
from genpolicy_deploy.robots.arm_observations import NEVER_NS, Observations
from genpolicy_deploy.robots.arm_toml import parse
from genpolicy_deploy.servo import Servo
from rigs import CONFIGS, RIGS, Peer
from test_sensors import free_port

from genpolicy.spec import GenpolicyError

LEROBOT = CONFIGS / "lerobot.toml"


def panda_config():
    return robots.make("lerobot", LEROBOT).config


def observe(config, joints) -> dict[str, np.ndarray]:
    """As the arm's process and the loop do it together, without the process."""
    record = np.zeros(1, state_dtype(7, 8, 0))[0]
    axes = np.zeros(7)
    Servo(config, 0.01).pose(joints, axes)
    record["hand"], record["joints"] = axes[:6], joints
    observations = Observations(config)
    observations.attach(record)
    observations.update([])
    return observations.values


def test_the_arm_observes_what_training_observed():
    """Of an arm in the pose of the training environment's first states, to the signs."""
    env = genpolicy_sim.make("lift", 1, dtype=np.float64, num_threads=1)
    config = panda_config()
    model = mujoco.MjModel.from_xml_path(str(config.model))
    data = mujoco.MjData(model)
    for seed in range(3):
        trained = {name: value[0, 0] for name, value in env.reset(seed).items()}
        joints = np.append(env.sim.report.qpos[0, :7], trained["robot0_gripper_qpos"][0])
        seen = observe(config, joints)
        for name in ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"):
            np.testing.assert_allclose(seen[name], trained[name], atol=2e-4, err_msg=name)
    for joints in np.random.default_rng(0).uniform(config.limits.low, config.limits.high, (20, 8)):
        data.qpos[:8] = joints
        mujoco.mj_forward(model, data)
        quat = data.body("hand").xquat[[1, 2, 3, 0]]
        seen = observe(config, joints)["robot0_eef_quat"]
        assert abs(seen @ quat) == pytest.approx(1.0, abs=1e-9)


def test_sources_and_their_sizes():
    robot = robots.make(
        "lerobot",
        LEROBOT,
        observations={"q": "joints.position", "dq": "joints.velocity", "cube": "udp:7650:3"},
    )
    spec = robot._describe("stays")
    assert {f.name: f.dim for f in spec.observations} == {"q": 8, "dq": 8, "cube": 3}
    assert spec.action_names == ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
    assert spec.control_mode == "osc_pose_delta" and spec.brakes_itself
    assert spec.limits.effort == ()


def test_six_axes_without_a_gripper_and_joints_by_name():
    spec = robots.make("ur", CONFIGS / "ur5e.toml")._describe("brakes")
    assert spec.axes == ("x", "y", "z", "rx", "ry", "rz") and len(spec.action_names) == 6
    config = parse("lerobot", {**document(), "mode": "joints"})
    spec = ArmRobot("lerobot", {**document(), "mode": "joints"})._describe("stays")
    assert spec.control_mode == "joint_position"
    assert spec.axes == spec.action_names == config.joints
    assert spec.rotation == spec.workspace == ()


def test_a_measurement_is_as_old_as_its_oldest_part():
    ports = [free_port(), free_port()]
    config = parse(
        "lerobot",
        document() | {"observations": {f"s{p}": f"udp:{p}:1" for p in ports}},
    )
    observations = Observations(config)
    observations.attach(np.zeros(1, state_dtype(2, 2, 0))[0])
    observations.open()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(np.ones(1).tobytes(), ("127.0.0.1", ports[0]))
            assert observations.silent([]).port == ports[1]
            sender.sendto(np.ones(1).tobytes(), ("127.0.0.1", ports[1]))
            assert observations.silent([]) is None
            first = observations.update([])
            time.sleep(0.05)
            sender.sendto(np.full(1, 2.0).tobytes(), ("127.0.0.1", ports[0]))
            again = observations.update([])
    finally:
        observations.close()
    assert again[0] == first[0] + 1 == 3
    assert again[1] >= first[1] and again[1] < time.monotonic_ns() - 0.04e9 < NEVER_NS
    assert observations.values[f"s{ports[0]}"][0] == 2.0


@pytest.fixture(scope="module")
def running_peer():
    peer = Peer(RIGS[0])
    yield peer
    peer.close()


@pytest.fixture
def peer(running_peer):
    running_peer.order("hang 0")
    running_peer.order("reset 0")
    return running_peer


def make(peer: Peer, **changes) -> ArmRobot:
    return ArmRobot("lerobot", peer.document() | changes)


def test_a_silent_sensor_is_named_when_an_episode_begins(peer, monkeypatch):
    monkeypatch.setattr("genpolicy_deploy.robots.arm.SENSOR_TIMEOUT_S", 0.3)
    port = free_port()
    with make(peer, observations={"object": f"udp:{port}:10"}) as robot:
        with pytest.raises(GenpolicyError, match=f"'object': nothing came on UDP port {port}"):
            robot.reset(0)
        calls = []
        robot.reset(0, lambda: bool(calls.append(1)) or len(calls) > 1)  # who cancels need not wait


def test_a_driver_that_hangs_ages_and_is_killed(peer):
    with make(peer) as robot:
        robot.reset(0)
        state = robot.read()
        pid = robot.pid
        peer.order("hang 60")
        time.sleep(0.5)
        for _ in range(3):
            t_ns = robot.read().t_ns
            robot.write(state.position)
        assert time.monotonic_ns() - t_ns > 0.2e9
        begin = time.monotonic()
        robot.stop()
        assert time.monotonic() - begin < 20.0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_home_comes_before_the_episode(peer):
    home = [0.2, 0.1, 0.0, -2.5, 0.0, 2.9, 0.8, 0.03]
    with make(peer, home=home) as robot:
        robot.reset(0)
        np.testing.assert_allclose(robot.read().position, home, atol=0.02)
        robot.reset(1)  # nothing to do
        cancelled = robot.reset(2, lambda: True)
        assert cancelled is None


def test_a_fault_of_the_file_is_told_before_anything_starts(peer):
    with pytest.raises(GenpolicyError, match="not found"):
        make(peer, driver={"factory": "nowhere:make", "scale": [1.0] * 8}).__enter__()
