"""No goal, delay, hold or stop makes a joint command outside a limit, workspace or clearance."""

from __future__ import annotations

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
from arms import HOME, JOINTS, LIMITS, PANDA, WORKSPACE, panda
from genpolicy_deploy.clearance import Clearance
from genpolicy_deploy.robots.arm_config import Workspace
from genpolicy_deploy.robots.base import Limits
from genpolicy_deploy.robots.fence import Fence
from genpolicy_deploy.servo import INSET, Servo
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.spec import GenpolicyError

DT = 0.01


def started(**changes) -> Servo:
    servo = Servo(panda(**changes), DT)
    servo.start(HOME)
    return servo


def run(servo: Servo, steps: int, goal: np.ndarray | None = None) -> np.ndarray:
    """Commands of ``steps``, ``[steps, J]``."""
    commands = []
    for _ in range(steps):
        if goal is not None:
            servo.goal(goal)
        commands.append(servo.step().copy())
    return np.array(commands)


def moved(servo: Servo, *by: float) -> np.ndarray:
    """The present pose and so much more."""
    return pose(servo) + np.array(by)


def pose(servo: Servo) -> np.ndarray:
    out = np.zeros(len(servo.axes))
    servo.pose(servo.command, out)
    return out


def assert_obeys(commands: np.ndarray, limits: Limits, dt: float) -> None:
    """Finite differences of joint commands that begin at rest, ``[N, J]``."""
    assert (commands >= limits.low).all() and (commands <= limits.high).all()
    fence = Fence(JOINTS, limits, dt)
    fence.start(commands[0])
    assert not any(fence.refuses(command) for command in commands)
    commands = np.concatenate([commands[:1]] * 3 + [commands])
    for order, name in ((1, "velocity"), (2, "acceleration"), (3, "jerk")):
        rate = np.abs(np.diff(commands, order, axis=0)) / dt**order
        bound = np.array(getattr(limits, name)) * (1 + 1e-6) + 4e-15 / dt**order
        assert (rate <= bound).all(), name


class Judge:
    """Hand and distances of commands, by a model of its own."""

    def __init__(self, clearance: Clearance) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(PANDA))
        self.data = mujoco.MjData(self.model)
        self.pairs = clearance.pairs
        self.site = self.model.site("hand").id

    def place(self, joints: np.ndarray) -> np.ndarray:
        self.data.qpos[:] = [*joints, joints[-1]]  # the second finger mirrors the first
        mujoco.mj_kinematics(self.model, self.data)
        return self.data.site_xpos[self.site]

    def nearest(self) -> float:
        return min(
            mujoco.mj_geomDistance(self.model, self.data, *pair, 0.1, None) for pair in self.pairs
        )


numbers = st.one_of(st.floats(-1.5, 1.5), st.sampled_from([math.nan, math.inf, -1e308, 1e3, -30.0]))
hand_goals = st.one_of(
    st.tuples(
        *(st.floats(-0.5, 0.5), st.floats(-0.6, 0.6), st.floats(0.6, 1.5)),
        *[st.floats(-2.0, 2.0)] * 3,
        st.floats(-1.0, 1.0),
    ),
    st.tuples(*[numbers] * 7),
)
joint_goals = st.tuples(*[st.one_of(st.floats(-3.0, 3.0), numbers)] * 8)
events = st.sampled_from(["goal"] * 6 + ["hold", "late"])


def play(servo: Servo, script, near: bool) -> list[np.ndarray]:
    """Stretches of commands; a new one begins where time was lost."""
    stretches = [[servo.command.copy()]]
    for event, goal, steps in script:
        goal = np.array(goal)
        if near and len(goal) == 8:
            goal = servo.command + 0.2 * goal
        if event == "hold":
            servo.hold()
        elif event == "late":
            servo.late()
            stretches.append([servo.command.copy()])
        for _ in range(steps):
            if event == "goal":
                try:
                    servo.goal(goal)
                except GenpolicyError:
                    assert len(stretches) == 1  # only the first one is refused
            stretches[-1].append(servo.step().copy())
    servo.stop()
    for _ in range(400):
        stretches[-1].append(servo.step().copy())
    assert servo.at_rest
    return [np.array(stretch) for stretch in stretches]


