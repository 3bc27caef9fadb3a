"""Actions to targets: the modes that robots are commanded in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from genpolicy_deploy.actions import action_mode
from tiny_controller import lift_task

from genpolicy.spec import ActionSpec, GenpolicyError


def task(mode: str, low: list[float], high: list[float]):
    names = tuple(f"joint{i}" for i in range(len(low)))
    action = ActionSpec(names, ("rad",) * len(low), tuple(low), tuple(high))
    return replace(lift_task(), control_mode=mode, action=action)


def test_joint_goals_are_taken_as_they_are_and_clipped_to_those_of_training():
    mode = action_mode(task("joint_position", [-1.0, -2.0], [1.0, 2.0]))
    out = np.zeros(2)
    mode.target(np.array([0.5, -3.0], np.float32), np.full(2, 9.0), np.full(2, 9.0), out)
    np.testing.assert_array_equal(out, [0.5, -2.0])
    assert mode.axes == ("joint0", "joint1")


@pytest.mark.parametrize("mode", ["joint_position", "osc_pose_delta"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_not_clipped_into_one(mode, value):
    action = np.zeros(7, np.float32)
    action[3] = value
    out = np.zeros(7)
    modes = action_mode(task(mode, [-1.0] * 7, [1.0] * 7))
    modes.target(action, np.zeros(7), np.zeros(7), out)
    assert np.isnan(out).any()


def test_an_arm_without_gripper_has_the_other_six_axes():
    six = action_mode(task("osc_pose_delta", [-1.0] * 6, [1.0] * 6))
    seven = action_mode(task("osc_pose_delta", [-1.0] * 7, [1.0] * 7))
    measured = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0])
    a, b = np.zeros(6), np.zeros(7)
    action = np.linspace(-0.5, 0.5, 7).astype(np.float32)
    six.target(action[:6], measured[:6], np.zeros(6), a)
    seven.target(action, measured, np.zeros(7), b)
    np.testing.assert_array_equal(a, b[:6])
    assert six.axes == seven.axes[:6]
    with pytest.raises(GenpolicyError, match="6 actions, or 7"):
        action_mode(task("osc_pose_delta", [-1.0] * 5, [1.0] * 5))
