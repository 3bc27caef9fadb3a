"""Operational-space control of an arm's end effector.

Khatib, "A unified approach for motion and force control of robot manipulators" (1987), as
robosuite's OSC_POSE: position and orientation decoupled, gravity compensated, redundancy resolved
towards a rest posture. A control step is

    goal = delta_to_goal(action, achieved pose, ...)   for all simulations, when actions arrive
    mj_step1; torques(goal, ...); mj_step2             in each, every 2 ms until the next action

The goal is absolute. Whoever sends the robot absolute goals (a real-time process, say) enters at
the second line (``ArmSim.set_goal``, ``ArmSim.substep``) and gets the same dynamics. That line is
compiled: as NumPy calls over all simulations the controller took as long as the physics.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from genpolicy_sim.jit import njit
from genpolicy_sim.native import Fields

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


# What the controller knows of one arm: indices (base to tip), torque limits, gains.
Arm = namedtuple("Arm", "joint qadr dof actuator low high mass_index site kp kd null_kp null_kd")
# What it computes with, so that nothing is allocated per substep.
Workspace = namedtuple("Workspace", "M Jt K force u torque")


def describe_arm(
    model: mujoco.MjModel,
    joints: list[str],
    site: str,
    kp: float = 150.0,
    null_kp: float = 10.0,
) -> Arm:
    """Describe an arm of hinges, each driven by one torque actuator.

    Args:
        model: the compiled scene.
        joints: names, base to tip.
        site: name of the controlled site.
        kp: stiffness of the end effector, 1/s² (damping is critical).
        null_kp: stiffness towards the rest posture, 1/s² (damping is critical).
    """
    joint = np.array([model.joint(name).id for name in joints])
    dof = model.jnt_dofadr[joint].astype(np.intp)
    driven = model.actuator_trnid[:, 0].tolist()
    actuator = np.array([driven.index(j) for j in joint])
    return Arm(
        joint,
        model.jnt_qposadr[joint].astype(np.intp),
        dof,
        actuator,
        model.actuator_ctrlrange[actuator, 0].copy(),
        model.actuator_ctrlrange[actuator, 1].copy(),
        mass_matrix_index(model, dof),
        model.site(site).id,
        kp,
        2.0 * kp**0.5,
        null_kp,
        2.0 * null_kp**0.5,
    )


def mass_matrix_index(model: mujoco.MjModel, dof: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where entry (i, j) of the arm's mass matrix is in MuJoCo's sparse lower triangle."""
    index = np.empty((len(dof), len(dof)), np.intp)
    for row, i in enumerate(dof):
        start, count = model.M_rowadr[i], model.M_rownnz[i]
        columns = model.M_colind[start : start + count].tolist()
        for column, j in enumerate(dof[: row + 1]):
            index[row, column] = index[column, row] = start + columns.index(j)
    return index


