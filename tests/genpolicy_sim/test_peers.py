"""The arm behind the peers: robosuite's kinematics and episodes, and servos that track."""

import json
import socket

import mujoco
import numpy as np
import pytest
from genpolicy_sim import lift
from genpolicy_sim.peers.arm import PeerArm

from genpolicy.data_files import data_path


@pytest.fixture(scope="module")
def panda():
    return mujoco.MjModel.from_xml_path(str(data_path("assets") / "panda.xml"))


def test_same_joint_angles_give_robosuites_hand_pose(panda):
    theirs = lift.scene().model
    ours_at, theirs_at = mujoco.MjData(panda), mujoco.MjData(theirs)
    low, high = panda.jnt_range[:7].T
    np.testing.assert_allclose(panda.jnt_range[:7], theirs.jnt_range[:7])
    for angles in np.random.default_rng(0).uniform(low, high, (50, 7)):
        ours_at.qpos[:] = [*angles, 0.03, 0.03]
        theirs_at.qpos[:9] = [*angles, 0.03, -0.03]
        mujoco.mj_kinematics(panda, ours_at)
        mujoco.mj_kinematics(theirs, theirs_at)
        site, grip = ours_at.site("hand"), theirs_at.site("gripper0_right_grip_site")
        np.testing.assert_allclose(site.xpos, grip.xpos, atol=1e-6)
        np.testing.assert_allclose(site.xmat, grip.xmat, atol=1e-6)
        hand = theirs_at.body("robot0_right_hand")
        np.testing.assert_allclose(ours_at.body("hand").xmat, hand.xmat, atol=1e-6)
        for ours, finger in ("left_pad", 1), ("right_pad", 2):
            pad = theirs_at.geom(f"gripper0_right_finger{finger}_pad_collision")
            np.testing.assert_allclose(ours_at.geom(ours).xpos, pad.xpos, atol=1e-6)


def test_shapes_enclose_robosuites_links_within_3_cm(panda):
    theirs = lift.scene().model
    for link in range(8):
        geom = theirs.geom(f"robot0_link{link}_collision")
        mesh = theirs.mesh(geom.dataid[0])
        first, count = mesh.vertadr[0], mesh.vertnum[0]
        points = theirs.mesh_vert[first : first + count] @ matrix(geom.quat).T + geom.pos
        outside = np.full(count, np.inf)
        for i in np.flatnonzero(panda.geom_bodyid == panda.body(f"link{link}").id):
            local = (points - panda.geom_pos[i]) @ matrix(panda.geom_quat[i])
            radius, half = panda.geom_size[i, :2]  # capsules all
            local[:, 2] -= np.clip(local[:, 2], -half, half)
            outside = np.minimum(outside, np.linalg.norm(local, axis=1) - radius)
        assert outside.max() < 0.03


def matrix(quat):
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, quat)
    return out.reshape(3, 3)


@pytest.mark.parametrize("seed", [0, 7])
def test_starts_where_lifts_episodes_start(seed):
    arm = PeerArm(seed=3)
    arm.reset(seed)
    env = lift.make(1, dtype=np.float64, num_threads=1)
    seen = {name: value[0, 0] for name, value in env.reset(seed).items()}
    joints = env.sim.report.qpos[0, :8]
    env.close()
    np.testing.assert_allclose(arm.position, joints, atol=1e-6)
    np.testing.assert_allclose(arm.objects(), seen["object"], atol=1e-6)
    np.testing.assert_allclose(arm.state()["hand"], seen["robot0_eef_pos"], atol=1e-6)


def test_servos_track_in_step_with_the_clock():
    arm = PeerArm()
    arm.advance(100.0)
    start = arm.position.copy()
    goal = start + np.array([0.1, -0.05, 0.1, 0.1, -0.1, 0.1, 0.1, 0.01])
    lags = []
    for k in range(1, 51):  # 50 servo periods of 10 ms, half a second: 0.2 rad/s
        arm.receive(start + k / 50 * (goal - start))
        arm.advance(100.0 + k * 0.01)
        lags.append(np.abs(arm.target - arm.position)[:7].max())
    assert max(lags) < 0.01
    for k in range(100):
        arm.advance(100.5 + k * 0.01)
    np.testing.assert_allclose(arm.position, goal, atol=2e-3)
    goals = arm.take_goals()
    assert len(goals) == 50
    np.testing.assert_allclose(goals[-1][1], goal)
    assert not arm.take_goals()


def test_late_physics_is_made_up_for_but_not_without_end():
    arm = PeerArm()
    arm.advance(0.0)
    arm.receive(arm.position + 0.01)
    arm.advance(1000.0)
    assert arm._data.time == pytest.approx(0.1, abs=0.003)


def test_without_torque_the_arm_falls_and_with_it_stays_where_it_is():
    arm = PeerArm()
    arm.advance(0.0)
    start = arm.position.copy()
    arm.torque = False
    for k in range(30):
        arm.advance(k * 0.01)
    np.testing.assert_allclose(arm.position, start, atol=1e-3)  # something holds it at first
    arm.receive(start)
    for k in range(30, 60):
        arm.advance(k * 0.01)
    fallen = arm.position.copy()
    assert np.abs(fallen - start).max() > 0.02
    arm.torque = True
    assert arm.target == pytest.approx(fallen)
    for k in range(60, 160):
        arm.advance(k * 0.01)
    assert np.abs(arm.position - fallen).max() < 0.1
    assert np.abs(arm.velocity).max() < 0.01


def test_state_is_json_and_objects_go_out_by_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5.0)
        arm = PeerArm(objects_port=receiver.getsockname()[1])
        for k in range(51):
            arm.advance(k * 0.002)
        packet = np.frombuffer(receiver.recv(200))
    np.testing.assert_allclose(packet[:7], arm.objects()[:7], atol=0.02)
    assert packet.shape == (10,)
    assert json.loads(json.dumps(arm.state()))["cube_height"] == pytest.approx(0.82, abs=0.02)
