"""The hand's pose is the simulator's; inverse kinematics and margins are what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
from arms import HOME, JOINTS, LIMITS, PANDA, WORKSPACE, panda
from genpolicy_deploy.clearance import Clearance
from genpolicy_deploy.joint_envelope import JointEnvelope
from genpolicy_deploy.kinematics import Kinematics
from genpolicy_deploy.robots.base import Limits
from genpolicy_deploy.servo import Servo
from genpolicy_sim.robot import HOME as GRIPPER_DOWN
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

MIDDLE = 0.5 * (np.array(LIMITS.low) + LIMITS.high)
HALF = 0.5 * (np.array(LIMITS.high) - LIMITS.low)
poses = st.lists(st.floats(-1.0, 1.0), min_size=8, max_size=8).map(
    lambda shares: MIDDLE + HALF * np.array(shares)
)


@pytest.fixture(scope="module")
def kinematics() -> Kinematics:
    return Kinematics(panda())


@settings(max_examples=50, deadline=None)
@given(poses)
def test_pose_of_the_hand_is_what_the_simulated_robot_reports(kinematics, joints):
    model = mujoco.MjModel.from_xml_path(str(PANDA))
    data = mujoco.MjData(model)
    data.qpos[:] = [*joints, joints[-1]]
    mujoco.mj_kinematics(model, data)
    out = np.zeros(6)
    kinematics.place(joints)
    kinematics.hand(out)
    np.testing.assert_allclose(out[:3], data.site("hand").xpos, atol=1e-12)
    matrix = data.site("hand").xmat.reshape(3, 3) @ GRIPPER_DOWN.T
    np.testing.assert_allclose(Rotation.from_rotvec(out[3:]).as_matrix(), matrix, atol=1e-9)
    assert np.linalg.norm(out[3:]) <= np.pi + 1e-9
    np.testing.assert_allclose(kinematics.data.qpos, data.qpos, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(poses, st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6))
def test_one_step_moves_the_hand_as_asked_and_stays_in_range(kinematics, joints, direction):
    motion = 1e-3 * np.array(direction)
    before, after = np.zeros(6), np.zeros(6)
    kinematics.place(joints)
    kinematics.hand(before)
    jacobian = kinematics.jacobian()
    change = kinematics.solve(motion, joints, np.zeros(8))
    moved = joints + change
    assert (moved >= np.array(LIMITS.low) - 1e-12).all()
    assert (moved <= np.array(LIMITS.high) + 1e-12).all()
    assert change[7] == 0.0
    clear = np.minimum(joints - LIMITS.low, LIMITS.high - joints)[:7].min() > 0.1
    if not clear or np.linalg.svd(jacobian, compute_uv=False)[-1] < 0.08:
        return
    kinematics.place(moved)
    kinematics.hand(after)
    np.testing.assert_allclose((after - before)[:3], motion[:3], atol=5e-5)
    turn = Rotation.from_rotvec(after[3:]) * Rotation.from_rotvec(before[3:]).inv()
    np.testing.assert_allclose(turn.as_rotvec(), motion[3:], atol=2e-4)


def test_at_the_end_of_a_joints_range_the_others_do_the_work(kinematics):
    joints = HOME.copy()
    joints[3] = LIMITS.high[3] - 1e-5  # the elbow is almost straight
    kinematics.place(joints)
    change = kinematics.solve(np.array([0.0, 0.0, 0.002, 0, 0, 0]), joints, np.zeros(8))
    assert joints[3] + change[3] <= LIMITS.high[3] + 1e-12
    assert np.isfinite(change).all() and np.abs(change).max() > 1e-4


def test_what_cannot_be_solved_is_none(kinematics):
    kinematics.place(HOME)
    assert kinematics.solve(np.full(6, np.nan), HOME, np.zeros(8)) is None


def test_a_failed_solution_brakes_and_is_counted(monkeypatch):
    servo = Servo(panda(), 0.01)
    servo.start(HOME)
    goal = np.zeros(7)
    servo.pose(HOME, goal)
    goal[:3] += 0.05
    servo.goal(goal)
    for _ in range(15):
        servo.step()
    speed = np.abs(servo._envelope.velocity).max()
    monkeypatch.setattr(np.linalg, "solve", lambda H, g: np.full(len(g), np.nan))
    for _ in range(60):
        servo.step()
    assert speed > 0.1 and servo.at_rest
    assert servo.violations["kinematics"] >= 1


def test_rotation_vectors_continue_through_a_half_turn():
    servo = Servo(panda(), 0.01)
    out, before = np.zeros(7), None
    for joint7 in np.linspace(-2.8, 2.8, 200):
        joints = HOME.copy()
        joints[5], joints[6] = 2.0, joint7
        servo.pose(joints, out)
        if before is not None:
            assert np.abs(out - before).max() < 0.2
        before = out.copy()


@settings(max_examples=150, deadline=None)
@given(poses, poses, st.floats(0.0, 0.3))
def test_no_margin_changes_faster_than_its_rate(clearance, here, there, share):
    there = here + share * (there - here)
    every = np.arange(len(clearance.pairs) + 1)
    change = np.abs(clearance._measure(here, every) - clearance._measure(there, every))
    assert (change <= clearance._rates @ np.abs(there - here) + 1e-5).all()


@pytest.fixture(scope="module")
def clearance() -> Clearance:
    return Clearance(Kinematics(panda()), WORKSPACE)


def test_pairs_are_those_that_can_meet(clearance):
    model = clearance._kinematics.model
    names = {tuple(sorted(model.geom(g).name for g in pair)) for pair in clearance.pairs}
    assert ("hand", "table") in names and ("left_tip", "table") in names
    assert ("hand", "link2") in names
    for first, second in (("link1", "link2"), ("hand", "link7"), ("pedestal", "table")):
        assert tuple(sorted((first, second))) not in names
    assert not any("left" in a and "right" in b for a, b in names)


def test_a_command_whose_braking_would_hit_the_table_is_blocked():
    kinematics = Kinematics(panda())
    clearance = Clearance(kinematics, replace(WORKSPACE, low=(-0.6, -0.6, 0.5)))
    low = HOME.copy()
    hand = np.array([0.0, 0.0, 2.0, 0.0, 0.0, 0.0])
    while hand[2] > 0.85:  # finger tips, 1 cm further down, some 4 cm above the table
        low[1] += 0.01
        kinematics.place(low)
        kinematics.hand(hand)
    clearance.start(low)
    envelope = JointEnvelope(JOINTS, LIMITS, 0.01)
    for speed, blocked in ((0.0, None), (0.1, None), (1.5, "collision"), (-1.5, None)):
        envelope.start(low)
        envelope._axes[1].v = speed
        assert clearance.blocks(envelope.path()) == blocked, speed


def test_extra_joints_stay_as_the_model_has_them(tmp_path: Path):
    xml = """<mujoco><worldbody>
      <body name="cube" pos="1 0 0"><freejoint/><geom size="0.05" mass="1"/></body>
      <body><joint name="lift" type="slide" axis="0 0 1"/><geom size="0.1" mass="1"/>
        <body pos="0.5 0 0"><joint name="turn" axis="0 0 1"/><geom size="0.1" mass="1"/>
          <site name="hand" pos="0.2 0 0"/>
          <body pos="0.3 0 0"><joint name="wobble" axis="0 1 0"/><geom size="0.01" mass="1"/></body>
        </body></body></worldbody></mujoco>"""
    (tmp_path / "arm.xml").write_text(xml)
    two = {n: (-1.0, -1.0) if n == "low" else (1.0, 1.0) for n in vars(LIMITS) if n != "effort"}
    config = panda(
        joints=("lift", "turn"),
        limits=Limits(**two),
        model=tmp_path / "arm.xml",
        gripper=None,
        home=None,
    )
    kinematics = Kinematics(config)
    kinematics.place(np.array([0.1, np.pi / 2]))
    out = np.zeros(6)
    kinematics.hand(out)
    np.testing.assert_allclose(out[:3], [0.5, 0.2, 0.1], atol=1e-12)
    assert kinematics.data.qpos[0] == 1.0
    geoms = {g for pair in Clearance(kinematics, WORKSPACE).pairs for g in pair}
    assert 0 not in geoms  # the cube is wherever it is: no obstacle that is known
