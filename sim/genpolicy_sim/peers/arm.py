"""The arm behind a peer: position servos with MuJoCo's physics, in real time."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from genpolicy.data_files import data_path

Vector = NDArray[np.float64]

MAX_CATCH_UP_S = 0.1  # of physics in one call: what a stalled process misses beyond it is skipped
OBJECTS_HZ = 50.0
MAX_GOALS = 20_000  # kept for ``take_goals``

# Lift's, without robosuite; a test compares episodes.
CUBE_HALF_SIZE = (0.02127392, 0.02053957, 0.02008195)  # m
CUBE_HEIGHT = 0.81  # m, of the underside at the start
CUBE_RANGE = 0.03  # m, half the extent of the area where the cube starts
POSTURE_NOISE = 0.02  # rad
STARTS_DRAWN = 64  # an episode is the first of so many drawn at a time


class PeerArm:
    """An arm with a position servo per joint, before a table with Lift's cube or without.

    Args:
        objects_port: where on this computer to send Lift's observation ``object`` (10 float64:
            position of the cube, its quaternion xyzw, where it is from the hand) by UDP at 50 Hz.
        seed: episode of the Lift task whose start is the arm's and the cube's.
        model: MJCF in ``assets/``: one position actuator per servo, named like its joint; key
            "home" (arm at rest, all else follows from it) and site "hand".
        cube: whether there is one; for models that have Lift's table.
    """

    def __init__(
        self,
        objects_port: int | None = None,
        seed: int = 0,
        model: str = "panda.xml",
        cube: bool = True,
    ) -> None:
        self._model, self._home = _scene(model, cube)
        self._data = mujoco.MjData(self._model)
        self.names = tuple(self._model.actuator(i).name for i in range(self._model.nu))
        joints = [self._model.joint(name) for name in self.names]
        self._qadr = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._cube = self._model.body("cube").id if cube else None
        self._hand = self._model.site("hand").id
        self._gains = self._model.actuator_gainprm.copy(), self._model.actuator_biasprm.copy()
        self._float = self._model.body_gravcomp.copy()
        count = len(self.names)
        self.position, self.velocity, self.effort, self.target = np.zeros((4, count))
        self._powered = np.ones(count, np.bool_)
        self._held = True  # by its stand, until the first goal
        self._objects = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if objects_port else None
        self._objects_at = ("127.0.0.1", objects_port)
        self._goals: deque[tuple[float, list[float]]] = deque(maxlen=MAX_GOALS)
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Put arm and cube, at rest, where episode ``seed`` of Lift starts."""
        rng = np.random.default_rng([seed, 0])
        posture = rng.standard_normal((STARTS_DRAWN, 7))[0]
        x, y, turn = rng.uniform(-1.0, 1.0, (STARTS_DRAWN, 3))[0]
        mujoco.mj_resetData(self._model, self._data)
        qpos = self._data.qpos
        qpos[: len(self._home)] = self._home
        arm = self._qadr[:7]  # without the gripper
        qpos[arm] += POSTURE_NOISE * posture[: len(arm)]
        if self._cube is not None:
            half = 0.5 * np.pi * (1.0 + turn)
            height = CUBE_HEIGHT + CUBE_HALF_SIZE[2]
            qpos[-7:] = CUBE_RANGE * x, CUBE_RANGE * y, height, np.cos(half), 0.0, 0.0, np.sin(half)
        mujoco.mj_forward(self._model, self._data)
        self._now: float | None = None  # wall-clock time up to which physics has been done
        self._objects_due = 0.0
        self._held = True
        self._drive()
        self._measure()
        self.target[:] = self.position

    @property
    def torque(self) -> bool:
        """Whether all servos have power. Without it a joint is limp, and the arm falls.

        (Not before the first goal after a reset, though: something holds it where it starts.)
        """
        return bool(self._powered.all())

    @torque.setter
    def torque(self, on: bool) -> None:
        self.power(slice(None), on)

    def power(self, joints: slice | int, on: bool) -> None:
        """Switch the torque of some servos; where it comes on, the servo stays where it is."""
        before = self._powered.copy()
        self._powered[joints] = on
        risen = self._powered & ~before
        self.target[risen] = self.position[risen]
        self._drive()

    def _drive(self) -> None:
        """Let those servos act that have power, or none yet."""
        acting = self._powered | self._held
        gain, bias = self._gains
        self._model.actuator_gainprm[:] = gain * acting[:, None]
        self._model.actuator_biasprm[:] = bias * acting[:, None]
        # Servos that all act carry the arm's weight, as a real arm's integral terms do.
        self._model.body_gravcomp[:] = self._float * acting.all()

    def receive(self, target: Vector) -> None:
        """What a protocol calls with goals ``[J]``: take them, and keep them with their time."""
        self.target[:] = target
        if self._held:
            self._held = False
            self._drive()
        self._goals.append((time.monotonic(), self.target.tolist()))

    def take_goals(self) -> list[tuple[float, list[float]]]:
        """Goals that came since the last call: (CLOCK_MONOTONIC s, ``[J]``)."""
        goals = list(self._goals)
        self._goals.clear()
        return goals

    def advance(self, now: float) -> None:
        """Physics up to second ``now`` of any clock that only goes forward."""
        step = self._model.opt.timestep
        done = now if self._now is None else max(self._now, now - MAX_CATCH_UP_S)
        steps = int((now - done) / step)
        self._now = done + steps * step
        if not steps:
            return
        for _ in range(steps):
            self._data.ctrl[:] = self.target
            mujoco.mj_step(self._model, self._data)
        self._measure()
        if self._objects and self._data.time >= self._objects_due:
            self._objects_due = self._data.time + 1.0 / OBJECTS_HZ - step / 2
            self._send_objects()

    def state(self) -> dict[str, Any]:
        """All that there is to know, for people and tests; goals as ``take_goals``."""
        return {
            "names": self.names,
            "position": self.position.tolist(),
            "velocity": self.velocity.tolist(),
            "effort": self.effort.tolist(),
            "target": self.target.tolist(),
            "torque": self.torque,
            "cube_height": self._data.xpos[self._cube, 2].item() if self._cube else None,
            "hand": self._data.site_xpos[self._hand].tolist(),
            "time": time.monotonic(),
            "goals": self.take_goals(),
        }

    def objects(self) -> Vector:
        """Lift's observation ``object [10]``."""
        cube = self._data.xpos[self._cube]
        quat = self._data.xquat[self._cube]
        return np.concatenate([cube, quat[[1, 2, 3, 0]], cube - self._data.site_xpos[self._hand]])

    def _measure(self) -> None:
        data = self._data
        self.position[:] = data.qpos[self._qadr]
        self.velocity[:] = data.qvel[self._dof]
        self.effort[:] = (data.qfrc_actuator + data.qfrc_gravcomp)[self._dof]

    def _send_objects(self) -> None:
        assert self._objects
        self._objects.sendto(self.objects().astype("<f8").tobytes(), self._objects_at)


def _scene(model: str, with_cube: bool) -> tuple[mujoco.MjModel, Vector]:
    """The arm's model, the cube, if any, added last, and the arm's joint positions at home."""
    spec = mujoco.MjSpec.from_file(str(data_path("assets") / model))
    key = spec.key("home")
    home = np.array(key.qpos)
    spec.delete(key)  # it has no place for the cube
    if not with_cube:
        return spec.compile(), home
    cube = spec.worldbody.add_body(name="cube")
    cube.add_freejoint(name="cube")
    box = mujoco.mjtGeom.mjGEOM_BOX
    cube.add_geom(name="cube", type=box, size=CUBE_HALF_SIZE, density=1000.0, rgba=[1, 0, 0, 1])
    return spec.compile(), home
