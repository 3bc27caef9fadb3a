"""Operational-space control of an arm's end effector, for N simulations at once.

Khatib, "A unified approach for motion and force control of robot manipulators" (1987), as
robosuite's OSC_POSE: position and orientation decoupled, gravity compensated, redundancy resolved
towards a rest posture. A control step is

    goal = delta_to_goal(action, achieved pose, ...)      once, when the action arrives
    ctrl = controller.torques(goal, ...); mj_step         every 2 ms until the next action

The goal is absolute. Whoever sends the robot absolute goals (a real-time process, say) enters at
the second line and gets the same dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Goal(NamedTuple):
    """Where N arms shall go, in world coordinates."""

    pos: Array  # [N, 3] m
    rot: Array  # [N, 3, 3] rotation matrices
    gripper: Array  # [N] from -1, open, to 1, closed


@dataclass(frozen=True)
class DeltaScale:
    """How far an action of 1 moves the goal (the ``control`` entry of the task's spec)."""

    position_scale: float = 0.05  # m
    rotation_scale: float = 0.5  # rad
    gripper_speed: float = 0.2  # per control step, whatever the size of the command


def rotation_matrix(rotvec: Array) -> Array:
    """Rodrigues' formula: rotation vectors ``[N, 3]`` in rad to matrices ``[N, 3, 3]``."""
    angle = np.linalg.norm(rotvec, axis=1)[:, None, None]
    x, y, z = rotvec.T
    cross = np.zeros((len(rotvec), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -z, y, -x
    cross[:, 1, 0], cross[:, 2, 0], cross[:, 2, 1] = z, -y, x
    # sin(a)/a and (1 - cos a)/a² = (sin(a/2)/(a/2))²/2, both exact at a = 0
    sine = np.sinc(angle / np.pi)
    versine = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + sine * cross + versine * (cross @ cross)


def delta_to_goal(
    action: Array, eef_pos: Array, eef_rot: Array, gripper: Array, scale: DeltaScale
) -> Goal:
    """Turn actions into absolute goals, relative to the *achieved* pose.

    Args:
        action: ``[N, 7]`` in [-1, 1]: translation, rotation vector (both in the world frame),
            gripper (only its sign counts: negative opens, positive closes).
        eef_pos: ``[N, 3]`` achieved position of the grip site, m.
        eef_rot: ``[N, 3, 3]`` achieved orientation.
        gripper: ``[N]`` the gripper's present target in [-1, 1].
        scale: size of an action of 1.
    """
    return Goal(
        eef_pos + scale.position_scale * action[:, :3],
        rotation_matrix(scale.rotation_scale * action[:, 3:6]) @ eef_rot,
        np.clip(gripper + scale.gripper_speed * np.sign(action[:, 6]), -1.0, 1.0),
    )


class OperationalSpaceController:
    """Computes joint torques that drive end effectors to goals.

    Args:
        model: the compiled scene.
        batch: its simulations; they must be current up to ``mjSTAGE_VEL`` at each call.
        joints: names of the arm's joints, all hinges, base to tip.
        site: name of the controlled site.
        kp: stiffness of the end effector, 1/s² (damping is critical).
        null_kp: stiffness towards the rest posture, 1/s² (damping is critical).
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        batch: Batch,
        joints: list[str],
        site: str,
        kp: float = 150.0,
        null_kp: float = 10.0,
    ) -> None:
        self.joint = np.array([model.joint(name).id for name in joints])
        self.qadr = model.jnt_qposadr[self.joint]
        self.dof = model.jnt_dofadr[self.joint]
        self.site = model.site(site).id
        self.kp, self.kd = kp, 2.0 * np.sqrt(kp)
        self.null_kp, self.null_kd = null_kp, 2.0 * np.sqrt(null_kp)
        self._mass_index = mass_matrix_index(model, self.dof)
        names = ("qpos", "qvel", "site_xpos", "site_xmat", "xanchor", "xaxis", "qfrc_bias", "M")
        self._field: dict[str, Any] = {name: batch.bind(name) for name in names}

    def eef_pose(self) -> tuple[Array, Array]:
        """Achieved position ``[N, 3]`` and orientation ``[N, 3, 3]``, as views."""
        field = self._field
        xmat = field["site_xmat"]
        return field["site_xpos"][:, self.site], xmat.reshape(len(xmat), -1, 3, 3)[:, self.site]

    def torques(self, goal: Goal, rest: Array) -> Array:
        """Joint torques ``[N, dof]``: J'(Λ_task F − Λ J u) + M u + bias.

        The second and third term are robosuite's null-space torque N' M u, with
        N' = I − J' Λ J M⁻¹ multiplied out.

        Args:
            goal: where to go.
            rest: ``[N, dof]`` posture that the redundant degree of freedom is drawn to, rad.
        """
        field = self._field
        q, qd = field["qpos"][:, self.qadr], field["qvel"][:, self.dof]
        pos, rot = self.eef_pose()
        axis = field["xaxis"][:, self.joint]
        lever = pos[:, None] - field["xanchor"][:, self.joint]
        Jt = np.concatenate([np.cross(axis, lever), axis], axis=2)  # [N, dof, 6]
        J = Jt.transpose(0, 2, 1)
        M = field["M"].reshape(len(q), -1)[:, self._mass_index]

        twist = (J @ qd[:, :, None])[:, :, 0]
        error = np.concatenate([goal.pos - pos, orientation_error(goal.rot, rot)], axis=1)
        force = self.kp * error - self.kd * twist
        u = self.null_kp * (rest - q) - self.null_kd * qd

        inverse_inertia = J @ np.linalg.solve(M, Jt)  # J M⁻¹ J' = Λ⁻¹, [N, 6, 6]
        wrench = np.empty_like(force)
        wrench[:, :3] = np.linalg.solve(inverse_inertia[:, :3, :3], force[:, :3])
        wrench[:, 3:] = np.linalg.solve(inverse_inertia[:, 3:, 3:], force[:, 3:])
        wrench -= np.linalg.solve(inverse_inertia, (J @ u[:, :, None])[:, :, 0])
        torque = (Jt @ wrench[:, :, None] + M @ u[:, :, None])[:, :, 0]
        return torque + field["qfrc_bias"][:, self.dof]


def orientation_error(goal: Array, current: Array) -> Array:
    """Half the sum of the cross products of the frames' axes, ``[N, 3]`` rad for small errors."""
    return 0.5 * np.cross(current, goal, axis=1).sum(axis=2)


def mass_matrix_index(model: mujoco.MjModel, dof: NDArray[np.int32]) -> NDArray[np.intp]:
    """Where entry (i, j) of the arm's mass matrix is in MuJoCo's sparse lower triangle."""
    index = np.empty((len(dof), len(dof)), np.intp)
    for row, i in enumerate(dof):
        start, count = model.M_rowadr[i], model.M_rownnz[i]
        columns = model.M_colind[start : start + count].tolist()
        for column, j in enumerate(dof[: row + 1]):
            index[row, column] = index[column, row] = start + columns.index(j)
    return index
