"""MuJoCo from compiled code: its stepping functions and the fields of an MjData, free of the GIL.

numba, which robosuite brings, compiles the callers.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import ctypes
from collections import namedtuple
from typing import Any

import llvmlite.binding
import mujoco
import numpy as np
from numba import carray, njit, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic
from numpy.typing import NDArray

# Fields of MjData, as arrays.
Fields = namedtuple(
    "Fields",
    "qpos qvel qacc_warmstart ctrl xpos xquat site_xpos site_xmat xanchor xaxis qfrc_bias M",
)


def _external(name: str) -> Any:
    """A function of MuJoCo's library for compiled code (by name, so that caches stay valid)."""
    library = ctypes.CDLL(mujoco._functions.__file__)
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    llvmlite.binding.add_symbol(name, address)
    return types.ExternalFunction(name, types.void(types.intp, types.intp))


# Called with the addresses of model and data.
mj_step1, mj_step2 = _external("mj_step1"), _external("mj_step2")
mj_forward, mj_kinematics = _external("mj_forward"), _external("mj_kinematics")


def _pointer_in_llvm(context: Any, address: Any) -> Any:
    """An address as ``double*``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float64)(types.intp), codegen


def _take_ticket_in_llvm(context: Any, counter: Any) -> Any:
    """Atomically read and increment the integer at address ``counter``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = context.get_value_type(types.intp)
        place = builder.inttoptr(args[0], integer.as_pointer())
        return builder.atomic_rmw("add", place, integer(1), "monotonic")

    return types.intp(types.intp), codegen


_pointer: Any = intrinsic(_pointer_in_llvm)
take_ticket: Any = intrinsic(_take_ticket_in_llvm)


@njit(nogil=True, cache=True)
def fields(address: Any, sizes: Any) -> Fields:
    """The fields of the MjData whose ``field_addresses`` are ``address``."""
    nq, nv, nu, nbody, nsite, njnt, nM = sizes
    return Fields(
        carray(_pointer(address[0]), (nq,)),
        carray(_pointer(address[1]), (nv,)),
        carray(_pointer(address[2]), (nv,)),
        carray(_pointer(address[3]), (nu,)),
        carray(_pointer(address[4]), (nbody, 3)),
        carray(_pointer(address[5]), (nbody, 4)),
        carray(_pointer(address[6]), (nsite, 3)),
        carray(_pointer(address[7]), (nsite, 3, 3)),
        carray(_pointer(address[8]), (njnt, 3)),
        carray(_pointer(address[9]), (njnt, 3)),
        carray(_pointer(address[10]), (nv,)),
        carray(_pointer(address[11]), (nM,)),
    )


def field_addresses(data: mujoco.MjData) -> NDArray[np.intp]:
    """Where the fields of ``data`` are, ``[len(Fields)]``."""
    return np.array([getattr(data, name).ctypes.data for name in Fields._fields], np.intp)


def field_sizes(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[int, ...]:
    """What ``fields`` must know of their shapes."""
    return model.nq, model.nv, model.nu, model.nbody, model.nsite, model.njnt, len(data.M)
