"""Panda Lift: raise a cube from a table (robosuite's scene, controller, success and reset)."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache, partial
from importlib.metadata import version
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import DTypeLike, NDArray

from genpolicy.spec import ActionSpec, Feature, GenpolicyError, TaskSpec, VecEnv
from genpolicy_sim import robosuite_compat
from genpolicy_sim.arm_sim import ArmSim
from genpolicy_sim.batch_env import BatchEnv, BatchSim, Outcome
from genpolicy_sim.oracle import RobosuiteSim
from genpolicy_sim.osc import Array, DeltaScale, delta_to_goal, describe_arm
from genpolicy_sim.rendering import View

SUBSTEPS = 25  # of 2 ms: 20 Hz
LIFT_HEIGHT = 0.04  # m above the table counts as lifted
TABLE_HEIGHT = 0.8  # m
DROP_HEIGHT = 0.01  # m between cube and table at the start
DRAW_DIM = 10  # random numbers in an initial state
JOINT_NOISE = 0.02  # rad, standard deviation of the initial posture
OBSERVED_AS = {"object": "object-state"}  # robomimic's names in robosuite
XYZW = [1, 2, 3, 0]  # from MuJoCo's wxyz
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


def draw(rng: np.random.Generator, count: int) -> Array:
    """Random numbers ``[count, DRAW_DIM]`` that encode initial states."""
    return np.hstack([rng.standard_normal((count, 7)), rng.uniform(-1.0, 1.0, (count, 3))])


def initial_qpos(draws: Array, cube_range: tuple[float, float]) -> Array:
    """Initial joint positions ``[n, nq]``, distributed as robosuite's.

    Gaussian noise on the posture; cube uniform on an area, with uniform yaw, just above the table.
    """
    model, rest_qpos, gripper_qpos, cube_half_size = scene()
    cube = model.joint("cube_joint0").qposadr[0]
    half_yaw = 0.5 * np.pi * (1.0 + draws[:, 9])
    qpos = np.zeros((len(draws), model.nq))
    qpos[:, :7] = rest_qpos + JOINT_NOISE * draws[:, :7]
    qpos[:, 7:9] = gripper_qpos
    qpos[:, cube : cube + 2] = cube_range * draws[:, 7:9]
    qpos[:, cube + 2] = TABLE_HEIGHT + DROP_HEIGHT + cube_half_size[2]
    qpos[:, cube + 3], qpos[:, cube + 6] = np.cos(half_yaw), np.sin(half_yaw)
    return qpos


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


class LiftSim(ArmSim):
    """N Lift scenes without episodes: goals in, physics, observations out.

    A control step of the training environment is ``control_step(action)``: the goal of
    ``delta_to_goal``, then ``substep(25)``. A robot process that gets absolute goals calls
    ``set_goal`` and ``substep`` itself, at whatever rate, and has the same dynamics.

    Args:
        num_envs: N.
        num_threads: physics threads; default all available cores.
        cube_range: half the extent in x and y, m, of the area where cubes start.
    """

    camera = View((-0.2, 0.0, 0.97), distance=1.25, azimuth=145.0, elevation=-22.0)
    draw_dim = DRAW_DIM
    draw = staticmethod(draw)

    def __init__(
        self,
        num_envs: int,
        num_threads: int | None = None,
        cube_range: tuple[float, float] = (0.03, 0.03),
    ) -> None:
        self.cube_range = cube_range
        model = scene().model
        joints = [f"robot0_joint{i}" for i in range(1, 8)]
        arm = describe_arm(model, joints, site="gripper0_right_grip_site")
        fingers = [f"gripper0_right_gripper_finger_joint{i}" for i in (1, 2)]
        super().__init__(model, arm, fingers, num_envs, num_threads)
        self._hand = model.body("robot0_right_hand").id
        self._cube = model.body("cube_main").id
        self._cube_qadr = model.joint("cube_joint0").qposadr[0]
        self._finger_qadr = model.joint("gripper0_right_finger_joint1").qposadr[0] + np.arange(2)

    def start(self, ids: NDArray[np.intp], draws: Array) -> None:
        """Put environments ``ids`` into the initial states that ``draws [n, 10]`` encode."""
        self.start_at(ids, initial_qpos(draws, self.cube_range))

    def control_step(self, action: Array, ids: NDArray[np.intp] | None = None) -> None:
        """One action ``[N, 7]`` of the training environment: 50 ms."""
        pose = self.report.eef_pos, self.report.eef_rot
        self.set_goal(delta_to_goal(action, *pose, self.goal.gripper, DeltaScale()), ids)
        self.substep(SUBSTEPS, ids)

    def observe(self, out: Array) -> None:
        """Write the current observations ``[N, 19]`` in the order of the spec."""
        report = self.report
        eef, cube = report.site_xpos[:, self.arm.site], report.xpos[:, self._cube]
        out[:, 0:3] = eef
        out[:, 3:7] = report.xquat[:, self._hand][:, XYZW]
        out[:, 7:9] = report.qpos[:, self._finger_qadr]
        out[:, 9:12] = cube
        out[:, 12:16] = report.xquat[:, self._cube][:, XYZW]
        out[:, 16:19] = cube - eef

    def success(self) -> NDArray[np.bool_]:
        """``[N]`` whether the cube is lifted."""
        return self.report.xpos[:, self._cube, 2] > TABLE_HEIGHT + LIFT_HEIGHT

    def outcome(self) -> Outcome:
        """Sparse reward: 1 while the cube is lifted."""
        lifted = self.success()
        return Outcome(lifted.astype(np.float64), lifted, lifted)


def make(
    num_envs: int,
    *,
    history: int = 1,
    dtype: DTypeLike = np.float32,
    backend: str = "batch",
    max_episode_steps: int = 100,
    terminate_on_success: bool = True,
    cube_range: tuple[float, float] = (0.03, 0.03),
    num_threads: int | None = None,
) -> VecEnv:
    """Factory of the entry point ``lift``.

    Args:
        num_envs: N.
        history: To, observations per observation.
        dtype: of the observations.
        backend: ``batch``, or ``robosuite``: robosuite's own environment in worker processes, the
            same task from the same initial states, ten times slower.
        max_episode_steps: where episodes are truncated.
        terminate_on_success: whether a lifted cube ends the episode.
        cube_range: half the extent in x and y, m, of the area where cubes start.
        num_threads: threads (``robosuite``: processes); default all available cores.
    """
    sim: BatchSim
    if backend == "batch":
        sim = LiftSim(num_envs, num_threads, cube_range)
    elif backend == "robosuite":
        sim = oracle(num_envs, num_threads, cube_range)
    else:
        raise GenpolicyError(f"backend={backend!r} does not exist: choose batch or robosuite")
    return BatchEnv(
        sim,
        task_spec(max_episode_steps),
        history=history,
        dtype=dtype,
        terminate_on_success=terminate_on_success,
    )


def oracle(num_envs: int, num_workers: int | None, cube_range: tuple[float, float]) -> RobosuiteSim:
    """The same task in robosuite's own environment."""
    spec = task_spec()
    return RobosuiteSim(
        partial(robosuite_env, seed=MODEL_SEED),
        [OBSERVED_AS.get(feature.name, feature.name) for feature in spec.observations],
        spec.obs_dim,
        num_envs,
        num_workers,
        draw=draw,
        draw_dim=DRAW_DIM,
        initial_qpos=partial(initial_qpos, cube_range=cube_range),
    )
