"""N scenes with arms and grippers, stepped by compiled threads: goals in, state out.

Where an array is about arms, its first axis is R = N·A rows: arm a of environment i is row i·A + a.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from genpolicy_sim.jit import njit
from genpolicy_sim.native import (
    Fields,
    atomic_add,
    field_addresses,
    field_sizes,
    fields,
    mj_forward,
    mj_kinematics,
    mj_step1,
    mj_step2,
)
from genpolicy_sim.osc import Arm, Array, Goal, Workspace, torques, workspace

# Where simulations run: addresses of the mjModel, one mjData per thread, and its fields.
Worker = namedtuple("Worker", "model data fields sizes")
# What the physics is told: goal pose and posture for redundant joints of each arm [R, ...], other
# controls [N, nu].
Command = namedtuple("Command", "pos rot rest ctrl")
# What it reports, first axis N, end-effector poses R. Poses of bodies and sites and the sensors are
# one substep older than the rest.
Report = namedtuple(
    "Report", "qpos qvel qacc_warmstart xpos xquat site_xpos sensordata eef_pos eef_rot"
)


@njit(nogil=True, cache=True)
def run(
    worker: Worker,
    arms: tuple[Arm, ...],
    command: Command,
    report: Report,
    ids: NDArray[np.intp],
    counter: int,
    substeps: int,
) -> None:
    """Advance simulations ``ids``. Threads that call this at the same time share the work.

    A simulation is its row of ``report``; it runs all its substeps in the thread's own mjData,
    which stays in the cache, in robosuite's order: ``mj_step1``, torques, ``mj_step2``. Poses of
    bodies and sites and the sensors are reported as they are after that, one substep old:
    robosuite's observables and success test see them so. The end-effector pose, to which actions
    are relative, is current.

    Args:
        worker: the thread's place to simulate.
        arms: the controlled arms, all with as many joints.
        command: where to go.
        report: read and written for ``ids``.
        ids: simulations to advance.
        counter: address of the number of simulations taken, 0 before the first thread enters.
        substeps: how many.
    """
    first = arms[0]  # outside the loop: taking it out of the tuple every time costs 2 %
    work = workspace(first.joint.shape[0])
    mj = fields(worker.fields, worker.sizes)
    while True:
        ticket = atomic_add(counter, 1)
        if ticket >= ids.shape[0]:
            return
        i = ids[ticket]
        _load(report, i, mj)
        mj.ctrl[:] = command.ctrl[i]
        row = i * len(arms)
        pos, rot, rest = command.pos[row], command.rot[row], command.rest[row]
        for _ in range(substeps):
            mj_step1(worker.model, worker.data)
            drive(first, mj, pos, rot, rest, work)
            for a in range(1, len(arms)):
                k = row + a
                drive(arms[a], mj, command.pos[k], command.rot[k], command.rest[k], work)
            mj_step2(worker.model, worker.data)
        _report_poses(report, i, mj)
        mj_kinematics(worker.model, worker.data)
        _report_state(report, i, mj, arms)


@njit(nogil=True, cache=True)
def drive(arm: Arm, mj: Fields, pos: Array, rot: Array, rest: Array, work: Workspace) -> None:
    """Write the torques of one arm, within its limits, into the controls."""
    torques(arm, mj, pos, rot, rest, work)
    for j in range(arm.joint.shape[0]):
        mj.ctrl[arm.actuator[j]] = min(max(work.torque[j], arm.low[j]), arm.high[j])


@njit(nogil=True, cache=True)
def start(
    worker: Worker,
    arms: tuple[Arm, ...],
    command: Command,
    report: Report,
    ids: NDArray[np.intp],
) -> None:
    """Complete ``report`` for new episodes of ``ids`` from its state, as robosuite's reset does."""
    mj = fields(worker.fields, worker.sizes)
    for i in ids:
        _load(report, i, mj)
        mj.ctrl[:] = command.ctrl[i]
        mj_forward(worker.model, worker.data)
        _report_poses(report, i, mj)
        _report_state(report, i, mj, arms)


@njit(nogil=True, cache=True)
def _load(report: Report, i: Any, mj: Fields) -> None:
    mj.qpos[:] = report.qpos[i]
    mj.qvel[:] = report.qvel[i]
    mj.qacc_warmstart[:] = report.qacc_warmstart[i]


@njit(nogil=True, cache=True)
def _report_poses(report: Report, i: Any, mj: Fields) -> None:
    report.xpos[i] = mj.xpos
    report.xquat[i] = mj.xquat
    report.site_xpos[i] = mj.site_xpos
    report.sensordata[i] = mj.sensordata


@njit(nogil=True, cache=True)
def _report_state(report: Report, i: Any, mj: Fields, arms: tuple[Arm, ...]) -> None:
    report.qpos[i] = mj.qpos
    report.qvel[i] = mj.qvel
    report.qacc_warmstart[i] = mj.qacc_warmstart
    for a in range(len(arms)):
        row = i * len(arms) + a
        report.eef_pos[row] = mj.site_xpos[arms[a].site]
        report.eef_rot[row] = mj.site_xmat[arms[a].site]