@njit(nogil=True, cache=True, error_model="numpy")
def workspace(dof: int) -> Workspace:
    """Memory for ``torques`` of an arm with ``dof`` joints."""
    return Workspace(
        np.empty((dof, dof)),
        np.empty((dof, 6)),
        np.zeros((dof + 6, (dof + 14) // 8 * 8)),  # dof + 7 columns, in whole vector registers
        np.empty(6),
        np.empty(dof),
        np.empty(dof),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def torques(
    arm: Arm, mj: Fields, goal_pos: Array, goal_rot: Array, rest: Array, work: Workspace
) -> None:
    """``work.torque`` = J'((Λ_pos F, Λ_rot τ) − Λ J u) + M u + bias.

    Λ⁻¹ = J M⁻¹ J'. The terms with u are robosuite's null-space torque N' M u, with
    N' = I − J' Λ J M⁻¹ multiplied out; u draws the joints to the posture ``rest [dof]``.
    """
    n = arm.joint.shape[0]
    pos, rot = mj.site_xpos[arm.site], mj.site_xmat[arm.site]
    _jacobian(arm, mj, work.Jt)
    _pose_error(pos, rot, goal_pos, goal_rot, work.force)
    for i in range(n):
        work.u[i] = arm.null_kp * (rest[i] - mj.qpos[arm.qadr[i]])
        work.u[i] -= arm.null_kd * mj.qvel[arm.dof[i]]
        for j in range(n):
            work.M[i, j] = mj.M[arm.mass_index[i, j]]
    for i in range(6):
        twist = 0.0
        for j in range(n):
            twist += work.Jt[j, i] * mj.qvel[arm.dof[j]]
        work.force[i] = arm.kp * work.force[i] - arm.kd * twist
    _wrench(work, n)
    for i in range(n):
        torque = mj.qfrc_bias[arm.dof[i]]
        for j in range(n):
            torque += work.M[i, j] * work.u[j]
        for j in range(6):
            torque += work.Jt[i, j] * work.force[j]
        work.torque[i] = torque


@njit(nogil=True, cache=True, error_model="numpy")
def _jacobian(arm: Arm, mj: Fields, Jt: Array) -> None:
    """Transposed Jacobian ``[dof, 6]`` of the arm's site: rows (axis × lever, axis)."""
    for i in range(arm.joint.shape[0]):
        j, s = arm.joint[i], arm.site
        ax, ay, az = mj.xaxis[j, 0], mj.xaxis[j, 1], mj.xaxis[j, 2]
        x = mj.site_xpos[s, 0] - mj.xanchor[j, 0]
        y = mj.site_xpos[s, 1] - mj.xanchor[j, 1]
        z = mj.site_xpos[s, 2] - mj.xanchor[j, 2]
        Jt[i, 0], Jt[i, 1], Jt[i, 2] = ay * z - az * y, az * x - ax * z, ax * y - ay * x
        Jt[i, 3], Jt[i, 4], Jt[i, 5] = ax, ay, az


@njit(nogil=True, cache=True, error_model="numpy")
def _pose_error(pos: Array, rot: Array, goal_pos: Array, goal_rot: Array, error: Array) -> None:
    """Goal less pose ``[6]``: m, and half the sum of the axes' cross products, rad when small."""
    for i in range(3):
        error[i] = goal_pos[i] - pos[i]
        error[3 + i] = 0.0
    for c in range(3):
        error[3] += 0.5 * (rot[1, c] * goal_rot[2, c] - rot[2, c] * goal_rot[1, c])
        error[4] += 0.5 * (rot[2, c] * goal_rot[0, c] - rot[0, c] * goal_rot[2, c])
        error[5] += 0.5 * (rot[0, c] * goal_rot[1, c] - rot[1, c] * goal_rot[0, c])


@njit(nogil=True, cache=True, error_model="numpy")
def _wrench(work: Workspace, n: int) -> None:
    """Overwrite ``work.force [6]`` with (Λ_pos F, Λ_rot τ) − Λ J u.

    K = [[M, J'], [J, 0]] and the right-hand side (0, −J u) in column n + 6. Eliminating M leaves
    −J M⁻¹ J' = −Λ⁻¹ in the lower block, eliminating that the solution Λ J u.
    """
    K = work.K
    for i in range(n):
        for j in range(n):
            K[i, j] = work.M[i, j]
        for j in range(6):
            K[i, n + j] = K[n + j, i] = work.Jt[i, j]
        K[i, n + 6] = 0.0
    for i in range(6):
        Ju = 0.0
        for j in range(n):
            Ju += work.Jt[j, i] * work.u[j]
        K[n + i, n + 6] = -Ju
        for j in range(6):
            K[n + i, n + j] = 0.0
    _eliminate(K, 0, n, False)
    _solve3(K, n, work.force, 0)
    _solve3(K, n + 3, work.force, 3)
    _eliminate(K, n, n + 6, True)
    for i in range(6):
        work.force[i] -= K[n + i, n + 6] / K[n + i, n + i]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _eliminate(K: Array, first: int, last: int, above: bool) -> None:
    """Eliminate unknowns ``first`` to ``last`` from the rows below (and ``above``), in place."""
    for k in range(first, last):
        inverse = 1.0 / K[k, k]
        for i in range(first if above else k + 1, K.shape[0]):
            if i != k:
                factor = inverse * K[i, k]
                for c in range(K.shape[1]):
                    K[i, c] -= factor * K[k, c]


@njit(nogil=True, cache=True, error_model="numpy")
def _solve3(K: Array, at: int, b: Array, first: int) -> None:
    """Overwrite three values of ``b`` with −A⁻¹ b, A the symmetric 3 × 3 block of K at ``at``."""
    xx, xy, xz = K[at, at], K[at, at + 1], K[at, at + 2]
    yy, yz, zz = K[at + 1, at + 1], K[at + 1, at + 2], K[at + 2, at + 2]
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    cyy, cyz, czz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    scale = -1.0 / (xx * cxx + xy * cxy + xz * cxz)
    x, y, z = b[first], b[first + 1], b[first + 2]
    b[first] = scale * (cxx * x + cxy * y + cxz * z)
    b[first + 1] = scale * (cxy * x + cyy * y + cyz * z)
    b[first + 2] = scale * (cxz * x + cyz * y + czz * z)