def scripts(goals):
    return st.lists(st.tuples(events, goals, st.integers(1, 25)), min_size=1, max_size=8)


@settings(max_examples=15, deadline=None)
@given(scripts(hand_goals), st.floats(0.1, 1.0))
def test_hand_goals_never_lead_out_of_limits_workspace_or_clearance(script, quick):
    limits = replace(
        LIMITS,
        acceleration=tuple(quick * a for a in LIMITS.acceleration),
        jerk=tuple(quick * j for j in LIMITS.jerk),
    )
    servo = started(limits=limits)
    check(servo, play(servo, script, near=False), limits)


@settings(max_examples=15, deadline=None)
@given(scripts(joint_goals), st.booleans())
def test_joint_goals_never_lead_out_of_limits_workspace_or_clearance(script, near):
    servo = started(mode="joints")
    servo.goal(HOME)
    check(servo, play(servo, script, near), LIMITS)


def check(servo: Servo, stretches: list[np.ndarray], limits: Limits) -> None:
    judge = Judge(servo._clearance)
    for stretch in stretches:
        assert_obeys(stretch, limits, DT)
        for joints in stretch:
            hand = judge.place(joints)
            assert (hand >= WORKSPACE.low).all() and (hand <= WORKSPACE.high).all()
            assert judge.nearest() >= WORKSPACE.clearance


@pytest.mark.parametrize("mode", ["hand", "joints"])
def test_without_workspace_limits_hold_as_well(mode):
    servo = Servo(panda(mode=mode, workspace=None), DT)
    servo.start(HOME)
    rng = np.random.default_rng(0)
    if mode == "joints":
        servo.goal(HOME)
    commands = [servo.command.copy()]
    for _ in range(40):
        size = len(servo.axes)
        goal = rng.uniform(-2, 2, size) if mode == "hand" else HOME + rng.uniform(-1.5, 1.5, size)
        commands.extend(run(servo, 5, goal))
    assert_obeys(np.array(commands), LIMITS, DT)
    assert np.ptp(commands, axis=0)[:7].max() > 0.3


def test_the_hand_reaches_its_goal_as_softly_as_in_training():
    servo = started()
    begin = pose(servo)
    goal = moved(servo, 0.015, -0.01, 0.02, 0.02, -0.02, 0.04, 0.5)
    way = []
    for _ in range(150):
        servo.goal(goal)
        servo.step()
        way.append(pose(servo))
    np.testing.assert_allclose(way[-1], goal, atol=2e-4)
    w, t = math.sqrt(150.0), DT * np.arange(1, 151)
    left = (1 + w * t) * np.exp(-w * t)  # of a critically damped spring
    expected = goal + left[:, None] * (begin - goal)
    # The joints' jerk limits cost a few ms at the beginning.
    assert np.abs(np.array(way) - expected)[:, :3].max() < 0.001
    assert np.abs(np.array(way) - expected)[:, 3:6].max() < 0.002
    assert servo.violations == {}


def test_ten_joint_goals_a_second_do_not_stutter():
    servo = Servo(panda(mode="joints", workspace=None), DT)
    servo.start(HOME)
    speed = 0.4 * np.array([1, 1, 1, 1, 1, -1, 1, 0])
    servo.goal(HOME)
    goal, commands = HOME, []
    for steps in [10, 9, 11, 10, 10, 11, 9, 10, 10, 10] * 2:  # as clocks deliver them
        goal = goal + 0.1 * speed
        commands.extend(run(servo, steps, goal))
    velocity = np.diff(commands, axis=0)[40:] / DT
    assert np.abs(velocity - speed).max() < 0.15 * 0.4  # it never stops in between
    # The last goal came 0.1 s ago, and is where the arm should be now.
    assert np.abs(commands[-1] - goal).max() < 0.4 * 0.05


