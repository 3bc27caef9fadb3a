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
  ``sensors`` (these, centres of mass, position and velocity sensors), ``contact_forces``
  (``d.cfrc_ext``; poses stay one substep old, as in Gymnasium), or the task's own: the cheapest
  that will do.

``outcome`` is called before ``observe``. All start values come from NumPy: ``draw(rng, count)``
gives random numbers, ``initial(draws)`` makes states and memories of them; ``mj_resetData`` and
``mj_forward`` follow, then ``observe``. Put the task together as a ``CompiledTask``.

``jit`` says where compiled code is kept. Its folder follows the code of this package; of a task of
another package numba sees only changes of the file with its ``run``: put its functions there.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import DTypeLike, NDArray

from genpolicy.spec import TaskSpec, VecEnv
from genpolicy_sim.batch_env import BatchEnv
from genpolicy_sim.compiled_loop import (
    CHUNK,
    DESK,
    SIZES,
    START,
    State,
    advance,
    contact_forces,
    kinematics,
    nothing,
    sensors,
    to_ctrl,
)
from genpolicy_sim.crew import Crew
from genpolicy_sim.episodes import Array, Episodes
from genpolicy_sim.native import field_addresses, field_sizes
from genpolicy_sim.rendering import View

__all__ = [
    "CompiledSim",
    "CompiledTask",
    "Initial",
    "advance",
    "contact_forces",
    "kinematics",
    "nothing",
    "sensors",
    "to_ctrl",
]


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
        show: ``(model, memo [memo_dim])``: changes a scene, which is the renderer's own, so that
            what an episode remembers, such as where its target is, is seen in pictures.
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
    show: Callable[[mujoco.MjModel, Array], None] | None = None
    camera: str | View | None = None


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
        self.show = task.show
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
        self._tell(**dict(zip(SIZES.split(), sizes, strict=True)))
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


def compiled_env(
    task: CompiledTask,
    spec: TaskSpec,
    num_envs: int,
    *,
    history: int = 1,
    dtype: DTypeLike = np.float32,
    max_episode_steps: int | None = None,
    num_threads: int | None = None,
) -> VecEnv:
    """Environments of a task: what the factories of the entry points end in.

    Args:
        task: what is simulated.
        spec: what it observes and commands.
        num_envs: N.
        history: To, observations per observation.
        dtype: of the observations.
        max_episode_steps: where episodes are truncated; default as in ``spec``.
        num_threads: physics threads; default all available cores.
    """
    if max_episode_steps is not None:
        spec = replace(spec, max_episode_steps=max_episode_steps)
    sim = CompiledSim(task, num_envs, num_threads)
    return BatchEnv(sim, spec, history=history, dtype=dtype)
