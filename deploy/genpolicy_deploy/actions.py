"""Policy actions to absolute targets, once per control step, as the training simulation did it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, TaskSpec
from genpolicy_deploy.rotations import compose

Vector = NDArray[np.float64]


class ActionMode(Protocol):
    """How one ``control_mode`` turns an action into a target on the robot's axes."""

    axes: tuple[str, ...]  # names of the robot axes it commands, in order

    def target(
        self, action: NDArray[np.floating], measured: Vector, command: Vector, out: Vector
    ) -> None:
        """Write the target of ``action [Da]`` into ``out [A]``.

        Args:
            action: one row of a chunk, in task units.
            measured: ``[A]`` where the robot is.
            command: ``[A]`` what it was last told.
            out: ``[A]`` the target, not yet limited.
        """
        ...


class OscPoseDelta:
    """robosuite's OSC_POSE in delta mode with a gripper that integrates.

    The goal position is the *achieved* end-effector position plus ``position_scale`` times the
    action; the goal orientation is the achieved one, rotated in the world frame by the rotation
    vector ``rotation_scale`` times the action; the gripper's target moves by ``gripper_speed`` in
    the direction of the last action, from -1 (open) to 1 (closed). Six actions: no gripper.
    """

    def __init__(self, task: TaskSpec) -> None:
        names = ("position_scale", "rotation_scale", "gripper_speed")
        if task.action.dim not in (6, 7):
            raise GenpolicyError(
                f"task '{task.task}': osc_pose_delta has 6 actions, or 7 with a gripper, not "
                f"{task.action.dim}"
            )
        self.axes = ("x", "y", "z", "rx", "ry", "rz", "gripper")[: task.action.dim]
        try:
            self._position, self._rotation, self._gripper = (task.control[n] for n in names)
        except KeyError as error:
            raise GenpolicyError(f"task '{task.task}': control lacks {error}") from error
        self._low, self._high = np.array(task.action.low), np.array(task.action.high)

    def target(
        self, action: NDArray[np.floating], measured: Vector, command: Vector, out: Vector
    ) -> None:
        """See ``ActionMode``; actions beyond their bounds are clipped, as in training."""
        if not np.isfinite(action).all():  # clipping would turn infinity into a valid action
            out[:] = np.nan
            return
        bounded: Sequence[float] = np.clip(
            action.astype(np.float64), self._low, self._high
        ).tolist()
        for axis in range(3):
            out[axis] = measured[axis] + self._position * bounded[axis]
        delta = [self._rotation * value for value in bounded[3:6]]
        out[3:6] = compose(delta, measured[3:6].tolist())
        for axis in range(6, len(bounded)):
            step = self._gripper * float(np.sign(bounded[axis]))
            out[axis] = min(max(command[axis] + step, -1.0), 1.0)


class JointPosition:
    """Actions are the joints' goals themselves, in rad (m where a joint slides)."""

    def __init__(self, task: TaskSpec) -> None:
        self.axes = task.action.names
        self._low, self._high = np.array(task.action.low), np.array(task.action.high)

    def target(
        self, action: NDArray[np.floating], measured: Vector, command: Vector, out: Vector
    ) -> None:
        """See ``ActionMode``; goals beyond the bounds of training are clipped to them."""
        if not np.isfinite(action).all():
            out[:] = np.nan
        else:
            np.clip(action, self._low, self._high, out=out)


_MODES = {"osc_pose_delta": OscPoseDelta, "joint_position": JointPosition}


def action_mode(task: TaskSpec) -> ActionMode:
    """The mode a task was trained with.

    Raises:
        GenpolicyError: this version cannot execute it.
    """
    if task.control_mode not in _MODES:
        raise GenpolicyError(
            f"control_mode '{task.control_mode}' of task '{task.task}' is not one of "
            f"{', '.join(sorted(_MODES))}"
        )
    return _MODES[task.control_mode](task)