def test_hold_brakes_the_joints_and_not_the_hand():
    """The way after a hold is what each joint needs to brake, and no more."""
    for order in ("hold", "stop"):
        servo = started()
        run(servo, 25, moved(servo, 0.12, 0.1, 0.1, 0, 0, 0.3, 0))
        before, speed = servo.command.copy(), servo._envelope.velocity.copy()
        state = [(axis.v, axis.a) for axis in servo._envelope._axes]
        assert np.abs(speed[:7]).max() > 0.3
        getattr(servo, order)()
        after = run(servo, 200)
        assert servo.at_rest
        for j, (v, a) in enumerate(state):
            limit, jerk = LIMITS.acceleration[j], LIMITS.jerk[j] * 0.99
            # By hand: take the acceleration away, brake with all there is, let go.
            rise = (abs(a) + limit) / jerk + 2 * DT
            worst = abs(v) + abs(a) * rise
            bound = worst * rise + worst**2 / (2 * limit) + worst * (limit / jerk + 2 * DT)
            assert np.abs(after[:, j] - before[j]).max() <= bound + 1e-9
            time = rise + worst / limit + limit / jerk + 3 * DT
            resting = after[math.ceil(time / DT) :, j]
            assert np.ptp(resting) < 1e-9


def test_a_goal_after_a_hold_starts_without_a_jump():
    servo = started()
    goal = moved(servo, 0.1, 0.1, 0.1, 0, 0, 0, 0)
    commands = [servo.command.copy(), *run(servo, 20, goal)]
    servo.hold()
    commands.extend(run(servo, 3))
    commands.extend(run(servo, 200, goal))
    assert_obeys(np.array(commands), LIMITS, DT)
    np.testing.assert_allclose(pose(servo), goal, atol=5e-4)


def test_stop_is_latched_and_survives_late():
    servo = started()
    goal = moved(servo, 0.1, 0.1, 0.1, 0, 0, 0, 0)
    run(servo, 20, goal)
    servo.stop()
    run(servo, 100, goal)
    rest = servo.command.copy()
    servo.late()
    np.testing.assert_array_equal(run(servo, 20, goal)[-1], rest)
    with pytest.raises(GenpolicyError, match="stopped for good"):
        servo.start(HOME)


def test_after_a_gap_motion_begins_at_rest_again():
    servo = started()
    goal = moved(servo, 0.1, 0.1, 0.1, 0, 0, 0, 0)
    run(servo, 20, goal)
    there = servo.command.copy()
    servo.late()
    assert servo.at_rest
    np.testing.assert_array_equal(servo.command, there)
    assert_obeys(np.array([there, *run(servo, 200)]), LIMITS, DT)
    np.testing.assert_allclose(pose(servo), goal, atol=5e-4)


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.zeros(6), np.full(7, 1e308), None])
def test_what_is_no_goal_brakes_and_is_counted(bad):
    servo = started()
    run(servo, 20, moved(servo, 0.1, 0.1, 0.1, 0, 0, 0, 0))
    servo.goal(bad)
    run(servo, 100)
    assert servo.at_rest
    assert sum(servo.violations.values()) == 1


def test_first_joint_goal_far_away_is_refused():
    servo = started(mode="joints")
    with pytest.raises(GenpolicyError, match=r"joint 'joint3' would jump from 0 to 0\.2"):
        servo.goal(HOME + 0.2 * (np.arange(8) == 2))
    run(servo, 5)
    np.testing.assert_array_equal(servo.command, HOME)
    servo.goal(HOME + 0.04 * (np.arange(8) == 2))
    servo.goal(HOME + 0.2 * (np.arange(8) == 2))  # the first one was good: this may be far


def test_noise_of_encoders_at_the_end_of_a_range_is_no_reason_not_to_start():
    servo = Servo(panda(workspace=None), DT)
    noisy = HOME.copy()
    noisy[7] = -0.001
    servo.start(noisy)
    assert servo.command[7] == 0.0
    noisy[7] = -0.006
    with pytest.raises(GenpolicyError, match=r"joint 'gripper' is at -0\.006, allowed are 0 to"):
        servo.start(noisy)
    with pytest.raises(GenpolicyError, match="'joint1' is at nan"):
        servo.start(np.r_[np.nan, HOME[1:]])