class ArmSim:
    """N scenes without episodes or task. Where a call takes ``ids``, the others cost nothing.

    ``report`` holds the state: ``qpos``, ``qvel``, the achieved poses ``eef_pos``, ``eef_rot``, the
    poses of all bodies and sites, and the sensors.

    Args:
        model: the compiled scene.
        arms: the A controlled arms.
        fingers: of each, its gripper's two actuators, that which closes with positive control
            second.
        num_envs: N.
        num_threads: physics threads; default all available cores.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        arms: tuple[Arm, ...],
        fingers: list[list[str]],
        num_envs: int,
        num_threads: int | None = None,
    ) -> None:
        self.model, self.arms, self.num_envs = model, arms, num_envs
        threads = min(num_threads or len(os.sched_getaffinity(0)), num_envs)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._workers = [
            Worker(model._address, data._address, field_addresses(data), field_sizes(model, data))
            for data in self._data
        ]
        self._fingers = np.array([[model.actuator(name).id for name in pair] for pair in fingers])
        low, high = np.moveaxis(model.actuator_ctrlrange[self._fingers], 2, 0)
        self._finger_mid, self._finger_span = 0.5 * (low + high), 0.5 * (high - low) * (-1.0, 1.0)
        self._all = np.arange(num_envs)
        self._allocate()

    def _allocate(self) -> None:
        n, model = self.num_envs, self.model
        rows = n * len(self.arms)
        self.report = Report(
            qpos=np.zeros((n, model.nq)),
            qvel=np.zeros((n, model.nv)),
            qacc_warmstart=np.zeros((n, model.nv)),
            xpos=np.zeros((n, model.nbody, 3)),
            xquat=np.zeros((n, model.nbody, 4)),
            site_xpos=np.zeros((n, model.nsite, 3)),
            sensordata=np.zeros((n, model.nsensordata)),
            eef_pos=np.zeros((rows, 3)),
            eef_rot=np.zeros((rows, 3, 3)),
        )
        self.goal = Goal(np.zeros((rows, 3)), np.zeros((rows, 3, 3)), np.zeros(rows))
        posture = np.zeros((rows, len(self.arms[0].joint)))
        self._command = Command(self.goal.pos, self.goal.rot, posture, np.zeros((n, model.nu)))
        self.time = np.zeros(n)  # s since the episode began

    def rows(self, ids: NDArray[np.intp]) -> NDArray[np.intp]:
        """Rows of the arms of environments ``ids``."""
        count = len(self.arms)
        return ids if count == 1 else (ids[:, None] * count + np.arange(count)).ravel()

    def start_at(self, ids: NDArray[np.intp], qpos: Array) -> None:
        """Start ``ids`` at rest in ``qpos [n, nq]``; its arms become the rest postures."""
        report, rows = self.report, self.rows(ids)
        report.qpos[ids] = qpos
        report.qvel[ids] = report.qacc_warmstart[ids] = 0.0
        self._command.ctrl[ids] = 0.0
        start(self._workers[0], self.arms, self._command, report, ids)
        self.goal.pos[rows], self.goal.rot[rows] = report.eef_pos[rows], report.eef_rot[rows]
        self.goal.gripper[rows] = self.time[ids] = 0.0
        posture = qpos[:, np.stack([arm.qadr for arm in self.arms])]
        self._command.rest[rows] = posture.reshape(len(rows), -1)

    def set_goal(self, goal: Goal, ids: NDArray[np.intp] | None = None) -> None:
        """Pursue the absolute ``goal`` (first axis R) from the next substep on."""
        rows = self.rows(self._all if ids is None else ids)
        for kept, new in zip(self.goal, goal, strict=True):
            kept[rows] = new[rows]
        env, arm = np.divmod(rows, len(self.arms))
        fingers = self._finger_mid[arm] + self._finger_span[arm] * self.goal.gripper[rows, None]
        self._command.ctrl[env[:, None], self._fingers[arm]] = fingers

    def substep(self, count: int, ids: NDArray[np.intp] | None = None) -> None:
        """Advance by ``count`` timesteps towards the goal."""
        ids = self._all if ids is None else ids
        taken = np.zeros(1, np.intp)
        work = (self.arms, self._command, self.report, ids, taken.ctypes.data, count)
        if self._pool is None or len(ids) == 1:
            run(self._workers[0], *work)
        else:
            calls = [self._pool.submit(run, worker, *work) for worker in self._workers]
            for call in calls:
                call.result()
        self.time[ids] += count * self.model.opt.timestep

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Copies of everything that decides the future, first axis N."""
        return {name: value.copy() for name, value in self._state().items()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue exactly from ``get_state`` output."""
        for name, value in self._state().items():
            value[:] = state[name]

    def _state(self) -> dict[str, NDArray[Any]]:
        own = {"gripper": self.goal.gripper, "time": self.time}
        command = {f"command_{key}": value for key, value in self._command._asdict().items()}
        state = self.report._asdict() | command | own
        return {name: self._by_env(value) for name, value in state.items()}

    def _by_env(self, value: Array) -> Array:
        """A view ``[N, ...]`` of an array with first axis N or R."""
        n = self.num_envs
        return value if len(value) == n else value.reshape(n, -1, *value.shape[1:])

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()
