"""The compiled loop of ``compiled_sim``: what every thread runs, and what tasks choose from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from genpolicy_sim.crew import finish, join, publish, take_ticket, wait_for_work
from genpolicy_sim.episodes import Array, Episodes, begin, note
from genpolicy_sim.jit import njit
from genpolicy_sim.native import (
    Fields,
    as_flags,
    as_floats,
    as_integers,
    fields,
    mj_comPos,
    mj_comVel,
    mj_forward,
    mj_kinematics,
    mj_resetData,
    mj_rnePostConstraint,
    mj_sensorPos,
    mj_sensorVel,
    mj_step,
    mj_subtreeVel,
)


class State(NamedTuple):
    """What decides the future of N simulations, and what they show."""

    qpos: Array  # [N, nq]
    qvel: Array  # [N, nv]
    act: Array  # [N, na]
    qacc_warmstart: Array  # [N, nv]
    memo: Array  # [N, memo_dim]
    observation: Array  # [N, obs_dim]


# ---------------------------------------------------------------- what tasks choose from


@njit(nogil=True, cache=True)
def to_ctrl(d: Any, c: Any, memo: Array, action: Array) -> None:
    """The action is the actuators' control."""
    for j in range(action.shape[0]):
        d.ctrl[j] = action[j]


@njit(nogil=True, cache=True)
def nothing(model: int, data: int) -> None:
    """What the task reads is current anyway."""


@njit(nogil=True, cache=True)
def kinematics(model: int, data: int) -> None:
    """Poses of bodies, geoms and sites."""
    mj_kinematics(model, data)


@njit(nogil=True, cache=True)
def sensors(model: int, data: int) -> None:
    """Poses, centres of mass, velocities, position and velocity sensors (no tendons, contacts)."""
    mj_kinematics(model, data)
    mj_comPos(model, data)
    mj_comVel(model, data)
    mj_sensorPos(model, data)
    mj_subtreeVel(model, data)  # else sensors of it stay as old as the last mj_step
    mj_sensorVel(model, data)


@njit(nogil=True, cache=True)
def contact_forces(model: int, data: int) -> None:
    """External forces on bodies, ``cfrc_ext``."""
    mj_rnePostConstraint(model, data)


# ---------------------------------------------------------------- the compiled loop

CHUNK, START = 0, 1  # what the caller asks for
NUM_FIELDS = len(Fields._fields)

# All that compiled threads must know: numbers, and addresses of arrays.
SIZES = "nq nv nu nbody nsite njnt nM na ngeom nsensordata nmocap"
_NUMBERS = "gate helpers model substeps mode chunk count num_envs memo_dim obs_dim action_dim"
_EPISODE = "history_len max_steps end_on_success"
DESK = np.dtype(
    [
        (name, np.intp)
        for name in (
            *f"{SIZES} {_NUMBERS} {_EPISODE} data fields ids actions".split(),
            *State._fields,
            *Episodes._fields[:-2],
        )
    ]
)


@njit(nogil=True)
def _state(desk: Any) -> State:
    n = desk.num_envs
    return State(
        carray(as_floats(desk.qpos), (n, desk.nq)),
        carray(as_floats(desk.qvel), (n, desk.nv)),
        carray(as_floats(desk.act), (n, desk.na)),
        carray(as_floats(desk.qacc_warmstart), (n, desk.nv)),
        carray(as_floats(desk.memo), (n, desk.memo_dim)),
        carray(as_floats(desk.observation), (n, desk.obs_dim)),
    )


@njit(nogil=True)
def _episodes(desk: Any) -> Episodes:
    n, chunk = desk.num_envs, desk.chunk
    return Episodes(
        carray(as_floats(desk.history), (n, desk.history_len, desk.obs_dim)),
        carray(as_integers(desk.elapsed), (n,)),
        carray(as_floats(desk.rewards), (n, chunk)),
        carray(as_floats(desk.total), (n,)),
        carray(as_integers(desk.steps), (n,)),
        carray(as_flags(desk.terminated), (n,)),
        carray(as_flags(desk.truncated), (n,)),
        carray(as_flags(desk.success), (n,)),
        desk.max_steps,
        desk.end_on_success != 0,
    )


@njit(nogil=True)
def _copy(to: Array, of: Array) -> None:
    for j in range(to.shape[0]):
        to[j] = of[j]


@njit(nogil=True)
def _load(state: State, i: int, d: Fields) -> None:
    _copy(d.qpos, state.qpos[i])
    _copy(d.qvel, state.qvel[i])
    _copy(d.act, state.act[i])
    _copy(d.qacc_warmstart, state.qacc_warmstart[i])


@njit(nogil=True)
def _store(state: State, i: int, d: Fields) -> None:
    _copy(state.qpos[i], d.qpos)
    _copy(state.qvel[i], d.qvel)
    _copy(state.act[i], d.act)
    _copy(state.qacc_warmstart[i], d.qacc_warmstart)


@njit(nogil=True, forceinline=True)  # without it, not cached: functions cannot be passed
def _work(desk, thread, c, observe, outcome, command, refresh):  # noqa: ANN001, ANN202
    """Take simulations until none is left."""
    data = carray(as_integers(desk.data), (desk.helpers + 1,))[thread]
    table = carray(as_integers(desk.fields), (desk.helpers + 1, NUM_FIELDS))
    sizes = (
        desk.nq, desk.nv, desk.nu, desk.nbody, desk.nsite, desk.njnt, desk.nM, desk.na,
        desk.ngeom, desk.nsensordata, desk.nmocap,
    )  # fmt: skip
    d = fields(table[thread], sizes)
    while True:
        ticket = take_ticket(desk.gate)
        if ticket < 0:
            return
        i = carray(as_integers(desk.ids), (desk.count,))[ticket]
        state = _state(desk)
        memo, observation = state.memo[i], state.observation[i]
        if desk.mode == START:
            mj_resetData(desk.model, data)
            _load(state, i, d)
            mj_forward(desk.model, data)
            observe(d, c, memo, observation)
        else:
            _load(state, i, d)
            episodes = _episodes(desk)
            actions = carray(as_floats(desk.actions), (desk.num_envs, desk.chunk, desk.action_dim))
            for t in range(desk.chunk):
                action = actions[i, t]
                for _ in range(desk.substeps):
                    command(d, c, memo, action)
                    mj_step(desk.model, data)
                refresh(desk.model, data)
                reward, terminated, success = outcome(d, c, memo, action)
                observe(d, c, memo, observation)
                if not note(episodes, i, t, observation, reward, terminated, success):
                    break
        _store(state, i, d)
        finish(desk.gate)


# Inlined before compilation, or everything would be compiled once more. (With ``_work``, too, that
# would take half the time; but the smallest tasks then run 7 % slower.)
@njit(nogil=True, inline="always")
def advance(desk, thread, c, observe, outcome, command, refresh):  # noqa: ANN001, ANN201
    """The loop of a task: the caller's share of one call, or a helper's whole life.

    Args:
        desk: ``[1]`` of ``DESK``.
        thread: 0 the caller.
        c: the task's constants.
        observe: see the module's description; so are the other three.
        outcome: compiled.
        command: compiled.
        refresh: compiled.
    """
    gate, count = desk[0].gate, desk[0].count
    if thread == 0:
        if desk[0].mode == CHUNK:
            begin(_episodes(desk[0]))
        publish(gate, count, desk[0].helpers)
    while thread == 0 or wait_for_work(gate):
        _work(desk[0], thread, c, observe, outcome, command, refresh)
        if thread == 0:
            join(gate, count)
            return