def test_limits_beyond_the_models_range_are_refused():
    limits = replace(LIMITS, high=(2.9, *LIMITS.high[1:]))
    with pytest.raises(GenpolicyError, match=r"'joint1' \(-2.8 to 2.9\) exceed its range"):
        Servo(panda(limits=limits), DT)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hand": "nose"}, "no site 'nose'"),
        ({"joints": (*JOINTS[:6], "elbow", "gripper")}, "no joint 'elbow'"),
        ({"model": PANDA.with_name("none.xml")}, "cannot be read"),
    ],
)
def test_a_model_of_another_arm_is_refused(changes, sentence):
    with pytest.raises(GenpolicyError, match=sentence):
        Servo(panda(**changes), DT)


def test_a_joint_that_carries_the_hand_must_be_configured():
    seven = {name: values[1:] for name, values in vars(LIMITS).items()}
    config = panda(joints=JOINTS[1:], limits=Limits(**seven), home=tuple(HOME[1:]))
    with pytest.raises(GenpolicyError, match="'joint1' moves the hand 'hand'"):
        Servo(config, DT)


def test_an_arm_without_gripper_has_six_axes():
    seven = {name: values[:7] for name, values in vars(LIMITS).items()}
    hand = {name: values[:6] for name, values in vars(panda().hand_limits).items()}
    servo = Servo(
        panda(
            joints=JOINTS[:7],
            limits=Limits(**seven),
            hand_limits=Limits(**hand),
            home=None,
            gripper=None,
        ),
        DT,
    )
    servo.start(HOME[:7])
    goal = moved(servo, 0.05, 0.05, 0.05, 0, 0, 0.1)
    run(servo, 150, goal)
    assert servo.axes == ("x", "y", "z", "rx", "ry", "rz")
    np.testing.assert_allclose(pose(servo), goal, atol=5e-4)


def test_a_joint_arm_without_model_needs_none():
    servo = Servo(panda(mode="joints", model=None, hand=None, workspace=None), DT)
    servo.start(HOME)
    servo.goal(HOME)
    goal = HOME + 0.3 * (np.arange(8) < 7)
    goal[3] = 0.5  # beyond its limit
    commands = np.array([HOME, *run(servo, 300, goal)])
    assert_obeys(commands, LIMITS, DT)
    np.testing.assert_allclose(commands[-1], np.minimum(goal, LIMITS.high), atol=1e-6)
    assert "position joint4" in servo.violations


def test_walls_stop_the_hand_and_it_glides_along_them():
    servo = started()
    begin = pose(servo)
    run(servo, 200, np.r_[begin[0] + 0.2, 0.2, 0.5, begin[3:]])  # far below the floor
    there = pose(servo)
    np.testing.assert_allclose(there[:2], [begin[0] + 0.2, 0.2], atol=1e-3)
    assert there[2] == pytest.approx(WORKSPACE.low[2] + INSET, abs=1e-3)
    assert "collision" not in servo.violations


def test_a_bad_place_can_be_left_but_not_made_worse():
    workspace = Workspace((-0.3, -0.35, 1.05), (0.3, 0.35, 1.3), clearance=0.004)
    servo = started(workspace=workspace, mode="joints", hand_limits=None)
    assert servo._kinematics is not None
    judge = Judge(servo._clearance)
    before = judge.place(HOME)[2]
    assert before < 1.02  # outside
    servo.goal(HOME)
    down = run(servo, 100, HOME + 0.3 * (np.arange(8) == 1))
    assert min(judge.place(joints)[2] for joints in down) >= before - 1e-5
    assert servo.violations["workspace"] > 0
    up = run(servo, 200, HOME - 0.3 * (np.arange(8) == 1))
    heights = [judge.place(joints)[2] for joints in up]
    assert heights[-1] > before + 0.05
