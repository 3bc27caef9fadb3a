"""MuJoCo from compiled code: its stepping functions and the fields of an MjData, free of the GIL.

numba, which robosuite brings, compiles the callers.
"""

# MuJoCo's names come from a compiled module without stubs, and are MuJoCo's.
# ruff: noqa: N816
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import ctypes
from collections import namedtuple
from typing import Any

import llvmlite.binding
import mujoco
import numpy as np
from numba import carray, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic
from numpy.typing import NDArray

from genpolicy_sim.jit import njit

# Fields of MjData, as arrays.
Fields = namedtuple(
    "Fields",
    "qpos qvel qacc_warmstart ctrl xpos xquat site_xpos site_xmat xanchor xaxis qfrc_bias M "
    "act xmat xipos geom_xpos geom_xmat subtree_com cvel cfrc_ext sensordata qfrc_applied "
    "xfrc_applied mocap_pos",
)


def _external(name: str) -> Any:
    """A function of MuJoCo's library for compiled code (by name, so that caches stay valid)."""
    library = ctypes.CDLL(mujoco._functions.__file__)
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    llvmlite.binding.add_symbol(name, address)
    return types.ExternalFunction(name, types.void(types.intp, types.intp))


# Called with the addresses of model and data.
mj_step, mj_step1, mj_step2 = _external("mj_step"), _external("mj_step1"), _external("mj_step2")
mj_forward, mj_resetData = _external("mj_forward"), _external("mj_resetData")
mj_kinematics, mj_comPos, mj_comVel = map(_external, ("mj_kinematics", "mj_comPos", "mj_comVel"))
mj_sensorPos, mj_sensorVel = _external("mj_sensorPos"), _external("mj_sensorVel")
mj_subtreeVel = _external("mj_subtreeVel")
mj_rnePostConstraint = _external("mj_rnePostConstraint")


def _pointer_to(item: Any) -> Any:
    """Makes, in compiled code, a pointer to ``item`` of an address."""

    def in_llvm(context: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(item)(types.intp), codegen

    return intrinsic(in_llvm)


def _atomic(operation: str) -> Any:
    """Makes ``f(address, value)``: change an integer atomically, return what was there before."""

    def in_llvm(context: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = builder.inttoptr(args[0], context.get_value_type(types.intp).as_pointer())
            return builder.atomic_rmw(operation, place, args[1], "acq_rel")

        return types.intp(types.intp, types.intp), codegen

    return intrinsic(in_llvm)


as_floats, as_integers = _pointer_to(types.float64), _pointer_to(types.intp)
as_flags = _pointer_to(types.boolean)
atomic_add, atomic_set = _atomic("add"), _atomic("xchg")


@njit(nogil=True, cache=True)
def fields(address: Any, sizes: Any) -> Fields:
    """The fields of the MjData whose ``field_addresses`` are ``address``."""
    nq, nv, nu, nbody, nsite, njnt, nM, na, ngeom, nsensordata, nmocap = sizes
    return Fields(
        carray(as_floats(address[0]), (nq,)),
        carray(as_floats(address[1]), (nv,)),
        carray(as_floats(address[2]), (nv,)),
        carray(as_floats(address[3]), (nu,)),
        carray(as_floats(address[4]), (nbody, 3)),
        carray(as_floats(address[5]), (nbody, 4)),
        carray(as_floats(address[6]), (nsite, 3)),
        carray(as_floats(address[7]), (nsite, 3, 3)),
        carray(as_floats(address[8]), (njnt, 3)),
        carray(as_floats(address[9]), (njnt, 3)),
        carray(as_floats(address[10]), (nv,)),
        carray(as_floats(address[11]), (nM,)),
        carray(as_floats(address[12]), (na,)),
        carray(as_floats(address[13]), (nbody, 3, 3)),
        carray(as_floats(address[14]), (nbody, 3)),
        carray(as_floats(address[15]), (ngeom, 3)),
        carray(as_floats(address[16]), (ngeom, 3, 3)),
        carray(as_floats(address[17]), (nbody, 3)),
        carray(as_floats(address[18]), (nbody, 6)),
        carray(as_floats(address[19]), (nbody, 6)),
        carray(as_floats(address[20]), (nsensordata,)),
        carray(as_floats(address[21]), (nv,)),
        carray(as_floats(address[22]), (nbody, 6)),
        carray(as_floats(address[23]), (nmocap, 3)),
    )


def field_addresses(data: mujoco.MjData) -> NDArray[np.intp]:
    """Where the fields of ``data`` are, ``[len(Fields)]``."""
    return np.array([getattr(data, name).ctypes.data for name in Fields._fields], np.intp)


def field_sizes(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[int, ...]:
    """What ``fields`` must know of their shapes."""
    m = model
    arm = m.nq, m.nv, m.nu, m.nbody, m.nsite, m.njnt, len(data.M)
    return *arm, m.na, m.ngeom, m.nsensordata, m.nmocap
