"""An arm's model (MJCF): where the hand is, and which joint motion brings it elsewhere.

Inverse kinematics is differential: one step solves the least-squares problem

    min |W (J dq - e)|² + d |dq|² + r² |dq - n|²    subject to    low <= q + dq <= high

with the hand's motion e (world frame), the Jacobian J, a weight W of turns against metres, a
damping d that grows with e, and a small pull r to a motion n of redundant joints. It is the problem
that mink builds; directly on MuJoCo's Jacobian it is solved five times as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.base import Limits

Vector = NDArray[np.float64]

# Hand orientation with the gripper pointing down, from which rotation vectors count (as in
# training): columns (0, 1, 0), (1, 0, 0), (0, 0, -1). Its inverse as a quaternion wxyz:
HOME_INVERSE = np.array([0.0, -np.sqrt(0.5), -np.sqrt(0.5), 0.0])
TURN_M = 0.3  # a turn of 1 rad counts as much as this many metres
DAMPING = 1e-6
ERROR_DAMPING = 0.1  # times the squared error: far goals are approached calmly
POSTURE = 2e-3  # r
RANGE_ROUNDING = 1e-6  # a configuration may exceed the model's range by so much


class Kinematics:
    """The model with the joints of one arm. Other joints stay as the model has them.

    Args:
        config: with ``model``; ``hand`` where its pose is wanted.

    Raises:
        GenpolicyError: the model cannot be read, or is not of this arm.
    """

    def __init__(self, config: ArmConfig) -> None:
        import mujoco  # only arms with a model need it

        self.mujoco: Any = mujoco  # its functions are compiled: no types
        self._where = f"model '{config.model}'"
        try:
            self.model = self.mujoco.MjModel.from_xml_path(str(config.model))
        except ValueError as error:
            raise GenpolicyError(f"{self._where} cannot be read: {error}") from None
        self.data = self.mujoco.MjData(self.model)
        self.joint_ids = [self._joint(name, config) for name in config.joints]
        self._present = np.array([i for i, id in enumerate(self.joint_ids) if id >= 0], int)
        ids = np.array(self.joint_ids)[self._present]
        self._qpos = self.model.jnt_qposadr[ids]
        self.coupled = self._couplings()
        self.limits = self._intersect(config)
        self.site = -1 if config.hand is None else self._find_site(config)
        self._prepare_solver(config)
        self.place(np.clip(np.zeros(len(config.joints)), self.limits.low, self.limits.high))

    def place(self, position: Vector) -> None:
        """Put the joints ``[J]`` there; ``hand`` and distances are then of this pose."""
        qpos = self.data.qpos
        qpos[self._qpos] = position[self._present]
        for dependent, source, at_rest, polynomial in self.coupled:
            qpos[dependent] = at_rest + np.polyval(polynomial, position[source])
        self.mujoco.mj_kinematics(self.model, self.data)

    def hand(self, out: Vector) -> None:
        """The hand's position, m, and rotation vector from gripper-down, rad, into ``out [6]``."""
        out[:3] = self.data.site_xpos[self.site]
        quaternion, turn = np.empty(4), np.empty(4)
        self.mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[self.site])
        self.mujoco.mju_mulQuat(turn, quaternion, HOME_INVERSE)
        self.mujoco.mju_quat2Vel(out[3:6], turn, 1.0)

    def jacobian(self) -> Vector:
        """Of the hand at the present pose, ``[6, N]``: its twist per speed of the hand's joints."""
        self.mujoco.mj_comPos(self.model, self.data)
        self.mujoco.mj_jacSite(self.model, self.data, self._jac[:3], self._jac[3:], self.site)
        return self._jac[:, self._dofs]

    def solve(self, error: Vector, position: Vector, drift: Vector) -> Vector | None:
        """The joint motion that moves the hand by ``error``, from the pose placed last.

        Args:
            error: ``[6]`` translation, m, and rotation vector, rad, in the world's frame.
            position: ``[J]`` the joints of that pose.
            drift: ``[J]`` small motion that redundant joints make besides.

        Returns:
            ``[J]`` change of the joints (0 for those that do not move the hand), or None when
            there is none: the numbers were not good enough.
        """
        weighted = error.copy()
        weighted[3:] *= TURN_M
        jacobian = self.jacobian()
        jacobian[3:] *= TURN_M
        start = position[self.chain]
        H = jacobian.T @ jacobian
        H.flat[:: len(H) + 1] += DAMPING + ERROR_DAMPING * float(weighted @ weighted) + POSTURE**2
        g = jacobian.T @ weighted + POSTURE**2 * drift[self.chain]
        low, high = np.minimum(self._low - start, 0.0), np.maximum(self._high - start, 0.0)
        step = self._bounded(H, g, low, high)
        if step is None:
            return None
        change = np.zeros(len(position))
        change[self.chain] = step
        return change

    def _bounded(self, H: Vector, g: Vector, low: Vector, high: Vector) -> Vector | None:
        """The minimum of ½ xᵀHx - gᵀx between bounds."""
        try:
            step = np.linalg.solve(H, g)
            if not np.isfinite(step).all():
                return None
            if ((step < low) | (step > high)).any():
                bounds = np.concatenate([low, -high])
                step = self._solve_qp(H, g, self._sides, bounds)[0]
        except (ValueError, np.linalg.LinAlgError):
            return None
        return np.clip(step, low, high) if np.isfinite(step).all() else None

    def _prepare_solver(self, config: ArmConfig) -> None:
        self.chain = np.zeros(0, int)  # which joints move the hand
        if self.site < 0:
            return
        import quadprog

        self._solve_qp: Any = quadprog.solve_qp
        moving = self.moves(int(self.model.site_bodyid[self.site]))
        self.chain = np.flatnonzero(moving)
        self._check_chain(config)
        ids = np.array(self.joint_ids)[self.chain]
        self._dofs = self.model.jnt_dofadr[ids]
        self._jac = np.zeros((6, self.model.nv))
        limits = self.limits
        self._low, self._high = (np.array(v)[self.chain] for v in (limits.low, limits.high))
        eye = np.eye(len(self.chain))
        self._sides = np.hstack([eye, -eye])

    def moves(self, body: int) -> NDArray[np.bool_]:
        """Which of the arm's joints move ``body``, ``[J]``."""
        ancestors = self.ancestors(body)
        found = [id >= 0 and self.model.jnt_bodyid[id] in ancestors for id in self.joint_ids]
        for dependent, source, _, _ in self.coupled:
            joint = int(np.flatnonzero(self.model.jnt_qposadr == dependent)[0])
            found[source] |= self.model.jnt_bodyid[joint] in ancestors
        return np.array(found)

    def ancestors(self, body: int) -> set[int]:
        """``body`` and all that carry it, without the world."""
        found = set()
        while body != 0:
            found.add(body)
            body = int(self.model.body_parentid[body])
        return found

    def _joint(self, name: str, config: ArmConfig) -> int:
        """Its id; -1 for a gripper that the model leaves out."""
        kinds = self.mujoco.mjtJoint
        simple = (int(kinds.mjJNT_HINGE), int(kinds.mjJNT_SLIDE))
        id = self.mujoco.mj_name2id(self.model, self.mujoco.mjtObj.mjOBJ_JOINT, name)
        if id < 0 and not (config.gripper and name == config.gripper.joint):
            raise GenpolicyError(f"{self._where} has no joint '{name}': see joints.names")
        if id >= 0 and self.model.jnt_type[id] not in simple:
            raise GenpolicyError(f"{self._where}: joint '{name}' neither turns nor slides")
        return id

    def _find_site(self, config: ArmConfig) -> int:
        id = self.mujoco.mj_name2id(self.model, self.mujoco.mjtObj.mjOBJ_SITE, config.hand)
        if id < 0:
            raise GenpolicyError(f"{self._where} has no site '{config.hand}': see the key hand")
        return id

    def _check_chain(self, config: ArmConfig) -> None:
        """All joints that carry the hand must be the arm's."""
        bodies = self.ancestors(int(self.model.site_bodyid[self.site]))
        for joint in range(self.model.njnt):
            if self.model.jnt_bodyid[joint] in bodies and joint not in self.joint_ids:
                raise GenpolicyError(
                    f"{self._where}: joint '{self.model.joint(joint).name}' moves the hand "
                    f"'{config.hand}', but joints.names does not have it"
                )
        if not len(self.chain):
            raise GenpolicyError(f"{self._where}: no joint moves the hand '{config.hand}'")

    def _couplings(self) -> list[tuple[int, int, float, Vector]]:
        """Joints that an equality makes follow one of the arm's, as fingers follow each other."""
        model, found = self.model, []
        for index in range(model.neq):
            if model.eq_type[index] != int(self.mujoco.mjtEq.mjEQ_JOINT):
                continue
            follower, leader = int(model.eq_obj1id[index]), int(model.eq_obj2id[index])
            if leader in self.joint_ids and follower not in self.joint_ids:
                address, source = model.jnt_qposadr[follower], model.jnt_qposadr[leader]
                shift = np.poly1d([1.0, -model.qpos0[source]])
                polynomial = np.poly1d(model.eq_data[index, 4::-1])(shift)
                at_rest = float(model.qpos0[address])
                position = self.joint_ids.index(leader)
                found.append((int(address), position, at_rest, np.atleast_1d(polynomial)))
        return found

    def _intersect(self, config: ArmConfig) -> Limits:
        """The configured limits, which the model's ranges must contain."""
        low, high = list(config.limits.low), list(config.limits.high)
        for index, (name, id) in enumerate(zip(config.joints, self.joint_ids, strict=True)):
            if id < 0 or not self.model.jnt_limited[id]:
                continue
            least, most = (float(bound) for bound in self.model.jnt_range[id])
            if low[index] < least - RANGE_ROUNDING or high[index] > most + RANGE_ROUNDING:
                raise GenpolicyError(
                    f"joints: the limits of '{name}' ({low[index]:g} to {high[index]:g}) exceed "
                    f"its range in {self._where} ({least:g} to {most:g})"
                )
            low[index], high[index] = max(low[index], least), min(high[index], most)
        values = vars(config.limits) | {"low": tuple(low), "high": tuple(high)}
        return Limits(**values)
