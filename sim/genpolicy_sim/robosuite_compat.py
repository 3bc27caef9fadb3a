"""Makes robosuite 1.5.2 run on MuJoCo 3.17.

robosuite 1.5.2 was written for MuJoCo up to 3.9. Each function below replaces one function of
robosuite (never one of MuJoCo's, which other code in the process may use) and says what changed.
Import robosuite through ``load`` only.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import importlib
import logging
from types import ModuleType, SimpleNamespace
from typing import Any

import mujoco
import numpy as np

_JOINT_SIZE = {  # mjtJoint: (entries in qpos, entries in qvel)
    mujoco.mjtJoint.mjJNT_FREE.value: (7, 6),
    mujoco.mjtJoint.mjJNT_BALL.value: (4, 3),
    mujoco.mjtJoint.mjJNT_SLIDE.value: (1, 1),
    mujoco.mjtJoint.mjJNT_HINGE.value: (1, 1),
}


def load() -> ModuleType:
    """Import robosuite quietly, patch it once and return it."""
    # robosuite reports absent optional parts on import and each controller file it loads.
    logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)
    robosuite = importlib.import_module("robosuite")
    patch_joint_addresses()
    patch_mass_matrix()
    return robosuite


def patch_joint_addresses() -> None:
    """Look joint types up as integers.

    ``np.int32(3) in (mjtJoint.mjJNT_HINGE,)``, robosuite's test, is False since MuJoCo 3.12.
    """
    model_class: Any = importlib.import_module("robosuite.utils.binding_utils").MjModel

    def span(start: int, size: int) -> int | tuple[int, int]:
        return start if size == 1 else (start, start + size)

    def get_joint_qpos_addr(self: Any, name: str) -> int | tuple[int, int]:
        joint = self.joint_name2id(name)
        return span(self.jnt_qposadr[joint], _JOINT_SIZE[int(self.jnt_type[joint])][0])

    def get_joint_qvel_addr(self: Any, name: str) -> int | tuple[int, int]:
        joint = self.joint_name2id(name)
        return span(self.jnt_dofadr[joint], _JOINT_SIZE[int(self.jnt_type[joint])][1])

    model_class.get_joint_qpos_addr = get_joint_qpos_addr
    model_class.get_joint_qvel_addr = get_joint_qvel_addr


def patch_mass_matrix() -> None:
    """Expand the mass matrix with today's ``mj_fullM(model, dst, data)``.

    ``Controller.update`` calls ``mujoco.mj_fullM(model, dst, data.qM)``: the order of the
    arguments changed in MuJoCo 3.10 and ``qM`` went in 3.11. The module's own name ``mujoco`` is
    replaced by a namespace with the one function that it uses.
    """
    controller: Any = importlib.import_module("robosuite.controllers.parts.controller")
    binding: Any = importlib.import_module("robosuite.utils.binding_utils")

    def full_mass_matrix(model: mujoco.MjModel, dst: np.ndarray, data: mujoco.MjData) -> None:
        mujoco.mj_fullM(model, data, dst)

    controller.mujoco = SimpleNamespace(mj_fullM=full_mass_matrix)
    # What robosuite hands over as the third argument; robosuite's MjData wraps MuJoCo's.
    binding.MjData.qM = property(lambda self: self._data)
