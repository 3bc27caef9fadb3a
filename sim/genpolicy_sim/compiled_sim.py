"""N simulations of a plain task, a chunk of control steps in ONE call into compiled code.

A task is four small compiled functions over the fields of one simulation (``d``, see
``native.Fields``), its constants (``c``, a ``NamedTuple`` of numbers and arrays of the task's own)
and its memory (``memo``, float64, which lasts for the episode and is part of the state)::

    @njit(cache=True, nogil=True)
    def observe(d, c, memo, out):                # write the observation [obs_dim] into ``out``
        out[:] = d.qpos

    @njit(cache=True, nogil=True)
    def outcome(d, c, memo, action):             # after the control step; may write ``memo``
        return reward, terminated, success       # float, bool, bool

    @njit(cache=True, nogil=True)
    def run(desk, thread, c):                    # the task's loop, compiled and cached with it
        advance(desk, thread, c, observe, outcome, to_ctrl, kinematics)

``advance`` takes two more functions, of which this module has the usual ones:

- ``command(d, c, memo, action)`` tells the physics the action, before *every* substep:
  ``to_ctrl``, or the task's own (forces from the action, a controller);
- ``refresh(model, data)`` after the last substep brings up to date what ``observe`` and
  ``outcome`` read besides ``d.qpos``, ``d.qvel`` and ``d.act``; ``mj_step`` itself leaves poses
  and sensors one substep old. ``nothing``, ``kinematics`` (body, geom and site poses),
  ``centers`` (these and centres of mass), ``sensors`` (these and position and velocity sensors),
  ``everything`` (``mj_step1``: dm_control's state after a step), ``contact_forces``
  (``d.cfrc_ext``; poses stay one substep old, as in Gymnasium). The cheapest that will do.

``outcome`` is called before ``observe``. All start values come from NumPy: ``draw(rng, count)``
gives random numbers, ``initial(draws)`` makes states and memories of them; ``mj_resetData`` and
``mj_forward`` follow, then ``observe``. Put the task together as a ``CompiledTask``.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numba import carray, njit  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

from genpolicy_sim.crew import Crew, finish, join, publish, take_ticket, wait_for_work
from genpolicy_sim.episodes import Array, Episodes, note
from genpolicy_sim.native import (
    Fields,
    as_flags,
    as_floats,
    as_integers,
    field_addresses,
    field_sizes,
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
    mj_step1,
    mj_subtreeVel,
)
from genpolicy_sim.rendering import View


class State(NamedTuple):
    """What decides the future of N simulations, and what they show."""

    qpos: Array  # [N, nq]
    qvel: Array  # [N, nv]
    act: Array  # [N, na]
    qacc_warmstart: Array  # [N, nv]
    memo: Array  # [N, memo_dim]
    observation: Array  # [N, obs_dim]


class Initial(NamedTuple):
    """Where n episodes start; no ``memo``: zeros."""

    qpos: Array  # [n, nq]
    qvel: Array  # [n, nv]
    memo: Array | None = None  # [n, memo_dim]


@dataclass(frozen=True)
class CompiledTask:
    """A plain task: see the module's description.

    Attributes:
        model: the compiled scene.
        substeps: ``mj_step`` calls per control step.
        run: the task's compiled loop.
        constants: its ``c``.
        obs_dim: scalars in an observation.
        action_dim: scalars in an action.
        draw: ``(rng, count) -> [count, draw_dim]`` random numbers of ``count`` initial states.
        draw_dim: how many for one.
        initial: ``draws [n, draw_dim] -> Initial``.
        memo_dim: scalars that ``outcome`` remembers.
        camera: a view for pictures, or a camera of the model; default the whole scene.
    """

    model: mujoco.MjModel
    substeps: int
    run: Callable[..., None]
    constants: Any
    obs_dim: int
    action_dim: int
    draw: Callable[[np.random.Generator, int], Array]
    draw_dim: int
    initial: Callable[[Array], Initial]
    memo_dim: int = 0
    camera: str | View | None = None


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
def centers(model: int, data: int) -> None:
    """Poses, and centres of mass."""
    mj_kinematics(model, data)
    mj_comPos(model, data)


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
def everything(model: int, data: int) -> None:
    """All that depends on positions and velocities."""
    mj_step1(model, data)


@njit(nogil=True, cache=True)
def contact_forces(model: int, data: int) -> None:
    """External forces on bodies, ``cfrc_ext``."""
    mj_rnePostConstraint(model, data)


# ---------------------------------------------------------------- the compiled loop

CHUNK, START = 0, 1  # what the caller asks for
NUM_FIELDS = len(Fields._fields)

# All that compiled threads must know: numbers, and addresses of arrays.
_SIZES = "nq nv nu nbody nsite njnt nM na ngeom nsensordata nmocap"
_NUMBERS = "gate helpers model substeps mode chunk count num_envs memo_dim obs_dim action_dim"
_EPISODE = "history_len max_steps end_on_success"
DESK = np.dtype(
    [
        (name, np.intp)
        for name in (
            *f"{_SIZES} {_NUMBERS} {_EPISODE} data fields ids actions".split(),
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


@njit(nogil=True, forceinline=True)  # without it, not cached: functions cannot be passed
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
        publish(gate, count, desk[0].helpers)
    while thread == 0 or wait_for_work(gate):
        _work(desk[0], thread, c, observe, outcome, command, refresh)
        if thread == 0:
            join(gate, count)
            return


# ---------------------------------------------------------------- its face in Python


class CompiledSim:
    """N simulations of a ``CompiledTask`` (a ``ChunkSim`` of ``batch_env``).

    Args:
        task: what they simulate.
        num_envs: N.
        num_threads: physics threads; default all available cores.
    """

    def __init__(self, task: CompiledTask, num_envs: int, num_threads: int | None = None) -> None:
        self.task, self.model, self.num_envs = task, task.model, num_envs
        self.draw, self.draw_dim = task.draw, task.draw_dim
        if task.camera is not None:
            self.camera = task.camera
        threads = max(1, min(num_threads or len(os.sched_getaffinity(0)), num_envs))
        n, m = num_envs, task.model
        widths = m.nq, m.nv, m.na, m.nv, task.memo_dim, task.obs_dim
        self.state = State(*(np.zeros((n, width)) for width in widths))
        self._data = [mujoco.MjData(m) for _ in range(threads)]
        self._addresses = np.array([data._address for data in self._data], np.intp)
        self._fields = np.stack([field_addresses(data) for data in self._data])
        self._all = np.arange(n)
        self._crew = Crew(threads - 1)
        self._desk = np.zeros(1, DESK)
        self._write_desk()
        self._episodes: Episodes | None = None
        self.start(self._all[:1], task.draw(np.random.default_rng(0), 1))  # compiles
        self._crew.start(_help, task.run, self._desk, task.constants)

    def _write_desk(self) -> None:
        sizes = field_sizes(self.model, self._data[0])
        self._tell(**dict(zip(_SIZES.split(), sizes, strict=True)))
        self._tell(**{name: array.ctypes.data for name, array in self.state._asdict().items()})
        task = self.task
        self._tell(
            gate=self._crew.address,
            helpers=self._crew.helpers,
            model=self.model._address,
            substeps=task.substeps,
            num_envs=self.num_envs,
            memo_dim=task.memo_dim,
            obs_dim=task.obs_dim,
            action_dim=task.action_dim,
            data=self._addresses.ctypes.data,
            fields=self._fields.ctypes.data,
        )

    def _tell(self, **values: int) -> None:
        for name, value in values.items():
            self._desk[name] = value

    def start(self, ids: NDArray[np.intp], draws: Array) -> None:
        """Put simulations ``ids`` into the initial states ``draws [n, draw_dim]``."""
        initial, state = self.task.initial(draws), self.state
        state.qpos[ids], state.qvel[ids] = initial.qpos, initial.qvel
        state.act[ids] = state.qacc_warmstart[ids] = 0.0
        state.memo[ids] = 0.0 if initial.memo is None else initial.memo
        self._call(START, ids)

    def run_chunk(self, actions: Array, episodes: Episodes, ids: NDArray[np.intp]) -> None:
        """Execute ``actions [N, Ta, Da]`` in simulations ``ids``; note what they lead to."""
        if episodes is not self._episodes:
            self._attach(episodes)
        self._desk["actions"] = actions.ctypes.data
        self._call(CHUNK, ids)

    def _attach(self, episodes: Episodes) -> None:
        arrays = episodes._asdict()
        limits = {name: int(arrays.pop(name)) for name in ("max_steps", "end_on_success")}
        self._tell(**{name: array.ctypes.data for name, array in arrays.items()}, **limits)
        self._tell(history_len=episodes.history.shape[1], chunk=episodes.rewards.shape[1])
        self._episodes = episodes

    def _call(self, mode: int, ids: NDArray[np.intp]) -> None:
        desk = self._desk[0]
        desk["mode"], desk["count"] = mode, len(ids)
        desk["ids"] = ids.ctypes.data
        self.task.run(self._desk, 0, self.task.constants)

    def observe(self, out: Array) -> None:
        """Write the current observations ``[N, obs_dim]``."""
        out[:] = self.state.observation

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Copies of everything that decides the future, first axis N."""
        return {name: value.copy() for name, value in self.state._asdict().items()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue exactly from ``get_state`` output."""
        for name, value in self.state._asdict().items():
            value[:] = state[name]

    def close(self) -> None:
        """Stop the threads."""
        self._crew.close()


def _help(run: Callable[..., None], desk: NDArray[Any], constants: Any, thread: int) -> None:
    run(desk, thread, constants)
