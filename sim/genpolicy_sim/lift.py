"""Panda Lift: raise a cube from a table (robosuite's scene, controller, success and reset)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import DTypeLike, NDArray

from genpolicy.spec import ActionSpec, Feature, GenpolicyError, TaskSpec, VecEnv
from genpolicy_sim import robosuite_compat
from genpolicy_sim.batch_env import BatchEnv, Outcome
from genpolicy_sim.osc import Array, DeltaScale, Goal, OperationalSpaceController, delta_to_goal

SUBSTEPS = 25  # of 2 ms: 20 Hz
LIFT_HEIGHT = 0.04  # m above the table counts as lifted
TABLE_HEIGHT = 0.8  # m
DROP_HEIGHT = 0.01  # m between cube and table at the start
JOINT_NOISE = 0.02  # rad, standard deviation of the initial posture
MODEL_SEED = 0  # robosuite draws the cube's size when it builds the scene: one size for everybody


class Scene(NamedTuple):
    """robosuite's compiled Lift scene and the facts about it that are not in the model."""

    model: mujoco.MjModel
    rest_qpos: Array  # [7] rad, mean initial posture
    gripper_qpos: Array  # [2] m, initial opening
    cube_half_size: Array  # [3] m


@cache
def scene() -> Scene:
    """Build the scene with robosuite (a second), once per process."""
    env = robosuite_env(seed=MODEL_SEED)
    robot = env.robots[0]
    return Scene(
        env.sim.model._model,
        np.array(robot.init_qpos),
        np.array(robot.gripper["right"].init_qpos),
        np.array(env.cube.size),
    )


def robosuite_env(**kwargs: Any) -> Any:
    """The Lift environment of robosuite as this task configures it."""
    return robosuite_compat.load().make(
        "Lift",
        robots="Panda",
        control_freq=20,
        hard_reset=False,
        ignore_done=True,
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        **kwargs,
    )


def task_spec(max_episode_steps: int = 100) -> TaskSpec:
    """What Lift observes and commands."""
    names = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
    scale = DeltaScale()
    units = (f"{scale.position_scale} m",) * 3 + (f"{scale.rotation_scale} rad",) * 3 + ("sign",)
    return TaskSpec(
        task="lift",
        robot="Panda",
        observations=(
            Feature("robot0_eef_pos", (3,), "m"),
            Feature("robot0_eef_quat", (4,), "xyzw"),
            Feature("robot0_gripper_qpos", (2,), "m"),
            Feature("object", (10,), "m, xyzw, m"),
        ),
        action=ActionSpec(names, units, (-1.0,) * 7, (1.0,) * 7),
        control_mode="osc_pose_delta",
        control_hz=20.0,
        max_episode_steps=max_episode_steps,
        control=vars(scale).copy(),
        versions={name: version(name) for name in ("mujoco", "robosuite")},
    )


