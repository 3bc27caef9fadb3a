"""DeepMind Control tasks: dm_control's own scenes, its rules re-stated for the compiled engine.

Tassa et al., "DeepMind Control Suite", arXiv 1801.00690. Only dm_control's XML is used at run time
(importing its suite would look for a screen); the tests hold every rule against dm_control itself.

All tasks here last 1000 control steps and never end earlier: the time limit truncates. Rewards are
in [0, 1]. The control mode is ``actuator``: an action is what the scene's actuators get, in their
control ranges, held for one control step.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import mujoco
import numpy as np

from genpolicy.spec import ActionSpec, Feature, TaskSpec, VecEnv
from genpolicy_sim.compiled_sim import CompiledTask, Initial, compiled_env
from genpolicy_sim.episodes import Array

EPISODE_STEPS = 1000


@dataclass(frozen=True)
class Task:
    """One task, complete.

    Attributes:
        name: as in the entry point.
        robot: the suite's domain.
        model: its scene, ``load_model``.
        substeps: timesteps in a control step.
        features: what is observed, in the suite's order.
        loop: its compiled loop.
        constants: of the loop, a named tuple.
        draw: ``(rng, count) -> [count, nq + nv + target_dim]``: positions, velocities, target.
        camera: the scene's, for films.
        target_dim: coordinates of the target that each episode has, its ``memo``.
        show: puts the target of a scene there, for films.
        settle: what else happens before an episode: joint positions ``[n, nq]`` to positions and
            velocities; default at rest.
    """

    name: str
    robot: str
    model: mujoco.MjModel
    substeps: int
    features: tuple[Feature, ...]
    loop: Callable[..., None]
    constants: Any
    draw: Callable[[np.random.Generator, int], Array]
    camera: str
    target_dim: int = 0
    show: Callable[[mujoco.MjModel, Array], None] | None = None
    settle: Callable[[Array], tuple[Array, Array]] | None = None


def load_model(domain: str) -> mujoco.MjModel:
    """Compile the scene of a domain from the installed dm_control."""
    path = files("dm_control").joinpath("suite", f"{domain}.xml")
    with warnings.catch_warnings():
        # The cheetah's XML sets its mass in a way that MuJoCo wants to drop.
        warnings.filterwarnings("ignore", message=".*settotalmass.*")
        return mujoco.MjSpec.from_file(str(path)).compile()


def task_spec(task: Task) -> TaskSpec:
    """What a task observes and commands."""
    model = task.model
    names = tuple(model.actuator(i).name for i in range(model.nu))
    low, high = (tuple(bound.tolist()) for bound in model.actuator_ctrlrange.T)
    return TaskSpec(
        task=task.name,
        robot=task.robot,
        observations=task.features,
        action=ActionSpec(names, ("control",) * model.nu, low, high),
        control_mode="actuator",
        control_hz=1.0 / (task.substeps * model.opt.timestep),
        max_episode_steps=EPISODE_STEPS,
        versions={name: version(name) for name in ("mujoco", "dm_control")},
        score="return",
    )


def random_joints(model: mujoco.MjModel, rng: np.random.Generator, count: int) -> Array:
    """Joint positions ``[count, nq]`` as the suite randomises them.

    Limited joints are uniform in their range, unlimited hinges on the circle; slides without
    limits stay. Free bodies stay in place and turn by a normalised quaternion whose entries are
    uniform in [0, 1]: not all rotations, and what published results were made with.
    """
    qpos = np.tile(model.qpos0, (count, 1))
    for joint in map(model.joint, range(model.njnt)):
        place = joint.qposadr[0]
        if joint.type[0] == mujoco.mjtJoint.mjJNT_FREE:
            qpos[:, place + 3 : place + 7] = unit(rng.uniform(size=(count, 4)))
        elif joint.limited[0]:
            qpos[:, place] = rng.uniform(joint.range[0], joint.range[1], count)
        elif joint.type[0] == mujoco.mjtJoint.mjJNT_HINGE:
            qpos[:, place] = rng.uniform(-np.pi, np.pi, count)
    return qpos


def unit(vectors: Array) -> Array:
    """Vectors ``[n, d]``, normalised."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def collision_free(
    model: mujoco.MjModel,
    propose: Callable[[np.random.Generator, int], Array],
    rng: np.random.Generator,
    count: int,
) -> Array:
    """Joint positions ``[count, nq]`` from ``propose(rng, count)`` without any contact."""
    data = mujoco.MjData(model)
    qpos = np.zeros((count, model.nq))
    wrong = np.arange(count)
    while len(wrong):
        qpos[wrong] = propose(rng, len(wrong))
        wrong = wrong[[_touches(model, data, qpos[i]) for i in wrong]]
    return qpos


def sensor(model: mujoco.MjModel, name: str) -> int:
    """Where a sensor's first value is in the sensor data."""
    return int(model.sensor(name).adr[0])


def _touches(model: mujoco.MjModel, data: mujoco.MjData, qpos: Array) -> bool:
    data.qpos[:] = qpos
    mujoco.mj_fwdPosition(model, data)
    return data.ncon > 0


def at_rest(model: mujoco.MjModel, qpos: Array, *target: Array) -> Array:
    """Draws ``[count, nq + nv + target_dim]`` of initial states without velocity."""
    return np.hstack([qpos, np.zeros((len(qpos), model.nv)), *target])


def compiled(task: Task) -> CompiledTask:
    """The task as the engine takes it."""
    model = task.model

    def initial(draws: Array) -> Initial:
        qpos, qvel, target = np.split(draws, [model.nq, model.nq + model.nv], axis=1)
        if task.settle is not None:
            qpos, qvel = task.settle(qpos)
        return Initial(qpos, qvel, target)

    return CompiledTask(
        model=model,
        substeps=task.substeps,
        run=task.loop,
        constants=task.constants,
        obs_dim=sum(feature.dim for feature in task.features),
        action_dim=model.nu,
        draw=task.draw,
        draw_dim=model.nq + model.nv + task.target_dim,
        initial=initial,
        memo_dim=task.target_dim,
        show=task.show,
        camera=task.camera,
    )


def make(task: Task, num_envs: int, **options: Any) -> VecEnv:
    """Environments of a task; options as in ``compiled_env``."""
    return compiled_env(compiled(task), task_spec(task), num_envs, **options)
