"""What Can and Square share: one object is carried to its place and let go of there."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Feature
from genpolicy_sim.osc import Array, Goal
from genpolicy_sim.quaternions import XYZW, conjugate, multiply, rotate, upper, yaw
from genpolicy_sim.robosuite_task import TaskSim, put


def park(qpos: Array, model: mujoco.MjModel, joint: str) -> None:
    """Put an object that does not take part where robosuite does: far away."""
    put(qpos, model, joint, np.full((len(qpos), 2), 10.0), 10.0, yaw(np.zeros(len(qpos))))


class PlaceSim(TaskSim):
    """N scenes with one object; the others that robosuite's scene has are parked far away.

    The object's pose *in the gripper's frame* is observed as robosuite 1.5.2 computes it: from the
    gripper's present pose and the object's one control step ago, and zero when an episode starts.
    (Its observables are computed in the order in which they are concatenated, relative pose first.)
    """

    objects = Feature("object", (14,), "m, xyzw, m, xyzw")
    object_name: ClassVar[str]  # in the scene

    def __init__(self, num_envs: int, num_threads: int | None = None) -> None:
        super().__init__(num_envs, num_threads)
        self._object = self.model.body(f"{self.object_name}_main").id
        # Position, and quaternion wxyz or zero: not seen in this episode yet.
        self._seen = np.zeros((num_envs, 7))

    def start(self, ids: NDArray[np.intp], draws: Array) -> None:
        """Put environments ``ids`` into the initial states that ``draws [n, draw_dim]`` encode."""
        super().start(ids, draws)
        self._seen[ids] = 0.0

    def set_goal(self, goal: Goal, ids: NDArray[np.intp] | None = None) -> None:
        """Pursue the absolute ``goal`` (first axis N): a control step begins."""
        super().set_goal(goal, ids)
        rows = slice(None) if ids is None else ids
        self._seen[rows, :3] = self.report.xpos[rows, self._object]
        self._seen[rows, 3:] = self.report.xquat[rows, self._object]

    def observe_objects(self, out: Array) -> None:
        """Pose of the object in the gripper's frame, then in the world's."""
        report = self.report
        hand = conjugate(report.xquat[:, self._hands[0]])
        seen = self._seen[:, 3:].any(axis=1, keepdims=True)
        offset = self._seen[:, :3] - report.site_xpos[:, self.arms[0].site]
        out[:, 0:3] = np.where(seen, rotate(hand, offset), 0.0)
        out[:, 3:7] = upper(multiply(hand, self._seen[:, 3:]))[:, XYZW]
        out[:, 7:10] = report.xpos[:, self._object]
        out[:, 10:14] = report.xquat[:, self._object][:, XYZW]

    def released(self) -> NDArray[np.bool_]:
        """``[N]`` whether the gripper has left the object: 4.2 cm, from robosuite's reward."""
        report = self.report
        offset = report.site_xpos[:, self.arms[0].site] - report.xpos[:, self._object]
        return 1.0 - np.tanh(10.0 * np.linalg.norm(offset, axis=1)) < 0.6

    def _state(self) -> dict[str, NDArray[Any]]:
        return super()._state() | {"seen": self._seen}