class LiftSim:
    """N Lift scenes without episodes: goals in, physics, observations out.

    A control step of the training environment is ``control_step(action)``, which is
    ``set_goal(delta_to_goal(action, *achieved pose, ...))`` and then ``substep(25)``. A robot
    process that gets absolute goals calls those two itself, at whatever rate.

    Args:
        num_envs: N.
        num_threads: physics threads; default all available cores.
        cube_range: half the extent in x and y, m, of the area where cubes start.
    """

    draw_dim = 10  # random numbers that make an initial state

    def __init__(
        self,
        num_envs: int,
        num_threads: int | None = None,
        cube_range: tuple[float, float] = (0.03, 0.03),
    ) -> None:
        self.num_envs = num_envs
        self.scene = scene()
        self.cube_range = np.array(cube_range)
        model = self.model = self.scene.model
        threads = num_threads or len(os.sched_getaffinity(0))
        self.batch = Batch(model, num_envs, nthread=threads, persistent=True)
        bind = self.batch.bind
        self._state = {
            name: bind(name) for name in ("time", "qpos", "qvel", "ctrl", "qacc_warmstart")
        }
        self._xpos, self._xquat = bind("xpos"), bind("xquat")
        self.controller = OperationalSpaceController(
            model,
            self.batch,
            joints=[f"robot0_joint{i}" for i in range(1, 8)],
            site="gripper0_right_grip_site",
        )
        self._hand = model.body("robot0_right_hand").id
        self._cube = model.body("cube_main").id
        self._cube_qadr = model.joint("cube_joint0").qposadr[0]
        fingers = ("gripper0_right_finger_joint1", "gripper0_right_finger_joint2")
        self._finger_qadr = np.array([model.joint(name).qposadr[0] for name in fingers])
        self._arm_range = model.actuator_ctrlrange[:7]
        self._finger_range = model.actuator_ctrlrange[7:]
        self.rest = np.zeros((num_envs, 7))
        self.goal = Goal(
            np.zeros((num_envs, 3)), np.tile(np.eye(3), (num_envs, 1, 1)), np.zeros(num_envs)
        )
        self._observed = np.zeros((num_envs, 14))  # poses of end effector and cube

    @staticmethod
    def draw(rng: np.random.Generator, count: int) -> Array:
        """Random numbers ``[count, draw_dim]`` for ``count`` initial states."""
        return np.hstack([rng.standard_normal((count, 7)), rng.uniform(-1.0, 1.0, (count, 3))])

    def start(self, ids: NDArray[np.intp], draws: Array) -> None:
        """Put environments ``ids`` into the initial states that ``draws`` encode.

        As robosuite: Gaussian noise on the posture, cube uniform on an area with uniform yaw.
        """
        qpos = np.zeros((len(ids), self.model.nq))
        arm = self.scene.rest_qpos + JOINT_NOISE * draws[:, :7]
        cube = self._cube_qadr
        half_yaw = 0.5 * np.pi * (1.0 + draws[:, 9])
        qpos[:, self.controller.qadr] = arm
        qpos[:, self._finger_qadr] = self.scene.gripper_qpos
        qpos[:, cube : cube + 2] = self.cube_range * draws[:, 7:9]
        qpos[:, cube + 2] = TABLE_HEIGHT + DROP_HEIGHT + self.scene.cube_half_size[2]
        qpos[:, cube + 3] = np.cos(half_yaw)
        qpos[:, cube + 6] = np.sin(half_yaw)
        self.start_at(ids, qpos)

    def start_at(self, ids: NDArray[np.intp], qpos: Array) -> None:
        """Start environments ``ids`` at rest in ``qpos [n, nq]``; its arm is the rest posture."""
        for value in self._state.values():
            value[ids] = 0.0
        self._state["qpos"][ids] = qpos
        self.batch.forward(ids=ids)
        self.rest[ids] = qpos[:, self.controller.qadr]
        pos, rot = self.controller.eef_pose()
        self.set_goal(Goal(pos[ids], rot[ids], np.zeros(len(ids))), ids)
        self._sample()

    def control_step(self, action: Array, ids: NDArray[np.intp] | None = None) -> None:
        """One action ``[N, 7]`` of the training environment: 50 ms. Only ``ids`` move."""
        goal = delta_to_goal(action, *self.controller.eef_pose(), self.goal.gripper, DeltaScale())
        self.set_goal(goal if ids is None else Goal(*(part[ids] for part in goal)), ids)
        self.substep(SUBSTEPS, ids)

    def set_goal(self, goal: Goal, ids: NDArray[np.intp] | None = None) -> None:
        """Pursue absolute ``goal`` (one row per id) from the next substep on."""
        rows = slice(None) if ids is None else ids
        for kept, new in zip(self.goal, goal, strict=True):
            kept[rows] = new
        low, high = self._finger_range.T
        fingers = np.stack([-goal.gripper, goal.gripper], axis=1)
        self._state["ctrl"][rows, 7:] = 0.5 * (low + high) + 0.5 * (high - low) * fingers

    def substep(self, count: int, ids: NDArray[np.intp] | None = None) -> None:
        """Advance by ``count`` times 2 ms towards the goal. Only ``ids`` move."""
        ctrl = self._state["ctrl"]
        for index in range(count):
            torque = self.controller.torques(self.goal, self.rest)
            np.clip(torque, *self._arm_range.T, out=ctrl[:, :7])
            if index == count - 1:
                self._sample(ids)
            self.batch.step(ids=ids, stage=mujoco.mjtStage.mjSTAGE_VEL)

    def _sample(self, ids: NDArray[np.intp] | None = None) -> None:
        """Keep the poses that robosuite would report.

        Its observables and its success test run before the last substep's result has gone through
        the kinematics, so poses are 2 ms older than joint positions.
        """
        rows = slice(None) if ids is None else ids
        self._observed[rows, :3] = self.controller.eef_pose()[0][rows]
        self._observed[rows, 3:7] = self._xquat[rows, self._hand]
        self._observed[rows, 7:10] = self._xpos[rows, self._cube]
        self._observed[rows, 10:14] = self._xquat[rows, self._cube]

    def observe(self, out: Array) -> None:
        """Write the current observations ``[N, 19]`` in the order of the spec."""
        seen = self._observed
        out[:, 0:3] = seen[:, 0:3]
        out[:, 3:6], out[:, 6] = seen[:, 4:7], seen[:, 3]
        out[:, 7:9] = self._state["qpos"][:, self._finger_qadr]
        out[:, 9:12] = seen[:, 7:10]
        out[:, 12:15], out[:, 15] = seen[:, 11:14], seen[:, 10]
        out[:, 16:19] = seen[:, 7:10] - seen[:, 0:3]

    def success(self) -> NDArray[np.bool_]:
        """``[N]`` whether the cube is lifted."""
        return self._observed[:, 9] > TABLE_HEIGHT + LIFT_HEIGHT

    def outcome(self) -> Outcome:
        """Sparse reward: 1 while the cube is lifted."""
        lifted = self.success()
        return Outcome(lifted.astype(np.float64), lifted, lifted)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Copies of everything that decides the future."""
        goal = {f"goal_{k}": v.copy() for k, v in self.goal._asdict().items()}
        state = {name: value.copy() for name, value in self._state.items()}
        return state | goal | {"rest": self.rest.copy(), "observed": self._observed.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue exactly from ``get_state`` output."""
        for name, value in self._state.items():
            value[:] = state[name]
        for name, value in self.goal._asdict().items():
            value[:] = state[f"goal_{name}"]
        self.rest[:], self._observed[:] = state["rest"], state["observed"]
        self.batch.forward(stage=mujoco.mjtStage.mjSTAGE_VEL)

    def close(self) -> None:
        """Nothing to release: the threads end with the batch."""


def make(
    num_envs: int,
    *,
    history: int = 1,
    dtype: DTypeLike = np.float32,
    backend: str = "batch",
    max_episode_steps: int = 100,
    terminate_on_success: bool = True,
    **kwargs: Any,
) -> VecEnv:
    """Factory of the entry point ``lift``; see ``LiftSim`` for the options in ``kwargs``."""
    if backend != "batch":
        raise GenpolicyError(f"backend={backend!r} does not exist: choose batch or robosuite")
    return BatchEnv(
        LiftSim(num_envs, **kwargs),
        task_spec(max_episode_steps),
        history=history,
        dtype=dtype,
        terminate_on_success=terminate_on_success,
    )
