"""What tasks in robosuite's scenes share: Pandas under OSC_POSE, observations, a sparse reward.

A task's own module holds its scene, where objects start, what is observed of them and when it is
achieved: a subclass of ``TaskSim`` and a factory that calls ``make``.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import DTypeLike, NDArray

from genpolicy.spec import ActionSpec, Feature, GenpolicyError, TaskSpec, VecEnv
from genpolicy_sim import robosuite_compat
from genpolicy_sim.arm_sim import ArmSim
from genpolicy_sim.batch_env import BatchEnv, BatchSim, Outcome
from genpolicy_sim.oracle import RobosuiteSim
from genpolicy_sim.osc import Array, DeltaScale, Goal, delta_to_goal, describe_arm
from genpolicy_sim.quaternions import XYZW
from genpolicy_sim.rendering import View

SUBSTEPS = 25  # of 2 ms: 20 Hz
ROBOT = "Panda"
JOINTS = 7
JOINT_NOISE = 0.02  # rad, standard deviation of the initial posture
MODEL_SEED = 0  # robosuite draws sizes of objects when it builds a scene: the same for everybody
OBSERVED_AS = {"object": "object-state"}  # robomimic's names in robosuite
ARM_FEATURES = (("eef_pos", 3, "m"), ("eef_quat", 4, "xyzw"), ("gripper_qpos", 2, "m"))
ACTION_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


@dataclass(frozen=True)
class Scene:
    """A scene that robosuite has compiled, and facts about it that are not in the model."""

    model: mujoco.MjModel
    rest_qpos: Array  # [7] rad, mean initial posture
    gripper_qpos: Array  # [2] m, initial opening


def robosuite_env(name: str, num_arms: int = 1, **kwargs: Any) -> Any:
    """Environment ``name`` of robosuite as these tasks configure it."""
    return robosuite_compat.load().make(
        name,
        robots=[ROBOT] * num_arms,
        control_freq=20,
        hard_reset=False,
        ignore_done=True,
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        **kwargs,
    )


def scene_of(env: Any) -> Scene:
    """The scene of a robosuite environment."""
    robot = env.robots[0]
    return Scene(
        env.sim.model._model,
        np.array(robot.init_qpos),
        np.array(robot.gripper["right"].init_qpos),
    )


def arms_at_rest(scene: Scene, noise: Array) -> Array:
    """Joint positions ``[n, nq]``: all arms in their initial posture, all else zero.

    Args:
        scene: the scene.
        noise: ``[n, 7 A]`` standard normal.
    """
    qpos = np.zeros((len(noise), scene.model.nq))
    for a in range(noise.shape[1] // JOINTS):
        arm = a * (JOINTS + 2)  # robosuite's models begin with the robots
        posture = noise[:, a * JOINTS : (a + 1) * JOINTS]
        qpos[:, arm : arm + JOINTS] = scene.rest_qpos + JOINT_NOISE * posture
        qpos[:, arm + JOINTS : arm + JOINTS + 2] = scene.gripper_qpos
    return qpos


def put(
    qpos: Array, model: mujoco.MjModel, joint: str, place: Array, height: float, quat: Array
) -> None:
    """Give a free object a pose in joint positions ``qpos [n, nq]``.

    Args:
        qpos: written.
        model: the scene.
        joint: the object's.
        place: ``[n, 2]`` m.
        height: m.
        quat: ``[n, 4]`` wxyz.
    """
    address = model.joint(joint).qposadr[0]
    qpos[:, address : address + 2], qpos[:, address + 2] = place, height
    qpos[:, address + 3 : address + 7] = quat


class TaskSim(ArmSim, ABC):
    """N scenes of one task without episodes: goals in, physics, observations out.

    A control step of the training environment is ``control_step(action)``: the goal of
    ``delta_to_goal``, then ``substep(25)``. A robot process that gets absolute goals calls
    ``set_goal`` and ``substep`` itself, at whatever rate, and has the same dynamics.

    Args:
        num_envs: N.
        num_threads: physics threads; default all available cores.
    """

    # What a task says of itself:
    name: ClassVar[str]
    robosuite_name: ClassVar[str]
    num_arms: ClassVar[int] = 1  # A
    max_episode_steps: ClassVar[int]
    objects: ClassVar[Feature]  # what is observed of them, all together
    camera: ClassVar[View]
    draw_dim: int  # random numbers in an initial state
    scene: ClassVar[Callable[[], Scene]]  # built with robosuite (a second), once per process

    def __init__(self, num_envs: int, num_threads: int | None = None) -> None:
        model, arms, fingers = type(self).scene().model, [], []
        for a in range(self.num_arms):
            joints = [f"robot{a}_joint{i}" for i in range(1, JOINTS + 1)]
            arms.append(describe_arm(model, joints, site=f"gripper{a}_right_grip_site"))
            fingers.append([f"gripper{a}_right_gripper_finger_joint{i}" for i in (1, 2)])
        super().__init__(model, tuple(arms), fingers, num_envs, num_threads)
        self._hands = [model.body(f"robot{a}_right_hand").id for a in range(self.num_arms)]
        self._bases = np.zeros((self.num_arms, 3, 3))  # orientations
        for a, base in enumerate(self._bases):
            mujoco.mju_quat2Mat(base.reshape(9), model.body(f"robot{a}_base").quat)

    @staticmethod
    @abstractmethod
    def draw(rng: np.random.Generator, count: int, /) -> Array:
        """Random numbers ``[count, draw_dim]`` that encode initial states."""

    @abstractmethod
    def initial_qpos(self, draws: Array) -> Array:
        """Initial joint positions ``[n, nq]``, distributed as robosuite's."""

    def start(self, ids: NDArray[np.intp], draws: Array) -> None:
        """Put environments ``ids`` into the initial states that ``draws [n, draw_dim]`` encode."""
        self.start_at(ids, self.initial_qpos(draws))

    def control_step(self, action: Array, ids: NDArray[np.intp] | None = None) -> None:
        """One action ``[N, 7 A]`` of the training environment: 50 ms."""
        self.set_goal(self.goal_of(action), ids)
        self.substep(SUBSTEPS, ids)

    def goal_of(self, action: Array) -> Goal:
        """Absolute goals of actions ``[N, 7 A]``, each arm's in the frame of its base."""
        arms = action.reshape(self.num_envs, self.num_arms, 7).copy()
        for part in (slice(0, 3), slice(3, 6)):
            arms[..., part] = np.einsum("aij,naj->nai", self._bases, arms[..., part])
        pose = self.report.eef_pos, self.report.eef_rot
        return delta_to_goal(arms.reshape(-1, 7), *pose, self.goal.gripper, DeltaScale())

    def observe(self, out: Array) -> None:
        """Write the current observations ``[N, obs_dim]`` in the order of the spec."""
        report = self.report
        for a, (arm, hand) in enumerate(zip(self.arms, self._hands, strict=True)):
            part, fingers = out[:, 9 * a : 9 * a + 9], arm.qadr[-1] + np.arange(1, 3)
            part[:, 0:3] = report.site_xpos[:, arm.site]
            part[:, 3:7] = report.xquat[:, hand][:, XYZW]
            part[:, 7:9] = report.qpos[:, fingers]
        self.observe_objects(out[:, 9 * self.num_arms :])

    @abstractmethod
    def observe_objects(self, out: Array) -> None:
        """Write what is observed of the objects."""

    @abstractmethod
    def success(self) -> NDArray[np.bool_]:
        """``[N]`` whether the task is achieved."""

    def outcome(self) -> Outcome:
        """Sparse reward: 1 while the task is achieved."""
        achieved = self.success()
        return Outcome(achieved.astype(np.float64), achieved, achieved)

    @classmethod
    def robosuite_env(cls, **kwargs: Any) -> Any:
        """The same task in robosuite."""
        return robosuite_env(cls.robosuite_name, cls.num_arms, **kwargs)

    @classmethod
    def task_spec(cls, max_episode_steps: int | None = None) -> TaskSpec:
        """What is observed and commanded."""
        scale, arms = DeltaScale(), range(cls.num_arms)
        step = f"{scale.position_scale} m", f"{scale.rotation_scale} rad"
        units = (step[0],) * 3 + (step[1],) * 3 + ("sign",)
        prefixes = [""] if cls.num_arms == 1 else [f"robot{a}_" for a in arms]
        seen = [(f"robot{a}_{name}", dim, unit) for a in arms for name, dim, unit in ARM_FEATURES]
        size = 7 * cls.num_arms
        return TaskSpec(
            task=cls.name,
            robot="+".join([ROBOT] * cls.num_arms),
            observations=(*(Feature(name, (dim,), unit) for name, dim, unit in seen), cls.objects),
            action=ActionSpec(
                tuple(prefix + name for prefix in prefixes for name in ACTION_NAMES),
                units * cls.num_arms,
                (-1.0,) * size,
                (1.0,) * size,
            ),
            control_mode="osc_pose_delta",
            control_hz=20.0,
            max_episode_steps=max_episode_steps or cls.max_episode_steps,
            control=vars(scale).copy(),
            versions={name: version(name) for name in ("mujoco", "robosuite")},
        )


def make(
    kind: type[TaskSim],
    num_envs: int,
    *,
    history: int = 1,
    dtype: DTypeLike = np.float32,
    backend: str = "batch",
    max_episode_steps: int | None = None,
    terminate_on_success: bool = True,
    num_threads: int | None = None,
    **options: Any,
) -> VecEnv:
    """Environments of one task.

    Args:
        kind: the task.
        num_envs: N.
        history: To, observations per observation.
        dtype: of the observations.
        backend: ``batch``, or ``robosuite``: robosuite's own environment in worker processes, the
            same task from the same initial states, ten times slower.
        max_episode_steps: where episodes are truncated; default the task's.
        terminate_on_success: whether success ends the episode.
        num_threads: threads (``robosuite``: processes); default all available cores.
        **options: the task's own.

    Raises:
        GenpolicyError: no such backend.
    """
    sim: BatchSim
    if backend == "batch":
        sim = kind(num_envs, num_threads, **options)
    elif backend == "robosuite":
        sim = oracle(kind(1, 1, **options), num_envs, num_threads)
    else:
        raise GenpolicyError(f"backend={backend!r} does not exist: choose batch or robosuite")
    return BatchEnv(
        sim,
        kind.task_spec(max_episode_steps),
        history=history,
        dtype=dtype,
        terminate_on_success=terminate_on_success,
    )


def oracle(sim: TaskSim, num_envs: int, num_workers: int | None) -> RobosuiteSim:
    """The task of ``sim``, from its initial states, in robosuite's own environment."""
    spec = sim.task_spec()
    return RobosuiteSim(
        partial(robosuite_env, sim.robosuite_name, sim.num_arms, seed=MODEL_SEED),
        [OBSERVED_AS.get(feature.name, feature.name) for feature in spec.observations],
        spec.obs_dim,
        num_envs,
        num_workers,
        draw=sim.draw,
        draw_dim=sim.draw_dim,
        initial_qpos=sim.initial_qpos,
    )
